"""Image files to learn from: coloured shapes, drawn where it falls."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("circle", "cross", "ring", "square", "triangle")


def drawn(shape: str, rng: np.random.Generator, size: tuple[int, int] = (72, 64)) -> Image.Image:
    """A shape of any colour, place and size on a ground of any other colour; ``size`` is width and height."""
    ground, colour = (
        tuple(int(level) for level in rng.integers(low, low + 128, 3)) for low in rng.permutation([0, 128])
    )
    image = Image.new("RGB", size, ground)
    draw, r = ImageDraw.Draw(image), int(rng.integers(8, 16))
    x, y = (int(rng.integers(r + 4, side - r - 4)) for side in size)
    box = (x - r, y - r, x + r, y + r)
    if shape == "circle":
        draw.ellipse(box, fill=colour)
    elif shape == "ring":
        draw.ellipse(box, outline=colour, width=4)
    elif shape == "square":
        draw.rectangle(box, fill=colour)
    elif shape == "triangle":
        draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=colour)
    else:
        draw.line((x - r, y, x + r, y), fill=colour, width=5)
        draw.line((x, y - r, x, y + r), fill=colour, width=5)
    return image


def shapes_folder(
    folder: Path, each: int, shapes: tuple[str, ...] = SHAPES, seed: int = 0, size: tuple[int, int] = (72, 64)
) -> Path:
    """``each`` files for every class, folder/CLASS/NUMBER.png."""
    rng = np.random.default_rng(seed)
    for shape in shapes:
        (folder / shape).mkdir(parents=True)
        for number in range(each):
            drawn(shape, rng, size).save(folder / shape / f"{number:03}.png")
    return folder


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    """What a file of the image holds."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()
