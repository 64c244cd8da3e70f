"""The optimiser and its rate."""

import jax
import optax
from jaxtyping import PyTree
from optax import contrib

from deq_jax.training.settings.update import OptimizerConfig

_DIVISOR = 25.0
"""onecycle starts at this part of its highest rate; PyTorch's default."""


def build_optimizer(config: OptimizerConfig, total_steps: int) -> optax.GradientTransformation:
    """The optimiser of a run of `total_steps` steps.

    The rate of step t of T falls along a half cosine, final + (first − final) · (1 + cos πt/T) / 2: PyTorch's
    CosineAnnealingLR with T_max = T, stepped after every batch. "onecycle" lets it rise before, along a line, and falls
    in the rest; with "constant" it stays. Weight decay spares biases and the scales of normalisations, and muon's all
    but convolutions.
    """
    rate, decay, momentum = build_schedule(config, total_steps), config.weight_decay, config.momentum
    if config.method == "adam":
        optimizer = optax.adam(rate)
    elif config.method == "adamw":
        optimizer = optax.adamw(rate, weight_decay=decay, mask=_is_kernel)
    elif config.method == "lion":
        optimizer = optax.lion(rate, weight_decay=decay, mask=_is_kernel)
    elif config.method == "muon":
        optimizer = contrib.muon(
            rate,
            beta=momentum,
            weight_decay=decay,
            weight_decay_mask=_is_kernel,
            muon_weight_dimension_numbers=_as_matrices,
            # Steps as long as Adam's, so that both parts share one rate.
            consistent_rms=0.2,
        )
    else:
        optimizer = optax.chain(
            optax.trace(momentum, nesterov=True),
            optax.add_decayed_weights(decay, mask=_is_kernel),  # after the momentum, which it stays out of
            optax.scale_by_learning_rate(rate),
        )
    return optimizer if config.clip is None else optax.chain(optax.clip_by_global_norm(config.clip), optimizer)


def build_schedule(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """The rate as a function of the steps taken."""
    peak, final = config.learning_rate, config.final_learning_rate
    if config.schedule == "constant":
        return optax.constant_schedule(peak)
    if config.schedule == "cosine":
        return optax.cosine_decay_schedule(peak, total_steps, alpha=final / peak)
    return optax.warmup_cosine_decay_schedule(
        init_value=max(peak / _DIVISOR, final),
        peak_value=peak,
        warmup_steps=min(round(config.warmup * total_steps), total_steps - 1),
        decay_steps=total_steps,
        end_value=final,
    )


def _is_kernel(params: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _as_matrices(params: PyTree) -> PyTree:
    """Kernels of convolutions as matrices [window and input channels, output channels]; nothing else is one."""
    matrix = contrib.MuonDimensionNumbers((0, 1, 2), (3,))
    return jax.tree.map(lambda leaf: matrix if leaf.ndim == 4 else None, params)
