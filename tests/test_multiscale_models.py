"""Classifiers around a cell of several resolutions; the cell itself is in test_multiscale.py."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import deq_jax
from deq_jax import nn
from deq_jax.tasks.images.build import build_model
from deq_jax.tasks.images.presets import PRESETS
from deq_jax.training.errors import UserError
from tests.runs import tiny
from tests.test_unrolled import MODEL


def count(part):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(part, nnx.Param)))


def shaped(config, shape=(32, 32, 3)):
    return nnx.eval_shape(lambda: build_model(config, shape, 10))


def test_the_authors_smallest_model_has_as_many_parameters_as_theirs():
    """158,890, by part as docs/reference/multiscale.md has them."""
    model = shaped(PRESETS["multiscale-tiny"]())
    cell, head = model.body.cell, model.head
    (down,), (up,) = cell.fusion.paths[1], cell.fusion.paths[0]
    found = {
        "stem": count(model.stem),
        "blocks": [count(block) for block in cell.blocks],
        "up": count(up),
        "down": count(down),
        "after": [count(cell.fusion.convs[i]) + count(cell.fusion.norms[i]) for i in range(2)],
        "bottlenecks": [count(bottleneck) for bottleneck in head.bottlenecks],
        "between": count(head.downs),
        "last": count(head.last),
        "linear": count(head.linear),
    }
    assert found == {
        "stem": 648 + 5_184 + 2 * 48,
        "blocks": [2 * 25_920 + 144 + 240 + 2 * 48] * 2,
        "up": 576 + 48,
        "down": 5_184 + 48,
        "after": [576 + 24] * 2,
        "bottlenecks": [192 + 576 + 256 + 768 + 64, 384 + 2_304 + 1_024 + 1_536 + 128],
        "between": 18_432 + 64 + 128,
        "last": 12_800 + 200 + 400,
        "linear": 2_010,
    }
    assert count(model) == 158_890


def test_the_preset_for_two_cores_is_about_as_large_as_the_one_beside_it():
    assert 1 <= count(shaped(PRESETS["multiscale"]())) / count(shaped(PRESETS["cifar10-fast"]())) < 1.05


def test_one_setting_makes_the_explicit_networks_of_the_same_cells():
    """Tied: no more parameters, evaluated so often; explicit: as many cells, each evaluated once."""
    config = tiny(Path("unused"), model=MODEL)
    kinds = {kind: dataclasses.replace(config, model=dataclasses.replace(MODEL, kind=kind, layers=3)) for kind in KINDS}
    models = {kind: build_model(kinds[kind], (8, 8, 1), 10) for kind in KINDS}
    cell = count(models["deq"].body)
    assert count(models["tied"]) == count(models["deq"])
    assert count(models["explicit"]) == count(models["deq"]) + 2 * cell
    assert [models[kind].cell is None for kind in KINDS] == [False, True, True]
    for kind in ("tied", "explicit"):
        models[kind].eval()
        solution = jax.jit(lambda images, model=models[kind]: model(images)[1])(jnp.ones((2, 8, 8, 1)))
        assert solution.iterations.tolist() == [3, 3]
        assert jnp.isinf(solution.residual).all()
    assert [image.shape for image in solution.value] == [(2, 8, 8, 2), (2, 4, 4, 4)]
    first, second, _ = models["explicit"].body.cells
    assert not np.array_equal(first.blocks[0].conv1.kernel[...], second.blocks[0].conv1.kernel[...])


KINDS = ("deq", "tied", "explicit")


@pytest.mark.long
def test_logits_hear_of_every_scale_and_evaluation_of_no_neighbour():
    head = nn.MultiscaleHead((2, 4, 6), 3, bottlenecks=(2, 1, 2), features=5, rngs=nnx.Rngs(0))
    z = tuple(jax.random.normal(jax.random.key(i), (4, 8 >> i, 8 >> i, 2 * i + 2)) for i in range(3))
    assert [bottleneck.shortcut is None for bottleneck in head.bottlenecks] == [False, True, False]
    head(z)  # moves the running averages
    head.eval()
    gradient = jax.grad(lambda z: jnp.sum(head(z) ** 2))(z)
    assert all(jnp.abs(image).max() > 0 for image in gradient)
    together, alone = head(z), head(tuple(image[1:2] for image in z))
    np.testing.assert_allclose(together[1:2], alone, atol=1e-5)
    with pytest.raises(ValueError, match=r"takes scales of \(2, 4, 6\) channels, got"):
        head(z[:2])
    with pytest.raises(ValueError, match="got 1 of them for 2 scales"):
        nn.MultiscaleHead((2, 4), 3, bottlenecks=(2,), features=5, rngs=nnx.Rngs(0))


def test_the_stem_draws_masks_in_training_alone():
    stem = nn.MultiscaleStem(
        (8, 8, 1), (2, 4), stages=(nn.Stage(3, 2),), dropout=0.5, mean=(0.5,), deviation=(2.0,), rngs=nnx.Rngs(0)
    )
    images = jax.random.uniform(jax.random.key(0), (3, 8, 8, 1))
    first, second = stem(images), stem(images)
    assert first.x.shape == (3, 4, 4, 2) == (3, *stem.out_shape)
    assert [mask.shape for mask in first.masks] == [(3, 1, 1, 2), (3, 1, 1, 4)]
    assert any(not jnp.array_equal(*pair) for pair in zip(first.masks, second.masks, strict=True))
    assert (first.x >= 0).all()
    np.testing.assert_allclose(stem.standardised(images), (images - 0.5) / 2, rtol=1e-6)
    stem.eval()
    assert stem(images).masks == ()


@pytest.mark.parametrize(
    ("changes", "shape", "said"),
    [
        ({}, (9, 8, 1), "2 tiers halve the image 1 times, which 9×8 does not allow"),
        ({"kernel_size": 9}, (8, 8, 1), "kernel_size 9 is too large for an image of 8×8.*at most 7"),
        ({"stem": (4,), "stem_factors": (8,)}, (8, 8, 1), "which 1×1 does not allow"),
        ({"mean": (0.5,) * 3}, (8, 8, 1), "mean and deviation need 1 numbers each"),
    ],
)
def test_images_that_do_not_fit_are_told(changes, shape, said):
    config = tiny(Path("unused"), model=dataclasses.replace(MODEL, **changes))
    with pytest.raises(UserError, match=f"the model does not fit digits: .*{said}"):
        build_model(config, shape, 10)


@pytest.mark.long
def test_gradients_reach_every_parameter():
    solver = functools.partial(deq_jax.anderson, tol=1e-2, max_iter=8)
    model = build_model(tiny(Path("unused"), model=MODEL), (8, 8, 1), 10, solver=solver)
    images, labels = jax.random.uniform(jax.random.key(0), (6, 8, 8, 1)), jnp.arange(6)

    @nnx.jit
    def gradient(model):
        return nnx.grad(lambda model: -jnp.mean(jax.nn.log_softmax(model(images)[0])[jnp.arange(6), labels]))(model)

    for path, leaf in jax.tree.leaves_with_path(nnx.as_pure(gradient(model))):
        # A bias before a batch norm is taken away again.
        name = jax.tree_util.keystr(path)
        assert jnp.abs(leaf).max() > 0 or ("conv" in name and "bias" in name), name
