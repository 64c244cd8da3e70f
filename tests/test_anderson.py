import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deq_jax import Rule, Status, anderson, broyden, forward_iteration, solve
from deq_jax.solvers.anderson import _coefficients
from tests.problems import linear_map, non_normal_map, tanh_network


def test_finds_the_equilibrium_of_a_linear_map(x64):
    a = linear_map(jax.random.key(0), 8, 0.9, dtype=jnp.float64)
    b = jax.random.normal(jax.random.key(1), (3, 8))
    sol = anderson(lambda z: z @ a + b, jnp.zeros_like(b), tol=1e-13, max_iter=300)
    np.testing.assert_allclose(sol.value, b @ jnp.linalg.inv(jnp.eye(8) - a), rtol=1e-10, atol=1e-11)


def test_two_iterates_solve_a_scalar_linear_problem_at_once():
    # The secant through two points is exact: z0, f(z0), the equilibrium. Short histories carry no phantom columns.
    sol = anderson(lambda z: 0.9 * z + 1, jnp.zeros((1, 1)), m=5, lam=0.0, tol=1e-5, max_iter=10)
    assert sol.iterations[0] == 3
    np.testing.assert_allclose(sol.value, [[10.0]], rtol=1e-4)  # float32, conditioned by 1/(1 − 0.9)


@pytest.mark.parametrize("solver", [anderson, broyden])
def test_a_memory_of_more_than_could_ever_be_used_takes_no_place(solver):
    def allocated(m):
        solve = jax.jit(lambda z0: solver(lambda z: 0.5 * z + 1, z0, m=m, max_iter=4).value)
        return solve.lower(jnp.zeros((2, 1000))).compile().memory_analysis().temp_size_in_bytes

    assert allocated(100_000) == allocated(4)


def test_mixture_is_the_constrained_least_squares(x64):
    # The chapter's own system, on the iterates themselves: with full memory both see the same affine space.
    f, w, x = tanh_network(jax.random.key(2), 1, 6, dtype=jnp.float64)
    zs, fs = [jnp.zeros_like(x)], [f(jnp.zeros_like(x), x, w)]
    zs.append(fs[0])
    fs.append(f(zs[1], x, w))
    residuals = []
    for k in range(2, 5):
        g = jnp.concatenate([fz - z for z, fz in zip(zs, fs, strict=True)])
        bordered = jnp.block([[jnp.zeros((1, 1)), jnp.ones((1, k))], [jnp.ones((k, 1)), g @ g.T]])
        alpha = jnp.linalg.solve(bordered, jnp.eye(k + 1)[0])[1:]
        zs.append(alpha[None] @ jnp.concatenate(fs))
        fs.append(f(zs[-1], x, w))
        residuals.append(jnp.linalg.norm(fs[-1] - zs[-1]) / jnp.linalg.norm(fs[-1]))
    sol = anderson(lambda z: f(z, x, w), jnp.zeros_like(x), m=5, lam=0.0, tol=1e-15, max_iter=5, trace=True)
    np.testing.assert_allclose(sol.trace[2:, 0], residuals, rtol=1e-6)  # the bordered system squares the condition


@pytest.mark.parametrize("beta", [0.5, 1.0, 1.5])
def test_damped_plain_and_over_projected_mixing_agree(beta):
    f, w, x = tanh_network(jax.random.key(3), 4, 10)
    sol = anderson(lambda z: f(z, x, w), jnp.zeros_like(x), beta=beta, tol=1e-6, max_iter=100)
    assert (sol.status == Status.CONVERGED).all()
    reference = forward_iteration(lambda z: f(z, x, w), jnp.zeros_like(x), tol=1e-6, max_iter=500)
    np.testing.assert_allclose(sol.value, reference.value, atol=1e-4)  # both within 1e-6/(1 − 0.9) of it


def test_memory_of_one_is_forward_iteration():
    f, w, x = tanh_network(jax.random.key(4), 3, 7)
    one = anderson(lambda z: f(z, x, w), jnp.zeros_like(x), m=1, tol=1e-4)
    plain = forward_iteration(lambda z: f(z, x, w), jnp.zeros_like(x), tol=1e-4)
    np.testing.assert_array_equal(one.iterations, plain.iterations)
    np.testing.assert_array_equal(one.value, plain.value)


