"""How a run shows its progress: in a terminal, in a log file, in a notebook."""

import sys
from types import SimpleNamespace

import pytest

from deq_jax.training.process import console
from deq_jax.training.process.console import Console


class Terminal:
    """A stream that says it is one."""

    def __init__(self):
        self.text = ""

    def isatty(self):
        return True

    def write(self, text):
        self.text += text
        return len(text)

    def flush(self):
        pass


def show(steps=5, **options):
    with Console(**options).progress(10, 2) as progress:
        for step in range(steps):
            progress.advance(f"loss {step}")
        progress.say("test loss 1")


def test_a_terminal_has_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    show()
    assert "\r" in terminal.text
    assert "7/10" in terminal.text


def test_a_log_file_has_lines_now_and_then_and_no_carriage_return(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with Console().progress(1000, 100) as progress:
        for step in range(300):
            progress.advance(f"loss {step}")
            now[0] += 1.0
    printed = capsys.readouterr()
    assert "\r" not in printed.out + printed.err
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert len(lines) == 300 // 60 - 1 + (300 % 60 > 0)
    assert lines[0] == "step 161 of 1,000, about 13:45 left: loss 60"


def test_what_else_is_said_puts_a_line_off(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with Console().progress(1000, 0) as progress:
        for step in range(100):
            if step == 50:
                progress.say("test loss 1")
            progress.advance("loss")
            now[0] += 1.0
    assert capsys.readouterr().out.splitlines() == ["test loss 1"]


def test_a_notebook_has_one_output_that_is_written_over(monkeypatch, capsys):
    shown = []

    def display(bundle, **options):
        assert options == {"raw": True, "display_id": True}
        shown.append(bundle)
        return SimpleNamespace(update=lambda bundle, raw: shown.append(bundle))

    kernel = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: kernel))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    show()
    assert "2/10" in shown[0]["text/plain"]
    assert "7/10" in shown[-1]["text/plain"]
    assert "loss 4" in shown[-1]["text/plain"]
    printed = capsys.readouterr()
    assert printed.out == "test loss 1\n"
    assert printed.err == ""


@pytest.mark.parametrize("config", [{"TerminalIPythonApp": {}}, None])
def test_a_shell_without_a_kernel_is_no_notebook(monkeypatch, config):
    shell = None if config is None else SimpleNamespace(config=config)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert not console.is_notebook()


def test_quiet_says_nothing(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    show(is_quiet=True)
    Console(is_quiet=True).say("done")
    assert terminal.text == capsys.readouterr().out == ""
