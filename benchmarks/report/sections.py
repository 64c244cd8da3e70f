"""Sections of a page that other commands write: each between two comments, so that it can be found again."""

import re
from pathlib import Path

_SECTION = re.compile(r"<!-- begin (?P<name>[^\n]+?) -->\n.*?<!-- end (?P=name) -->\n", re.DOTALL)


def put(page: Path, name: str, text: str) -> None:
    """Write a section, in the place of that of its name, or at the end."""
    section = f"<!-- begin {name} -->\n{text}\n<!-- end {name} -->\n"
    before = page.read_text(encoding="utf-8") if page.exists() else ""
    there = [match for match in _SECTION.finditer(before) if match["name"] == name]
    if there:
        after = before[: there[0].start()] + section + before[there[0].end() :]
    else:
        after = f"{before.rstrip()}\n\n{section}".lstrip()
    page.write_text(after, encoding="utf-8")


def kept(page: Path) -> list[str]:
    """All sections of a page, which is to be written anew."""
    if not page.exists():
        return []
    return [match[0] for match in _SECTION.finditer(page.read_text(encoding="utf-8"))]
