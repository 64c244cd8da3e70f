"""Every public function of samples within ``jax.shard_map``, beside the same without: python -m tests.sharded.

Devices are counted when JAX starts, so it is a program of its own, started with four of them.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import deq_jax
from deq_jax import nn
from deq_jax.training.devices.collectives import collectives
from tests.problems import tanh_network

MESH = Mesh(jax.devices(), ("data",))
SOLVER = functools.partial(deq_jax.anderson, tol=1e-12, max_iter=200)


def mapped(function: Callable) -> Callable:
    """``function(w, x)`` with parameters everywhere and each device's share of the samples."""
    return jax.shard_map(function, mesh=MESH, in_specs=(P(), P("data")), out_specs=P("data"))


def of_network() -> dict[str, Callable]:
    """Functions of parameters and injections, of which a state's form is known and not its devices."""
    f, _, _ = tanh_network(jax.random.key(0), 8, 5, dtype=jnp.float64)
    adjoints = {
        "implicit": None,
        "direct": deq_jax.direct(),
        "phantom": deq_jax.phantom(20),
        "jacobian_free": deq_jax.jacobian_free(),
        "or_nan": deq_jax.or_nan(deq_jax.implicit(SOLVER)),
    }

    def start(x):
        return jnp.zeros(x.shape)

    def two_leaves(z, x, w):
        """The second is the same on all devices."""
        return {"z": jnp.tanh(z["z"] @ w + x) * z["one"], "one": jnp.ones((len(x), 1))}

    def two_starts(x):
        return {"z": start(x), "one": jnp.ones((len(x), 1))}

    def solved_by(adjoint):
        return lambda w, x: deq_jax.fixed_point(f, start(x), x, w, solver=SOLVER, adjoint=adjoint).value

    def jacobian_penalty(w, x):
        # A diagonal Jacobian, of which every draw of signs gives the exact norm.
        return deq_jax.jacobian_penalty(lambda z: jnp.tanh(z * (x @ w)), start(x) + 0.5, jax.random.key(0))

    def contraction_penalty(w, x):
        return deq_jax.contraction_penalty(lambda z: jnp.tanh(z @ w * x), start(x) + 0.5)

    return {name: solved_by(adjoint) for name, adjoint in adjoints.items()} | {
        "closed over": lambda w, x: deq_jax.fixed_point(lambda z: f(z, x, w), start(x), solver=SOLVER).value,
        "fixed_point_jvp": lambda w, x: deq_jax.fixed_point_jvp(f, start(x), x, w, solver=SOLVER).value,
        "unrolled": lambda w, x: deq_jax.unrolled(f, start(x), x, w, steps=8),
        "two leaves": lambda w, x: deq_jax.fixed_point(two_leaves, two_starts(x), x, w, solver=SOLVER).value["z"],
        "two leaves, unrolled": lambda w, x: deq_jax.unrolled(two_leaves, two_starts(x), x, w, steps=5)["z"],
        "jacobian_penalty": jacobian_penalty,
        "contraction_penalty": contraction_penalty,
    }


def check(name: str, function: Callable, w, x, rtol: float = 1e-8) -> None:
    """The value, and the gradients of both arguments."""
    x = jax.device_put(x, NamedSharding(MESH, P("data")))

    def differentiated(function):
        def loss(w, x):
            value = function(w, x)
            return jnp.sum(value**3), value

        (_, value), gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(w, x)
        return value, gradients

    value, gradients = differentiated(function)
    ours = (jax.jit(mapped(function))(w, x), *differentiated(mapped(function)))
    same = functools.partial(np.testing.assert_allclose, rtol=rtol, atol=1e-10, err_msg=name)
    jax.tree.map(same, ours, (value, value, gradients))


def check_network() -> None:
    """The primitives, adjoints and penalties."""
    _, w, x = tanh_network(jax.random.key(0), 8, 5, dtype=jnp.float64)
    for name, function in of_network().items():
        check(name, function, w, x)


