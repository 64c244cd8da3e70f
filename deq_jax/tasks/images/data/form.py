"""The one form that images are brought to: bytes of one size and one number of channels, whatever they were."""

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from deq_jax.tasks.images.groups import DataConfig

Pixels = UInt8[np.ndarray, "height width channels"]
_ORIENTATION = 0x0112
_GREY = ("1", "L", "LA", "La", "I", "F")


class Form(NamedTuple):
    """What every image becomes."""

    height: int
    width: int
    channels: int
    resizes: bool = False
    """Whether images of other sizes are resized and cropped; else they are refused."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return self.height, self.width, self.channels


class UnusableError(ValueError):
    """Something is no image, or none of this form: says what it is, to follow its name."""


def form_of(how: DataConfig, samples: Sequence[Image.Image]) -> Form:
    """The form that the settings ask for, and where they leave it open that of these first images.

    Images are grey where all of these are; their size is that of the first.
    """
    width, height = samples[0].size
    if how.height_width is not None:
        height, width = how.height_width
    are_grey = all(image.mode in _GREY or image.mode.startswith("I;16") for image in samples)
    return Form(height, width, how.channels or (1 if are_grey else 3), resizes=how.size is not None)


def opened(encoded: bytes) -> Image.Image:
    """An image whose pixels are not read yet, upright as its camera says.

    Raises:
        UnusableError: it is none.
    """
    try:
        image = Image.open(io.BytesIO(encoded))
        return ImageOps.exif_transpose(image) if _is_turned(image) else image
    except Exception as error:  # Pillow's readers of damaged files raise as their authors happened to
        raise UnusableError("is no image that Pillow can read" if encoded else "is empty") from error


def decoded(encoded: bytes | UnusableError, form: Form) -> Pixels:
    """The pixels of an encoded image in this form; raises UnusableError where that cannot be, or what it is given."""
    if isinstance(encoded, UnusableError):
        raise encoded
    image = opened(encoded)
    try:
        if form.resizes and image.format == "JPEG":
            side = 2 * max(form.height, form.width)
            image.draft(image.mode, (side, side))  # decodes a large photograph at a half, a quarter, an eighth
        image.load()
    except Exception as error:
        reason = "is truncated" if "truncated" in str(error) or isinstance(error, EOFError) else "is damaged"
        raise UnusableError(f"{reason} ({str(error)[:60]})") from error
    return fitted(image, form)


def fitted(image: Image.Image, form: Form) -> Pixels:
    """An image in this form: its shorter side fitted, what is over of the longer cropped on both ends alike."""
    image = _plain(image, form.channels)
    if image.size != (form.width, form.height):
        if not form.resizes:
            raise UnusableError(
                f"is {image.height}×{image.width} pixels, where others are {form.height}×{form.width} "
                f"(--data.size resizes them)"
            )
        image = ImageOps.fit(image, (form.width, form.height), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(form.shape)


def _plain(image: Image.Image, channels: int) -> Image.Image:
    """Eight bits a channel, grey or RGB; 16 bits are divided by 257, and what is transparent shows white."""
    if image.mode == "F":
        raise UnusableError("holds floating-point numbers, not bytes")
    if image.mode.startswith("I"):
        levels = np.clip(np.asarray(image).astype(np.float64), 0, 65535)
        image = Image.fromarray(np.rint(levels / 257).astype(np.uint8))
    if "transparency" in image.info or image.mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)  # which would copy


def _is_turned(image: Any) -> bool:
    if "exif" not in image.info and image.format != "TIFF":  # looking into it costs as much as a small image
        return False
    return image.getexif().get(_ORIENTATION, 1) != 1
