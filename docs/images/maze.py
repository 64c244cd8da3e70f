"""Draws maze.png, a maze larger than any of training being solved: python docs/images/maze.py RUN [SIDE]."""

import sys
from pathlib import Path

import numpy as np

from deq_jax import training
from deq_jax.tasks.puzzles.frames import frames, strip
from deq_jax.tasks.puzzles.problems import Problems, mazes

side = int(sys.argv[2]) if len(sys.argv) > 2 else 33
clues = Problems(mazes(side), "test", 1, seed=5)[np.arange(1)].clues[0]
evaluations = [4, 16, 32, 64, 96, 160]
run = training.load(sys.argv[1])
damping = run.settings.evaluation.beta or run.settings.solver.beta
figure = strip(clues, frames(run.model, clues, evaluations, damping), evaluations)
figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)
