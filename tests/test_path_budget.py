"""What one request may cost: counted, not timed.

The canonical requests are a GET and a chunked POST on a connection that stays. Whoever
makes one of these numbers smaller writes the smaller one here; whoever makes one larger
has a reason, and writes it beside the number.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.fakes import Simulation, chunks, get, request
from tests.looping import InThread
from waitress import outbound, request_queue, workers
from waitress.buffers import OverflowableBuffer
from waitress.workers import ThreadedTaskDispatcher

Simulate = Callable[..., Simulation]

GET = get("/")
POST = request("POST", "/", "Transfer-Encoding: chunked") + chunks(b"a" * 1000, b"b" * 1000)


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


@pytest.fixture
def spent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Give the counts of what the server spends from now on."""
    counts: Counter[str] = Counter()

    class CountedLock:
        def __init__(self) -> None:
            self._lock = threading.Lock()

        def acquire(self, *args: Any) -> bool:
            counts["lock"] += 1
            return self._lock.acquire(*args)

        def release(self) -> None:
            self._lock.release()

        def __enter__(self) -> bool:
            return self.acquire()

        def __exit__(self, *args: Any) -> None:
            self.release()

    class CountedThreading:
        Lock = CountedLock

        def __getattr__(self, name: str) -> Any:
            return getattr(threading, name)

    for module in (outbound, request_queue, workers):
        monkeypatch.setattr(module, "threading", CountedThreading())

    return counts


def count_calls(counts: Counter[str], owner: Any, name: str, what: str) -> None:
    function = getattr(owner, name)

    def counted(*args: Any, **kw: Any) -> Any:
        counts[what] += 1
        return function(*args, **kw)

    setattr(owner, name, counted)


@pytest.mark.parametrize(
    ("octets", "body_copies"),
    [(GET, 0), (POST, 2)],  # The body: each chunk is kept once.
    ids=["GET", "chunked POST"],
)
def test_request_on_a_connection_that_stays(
    octets: bytes,
    body_copies: int,
    simulate: Simulate,
    spent: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sim = simulate(application)
    client = sim.connect(octets)
    count_calls(spent, sim.channel.socket, "recv", "recv")
    count_calls(spent, sim.channel.socket, "send", "send")
    count_calls(spent, sim.channel, "_advance", "look at the state")
    count_calls(spent, sim.server.trigger, "pull_physically_threadsafe", "wake-up")
    count_calls(spent, sim.event_loop, "set_interest", "registration")
    monkeypatch.setattr(OverflowableBuffer, "append", OverflowableBuffer.append)  # Put back.
    count_calls(spent, OverflowableBuffer, "append", "body copy")
    spent.clear()
    for _ in range(10):
        sim.ask(client, octets)
    per_request = {what: count / 10 for what, count in spent.items()}
    assert per_request.pop("recv") == 1
    assert per_request.pop("send") == 1
    # When it was answered, and not when it was read.
    assert per_request.pop("look at the state") == 1
    # At most one; the pool of threads ends a short wait of the loop's instead.
    assert per_request.pop("wake-up", 0) <= 1
    assert per_request.pop("body copy", 0) == body_copies
    # Nothing else: no lock is taken, and no registration is ever changed.
    assert per_request == {}


def test_connection_that_rests_takes_little_memory(simulate: Simulate) -> None:
    """Bytes of Python's objects; those of the kernel and of the socket come on top."""
    sim = simulate(application)
    count = 100
    sim.ask(sim.connect(), GET)
    tracemalloc.start()
    try:
        clients = [sim.connect() for _ in range(count)]
        for client in clients:
            assert sim.ask(client, GET).status == 200
        gc.collect()
        ours = tracemalloc.Filter(True, str(Path(outbound.__file__).parent / "*"))
        lines = tracemalloc.take_snapshot().filter_traces([ours]).statistics("filename")
    finally:
        tracemalloc.stop()
    assert sum(line.size for line in lines) / count < 2300


def test_large_response_is_handed_to_the_kernel_as_it_is(simulate: Simulate) -> None:
    body = b"x" * 200_000
    handed_over: list[Any] = []

    def large(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [body]

    sim = simulate(large)
    client = sim.connect()
    send_parts = sim.channel._send_parts

    def noted(parts: Any, is_last: bool) -> int:
        handed_over.extend(parts)
        return send_parts(parts, is_last)

    sim.channel._send_parts = noted
    assert sim.ask(client, GET).body == body
    assert handed_over[1] is body


def test_hand_over_to_the_pool(spent: Counter[str]) -> None:
    """One lock to give a task, and none to take it; one for each worker that falls asleep."""
    pool = ThreadedTaskDispatcher()
    taken_after = []

    class Task:
        def service(self) -> None:
            taken_after.append(spent["lock"])
            pool.stop_count = 1

        def cancel(self) -> None:
            """Never called here."""

    pool.active_count = 1
    pool.threads.add(0)
    pool.add_task(Task())
    assert spent["lock"] == 1
    pool.handler_thread(0)
    assert taken_after == [2]  # One when the worker began.


def test_hand_over_of_many_tasks_to_the_pool(spent: Counter[str]) -> None:
    """Two locks for all of them together, and one where the first worker serves them all."""
    pool = ThreadedTaskDispatcher()
    task: Any = SimpleNamespace(service=list, cancel=list)
    pool.hold_wakeups()
    for _ in range(100):
        pool.add_task(task)
    pool.wake_first()
    assert spent["lock"] == 1
    pool.wake_rest()
    assert spent["lock"] == 2
    assert len(pool.queue) == 100
    pool.queue.clear()
    pool.wake_rest()
    assert spent["lock"] == 2


def test_hand_over_by_another_thread_than_the_one_that_adds_many(spent: Counter[str]) -> None:
    """Under the lock: what it finds in the queue afterwards is all there is."""
    pool = ThreadedTaskDispatcher()
    task: Any = SimpleNamespace(service=list, cancel=list)
    pool.hold_wakeups()
    InThread(pool.add_task, task).result()
    assert spent["lock"] == 1


@pytest.mark.skipif(
    sys.implementation.name != "cpython" or sys.version_info < (3, 11),
    reason="CPython keeps the names of attributes so since 3.11",
)
def test_names_of_attributes_are_shared_by_late_ones() -> None:
    program = textwrap.dedent(
        """
        import socket, sys
        from waitress import wasyncore
        from waitress.adjustments import Adjustments
        from waitress.parser import HTTPRequestParser

        def parsed(*pieces):
            parser = HTTPRequestParser(settings)
            for piece in pieces:
                parser.received(piece)
            assert parser.completed and not parser.error
            return parser

        settings = Adjustments()
        head = b"POST / HTTP/1.1\\r\\nHost: a\\r\\n"
        requests = [parsed(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n") for _ in range(40)]
        requests.append(parsed(head + b"Content-Length: 5\\r\\n\\r\\n", b"hello"))
        requests.append(parsed(head + b"Transfer-Encoding: chunked\\r\\n\\r\\n", b"0\\r\\n\\r\\n"))
        connections = [wasyncore.dispatcher(socket.socket(), {}) for _ in range(40)]
        for connection in connections[1:]:
            connection.close()
        for instances in (requests, connections):
            print(len({sys.getsizeof(vars(instance)) for instance in instances}))
        """
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    # A dict that shares no names has them in itself, and is larger.
    assert run.stdout.split() == ["1", "1"]