def check_groups() -> None:
    """Each device leaves out its own samples: eight of them are enough for groups."""
    f, w, x = tanh_network(jax.random.key(0), 32, 5, dtype=jnp.float64)

    def solved(w, x):
        return deq_jax.fixed_point(f, jnp.zeros(x.shape), deq_jax.per_sample(x), w, solver=SOLVER).value

    check("per_sample", solved, w, x)


def check_left_to_jit() -> None:
    """Without ``shard_map`` a gradient stays where its samples are."""
    f, w, x = tanh_network(jax.random.key(0), 8, 5, dtype=jnp.float64)

    def loss(x):
        return jnp.sum(deq_jax.fixed_point(f, jnp.zeros_like(x), x, w, solver=SOLVER).value ** 2)

    sharded = jax.jit(jax.grad(loss))(jax.device_put(x, NamedSharding(MESH, P("data"))))
    np.testing.assert_allclose(sharded, jax.jit(jax.grad(loss))(x), rtol=1e-8)
    assert len(sharded.sharding.device_set) == len(MESH.devices)


def check_solvers() -> None:
    """Solvers and the spectral radius, which have no gradient."""
    f, w, x = tanh_network(jax.random.key(0), 8, 5, dtype=jnp.float64)

    def radius(w, x):
        return deq_jax.spectral_radius(lambda z: f(z, x, w), jnp.zeros(x.shape), jax.random.key(0), iterations=500)

    for solver in (deq_jax.anderson, deq_jax.broyden, deq_jax.forward_iteration):

        def solve(w, x, solver=solver):
            return solver(lambda z: f(z, x, w), jnp.zeros(x.shape), tol=1e-12, max_iter=200).value

        np.testing.assert_allclose(jax.jit(mapped(solve))(w, x), jax.jit(solve)(w, x), rtol=1e-10)
    np.testing.assert_allclose(jax.jit(mapped(radius))(w, x), jax.jit(radius)(w, x), rtol=1e-2)


def check_cells() -> None:
    """Layers of cells, of which those with convolutions have gradients of their own."""
    images = jax.random.normal(jax.random.key(1), (4, 4, 4, 2), jnp.float64)
    of = {"num_groups": 2, "param_dtype": jnp.float64, "rngs": nnx.Rngs(0)}
    cells = {
        "FeedForwardCell": (nn.FeedForwardCell(32, 5, param_dtype=jnp.float64, rngs=nnx.Rngs(0)), (4, 32)),
        "ResNetCell": (nn.ResNetCell(2, 4, **of), images.shape),
        "PreActivationCell": (nn.PreActivationCell(2, 4, max_gain=0.5, **of), images.shape),
        "InjectionCell": (nn.InjectionCell(2, 4, **of), images.shape),
    }
    for name, (cell, shape) in cells.items():
        graph, state = nnx.split(cell)

        def layer(state, x, graph=graph):
            return nn.DEQ(nnx.merge(graph, state), solver=SOLVER)(x).value

        check(name, layer, state, images.reshape(shape), rtol=1e-6)


def check_report() -> None:
    """Each device's own report, by every adjoint; one that would add them up is refused."""
    f, w, x = tanh_network(jax.random.key(0), 8, 5, dtype=jnp.float64)

    def evaluations(x, report, adjoint):
        def loss(report):
            start = jnp.zeros(x.shape)
            return jnp.sum(deq_jax.fixed_point(f, start, x, w, solver=SOLVER, adjoint=adjoint, report=report).value)

        return jax.grad(loss)(report).iterations

    for adjoint in (None, deq_jax.direct(), deq_jax.phantom(3), deq_jax.jacobian_free()):

        def own(w, x, adjoint=adjoint):
            report = lax.pcast(deq_jax.adjoint_report(len(x)), ("data",), to="varying")
            return evaluations(x, report, adjoint)

        plain = jax.jit(functools.partial(evaluations, adjoint=adjoint))(x, deq_jax.adjoint_report(len(x)))
        np.testing.assert_array_equal(jax.jit(mapped(own))(w, x), plain)
    with pytest.raises(ValueError, match="the devices' reports would be added up"):
        mapped(lambda w, x: evaluations(x, deq_jax.adjoint_report(len(x)), None))(w, x)


