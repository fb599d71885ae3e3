"""How many requests may wait for a thread and how long, on a simulated clock and network."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from tests.compat.live import PATIENCE, Gate, Wire
from tests.fakes import FakeClient, RecordingObserver, Simulation, chunks, get, post, request
from tests.functional.applications import hello, path
from waitress import create_server
from waitress.channel import HTTPChannel
from waitress.deadlines import BUCKET_SECONDS
from waitress.fair_queue import FairQueue
from waitress.observer import Refusal
from waitress.task import ErrorTask
from waitress.timeline import Timeline

Simulate = Callable[..., Simulation]
Serve = Callable[..., Any]

BEGUN = (
    "Requests are refused with 503, because too many wait for a thread or one has waited too "
    "long (queue_limit={}, queue_timeout={})"
)


def held(simulate: Simulate, application: Any = hello, **settings: Any) -> Simulation:
    """Return a server all of whose threads are busy."""
    sim = simulate(application, **settings)
    sim.dispatcher.is_held = True
    return sim


def release(sim: Simulation) -> None:
    sim.dispatcher.is_held = False
    sim.settle()


def statuses(clients: list[FakeClient]) -> list[int | None]:
    """Return how each client's only request was answered; ``None``: not yet."""
    return [client.response("GET").status if client.data else None for client in clients]


def rejects(sim: Simulation) -> dict[str, int]:
    counts: dict[str, int] = sim.server.stats().rejects
    return counts


def test_for_one_more_than_may_wait_the_oldest_is_refused(simulate: Simulate) -> None:
    sim = held(simulate, path, queue_limit=2)
    clients = [sim.connect(get(f"/{number}")) for number in range(5)]
    assert statuses(clients) == [503, 503, 503, None, None]
    assert len(sim.dispatcher.queue) == 2
    release(sim)
    assert [client.response("GET").body for client in clients[3:]] == [b"/3", b"/4"]
    assert sim.dispatcher.served == 2
    assert rejects(sim) == {"queue-limit": 3}


def test_refusal_is_whole_and_says_when_to_come_again(simulate: Simulate) -> None:
    sim = held(simulate, queue_limit=1, queue_timeout=2.5)
    client = sim.connect(get())
    sim.connect(get())
    response = client.response("GET")
    assert (response.status, response.reason) == (503, "Service Unavailable")
    assert response.headers["retry-after"] == "3"
    assert b"please try again" in response.body


def test_it_says_to_come_again_in_a_second_where_no_time_is_set(simulate: Simulate) -> None:
    sim = held(simulate, queue_limit=1)
    client = sim.connect(get())
    sim.connect(get())
    assert client.response("GET").headers["retry-after"] == "1"


def test_connection_of_a_refused_request_goes_on(simulate: Simulate) -> None:
    sim = held(simulate, queue_limit=1)
    client = sim.connect(get())
    sim.connect(get())
    assert client.is_open
    assert "connection" not in client.response("GET").headers
    release(sim)
    assert sim.ask(client, get()).status == 200


@pytest.mark.parametrize("asks", [get("/", "Connection: close"), get(version="1.0")])
def test_connection_ends_after_the_refusal_where_the_client_wants_that(
    simulate: Simulate, asks: bytes
) -> None:
    sim = held(simulate, queue_limit=1)
    client = sim.connect(asks)
    sim.connect(get())
    assert client.response("GET").status == 503
    assert client.ended


def test_refused_post_leaves_nothing_of_its_body(simulate: Simulate) -> None:
    sim = held(simulate, queue_limit=1, inbuf_overflow=100)
    bodies = [post("/", b"x" * 50000), request("POST", "/", "Transfer-Encoding: chunked")]
    bodies[1] += chunks(b"y" * 50000)
    clients = [sim.connect(body) for body in bodies]
    assert sim.server.spool.used
    sim.connect(get())
    assert [client.response("POST").status for client in clients] == [503, 503]
    assert sim.server.spool.used == 0
    release(sim)
    assert sim.ask(clients[0], get()).status == 200


def test_refusal_of_a_head_request_has_no_body(simulate: Simulate) -> None:
    sim = held(simulate, queue_limit=1)
    client = sim.connect(request("HEAD", "/"))
    sim.connect(get())
    response = client.response("HEAD")
    assert (response.status, response.body) == (503, b"")


