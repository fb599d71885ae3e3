from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import waitress
from tests.differential.released import released_python
from tests.differential.servers import Servers, serving


@pytest.fixture(scope="session")
def released_interpreter(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """An interpreter with the released package; kept in pytest's cache, if there is one."""
    cache = getattr(request.config, "cache", None)
    return released_python(
        cache.mkdir("released") if cache else tmp_path_factory.mktemp("released")
    )


@pytest.fixture(scope="session")
def package_parent() -> str:
    """The directory that holds the package under test: the one that this process imports."""
    assert waitress.__file__ is not None
    return str(Path(waitress.__file__).parents[1])


@pytest.fixture(scope="session")
def released(released_interpreter: str) -> Iterator[Servers]:
    """The released package, serving."""
    with _short_directory() as directory, serving(released_interpreter, Path(directory)) as servers:
        yield servers


@pytest.fixture(scope="session")
def ours(package_parent: str) -> Iterator[Servers]:
    """The package under test, serving."""
    with (
        _short_directory() as directory,
        serving(sys.executable, Path(directory), package_parent) as servers,
    ):
        yield servers


def _short_directory() -> tempfile.TemporaryDirectory[str]:
    # Not pytest's tmp_path: the path of a unix socket may have about 100 characters.
    return tempfile.TemporaryDirectory(prefix="wsgi")