def check_krylov() -> None:
    """What does not work says so."""
    f, w, x = tanh_network(jax.random.key(0), 8, 5, dtype=jnp.float64)

    def solve(w, x):
        return deq_jax.fixed_point(f, jnp.zeros(x.shape), x, w, solver=SOLVER, adjoint=deq_jax.krylov()).value

    for checks in (True, False):
        sharded = jax.shard_map(solve, mesh=MESH, in_specs=(P(), P("data")), out_specs=P("data"), check_vma=checks)
        with pytest.raises(NotImplementedError, match=r"implicit\(solver\)"):
            jax.grad(lambda w, sharded=sharded: jnp.sum(sharded(w, x)))(w)


def check_cell_of_parts() -> None:
    """A cell whose matrix lies in parts on two devices takes the evaluations that it takes whole."""
    mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("data", "model"))
    w = 0.15 * jax.random.normal(jax.random.key(0), (8, 8), jnp.float64)
    x = jax.random.normal(jax.random.key(1), (4, 8), jnp.float64) * jnp.array([1.0, 1e-3]).repeat(4)
    parts = P("data", "model")

    def solved(product, w, x):
        f = lambda z, x, w: jnp.tanh(product(z, w) + x)  # noqa: E731
        solution = deq_jax.fixed_point(f, jnp.zeros_like(x), deq_jax.per_sample(x), w, solver=SOLVER)
        return solution.value, solution.iterations[:, None]

    def of_parts(z, w):
        return lax.psum_scatter(z @ w, "model", scatter_dimension=1, tiled=True)

    whole = functools.partial(solved, jnp.matmul)
    spread = jax.shard_map(
        functools.partial(solved, of_parts), mesh=mesh, in_specs=(P("model"), parts), out_specs=(parts, parts)
    )
    (value, iterations), (expected, evaluations) = jax.jit(spread)(w, x), whole(w, x)
    np.testing.assert_allclose(value, expected, atol=1e-14)
    assert len(set(evaluations.ravel().tolist())) > 1
    np.testing.assert_array_equal(iterations, evaluations.repeat(2, 1))
    ours, plain = (
        jax.jit(jax.grad(lambda w, x, solve=solve: jnp.sum(solve(w, x)[0] ** 3), argnums=(0, 1)))(w, x)
        for solve in (spread, whole)
    )
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-13), ours, plain)

    def direct(w, x):
        f = lambda z, x, w: jnp.tanh(of_parts(z, w) + x)  # noqa: E731
        return deq_jax.fixed_point(f, jnp.zeros_like(x), x, w, solver=SOLVER, adjoint=deq_jax.direct()).value

    mapped = jax.shard_map(direct, mesh=mesh, in_specs=(P("model"), parts), out_specs=parts)
    with pytest.raises(ValueError, match="needs all of a sample on one device"):
        jax.grad(lambda w: jnp.sum(mapped(w, x)))(w)


def check_under_a_mesh() -> None:
    """Under ``jax.set_mesh`` each device solves for its own samples without a word: no loop holds a collective."""
    f, w, x = tanh_network(jax.random.key(0), 8, 5, dtype=jnp.float64)

    def loss(w, x):
        return jnp.sum(deq_jax.fixed_point(f, jnp.zeros_like(x), deq_jax.per_sample(x), w, solver=SOLVER).value ** 3)

    gradients = jax.grad(loss, argnums=(0, 1))
    with jax.set_mesh(MESH):
        program = jax.jit(gradients).lower(w, jax.device_put(x, NamedSharding(MESH, P("data")))).compile()
    found = collectives(program.as_text())
    assert found.in_loops == [], found
    assert found.once == ["all-reduce"], found
    ours = program(w, jax.device_put(x, NamedSharding(MESH, P("data"))))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-8), ours, gradients(w, x))


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    assert len(jax.devices()) == 4
    for run in (
        check_network,
        check_left_to_jit,
        check_groups,
        check_solvers,
        check_cells,
        check_report,
        check_krylov,
        check_cell_of_parts,
        check_under_a_mesh,
    ):
        run()
