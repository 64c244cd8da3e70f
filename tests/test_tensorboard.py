import struct

import pytest
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event, SessionLog

from deq_jax.tasks.presets import train
from deq_jax.training.disk import tensorboard
from deq_jax.training.errors import UserError
from tests.runs import records, tiny

pytestmark = pytest.mark.xdist_group("run")


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def events(path):
    """The events of a file, every checksum looked at."""
    data, found = path.read_bytes(), []
    while data:
        head = data[:8]
        (length,), (of_head,) = struct.unpack("<Q", head), struct.unpack("<I", data[8:12])
        body, (of_body,) = data[12 : 12 + length], struct.unpack("<I", data[12 + length : 16 + length])
        assert (of_head, of_body) == (masked(head), masked(body))
        found.append(Event.FromString(body))
        data = data[16 + length :]
    return found


def scalars(run):
    """What TensorBoard shows of a run, by tag and step: a start makes it forget the steps from its own on."""
    shown = {}
    for path in sorted(run.glob("events.out.tfevents.*")):
        for event in events(path):
            if event.session_log.status == SessionLog.START:
                shown = {key: value for key, value in shown.items() if key[1] < event.step}
            for value in event.summary.value:
                assert (value.tag, event.step) not in shown, "a step twice"
                shown[value.tag, event.step] = value.simple_value
    return shown


def account(run):
    """The same of metrics.jsonl."""
    folders, left_out = {"train": "train", "eval": "test"}, {"kind", "step", "epoch", "seconds"}
    return {
        (f"{folders[line['kind']]}/{name}", line["step"]): pytest.approx(value, rel=1e-6)  # float32
        for line in records(run)
        for name, value in line.items()
        if name not in left_out and value is not None
    }


def test_the_event_file_has_the_numbers_of_the_metrics(finished_run):
    assert scalars(finished_run) == account(finished_run)
    assert ("train/loss", 7) in scalars(finished_run)
    assert ("test/accuracy", 7) in scalars(finished_run)


@pytest.mark.long
def test_a_resumed_run_adds_a_file_and_repeats_no_step(finished_run, tmp_path):
    assert train(tiny(tmp_path, max_steps=4)) == 0
    # As if it had been killed two steps after a checkpoint.
    with tensorboard.opened(tmp_path, 4) as writer:
        for line in records(finished_run)[4:6]:
            writer.add(line | {"loss": 9.0})
    assert train(tiny(tmp_path)) == 0
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) >= 2
    assert scalars(tmp_path) == account(tmp_path)


def test_a_run_that_starts_anew_makes_former_steps_forgotten(tmp_path):
    for loss in (1.0, 2.0):
        for path in tmp_path.glob("events.*"):
            path.rename(path.with_name("events.out.tfevents.1.former"))  # of another second
        with tensorboard.opened(tmp_path, 0) as writer:
            writer.add({"kind": "train", "step": 1, "loss": loss})
    assert scalars(tmp_path) == {("train/loss", 1): 2.0}


def test_what_was_added_is_on_disk_after_a_flush(tmp_path):
    with tensorboard.opened(tmp_path, 0) as writer:
        writer.add({"kind": "train", "step": 1, "loss": 1.0, "accuracy": None})
        writer.flush()
        assert scalars(tmp_path) == {("train/loss", 1): 1.0}


def test_a_folder_that_cannot_be_written_to_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="cannot write to"), tensorboard.opened(tmp_path / "missing", 0):
        pass
