"""Images to learn from: where they come from, a file a source, and the one form that they are brought to."""

from deq_jax.tasks.images.data.dataset import Dataset, Examples, Images, Labels
from deq_jax.tasks.images.data.load import load

__all__ = ["Dataset", "Examples", "Images", "Labels", "load"]
