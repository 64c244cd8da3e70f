import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import deq_jax
from deq_jax import nn
from deq_jax.nn.deq import prepared
from deq_jax.nn.sequence.positions import shifted
from tests.test_weight_normalisation import loops


def made(dtype=jnp.float32, **changes):
    """A cell whose state weighs little against its injection, so that there is one equilibrium."""
    settings = {"heads": 2, "positions": 8, "param_dtype": dtype, "rngs": nnx.Rngs(0)}
    cell = nn.TransformerCell(4, 6, **settings | changes)
    for layer, factor in ((cell.out, 3.0), (cell.attend, 0.3), (cell.back, 0.3)):
        layer.gain[...] *= factor
    return cell


def inputs(batch, length, seed=0, dtype=jnp.float64):
    return jax.random.normal(jax.random.key(seed), (batch, length, 4), dtype)


def nothing(batch, length=2, dtype=jnp.float64):
    return nn.Memory.empty(batch, length, 4, dtype)


def solved(cell, given, memory, masks=()):
    solver = functools.partial(deq_jax.anderson, tol=1e-12, max_iter=300)
    return nn.DEQ(cell, solver=solver, per_sample=False)(cell.inject(given, memory, masks))


@jax.jit
def z_star(params, given, memory, masks=()):
    """The equilibrium of the cell of these parameters; NaN where it is not found."""
    cell = made(jnp.float64)
    nnx.update(cell, params)
    solution = solved(cell, given, memory, masks)
    return jnp.where((solution.status == deq_jax.Status.CONVERGED)[:, None, None], solution.value, jnp.nan)


def params():
    return nnx.as_pure(nnx.state(made(jnp.float64), nnx.Param))


def test_scores_by_distance_become_scores_by_position():
    length, reach = 3, 5
    by_distance = np.random.default_rng(0).normal(size=(1, 1, length, reach)).astype(np.float32)
    found = shifted(jnp.array(by_distance))
    for query in range(length):
        for key in range(reach - length + query + 1):
            distance = reach - length + query - key
            assert found[0, 0, query, key] == by_distance[0, 0, query, reach - 1 - distance]


def test_what_comes_later_changes_nothing_before(x64):
    """Neither in an evaluation nor, to the tolerance of the solves, in the equilibrium."""
    cell, memory, given, z = made(jnp.float64), nothing(1, 0), inputs(1, 6), inputs(1, 6, seed=1)
    other = given.at[:, 3:].add(1.0)
    evaluate = jax.jit(lambda z, given: cell(z, cell.inject(given, memory)))
    one, two = evaluate(z, given), evaluate(z.at[:, 3:].multiply(-2.0), other)
    np.testing.assert_array_equal(one[:, :3], two[:, :3])
    assert (abs(one - two).max(-1)[0, 3:] > 1e-2).all()
    first, second = z_star(params(), given, memory), z_star(params(), other, memory)
    np.testing.assert_allclose(first[:, :3], second[:, :3], atol=1e-9)
    assert (abs(first - second).max(-1)[0, 3:] > 1e-2).all()


def test_two_segments_are_one_longer_sequence(x64):
    """What is remembered of the first one stands for it: attention never looks ahead."""
    given = inputs(1, 6)
    whole = z_star(params(), given, nothing(1, 0))
    z = z_star(params(), given[:, :3], nothing(1, 3))
    np.testing.assert_allclose(z, whole[:, :3], atol=1e-9)
    memory = nothing(1, 3).followed_by(z, given[:, :3])
    assert memory.is_there.all()
    np.testing.assert_allclose(z_star(params(), given[:, 3:], memory), whole[:, 3:], atol=1e-9)


def test_a_memory_keeps_the_last_positions(x64):
    memory = nothing(1, 3).followed_by(inputs(1, 2), inputs(1, 2, seed=1))
    assert memory.is_there.tolist() == [[False, True, True]]
    longer = memory.followed_by(inputs(1, 5, seed=2), inputs(1, 5, seed=3))
    np.testing.assert_array_equal(longer.z, inputs(1, 5, seed=2)[:, 2:])
    assert nothing(1, 0).followed_by(inputs(1, 2), inputs(1, 2)).z.shape == (1, 0, 4)


@pytest.fixture(scope="module")
def gradients():
    """Memory, weights of a sum over an equilibrium, and that sum's gradient by ``(params, inputs)``."""
    with jax.enable_x64(True):
        memory, y = nothing(1).followed_by(inputs(1, 2, 1), inputs(1, 2, 2)), inputs(1, 3, seed=3)
        gradient = jax.grad(lambda params, given: jnp.sum(y * z_star(params, given, memory)), argnums=(0, 1))
        return memory, y, jax.jit(gradient)(params(), inputs(1, 3))


