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
def released(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Servers]:
    """The released package, serving; its environment is kept in pytest's cache, if there is one."""
    cache = getattr(request.config, "cache", None)
    where = cache.mkdir("released") if cache else tmp_path_factory.mktemp("released")
    python = released_python(where)
    with _short_directory() as directory, serving(python, Path(directory)) as servers:
        yield servers


@pytest.fixture(scope="session")
def ours() -> Iterator[Servers]:
    """The package under test, serving: the very one that this process imports."""
    assert waitress.__file__ is not None
    where = str(Path(waitress.__file__).parents[1])
    with (
        _short_directory() as directory,
        serving(sys.executable, Path(directory), where) as servers,
    ):
        yield servers


def _short_directory() -> tempfile.TemporaryDirectory[str]:
    # Not pytest's tmp_path: the path of a unix socket may have about 100 characters.
    return tempfile.TemporaryDirectory(prefix="wsgi")
