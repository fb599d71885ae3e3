"""Virtual environments outside of the tree, one per requirement, made once.

Row 2: imports ``errors`` and ``servers``. They are kept under ``BENCHMARKS_HOME``, by default
``~/.cache/waitress-benchmarks``, one set for each version of Python.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.errors import InstallationError
from benchmarks.servers import TREE, Server

ROOT = Path(__file__).parent.parent

#: What is needed to build this project, beside the package itself.
_METADATA = ("setup.py", "pyproject.toml", "README.rst", "CHANGES.txt", "LICENSE.txt")
#: Compilers take their time.
_INSTALL_SECONDS = 600


def home() -> Path:
    """Return where everything is kept that is no result."""
    given = os.environ.get("BENCHMARKS_HOME")
    return Path(given) if given else Path.home() / ".cache" / "waitress-benchmarks"


def binaries_of(server: Server) -> Path:
    """Return the directory of a server's commands; make its environment first, if need be.

    What could not be installed is not tried again, until its ``.failed`` file is removed.

    Raises:
        InstallationError: with the last line of what pip had to say.
    """
    if server.requirement == TREE:
        return _environment("tree", _fingerprint(), _install_tree)
    return environment_with(server.requirement)


def environment_with(requirement: str) -> Path:
    """Return the directory of commands of an environment that has one requirement.

    Raises:
        InstallationError: as above.
    """
    return _environment(requirement, requirement, lambda python: _pip(python, requirement))


def version_of(server: Server, binaries: Path) -> str:
    """Return which version of a server is installed."""
    code = f"import importlib.metadata as m; print(m.version({server.distribution!r}))"
    # Isolated, or the tree would be found if it happens to be the current directory.
    return _run([str(binaries / "python"), "-I", "-c", code]).strip()


def _environment(name: str, content: str, install: Callable[[Path], None]) -> Path:
    place = home() / f"cpython-{platform.python_version()}" / name
    failed = place.with_name(name + ".failed")
    if failed.exists():
        raise InstallationError(failed.read_text().strip())
    installed = place / "installed.txt"
    if not installed.exists() or installed.read_text() != content:
        sys.stderr.write(f"installing {name}\n")
        shutil.rmtree(place, ignore_errors=True)
        try:
            _run([sys.executable, "-m", "venv", str(place)])
            install(place / "bin" / "python")
        except InstallationError as error:
            failed.write_text(f"{error}\n")
            raise
        installed.write_text(content)
    return place / "bin"


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for path in [ROOT / "setup.py", *sorted((ROOT / "waitress").rglob("*.py"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _install_tree(python: Path) -> None:
    # From a copy: building leaves directories behind.
    with tempfile.TemporaryDirectory() as directory:
        for name in _METADATA:
            shutil.copy(ROOT / name, directory)
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "waitress", Path(directory, "waitress"), ignore=unwanted)
        _pip(python, directory)


def _pip(python: Path, what: str) -> None:
    _run([str(python), "-m", "pip", "install", "--quiet", what])


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise InstallationError(f"not done within {_INSTALL_SECONDS} s") from None
    if done.returncode:
        raise InstallationError(_reason(done.stderr))
    return done.stdout


def _reason(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    # The compiler's words tell more than pip's, which come last.
    of_compiler = [line for line in lines if "fatal error:" in line]
    return (of_compiler or lines[-1:] or ["no word why"])[0]
