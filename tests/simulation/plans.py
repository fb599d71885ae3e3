"""What the application does with a request, drawn in advance, and what must come of it."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

#: All bodies are cut out of this, at a place that the request's number decides.
_NOISE = random.Random(7).randbytes(1 << 16) * 4


class PlannedError(Exception):
    """Raised by the application because its plan says so."""


_ERRORS: tuple[type[BaseException], ...] = (PlannedError, OSError, SystemExit, KeyError)


class Plan:
    """The application's answer to one request."""

    def __init__(self, rng: random.Random, number: int, scale: int, mood: str) -> None:
        self.number = number
        self.shape = rng.choice(
            ("list", "list", "list", "chunks", "generator", "generator", "object",
             "write", "both", "file", "file")
        )  # fmt: skip
        count = 1 if self.shape in ("list", "file") else rng.choice((0, 1, 2, 3, 5))
        roll = rng.random() if mood != "stalling" else 0.5 + rng.random() / 2
        largest = 40 if roll < 0.5 else (scale if roll < 0.9 else scale * 8)
        self.sizes = [rng.randrange(largest) for _ in range(count)]
        self.total = sum(self.sizes)
        self.status = rng.choice(("200 OK",) * 12 + ("404 Not Found", "204 No Content", "304 Not"))
        #: The Content-Length that the application declares.
        self.declared: int | None = None
        roll = rng.random()
        if roll < 0.4:
            self.declared = self.total
        elif roll < 0.45:
            self.declared = self.total + 1 + rng.randrange(50)
        elif roll < 0.5:
            self.declared = rng.randrange(self.total + 1)
        #: Where it raises: "call", "started", "close", or behind so many chunks.
        self.fails_at: str | int | None = None
        if rng.random() < 0.12:
            self.fails_at = rng.choice(("call", "started", "close", rng.randrange(count + 1)))
        self.error = rng.choice(_ERRORS)
        self.starts_twice = rng.random() < 0.05
        #: How much of the request's body is read: "no", "some", "all".
        self.reads = rng.choice(("all", "all", "some", "no"))
        #: Seconds for which the application sleeps, by the place.
        self.sleeps: dict[Any, float] = {}
        if rng.random() < 0.25:
            where = rng.choice(("call", "started", "close", rng.randrange(count + 1)))
            self.sleeps[where] = rng.choice((0.001, 0.1, 3.0, 40.0))
        self.block_size = rng.choice((1 + scale // 10, scale, 32768))
        self.is_seekable = rng.random() < 0.8
        #: Times that the iterable was closed.
        self.closes = 0
        self.has_iterable = False
        self.file: Any = None

    def __repr__(self) -> str:
        return (
            f"{self.shape} {self.sizes} {self.status} declares={self.declared} "
            f"fails={self.fails_at}:{self.error.__name__} sleeps={self.sleeps}"
        )

    @property
    def body(self) -> bytes:
        """All that the application hands over."""
        start = self.number * 97 & 0xFFFF
        return _NOISE[start : start + self.total]

    # -- what must come of it

    @property
    def written_before_failure(self) -> int:
        """Bytes handed over before it raises; all of them when it does not."""
        if self.fails_at in ("call", "started"):
            return 0
        if isinstance(self.fails_at, int) and self.shape not in ("list", "chunks", "file"):
            return sum(self.sizes[: self.fails_at])
        return self.total

    @property
    def fails(self) -> bool:
        """Whether it raises."""
        if self.shape in ("list", "chunks"):
            return self.fails_at in ("call", "started")
        if self.shape == "file":
            return self.fails_at in ("call", "started") or (
                # A file's close() runs when everything was sent, or never.
                False
            )
        if self.shape == "write":
            return self.fails_at is not None and self.fails_at != "close"
        return self.fails_at is not None

    # -- the application

    def respond(
        self,
        environ: dict[str, Any],
        start_response: Callable[..., Any],
        sleep: Callable[[float], None],
    ) -> Any:
        """Answer."""
        self._pass("call", sleep)
        headers = [("Content-Type", "text/x-noise"), ("X-Number", str(self.number))]
        if self.declared is not None:
            headers.append(("Content-Length", str(self.declared)))
        if self.starts_twice:
            start_response("500 Wrong", [("X-Wrong", "1"), ("Content-Length", "1")])
            try:
                raise PlannedError("restarted")
            except PlannedError:
                write = start_response(self.status, headers, sys.exc_info())
        else:
            write = start_response(self.status, headers)
        self._pass("started", sleep)
        chunks = list(self._cut())
        if self.shape in ("list", "chunks"):
            return chunks
        if self.shape == "file":
            return self._wrap_file(environ)
        if self.shape in ("write", "both"):
            middle = len(chunks) if self.shape == "write" else len(chunks) // 2
            for index in range(middle):
                self._pass(index, sleep)
                write(chunks[index])
            if self.shape == "write":
                self._pass(middle, sleep)
                return []
            self.has_iterable = True
            return _Iterable(self, chunks, middle, sleep)
        self.has_iterable = True
        if self.shape == "object":
            kind = _SizedIterable if len(chunks) == 1 else _Iterable
            return kind(self, chunks, 0, sleep)
        return self._generate(chunks, sleep)

    def _pass(self, where: Any, sleep: Callable[[float], None]) -> None:
        seconds = self.sleeps.get(where)
        if seconds is not None:
            sleep(seconds)
        if self.fails_at == where and type(self.fails_at) is type(where):
            raise self.error("planned")

    def _cut(self) -> Iterator[bytes]:
        body = self.body
        start = 0
        for size in self.sizes:
            yield body[start : start + size]
            start += size

    def _generate(self, chunks: list[bytes], sleep: Callable[[float], None]) -> Iterator[bytes]:
        try:
            for index, chunk in enumerate(chunks):
                self._pass(index, sleep)
                yield chunk
            self._pass(len(chunks), sleep)
        finally:
            self.closes += 1
            self._pass("close", sleep)

    def _wrap_file(self, environ: dict[str, Any]) -> Any:
        if not self.is_seekable:
            self.file = _Pipe(self.body)
        else:
            # The loop reads the one, the worker reads the other.
            self.file = BytesIO(self.body) if len(self.body) % 2 else _File(self.body)
        return environ["wsgi.file_wrapper"](self.file, self.block_size)


class _Iterable:
    """An iterator that counts how often it is closed."""

    def __init__(
        self,
        plan: Plan,
        chunks: list[bytes],
        begun: int,
        sleep: Callable[[float], None],
    ) -> None:
        self._plan = plan
        self._chunks = chunks
        self._next = begun
        self._sleep = sleep

    def __iter__(self) -> _Iterable:
        return self

    def __next__(self) -> bytes:
        index = self._next
        self._plan._pass(index, self._sleep)
        if index >= len(self._chunks):
            raise StopIteration
        self._next = index + 1
        return self._chunks[index]

    def close(self) -> None:
        self._plan.closes += 1
        self._plan._pass("close", self._sleep)


class _SizedIterable(_Iterable):
    """One that knows how much it yields."""

    def __len__(self) -> int:
        return len(self._chunks)


class _File(BytesIO):
    """A file of which nobody knows how long its ``read`` takes."""


class _Pipe:
    """A file without a position."""

    def __init__(self, data: bytes) -> None:
        self._file = BytesIO(data)
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def close(self) -> None:
        self.closed = True
