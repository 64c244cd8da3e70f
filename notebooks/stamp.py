"""Marks the notebooks with the sources that their stored outputs come from, so that stale outputs can be told."""

import hashlib
from pathlib import Path

import nbformat

KEY = "outputs_of"


def digest(notebook: nbformat.NotebookNode) -> str:
    """SHA-256 of all cells of code."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()


if __name__ == "__main__":
    for path in sorted(Path(__file__).parent.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        notebook.metadata[KEY] = digest(notebook)
        nbformat.write(notebook, path)
