"""The scenarios: each plays one attack to its end and returns the figures of it.

What the figures are held against is the server's promise (deadlines, spool, limits) with
slack for a machine that is busy with other things; a normal client's median under 100 ms
is the promise itself.
"""

from __future__ import annotations

import select
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from tests.hostile.crowds import Crowd
from tests.hostile.figures import MIB, Figure, exactly, part, waits
from tests.hostile.processes import (
    Asking,
    Peak,
    Server,
    asking,
    await_that,
    serving,
    settled,
    watching,
)
from tests.hostile.uploads import (
    Pipeliner,
    Told,
    Upload,
    begin_curl,
    begin_uploads,
    end_of_curl,
    upload,
)
from waitress.adjustments import Adjustments

#: A normal client waits no longer than this in the median, in milliseconds.
PROMPT_MS = 100.0
#: How much later than its deadline something may come on a machine that is not ours alone.
SLACK_SECONDS = 5.0
#: How much earlier it may seem to come: a busy crowd notices late when the time began.
EARLY_SECONDS = 1.0
#: How much memory an attack may cost, in MiB, where all that is large goes to the disk.
MEMORY_MIB = 64.0

HEAD = b"GET / HTTP/1.1\r\nHost: h\r\n"
LARGE = 50 * MIB


def crowd(stack: ExitStack, server: Server, count: int, begin: bytes = b"") -> Crowd:
    clients = Crowd(server.port)
    stack.callback(clients.close)
    clients.connect(count, begin)
    return clients


def unharmed(server: Server, *askers: Asking) -> list[Figure]:
    """Return what must be so after every attack."""
    failures = [failure for asker in askers for failure in asker.failures]
    return [
        exactly("normal clients: failures " + "; ".join(failures[:2]), len(failures), 0),
        exactly("server is alive", server.is_alive, True),
        exactly("tracebacks in its log", server.tracebacks, 0),
    ]


def resting_descriptors(server: Server) -> int:
    """Return how many descriptors it has open while nobody is connected."""
    server.counts()  # Now it has everything that it keeps.
    fewest = server.descriptors()
    await_that(lambda: server.descriptors() < fewest, 0.5)
    return min(fewest, server.descriptors())


def given_back(server: Server, descriptors: int) -> list[Figure]:
    """Return what the server still holds when its clients have gone."""
    counts = settled(server, 1, spooled=0)
    # Spare files of bodies are closed at the second upkeep that finds them unused.
    patience = 2 * Adjustments.cleanup_interval + 10
    await_that(lambda: server.spooled() == 0 and server.descriptors() <= descriptors, patience)
    return [
        exactly("afterwards: bytes on the disk", server.spooled(), 0, "bytes"),
        exactly("afterwards: bytes counted as spooled", counts["spool"], 0, "bytes"),
        exactly("afterwards: connections beside the one that asks", counts["channels"] - 1, 0),
        Figure(
            "afterwards: descriptors more than before",
            server.descriptors() - descriptors,
            "",
            at_most=0,
        ),
    ]


def memory(
    server: Server, peak: Peak, before: int, most_more_mib: float = MEMORY_MIB
) -> list[Figure]:
    more = (peak.pss - before) / MIB
    return [
        Figure("memory (Pss) before", before / MIB, "MiB"),
        Figure("memory (Pss) at its peak, more than before", more, "MiB", at_most=most_more_mib),
        Figure("memory (Pss) afterwards", server.pss() / MIB, "MiB"),
    ]


def ends(whose: str, seconds: list[float], deadline: float, late: float) -> list[Figure]:
    """Return when clients were ended: none before the deadline, none too long after it."""
    return [
        Figure(
            f"{whose}: first ended after",
            min(seconds, default=float("nan")),
            "s",
            at_least=deadline - EARLY_SECONDS,
        ),
        Figure(
            f"{whose}: last ended after",
            max(seconds, default=float("nan")),
            "s",
            at_most=deadline + late,
        ),
    ]


# -- heads --------------------------------------------------------------------------


