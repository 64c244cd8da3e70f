"""Fixed-point problems that tell solvers apart: classics of numerical analysis, and the cells of deep equilibria.

Each is a small batch of samples ``z = f(z, x, w)``; ``x`` differs from sample to sample, ``w`` is shared. Everything is
drawn from fixed keys, and nothing was chosen by looking at a solver's count. Arrays are float64 (``jax.enable_x64``)
until :meth:`Problem.astype` casts them.
"""

import zlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

from deq_jax.nn import ResNetCell

BATCH, SIZE = 3, 64

Matrix = Float[Array, "n n"]


class Problem(NamedTuple):
    """Find ``z = f(z, x, w)`` for every sample, from ``z0``, to ``tol``, within ``max_iter`` evaluations."""

    name: str
    f: Callable[[Array, PyTree, PyTree], Array]
    z0: Array
    x: PyTree
    w: PyTree
    tol: float
    max_iter: int

    def astype(self, dtype: DTypeLike) -> "Problem":
        """The same problem with state and parameters in ``dtype``."""
        z0, x, w = jax.tree.map(lambda leaf: leaf.astype(dtype), (self.z0, self.x, self.w))
        return self._replace(z0=z0, x=x, w=w)

    def sample(self, i: int) -> "Problem":
        """Sample ``i`` as a batch of one."""
        z0, x = jax.tree.map(lambda leaf: leaf[i : i + 1], (self.z0, self.x))
        return self._replace(z0=z0, x=x)


def suite() -> list[Problem]:
    """Every problem of the benchmark."""
    radii = ((0.5, 500), (0.9, 500), (0.99, 2000), (0.999, 2000))
    return [
        *[linear(f"linear symmetric {r}", symmetric(np.linspace(-r, r, SIZE)), 1e-6, n) for r, n in radii],
        *[linear(f"linear general {r}", general(r), 1e-5, n).astype(jnp.float32) for r, n in radii],
        linear("linear non-normal 0.9", non_normal(0.9), 1e-6, 500),
        linear("rotation 0.9", rotation(0.9), 1e-6, 500),
        linear("rotation 1.1, quarter turns", rotation(1.1, quarter_turns=True), 1e-6, 500),
        linear("bilinear game", bilinear_game(), 1e-6, 500),
        linear("stiff, -5 to 0.9", symmetric(np.linspace(-5, 0.9, SIZE)), 1e-6, 1000),
        linear("nearly singular 1e4", symmetric(1 - np.logspace(-4, 0, SIZE)), 1e-5, 2000),
        linear("nearly singular 1e6", symmetric(1 - np.logspace(-6, 0, SIZE)), 1e-5, 2000),
        linear("nearly singular 1e4 float32", symmetric(1 - np.logspace(-4, 0, SIZE)), 1e-4, 2000).astype(jnp.float32),
        linear("rank two", symmetric(np.array([0.95, -0.8] + [0.0] * (SIZE - 2))), 1e-12, 1000),
        Problem("cosine", lambda z, x, w: jnp.cos(z), jnp.array([[0.0], [1.0], [10.0]]), (), (), 1e-12, 200),
        quadratic("quadratic", 1e-10, 500),
        tanh_network("tanh, gain 0.9", 0.9, 1e-4, 200).astype(jnp.float32),
        tanh_network("tanh, gain 1.5", 1.5, 1e-4, 500).astype(jnp.float32),
        tanh_network("tanh, gain 3", 3.0, 1e-4, 1000).astype(jnp.float32),
        tanh_network("tanh, gain 0.9, bfloat16", 0.9, 2e-2, 100).astype(jnp.bfloat16),
        tanh_network("tanh, gain 1.5, float16", 1.5, 5e-3, 200).astype(jnp.float16),
        hopfield("hopfield, gain 2", 2.0, 1e-6, 1000),
        adjoint("adjoint, cotangents 1e-7", 1.5, 1e-7, 1e-4, 500).astype(jnp.float32),
        resnet("resnet, initial weights", 1.0, 1e-3, 100).astype(jnp.float32),
        resnet("resnet, weights ×4", 4.0, 1e-3, 300).astype(jnp.float32),
        resnet("resnet, weights ×7", 7.0, 1e-2, 300).astype(jnp.float32),
        resnet("resnet, weights ×4, bfloat16", 4.0, 2e-2, 100).astype(jnp.bfloat16),
        bratu("bratu, picard", 1e-8, 200),
        bratu("bratu, jacobi", 1e-5, 2000, jacobi=True),
        chandrasekhar("H equation, c 0.5 to 0.99", (0.5, 0.9, 0.99), 1e-10, 500),
        chandrasekhar("H equation, c = 1", (1.0,), 1e-6, 2000),
        lasso("lasso", 1e-8, 5000),
        value_iteration("value iteration 0.99", 0.99, 1e-8, 3000),
    ]


