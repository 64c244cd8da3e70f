"""``jax.export`` with a symbolic batch: one program for any number of samples, values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export

import deq_jax
from deq_jax import nn

SOLVERS = (deq_jax.anderson, deq_jax.broyden, deq_jax.forward_iteration)
ADJOINTS = (
    None,
    deq_jax.direct(),
    deq_jax.phantom(3),
)
WEIGHT = 0.3 * jnp.eye(4) + 0.05


def for_any_batch(function, *shape):
    """``function`` of one array ``[batch, *shape]``, as the exported program that any batch is given to."""
    (batch,) = export.symbolic_shape("b")
    exported = export.export(jax.jit(function))(jax.ShapeDtypeStruct((batch, *shape), jnp.float32))
    return export.deserialize(exported.serialize()).call


def check_same(function, *shape, batches=(3,)):
    """Both ways, on batches of these sizes."""
    exported = for_any_batch(function, *shape)
    for batch in batches:
        x = jax.random.normal(jax.random.key(batch), (batch, *shape))
        # Another program of the same arithmetic: sums may be taken in another order.
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), exported(x), jax.jit(function)(x)
        )


def cell(z, x):
    return jnp.tanh(z @ WEIGHT + x)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_solver_s_whole_solution(solver):
    solve = functools.partial(solver, tol=1e-5, trace=True)
    check_same(lambda x: solve(lambda z: cell(z, x), jnp.zeros_like(x)), 4, batches=(1, 3))


@pytest.mark.parametrize("adjoint", ADJOINTS, ids=["implicit", "direct", "phantom"])
def test_a_fixed_point_and_its_gradient(adjoint):
    solver = functools.partial(deq_jax.anderson, tol=1e-5)

    def loss(x):
        return jnp.sum(deq_jax.fixed_point(cell, jnp.zeros_like(x), x, solver=solver, adjoint=adjoint).value ** 2)

    check_same(jax.value_and_grad(loss), 4)


def test_the_sibling_for_forward_mode():
    def value(x):
        return deq_jax.fixed_point_jvp(
            cell, jnp.zeros_like(x), x, solver=functools.partial(deq_jax.anderson, tol=1e-5)
        ).value

    check_same(lambda x: jax.jvp(value, (x,), (jnp.ones_like(x),)), 4)


def test_a_state_of_several_leaves():
    def f(z, x):
        return {"a": 0.5 * z["a"] + x, "b": jnp.tanh(z["b"] + z["a"][:, :2, None])}

    def solve(x):
        z0 = {"a": jnp.zeros_like(x), "b": jnp.zeros((x.shape[0], 2, 3))}
        return deq_jax.fixed_point(f, z0, x, solver=functools.partial(deq_jax.anderson, tol=1e-5)).value

    check_same(solve, 4)


@pytest.mark.long
@pytest.mark.parametrize("make", [nn.ResNetCell, nn.InjectionCell])
def test_a_layer_of_every_cell_and_its_gradient(make):
    layer = nn.DEQ(
        make(4, 4, num_groups=2, max_gain=0.3, rngs=nnx.Rngs(0)), solver=functools.partial(deq_jax.anderson, tol=1e-5)
    )
    graph, state = nnx.split(layer)

    def loss(state, x):
        return jnp.sum(nnx.merge(graph, state)(x).value ** 2)

    # Leaves: Flax has not told JAX how to write its variables to a file.
    check_same(lambda x: jax.tree.leaves(jax.value_and_grad(loss, argnums=(0, 1))(state, x)), 4, 4, 4)


@pytest.mark.long
def test_the_chapter_s_classifier_in_training_and_in_use():
    model = nn.DEQClassifier((8, 8, 3), 10, channels=8, inner_channels=8, rngs=nnx.Rngs(0))
    for set_mode in (model.train, model.eval):
        set_mode()
        graph, state = nnx.split(model)

        def loss(images, graph=graph, state=state):
            logits, solution = nnx.merge(graph, state, copy=True)(images)
            return jnp.sum(logits**2), solution.iterations

        check_same(jax.value_and_grad(loss, has_aux=True), 8, 8, 3)


@pytest.mark.parametrize("platforms", [["cuda"], ["tpu"], ["cpu", "cuda", "tpu"]])
def test_for_other_platforms(platforms):
    (batch,) = export.symbolic_shape("b")

    def loss(x):
        return jnp.sum(deq_jax.fixed_point(cell, jnp.zeros_like(x), x).value ** 2)

    shape = jax.ShapeDtypeStruct((batch, 4), jnp.float32)
    exported = export.export(jax.jit(jax.value_and_grad(loss)), platforms=platforms)(shape)
    assert exported.platforms == tuple(platforms)
    assert "b" in str(exported.in_avals[0].shape)
