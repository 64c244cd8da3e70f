"""A training run, from its start or from where it stopped, to its end."""

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from deq_jax.training.devices.agreement import STOP, Accord, agreed_signal, by_first, is_first, require_alike
from deq_jax.training.devices.places import place_of
from deq_jax.training.devices.processes import join, told_of_others
from deq_jax.training.disk import checkpoints, curves, environment, metrics, tensorboard
from deq_jax.training.disk.best import best_step, is_stalled, results
from deq_jax.training.disk.files import sync
from deq_jax.training.disk.folder import claim, require_same_data, require_usable
from deq_jax.training.disk.lock import held
from deq_jax.training.disk.logbook import Logbook, NotFiniteError
from deq_jax.training.errors import NonFiniteLossError
from deq_jax.training.health import Watch, advice
from deq_jax.training.plan import Plan, prepare
from deq_jax.training.process.compilation import require_backend, use_persistent_cache
from deq_jax.training.process.console import Console, Progress
from deq_jax.training.process.signals import stop_requests
from deq_jax.training.programs import Programs, compile_programs, evaluate_split
from deq_jax.training.settings.record import same_everywhere
from deq_jax.training.settings.settings import Settings
from deq_jax.training.start import Start, find_start, make_way
from deq_jax.training.steps.batches import count
from deq_jax.training.steps.solving import unreachable
from deq_jax.training.steps.step import TrainState
from deq_jax.training.summary import reached, summary
from deq_jax.training.task import Task

_SECONDS_BETWEEN_CURVES = 60.0


def run(
    open_task: Callable[[], Task],
    settings: Settings,
    config: Any = None,
    opener: str | None = None,
    *,
    is_quiet: bool = False,
    next_steps: Sequence[str] = (),
    flags: Mapping[str, str] | None = None,
) -> int:
    """Trains, or continues, the run in `settings.out`. Returns the exit status: 0, or 128 + the signal that stopped it.

    On a CPU a continued run ends with the very parameters of an uninterrupted one.

    Args:
        open_task: gives the task, once the folder is known to be usable.
        settings: what the run takes.
        config: all that makes this run another than others, a frozen dataclass, as config.json keeps it; the settings
            where it is None.
        opener: the module that can open the task again, with `reopened`; None for a task of the caller's own.
        is_quiet: say nothing but what is wrong, on stderr.
        next_steps: what can be done with a finished run, said at its end, a command each.
        flags: what the command line says of this process among several, as `places.without_flags` finds it.

    Raises:
        UserError: the folder, the data or the settings do not fit, another process is training in the folder, or JAX
            finds no device.
        NonFiniteLossError: training diverged.
    """
    out, config = settings.out, settings if config is None else config
    join(place_of(flags or {}, os.environ))
    require_backend()
    use_persistent_cache()
    require_usable(out, config, opener)
    require_alike(same_everywhere(config))  # before it settles what is laid on the devices
    plan, state = prepare(open_task(), settings)
    if jax.process_count() > 1:
        require_alike(environment.describe_data(plan.task.data))
    with told_of_others(), contextlib.ExitStack() as stack:
        by_first(lambda: stack.enter_context(held(out)))
        # Again: another process may have begun, and ended, in the meantime.
        by_first(lambda: require_usable(out, config, opener))
        start = find_start(plan, state, type(config))
        require_alike({"the checkpoint's step": start.step})
        console = Console(is_quiet=is_quiet or not is_first())
        return _run(plan, start, console, lambda: claim(out, config, opener), next_steps)


def _run(
    plan: Plan, start: Start, console: Console, claim_folder: Callable[[], None], next_steps: Sequence[str]
) -> int:
    out, data = plan.settings.out, plan.task.data
    described = environment.describe_data(data)
    if start.step:
        require_same_data(out, described, data.unit, data.remedy)
    if start.is_last:
        console.say(f"{out} is finished: {reached(out, plan.task)}. Nothing to do.")
        return 0
    parameters = sum(leaf.size for leaf in jax.tree.leaves(start.state.params))
    console.say(
        f"{data.name}: {described[f'training_{data.unit}']:,} training and {described[f'test_{data.unit}']:,} test "
        f"{data.unit}"
        + (
            f", {count(plan.splits['validation']):,} {data.unit} for validation. "
            if "validation" in plan.splits
            else ". "
        )
        + f"{parameters:,} parameters, {plan.steps_per_epoch:,} steps an epoch, {plan.last_step:,} in all"
        + (f", {start.step:,} taken." if start.step else ".")
    )
    if plan.devices.number > 1:
        console.say(plan.devices.described(plan.settings.batch_size))
    for note in unreachable(plan.settings, jax.devices()[0].platform):
        console.say(note)
    began = time.monotonic() - start.seconds
    programs = compile_programs(plan, start.state, start.step)
    compile_seconds = time.monotonic() - began - start.seconds
    console.say(f"Compiled in {compile_seconds:.1f} s.")

    # Only now, since a task whose functions return something else than they have promised has begun no run.
    def make_ready() -> None:
        claim_folder()
        make_way(out, start.step)
        environment.write(
            out / "environment.json",
            environment.describe()
            | {
                "parameters": parameters,
                "compile_seconds": round(compile_seconds, 3),
                "steps": plan.last_step,
                **environment.describe_samples(data),
                "data": described,
            },
            is_anew=not start.step,
        )

    by_first(make_ready)
    with stop_requests() as stop:
        with console.progress(max(plan.last_step, start.step), start.step) as progress:
            signal = _train(plan, programs, start, lambda: time.monotonic() - began, progress, stop)
        by_first(lambda: curves.draw(out, plan.task.metrics))
    if signal is not None:
        console.say("Stopped. Started again, it goes on.")
        return 128 + signal
    console.say(summary(out, plan.task, plan.settings, next_steps))
    return 0


