"""One run: a server, its clients, the rests between, and the figures in the end."""

from __future__ import annotations

import contextlib
import json
import re
import select
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, ClassVar, NamedTuple

from tests.hostile.figures import MIB, Figure, exactly
from tests.hostile.processes import PATIENCE, Server, await_that
from tests.soak.clients import Client, Tally

#: Small enough that much is spooled, large enough that much is not.
SETTINGS = {
    "threads": 6,
    "inbuf_overflow": 128 * 1024,
    "outbuf_overflow": 256 * 1024,
    "outbuf_high_watermark": 1024 * 1024,
    # Files of bodies that nobody has needed between two of them are closed, so that a rest
    # shows what is held for ever.
    "cleanup_interval": 1,
}
#: What the memory at rest may grow by from the first part of a run to its last.
GROWTH_BYTES = 6 * MIB


@dataclass(frozen=True)
class Plan:
    """How long, by which seed, with how many clients, and how often all rest, seconds."""

    seconds: float
    seed: str
    clients: int = 24
    rest_every: float = 20.0


class Rest(NamedTuple):
    """What the server holds while nobody asks anything of it."""

    pss: int
    descriptors: int
    spooled_on_disk: int
    spool: int
    channels: int
    threads: int
    #: Requests that the application has been called with, of those whose answers are kept.
    counted: int


class SoakedServer(Server):
    """The server of a run, in a process of its own."""

    module = "tests.soak.serving"
    #: Has glibc give large blocks back at once, so that what remains is what is held. By
    #: itself it keeps what the largest bodies took, several at once, for the next of them.
    environment: ClassVar[Mapping[str, str]] = {
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }

    def counts(self) -> dict[str, int]:
        url = f"http://127.0.0.1:{self.port}/asked/counts/x/0"
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            counts: dict[str, int] = json.loads(answer.read())
        return counts

    def rest(self) -> Rest:
        """Return what it holds, once the last traces of the clients have gone."""
        counts = self.counts()

        def has_settled() -> bool:
            counts.update(self.counts())
            return counts["channels"] <= 1 and counts["spool"] == 0 and self.spooled() == 0

        # A refused client that does not read lingers for 5 s.
        await_that(has_settled, 20)
        return Rest(
            self.pss(),
            self._descriptors_at_rest(),
            self.spooled(),
            counts["spool"],
            counts["channels"] - 1,
            counts["threads"],
            counts["counted"],
        )

    def _descriptors_at_rest(self) -> int:
        """Return the least of a second: the question for the counts has one of its own.

        The server may not have seen yet that the one who asked has left.
        """
        least = self.descriptors()
        for _ in range(20):
            select.select([], [], [], 0.05)
            least = min(least, self.descriptors())
        return least


@dataclass
class Crew:
    """The clients' threads: they all converse, or all rest."""

    clients: list[Client]
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ends_at = 0.0

    def work(self, seconds: float) -> None:
        """Have all clients converse for so long; return when the last has come to an end."""
        self._ends_at = time.monotonic() + seconds
        threads = [threading.Thread(target=self._work, args=(each,)) for each in self.clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _work(self, client: Client) -> None:
        while time.monotonic() < self._ends_at and not self.failures:
            try:
                client.converse()
            except Exception as error:
                self.failures.append(f"{client.doing}: {type(error).__name__}: {error}")


def soak(plan: Plan, tell: Callable[[str], None] = lambda line: None) -> list[Figure]:
    """Make a run; return what was measured."""
    begun = time.monotonic()
    tally = Tally()
    with contextlib.ExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "s"
        server = SoakedServer(listen=f"127.0.0.1:0 unix:{path}", **SETTINGS)
        stack.callback(server.stop)
        addresses: list[Any] = [("127.0.0.1", server.port)] * 2 + [str(path)]
        crew = Crew([Client(f"{plan.seed}.{n}", addresses, tally) for n in range(plan.clients)])
        before = server.work().cpu_seconds
        rests: list[Rest] = []
        while (left := begun + plan.seconds - time.monotonic()) > 0 and not crew.failures:
            crew.work(min(plan.rest_every, left))
            rests.append(server.rest())
            tell(_line(time.monotonic() - begun, tally, rests[-1]))
        seconds = time.monotonic() - begun
        cpu = server.work().cpu_seconds - before
        for failure in crew.failures:
            tell(f"! {failure}")
        lines = unexpected("".join(server.log))
        for line in lines[:20]:
            tell(f"! log: {line}")
        return [
            *_checked(tally, rests, crew.failures),
            *_flat(rests),
            exactly("server alive", server.is_alive, 1),
            exactly("unexpected lines in the log", len(lines), 0),
            Figure("server's CPU", cpu / seconds * 100, "%"),
            Figure("time", seconds, "s"),
        ]


def _line(seconds: float, tally: Tally, rest: Rest) -> str:
    return (
        f"{seconds:7.0f} s  {tally.counts['answers checked']:>9} answers  "
        f"Pss {rest.pss / MIB:6.1f} MiB  {rest.descriptors} descriptors  "
        f"{rest.threads} threads  {rest.spool} spooled  {rest.channels} connections"
    )


def _checked(tally: Tally, rests: list[Rest], failures: list[str]) -> list[Figure]:
    return [
        *(
            Figure(what, count)
            for what, count in sorted(tally.counts.items())
            if what.startswith("conversations")
        ),
        Figure("bytes received", tally.counts["bytes received"] / MIB, "MiB"),
        Figure("answers checked by hash", tally.counts["answers checked"], at_least=1),
        exactly("answers that were lost, mixed or corrupt", len(failures), 0),
        exactly(
            "requests run more or less than once",
            # A client that fails leaves its request uncounted.
            0 if failures else rests[-1].counted - tally.counts["answers kept"],
            0,
        ),
    ]


def _flat(rests: list[Rest]) -> list[Figure]:
    """Return how what is held at rest moved, from the end of the first third on."""
    warm = rests[len(rests) // 3 :]
    part = max(len(warm) // 3, 1)
    first = median(rest.pss for rest in warm[:part])
    last = median(rest.pss for rest in warm[-part:])
    return [
        Figure("rests", len(rests), at_least=1),
        Figure("memory at rest, first", first / MIB, "MiB"),
        Figure("memory at rest, last", last / MIB, "MiB"),
        Figure("memory at rest, growth", (last - first) / MIB, "MiB", at_most=GROWTH_BYTES / MIB),
        exactly(
            "descriptors at rest, most more than least",
            max(rest.descriptors for rest in warm) - min(rest.descriptors for rest in warm),
            0,
        ),
        exactly(
            "threads at rest, most more than least",
            max(rest.threads for rest in warm) - min(rest.threads for rest in warm),
            0,
        ),
        exactly("spooled at rest, counted", max(rest.spool for rest in rests), 0, "B"),
        exactly("spooled at rest, on disk", max(rest.spooled_on_disk for rest in rests), 0, "B"),
        exactly("connections at rest", max(rest.channels for rest in rests), 0),
    ]


#: An entry of the log that was asked for: the failure of an application, to its last line.
_ASKED_FOR = re.compile(
    r"Exception while serving /kept/(?:broken|cut)/(?P<name>[^/\n]+)/\d+\n"
    r"Traceback \(most recent call last\):\n(?:  .*\n)+"
    # Without its module, which is the one that the process was started with.
    r"Broken: (?P=name)\n"
)


def unexpected(log: str) -> list[str]:
    """Return the log's lines but for those of the failures that were asked for."""
    return [line for line in _ASKED_FOR.sub("", log).splitlines() if line]
