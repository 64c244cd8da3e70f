import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_the_readme_s_examples_run():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 2
    names: dict = {}
    for block in blocks:
        exec(compile(block, README.name, "exec"), names)
    assert names["sol"].value.shape == (2, 16, 16, 48)


def test_the_readme_s_pictures_and_files_exist():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text(encoding="utf-8"))
    assert links
    for link in links:
        assert (README.parent / link).exists(), link