def test_pipelined_requests_are_refused_one_by_one_and_in_order(simulate: Simulate) -> None:
    sim = held(simulate, path, queue_limit=1)
    client = sim.connect(get("/a") + get("/b"))
    sim.connect(get("/other"))
    # The next one waits as the youngest then, so that the other is the oldest.
    assert [each.status for each in client.responses("GET")] == [503]
    release(sim)
    assert [each.status for each in client.responses("GET", "GET")] == [503, 200]
    assert client.responses("GET", "GET")[1].body == b"/b"


def test_what_is_next_on_a_served_connection_is_limited_too(simulate: Simulate) -> None:
    sim = held(simulate, path, queue_limit=1)
    client = sim.connect(get("/a") + get("/b"))
    sim.dispatcher.run_next()
    sim.settle(workers=False)
    other = sim.connect(get("/c"))
    assert [each.status for each in client.responses("GET", "GET")] == [200, 503]
    release(sim)
    assert other.response("GET").body == b"/c"


def test_request_that_has_waited_too_long_is_refused(simulate: Simulate) -> None:
    sim = held(simulate, queue_timeout=2)
    client = sim.connect(get())
    sim.advance(2 - BUCKET_SECONDS)
    assert not client.data
    sim.advance(2 * BUCKET_SECONDS)
    assert client.response("GET").status == 503
    assert not sim.dispatcher.queue
    assert rejects(sim) == {"queue-timeout": 1}


def test_request_sent_ahead_gives_way_where_the_newest_is_first(simulate: Simulate) -> None:
    """It is the loop that queues for it, as if it had just come."""
    sim = held(simulate, queue_timeout=2)
    sim.connect(get() + get())
    assert not sim.channel.gives_way(True)
    sim.advance(0.25, workers=False)
    sim.dispatcher.run_next()
    sim.settle(workers=False)
    assert list(sim.dispatcher.queue) == [sim.channel]
    assert sim.channel.gives_way(True)
    assert not sim.channel.gives_way(False)


def test_each_request_has_its_own_time_to_wait(simulate: Simulate) -> None:
    sim = held(simulate, queue_timeout=2)
    clients = []
    for _ in range(6):
        clients.append(sim.connect(get()))
        sim.advance(0.5, workers=False)
    answered = [client.response("GET").status for client in clients if client.data]
    assert answered == [503, 503, 503]
    for count in (4, 5, 6):
        sim.advance(0.5, workers=False)
        assert sum(bool(client.data) for client in clients) == count
    release(sim)
    assert sim.dispatcher.served == 0


def test_time_of_a_request_begins_when_its_connection_queues_for_it(simulate: Simulate) -> None:
    sim = held(simulate, path, queue_timeout=2)
    client = sim.connect(get("/a") + get("/b"))
    sim.advance(1.5)
    sim.dispatcher.run_next()
    sim.settle(workers=False)
    sim.advance(1.5, workers=False)
    assert [each.status for each in client.responses("GET")] == [200]
    sim.advance(1, workers=False)
    assert [each.status for each in client.responses("GET", "GET")] == [200, 503]


def test_request_that_a_thread_has_taken_may_take_its_time(simulate: Simulate) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        sim.dispatcher.pause("application")
        return hello(environ, start_response)

    sim = simulate(application, queue_timeout=1, queue_limit=1)
    first = sim.connect(get())
    sim.dispatcher.is_held = True
    second = sim.connect(get())
    third = sim.connect(get())
    assert statuses([first, second, third]) == [None, 503, None]
    sim.advance(5, workers=False)
    assert statuses([first, second, third]) == [None, 503, 503]
    sim.dispatcher.resume("application")
    release(sim)
    assert first.response("GET").status == 200


def test_deadline_runs_only_while_somebody_waits(simulate: Simulate) -> None:
    sim = simulate(hello, queue_timeout=1, channel_timeout=0, cleanup_interval=10000)
    client = sim.connect(get())
    assert client.response("GET").status == 200
    sim.advance(3)
    assert len(sim.event_loop.deadlines) == 0
    assert sim.ask(client, get()).status == 200


def test_client_that_has_reset_is_dropped_unrun_and_counts_no_more(simulate: Simulate) -> None:
    sim = held(simulate, path, queue_limit=2)
    kept = kept_timelines(sim)
    clients = [sim.connect(get(f"/{number}")) for number in range(2)]
    clients[0].reset()
    sim.settle()
    assert len(sim.dispatcher.queue) == 1
    newcomer = sim.connect(get("/2"))
    release(sim)
    assert statuses([clients[1], newcomer]) == [200, 200]
    assert sim.dispatcher.served == 2
    assert rejects(sim) == {}
    assert [timeline.termination for timeline in kept] == ["CQ", "--", "--"]


