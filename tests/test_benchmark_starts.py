import jax.numpy as jnp
import pytest

import deq_jax
from benchmarks import starts

SMALL = starts.Map("cubic", lambda z: z - (z**3 + z - 5) / 100, 1, -6, 6, 1e-4, 2000)


def test_names_are_told_apart_and_starts_are_always_the_same():
    family = starts.family()
    assert len({one.name for one in family}) == len(family) >= 10
    assert (family[0].starts(jnp.float32) == family[0].starts(jnp.float32)).all()


@pytest.mark.parametrize("one", starts.family(), ids=lambda one: one.name)
def test_every_map_keeps_dtype_and_shape(one):
    z = one.starts(jnp.float32)
    assert (one.f(z).shape, one.f(z).dtype) == (z.shape, z.dtype)


def test_nothing_is_lost_on_an_overshooting_map():
    counted = starts.count(SMALL, jnp.float32, deq_jax.anderson)
    assert (counted.solved_plain, counted.lost) == (starts.STARTS, 0)


def test_a_solver_that_gives_up_is_counted():
    def gives_up(f, z0, *, tol, max_iter):
        return deq_jax.forward_iteration(f, z0, tol=tol, max_iter=2)

    counted = starts.count(SMALL, jnp.float32, gives_up)
    assert counted.lost > starts.STARTS // 2
    assert f"gives_up: {counted.lost} of 500 lost" in starts.report([counted])
