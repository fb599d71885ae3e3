"""What may go wrong outside of the server: the disk, the system's limits, the network."""

from __future__ import annotations

import errno
import os
import random
import tempfile
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from waitress import buffers, spare_files, spool

#: What accept() may run into: a client that left, no descriptors, a network that is down.
ACCEPT_ERRORS = (errno.ECONNABORTED, errno.EMFILE, errno.ENOBUFS, errno.ENETDOWN)
#: What a connection that is broken off may leave behind.
CONNECTION_ERRORS = (errno.ECONNRESET,) * 6 + (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EPIPE)


@contextmanager
def odd_disk(rng: random.Random, likelihood: float, point: Callable[[str], None]) -> Iterator[None]:
    """Have files written in pieces, with points between, and fail as often as said."""

    def fails() -> bool:
        return likelihood > 0 and rng.random() < likelihood

    def make_file(*args: Any, **kw: Any) -> Any:
        if fails():
            raise OSError(errno.EMFILE, "too many open files")
        return tempfile.TemporaryFile(*args, **kw)

    def pwrite(fd: int, data: Any, position: int) -> int:
        point("write")
        if fails():
            raise OSError(errno.ENOSPC, "no space left")
        size = len(data)
        return os.pwrite(fd, data[: max(1, size - size // 3)], position)

    files = types.SimpleNamespace(TemporaryFile=make_file, gettempdir=tempfile.gettempdir)
    system = types.SimpleNamespace(
        **{name: getattr(os, name) for name in ("pread", "fstat", "lseek", "ftruncate")},
        pwrite=pwrite,
    )
    changes: list[tuple[Any, str, Any]] = [
        (buffers, "tempfile", files),
        (buffers, "os", system),
        (spare_files, "tempfile", files),
        (spare_files, "os", system),
        (spool, "tempfile", files),
        (spool, "os", system),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in changes]
    for module, name, value in changes:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
