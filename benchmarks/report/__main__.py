"""``python -m benchmarks.report``: RESULTS.md from the files that training runs leave.

A run counts once it has been trained to its end. Runs whose settings differ in the seed alone are one row. Where its
folder holds ``evaluations.jsonl``, as ``python -m benchmarks.report.tolerances`` writes it, that is shown, too.
Sections that other commands have put into the page stay there.
"""

from pathlib import Path

import tyro

from benchmarks.report import picture, sections, tables
from benchmarks.report.runs import finished, grouped


def main(
    runs: Path = Path("runs"), out: Path = Path("RESULTS.md"), image: Path = Path("docs/images/accuracy.png")
) -> None:
    """Write RESULTS.md and its picture from all finished runs below a folder.

    Args:
        runs: the folder that holds the runs' folders.
        out: the page to write.
        image: the picture to draw, to which the page links.
    """
    folders = sorted(path.parent for path in runs.rglob("config.json"))
    found = finished(folders)
    if not found:
        raise SystemExit(f"no finished run below {runs}; train one first: python train.py digits")
    groups = grouped(found)
    picture.draw(groups, image)
    others = sections.kept(out)
    out.write_text("\n".join([tables.page(groups, picture.link(image, out)), *others]), encoding="utf-8")
    print(f"wrote {out} and {image}: {len(found)} of {len(folders)} runs were finished.")


if __name__ == "__main__":
    tyro.cli(main)