def dripping_heads(timeout: float, **settings: float) -> list[Figure]:
    """500 clients send a head octet by octet; each reads its 408 at its deadline."""
    with serving(**settings) as (server, stack):
        descriptors, before = resting_descriptors(server), server.pss()
        asker = asking(stack, server)
        peak = watching(stack, server)
        drippers = crowd(stack, server, 500, HEAD + b"X-Drip: ")
        begun, used = time.monotonic(), server.work().cpu_seconds
        drippers.read(timeout * 0.8, every=0.5, act=lambda: trickle(drippers, b"x"))
        used = server.work().cpu_seconds - used
        watched = time.monotonic() - begun
        still_there = len(drippers.open)
        drippers.read(timeout + 20, every=0.5, act=lambda: trickle(drippers, b"x"))
        asker.stop()
        peak.stop()
        lasted = [client.lasted for client in drippers.clients if client.has_ended]
        return [
            *waits("normal client", asker.seconds(begun), median_ms=PROMPT_MS),
            exactly("drippers, some time before their deadline", still_there, 500),
            Figure("server's CPU, drippers and normal client", used / watched * 100, "%"),
            exactly("drippers that read their 408", count_status(drippers, 408), 500),
            *ends("408", since_begun(drippers), timeout, SLACK_SECONDS),
            exactly("drippers whose connection was closed", len(lasted), 500),
            *ends("connections", lasted, timeout, 5 + SLACK_SECONDS),
            *memory(server, peak, before),
            *unharmed(server, asker),
            *given_back(server, descriptors),
        ]


# -- readers ------------------------------------------------------------------------


def stalled_readers_within_the_spool() -> list[Figure]:
    """30 clients ask for 50 MiB each and read none: workers stay free, the spool keeps it."""
    with (
        tempfile.TemporaryDirectory() as spool_dir,
        serving(spool_dir=spool_dir, spool_limit=2048 * MIB, send_timeout=20) as (server, stack),
    ):
        descriptors, before = resting_descriptors(server), server.pss()
        asker = asking(stack, server)
        peak = watching(stack, server)
        begun = time.monotonic()
        readers = crowd(stack, server, 30, b"GET /blocks/%d HTTP/1.1\r\nHost: h\r\n\r\n" % LARGE)
        handed_over: list[float] = []

        def look() -> None:
            if not handed_over and server.spooled() >= 30 * (LARGE - 8 * MIB):
                handed_over.append(time.monotonic())

        readers.stall(100, act=look)
        asker.stop()
        peak.stop()
        then = handed_over[0] if handed_over else float("inf")
        return [
            Figure("all 30 are in the spool after", then - begun, "s", at_most=20),
            *waits("normal client", asker.seconds(begun), median_ms=PROMPT_MS, most_ms=20000),
            *waits("normal client in line behind them", asker.seconds(begun, then)),
            *waits("normal client while they stall", asker.seconds(then), median_ms=PROMPT_MS),
            *stalled(readers, 20),
            Figure("on the disk at the peak", peak.spooled / MIB, "MiB", at_least=30 * 42),
            *memory(server, peak, before),
            *unharmed(server, asker),
            *given_back(server, descriptors),
        ]


def stalled(readers: Crowd, timeout: float) -> list[Figure]:
    """Return when the readers were cut, counted from the first octet of their answer.

    The kernel is asked four times in a time-out whether a reader progresses; what it took
    in the first moment is progress to the first of these looks.
    """
    cut = [client for client in readers.clients if client.has_ended]
    lasted = lasted_from_first_octet(readers)
    return [
        exactly("readers cut", len(cut), len(readers.clients)),
        exactly("readers cut by a reset", sum(client.was_reset for client in cut), len(cut)),
        *ends("readers", lasted, timeout, timeout * 0.25 + SLACK_SECONDS),
    ]


def stalled_readers_beyond_the_spool() -> list[Figure]:
    """100 clients ask for 50 MiB each, and the spool has room for one: D4 ends each wait."""
    return readers_beyond(100, 0, 2.25, 8, send_timeout=1, spool_limit=64 * MIB)


def stalled_readers_that_make_room() -> list[Figure]:
    """40 clients beyond the spool, default time-outs: those that stalled longest are cut.

    The last of them, which the spool has room for, stay.
    """
    return readers_beyond(40, 6, 12, 16, spool_limit=200 * MIB)