def test_converges_where_forward_iteration_does_not():
    rotation = 1.5 * jnp.array([[0.0, 1.0], [-1.0, 0.0]])

    def f(z):
        return z @ rotation + 1

    assert (forward_iteration(f, jnp.zeros((1, 2))).status != Status.CONVERGED).all()
    sol = anderson(f, jnp.zeros((1, 2)), tol=1e-5)
    assert (sol.status == Status.CONVERGED).all()
    np.testing.assert_allclose(f(sol.value), sol.value, rtol=1e-4)


@pytest.mark.parametrize("exponent", [-25, 18])
def test_at_any_scale_a_status_is_true(exponent):
    # Squares of such numbers leave float32; the history's do too, so that the iteration may become plain.
    scale = 10.0**exponent
    sol = anderson(lambda z: 0.9 * z + scale, jnp.zeros((1, 1)), tol=1e-4, max_iter=200)
    assert sol.status[0] == Status.CONVERGED
    np.testing.assert_allclose(sol.value / scale, [[10.0]], rtol=2e-3)  # 1e-4 / (1 − 0.9)


@pytest.mark.parametrize("exponent", [-8, -4, 4, 8])
def test_scale_does_not_matter(exponent):
    f, w, x = tanh_network(jax.random.key(5), 4, 20)
    scale = 10.0**exponent
    unit = anderson(lambda z: f(z, x, w), jnp.zeros_like(x), tol=1e-4)
    scaled = anderson(lambda z: scale * f(z / scale, x, w), jnp.zeros_like(x), tol=1e-4)
    np.testing.assert_array_equal(scaled.iterations, unit.iterations)
    np.testing.assert_allclose(scaled.value / scale, unit.value, rtol=1e-5, atol=1e-6)  # float32 rounds each scale


def test_neighbours_do_not_matter():
    f, w, x = tanh_network(jax.random.key(6), 64, 20)
    together = anderson(lambda z: f(z, x, w), jnp.zeros_like(x), tol=1e-4)
    for i in (0, 17, 63):
        alone = anderson(lambda z, i=i: f(z, x[i : i + 1], w), jnp.zeros((1, 20)), tol=1e-4)
        assert alone.iterations[0] == together.iterations[i]
        # Not to the bit: matrix products of other shapes round otherwise. That is all that may differ.
        gap = jnp.linalg.norm(alone.value[0] - together.value[i])
        assert gap <= 1e-6 * jnp.linalg.norm(together.value[i])


def test_a_rank_deficient_history_falls_back_to_plain_iteration():
    # From the second evaluation on the iterates do not move: every difference is zero or repeats.
    sol = anderson(lambda z: jnp.sign(z) + 1, jnp.full((2, 3), 0.5), m=5, lam=0.0, tol=1e-7, max_iter=20)
    np.testing.assert_array_equal(sol.value, 2.0)
    assert (sol.status == Status.CONVERGED).all()


def the_chapter_s_anderson(f, z0, *, m=5, lam=1e-4, **settings):
    """The chapter's bordered system with its absolute ``lam``, as a rule of a user's own."""

    def init(z0):
        rows = jnp.zeros((z0.shape[0], m, z0.shape[1]))
        return rows, rows

    def weights(gram, used):
        bordered = jnp.zeros((m + 1, m + 1)).at[0, 1:].set(used).at[1:, 0].set(used)
        kept = jnp.where(used[:, None] & used, gram + lam * jnp.eye(m), jnp.eye(m))
        return jnp.linalg.solve(bordered.at[1:, 1:].set(kept), jnp.eye(m + 1)[0])[1:]

    def update(z, fz, history, k):
        zs, fs = (rows.at[:, k % m].set(row) for rows, row in zip(history, (z, fz), strict=True))
        used = jnp.arange(m) <= k
        g = fs - zs
        alpha = jax.vmap(weights, in_axes=(0, None))(g @ g.swapaxes(1, 2), used)
        return jnp.einsum("bm,bmn->bn", alpha, fs), (zs, fs)

    return solve(Rule(init, update), f, z0, **settings)


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_an_ill_conditioned_problem_needs_the_difference_form(scale):
    # Eigenvalues up to 0.999 in float32. The chapter's system averages once GᵀG is no longer above its absolute lam,
    # from the start where the problem is small, as cotangents are.
    key = jax.random.key(8)
    basis = jax.random.orthogonal(key, 50)
    matrix = (basis * jnp.linspace(0.5, 0.999, 50)) @ basis.T
    b = scale * jax.random.normal(key, (4, 50))
    ours, chapter = (
        solver(lambda z: z @ matrix + b, jnp.zeros_like(b), tol=1e-5, max_iter=300)
        for solver in (anderson, the_chapter_s_anderson)
    )
    np.testing.assert_array_equal(ours.status, Status.CONVERGED)
    assert (chapter.status == Status.MAX_ITER).sum() >= 3  # at scale 1 one sample just makes it


