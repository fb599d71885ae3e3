"""One run: a server, its clients, the workers; what must hold always, and at the end."""

from __future__ import annotations

import gc
import logging
import os
import random
import tempfile
import traceback
import types
import weakref
from bisect import bisect_right
from collections.abc import Callable
from math import inf
from typing import Any

from tests.simulation.channels import SLACK, AskedChannel, SimulatedChannel, WriteSoonChannel
from tests.simulation.clients import Client
from tests.simulation.faults import ACCEPT_ERRORS, odd_disk
from tests.simulation.network import Listener, Network, Poller
from tests.simulation.reading import Response
from tests.simulation.requests import Request, Requests
from tests.simulation.settings import draw_settings, scaled_constants
from tests.simulation.workers import WAITING, Lock, Scheduler
from waitress import channel, create_server, server, task, tcp
from waitress.clients import IDLE_SECONDS
from waitress.eventloop import EventLoop, ExitNow, SocketMap
from waitress.memory_limit import limit_memory
from waitress.observer import Observer, Observers, Refusal
from waitress.phases import LINGER_SILENCE_SECONDS
from waitress.queue_limits import limit_queue
from waitress.recorder import Recorder

#: Simulated seconds after which every client that is still there leaves.
PATIENCE = 600.0
#: Simulated seconds after that by which every connection has to be over.
LAST_PATIENCE = 500.0
#: Passes of the loop and steps of workers that no run of this size needs.
MOST_PASSES = 60000

_SPOOL_DIR = os.path.realpath(tempfile.gettempdir())
_LOGGERS = [logging.getLogger(name) for name in ("waitress", "waitress.queue", "waitress.reject")]


#: What may be logged when the disk fails.
_DISK_MESSAGES = ("Unexpected exception when flushing", "uncaptured python exception")


class Failure(AssertionError):
    """A run in which something happened that must not."""


class _Log(logging.Handler):
    """Takes what the server logs, and knows what may be logged."""

    def __init__(self, run: Run) -> None:
        super().__init__(logging.INFO)
        self.run = run

    def handle(self, record: logging.LogRecord) -> bool:
        self.run.note("log %s: %s", record.levelname, record.msg)
        if record.levelno >= logging.ERROR and not self._is_expected(str(record.msg)):
            if record.exc_info:
                self.run.note("%s", "".join(traceback.format_exception(*record.exc_info)))
            self.run.fail(f"logged: {record.getMessage()}")
        return True

    def _is_expected(self, message: str) -> bool:
        if message == "Socket error":
            return True
        if self.run.disk_fails and message.startswith(_DISK_MESSAGES):
            return True
        what, _, number = message.partition("/")
        if what != "Exception while serving " or not number.isdigit():
            return self.run.disk_fails > 0 and what == "Exception while serving "
        plan = self.run.requests.by_number[int(number)].plan
        return self.run.disk_fails > 0 or (plan is not None and plan.fails)


#: Instants of a timeline whose order does not depend on who is faster.
_ONE_AFTER_THE_OTHER = (
    *("accepted", "first_byte", "head_complete", "body_complete", "queued", "started"),
    *("application_started", "response_started", "application_finished", "closed", "serviced"),
    *("last_byte_out", "ended"),
)