def readers_beyond(
    count: int, fit: int, most_seconds: float, threads: int, **settings: float
) -> list[Figure]:
    """Readers for whom there is no room: none holds a worker longer than ``most_seconds``.

    Who comes behind them waits for their rounds: so many as each worker has of them. On
    the disk lie 16 MiB for each response that is being made or fits, and the spool.
    """
    rounds = -(-count // threads)
    with (
        tempfile.TemporaryDirectory() as spool_dir,
        serving(spool_dir=spool_dir, threads=threads, **settings) as (server, stack),
    ):
        descriptors, before = resting_descriptors(server), server.pss()
        peak = watching(stack, server)
        slow = crowd(stack, server, 1, b"GET /blocks/%d HTTP/1.1\r\nHost: h\r\n\r\n" % (8 * MIB))
        readers = crowd(stack, server, count, b"GET /blocks/%d HTTP/1.1\r\nHost: h\r\n\r\n" % LARGE)
        asker = Asking(server.port)
        stack.callback(asker.stop)
        begun = time.monotonic()
        readers.stall(100, act=lambda: slow.read(0.02), leaving=fit)
        took = time.monotonic() - begun
        server.counts()
        freed = time.monotonic()
        asker.stop()
        slow.read(0.5)
        slow.close()
        peak.stop()
        lasted = lasted_from_first_octet(readers)
        left = len(readers.open)
        readers.close()
        return [
            Figure("readers that are left, for whom there is room", left, at_most=fit),
            Figure("readers: first cut after", min(lasted, default=0), "s"),
            Figure("readers: median", part(lasted, 0.5), "s"),
            Figure(
                "readers: last cut after",
                max(lasted, default=0),
                "s",
                at_most=most_seconds + SLACK_SECONDS,
            ),
            Figure("the last was cut after", took, "s"),
            Figure(
                "a worker is free then after",
                (freed - begun - took) * 1000,
                "ms",
                at_most=most_seconds * 1000,
            ),
            *waits(
                "normal client in line behind them",
                asker.seconds(),
                most_ms=(rounds * most_seconds + SLACK_SECONDS) * 1000,
            ),
            Figure(
                "slow reader that progresses: received",
                slow.clients[0].received,
                "bytes",
                at_least=8 * MIB,
            ),
            Figure(
                "on the disk at the peak",
                peak.spooled / MIB,
                "MiB",
                at_most=settings["spool_limit"] / MIB + (threads + fit + 1) * 16,
            ),
            *memory(server, peak, before),
            *unharmed(server, asker),
            *given_back(server, descriptors),
        ]


def lasted_from_first_octet(readers: Crowd) -> list[float]:
    return [
        client.ended_at - client.answered_at
        for client in readers.clients
        if client.ended_at is not None and client.answered_at is not None
    ]


# -- bodies -------------------------------------------------------------------------


def half_bodies() -> list[Figure]:
    """12 clients send half of 32 MiB each: it lies on the disk, 4 threads stay free, 408."""
    with (
        tempfile.TemporaryDirectory() as spool_dir,
        serving(threads=4, body_timeout=3, spool_dir=spool_dir, spool_limit=1024 * MIB) as (
            server,
            stack,
        ),
    ):
        descriptors, before = resting_descriptors(server), server.pss()
        asker = asking(stack, server)
        peak = watching(stack, server)
        head = b"POST /body HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (32 * MIB)
        begun = time.monotonic()
        clients = crowd(stack, server, 12, head)
        clients.feed(16 * MIB)
        sent = time.monotonic()
        clients.read(20)
        asker.stop()
        peak.stop()
        return [
            *waits("normal client", asker.seconds(begun), median_ms=PROMPT_MS),
            *waits("normal client while they stall", asker.seconds(sent), median_ms=PROMPT_MS),
            exactly("half bodies that read 408", count_status(clients, 408), 12),
            *ends("half bodies", since_begun(clients), 3, SLACK_SECONDS),
            Figure("on the disk at the peak", peak.spooled / MIB, "MiB", at_least=12 * 15),
            *memory(server, peak, before),
            *unharmed(server, asker),
            *given_back(server, descriptors),
        ]


def trickled_bodies() -> list[Figure]:
    """12 clients send 20 octets of a body a second: 408 after the grace of 30 s, not before."""
    with serving(threads=4) as (server, stack):
        asker = asking(stack, server)
        head = b"POST /body HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n"
        clients = crowd(stack, server, 12, head)
        clients.read(45, every=0.5, act=lambda: trickle(clients, b"x" * 10))
        asker.stop()
        return [
            *waits("normal client", asker.seconds(), median_ms=PROMPT_MS),
            exactly("trickled bodies that read 408", count_status(clients, 408), 12),
            *ends("trickled bodies", since_begun(clients), 30, SLACK_SECONDS),
            *unharmed(server, asker),
        ]


def count_status(clients: Crowd, status: int) -> int:
    return sum(client.status == status for client in clients.clients)


def since_begun(clients: Crowd) -> list[float]:
    return [
        client.answered_at - client.begun
        for client in clients.clients
        if client.answered_at is not None
    ]


# -- early answers ------------------------------------------------------------------

_POST = b"POST /body HTTP/1.1\r\nHost: h\r\n"
_DECLARED = b"Content-Length: %d\r\n" % LARGE
_CHUNKED = b"Transfer-Encoding: chunked\r\n"

#: Each refusal: how many clients provoke it, its status, and what they send.
REFUSALS: dict[str, tuple[int, int, Upload]] = {
    "413 declared": (100, 413, Upload(_POST + _DECLARED + b"\r\n", LARGE)),
    "413 chunked": (100, 413, Upload(_POST + _CHUNKED + b"\r\n", LARGE, chunked=True)),
    "400": (20, 400, Upload(_POST + b"Host: other\r\n" + _DECLARED + b"\r\n", LARGE)),
    "417": (20, 417, Upload(_POST + b"Expect: the-best\r\n" + _DECLARED + b"\r\n", LARGE)),
    "431": (
        20,
        431,
        Upload(
            _POST + _DECLARED + b"".join(b"X-%d: x\r\n" % n for n in range(300)) + b"\r\n", LARGE
        ),
    ),
    "431 without end": (20, 431, Upload(_POST + b"X-Endless: ", LARGE)),
}


def early_answers(which: str, stubborn: bool) -> list[Figure]:
    """Clients in mid-upload of 50 MiB get to read why it is refused."""
    count, status, what = REFUSALS[which]
    with serving(max_request_body_size=MIB) as (server, stack):
        descriptors, before = resting_descriptors(server), server.pss()
        peak = watching(stack, server)
        clients = upload(server.port, what, count, stubborn=stubborn)
        peak.stop()
        read_it = [each for each in clients if each.status == status and each.is_whole]
        errors = {each.error for each in clients if each.error}
        return [
            exactly(" ".join([f"read their {status}", *sorted(errors)]), len(read_it), count),
            Figure("sent of 50 MiB, least", min(each.sent for each in clients) / MIB, "MiB"),
            Figure("sent of 50 MiB, most", max(each.sent for each in clients) / MIB, "MiB"),
            Figure("took, longest", max(each.seconds for each in clients), "s"),
            # Half a MiB of a body that is chunked is kept before there is too much of it.
            *memory(server, peak, before, MEMORY_MIB + count * 0.5 * what.chunked),
            *unharmed(server),
            *given_back(server, descriptors),
        ]


def early_answers_to_curl() -> list[Figure]:
    """Curl with --data-binary of 50 MiB reads its 413: 20 in succession, 10 at once.

    Half of the former are those that the server may answer before they send any of it.
    """
    if not shutil.which("curl"):
        return [Figure("left out, for there is no curl", 0)]
    with (
        tempfile.NamedTemporaryFile() as file,
        serving(max_request_body_size=MIB) as (server, stack),
    ):
        file.truncate(LARGE)
        descriptors, before = resting_descriptors(server), server.pss()
        peak = watching(stack, server)
        expecting = [
            end_of_curl(begin_curl(server.port, file.name, expects=True)) for _ in range(10)
        ]
        pushing = [
            end_of_curl(begin_curl(server.port, file.name, expects=False)) for _ in range(10)
        ]
        begun = [begin_curl(server.port, file.name, expects=False) for _ in range(10)]
        at_once = [end_of_curl(process) for process in begun]
        peak.stop()
        sent = [told.sent / MIB for told in pushing + at_once]
        return [
            *read_by_curl("in succession, 100-continue expected", expecting),
            *read_by_curl("in succession, in mid-upload", pushing),
            *read_by_curl("at once, in mid-upload", at_once),
            Figure("in mid-upload: sent of 50 MiB, least", min(sent), "MiB"),
            Figure("in mid-upload: sent of 50 MiB, most", max(sent), "MiB"),
            *memory(server, peak, before),
            *unharmed(server),
            *given_back(server, descriptors),
        ]


def read_by_curl(how: str, all_told: list[Told]) -> list[Figure]:
    read_it = [told for told in all_told if told.status == 413 and told.exit_status == 0]
    words = {told.words for told in all_told if told.words}
    return [exactly(" ".join([f"curl {how}", *sorted(words)]), len(read_it), len(all_told))]


def early_answers_beside_lingerers() -> list[Figure]:
    """150 clients that go on dripping after their 413: newcomers read theirs all the same."""
    _, status, what = REFUSALS["413 declared"]
    with serving(max_request_body_size=MIB) as (server, stack):
        descriptors = resting_descriptors(server)
        lingerers = crowd(stack, server, 150, what.head)
        lingering = settled(server, 101, seconds=10)["channels"] - 1
        clients = begin_uploads(server.port, what, 20, stubborn=True)
        while any(client.is_alive() for client in clients):
            for lingerer in lingerers.clients:
                lingerer.send(b"x")
            select.select([], [], [], 0.2)
        lingerers.close()
        read_it = [each for each in clients if each.status == status and each.is_whole]
        return [
            exactly("connections that linger", lingering, 100),
            exactly("uploads beside them that read their 413", len(read_it), len(clients)),
            Figure("took, longest", max(each.seconds for each in clients), "s"),
            *unharmed(server),
            *given_back(server, descriptors),
        ]


def trickle(clients: Crowd, data: bytes) -> None:
    for client in clients.open:
        client.send(data)


# -- pipelining ---------------------------------------------------------------------


def a_pipelining_client(threads: int, lookahead: int, prefix: str, count: int) -> list[Figure]:
    """One client pipelines thousands of requests beside 4 normal ones."""
    with serving(threads=threads, channel_request_lookahead=lookahead) as (server, stack):
        askers = [asking(stack, server) for _ in range(4)]
        await_that(lambda: server.counts()["channels"] == 5)
        pipeliner = Pipeliner(server.port, prefix, count)
        begun = time.monotonic()
        pipeliner.start()
        pipeliner.join(50)
        for asker in askers:
            asker.stop()
        until = pipeliner.ended_at
        beside = [wait for asker in askers for wait in asker.seconds(begun, until)]
        alone = [wait for asker in askers for wait in asker.seconds(0, begun)]
        fewest = min(len(asker.seconds(begun, until)) for asker in askers)
        return [
            exactly(f"answers in order {pipeliner.error}".strip(), pipeliner.in_order, count),
            Figure("took", until - begun, "s", at_most=50),
            *waits("4 normal clients beside it", beside, median_ms=PROMPT_MS),
            Figure("the one least served: answers", fewest, "", at_least=1),
            Figure("4 normal clients without it: median", part(alone, 0.5) * 1000, "ms"),
            *unharmed(server, *askers),
        ]


# -- connections --------------------------------------------------------------------


def a_flood_of_connections(begin: bytes) -> list[Figure]:
    """500 clients connect where 100 may, and connect again when ended; normal ones get in."""
    with serving(connection_limit=100, header_timeout=4) as (server, stack):
        descriptors = resting_descriptors(server)
        persistent = asking(stack, server)
        newcomer = asking(stack, server, persists=False)
        await_that(lambda: server.counts()["channels"] >= 2)
        peak = watching(stack, server)
        before = server.work().cpu_seconds
        begun = time.monotonic()
        flood = crowd(stack, server, 500, begin)
        turned_away = 0
        while time.monotonic() < begun + 8:
            flood.read(0.5)
            ended = flood.forget_ended()
            turned_away += ended
            flood.connect(ended, begin)
        used = server.work().cpu_seconds - before
        flood.close()
        ended_at = time.monotonic()
        peak.stop()
        select.select([], [], [], 4)
        newcomer.stop()
        persistent.stop()
        after = newcomer.seconds(ended_at + 2) + persistent.seconds(ended_at + 2)
        return [
            Figure("connections of the flood that were ended", turned_away),
            *waits("newcomer", newcomer.seconds(begun, ended_at), most_ms=30000),
            *waits(
                "client that was there before", persistent.seconds(begun, ended_at), most_ms=30000
            ),
            *waits("both, 2 s after the flood", after, median_ms=PROMPT_MS),
            Figure(
                "descriptors more than before, most",
                peak.descriptors - descriptors,
                "",
                at_most=105,
            ),
            Figure("server's CPU", used / 8 * 100, "%"),
            *unharmed(server, newcomer, persistent),
            *given_back(server, descriptors),
        ]


def idle_connections(used_before: bool) -> list[Figure]:
    """1000 connections that do nothing cost memory, and no time."""
    with serving(connection_limit=2000) as (server, stack):
        server.counts()
        settled(server, 1)
        nothing = server.pss()
        clients = crowd(stack, server, 1000, HEAD + b"\r\n" if used_before else b"")
        await_that(lambda: server.counts()["channels"] == 1001)
        clients.read(2)
        held = server.pss()
        before, begun = server.work(), time.monotonic()
        select.select([], [], [], 5)
        after, seconds = server.work(), time.monotonic() - begun
        cpu = after.cpu_seconds - before.cpu_seconds
        wakes = after.main_thread_waits - before.main_thread_waits
        return [
            exactly(
                "answers",
                sum(client.status == 200 for client in clients.clients),
                1000 * used_before,
            ),
            exactly("connections", settled(server, 1001)["channels"] - 1, 1000),
            Figure("CPU over 5 s", cpu / seconds * 100, "%", at_most=1),
            Figure("wake-ups of the loop in 5 s, time-out 1 s", wakes, "", at_most=seconds + 2),
            Figure("memory for each", (held - nothing) / 1000 / 1024, "KiB", at_most=32),
            *unharmed(server),
        ]


#: Every scenario by the name that the command takes.
SCENARIOS: dict[str, Callable[[], list[Figure]]] = {
    "heads": partial(dripping_heads, 30),  # All settings are the defaults.
    "heads-soon": partial(dripping_heads, 3, header_timeout=3),
    "readers": stalled_readers_within_the_spool,
    "readers-beyond": stalled_readers_beyond_the_spool,
    "readers-make-room": stalled_readers_that_make_room,
    "bodies": half_bodies,
    "bodies-trickled": trickled_bodies,
    **{
        f"answer-{which.replace(' ', '-')}-{how}": partial(early_answers, which, how == "stubborn")
        for which in REFUSALS
        for how in ("stubborn", "alert")
    },
    "answer-413-curl": early_answers_to_curl,
    "answer-beside-lingerers": early_answers_beside_lingerers,
    "pipelining": partial(a_pipelining_client, 4, 0, "/n", 10000),
    "pipelining-lookahead": partial(a_pipelining_client, 4, 100, "/n", 10000),
    "pipelining-one-thread": partial(a_pipelining_client, 1, 5, "/after/0.001", 5000),
    "flood-silent": partial(a_flood_of_connections, b""),
    "flood-heads": partial(a_flood_of_connections, HEAD),
    "idle": partial(idle_connections, False),
    "idle-used": partial(idle_connections, True),
}


def summary(name: str) -> str:
    """Return what a scenario does, in one line."""
    scenario = SCENARIOS[name]
    function = scenario.func if isinstance(scenario, partial) else scenario
    return (function.__doc__ or "").partition("\n")[0]