def _train(
    plan: Plan,
    programs: Programs,
    start: Start,
    clock: Callable[[], float],
    progress: Progress,
    stop: Callable[[], int | None],
) -> int | None:
    """Takes the run to its last step. Returns the signal that stopped it before, or None."""
    settings, out, state, result = plan.settings, plan.settings.out, start.state, plan.task.result
    records = metrics.read(out / "metrics.jsonl")
    measured_results = results(records, result)
    watch = Watch(records, lambda text: print(text, file=sys.stderr), settings)

    def best_of(steps: Sequence[int]) -> int | None:
        return best_step(measured_results, result, steps)

    with (
        tensorboard.opened(out if is_first() else None, start.step) as events,
        checkpoints.opened(out, kept=best_of, before=lambda: sync(out / "metrics.jsonl")) as writer,
    ):
        accord, is_alone = Accord(plan.devices), jax.process_count() == 1
        logbook = Logbook(
            out / "metrics.jsonl" if is_first() else None,
            events,
            progress,
            clock,
            plan.epoch_of,
            plan.task.metrics,
            watch.add,
            skips=settings.optimizer.skip_non_finite,
        )

        def evaluate(state: TrainState, step: int) -> None:
            for split in plan.evaluated:
                # Of several processes none can leave the others in the middle.
                means = evaluate_split(
                    plan, programs, split, state, is_cancelled=lambda: is_alone and stop() is not None
                )
                if means is None:
                    return
                logbook.evaluated(split, step, means)
                if math.isfinite(means[result.name]) and split == plan.evaluated[0]:
                    measured_results[step] = means[result.name]
                if not math.isfinite(means["loss"]):
                    # No training step may follow that would notice.
                    writer.settle()
                    raise _diverged(plan, f"the {split} loss is not finite after step {step:,}", step + 1)

        if plan.evaluates_at(start.step) and not start.is_evaluated:
            evaluate(state, start.step)
        saved = drawn = clock()
        if is_alone and stop() is not None:
            return stop()
        for step in range(start.step + 1, plan.last_step + 1):
            batch = plan.batch(step)
            started = clock()
            state, measured = programs.train_steps[plan.phase_of(step)](state, batch)
            try:
                logbook.dispatched(step, measured, started)
                ends = plan.ends_at(step)
                is_due = clock() - saved > 60 * settings.checkpoint_minutes
                wish = accord(stops=stop() is not None, saves=is_due and is_first())
                if not (ends or wish):
                    continue
                logbook.settle()
            except NotFiniteError as error:
                writer.settle()
                raise _diverged(plan, str(error), error.step) from error
            events.flush()
            writer.save(state, clock())
            saved = clock()
            if plan.evaluates_at(step):
                evaluate(state, step)
                if is_first() and clock() - drawn > _SECONDS_BETWEEN_CURVES:
                    curves.draw(out, plan.task.metrics)
                    drawn = clock()
                if is_stalled(measured_results, result, settings.validation.patience):
                    progress.say(f"Stopped early: {settings.validation.patience} evaluations without a better result.")
                    break
            # Only here, behind a checkpoint: a request that comes after a step without one waits for the next step's.
            if wish == STOP or (is_alone and stop() is not None):
                return agreed_signal(stop())
        return stop() if is_alone else None


def _diverged(plan: Plan, what: str, failed: int) -> NonFiniteLossError:
    """Names the last good checkpoint, and sets aside those that are none, so that an evaluation reads it.

    The step that failed has measured the state before its own update, so a checkpoint of that state is as broken; only
    earlier ones have been followed by a step that went well.
    """
    out = plan.settings.out
    good = checkpoints.latest_before(out, failed - 1)
    by_first(lambda: checkpoints.set_aside_after(out, good or 0, "diverged"))
    named = (
        "there is no good checkpoint yet"
        if good is None
        else f"the last good checkpoint is {checkpoints.folder_of(out, good)}"
    )
    return NonFiniteLossError(f"{what}; {named}.\n{advice(plan.settings)}")
