import subprocess
import sys

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
