"""Who takes part: one small program each, that serves :mod:`benchmarks.training.worker` in a process of its own."""
