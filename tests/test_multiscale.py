"""The cell of several resolutions; what a run trains with it is in test_multiscale_models.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

import deq_jax
from deq_jax import nn
from deq_jax.nn.deq import prepared
from deq_jax.nn.multiscale.cell import mask_shapes
from deq_jax.nn.multiscale.fusion import enlarged
from tests.test_weight_normalisation import loops
from tests.unchecked import unchecked

TIGHT = functools.partial(deq_jax.anderson, tol=1e-12, max_iter=300)


def made(channels=(2, 2), dtype=jnp.float32, strength=3.0):
    """A cell that hears its injection and its other scales louder than itself, so that there is an equilibrium."""
    cell = nn.MultiscaleCell(channels, expansion=2, num_groups=2, param_dtype=dtype, rngs=nnx.Rngs(1))
    norms = [block.norm2 for block in cell.blocks]
    norms += [part for _, part in nnx.iter_modules(cell.fusion) if isinstance(part, nn.GroupNorm) and part.bias]
    for norm in norms:
        norm.scale[...] *= strength
    return cell


def drawn(batch, channels=2, side=4, dtype=jnp.float64, seed=0):
    return 3.0 * jax.random.normal(jax.random.key(seed), (batch, side, side, channels), dtype)


def params():
    return nnx.as_pure(nnx.state(made(dtype=jnp.float64), nnx.Param))


@jax.jit
def z_star(params, x, masks=()):
    """The equilibrium of the cell of these parameters; NaN where it is not found."""
    cell = made(dtype=jnp.float64)
    nnx.update(cell, params)
    solution = nn.DEQ(cell, solver=TIGHT, per_sample=False)(cell.inject(x, masks))
    is_found = (solution.status == deq_jax.Status.CONVERGED)[:, None, None, None]
    return jax.tree.map(lambda image: jnp.where(is_found, image, jnp.nan), solution.value)


def summed(weights, state):
    return sum(jnp.vdot(*pair) for pair in zip(weights, state, strict=True))


# One evaluation, written anew: convolutions as sums over shifts, and norms over reshaped groups.


def convolved(image, kernel, stride=1):
    height, width, half = *image.shape[1:3], kernel.shape[0] // 2
    padded = np.pad(image, ((0, 0), (half, half), (half, half), (0, 0)))
    shifts = [
        padded[:, i : i + height, j : j + width] @ kernel[i, j]
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    ]
    return sum(shifts)[:, ::stride, ::stride]


def grouped(image, groups, scale=1.0, bias=0.0):
    split = image.reshape(*image.shape[:3], groups, -1)
    centred = split - split.mean((1, 2, 4), keepdims=True)
    return (centred / np.sqrt(split.var((1, 2, 4), keepdims=True) + 1e-5)).reshape(image.shape) * scale + bias


def normed(norm, image):
    return grouped(image, norm.num_groups, np.asarray(norm.scale[...]), np.asarray(norm.bias[...]))


def weight_of(conv):
    v = np.asarray(conv.kernel[...])
    if isinstance(conv, nn.Conv):
        return v
    return np.asarray(conv.gain[...]) * v / np.sqrt((v**2).sum((0, 1, 2)))


def by_hand(cell, z, x, masks):
    alone = []
    for scale, (block, image) in enumerate(zip(cell.blocks, z, strict=True)):
        y = np.maximum(normed(block.norm1, convolved(image, weight_of(block.conv1))), 0)
        y = masks[scale] * convolved(y, weight_of(block.conv2)) + (x if scale == 0 else 0)
        alone.append(normed(block.norm3, np.maximum(image + normed(block.norm2, y), 0)))
    out = []
    for target in range(len(alone)):
        heard = alone[target]
        paths = iter(cell.fusion.paths[target])
        for source, image in enumerate(alone):
            if source > target:
                path, factor = next(paths), 2 ** (source - target)
                y = normed(path.norm, convolved(image, weight_of(path.conv)))
                heard = heard + y.repeat(factor, 1).repeat(factor, 2)
            if source < target:
                path, y = next(paths), image
                assert len(path.convs) == target - source
                for k, (conv, norm) in enumerate(zip(path.convs, path.norms, strict=True)):
                    y = normed(norm, convolved(np.maximum(y, 0) if k else y, weight_of(conv), stride=2))
                heard = heard + y
        kernel = weight_of(cell.fusion.convs[target])
        out.append(grouped(convolved(np.maximum(heard, 0), kernel), cell.fusion.norms[target].num_groups))
    return out


def test_an_evaluation_is_its_equation(x64):
    """Three scales, so that there are paths over two halvings; to what float64 rounds."""
    channels, rng = (2, 4, 6), np.random.default_rng(0)
    cell = made(channels, jnp.float64)
    nnx.update(cell, jax.tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape), nnx.state(cell, nnx.Param)))
    z = [rng.normal(size=(2, 8 >> i, 12 >> i, width)) for i, width in enumerate(channels)]
    x = rng.normal(size=(2, 8, 12, 2))
    masks = [rng.integers(0, 2, shape) * 2.0 for shape in mask_shapes(channels, 2)]
    found = jax.jit(lambda z, x, masks: cell(z, cell.inject(x, masks)))(tuple(z), x, tuple(masks))
    for one, other in zip(found, by_hand(cell, z, x, masks), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-11)


def test_a_pixel_becomes_a_square_of_the_nearest():
    image = jnp.arange(6.0).reshape(1, 2, 3, 1)
    np.testing.assert_array_equal(enlarged(image, 2)[0, :, :, 0], np.kron(image[0, :, :, 0], np.ones((2, 2))))


@pytest.fixture(scope="module")
def gradients():
    """Weights of a sum over an equilibrium of 4×4 and 2×2 pixels, and its gradient by ``(params, injection)``."""
    with jax.enable_x64(True):
        y = drawn(1, side=4, seed=3), drawn(1, side=2, seed=4)
        gradient = jax.grad(lambda params, x: summed(y, z_star(params, x)), argnums=(0, 1))
        return y, jax.jit(gradient)(params(), drawn(1))


def test_gradients_of_input_and_parameters_are_those_of_finite_differences(x64, gradients):
    """Along random directions, to five digits: differences of solves to 1e-12, steps of 1e-6."""
    y, found = gradients
    at = (params(), drawn(1))
    flat, unflat = ravel_pytree(at)
    for seed in range(3):
        direction = jax.random.normal(jax.random.key(seed), flat.shape)
        ahead, behind = (summed(y, z_star(*unflat(flat + h * direction))) for h in (1e-6, -1e-6))
        expected = jnp.vdot(ravel_pytree(found)[0], direction)
        np.testing.assert_allclose((ahead - behind) / 2e-6, expected, rtol=1e-5)


@pytest.mark.long
def test_gradients_are_those_of_a_dense_solve(x64, gradients):
    """``Jᵀ`` of both scales formed as one matrix."""
    y, found = gradients
    graph, x = nnx.split(made(dtype=jnp.float64))[0], drawn(1)
    z, unflat = ravel_pytree(z_star(params(), x))

    @jax.jit
    def expected(params, x):
        def f(z, params, x):
            cell = nnx.merge(graph, params)
            return ravel_pytree(cell(unflat(z), cell.inject(x)))[0]

        jacobian = jax.jacobian(f)(z, params, x)
        g = jnp.linalg.solve(jnp.eye(z.size) - jacobian.T, ravel_pytree(y)[0])
        return jax.vjp(lambda *args: f(z, *args), params, x)[1](g)

    for one, other in zip(*map(jax.tree.leaves, (found, expected(params(), x))), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-9)


@pytest.mark.long
def test_every_sample_stops_by_itself():
    """Its answer and its evaluations are the same without those beside it, whatever scale is the last to settle."""
    cell = made()
    layer = nn.DEQ(cell, solver=functools.partial(deq_jax.anderson, tol=1e-3, max_iter=100))
    x = drawn(16, dtype=jnp.float32) * jnp.linspace(0.3, 3.0, 16)[:, None, None, None]
    solve = jax.jit(lambda x: layer(cell.inject(x)))
    together, alone = solve(x), solve(x[5:6])
    assert len(set(together.iterations.tolist())) > 1
    assert alone.iterations[0] == together.iterations[5]
    for one, other in zip(alone.value, together.value, strict=True):
        np.testing.assert_allclose(one[0], other[5], atol=1e-4)
    z = cell.initial_state(cell.inject(x))
    deq_jax.check_independence(lambda z: cell(z, cell.inject(x)), z)


def test_kernels_are_normalised_outside_the_solve():
    """Within there is the square root of each group norm, and one of the solver."""
    cell, x = made(), drawn(2, dtype=jnp.float32)
    layer = nn.DEQ(cell, solver=functools.partial(deq_jax.anderson, tol=1e-3), per_sample=False)
    traced = jax.make_jaxpr(lambda x: layer(cell.inject(x)).value)(x)
    [body] = loops(traced.jaxpr)
    norms = sum(isinstance(part, nn.GroupNorm) for _, part in nnx.iter_modules(cell))
    kernels = sum(isinstance(part, nn.NormalisedConv) for _, part in nnx.iter_modules(cell))
    assert (norms, kernels) == (10, 6)
    assert body.count(" rsqrt") == norms + 1
    assert str(traced).count(" rsqrt") >= norms + kernels
    assert not [part for _, part in nnx.iter_modules(prepared(cell)) if isinstance(part, nn.NormalisedConv)]


def test_a_mask_is_the_same_in_all_evaluations(x64):
    cell, x = made(dtype=jnp.float64), drawn(1)
    masks = tuple(jnp.full(shape, 2.0).at[..., 0].set(0.0) for shape in mask_shapes((2, 2), 1))
    z = z_star(params(), x, masks)
    for one, other in zip(cell(z, cell.inject(x, masks)), z, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)
    assert max(abs(one - other).max() for one, other in zip(cell(z, cell.inject(x)), z, strict=True)) > 1e-2


def test_it_can_be_evaluated_in_bfloat16():
    """States stay float32; a residual has the floor that eight bits allow."""
    cell, x = made((8, 8)), drawn(2, 8, dtype=jnp.float32)
    solver = functools.partial(deq_jax.anderson, tol=2e-2, max_iter=50)
    layer = nn.DEQ(cell, solver=solver, dtype=jnp.bfloat16)
    low = jax.jit(lambda x: layer(cell.inject(x)))(x)
    high = jax.jit(lambda x: nn.DEQ(cell, solver=solver)(cell.inject(x)))(x)
    assert {leaf.dtype for leaf in low.value} == {jnp.dtype("float32")}
    assert (low.status == deq_jax.Status.CONVERGED).all()
    for one, other in zip(low.value, high.value, strict=True):
        assert jnp.linalg.norm(one - other) < 0.1 * jnp.linalg.norm(other)
        assert not jnp.array_equal(one, other)


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (lambda: nn.MultiscaleCell((8,), rngs=nnx.Rngs(0)), "has two at least, got 1"),
        (lambda: nn.MultiscaleCell((8, 12), rngs=nnx.Rngs(0)), "60 channels do not fall into 8 groups"),
        (lambda: nn.MultiscaleCell((8, 8), expansion=0, rngs=nnx.Rngs(0)), "expansion must be"),
        (lambda: nn.MultiscaleCell((8, 8), kernel_size=4, rngs=nnx.Rngs(0)), "kernel_size must be odd, got 4"),
        (lambda: made().inject(jnp.ones((1, 6, 5, 2))), "2 tiers halve the image 1 times, which 6×5 does not allow"),
        (lambda: made().inject(jnp.ones((1, 2, 4, 2))), r"kernel_size 3 is too large for an image of 2×4.*at most 1"),
        (lambda: made().inject(jnp.ones((1, 4, 4, 3))), r"takes an injection \[batch, height, width, 2\]"),
        (lambda: unchecked(nn.MultiscaleCell.inject)(made(), jnp.ones((4, 4, 2))), "one image is a batch of 1"),
    ],
)
def test_mistakes_are_told(mistake, said):
    with pytest.raises(ValueError, match=said):
        mistake()
