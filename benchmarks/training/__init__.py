"""One training step of the chapter's model, by deq_jax and by everyone else: ``python -m benchmarks.training``."""
