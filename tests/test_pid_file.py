from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from waitress.pid_file import PidFile

NOW = f"{os.getpid()}\n"


def test_holds_the_number_of_the_process(tmp_path: Path) -> None:
    path = tmp_path / "w.pid"
    PidFile(str(path)).write()
    assert path.read_text() == NOW
    assert os.listdir(tmp_path) == ["w.pid"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_can_be_read_by_everybody(tmp_path: Path) -> None:
    path = tmp_path / "w.pid"
    PidFile(str(path)).write()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_may_lie_in_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    PidFile("w.pid").write()
    assert (tmp_path / "w.pid").read_text() == NOW


def test_takes_the_place_of_a_stale_one_at_once(tmp_path: Path) -> None:
    """Who has the old one open goes on reading the old number, not half of the new one."""
    path = tmp_path / "w.pid"
    path.write_text("999999\n")
    with path.open() as stale:
        PidFile(str(path)).write()
        assert stale.read() == "999999\n"
    assert path.read_text() == NOW


def test_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none" / "w.pid"
    with pytest.raises(OSError, match=r"cannot write the pid file .*w\.pid: No such file") as told:
        PidFile(str(path)).write()
    assert isinstance(told.value, FileNotFoundError)


def test_that_cannot_be_put_in_place_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "w.pid"
    path.mkdir()
    with pytest.raises(OSError, match="cannot write the pid file"):
        PidFile(str(path)).write()
    assert os.listdir(tmp_path) == ["w.pid"]


def test_is_removed_while_it_is_ours(tmp_path: Path) -> None:
    file = PidFile(str(tmp_path / "w.pid"))
    file.write()
    file.remove()
    assert os.listdir(tmp_path) == []
    file.remove()


@pytest.mark.parametrize(
    "text", ["1\n", "", "\xff", NOW.strip() + "0"], ids=["other", "empty", "garbage", "longer"]
)
def test_of_another_process_stays(tmp_path: Path, text: str) -> None:
    path = tmp_path / "w.pid"
    path.write_text(text, encoding="latin-1")
    PidFile(str(path)).remove()
    assert path.exists()
