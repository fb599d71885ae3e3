from __future__ import annotations

import sys
from pathlib import Path

import pytest

from waitress.toml_file import read_toml

needs_toml = pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with 3.11")


@needs_toml
def test_gives_the_table_and_the_text(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b'a = 1\r\nb = "\xc3\xa9"\n')
    assert read_toml(str(path)) == ({"a": 1, "b": "é"}, 'a = 1\nb = "é"\n')


@needs_toml
@pytest.mark.parametrize("content", [b"a = = 1\n", b'a = "\xff"\n'])
def test_refuses_what_is_no_toml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    with pytest.raises(ValueError):
        read_toml(str(path))


def test_says_what_an_older_python_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tomllib", None)
    with pytest.raises(ValueError, match=r"^TOML files need Python 3\.11 or newer$"):
        read_toml("x.toml")


@needs_toml
def test_says_which_file_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_toml(str(tmp_path / "x.toml"))
