"""Python environments for contestants and for a GPU's compiler, made once under ``.bench/`` from pinned versions."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
BENCH = ROOT / ".bench"
# Oldest first: the peers are older than deq_jax, and a wheel for an old Python is more likely to be at hand.
TORCH_PYTHONS = ("3.11", "3.12", "3.13", "3.14")


class UnavailableError(Exception):
    """An environment cannot be had; the message says why."""


def own() -> Path:
    """deq_jax's own interpreter: the one that runs this."""
    return Path(sys.executable)


def jax_peers() -> Path:
    """The interpreter of an environment with jaxopt and optimistix, and with deq_jax's own versions of JAX and Flax."""
    pins = ["--constraint", str(ROOT / "constraints.txt")]
    return _environment("jax", own(), [ROOT / "benchmarks/requirements-jax.txt"], pins)


def h100() -> Path:
    """The interpreter of an environment with XLA's compiler for NVIDIA GPUs, which needs none; 5 GB."""
    pins = ["--constraint", str(ROOT / "constraints.txt")]
    return _environment("h100", own(), [ROOT / "benchmarks/requirements-h100.txt"], pins)


def torch_peers(python: str | None = None) -> Path:
    """The interpreter of an environment with PyTorch and torchdeq, from ``python`` or the first that has wheels."""
    # Wheels only: nobody wants to compile PyTorch.
    options = ["--only-binary", ":all:"]
    reasons = []
    for interpreter in [Path(python)] if python else _interpreters():
        try:
            return _environment("torch", interpreter, [ROOT / "benchmarks/requirements-torch.txt"], options)
        except UnavailableError as error:
            reasons.append(f"{interpreter}: {error}")
    raise UnavailableError("; ".join(reasons) or f"no Python {', '.join(TORCH_PYTHONS)} found; give --torch-python")


def _environment(name: str, interpreter: Path, requirements: list[Path], options: list[str]) -> Path:
    """The interpreter in ``.bench/name``, made anew when its requirements or the interpreter have changed."""
    folder = BENCH / name
    python, stamp = folder / "bin/python", folder / ".installed"
    pinned = "".join(path.read_text() for path in [*requirements, ROOT / "constraints.txt"])
    wanted = hashlib.sha256(f"{interpreter} {pinned}".encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"setting up {folder.relative_to(ROOT)} …", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _run([interpreter, "-m", "venv", folder])
    files = [part for path in requirements for part in ("--requirement", str(path))]
    _run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *files, *options])
    stamp.write_text(wanted)
    return python


def _interpreters() -> Iterator[Path]:
    """Pythons on the PATH, asked for by version; under pyenv also those that the project's folder does not select."""
    for version in TORCH_PYTHONS:
        command = [f"python{version}", "-c", "import sys; print(sys.executable)"]
        for selected in ({}, {"PYENV_VERSION": version}):
            try:
                found = subprocess.run(
                    command, env=os.environ | selected, capture_output=True, text=True, check=True, timeout=60
                )
            except (OSError, subprocess.SubprocessError):
                continue
            yield Path(found.stdout.strip())
            break


def _run(command: list[str | Path]) -> None:
    try:
        subprocess.run(command, capture_output=True, text=True, check=True)
    except OSError as error:
        raise UnavailableError(str(error)) from error
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.strip()] or [f"status {error.returncode}"]
        wrong = [line for line in lines if line.startswith("ERROR")] or lines
        raise UnavailableError(wrong[-1].strip()) from error
