"""A folder with a folder of image files for every class, with or without a test split of its own."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deq_jax.tasks.images.data.dataset import Dataset
from deq_jax.tasks.images.data.form import Form, UnusableError, decoded, form_of, opened
from deq_jax.tasks.images.data.records import Records, dataset_of
from deq_jax.tasks.images.data.split import is_test
from deq_jax.tasks.images.groups import DataConfig
from deq_jax.training.errors import UserError

_TEST_FOLDERS = ("test", "val", "validation", "valid")
_EXPECTED = "Expected DIR/CLASS/IMAGE, or DIR/train/CLASS/IMAGE and DIR/test/CLASS/IMAGE"
_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND"}
"""How a JPEG and a PNG begin and end; neither's end occurs within the compressed pixels that one cut off ends in."""


def read(folder: Path, split: str, how: DataConfig) -> Dataset:
    """The split "train" or "test": of a folder without one of its own a stratified fifth, always the same.

    Raises:
        UserError: there is no such folder, it has no two classes, or some of its files are no images.
    """
    train, test = _splits(folder)
    classes = _classes(train)
    files, labels = _files(train, classes)
    form = form_of(how, list(_first_images(train, classes)))
    if test is not None:
        unknown = sorted(set(_folders(test)) - set(classes))
        if unknown:
            raise UserError(f"{test} has classes that {train} lacks: {', '.join(unknown[:3])}. Give both the same.")
        if split == "test":
            present = tuple(name for name in classes if name in set(_folders(test)))
            files, labels = _files(test, present)
            labels = np.array([classes.index(present[label]) for label in labels], np.int32)
    else:
        chosen = is_test(labels) == (split == "test")
        files, labels = [file for file, one in zip(files, chosen, strict=True) if one], labels[chosen]
    if not files:
        raise UserError(f"{folder} leaves no images for its {split} split. {_EXPECTED}.")

    def check(row: int, form: Form) -> None:
        _check(files[row], form)

    records = Records(
        size=len(files),
        name=lambda row: str(files[row]),
        read=lambda rows: ((_tried(files[row]), int(labels[row])) for row in rows),
        check=check,
        encoding=_encoding(files),
        files=_digest(folder, files),
    )
    return dataset_of(records, form, classes, how)


def _splits(folder: Path) -> tuple[Path, Path | None]:
    """The folders of both splits' classes; None for a test split that there is not."""
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"folder {folder} {problem}. {_EXPECTED}.")
    names = _folders(folder)
    if "train" not in names:
        return folder, None
    tests = [folder / name for name in _TEST_FOLDERS if name in names]
    return folder / "train", tests[0] if tests else None


def _classes(folder: Path) -> tuple[str, ...]:
    classes = tuple(_folders(folder))
    if len(classes) < 2:
        holds = f"one folder, {classes[0]}" if classes else "no folders"
        raise UserError(
            f"{folder} holds {holds}, where every class is to have one, and two are the least. {_EXPECTED}."
        )
    return classes


def _files(folder: Path, classes: tuple[str, ...]) -> tuple[list[Path], np.ndarray]:
    """All files of all classes, in an order that does not depend on the file system, and their labels."""
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = [folder / name / entry for entry in _visible(folder / name)]
        if not found:
            raise UserError(f"class {name} is empty: {folder / name} holds no images. Add some, or remove it.")
        files += found
        labels += [label] * len(found)
    return files, np.array(labels, np.int32)


def _first_images(folder: Path, classes: tuple[str, ...]) -> Iterator:
    """The first file of every class that is an image."""
    for name in classes:
        for entry in _visible(folder / name):
            try:
                yield opened(_bytes(folder / name / entry))
            except UnusableError:
                continue
            break
        else:
            raise UserError(f"class {name} has no images: {folder / name} holds files, but none that Pillow can read.")


def _folders(folder: Path) -> list[str]:
    return [name for name in _visible(folder) if (folder / name).is_dir()]


def _visible(folder: Path) -> list[str]:
    """The names in a folder, but for hidden ones and what macOS packs beside a zip's own."""
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith((".", "__MACOSX")))


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except IsADirectoryError as error:
        raise UnusableError("is a folder; a class's folder is to hold images alone") from error
    except OSError as error:
        raise UnusableError(f"cannot be read ({error.strerror})") from error


def _tried(file: Path) -> bytes | UnusableError:
    try:
        return _bytes(file)
    except UnusableError as error:
        return error


def _check(file: Path, form: Form) -> None:
    """Looks at the header, and at how a file ends; decodes it only where the end says nothing."""
    encoded = _bytes(file)
    end = _ENDS.get(encoded[:2])
    if end is None or end not in encoded[-65536:]:
        decoded(encoded, form)
        return
    width, height = opened(encoded).size
    if not form.resizes and (height, width) != (form.height, form.width):
        decoded(encoded, form)  # which says what is wrong


def _encoding(files: list[Path]) -> str | None:
    """JPEG where any file is one, since that loses a little."""
    suffixes = {file.suffix.lower() for file in files}
    return "JPEG" if suffixes & {".jpg", ".jpeg"} else None


def _digest(folder: Path, files: list[Path]) -> str:
    """Of the names, and so of the classes, and of the sizes."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(folder)}\0{file.stat().st_size if file.is_file() else 0}\n".encode())
    return digest.hexdigest()
