"""What the site's build adds to MkDocs: notebooks as pages, files of the repository in pages, and maths as MathML."""

import html
import posixpath
import re
from pathlib import Path
from typing import Any

import nbformat
from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parent.parent
INCLUDE = re.compile(
    r"^<!-- include (?P<path>\S+?)(?: from '(?P<start>[^']+)')?(?: to '(?P<end>[^']+)')? -->$", re.MULTILINE
)
OPTIONAL = {"RESULTS.md"}
"""What is included where it exists: a record of runs, which a fresh repository does not have."""
LINK = re.compile(r"\]\((?!https?:|#)([^)\s]+)\)")
MATHS = re.compile(r'<(span|div) class="arithmatex">\\(?:\(|\[)(.*?)\\(?:\)|\])</\1>', re.DOTALL)


@event_priority(100)  # before the plugin that checks links
def on_files(files: Files, config: Any) -> Files:
    """Add a page for every notebook, with its stored outputs."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        text, pictures = _as_markdown(path)
        files.append(File.generated(config, f"tutorial/{path.stem}.md", content=text))
        for name, data in pictures.items():
            files.append(File.generated(config, f"tutorial/{name}", content=data))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Put the files that a page includes in the place of their markers."""
    del files
    folder, repository = posixpath.dirname(page.file.src_uri), config.extra["repository"]
    return INCLUDE.sub(lambda match: _included(match, folder, repository), markdown)


def on_page_content(content: str, page: Any, config: Any, files: Files) -> str:
    """Turn LaTeX into MathML, which browsers render by themselves."""
    del page, config, files

    def rendered(match: re.Match) -> str:
        display = "block" if match[1] == "div" else "inline"
        return convert(html.unescape(match[2]).strip(), display=display)

    return MATHS.sub(rendered, content)


@event_priority(-100)  # after the plugin that resolves references
def on_post_page(output: str, page: Any, config: Any) -> str:
    """Refuse a reference to a name that the site does not have: it would be left as it was written."""
    del config
    left = re.search(r"\[<code>[\w.]+</code>\]\[\]|:\w+:<code>", output)
    if left:
        raise PluginError(f"{page.file.src_uri} refers to a name that no page of the reference has: {left[0]}")
    return output


def _as_markdown(path: Path) -> tuple[str, dict[str, bytes]]:
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "find_spec" not in cell.source]
    exporter = MarkdownExporter()
    text, resources = exporter.from_notebook_node(notebook, {"unique_key": path.stem, "output_files_dir": path.stem})
    # The badge is a picture from elsewhere.
    text = re.sub(r"\[!\[(Open in Colab)\]\(\S+\)\]\((\S+)\)", r"[\1](\2){ .md-button }", text)
    text = re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.md)", text)
    return re.sub(r"!\[png\]", "![The picture that the code above draws]", text), resources["outputs"]


def _included(match: re.Match, folder: str, repository: str) -> str:
    path = match["path"]
    if path in OPTIONAL and not (ROOT / path).exists():
        return ""
    text = (ROOT / path).read_text(encoding="utf-8")
    start = text.index(match["start"]) if match["start"] else 0
    text = text[start : text.index(match["end"], start) if match["end"] else None]

    def moved(link: re.Match) -> str:
        """The same target: a file of the site, or else a file of the repository."""
        target = link[1]
        if target.startswith("docs/"):
            return f"]({posixpath.relpath(target.removeprefix('docs/'), folder or '.')})"
        return f"]({repository}/blob/main/{target})"

    return LINK.sub(moved, text)