def linear(name: str, matrix: Matrix, tol: float, max_iter: int) -> Problem:
    """``f(z) = A z + x`` with normal ``x``, from zero: what Krylov theory is about."""
    x = normal(name, (BATCH, len(matrix)))
    return Problem(name, lambda z, x, w: z @ w.T + x, jnp.zeros_like(x), x, matrix, tol, max_iter)


def symmetric(eigenvalues: Float[np.ndarray, " n"]) -> Matrix:
    """A symmetric matrix of these eigenvalues and random eigenvectors."""
    q, _ = jnp.linalg.qr(normal("eigenvectors", (len(eigenvalues), len(eigenvalues))))
    return (q * jnp.asarray(eigenvalues)) @ q.T


def general(radius: float) -> Matrix:
    """A Gaussian matrix scaled to the spectral radius; its eigenvalues fill a disc (Ginibre, 1965)."""
    matrix = normal("general", (SIZE, SIZE))
    return matrix * (radius / np.abs(np.linalg.eigvals(np.asarray(matrix))).max())


def non_normal(radius: float) -> Matrix:
    """Upper triangular: eigenvalues in ±radius, a superdiagonal of 1; powers grow before they shrink.

    Source: Trefethen and Embree, "Spectra and pseudospectra", 2005, section 24.
    """
    return jnp.diag(jnp.linspace(-radius, radius, SIZE)) + jnp.diag(jnp.ones(SIZE - 1), 1)


