"""The groups of a run's settings that say how equilibria and adjoint equations are solved, and when otherwise.

The docstring under a field is its help on the command line: `python train.py --help`.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from deq_jax.training.settings.checks import require_not_negative, require_positive, require_share

Method = Literal["anderson", "broyden", "forward-iteration", "peaceman-rachford", "forward-backward"]
MOST_EVALUATIONS, MOST_ITERATES = 1_000_000, 1_000
"""What a solve may be asked for: beyond, a mistake is likelier than a wish."""
AdjointKind = Literal["implicit", "phantom", "jacobian-free"]


@dataclass(frozen=True)
class SolverConfig:
    """How the equilibrium z = f(z, x) is found."""

    method: Method = "anderson"
    """Anderson acceleration; Broyden's method, which reads m, too; plain iteration: only tol, atol, max-iter,
    beta; or for monotone cells alone, a splitting, which reads alpha, too."""
    tol: float = 1e-2
    """Relative residual ‖f(z) − z‖ / ‖f(z)‖ at which a sample is done."""
    atol: float = 0.0
    """Residual ‖f(z) − z‖ at which a sample is done, too, for equilibria near zero; backward in units of y."""
    max_iter: int = 25
    """Evaluations of f at most."""
    m: int = 5
    """Iterates that Anderson mixes, or steps that Broyden's method learns from."""
    lam: float = 1e-4
    """Regularisation of Anderson's least squares, relative to each column of the differences."""
    beta: float = 1.0
    """Mixing of Anderson, and the share of its step that plain iteration takes: 1 plain, below 1 damped."""
    alpha: float | None = None
    """Step of a splitting. None: one that is safe, found in each solve."""

    def __post_init__(self) -> None:
        """Raises ValueError on a setting that no solve can use."""
        require_positive(self, "tol", "beta")
        if self.alpha is not None:
            require_positive(self, "alpha")
        require_positive(self, "max_iter", at_most=MOST_EVALUATIONS)
        require_positive(self, "m", at_most=MOST_ITERATES)
        require_not_negative(self, "lam", "atol")
        # The first residual, from zeros, is 1: such a solve would return its start, and call it converged.
        if self.tol >= 1:
            raise ValueError(f"tol must be below 1, but is {self.tol:g}")
        if self.max_iter < 2:
            raise ValueError(f"max_iter must be at least 2, but is {self.max_iter}: the first only measures the start")


@dataclass(frozen=True)
class AdjointConfig:
    """How the adjoint equation g = (∂f/∂z)ᵀg + y is met; what is left out is as in `solver`, early in the run, too."""

    kind: AdjointKind = "implicit"
    """Solved; cut off after a few damped iterations (phantom, reads steps and damping); or g = y."""
    steps: int = 5
    """Vector-Jacobian products of a phantom gradient."""
    recompute: bool = False
    """Evaluate the cell again in every vector-Jacobian product, instead of keeping what these need of it: less memory,
    and one evaluation of f more for each."""
    damping: float = 1.0
    """The share of each of its steps that a phantom gradient takes."""
    method: Method | None = None
    """As solver.method."""
    tol: float | None = None
    """Relative residual of the adjoint equation at which a sample is done."""
    atol: float | None = None
    """As solver.atol, in units of y."""
    max_iter: int | None = None
    """Vector-Jacobian products at most."""
    m: int | None = None
    """Iterates that Anderson mixes, or steps that Broyden's method learns from."""
    lam: float | None = None
    """Regularisation of Anderson's least squares, relative to each column of the differences."""
    beta: float | None = None
    """Mixing: 1 plain, below 1 damped."""
    alpha: float | None = None
    """As solver.alpha."""

    def __post_init__(self) -> None:
        """Raises ValueError on a setting that no solve can use."""
        filled_from(self, SolverConfig())
        require_positive(self, "damping")
        require_positive(self, "steps", at_most=MOST_EVALUATIONS)
        if self.damping > 1:
            raise ValueError(f"damping must not exceed 1, but is {self.damping}")


@dataclass(frozen=True)
class EarlyConfig:
    """What is done otherwise while the network is young: in the first steps of the run."""

    share: float = 0.0
    """The share of all steps that this holds for."""
    adjoint_kind: AdjointKind | None = None
    """As adjoint.kind. None: as in the rest of the run."""
    max_iter: int | None = None
    """Evaluations of f at most. None: as in the rest of the run."""
    unroll: int | None = None
    """Do not solve: evaluate f so often, and differentiate through that, as of a network of so many layers. There is no
    penalty then. None: solve."""

    def __post_init__(self) -> None:
        """Raises ValueError on a share that is none."""
        require_share(self, "share")
        if self.max_iter is not None:
            filled_from(self, SolverConfig())
        if self.unroll is not None:
            require_positive(self, "unroll", at_most=MOST_ITERATES)
        others = self.adjoint_kind is not None or self.max_iter is not None
        if others and self.unroll is not None:
            raise ValueError("unroll leaves no solve that adjoint_kind or max_iter could be about; set them to None")
        is_other = others or self.unroll is not None
        if is_other and not self.share:
            raise ValueError(
                "share must be positive where adjoint_kind, max_iter or unroll is set; set them to None otherwise"
            )
        if self.share and not is_other:
            raise ValueError(f"share is {self.share:g}, but none of adjoint_kind, max_iter and unroll is set")


@dataclass(frozen=True)
class EvaluationSettings:
    """How the test split is evaluated; what is left out of a solve's settings is as in training."""

    every: int = 1
    """Epochs from one evaluation to the next; the run also ends with one."""
    tol: float | None = None
    """Relative residual at which a sample is done."""
    atol: float | None = None
    """As solver.atol."""
    max_iter: int | None = None
    """Evaluations of f at most."""
    radius_samples: int = 16
    """Test samples whose Jacobian's spectral radius is estimated at their equilibria; 0: none."""
    beta: float | None = None
    """As solver.beta."""

    def __post_init__(self) -> None:
        """Raises ValueError on a setting that no evaluation can use."""
        require_positive(self, "every")
        require_not_negative(self, "radius_samples")
        filled_from(self, SolverConfig())


def filled_from(own: AdjointConfig | EarlyConfig | EvaluationSettings, solver: SolverConfig) -> SolverConfig:
    """The forward solve's settings, with those that are set in a group of its own in their place."""
    names = {field.name for field in dataclasses.fields(SolverConfig)}
    return dataclasses.replace(
        solver, **{name: value for name, value in vars(own).items() if name in names and value is not None}
    )
