"""A training run, from its start or from where it stopped, to its end."""

import math
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
from tqdm import tqdm

from deq_jax.tasks.images.config import Config
from deq_jax.tasks.images.data import describe, train_batch
from deq_jax.training.disk import checkpoints, curves, environment, metrics
from deq_jax.training.disk.folder import claim, require_same_data, require_usable
from deq_jax.training.disk.lock import held
from deq_jax.training.disk.logbook import Logbook, NotFiniteError
from deq_jax.training.errors import NonFiniteLossError, UserError
from deq_jax.training.plan import Plan, compile_programs, evaluate_test_split, prepare
from deq_jax.training.process.compilation import require_backend, use_persistent_cache
from deq_jax.training.process.signals import stop_requests
from deq_jax.training.steps.step import TrainState

_SECONDS_BETWEEN_CURVES = 60.0


class _Start(NamedTuple):
    """Where a run begins, or goes on."""

    state: TrainState
    step: int
    seconds: float
    is_evaluated: bool


def run(config: Config) -> int:
    """Trains, or continues, the run in `config.out`. Returns the exit status: 0, or 128 + the signal that stopped it.

    On a CPU a continued run ends with the very parameters of an uninterrupted one.

    Raises:
        UserError: the folder, the data or the settings do not fit, another process is training in the folder, or JAX
            finds no device, or too little memory on it.
        NonFiniteLossError: training diverged.
    """
    require_backend()
    use_persistent_cache()
    require_usable(config)
    try:
        plan, state = prepare(config)
        with held(config.out):
            require_usable(config)  # again: another process may have begun, and ended, in the meantime
            return _run(plan, state)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            "the device has not enough memory for this run. Try a smaller --batch-size, --model.channels or "
            f"--solver.m with another --out.\nThe device says: {str(error).splitlines()[0]}"
        ) from error


def _run(plan: Plan, state: TrainState) -> int:
    config = plan.config
    start = _find_start(config, state)
    if start.step >= plan.last_step and start.is_evaluated:
        print(f"{config.out} is finished: {_result(config)}. Nothing to do.")
        return 0
    data = describe(plan.train, plan.test)
    if start.step:
        require_same_data(config, data)
    claim(config)
    _clear_way(config, start.step)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(start.state.params))
    print(
        f"{config.dataset}: {len(plan.train.labels):,} training and {len(plan.test.labels):,} test images. "
        f"{parameters:,} parameters, {plan.steps_per_epoch:,} steps an epoch, {plan.last_step:,} in all"
        + (f", {start.step:,} taken." if start.step else "."),
        flush=True,
    )
    if len(jax.devices()) > 1:
        print(f"Training uses one of {len(jax.devices())} devices: {jax.devices()[0]}.", flush=True)
    began = time.monotonic() - start.seconds
    plan = compile_programs(plan, start.state, start.step)
    compile_seconds = time.monotonic() - began - start.seconds
    print(f"Compiled in {compile_seconds:.1f} s.", flush=True)
    environment.write(
        config.out / "environment.json",
        environment.describe()
        | {
            "parameters": parameters,
            "compile_seconds": round(compile_seconds, 3),
            "data": data,
        },
        is_anew=not start.step,
    )
    signal = _train(plan, start, lambda: time.monotonic() - began)
    curves.draw(config.out)
    if signal is not None:
        print("Stopped. The same command continues.")
        return 128 + signal
    print(f"Finished: {_result(config)}. See {config.out / 'curves.png'}")
    return 0


def _find_start(config: Config, state: TrainState) -> _Start:
    """The latest readable checkpoint, or else `state`. Writes nothing: a finished run may lie in a read-only folder."""
    restored = checkpoints.restore(config.out, like=state)
    state, seconds = restored or (state, 0.0)
    step = int(state.step)
    records = [record for record in metrics.read(config.out / "metrics.jsonl") if record["step"] <= step]
    is_evaluated = any(record["kind"] == "eval" and record["step"] == step for record in records)
    # An evaluation after the checkpoint has taken its time, too.
    return _Start(state, step, max([seconds, *(record["seconds"] for record in records[-1:])]), is_evaluated)