def test_client_that_only_ended_its_own_side_gets_its_answer(simulate: Simulate) -> None:
    sim = held(simulate, queue_limit=2)
    client = sim.connect(get())
    client.shutdown()
    sim.settle()
    release(sim)
    assert client.response("GET").status == 200


def test_connection_that_is_closed_while_a_thread_serves_it_is_forgotten(
    simulate: Simulate,
) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        sim.dispatcher.pause("application")
        return hello(environ, start_response)

    sim = simulate(application, queue_timeout=1)
    client = sim.connect(get())
    client.reset()
    sim.advance(3)
    sim.dispatcher.resume("application")
    sim.settle()
    assert rejects(sim) == {}
    assert not sim.channels


def test_requests_that_somebody_has_dropped_while_they_waited_are_not_answered(
    simulate: Simulate,
) -> None:
    sim = held(simulate, queue_timeout=1)
    client = sim.connect(get())
    sim.channel.requests = []
    sim.advance(2, workers=False)
    assert not client.data
    assert rejects(sim) == {}
    assert not sim.dispatcher.queue


def kept_timelines(sim: Simulation) -> list[Timeline]:
    kept: list[Timeline] = []

    class Listener:
        def timeline_ended(self, timeline: Timeline) -> None:
            kept.append(timeline)

    sim.server.subscribe_timelines(Listener())
    return kept


def test_observers_and_timelines_tell_of_it(simulate: Simulate) -> None:
    sim = held(simulate, queue_limit=1)
    kept = kept_timelines(sim)
    observer = RecordingObserver()
    sim.server.subscribe(observer)
    sim.settle()
    client = sim.connect(get("/secret"))
    number = sim.channel.requests[0].request_id
    sim.connect(get())
    assert client.response("GET").status == 503
    (timeline,) = kept
    assert timeline.termination == "SQ"
    assert timeline.refusal == "queue-limit"
    assert timeline.status.startswith("503")
    assert timeline.path == "/secret"
    assert timeline.bytes_out == len(client.data)
    assert not timeline.worker
    assert timeline.application_started is None
    about = [name for name, of in observer.events if of == number]
    assert about == ["created", "refused", "started", "serviced", "finished"]


