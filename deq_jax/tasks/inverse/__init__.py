"""Inverse problems: a photograph from what a blur has left of it."""
