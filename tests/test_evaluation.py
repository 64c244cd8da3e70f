import pytest

from deq_jax.training.steps.evaluation import eval_means
from deq_jax.training.steps.step import EvalSums


def test_means_over_batches_weigh_every_sample_alike():
    sums = [
        EvalSums(3.0, 6.0, {"hits": 3.0}, forward_iterations=30.0, forward_residual=0.3, forward_converged=3.0),
        EvalSums(1.0, 6.0, {"hits": 0.0}, forward_iterations=2.0, forward_residual=0.1, forward_converged=0.0),
    ]
    means = eval_means(sums)
    assert means.pop("forward_residual") == pytest.approx(0.1)  # 0.4 / 4, rounded in binary
    assert means == {"samples": 4.0, "loss": 3.0, "hits": 0.75, "forward_iterations": 8.0, "forward_converged": 0.75}


def test_the_tasks_metrics_follow_the_loss():
    """In the order in which python -m deq_jax.evaluate prints them."""
    names = ["samples", "loss", "hits", "forward_iterations", "forward_residual", "forward_converged"]
    assert list(eval_means([EvalSums(1.0, 1.0, {"hits": 1.0}, 1.0, 1.0, 1.0)])) == names