def test_it_is_told_once_and_again_when_it_is_over(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    sim = held(simulate, queue_limit=1)
    for _ in range(10):
        sim.connect(get())
    limits = [text for text in caplog.messages if "503" in text]
    assert limits == [BEGUN.format(1, 0)]
    release(sim)
    sim.advance(10)
    limits = [text for text in caplog.messages if "503" in text]
    assert limits[0] == limits[1]  # Those that came within the first second.
    assert limits[2:] == ["Requests are no longer refused with 503, after less than a second"]


def test_error_task_of_the_user_gives_the_answer(simulate: Simulate) -> None:
    class Own(ErrorTask):
        def execute(self) -> None:
            threads.append(threading.get_ident())
            self.channel.own = self.request.error.code  # type: ignore[attr-defined]
            super().execute()

    class OwnChannel(HTTPChannel):
        error_task_class = Own

    threads: list[int] = []
    sim = held(simulate, queue_limit=1)
    # As a subclass of the server would have it.
    limited = sim.server.channel_class
    sim.server.channel_class = type("Limited", (limited, OwnChannel), {"error_task_class": Own})
    sim.connect(get())
    sim.connect(get())
    assert threads == [threading.get_ident()]
    assert sim.channels[0].own == 503


def test_failure_of_an_answer_ends_its_connection_and_no_other(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(RecordingObserver):
        def refused(self, refusal: Refusal) -> None:
            raise ZeroDivisionError

    sim = held(simulate, queue_timeout=1)
    sim.server.observer = Failing()
    clients = [sim.connect(get()) for _ in range(3)]
    sim.server.observer = RecordingObserver()
    for channel in sim.channels[1:]:
        channel.observer = sim.server.observer
    sim.advance(2)
    assert [client.is_open for client in clients] == [False, True, True]
    assert statuses(clients[1:]) == [503, 503]
    assert "ZeroDivisionError" in caplog.text


def test_tasks_that_are_nobody_s_request_are_left_alone(simulate: Simulate) -> None:
    class Stranger:
        served = 0

        def service(self) -> None:
            self.served += 1

        def cancel(self) -> None:
            """Nothing to drop."""

    sim = held(simulate, queue_limit=1, queue_timeout=1)
    strangers = [Stranger() for _ in range(3)]
    for stranger in strangers:
        sim.server.add_task(stranger)
    client = sim.connect(get())
    assert client.response("GET").status == 503
    sim.advance(3, workers=False)
    release(sim)
    assert [stranger.served for stranger in strangers] == [1, 1, 1]


def test_health_checks_are_answered_while_everything_is_refused(simulate: Simulate) -> None:
    sim = held(simulate, queue_limit=1, queue_timeout=1, health_prefix="/-")
    clients = [sim.connect(get()) for _ in range(20)]
    assert sim.connect(get("/-/livez")).response("GET").body == b"ok\n"
    assert sim.connect(get("/-/readyz")).response("GET").body == b"ok\n"
    assert statuses(clients) == [503] * 19 + [None]
    sim.advance(5, workers=False)
    assert sim.connect(get("/-/livez")).response("GET").body == b"ok\n"
    assert rejects(sim) == {"queue-limit": 19, "queue-timeout": 1}
    checks = sim.connect(get("/-/livez") + get("/a") + get("/-/livez"))
    assert [each.status for each in checks.responses("GET")] == [200]
    release(sim)
    assert [each.status for each in checks.responses("GET", "GET", "GET")] == [200] * 3


def test_without_the_settings_everything_waits(simulate: Simulate) -> None:
    sim = held(simulate)
    clients = [sim.connect(get()) for _ in range(50)]
    sim.advance(100, workers=False)
    assert statuses(clients) == [None] * 50
    assert sim.server.channel_class is HTTPChannel
    assert type(sim.dispatcher.queue) is deque
    release(sim)
    assert statuses(clients) == [200] * 50


def test_error_in_the_limits_themselves_ends_nothing(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    sim = held(simulate, queue_timeout=1)
    client = sim.connect(get())

    def fail(_task: Any) -> bool:
        raise ZeroDivisionError

    sim.dispatcher.withdraw = fail  # type: ignore[method-assign]
    sim.advance(3, workers=False)
    assert "Exception in the limits of the queue" in caplog.text
    del sim.dispatcher.withdraw  # type: ignore[method-assign]
    release(sim)
    assert client.response("GET").status == 200


# -- dispatchers and listeners ----------------------------------------------------------------


class OldDispatcher:
    """A task dispatcher as others have made it, which knows nothing of limits."""

    def add_task(self, task: Any) -> None:
        task.service()

    def set_thread_count(self, count: int) -> None:
        """Have no threads."""

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> bool:
        return False


def test_dispatcher_that_cannot_be_limited_is_told_of(
    no_leaks: None, caplog: pytest.LogCaptureFixture
) -> None:
    server = create_server(
        hello,
        host="127.0.0.1",
        port=0,
        queue_limit=1,
        fair_queue=True,
        _dispatcher=OldDispatcher(),
    )
    server.close()
    assert [text.partition(":")[0] for text in caplog.messages] == [
        "fair_queue has no effect",
        "queue_limit and queue_timeout have no effect",
    ]


def test_dispatcher_of_several_servers_has_one_queue(no_leaks: None) -> None:
    class Shared(OldDispatcher):
        def __init__(self) -> None:
            self.queue: deque[Any] = deque()

    shared = Shared()
    settings = {"host": "127.0.0.1", "port": 0, "fair_queue": True, "_dispatcher": shared}
    first = create_server(hello, **settings)
    queue = shared.queue
    second = create_server(hello, **settings)
    first.close()
    second.close()
    assert type(queue) is FairQueue
    assert shared.queue is queue


def test_listeners_of_one_server_share_the_limit(serve: Serve) -> None:
    gate = Gate()
    running = serve(gate, listen="127.0.0.1:0 127.0.0.1:0", threads=1, queue_limit=1)
    queue = running.server.task_dispatcher.queue
    with ExitStack() as stack:
        busy, first, second = (
            stack.enter_context(Wire(socket.create_connection(("127.0.0.1", int(port)), PATIENCE)))
            for (_, port) in (running.server.effective_listen * 2)[:3]
        )
        busy.send(get())
        gate.await_entry()
        first.send(get())
        while not queue:
            running.call_in_loop(lambda: None)
        second.send(get())
        assert first.read_answer().status == 503
        gate.opened.set()
        assert [each.read_answer().status for each in (busy, second)] == [200, 200]
