"""A training that loses its power: only what was synced is there. Run as python power.py SHADOW train.py ARGUMENTS.

Every file's content is copied into SHADOW where it is synced, and every folder's names where that is; `restored` builds
from them the folder as a disk would hold it. TensorStore's own syncs are not seen, which makes the loss the harder.
"""

import json
import os
import runpy
import shutil
import stat
import sys
from pathlib import Path


def watched(shadow: Path) -> None:
    """From here on, every `os.fsync` leaves a copy."""
    fsync = os.fsync

    def sync(descriptor: int) -> None:
        fsync(descriptor)
        info = os.fstat(descriptor)
        place = Path(f"/proc/self/fd/{descriptor}").resolve()
        temporary = shadow / f".{info.st_ino}.{os.getpid()}"
        if stat.S_ISDIR(info.st_mode):
            names = {entry.name: entry.stat(follow_symlinks=False).st_ino for entry in os.scandir(place)}
            temporary.write_text(json.dumps(names))
            temporary.replace(shadow / f"folder-{info.st_ino}")
        else:
            shutil.copyfile(place, temporary)
            temporary.replace(shadow / f"file-{info.st_ino}")

    os.fsync = sync


def restored(folder: Path, shadow: Path, into: Path) -> None:
    """The folder as it is after a loss of power: names as they were synced, files with the content that was."""
    into.mkdir(parents=True, exist_ok=True)
    known = shadow / f"folder-{folder.stat().st_ino}"
    names = json.loads(known.read_text()) if known.exists() else {}
    there = {entry.stat(follow_symlinks=False).st_ino: Path(entry.path) for entry in os.scandir(folder)}
    for name, number in names.items():
        if (shadow / f"folder-{number}").exists():
            if number in there:
                restored(there[number], shadow, into / name)
        elif (shadow / f"file-{number}").exists():
            shutil.copyfile(shadow / f"file-{number}", into / name)
        elif number in there and there[number].is_dir():
            (into / name).mkdir()
        else:
            (into / name).touch()  # its name is on the disk, and its content is not


if __name__ == "__main__":
    watched(Path(sys.argv[1]))
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")
