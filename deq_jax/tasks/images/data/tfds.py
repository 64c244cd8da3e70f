"""Image classification by a data set's name in tensorflow-datasets: prepared data are read without TensorFlow."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deq_jax.tasks.images.data.dataset import Dataset
from deq_jax.tasks.images.data.form import Form, UnusableError, form_of, opened
from deq_jax.tasks.images.data.records import Records, dataset_of
from deq_jax.tasks.images.data.split import is_test
from deq_jax.tasks.images.groups import DataConfig
from deq_jax.training.errors import UserError

_OFFLINE = "To train without it: python train.py digits"
_TITLES = {"cifar10": "CIFAR-10"}
_AT_ONCE = 512
_TEST_SPLITS = ("test", "validation")


class _Keys(NamedTuple):
    """What a record calls its image and its label, and the names of the classes."""

    image: str
    label: str
    classes: tuple[str, ...]


def read(name: str, split: str, data_dir: Path | None, how: DataConfig) -> Dataset:
    """The split "train" or "test" of a data set; without a test split its validation split, or a stratified fifth.

    A `data_dir` is only read. Without one TFDS's own default folder is used, and the data set downloaded to it where it
    is missing, for which TensorFlow is needed that once.

    Raises:
        UserError: there is no such data set, or it is no image classification; the folder is missing, empty, damaged or
            holds something else; TensorFlow or the network is missing.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.proto.tf_example_generated_pb2 import Example

    builder = _found(tfds, name, data_dir)
    keys = _require_classification(name, builder)
    _require_ready(name, builder, data_dir)

    def failed(what: str, error: Exception) -> UserError:
        return UserError(
            f"the {what} split of {_TITLES.get(name, name)} in {builder.data_dir} cannot be read "
            f"({type(error).__name__}); prepare it again.\n{_OFFLINE}"
        )

    def opened_split(name: str) -> Any:
        try:
            source = builder.as_data_source(name, decoders={keys.image: tfds.decode.SkipDecoding()})
            source[len(source) - 1]
            return source
        except Exception as error:  # a damaged file surfaces as any of a dozen types from three libraries
            raise failed(name, error) from error

    test = next((one for one in _TEST_SPLITS if one in builder.info.splits), None)
    if "train" not in builder.info.splits:
        raise UserError(f"tfds:{name} has no split train, only {', '.join(builder.info.splits)}; give another.")
    train = opened_split("train")
    stored = test if split == "test" and test is not None else "train"
    source = train if stored == "train" else opened_split(stored)
    rows = np.arange(len(source))

    def read_rows(numbers: Sequence[int]) -> list[tuple[bytes, int]]:
        try:
            # The two that are asked for, as they are stored: TFDS's own reading of a record takes ten times as long.
            encoded = source.data_source.__getitems__(rows[np.asarray(numbers)].tolist())
            found = [Example.FromString(record).features.feature for record in encoded]
            labels = [int(record[keys.label].int64_list.value[0]) for record in found]
        except Exception as error:  # as above
            raise failed(stored, error) from error
        wrong = [label for label in labels if not 0 <= label < len(keys.classes)]
        if wrong:
            raise UserError(
                f"labels of the {stored} split of tfds:{name} are out of range: one is {wrong[0]}, but there are "
                f"{len(keys.classes)} classes. A split without labels cannot be used."
            )
        # A damaged file may have lost an image.
        images = [next(iter(record[keys.image].bytes_list.value), b"") for record in found]
        return list(zip(images, labels, strict=True))

    if test is None:
        starts = range(0, len(rows), _AT_ONCE)
        labels = [label for start in starts for _, label in read_rows(range(len(rows))[start : start + _AT_ONCE])]
        rows = np.flatnonzero(is_test(np.array(labels)) == (split == "test"))
    try:
        form, encoding = form_of(how, [opened(train[0][keys.image] or b"")]), opened(read_rows([0])[0][0]).format
    except UnusableError as error:
        raise failed(stored, error) from error
    records = Records(
        size=len(rows),
        name=lambda row: f"image {row} of the {stored} split of tfds:{name}",
        read=read_rows,
        check=_trusted,
        encoding=encoding,
    )
    return dataset_of(records, form, keys.classes, how)


