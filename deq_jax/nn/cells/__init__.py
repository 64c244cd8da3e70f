"""Cells: the functions ``f(z, x)`` whose equilibrium is a layer's output."""
