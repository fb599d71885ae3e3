"""A disk that is full: refused or cut, nothing leaked, and the server goes on."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.compat.live import Running, Wire, chunked, request
from tests.faults.processes import faulty
from tests.hostile.processes import await_that
from tests.hostile.serving import application

MIB = 1024 * 1024
SMALL = {"inbuf_overflow": 10_000, "outbuf_overflow": 10_000, "spool_limit": 1 << 40}


def read_to_cut(wire: Wire) -> int:
    """Return how much comes until the connection ends, however it does."""
    total = 0
    with contextlib.suppress(ConnectionResetError):
        while data := wire.sock.recv(MIB):
            total += len(data)
    return total


@pytest.mark.faults
def test_files_that_may_not_grow_are_refused_or_cut_and_nothing_is_leaked(no_leaks: None) -> None:
    """RLIMIT_FSIZE: a write beyond it fails as one to a full disk does, with another number."""
    with faulty(limits={"RLIMIT_FSIZE": MIB}, **SMALL) as server:
        assert server.ask("/body", b"x" * 500_000).body == b"500000"
        assert await_that(lambda: server.counts() == {"spool": 0, "channels": 1})
        descriptors = server.descriptors()
        for _ in range(5):
            assert server.ask("/body", b"x" * (2 * MIB)).status == 507
            with server.connect() as wire:
                wire.send(request("POST", "/body", "Transfer-Encoding: chunked"))
                wire.send(chunked([b"x" * 100_000] * 20))
                assert wire.read_answer().status == 507
            with server.connect() as wire:
                # More than the two kernels hold, and the file may; nobody reads at first.
                logged = server.logged("Exception while serving /blocks")
                wire.send(request("GET", "/blocks/40000000"))
                failed = f"Exception while serving /blocks/{40_000_000}"
                assert await_that(lambda: server.logged(failed) > logged)  # noqa: B023
                assert read_to_cut(wire) < 40_000_000
        assert server.ask("/body", b"x" * 500_000).body == b"500000"
        assert await_that(lambda: server.counts() == {"spool": 0, "channels": 1})
        assert await_that(lambda: server.descriptors() <= descriptors)
        # The file of the last body that had room is kept for the next one.
        assert server.spooled() < MIB


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a directory on a disk of 1 MiB."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root mounts disks")
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@pytest.mark.faults
def test_full_disk_is_refused_or_cut_and_free_again_afterwards(
    small_disk: Path, serve: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    running = serve(application, spool_dir=str(small_disk), **SMALL)
    spool = running.server.spool

    def is_free() -> bool:
        disk = os.statvfs(small_disk)
        return disk.f_bfree == disk.f_blocks and spool.used == 0

    for _ in range(3):
        with running.connect() as wire:
            wire.send(request("POST", "/body", body=b"x" * (3 * MIB)))
            assert wire.read_answer().status == 507
        assert await_that(is_free)
        caplog.clear()
        with running.connect() as wire:
            wire.send(request("GET", "/blocks/40000000"))
            assert await_that(lambda: bool(caplog.messages))
            assert caplog.messages == ["Exception while serving /blocks/40000000"]
            assert read_to_cut(wire) < 40_000_000
        assert await_that(is_free)
        with running.connect() as wire:
            wire.send(request("POST", "/body", body=b"x" * (MIB // 2)))
            assert wire.read_answer().body == b"%d" % (MIB // 2)


@pytest.mark.faults
def test_client_beside_a_full_disk_is_served(
    small_disk: Path, serve: Callable[..., Running]
) -> None:
    """What needs no file needs no disk."""
    (small_disk / "other").write_bytes(b"x" * (MIB - 8192))
    running = serve(application, spool_dir=str(small_disk), **SMALL)
    with running.connect() as wire:
        wire.send(request("POST", "/body", body=b"x" * 100_000))
        assert wire.read_answer().status == 507
    with running.connect() as wire:
        wire.send(request("POST", "/body", body=b"x" * 5000))
        assert wire.read_answer().body == b"5000"
        assert wire.get("/small").body == b"/small"
