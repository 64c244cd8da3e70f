import jax.numpy as jnp
import numpy as np
import pytest

from deq_jax.solvers.safeguard import PATIENCE, PLAIN_STEPS, TRIAL, hold_back, nothing_seen, widen


def regularisation(norms):
    """The regularisation in force after each of these ``‖g‖``, from 1e-4 on."""
    seen, lams = nothing_seen(1, 1e-4, jnp.float32), []
    for norm in norms:
        seen = hold_back(seen, jnp.full(1, norm), 1e-4)
        lams.append(float(seen.lam[0]))
    return np.array(lams)


def test_mixtures_and_plain_iteration_take_turns_that_double():
    lams = regularisation([1.0] * (1 + 7 * (PATIENCE + TRIAL + 1)))
    changes = 1 + np.flatnonzero(np.diff(lams > 1e-3))
    # A turn of mixtures starts with the evaluation that ends the trial before it.
    turns = [n * 2**i + extra for i in range(2) for n, extra in ((PATIENCE, 1), (TRIAL, 0))]
    np.testing.assert_array_equal(np.diff([0, *changes])[:4], turns)


def test_plain_iteration_gets_a_trial_where_improvements_are_small_and_rare():
    lams = regularisation(np.repeat(0.99 ** np.arange(8), 3))
    assert lams.max() == pytest.approx(1e3)
    np.testing.assert_array_equal(regularisation(0.97 ** np.arange(24)), np.float32(1e-4))  # small, but every time


def test_a_trial_ends_where_plain_iteration_explodes_and_the_next_one_bears_more():
    explodes = [1.0] * (PATIENCE + 3) + [101.0]
    assert regularisation(explodes)[-2] > 1
    assert regularisation(explodes)[-1] == pytest.approx(1e-4)
    again = explodes + [101.0] * (2 * PATIENCE + 3)
    assert regularisation([*again, 101.0 * 9e3])[-1] > 1
    assert regularisation([*again, 101.0 * 1.1e4])[-1] == pytest.approx(1e-4)


def test_a_poor_mixture_waits_for_a_few_plain_steps_and_is_then_taken():
    seen, waits = nothing_seen(2, 1e-4, jnp.float32), []
    for _ in range(PLAIN_STEPS + 2):
        waiting, seen = widen(seen, jnp.array([True, False]))
        waits.append(waiting)
    np.testing.assert_array_equal(np.array(waits)[:, 0], [True] * PLAIN_STEPS + [False, True])
    assert not np.array(waits)[:, 1].any()
