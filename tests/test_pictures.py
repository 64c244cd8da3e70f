"""Image files of every kind as a model's pixels."""

import numpy as np
import pytest
from PIL import Image

from deq_jax.tasks.images.use.pictures import UnreadableError, read, require_channels
from deq_jax.training.errors import UserError

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
COLOURED = np.stack([GREY, GREY[::-1], 255 - GREY], -1)


def saved(tmp_path, pixels, name="picture.png", **options):
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(tmp_path / name, **options)
    return tmp_path / name


def test_a_picture_of_the_model_s_size_stays_as_it_is(tmp_path):
    np.testing.assert_array_equal(read(saved(tmp_path, GREY), (8, 8, 1))[..., 0], GREY)
    np.testing.assert_array_equal(read(saved(tmp_path, COLOURED), (8, 8, 3)), COLOURED)


def test_grey_becomes_colour_and_colour_grey(tmp_path):
    np.testing.assert_array_equal(read(saved(tmp_path, GREY), (8, 8, 3)), np.repeat(GREY[..., None], 3, -1))
    grey = np.asarray(Image.fromarray(COLOURED).convert("L"))
    np.testing.assert_array_equal(read(saved(tmp_path, COLOURED), (8, 8, 1))[..., 0], grey)


def test_sixteen_bits_become_eight(tmp_path):
    np.testing.assert_array_equal(read(saved(tmp_path, GREY.astype(np.uint16) * 257), (8, 8, 1))[..., 0], GREY)


def test_a_palette_is_looked_up(tmp_path):
    palette = Image.fromarray(COLOURED // 64 * 64).quantize(64)
    found = read(saved(tmp_path, palette), (8, 8, 3))
    np.testing.assert_array_equal(found, np.asarray(palette.convert("RGB")))


def test_what_is_transparent_is_white_unless_the_model_takes_it(tmp_path):
    alpha = np.full((8, 8, 1), 255, np.uint8)
    alpha[:4] = 0
    path = saved(tmp_path, np.concatenate([COLOURED, alpha], -1))
    colour = read(path, (8, 8, 3))
    assert (colour[:4] == 255).all()
    np.testing.assert_array_equal(colour[4:], COLOURED[4:])
    assert (read(path, (8, 8, 1))[:4] == 255).all()
    np.testing.assert_array_equal(read(path, (8, 8, 4))[..., 3:], alpha)


def test_a_palette_with_a_transparent_colour_is_read_without_a_warning(tmp_path):
    palette = Image.fromarray(GREY // 64).convert("P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    path = saved(tmp_path, palette, transparency=bytes([0, 255, 255, 255]))
    colour = read(path, (8, 8, 3))
    assert (colour[GREY < 64] == 255).all()
    assert (colour[(GREY >= 64) & (GREY < 128)] == [255, 0, 0]).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "F"])
@pytest.mark.parametrize("size", [(1, 1), (300, 20), (7, 90), (32, 32)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_size_and_mode_is_read(tmp_path, mode, size, channels):
    path = saved(tmp_path, Image.new(mode, size, 1), "picture.tif")
    pixels = read(path, (8, 12, channels))
    assert (pixels.shape, pixels.dtype) == ((8, 12, channels), np.uint8)


def test_the_middle_is_kept(tmp_path):
    wide = np.zeros((80, 240), np.uint8)
    wide[:, 80:160] = 200
    assert (read(saved(tmp_path, wide), (8, 8, 1))[:, 2:-2] == 200).all()


def test_a_photograph_is_turned_as_its_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    turned = read(saved(tmp_path, GREY, exif=exif), (8, 8, 1))[..., 0]
    np.testing.assert_array_equal(turned, GREY[::-1, ::-1])


def test_what_is_no_picture_says_why(tmp_path):
    text, torn = tmp_path / "notes.txt", saved(tmp_path, np.tile(COLOURED, (20, 20, 1)))
    text.write_text("notes")
    torn.write_bytes(torn.read_bytes()[:200])
    (tmp_path / "empty.png").write_text("")
    for path, said in (
        (tmp_path / "missing.png", "no such file"),
        (tmp_path, "is a folder"),
        (text, "no image that Pillow knows"),
        (tmp_path / "empty.png", "no image that Pillow knows"),
        (torn, "truncated"),
    ):
        with pytest.raises(UnreadableError, match=said):
            read(path, (8, 8, 3))


def test_so_many_channels_no_picture_has():
    require_channels(3)
    with pytest.raises(UserError, match="have 5 channels; pictures have 1 to 4"):
        require_channels(5)
