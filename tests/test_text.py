import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deq_jax import evaluate, generate, training
from deq_jax.tasks.presets import PRESETS, train
from deq_jax.tasks.text.generation import Writer, nothing_read, read_on, written
from deq_jax.tasks.text.model import build_model
from deq_jax.tasks.text.task import open_task
from deq_jax.tasks.text.vocabulary import Vocabulary
from deq_jax.training.settings.solves import SolverConfig
from deq_jax.training.settings.update import PenaltyConfig
from deq_jax.training.steps.solving import build_adjoint, build_solver
from tests.runs import records, without_times
from tests.text import tiny

# One worker runs them all: they share one run and its compiled programs.
pytestmark = pytest.mark.xdist_group("text")


def built(config, vocabulary=256):
    solver, adjoint = build_solver(config.solver), build_adjoint(config.adjoint, config.solver)
    return build_model(config.model, config.data, vocabulary, solver, adjoint, nnx.Rngs(0))


def windows(config):
    return open_task(config, ["test"]).data.splits["test"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "lines"
    assert train(tiny(out, model={"dropout": 0.1}, penalty=PenaltyConfig(weight=0.1)), is_quiet=True) == 0
    return out


@pytest.mark.long
def test_a_stopped_run_ends_as_one_that_went_through(run, tmp_path):
    """Dropout masks, penalty and all."""
    changes = {"model": {"dropout": 0.1}, "penalty": PenaltyConfig(weight=0.1)}
    out = run.parent / "stopped"
    assert train(tiny(out, max_steps=3, **changes), is_quiet=True) == 0
    assert train(tiny(out, **changes), is_quiet=True) == 0
    measured = {line["step"]: line for line in without_times(records(out)) if line["kind"] == "train"}
    assert list(measured.values()) == [line for line in without_times(records(run)) if line["kind"] == "train"]


def test_a_run_reports_bits_for_each_byte(run):
    first, *_, last = records(run)
    np.testing.assert_allclose(first["bits_per_byte"], first["loss"] / np.log(2), rtol=1e-5)
    assert last["kind"] == "eval"
    assert 0 < last["bits_per_byte"] < 9
    assert first["forward_iterations"] <= 12  # two segments of six
    assert 0 < first["adjoint_iterations"] <= 12


@pytest.mark.long
def test_it_is_evaluated_on_its_text_and_on_another(run, tmp_path, capsys):
    other = tmp_path / "other.txt"
    other.write_text("something else " * 9)
    for arguments, count, data in (([], 6, "lines.py"), (["--problems", str(other)], 6, "bytes of other.txt")):
        evaluate.main([str(run), *arguments])
        result = json.loads(capsys.readouterr().out)
        assert result["count"] == count
        assert result["data"].endswith(data)
        assert 0 < result["bits_per_byte"] < 9
    with pytest.raises(SystemExit):
        evaluate.main([str(run), "--difficulty", "3"])
    assert "a text is as hard as it is" in capsys.readouterr().err


def test_what_comes_later_changes_no_logit_before(tmp_path):
    """Of the same segment or one before, to the tolerance of the solves."""
    config = tiny(tmp_path / "run", solver=SolverConfig(tol=1e-5, max_iter=200))
    model = built(config)
    tokens = windows(config).tokens[:2]
    other = tokens.copy()
    other[:, 1, 2:] = 7
    read = jax.jit(lambda tokens: model(tokens).logits)
    one, two = read(tokens), read(other)
    np.testing.assert_allclose(one[:, 0], two[:, 0], atol=1e-3)
    np.testing.assert_allclose(one[:, 1, :2], two[:, 1, :2], atol=1e-3)
    assert (abs(one - two)[:, 1, 2:].max(-1) > 1e-2).all()


@pytest.mark.parametrize("kind", ["equilibrium", "tied", "layers"])
def test_position_by_position_it_says_what_it_says_of_a_window(tmp_path, kind):
    """A segment's memory reaches as far here as windows do, so that both see the same."""
    config = tiny(
        tmp_path / "run",
        model={"kind": kind, "memory": 5, "layers": 3},
        data={"length": 5},
        solver=SolverConfig(tol=1e-5, max_iter=300),
    )
    model, tokens = built(config), windows(config).tokens[:1]
    for cell in model.body.cells:  # of one equilibrium
        for layer, factor in ((cell.out, 3.0), (cell.attend, 0.3), (cell.back, 0.3)):
            layer.gain[...] *= factor
    expected = jax.jit(lambda tokens: model(tokens).logits)(tokens).reshape(10, -1)
    writer = Writer(model, Vocabulary(), positions=10)
    follow = jax.jit(lambda before, number: read_on(model, before, number))
    read = nothing_read(writer)
    for number, logits in zip(tokens.ravel(), expected, strict=True):
        read = follow(read, jnp.int32(number))
        np.testing.assert_allclose(read.logits, logits, atol=5e-3)


@pytest.mark.parametrize("kind", ["equilibrium", "tied", "layers"])
def test_every_kind_of_network_learns(tmp_path, kind):
    """A step against the gradient makes the loss smaller."""
    config = tiny(tmp_path / "run", model={"kind": kind})
    task, model = open_task(config, ["test"]), built(config)
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    batch = task.data.splits["test"]
    value = jax.jit(
        jax.value_and_grad(lambda params: task.loss(nnx.merge(graph, params, rest, copy=True), batch, None).loss.mean())
    )
    before, gradient = value(params)
    after, _ = value(jax.tree.map(lambda p, g: p - 1e-2 * g, params, gradient))
    assert after < before


def test_the_two_presets_have_as_many_parameters():
    counts = []
    for name in ("text", "text-explicit"):
        params = nnx.state(nnx.eval_shape(lambda name=name: built(PRESETS[name]())), nnx.Param)
        counts.append(sum(leaf.size for leaf in jax.tree.leaves(params)))
    assert 1 <= counts[1] / counts[0] < 1.01


def test_the_preset_for_a_gpu_is_of_its_authors_layer():
    """Eight square matrices, for attention, injection and distances, and two of 48,000; all else is the embedding."""
    config = PRESETS["text-gpu"]()
    vocabulary = 256 + config.data.vocabulary
    params = nnx.state(nnx.eval_shape(lambda: built(config, vocabulary)), nnx.Param)
    count = sum(leaf.size for leaf in jax.tree.leaves(params)) - vocabulary * 701
    assert 0 <= count - (8 * 700**2 + 2 * 700 * 48_000) < 0.002 * count


def test_it_writes_on_alike_for_a_seed_and_says_what_it_took(run, capsys):
    outputs = []
    for start in ("previous", "previous", "zeros"):
        generate.main([str(run), "--prompt", "def ", "--length", "8", "--seed", "3", "--start", start])
        outputs.append(capsys.readouterr())
    assert outputs[0] == outputs[1]
    assert outputs[0].out.startswith("def ")
    assert "8 bytes, " in outputs[0].err
    assert "evaluations each" in outputs[0].err


def test_the_likeliest_is_no_matter_of_the_seed(tmp_path):
    config = tiny(tmp_path / "run", model={"kind": "layers"})
    writer = Writer(built(config), Vocabulary(), positions=9)
    drawn = [
        [w.number for w in written(writer, [65], 6, temperature=t, seed=s)] for t, s in ((0.0, 0), (0.0, 1), (1.0, 0))
    ]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.long
def test_tokens_are_learned_and_written_by_the_vocabulary_of_the_run(tmp_path, capsys):
    out = tmp_path / "run"
    config = tiny(out, model={"kind": "layers"}, data={"unit": "tokens", "vocabulary": 20}, epochs=1)
    assert train(config, is_quiet=True) == 0
    (tmp_path / "lines.py").unlink()  # what writes needs no text
    generate.main([str(out), "--length", "5", "--temperature", "0"])
    assert "5 tokens, 2 layers each." in capsys.readouterr().err
    last = records(out)[-1]
    assert last["bits_per_byte"] < 0.8 * last["loss"] / np.log(2)  # a token is longer than a byte


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--length", "0"], "--length must be from 1"),
        (["--temperature", "-1"], "--temperature must not be negative"),
        (["--checkpoint", "7"], "no checkpoint of step 7"),
    ],
)
def test_mistakes_are_told_in_a_line(run, capsys, arguments, said):
    with pytest.raises(SystemExit) as end:
        generate.main([str(run), *arguments])
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_other_runs_write_no_text(finished_run, capsys):
    with pytest.raises(SystemExit):
        generate.main([str(finished_run)])
    assert "holds a run of the task deq_jax.tasks.images.task" in capsys.readouterr().err


def test_it_is_loaded_as_any_run(run):
    model = training.load(run).model
    assert model(np.zeros((2, 2, 5), np.int32)).logits.shape == (2, 2, 5, 256)
