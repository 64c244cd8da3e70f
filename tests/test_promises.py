"""What a task has promised."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import deq_jax
from deq_jax import training
from deq_jax.training.errors import UserError
from deq_jax.training.promises import evaluation_of, loss_of, require_data
from tests.own_task import Two, arrays, own_task, two_losses

X, Y = arrays(8)
SOLUTION = deq_jax.forward_iteration(lambda z: 0.5 * z, jnp.ones((8, 1)))
ONES = jnp.ones(8)


class Model(nnx.Module):
    def __init__(self):
        self.count = nnx.Cache(jnp.zeros(()))
        self.sown = nnx.Intermediate(jnp.zeros(()))


def returned(outcome, **changes):
    """What the run makes of an outcome."""
    task = own_task(loss=lambda model, batch, report: outcome, metrics={}, **changes)
    return loss_of(task)(Model(), (X, Y), None)


@pytest.mark.parametrize(
    "outcome",
    [
        training.Outcome(ONES),
        training.Outcome(ONES, SOLUTION),
        training.Outcome(ONES, SOLUTION, lambda z: z, objective=2 * ONES),
        training.Outcome(ONES, (SOLUTION,), (lambda z: z,)),
    ],
)
def test_what_is_promised_goes_through(outcome):
    assert returned(outcome) is outcome


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (None, "task.loss returned None; expected a training.Outcome"),
        ((ONES, SOLUTION), "task.loss returned a tuple; expected a training.Outcome"),
        (
            training.Outcome(ONES.mean()),
            r"returned an array float32[] as loss; expected one floating-point number a sam",
        ),
        (training.Outcome(ONES.astype(int)), "returned an array int32[8] as loss"),
        (training.Outcome(ONES, objective=ONES[:3]), "returned an array float32[3] as objective"),
        (training.Outcome(ONES, metrics={"error": ONES}), "returned the metrics error, but task.metrics names none"),
        (training.Outcome(ONES, SOLUTION.value), "as solution; expected what nn.DEQ returns"),
        (training.Outcome(ONES, (SOLUTION, SOLUTION)), "returned 2 solutions, but task.equilibria is 1; say"),
        (training.Outcome(ONES, None, lambda z: z), "returned 1 cells as f and 0 as solution"),
    ],
)
def test_what_is_not_is_said(outcome, said):
    with pytest.raises(UserError) as error:
        returned(outcome)
    assert said in str(error.value)


def test_a_metric_takes_no_other_name_s_place():
    task = own_task(
        loss=lambda model, batch, report: training.Outcome(ONES, metrics={"step": ONES}), metrics={"step": ""}
    )
    with pytest.raises(UserError, match="cannot be called step"):
        loss_of(task)(Model(), (X, Y), None)


def test_the_loss_may_sow_and_not_change_what_a_run_would_lose():
    def sowing(model, batch, report):
        model.sown[...] = jnp.ones(())
        return training.Outcome(ONES)

    def counting(model, batch, report):
        model.count[...] = jnp.ones(())
        return training.Outcome(ONES)

    assert loss_of(own_task(loss=sowing, metrics={}))(Model(), (X, Y), None)
    with pytest.raises(UserError, match="changes count in the model, which a run would lose"):
        loss_of(own_task(loss=counting, metrics={}))(Model(), (X, Y), None)


def test_without_an_evaluation_the_loss_is_one_with_no_report_for_any_equilibrium():
    task = own_task(model=Two, loss=two_losses, equilibria=2, metrics={})
    model = task.model(deq_jax.anderson, deq_jax.jacobian_free(), nnx.Rngs(0))
    assert evaluation_of(task)(model, (X.astype(np.float32), Y.astype(np.float32))).loss.shape == (8,)


class Halves:
    """A source that gives other rows than were asked for."""

    def __len__(self):
        return 8

    def __getitem__(self, rows):
        return X[0]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ((X, Y), "task.data is a tuple; expected training.Data"),
        (training.Data((X, Y)), "task.data is a Data; expected training.Data({"),
        (training.Data({"test": X}), 'has the splits test; expected "train"'),
        (training.Data({"train": X, "valid": X}), 'has the splits train, valid; expected "train"'),
        (training.Data({"train": (X, Y[:5])}), "holds 8 in [0], 5 in [1]; expected as many samples"),
        (training.Data({"train": {}}), "holds nothing; expected as many"),
        (training.Data({"train": X[:0]}), "holds 0 in it; expected"),
        (training.Data({"train": (X, 3.0)}), "has a float as [1]; expected arrays of samples"),
        (training.Data({"train": (X, np.ones(()))}), "has an array float64[] as [1]"),
        (
            training.Data({"train": X, "test": X[:, :1]}),
            "training split is float32[2], and one of the test split float",
        ),
        (
            training.Data({"train": (X, Y), "test": X}),
            "float32[2] at [0] and float32[] at [1], and one of the test spl",
        ),
        (training.Data({"train": Halves()}), "for the rows np.arange(1); expected arrays with as many rows"),
    ],
)
def test_data_that_do_not_belong_together_are_refused(data, said):
    with pytest.raises(UserError) as error:
        require_data(data)
    assert said in str(error.value)


def test_data_that_do_are_not():
    require_data(training.Data({"train": (X, Y), "test": (X[:3], Y[:3])}))
    require_data(training.Data({"train": {"x": jnp.asarray(X)}}))