class _Life(Observer):
    """Checks that each request lives as it should."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.listening = run.rng.random() < 0.6
        #: Where each request stands, by its id.
        self.stages: dict[int, str] = {}
        self.positions: dict[int, int] = {}
        self.open_channels = 0
        #: The termination codes of those whose timeline was told, by id.
        self.ended: dict[int, str] = {}

    def _go(self, request: Any, stage: str, *before: str) -> None:
        number = request.request_id
        was = self.stages.get(number, "nothing")
        # Numbers go on from run to run: told is the position in this one.
        position = self.positions.setdefault(number, len(self.positions) + 1)
        self.run.note("request id %d: %s -> %s", position, was, stage)
        if not number or was not in before:
            self.run.fail(f"request id {number} went from {was} to {stage}")
        self.stages[number] = stage

    def timeline_ended(self, timeline: Any) -> None:
        number = timeline.request_id
        if number and number in self.ended:
            self.run.fail(f"request id {number} ended twice")
        self.ended[number] = code = timeline.termination
        position = self.positions.get(number, 0)
        self.run.note("request id %d: ended as %s, %d out", position, code, timeline.bytes_out)
        times = [getattr(timeline, name) for name in _ONE_AFTER_THE_OTHER]
        times = [time for time in times if time is not None]
        if times != sorted(times) or len(code) != 2 or timeline.ended is None:
            self.run.fail(f"request id {number} ended as {code!r} with {times}")
        if (code == "--") and self.stages.get(number) != "finished":
            self.run.fail(f"request id {number} ended well as {self.stages.get(number)}")

    def channel_created(self, channel: Any) -> None:
        self.open_channels += 1

    def channel_closed(self, channel: Any) -> None:
        self.open_channels -= 1

    def request_created(self, channel: Any, request: Any) -> None:
        self._go(request, "created", "nothing")

    def requests_queued(self, channel: Any, requests: Any) -> None:
        for request in requests:
            # What is refused before its head is whole was never created.
            if self.stages.get(request.request_id) not in ("cancelled", "serviced", "finished"):
                self._go(request, "queued", "created", "nothing", "started")

    def refused(self, refusal: Refusal) -> None:
        self.run.note("refused: %s", refusal.reason)

    def request_started(self, request: Any) -> None:
        self._go(request, "started", "queued", "created", "nothing")

    def request_serviced(self, request: Any) -> None:
        self._go(request, "serviced", "started")

    def request_finished(self, request: Any) -> None:
        self._go(request, "finished", "serviced")

    def request_cancelled(self, request: Any) -> None:
        self._go(request, "cancelled", "queued", "created", "nothing")


class Run:
    """One simulated life of a server.

    Args:
        seed: decides everything.
        trace: takes the lines that tell what happens.
        fine: let threads take turns between any two lines; dear.
        yields: whether workers may run when the loop leaves the processor to them; drawn if
            not given, by no draw of its own, so that a seed stays what it was.
    """

    def __init__(
        self,
        seed: int,
        trace: Callable[[str], None] | None = None,
        *,
        fine: bool = False,
        yields: bool | None = None,
    ) -> None:
        self.seed = seed
        drawn = random.Random(f"yields of {seed}").random() < 0.5
        self.yields = drawn if yields is None else yields
        self.trace = trace
        self.rng = rng = random.Random(seed)
        self.failures: list[str] = []
        self.channels: list[SimulatedChannel] = []
        self.clients: list[Client] = []
        self.applications = 0
        #: What most clients are like: "normal", "stalling", "leaving", "old".
        self.mood = rng.choice(("normal",) * 5 + ("stalling", "leaving", "old"))
        #: How likely the disk fails.
        self.disk_fails = rng.choice((0.0,) * 15 + (0.3,))
        #: When the server is ended in the middle of everything; ``None`` for never.
        self.ends_at: float | None = None
        if rng.random() < 0.08:
            self.ends_at = 1000.0 + rng.choice((0.0, 0.05, 1.0, 7.5)) + rng.random()
        self.was_ended = False
        self._has_told_all = False
        scale = rng.choice((200, 1000, 4000))
        self.scale = scale
        self.scheduler = Scheduler(
            rng,
            rng.choice((1, 1, 2, 4)),
            rng.choice((0.0, 0.1, 0.4, 0.9)),
            rng.choice((0.002, 0.02, 0.1)) if fine else 0.0,
        )
        self.network = Network(self.scheduler.point)
        self.network.reset_destroys_unread = rng.random() < 0.5
        self.network.tells_unacknowledged = rng.random() < 0.8
        self.scheduler.at = lambda seconds, action: self.network.at(
            self.network.now + seconds, action
        )
        self.scheduler.on_failure = self.fail
        if trace is not None:
            self.scheduler.note = self.note
        self.uses_sendmsg = rng.random() < 0.7
        self.settings = draw_settings(rng, scale, self.mood)
        self.may_turn_away = "connection_limit_per_ip" in self.settings
        self.may_refuse_queued = False
        self.life = _Life(self)
        self.requests = Requests(
            rng,
            self.settings["max_request_body_size"],
            self.settings["max_request_header_size"],
            scale,
            self.mood,
        )
        self.poller: Poller
        self.server: Any = None
        self.event_loop: EventLoop

    def __repr__(self) -> str:
        return f"<run {self.seed}>"

    # -- telling

    def note(self, text: str, *args: Any) -> None:
        """Tell what happens, to those who watch."""
        if self.trace is not None:
            line = text % args if args else text
            if len(line) > 300:
                line = f"{line[:280]}... ({len(line)} characters)"
            self.trace(f"{self.network.now - 1000:9.3f}  {line}")

    def fail(self, text: str) -> None:
        """Tell what must not happen."""
        self.note("FAILURE: %s", text)
        if len(self.failures) < 20:
            self.failures.append(f"{self.network.now - 1000:.3f}: {text}")

    def fail_with_traceback(self, text: str) -> None:
        """Tell of an exception that is being handled."""
        self.fail(f"{text}\n{traceback.format_exc()}")

    # -- running

    def go(self) -> None:
        """Run.

        Raises:
            Failure: with everything that went wrong.
        """
        descriptors = _open_descriptors()
        try:
            self._go()
        except Exception:
            self.fail_with_traceback("the run ended early")
        else:
            if not self.failures:
                self._check_leaks(descriptors)
            if self.seed % 16 == 0:
                self._check_memory()
        if self.failures:
            raise Failure(f"seed {self.seed}:\n" + "\n".join(self.failures))

    def _go(self) -> None:
        saved = [(each.handlers, each.propagate, each.level) for each in _LOGGERS]
        modules = [(module, "time", module.time) for module in (server, channel, task)]
        modules.append((tcp, "fcntl", vars(tcp)["fcntl"]))
        wall = types.SimpleNamespace(time=lambda: 1.7e9 + self.network.now)
        for each in _LOGGERS:
            each.handlers, each.propagate = [_Log(self)], False
            each.setLevel(logging.INFO)
        try:
            for module, name, _ in modules:
                setattr(module, name, self.network if name == "fcntl" else wall)
            with (
                scaled_constants(self.rng, self.scale),
                odd_disk(self.rng, self.disk_fails, self.scheduler.point),
            ):
                self._start()
                try:
                    self._run_loop()
                    if not self.failures:
                        self._check_end()
                finally:
                    self._stop()
        finally:
            for module, name, value in modules:
                setattr(module, name, value)
            for each, (handlers, propagate, level) in zip(_LOGGERS, saved, strict=True):
                each.handlers, each.propagate = handlers, propagate
                each.setLevel(level)

    def _start(self) -> None:
        rng = self.rng
        network = self.network
        event_loop = self.event_loop = EventLoop(
            {} if rng.random() < 0.05 else SocketMap(),
            clock=network.clock,
            wall_clock=network.clock,
            poller_factory=self._make_poller,
            condition_factory=self.scheduler.condition,
            yield_processor=self.scheduler.run_some if self.yields else lambda: None,
            hand_over_wait=0,
        )
        self.listener = Listener(network)
        self.server = create_server(
            self._application,
            map=event_loop.map,
            _sock=self.listener,
            _dispatcher=self.scheduler,
            host="127.0.0.1",
            port=8080,
            spool_dir=_SPOOL_DIR,
            **self.settings,
        )
        self.server.simulation = self
        self.server.channel_class = rng.choice(
            (SimulatedChannel,) * 8 + (WriteSoonChannel, AskedChannel)
        )
        self._limit_load()
        self.server.observer = self.life
        if self.life.listening:
            # Decided by no draw of its own, so that a seed stays what it was.
            recorder = Recorder(event_loop)
            recorder.subscribe(self.life)
            self.server.observer = Observers(self.life, recorder)
        trigger: Any = self.server.trigger
        pull = trigger.pull_physically_threadsafe

        def stepped_pull() -> Any:
            self.scheduler.point("pull")
            return pull()

        trigger.pull_physically_threadsafe = stepped_pull
        trigger.lock = Lock(self.scheduler)
        self.server.spool._lock = Lock(self.scheduler)
        self.note("settings: %s", self.settings)
        bad = rng.choice((0.0, 0.05, 0.3))
        most = 3 if self.mood == "stalling" else 1
        for number in range(1, rng.choice((most, 1, 2, 3, 5)) + 1):
            batches = [
                [self.requests.draw(bad) for _ in range(rng.choice((1, 1, 2, 4)))]
                for _ in range(rng.choice((1, 1, 2, 3)))
            ]
            client = Client(self, number, rng, batches, self.scale, self.mood)
            capacity = rng.choice((1 + self.scale // 3, self.scale * 2, self.scale * 20))
            when = network.now + rng.choice((0.0, 0.0, 0.01, 1.0, 7.0))
            network.at(when, lambda c=client, n=capacity: c.start(n, self.listener))  # type: ignore[misc]
            self.clients.append(client)
        if rng.random() < 0.1:
            error = OSError(rng.choice(ACCEPT_ERRORS), "planned")
            network.at(network.now + rng.random(), lambda: self.listener.knock(error))
        if self.ends_at is not None:
            network.at(self.ends_at, lambda: None)
        for client in self.clients:
            for batch in client.batches:
                self.note("%s: %s", client, batch)

    def _limit_load(self) -> None:
        """Limit queue and memory in some runs, by what is drawn for nothing else."""
        rng = random.Random(f"limits of {self.seed}")
        if rng.random() < 0.6:
            return
        pick = rng.choice
        adj = self.server.adj
        adj.max_buffered_bytes = pick((0, self.scale, self.scale * 4))
        adj.queue_limit = pick((0, 0, 1, 3))
        adj.queue_timeout = pick((0, 0, 0.5, 5))
        adj.fair_queue = pick((False, True))
        self.may_refuse_queued = bool(adj.queue_limit or adj.queue_timeout)
        self.note(
            "limits: memory %d, queue %d, %g s, fair %s",
            *(adj.max_buffered_bytes, adj.queue_limit, adj.queue_timeout, adj.fair_queue),
        )
        limit_queue([self.server], adj)
        if adj.max_buffered_bytes and self.server.channel_class.interest_is_state:
            limit_memory([self.server], adj)

    def _make_poller(self, select: Any) -> Poller:
        self.poller = Poller(self.network, self.scheduler, self.rng.shuffle, self._pass, self._rest)
        return self.poller

    def _run_loop(self) -> None:
        network = self.network
        begun = network.now
        self.scheduler.begin_lines()
        try:
            self.server.asyncore.loop(
                timeout=self.settings["asyncore_loop_timeout"],
                map=self.event_loop.map,
                use_poll=self.settings["asyncore_use_poll"],
            )
        except ExitNow:
            pass
        finally:
            self.scheduler.end_lines()
        if self.ends_at is not None and network.now >= self.ends_at:
            self._end_in_the_middle()
        if self.poller.timeouts > 20 + (network.now - begun) * 10:
            self.fail(f"the loop woke for nothing {self.poller.timeouts} times")

    def _pass(self) -> None:
        """Look whether the run is over; the loop calls it in every pass."""
        elapsed = self.network.now - 1000.0
        if self.failures and self.trace is None:
            raise ExitNow
        if (self.ends_at is not None and self.network.now >= self.ends_at) or self._is_over():
            raise ExitNow
        if elapsed > PATIENCE and not self._has_told_all:
            self._has_told_all = True
            self.note("whoever is still there leaves")
            for client in self.clients:
                if client.sock is not None:
                    client.close(resets=client.down.arrived != b"")
        if elapsed > PATIENCE + LAST_PATIENCE or self.poller.passes > MOST_PASSES:
            self.fail(
                f"after {elapsed} s and {self.poller.passes} passes there is still "
                f"{self.server.active_channels}"
            )
            raise ExitNow

    def _end_in_the_middle(self) -> None:
        """End the server as Ctrl-C does, while its workers work."""
        self.note("the server is ended")
        self.was_ended = True
        self.scheduler.shutdown()
        self.server.asyncore.close_all(self.event_loop.map)
        network = self.network
        while self.scheduler.step() or network.next_event < inf:
            if not self.scheduler.step():
                network.now = max(network.now, min(network.next_event, network.now + 100))
                network.run_due()
        for worker in self.scheduler.workers:
            self.fail(f"{worker} waits, and the server has ended")

    def _is_over(self) -> bool:
        return (
            not self.server.active_channels
            and not self.scheduler.workers
            and not self.scheduler.queue
            and not self.listener.backlog
            and self.network.next_event == inf
        )

    def _rest(self, then: float) -> None:
        """Look at everything: nothing is going to happen before the time goes on."""
        if self.event_loop.ready:
            self.fail(f"not woken for {list(self.event_loop.ready)}")
        channels = list(self.server.active_channels.values())
        if len(channels) > self.server.adj.connection_limit:
            self.fail(f"{len(channels)} connections")
        for each in channels:
            each.check_rest()
            each.check_patience()
        waits = then - self.listener.waiting_since
        if self.listener.backlog and not self.server.clients.is_full and waits > 1 + SLACK:
            self.fail(f"a connection is going to wait for {waits} s to be accepted")
        self._check_budget()
        for worker in self.scheduler.workers:
            if worker.state is WAITING:
                outbound = worker.task.outbound
                if outbound.is_closed:
                    self.fail(f"{worker} waits for a buffer that is closed")
                spool = self.server.spool
                has_budget = spool.used + worker.task.appending <= spool.limit
                if has_budget or outbound.pending <= self.settings["outbuf_high_watermark"]:
                    self.fail(f"{worker} waits for room that is there")

    def _check_budget(self) -> None:
        """Count what is on the disk, and compare."""
        total = 0
        for each in self.channels:
            if each.closed_at is not None and self.is_being_served(each):
                return  # Its worker has the request, out of sight.
            requests = [*each.request_queue.requests, each.request]
            total += sum(getattr(request, "spooled_bytes", 0) for request in requests)
            total += sum(getattr(segment, "end", 0) for segment in each.outbound.segments)
        if total != self.server.spool.used:
            self.fail(f"{total} bytes are spooled, and {self.server.spool.used} are counted")

    def is_being_served(self, channel: SimulatedChannel) -> bool:
        """Whether a task for the channel is queued or runs."""
        return channel in self.scheduler.queue or any(
            worker.task is channel for worker in self.scheduler.workers
        )

    def arrival_of(self, client: Client, position: int) -> float:
        """Return when the byte at a position of the client's stream came to the server."""
        history = client.up.history
        index = bisect_right(history, (position, inf))
        return history[index][1] if index < len(history) else inf

    # -- the application

    def _application(self, environ: Any, start_response: Any) -> Any:
        number = int(environ["PATH_INFO"][1:])
        client = self.clients[int(environ["REMOTE_PORT"]) - 40001]
        request = self.requests.by_number[number]
        self.note("the application runs %s of %s", request, client)
        self.applications += 1
        self._check_call(environ, client, request)
        plan = request.plan
        assert plan is not None
        if plan.reads != "no":
            size = -1 if plan.reads == "all" else len(request.body) // 2
            body = environ["wsgi.input"].read(size)
            if body != (request.body if size < 0 else request.body[:size]):
                self.fail(f"{request} has another body: {body!r}")
        if environ.get("CONTENT_LENGTH", "0") != str(len(request.body)):
            self.fail(f"{request} has CONTENT_LENGTH {environ.get('CONTENT_LENGTH')}")
        if environ["REQUEST_METHOD"] != request.method:
            self.fail(f"{request} has the method {environ['REQUEST_METHOD']}")
        return plan.respond(environ, start_response, self.scheduler.sleep)

    def _check_call(self, environ: Any, client: Client, request: Request) -> None:
        if request.plan is None:
            self.fail(f"the application runs {request}")
        if request not in client.sent or request.is_cut or client.up.total < request.ends_at:
            self.fail(f"{client} has not sent {request}")
        request.runs += 1
        if request.runs > 1:
            self.fail(f"{request} runs again")
        if client.channel.state.name != "OPEN" and client.channel.closed_at is None:
            self.fail(f"{request} runs on a connection that is being closed")
        for other in client.sent[: client.sent.index(request)]:
            if other.plan is None or other.is_cut:
                self.fail(f"{request} runs behind {other}")
        if client.channel.active is not None:
            self.fail(f"{request} runs beside {client.channel.active}")
        client.channel.active = request
        worker = self.scheduler.running
        assert worker is not None
        worker.calls += 1
        if worker.calls > 1:
            self.fail(f"{request} is the second one in one turn of a worker")

    # -- the end

    def _check_end(self) -> None:
        for client in self.clients:
            _Judgement(self, client).judge()
        for request in self.requests.by_number.values():
            plan = request.plan
            if plan is None:
                continue
            if request.runs and plan.has_iterable and plan.closes != 1:
                self.fail(f"{request}: its iterable was closed {plan.closes} times")
            if plan.file is not None and not plan.file.closed:
                self.fail(f"{request}: its file was not closed")

    def _stop(self) -> None:
        """End the server, whatever state it is in."""
        self.server.close()
        for each in list(self.server.active_channels.values()):
            each.close()
        self.scheduler.end()
        self.event_loop.drain_ready()

    def _check_leaks(self, descriptors: int) -> None:
        this = self.server
        for sock in self.listener.backlog:  # Never accepted: nobody's.
            self.network.sockets.pop(getattr(sock, "number", 0), None)
        left = {
            "the map": dict(self.event_loop.map),
            "channels": dict(this.active_channels),
            "clients": set(this.clients.channels),
            "counts by address": dict(this.clients._counts),
            "lingering": dict(this.clients.lingering),
            "spooled bytes": this.spool.used,
            "waiters for the spool": set(this.spool._waiters),
            "deadlines": len(self.event_loop.deadlines),
            "ready": list(self.event_loop.ready),
            "sockets": dict(self.network.sockets),
            "workers": self.scheduler.workers,
            "tasks": list(self.scheduler.queue),
            "observed channels": self.life.open_channels,
        }
        for what, value in left.items():
            if value:
                self.fail(f"left behind: {what} {value}")
        for number, stage in self.life.stages.items():
            if number not in self.life.ended:
                self.fail(f"request id {number}, {stage}, has no end")
            if stage not in ("finished", "serviced", "cancelled", "created"):
                self.fail(f"request id {number} ended as {stage}")
        for each in self.channels:
            queue = each.request_queue
            if queue.requests or queue.in_service or each.request is not None:
                self.fail(f"{each} keeps {queue.requests} {queue.in_service} {each.request}")
            if each.outbound.pending or each.outbound.segments:
                self.fail(f"{each} keeps {each.outbound.segments}")
        now = _open_descriptors()
        if now != descriptors:
            self.fail(f"left behind: {now - descriptors} descriptors")

    def _check_memory(self) -> None:
        """Drop what the run holds of the channels: nothing else may hold them."""
        channels = [weakref.ref(each) for each in self.channels]
        self.channels.clear()
        for client in self.clients:
            client.channel = None
            if client.sock is not None:
                client.sock.client = None
        gc.collect()
        alive = [each() for each in channels if each() is not None]
        if alive:
            self.fail(f"left behind: {alive}, held by {gc.get_referrers(alive[0])}")


