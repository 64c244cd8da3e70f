"""Image files as the pixels that a model takes."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from deq_jax.training.errors import UserError

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""Pillow's names for so many channels."""


class UnreadableError(Exception):
    """A file is no picture that can be read; says why."""


def require_channels(channels: int) -> None:
    """Raises UserError where no picture has so many channels."""
    if channels not in _MODES:
        raise UserError(
            f"the run's images have {channels} channels; pictures have 1 to 4. Use training.load in Python."
        )


def read(path: Path, shape: tuple[int, int, int]) -> UInt8[np.ndarray, "height width channels"]:
    """A picture of any size and mode as pixels of 0 to 255 in this shape.

    It is turned as its camera says; what is transparent is laid over white, unless the model takes an alpha channel; it
    is resized until it covers the shape, and what juts out on two sides is cut off evenly. One that has the size stays
    as it is, pixel by pixel.

    Raises:
        UnreadableError: the file is missing, is no picture, or is damaged.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    height, width, channels = shape
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of oddities that Pillow gets over
            with Image.open(path) as opened:
                picture = _in_mode(ImageOps.exif_transpose(opened), _MODES[channels])
            fitted = ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC)
    except FileNotFoundError as error:
        raise UnreadableError("there is no such file") from error
    except IsADirectoryError as error:
        raise UnreadableError("it is a folder; name the files in it") from error
    except PermissionError as error:
        raise UnreadableError("it may not be read") from error
    except UnidentifiedImageError as error:
        raise UnreadableError("it is no image that Pillow knows") from error
    # A damaged file surfaces as any of these, by its format.
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, Image.DecompressionBombError) as error:
        raise UnreadableError(" ".join(str(error).split()) or type(error).__name__) from error
    return np.asarray(fitted, np.uint8).reshape(shape)


def _in_mode(picture: Any, mode: str) -> Any:
    """The picture in one of the modes above."""
    from PIL import Image

    if picture.mode.startswith("I"):  # grey of 16 bits, which Pillow would cut off at 255
        levels = np.asarray(picture).astype(np.float64)
        picture = Image.fromarray(np.rint(levels.clip(0, 65535) / 257).astype(np.uint8))
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        if not mode.endswith("A"):
            white = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(white, picture).convert("RGB")
    return picture if picture.mode == mode else picture.convert(mode)
