import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deq_jax.tasks.images.augmentation import augment

IMAGES = np.random.default_rng(0).integers(0, 256, (200, 6, 5, 3), np.uint8)
KEY = jax.random.key(0)


def test_images_are_flipped_or_left_alone_about_half_and_half():
    flipped = augment(KEY, IMAGES, flip=True)
    same = (flipped == IMAGES).all((1, 2, 3))
    mirrored = (flipped == IMAGES[:, :, ::-1]).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert 70 < mirrored.sum() < 130  # four standard deviations of 200 fair coins


@pytest.mark.parametrize("padding", ["reflect", "zero"])
def test_every_shift_is_drawn_and_what_moves_in_is_as_asked(padding):
    shifted = np.asarray(augment(KEY, IMAGES, shift=2, padding=padding))
    mode = "reflect" if padding == "reflect" else "constant"
    padded = np.pad(IMAGES, [(0, 0), (2, 2), (2, 2), (0, 0)], mode=mode)
    seen = set()
    for image, source in zip(shifted, padded, strict=True):
        found = [
            (row, column)
            for row in range(5)
            for column in range(5)
            if (source[row : row + 6, column : column + 5] == image).all()
        ]
        assert found
        seen.update(found)
    assert len(seen) == 25
    assert shifted.dtype == np.uint8


def test_the_key_settles_it():
    augmented = jax.jit(lambda key: augment(key, IMAGES, flip=True, shift=2))
    np.testing.assert_array_equal(augmented(KEY), augmented(KEY))
    assert (augmented(KEY) != augmented(jax.random.key(1))).any()


def test_without_switches_nothing_changes():
    np.testing.assert_array_equal(augment(KEY, jnp.asarray(IMAGES)), IMAGES)