def test_a_stalled_mixture_is_held_back_to_plain_iteration(x64):
    # Strongly non-normal: the residual grows for long before it falls, and mixtures of five run in circles.
    matrix = non_normal_map(30, 0.9)
    b = jax.random.normal(jax.random.key(11), (3, 30))
    sol = anderson(lambda z: z @ matrix + b, jnp.zeros_like(b), tol=1e-6, max_iter=500)
    np.testing.assert_array_equal(sol.status, Status.CONVERGED)


def test_a_residual_that_plain_iteration_grows_thousandfold_first_is_waited_for(x64):
    # Every number above the diagonal of 0.9 is 0.5: mixtures of five stall for ever, and a first short trial of plain
    # iteration only makes it worse.
    matrix = 0.9 * jnp.eye(20) + 0.5 * jnp.triu(jnp.ones((20, 20)), 1)
    b = jax.random.normal(jax.random.key(12), (3, 20))
    ours, plain = (
        solver(lambda z: z @ matrix + b, jnp.zeros_like(b), tol=1e-6, max_iter=600)
        for solver in (anderson, forward_iteration)
    )
    growth = jnp.linalg.norm(b @ jnp.linalg.matrix_power(matrix, 30), axis=1) / jnp.linalg.norm(b, axis=1)
    assert (growth > 1e3).all()  # of f(z) - z over 30 plain steps
    np.testing.assert_array_equal(ours.status, Status.CONVERGED)
    assert (ours.iterations <= plain.iterations).all()


def test_mixtures_that_crawl_are_not_held_back_where_plain_iteration_crawls_more(x64):
    # Eigenvalues up to 1 - 1e-4: mixtures need ten evaluations for some digits, plain iteration thousands.
    basis = jax.random.orthogonal(jax.random.key(13), 40)
    matrix = (basis * (1 - jnp.logspace(-4, 0, 40))) @ basis.T
    b = jax.random.normal(jax.random.key(14), (3, 40))
    sol = anderson(lambda z: z @ matrix + b, jnp.zeros_like(b), tol=1e-5, max_iter=2000)
    np.testing.assert_array_equal(sol.status, Status.CONVERGED)
    assert sol.iterations.max() < 250


def test_plain_steps_widen_a_history_that_spans_too_little(x64):
    # A symmetric problem of spectral radius 0.99, on which pure mixtures of five crawl: over 200 evaluations.
    basis = jax.random.orthogonal(jax.random.key(9), 40)
    matrix = (basis * jnp.linspace(-0.99, 0.99, 40)) @ basis.T
    b = jax.random.normal(jax.random.key(10), (3, 40))
    sol = anderson(lambda z: z @ matrix + b, jnp.zeros_like(b), tol=1e-6, max_iter=500)
    np.testing.assert_array_equal(sol.status, Status.CONVERGED)
    assert sol.iterations.max() < 120


def test_parallel_differences_still_mix_without_regularisation():
    # Two equal differences make the normal equations singular; the floor under lam keeps their sum determined.
    differences, g = jnp.array([[1.0], [1.0]]), jnp.array([2.0])
    gram, products = differences @ differences.T, differences @ g
    gamma, gain = _coefficients(gram, products, jnp.ones(2, bool), g @ g, jnp.float32(0.0))
    np.testing.assert_allclose(gamma.sum(), 2, rtol=1e-3)  # Cholesky at a condition of 1e6 in float32
    assert gain < 1e-2


def test_half_precision_keeps_its_dtype_and_gets_as_far_as_it_can():
    f, w, x = tanh_network(jax.random.key(7), 3, 10)
    w, x = w.astype(jnp.bfloat16), x.astype(jnp.bfloat16)
    sol = anderson(lambda z: f(z, x, w), jnp.zeros_like(x), tol=2e-2)
    assert sol.value.dtype == jnp.bfloat16
    assert (sol.status == Status.CONVERGED).all()


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"m": 0}, "m must be"), ({"lam": -1.0}, "lam must"), ({"beta": 0.0}, "beta must")],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        anderson(lambda z: z, jnp.zeros((1, 1)), **setting)
