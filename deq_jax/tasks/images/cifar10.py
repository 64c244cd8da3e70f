"""CIFAR-10 through tensorflow-datasets: prepared data are read without TensorFlow."""

import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from deq_jax.training.errors import UserError

_OFFLINE = "To train without it: python train.py digits"


def load(
    split: str, data_dir: Path | None
) -> tuple[UInt8[np.ndarray, "n 32 32 3"], Int32[np.ndarray, " n"], str | None]:
    """Images and labels of the split "train" or "test", decoded once into memory; and how the images were stored.

    A `data_dir` is only read. Without one TFDS's own default folder is used, and the data set downloaded to it where it
    is missing, for which TensorFlow is needed that once.

    Raises:
        UserError: the folder is missing, empty, damaged or holds something else; TensorFlow or the network is missing.
    """
    import tensorflow_datasets as tfds

    builder = _prepared(tfds, data_dir)
    try:
        source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        records = source.__getitems__(range(len(source)))
        images = np.stack([_decode(record["image"]) for record in records])
        labels = np.array([record["label"] for record in records], np.int32)
        encoding = _open(records[0]["image"]).format
    except Exception as error:  # a damaged file surfaces as any of a dozen types from three libraries
        raise UserError(
            f"the {split} split of CIFAR-10 in {builder.data_dir} cannot be read "
            f"({type(error).__name__}); prepare it again.\n{_OFFLINE}"
        ) from error
    if images.shape[1:] != (32, 32, 3):
        raise UserError(f"{builder.data_dir} holds images of shape {images.shape[1:]}, not CIFAR-10's (32, 32, 3)")
    return images, labels, encoding


def _decode(encoded: bytes) -> UInt8[np.ndarray, "height width channels"]:
    return np.asarray(_open(encoded).convert("RGB"))


def _open(encoded: bytes) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(encoded))


def _prepared(tfds: Any, data_dir: Path | None) -> Any:
    """The builder of CIFAR-10, its files in place."""
    if data_dir is not None:
        _require_prepared(data_dir)
    builder = tfds.builder("cifar10", data_dir=data_dir, file_format="array_record")
    if not builder.is_prepared():
        if data_dir is not None:
            raise UserError(
                f"{data_dir}/cifar10 holds no version that TFDS can read as array_record "
                f"(looked for {builder.data_dir}).\n"
                f"Prepare it by: tfds build cifar10 --file_format=array_record. {_OFFLINE}"
            )
        _download(builder)
    return builder


def _require_prepared(data_dir: Path) -> None:
    """Says what is wrong with a folder that does not hold cifar10/VERSION/dataset_info.json."""
    if any(data_dir.glob("cifar10/*/dataset_info.json")):
        return
    if not data_dir.exists():
        problem = "does not exist"
    elif not data_dir.is_dir():
        problem = "is a file"
    else:
        names = sorted(entry.name for entry in data_dir.iterdir())
        problem = f"holds {', '.join(names[:3])}{', …' if len(names) > 3 else ''}, no cifar10" if names else "is empty"
        if "cifar10" in names:
            problem = "holds a folder cifar10, but no prepared version in it"
        for parent in (data_dir.absolute().parent, data_dir.absolute().parent.parent):
            if any(parent.glob("cifar10/*/dataset_info.json")):
                problem += f"; its folder {parent} does: give that"
    raise UserError(
        f"data directory {data_dir} {problem}. Expected cifar10/3.0.2/dataset_info.json in it, as TFDS prepares it.\n"
        f"Leave --data-dir out to download CIFAR-10 to TFDS's own folder. {_OFFLINE}"
    )


def _download(builder: Any) -> None:
    where = f"CIFAR-10 is not prepared in {builder.data_dir}"
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
