"""The virtual environment of the released package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

RELEASED_VERSION = "3.0.2"
INTERPRETER_VARIABLE = "WAITRESS_RELEASED_PYTHON"
"""Names an interpreter that has the released package, to be used instead of making one."""

_INSTALL_TIMEOUT_SECONDS = 300


def released_python(cache: Path) -> str:
    """An interpreter that imports the released package; made under ``cache`` when missing.

    The environment is named after the running Python, so that both servers run on the same
    one, and is put in its place only when it is complete.
    """
    given = os.environ.get(INTERPRETER_VARIABLE)
    if given:
        return given
    python = ".".join(str(number) for number in sys.version_info[:3])
    environment = cache / f"waitress-{RELEASED_VERSION}-python-{python}"
    if not environment.exists():
        _make(environment)
    return str(_interpreter_of(environment))


def _make(environment: Path) -> None:
    unfinished = environment.with_name(f"{environment.name}-{os.getpid()}")
    _run(sys.executable, "-m", "venv", str(unfinished))
    _run(
        str(_interpreter_of(unfinished)),
        *("-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        f"waitress=={RELEASED_VERSION}",
    )
    try:
        unfinished.rename(environment)  # pip no longer works there, the interpreter does
    except OSError:
        shutil.rmtree(unfinished)
        if not environment.exists():  # else another run of the tests was quicker
            raise


def _interpreter_of(environment: Path) -> Path:
    if os.name == "nt":
        return environment / "Scripts" / "python.exe"
    return environment / "bin" / "python"


def _run(*command: str) -> None:
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_INSTALL_TIMEOUT_SECONDS,
    )
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)} failed:\n{done.stdout}\n"
            f"(set {INTERPRETER_VARIABLE} to an interpreter that has waitress {RELEASED_VERSION})"
        )