def test_gradients_of_inputs_and_parameters_are_those_of_finite_differences(x64, gradients):
    """Along random directions, to five digits: differences of solves to 1e-12, steps of 1e-5."""
    memory, y, found = gradients
    at = (params(), inputs(1, 3))
    for seed in range(3):
        keys = iter(jax.random.split(jax.random.key(seed), 100))
        direction = jax.tree.map(lambda leaf, keys=keys: jax.random.normal(next(keys), leaf.shape, leaf.dtype), at)
        ahead, behind = (
            jnp.sum(y * z_star(*jax.tree.map(lambda a, d, h=h: a + h * d, at, direction), memory))
            for h in (1e-5, -1e-5)
        )
        expected = sum(jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (found, direction)), strict=True))
        np.testing.assert_allclose((ahead - behind) / 2e-5, expected, rtol=1e-5)


def test_gradients_are_those_of_a_dense_solve(x64, gradients):
    """``Jᵀ`` formed as a matrix."""
    memory, y, found = gradients
    given, graph = inputs(1, 3), nnx.split(made(jnp.float64))[0]
    z = z_star(params(), given, memory)

    @jax.jit
    def expected(params, given):
        def f(z, params, given):
            cell = nnx.merge(graph, params)
            return cell(z, cell.inject(given, memory))

        jacobian = jax.jacobian(f)(z, params, given).reshape(z.size, z.size)
        g = jnp.linalg.solve(jnp.eye(z.size) - jacobian.T, y.ravel()).reshape(z.shape)
        return jax.vjp(lambda *args: f(z, *args), params, given)[1](g)

    for one, other in zip(*map(jax.tree.leaves, (found, expected(params(), given))), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-9)


def test_every_sequence_stops_by_itself():
    """Its answer and its evaluations are the same without those beside it."""
    cell = made()
    given = inputs(4, 5, dtype=jnp.float32) * jnp.array([0.01, 0.3, 1.0, 5.0])[:, None, None]
    layer = nn.DEQ(cell, solver=functools.partial(deq_jax.anderson, tol=1e-3))
    solve = jax.jit(lambda given: layer(cell.inject(given, nothing(len(given), dtype=jnp.float32))))
    together, alone = solve(given), solve(given[3:])
    assert len(set(together.iterations.tolist())) > 1
    assert alone.iterations[0] == together.iterations[3]
    np.testing.assert_allclose(alone.value[0], together.value[3], atol=1e-4)


def test_weights_and_positions_are_made_outside_the_solve():
    """No wave, and no norm of a matrix, is computed anew in an evaluation."""
    cell, given, memory = made(), inputs(2, 3, dtype=jnp.float32), nothing(2, dtype=jnp.float32)
    traced = jax.make_jaxpr(lambda given: solved(cell, given, memory).value)(given)
    once = str(jax.make_jaxpr(prepared(cell))(given, cell.inject(given, memory)))
    [body] = loops(traced.jaxpr)
    assert " sin" in str(traced)
    assert " sin" not in body
    assert once.count(" rsqrt") == 2  # those of the two normalisations
    assert body.count(" rsqrt") == 3  # and one of the solver


def test_a_mask_is_the_same_in_all_evaluations_and_there_is_none_without_training(x64):
    cell, draw = made(jnp.float64), nn.DropoutMasks(0.5, rngs=nnx.Rngs(0))
    masks = draw(*cell.mask_shapes(1))
    assert [mask.shape for mask in masks] == [(1, 1, 4), (1, 1, 6), (1, 1, 4)]
    assert set(np.unique(draw((50, 9))[0]).tolist()) == {0.0, 2.0}
    assert not (draw((50, 9))[0] == draw((50, 9))[0]).all()
    given, memory = inputs(1, 3), nothing(1)
    z, x = z_star(params(), given, memory, masks), cell.inject(given, memory, masks)
    np.testing.assert_allclose(cell(z, x), z, atol=1e-9)
    assert abs(cell(z, x._replace(masks=())) - z).max() > 1e-2
    draw.eval()
    assert draw(*cell.mask_shapes(1)) == ()
    with pytest.raises(ValueError, match="rate must be from 0 to below 1, got 1"):
        nn.DropoutMasks(1.0, rngs=nnx.Rngs(0))


def test_a_normalised_product_has_its_gains_for_norms():
    layer = nn.NormalisedLinear(5, 3, rngs=nnx.Rngs(0))
    layer.gain[...] = jnp.array([0.5, -1.0, 2.0])
    np.testing.assert_allclose(jnp.linalg.norm(layer.plain().kernel[...], axis=0), [0.5, 1.0, 2.0], rtol=1e-6)
    x = jax.random.normal(jax.random.key(0), (2, 5))
    before = layer(x)
    layer.kernel[...] *= 7.0
    np.testing.assert_allclose(layer(x), before, rtol=1e-5, atol=1e-6)


def test_a_layer_without_injection_sees_its_state_alone():
    cell = made(injects=False)
    memory, z = nothing(1, 0, jnp.float32), inputs(1, 3, dtype=jnp.float32)
    np.testing.assert_array_equal(cell(z, cell.inject(z, memory)), cell(z, cell.inject(-z, memory)))


def test_mistakes_are_told():
    with pytest.raises(ValueError, match="5 features, 2 heads"):
        nn.TransformerCell(5, 6, heads=2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="7 positions behind 2 remembered ones is longer than the 8 positions"):
        made().inject(inputs(1, 7, dtype=jnp.float32), nothing(1, dtype=jnp.float32))
