"""Problems whose samples need very different numbers of evaluations, and what is evaluated of them."""

import jax
import jax.numpy as jnp
import numpy as np

import deq_jax

BATCH, N = 19, 6
SOLVERS = (deq_jax.anderson, deq_jax.broyden, deq_jax.forward_iteration)


def own_rule(f, z0, **settings):
    """A rule of a user's own, with a state that samples share: half steps and whole ones in turns."""

    def update(z, fz, count, k):
        share = jnp.where(count % 2 == 0, 1.0, 0.5)
        return jax.tree.map(lambda z, fz: z + share * (fz - z), z, fz), count + 1

    return deq_jax.solve(deq_jax.Rule(lambda z0: jnp.int32(0), update), f, z0, **settings)


def problem(batch=BATCH):
    """Cells from easy to stiff: the samples need very different numbers of evaluations."""
    weight = jax.random.orthogonal(jax.random.key(0), N)
    x = jax.random.normal(jax.random.key(1), (batch, N))
    gain = jnp.linspace(0.05, 0.97, batch)[:, None] ** 0.5
    return jnp.zeros((batch, N)), (x, gain), weight


def cell(z, x, weight):
    x, gain = x
    return jnp.tanh(gain * (z @ weight)) + x


def check_same(whole, groups):
    """Statuses and counts the same, values as rounding leaves them: sums of fewer samples may be taken otherwise."""
    jax.tree.map(
        lambda a, b: (
            np.testing.assert_array_equal(a, b)
            if jnp.issubdtype(a.dtype, jnp.integer)
            else np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        ),
        whole,
        groups,
    )


def samples_evaluated(solver, mark, x, batch=BATCH):
    """The sum of the batches that ``f`` is called with."""
    z0, _, weight = problem(batch)
    seen = []

    def counted(z, x, weight):
        jax.debug.callback(lambda _: seen.append(z.shape[0]), z[0, 0])
        return cell(z, x, weight)

    jax.block_until_ready(jax.jit(lambda x: deq_jax.fixed_point(counted, z0, mark(x), weight, solver=solver))(x))
    jax.effects_barrier()
    return sum(seen)