def _clear_way(config: Config, step: int) -> None:
    """Moves what later steps have left out of the way of those that write it again; says what is missing before."""
    checkpoints.set_aside_after(config.out, step)
    path = config.out / "metrics.jsonl"
    metrics.drop_after(path, step)
    missing = step - len({record["step"] for record in metrics.read(path) if record["kind"] == "train"})
    if missing:
        print(
            f"warning: {path} lacks {missing:,} of the first {step:,} steps; training goes on, its account does not.",
            file=sys.stderr,
        )


def _train(plan: Plan, start: _Start, clock: Callable[[], float]) -> int | None:
    """Takes the run to its last step. Returns the signal that stopped it before, or None."""
    config, state = plan.config, start.state
    with (
        stop_requests() as stop,
        checkpoints.opened(config.out) as manager,
        tqdm(
            total=max(plan.last_step, start.step), initial=start.step, unit="step", dynamic_ncols=True, disable=None
        ) as bar,
    ):
        logbook = Logbook(config.out / "metrics.jsonl", bar, clock, plan.epoch_of)

        def evaluate_on_test(state: TrainState, step: int) -> None:
            means = evaluate_test_split(plan, state, is_cancelled=lambda: stop() is not None)
            if means is None:
                return
            logbook.evaluated(step, means)
            if not math.isfinite(means["loss"]):
                # No training step may follow that would notice.
                raise _diverged(config, f"the test loss is not finite after step {step:,}", step + 1)

        if plan.evaluates_at(start.step) and not start.is_evaluated:
            evaluate_on_test(state, start.step)
        saved = drawn = clock()
        if stop() is not None:
            return stop()
        for step in range(start.step + 1, plan.last_step + 1):
            batch = train_batch(plan.train, config.seed, step - 1, config.batch_size)
            started = clock()
            state, measured = plan.train_step_of(step)(state, batch.images, batch.labels)
            try:
                logbook.dispatched(step, measured, started)
                ends = plan.ends_at(step)
                if not (ends or stop() is not None or clock() - saved > 60 * config.checkpoint_minutes):
                    continue
                logbook.settle()
            except NotFiniteError as error:
                raise _diverged(config, str(error), error.step) from error
            checkpoints.save(manager, state, clock())
            saved = clock()
            if plan.evaluates_at(step):
                evaluate_on_test(state, step)
                if clock() - drawn > _SECONDS_BETWEEN_CURVES:
                    curves.draw(config.out)
                    drawn = clock()
            # Only here, behind a checkpoint: a request that comes after a step without one waits for the next step's.
            if stop() is not None:
                break
        return stop()


def _diverged(config: Config, what: str, failed: int) -> NonFiniteLossError:
    """Names the last good checkpoint, and sets aside those that are none, so that an evaluation reads it.

    The step that failed has measured the state before its own update, so a checkpoint of that state is as broken; only
    earlier ones have been followed by a step that went well.
    """
    good = checkpoints.latest_before(config.out, failed - 1)
    checkpoints.set_aside_after(config.out, good or 0)
    named = (
        "there is no good checkpoint yet"
        if good is None
        else f"the last good checkpoint is {checkpoints.folder_of(config.out, good)}"
    )
    return NonFiniteLossError(
        f"{what}; {named}.\nTry a lower --optimizer.learning-rate or --solver.tol with another --out."
    )


def _result(config: Config) -> str:
    records = metrics.read(config.out / "metrics.jsonl")
    last = next(record for record in reversed(records) if record["kind"] == "eval")
    accuracy = "unknown" if last["accuracy"] is None else f"{last['accuracy']:.2%}"
    return f"test accuracy {accuracy} after step {last['step']:,} and {last['seconds']:.0f} s"
