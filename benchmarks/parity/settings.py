"""What both sides agree on beside the problem. Standard library only: any Python reads it."""

FINAL_RATE = 1e-6
"""What the rate falls to; the chapter's."""

TIGHT_TOL = 1e-6
"""Relative residual for comparing first outputs: at the 1e-2 of training, solvers differ by what it leaves open."""

TIGHT_ITERATIONS = 500
