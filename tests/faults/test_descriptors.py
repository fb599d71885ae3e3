"""No descriptor left: the server rests, says so once, and goes on when there are some."""

from __future__ import annotations

import contextlib
import os
import select
import time

import pytest

from tests.compat.live import Wire
from tests.faults.processes import faulty
from tests.hostile.crowds import Crowd
from tests.hostile.processes import await_that, enough_descriptors

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="costs are read there"),
]

LIMIT = 40
OBSERVED_SECONDS = 3.0


@pytest.mark.parametrize("use_poll", [True, False])
def test_lack_of_descriptors_is_waited_out_without_work_and_told_once(
    use_poll: bool, no_leaks: None
) -> None:
    """A limit set by hand, above what the system allows: nothing else is in the way."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(enough_descriptors())
        server = stack.enter_context(
            faulty(
                connection_limit=1000, asyncore_use_poll=use_poll, limits={"RLIMIT_NOFILE": LIMIT}
            )
        )
        assert server.ask("/").body == b"/"
        assert await_that(lambda: server.counts()["channels"] == 1)
        before = server.descriptors()
        old = stack.enter_context(server.connect())
        assert old.get("/old").body == b"/old"
        crowd = Crowd(server.port)
        stack.callback(crowd.close)
        crowd.connect(LIMIT + 30)
        assert await_that(lambda: server.logged("accept() threw") > 0)

        work, lines = server.work(), len(server.log)
        end = time.monotonic() + OBSERVED_SECONDS
        select.select([], [], [], OBSERVED_SECONDS)
        done = server.work()
        assert time.monotonic() >= end
        assert done.cpu_seconds - work.cpu_seconds < OBSERVED_SECONDS / 20
        # One look a second, and now and then a turn that something else asks for.
        assert done.main_thread_waits - work.main_thread_waits < 4 * OBSERVED_SECONDS
        assert server.descriptors() == LIMIT
        assert server.logged("accept() threw") == 1
        assert len(server.log) - lines == 0

        assert old.get("/old").body == b"/old"
        crowd.close()
        begun = time.monotonic()
        assert server.ask("/new").body == b"/new"
        assert time.monotonic() - begun < 5
        assert await_that(lambda: server.descriptors() <= before + 1)
        assert server.logged("accept() threw") == 1


def test_bodies_that_find_no_descriptor_are_refused_and_responses_cut(no_leaks: None) -> None:
    """The spool has a file for each: the last connection has none left for it."""
    with (
        enough_descriptors(),
        faulty(
            connection_limit=1000,
            inbuf_overflow=1000,
            outbuf_overflow=1000,
            limits={"RLIMIT_NOFILE": LIMIT},
        ) as server,
    ):
        with contextlib.ExitStack() as stack:
            wires = [stack.enter_context(server.connect()) for _ in range(2)]
            for wire in wires:
                assert wire.get("/").body == b"/"
            crowd = Crowd(server.port)
            stack.callback(crowd.close)
            crowd.connect(LIMIT)
            assert await_that(lambda: server.descriptors() == LIMIT)
            wires[0].send(
                b"POST /body HTTP/1.1\r\nHost: h\r\nContent-Length: 50000\r\n\r\n" + b"x" * 50_000
            )
            assert wires[0].read_answer().status == 507
            # Beyond what the two kernels hold, and nobody reads.
            wires[1].send(b"GET /blocks/30000000 HTTP/1.1\r\nHost: h\r\n\r\n")
            assert await_that(lambda: server.logged("Exception while serving /blocks") == 1)
            assert _counts_bytes_to_end(wires[1]) < 30_000_000
        assert await_that(lambda: server.ask("/").body == b"/")
        assert server.ask("/body", b"x" * 50_000).body == b"50000"
        assert await_that(lambda: server.counts() == {"spool": 0, "channels": 1})


def test_own_limit_keeps_descriptors_for_the_application(no_leaks: None) -> None:
    """Unset, the connection limit is what the system has room for, and some to spare."""
    with enough_descriptors(), faulty(limits={"RLIMIT_NOFILE": LIMIT}) as server:
        crowd = Crowd(server.port)
        try:
            crowd.connect(LIMIT + 30)
            assert await_that(lambda: server.logged("reached the connection limit") == 1)
            assert server.descriptors() < LIMIT - 5
            assert server.logged("accept() threw") == 0
        finally:
            crowd.close()
        assert server.ask("/").body == b"/"


def _counts_bytes_to_end(wire: Wire) -> int:
    total = 0
    with contextlib.suppress(ConnectionResetError):
        while data := wire.sock.recv(1 << 20):
            total += len(data)
    return total