def _trusted(row: int, form: Form) -> None:
    """TFDS has decoded what it has prepared."""


def _found(tfds: Any, name: str, data_dir: Path | None) -> Any:
    """The builder of the data set, which may not be prepared yet."""
    if data_dir is not None:
        _require_prepared(name, data_dir)
    try:
        return tfds.builder(name, data_dir=data_dir, file_format="array_record")
    except Exception as error:  # TFDS's own, and what reading a damaged description raises
        reason = " ".join(str(error).split(". ")[0].split())[:120]
        raise UserError(f"TFDS does not open '{name}' ({type(error).__name__}: {reason}).\n{_OFFLINE}") from error


def _require_classification(name: str, builder: Any) -> _Keys:
    """The one image and the one label of a record; of several those that TFDS has under as_supervised."""
    features = builder.info.features
    kinds = {key: type(feature).__name__ for key, feature in (features or {}).items()}
    pair = builder.info.supervised_keys or ()
    chosen = [[key for key in kinds if kinds[key] == kind] for kind in ("Image", "ClassLabel")]
    chosen = [[key for key in keys if key in pair] or keys for keys in chosen]
    if any(len(keys) != 1 for keys in chosen):
        said = ", ".join(f"{key} ({kind})" for key, kind in list(kinds.items())[:5])
        raise UserError(
            f"tfds:{name} is no image classification: a record has {said or 'nothing'}.\n"
            f"Expected one Image and one ClassLabel. {_OFFLINE}"
        )
    (image,), (label,) = chosen
    return _Keys(image, label, tuple(features[label].names))


def _require_ready(name: str, builder: Any, data_dir: Path | None) -> None:
    """Sees to it that the data set's files are in place."""
    if builder.is_prepared():
        return
    if data_dir is not None:
        raise UserError(
            f"{data_dir}/{_base(name)} holds no version that TFDS can read as array_record "
            f"(looked for {builder.data_dir}).\n"
            f"Prepare it by: tfds build {name} --file_format=array_record. {_OFFLINE}"
        )
    _download(_TITLES.get(name, name), builder)


def _require_prepared(name: str, data_dir: Path) -> None:
    """Says what is wrong with a folder that does not hold NAME/VERSION/dataset_info.json."""
    base = _base(name)
    pattern = f"{base}/*/dataset_info.json"
    if any(data_dir.glob(pattern)):
        return
    if not data_dir.exists():
        problem = "does not exist"
    elif not data_dir.is_dir():
        problem = "is a file"
    else:
        names = sorted(entry.name for entry in data_dir.iterdir())
        problem = f"holds {', '.join(names[:3])}{', …' if len(names) > 3 else ''}, no {base}" if names else "is empty"
        if base in names:
            problem = f"holds a folder {base}, but no prepared version in it"
        for parent in (data_dir.absolute().parent, data_dir.absolute().parent.parent):
            if any(parent.glob(pattern)):
                problem += f"; its folder {parent} does: give that"
    version = "3.0.2" if base == "cifar10" else "VERSION"
    raise UserError(
        f"data directory {data_dir} {problem}. "
        f"Expected {base}/{version}/dataset_info.json in it, as TFDS prepares it.\n"
        f"Leave --data-dir out to download {_TITLES.get(name, name)} to TFDS's own folder. {_OFFLINE}"
    )


def _base(name: str) -> str:
    """The folder of a data set: its name and its variant, without a version."""
    return name.partition(":")[0]


def _download(title: str, builder: Any) -> None:
    where = f"{title} is not prepared in {builder.data_dir}"
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            f"{where}, and preparing it needs TensorFlow: pip install 'deq_jax[tfds-prepare]', or give --data-dir.\n"
            f"{_OFFLINE}"
        )
    try:
        builder.download_and_prepare(file_format="array_record")
    except Exception as error:  # requests, urllib3, TFDS and TensorFlow each have their own
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{where}, and downloading it failed ({type(error).__name__}: {reason}).\n"
            f"Where it is prepared already, give --data-dir. {_OFFLINE}"
        ) from error