#: How the answer begins to a client that may have no connection.
_TURNED_AWAY = b"HTTP/1.0 503 "


class _Judgement:
    """Whether a client got what it deserved.

    Walks along its requests and the responses that it read.
    """

    def __init__(self, run: Run, client: Client) -> None:
        self.run = run
        self.client = client
        self.channel: SimulatedChannel | None = client.channel

    def judge(self) -> None:
        """Tell what is wrong."""
        client = self.client
        responses = client.reader.responses
        turned_away = responses and responses[0].status == 503
        if self.run.may_turn_away and turned_away and responses[0].closes:
            self._judge_turned_away()
            return
        if self.run.may_turn_away and not responses and client.reader.rest.startswith(_TURNED_AWAY):
            return  # It did not read to the end that it was.
        if len(responses) > len(client.sent):
            self._fail(f"{len(responses)} responses to {len(client.sent)} requests")
            return
        if client.reader.rest and len(responses) == len(client.sent) == client.reader.whole:
            self._fail(f"more bytes: {client.reader.rest!r}")
        for position, request in enumerate(client.sent):
            if position == len(responses):
                self._judge_missing(request)
                return
            response = responses[position]
            self.run.note("%s: %s answered by %s", client, request, response)
            if response.interim > request.expects:
                self._fail(f"{request} was invited {response.interim} times")
            self._judge_response(request, response)
            if not response.is_whole or (request.plan is not None and request.plan.fails):
                return
            if response.closes:
                if position + 1 < len(responses):
                    self._fail(f"a response behind {response}")
                for later in client.sent[position + 1 :]:
                    if later.runs:
                        self._fail(f"{later} ran behind {response}")
                return

    def _fail(self, text: str) -> None:
        self.run.fail(f"{self.client}: {text} [{self.client.describe()}]")

    def _judge_turned_away(self) -> None:
        responses = self.client.reader.responses
        ran = [request for request in self.client.sent if request.runs]
        if len(responses) > 1 or not responses[0].closes or ran:
            self._fail(f"turned away, and then {responses[1:]}, {ran}")

    # -- a response

    def _judge_response(self, request: Request, response: Response) -> None:
        if "x-number" in response.headers:
            self._judge_own(request, response)
        elif response.is_whole or self._excuse(request) is None:
            self._judge_error(request, response)

    def _judge_own(self, request: Request, response: Response) -> None:
        plan = request.plan
        if plan is None or response.headers["x-number"] != str(request.number):
            self._fail(f"{request} got another's response {response}")
            return
        if "x-wrong" in response.headers or str(response.status) != plan.status[:3]:
            self._fail(f"{request} got {response}")
        if response.version != request.version:
            self._fail(f"{request} was answered in {response.version}")
        if not plan.body.startswith(bytes(response.body)):
            self._fail(f"{request} got another body")
        declared = plan.declared
        if (
            response.framing == "length"
            and int(response.headers["content-length"])
            != (plan.total if declared is None else declared)
            and plan.shape != "file"
        ):
            self._fail(f"{request} got {response}")
        if response.is_whole and not plan.fails and request.asks_to_close and not response.closes:
            self._fail(f"{request} asked for a close: {response}")
        full = plan.total if declared is None else min(plan.total, declared)
        if response.is_whole:
            if response.framing != "none" and len(response.body) != full:
                self._fail(f"{request}: {len(response.body)} of {full} bytes look whole")
            if plan.fails and response.framing in ("chunks", "end"):
                self._fail(f"{request} fails, and {response} looks whole")
            return
        deserved = plan.fails or (declared is not None and declared > plan.total)
        if not deserved and self._excuse(request) is None:
            self._fail(f"{request}: cut, {len(response.body)} of {full} bytes")
        elif not self.client.got_end and not self.client.is_over and not self.client.is_stalled:
            self._fail(f"{request}: the response stands still")

    def _judge_error(self, request: Request, response: Response) -> None:
        status = response.status
        if self.run.disk_fails and status in (500, 507):
            return
        verdicts = self.channel.verdicts if self.channel else []
        is_refusal = self.run.may_refuse_queued or "gave way" in verdicts
        if status == 503 and is_refusal and "retry-after" in response.headers:
            if request.runs or request.errors:
                self._fail(f"{request} was refused for want of a thread: {response}")
            return
        if not response.closes:
            self._fail(f"{request}: an error that keeps the connection: {response}")
        plan = request.plan
        if status in request.errors:
            return
        if status == 500 and plan is not None and request.runs and plan.fails:
            return
        if status == 507 and len(request.body) > self.run.settings["outbuf_high_watermark"]:
            return
        if status == 408 and "body" in verdicts and request.waits_for_continue:
            if not response.interim:
                self._fail(f"{request} was not invited, and then its body was late")
        if status == 408 and {"head", "body", "evicted"} & set(verdicts) and not request.runs:
            return
        if not response.is_whole and not response.headers:
            return
        self._fail(f"{request} got {response}")

    # -- what never came

    def _judge_missing(self, request: Request) -> None:
        if self._excuse(request) is None:
            self._fail(f"no response to {request}; the server: {self._about_channel()}")

    def _about_channel(self) -> str:
        channel = self.channel
        if channel is None:
            return "has not accepted"
        return f"verdicts {channel.verdicts}, closed at {channel.closed_at}"

    def _ends_with_reset(self) -> bool:
        """Whether the connection ended in the middle of a body that ends with it."""
        return any(
            each.runs and each.plan is not None and each.plan.fails and each.version == "1.0"
            for each in self.client.sent
        )

    def _has_broken_its_word(self) -> bool:
        """Whether the client sent more behind a request that was to be the last."""
        return any(each.asks_to_close and not each.errors for each in self.client.sent[:-1])

    def _excuse(self, request: Request) -> str | None:
        """Return why the response need not have come, or not wholly."""
        client, channel = self.client, self.channel
        if client.closed_at is not None and not client.got_end:
            return "the client left first"
        if self.run.may_turn_away and not any(each.runs for each in client.sent):
            return "it was turned away, in vain"
        if self.run.was_ended:
            return "the server was ended"
        if self.run.disk_fails:
            return "the disk fails"
        if client.is_stalled:
            return "the client does not read"
        if channel is None or channel.closed_at is None:
            return None
        verdicts = channel.verdicts
        if "cut" in verdicts:
            return "it did not read"
        if "gave way" in verdicts and channel.unsent_at_close:
            return "its place was wanted at once, and the system did not take the whole refusal"
        if client.ended_at is not None and self.run.settings["channel_request_lookahead"] > 0:
            return "it sent its end, with a look-ahead"
        position = client.sent.index(request)
        if position == len(client.reader.responses) and request.starts_at >= channel.total_at_close:
            return "it sent too late" if {"idle", "evicted", "swept"} & set(verdicts) else None
        arrived = request.raw[: max(channel.total_at_close - request.starts_at, 0)]
        if (request.is_cut or "head" in verdicts) and not arrived.strip(b"\r\n"):
            return "it sent nothing but empty lines"
        if request.is_cut and "swept" in verdicts:
            return "it fell silent"
        if request.is_cut and client.ended_at is not None:
            return "it did not send all of it"
        if client.was_reset and client.manner != "eager":
            return "it read late"
        if client.was_reset and self._has_broken_its_word():
            return "it asked for the end, and went on sending"
        if client.was_reset and self._ends_with_reset():
            return "a response that only a reset can show to be cut"
        longest = min(self.run.settings["linger_timeout"], LINGER_SILENCE_SECONDS)
        if "connection_limit" in self.run.settings:
            longest = min(longest, IDLE_SECONDS)  # A newcomer may have taken its place.
        if client.was_reset and (channel.lingered >= longest or channel.lingered_no_longer):
            return "it lingered as long as it may"
        if "evicted" in verdicts:
            return "evicted at once"
        return None


def _open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
