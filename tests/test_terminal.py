import os
import subprocess
import sys

ASCII = os.environ | {"PYTHONIOENCODING": "ascii"}
CODE = """
import sys
from deq_jax.training.process.terminal import lasting_output

sys.stdin.readline()
with lasting_output():
    for _ in range(3):
        print("x" * 100_000, flush=True)
        print("said once more", file=sys.stderr)
sys.exit(7)
"""


def test_what_nobody_reads_ends_nothing():
    for closed in ("stdout", "stderr"):
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        with subprocess.Popen([sys.executable, "-c", CODE], text=True, **pipes) as process:
            getattr(process, closed).close()
            process.stdin.write("go\n")
            process.stdin.close()
            said = (process.stderr if closed == "stdout" else process.stdout).read()
            assert process.wait(timeout=60) == 7
        assert "Error" not in said
        assert len(said) >= 3 * len("said once more")


def test_a_stream_that_was_closed_from_the_start_is_none():
    code = "import sys; sys.stdout = None\n" + CODE.replace(", flush=True", "")
    run = subprocess.run([sys.executable, "-c", code], input="go\n", capture_output=True, text=True, check=False)
    assert run.returncode == 7
    assert run.stderr == "said once more\n" * 3


def test_what_is_read_arrives():
    run = subprocess.run([sys.executable, "-c", CODE], input="go\n", capture_output=True, text=True, check=False)
    assert run.stdout == ("x" * 100_000 + "\n") * 3
    assert run.stderr == "said once more\n" * 3


UNREAD = """
import os, sys
from deq_jax.training.process.terminal import lasting_output

with lasting_output(patience=0.2):
    for _ in range(50):
        print("x" * 10_000, flush=True)
sys.exit(7)
"""


def test_a_reader_that_does_not_read_makes_a_training_wait_no_longer_than_its_patience():
    with subprocess.Popen([sys.executable, "-c", UNREAD], stdout=subprocess.PIPE) as process:
        assert process.wait(timeout=60) == 7


CLOSED = """
import os
os.close(2)
import sys
sys.stderr = None
from deq_jax.training.process.terminal import lasting_output

with lasting_output(patience=1.0):
    with open(sys.argv[1], "w") as file:
        assert file.fileno() > 2
        print("lost", file=sys.stderr)
        sys.stderr.write("lost")
        assert not sys.stderr.isatty()
        os.write(2, b"lost")
        file.write("kept")
"""


def test_what_is_meant_for_a_closed_stream_gets_into_no_file(tmp_path):
    file = tmp_path / "metrics"
    run = subprocess.run([sys.executable, "-c", CLOSED, str(file)], check=False)
    assert run.returncode == 0
    assert file.read_text() == "kept"


def test_what_the_encoding_has_no_sign_for_is_printed_as_an_escape():
    code = "from deq_jax.training.process.terminal import lasting_output\nwith lasting_output({}): print('é–\\udcff')"
    for patience in ("None", "1.0"):
        run = subprocess.run(
            [sys.executable, "-c", code.format(patience)], capture_output=True, env=ASCII, check=False, text=True
        )
        assert run.stdout == "\\xe9\\u2013\\udcff\n"