def rotation(radius: float, *, quarter_turns: bool = False) -> Matrix:
    """Plane rotations scaled by ``radius``: by angles spread over the half circle, or all by 90°.

    All eigenvalues lie on a circle. Angles all around one of radius 1 or more would enclose the 1 that ``I − J`` must
    avoid, and leave a Krylov method nothing to gain: there the turns are quarters.
    """
    angles = jnp.full(SIZE // 2, jnp.pi / 2) if quarter_turns else jnp.linspace(0, jnp.pi, SIZE // 2)
    cos, sin = jnp.diag(jnp.cos(angles)), jnp.diag(jnp.sin(angles))
    return radius * jnp.block([[cos, sin], [-sin, cos]])


def bilinear_game() -> Matrix:
    """Simultaneous gradient steps on ``min_p max_q pᵀ B q``, which spiral outwards: eigenvalues ``1 ± iσ``, σ to 1.

    Source: Gidel et al., "A variational inequality perspective on generative adversarial networks", 2019, section 2.
    """
    b = symmetric(np.linspace(0.2, 1.0, SIZE // 2))
    return jnp.eye(SIZE) + jnp.block([[jnp.zeros_like(b), -b], [b.T, jnp.zeros_like(b)]])


def quadratic(name: str, tol: float, max_iter: int) -> Problem:
    """``f(z) = (A z)² + x``, elementwise, ``‖A‖₂ = 1``: a dense map whose Jacobian varies with ``z``."""
    x, w = 0.2 * jnp.abs(normal(f"{name} x", (BATCH, SIZE))), normal(name, (SIZE, SIZE))
    w = w / jnp.linalg.norm(w, 2)
    return Problem(name, lambda z, x, w: jnp.square(z @ w.T) + x, jnp.zeros_like(x), x, w, tol, max_iter)


def tanh_network(name: str, gain: float, tol: float, max_iter: int) -> Problem:
    """``f(z) = tanh(z W + x)`` with ``W`` of spectral radius ``gain``, and normal ``x``.

    Source: Bai, Kolter and Koltun, "Deep equilibrium models", 2019. Without ``x`` the iteration is chaotic above a gain
    of 1 (Sompolinsky, Crisanti and Sommers, 1988).
    """
    x = normal(name, (BATCH, SIZE))
    return Problem(name, _tanh, jnp.zeros_like(x), x, general(gain), tol, max_iter)


def hopfield(name: str, gain: float, tol: float, max_iter: int) -> Problem:
    """A tanh network with symmetric weights, a quarter of its eigenvalues negative, and a weak ``x``.

    Source: Hopfield, "Neurons with graded response", 1984.
    """
    x, w = 0.1 * normal(name, (BATCH, SIZE)), symmetric(np.linspace(-gain / 3, gain, SIZE))
    return Problem(name, _tanh, jnp.zeros_like(x), x, w, tol, max_iter)


def adjoint(name: str, gain: float, size: float, tol: float, max_iter: int) -> Problem:
    """``g = Jᵀ g + y`` of a tanh network at an equilibrium, with ``y`` as tiny as the cotangents of a mean loss."""
    network = tanh_network(name, gain, tol, max_iter)
    z = network.z0
    for _ in range(50):  # Newton's method, so that no solver of the benchmark takes part in the problem
        slope = 1 - jnp.square(_tanh(z, network.x, network.w))
        jacobian = jnp.eye(SIZE) - slope[:, :, None] * network.w.T
        step = jnp.linalg.solve(jacobian, (_tanh(z, network.x, network.w) - z)[..., None])[..., 0]
        z = z + step / jnp.maximum(1, jnp.linalg.norm(step, axis=1, keepdims=True))
    y = size * normal(f"{name} y", z.shape)
    x = {"slope": 1 - jnp.square(z), "y": y}
    f = lambda g, x, w: (g * x["slope"]) @ w.T + x["y"]  # noqa: E731
    return Problem(name, f, jnp.zeros_like(y), x, network.w, tol, max_iter)


def resnet(name: str, scale: float, tol: float, max_iter: int) -> Problem:
    """The chapter's residual cell on 8×8 images of 16 channels, its convolutions' initial weights times ``scale``.

    The spectral radius at the equilibrium is 0.76 for a scale of 1, 0.94 for 4 and 1.02 for 7: before, during and at
    the end of what training without a penalty makes of it.
    """
    graph, weights = nnx.split(ResNetCell(16, 24, num_groups=4, param_dtype=jnp.float64, rngs=nnx.Rngs(0)))
    weights = jax.tree.map(lambda leaf: leaf * scale if leaf.ndim > 1 else leaf, weights)
    x = normal(name, (BATCH, 8, 8, 16))
    return Problem(name, lambda z, x, w: nnx.merge(graph, w)(z, x), jnp.zeros_like(x), x, weights, tol, max_iter)


def bratu(name: str, tol: float, max_iter: int, *, jacobi: bool = False, n: int = 12) -> Problem:
    """Bratu's equation ``−Δu = x eᵘ`` on the unit square, ``u = 0`` around it, by five-point differences on ``n × n``.

    Picard's iteration ``u ← (−Δ)⁻¹ x eᵘ`` is fast, Jacobi's ``u ← D⁻¹ (N u + x eᵘ)`` slow, as on elliptic equations.

    Source: Walker and Ni, "Anderson acceleration for fixed-point iterations", 2011, section 5.
    """
    line = 2 * jnp.eye(n) - jnp.eye(n, k=1) - jnp.eye(n, k=-1)
    laplacian = (jnp.kron(line, jnp.eye(n)) + jnp.kron(jnp.eye(n), line)) * (n + 1) ** 2
    # u ← (I − M Δ) u + M x eᵘ, with Δ inverted by M exactly or by its diagonal alone.
    inverse = jnp.eye(n * n) / laplacian[0, 0] if jacobi else jnp.linalg.inv(laplacian)
    w = (jnp.eye(n * n) - inverse @ laplacian, inverse)
    x = jnp.array([[1.0], [4.0], [6.5]])
    z0 = jnp.zeros((len(x), n * n))
    return Problem(name, lambda z, x, w: z @ w[0].T + (x * jnp.exp(z)) @ w[1].T, z0, x, w, tol, max_iter)


def chandrasekhar(name: str, albedos: tuple[float, ...], tol: float, max_iter: int, *, n: int = 100) -> Problem:
    """The H equation of radiative transfer, ``H(μ) = 1 / (1 − c/2 ∫₀¹ μ H(ν) / (μ + ν) dν)``, by the midpoint rule.

    At ``c = 1`` the Jacobian at the solution is singular.

    Source: Toth and Kelley, "Convergence analysis for Anderson acceleration", 2015, section 4.2.
    """
    nodes = (jnp.arange(n) + 0.5) / n
    kernel = nodes[:, None] / (nodes[:, None] + nodes) / (2 * n)
    c = jnp.asarray(albedos)[:, None]
    return Problem(name, lambda z, x, w: 1 / (1 - x * (z @ w.T)), jnp.ones((len(c), n)), c, kernel, tol, max_iter)


def lasso(name: str, tol: float, max_iter: int) -> Problem:
    """Proximal gradient steps (ISTA) on ``½‖A z − x‖² + λ‖z‖₁``: piecewise linear, with a rank-deficient ``AᵀA``.

    Source: Mai and Johansson, "Anderson acceleration of proximal gradient methods", 2020.
    """
    a, x = normal(name, (SIZE // 2, SIZE)) / SIZE**0.5, normal(f"{name} x", (BATCH, SIZE // 2))

    def f(z: Array, x: Array, w: tuple[Array, Array]) -> Array:
        a, step = w
        moved = z - step * ((z @ a.T - x) @ a)
        return jnp.sign(moved) * jnp.maximum(jnp.abs(moved) - 0.1 * step, 0)

    return Problem(name, f, jnp.zeros((BATCH, SIZE)), x, (a, 1 / jnp.linalg.norm(a, 2) ** 2), tol, max_iter)


def value_iteration(name: str, discount: float, tol: float, max_iter: int) -> Problem:
    """Bellman's ``v(s) = max_a r(s, a) + γ Σ P(s' | s, a) v(s')`` of random decision processes with 4 actions.

    Source: Geist and Scherrer, "Anderson acceleration for reinforcement learning", 2018.
    """
    transitions = jax.nn.softmax(3 * normal(name, (4, SIZE, SIZE)), axis=-1)
    rewards = normal(f"{name} rewards", (BATCH, 4, SIZE))

    def f(z: Array, x: Array, w: Array) -> Array:
        return jnp.max(x + discount * jnp.einsum("ast,bt->bas", w, z), axis=1)

    return Problem(name, f, jnp.zeros((BATCH, SIZE)), rewards, transitions, tol, max_iter)


def normal(name: str, shape: tuple[int, ...]) -> Array:
    """Standard normal numbers, always the same under one name."""
    return jax.random.normal(jax.random.key(zlib.crc32(name.encode())), shape, jnp.float64)


def _tanh(z: Array, x: Array, w: Array) -> Array:
    return jnp.tanh(z @ w + x)
