"""What can be said of a request in the access log, value by value.

Owns the meaning of each value: which instants make a duration, what a client's address is
where proxies speak for it, what counts as body. Text is as it came; to escape it is the
affair of whoever makes a line of it.

Row 1: imports peers and timeline.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from waitress import peers
from waitress.timeline import Timeline

__all__ = [
    "BRACED",
    "SAFE",
    "VALUES",
    "Capture",
    "Facts",
    "Value",
    "app_us",
    "body_bytes",
    "captured",
    "iso_time",
    "peer_text",
    "protocol",
    "queued_us",
    "receiving_us",
    "remote_address",
    "request_words",
    "sending_us",
    "status_code",
    "total_us",
]

_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()  # noqa: SIM905


#: What is taken of an environ while the application may not yet change it: by name.
Capture = dict[str, str]


class Facts(NamedTuple):
    """What a value is made from."""

    timeline: Timeline
    capture: Capture


#: Makes a value, not escaped; ``None``: there is none.
Value = Callable[[Facts], "str | None"]


def captured(timeline: Timeline, names: set[str]) -> Capture:
    """Take from the environ what is wanted of it, before anybody can change it."""
    environ = timeline.environ or {}
    return {name: _plain(environ[name]) for name in names if name in environ}


def _plain(value: Any) -> str:
    """Return text that no application changes any more, without calling code of its own."""
    if isinstance(value, str):
        return str.__str__(value)
    if value is None or type(value) in (int, float, bool):
        return str(value)
    return f"<{type(value).__name__}>"


# How long each phase took, in microseconds; None for one that never was. One that was
# interrupted lasts until the request's end. Each is computed only where a line tells it.


def total_us(line: Timeline) -> int | None:
    """Return the time from the first byte received to the last one sent."""
    return _between(line.first_byte, line.last_byte_out, line.ended)


def receiving_us(line: Timeline) -> int | None:
    """Return the time until the request was complete."""
    received = line.queued if line.body_complete is None else line.body_complete
    return _between(line.first_byte, received, line.ended)


def queued_us(line: Timeline) -> int | None:
    """Return the time until the request was begun with."""
    return _between(line.queued, line.started, line.ended)


def app_us(line: Timeline) -> int | None:
    """Return the time from the application's call until its iterable was closed."""
    app_end = line.application_finished if line.closed is None else line.closed
    return _between(line.application_started, app_end, line.ended)


def sending_us(line: Timeline) -> int | None:
    """Return the time from when the whole response was buffered until its last byte left."""
    return _between(line.serviced, line.last_byte_out, line.ended)


def _between(begin: float | None, end: float | None, else_end: float | None) -> int | None:
    """Return the time to the first of two ends that there is."""
    if end is None:
        end = else_end
    if begin is None or end is None:
        return None
    return round((end - begin) * 1_000_000) if end > begin else 0


def _duration(phase: Callable[[Timeline], int | None]) -> Value:
    def value(facts: Facts) -> str | None:
        lasted = phase(facts.timeline)
        return None if lasted is None else str(lasted)

    return value


def _number(value: int | None) -> str | None:
    return None if value is None else str(value)


def _total(divisor: int) -> Value:
    def value(facts: Facts) -> str | None:
        total = total_us(facts.timeline)
        return None if total is None else str(total // divisor)

    return value


def _total_seconds(facts: Facts) -> str | None:
    total = total_us(facts.timeline)
    return None if total is None else f"{total / 1_000_000:.6f}"


def remote_address(facts: Facts) -> str:
    """Return the client's address: as the application saw it, else that of the peer."""
    address = facts.capture.get("REMOTE_ADDR")
    if address:
        return address
    peer = facts.timeline.peer
    return str(peer[0] if isinstance(peer, tuple) and peer else peer)


def peer_text(facts: Facts) -> str:
    """Return address and port of the connection's peer, whatever proxies tell."""
    return peers.peer_text(facts.timeline.peer)


def request_words(facts: Facts) -> list[str]:
    """Return the words of the request line; none where there is no method."""
    line = facts.timeline
    if not line.method:
        return []
    words = [line.method]
    if target := f"{line.path}?{line.query}" if line.query else line.path:
        words.append(target)
    if version := protocol(facts):
        words.append(version)
    return words


def _request_line(facts: Facts) -> str:
    return " ".join(request_words(facts))


def protocol(facts: Facts) -> str | None:
    """Return ``HTTP/1.1`` or the like; ``None`` where it was not understood."""
    version = facts.timeline.version
    return f"HTTP/{version}" if version else None


def status_code(timeline: Timeline) -> int | None:
    """Return the response's status code, if there was a response that had one."""
    return _status_code(timeline.status[:3])


@functools.lru_cache(64)
def _status_code(code: str) -> int | None:
    return int(code) if len(code) == 3 and code.isascii() and code.isdigit() else None


def _status(facts: Facts) -> str:
    code = facts.timeline.status[:3]
    return "000" if _status_code(code) is None else code


def body_bytes(timeline: Timeline) -> int:
    """Return how many octets were sent behind the response's head."""
    if not timeline.status:
        return 0
    return max(timeline.bytes_out - timeline.head_bytes, 0)


def _local_time(facts: Facts) -> str:
    return _local_second(int(facts.timeline.began_at))


# Most lines are of the same second as the one before.
@functools.lru_cache(maxsize=4)
def _local_second(seconds: int) -> str:
    then = time.localtime(seconds)
    minutes = then.tm_gmtoff // 60
    sign, minutes = ("-", -minutes) if minutes < 0 else ("+", minutes)
    # Not by strftime(): the names of months are English in every country.
    return (
        f"[{then.tm_mday:02}/{_MONTHS[then.tm_mon - 1]}/{then.tm_year:04}"
        f":{then.tm_hour:02}:{then.tm_min:02}:{then.tm_sec:02}"
        f" {sign}{minutes // 60:02}{minutes % 60:02}]"
    )


def iso_time(timeline: Timeline) -> str:
    """Return the time of the first byte, in UTC and with microseconds."""
    # In whole microseconds first: 59.9999999 is the next minute, not second 60.
    seconds, micros = divmod(round(timeline.began_at * 1_000_000), 1_000_000)
    then = time.gmtime(seconds)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', then)}.{micros:06}Z"


def _request_field(name: str) -> Value:
    key = name.upper().replace("-", "_")
    return lambda facts: facts.timeline.headers.get(key)


def _response_field(name: str) -> Value:
    wanted = name.lower()

    def value(facts: Facts) -> str | None:
        found = [v for n, v in facts.timeline.response_headers if n.lower() == wanted]
        return ", ".join(found) if found else None

    return value


def _environ_value(name: str) -> Value:
    return lambda facts: facts.capture.get(name)


# Each with what it means, for the manual.
VALUES: dict[str, tuple[Value, str]] = {
    "h": (remote_address, "client address: ``REMOTE_ADDR`` as the application saw it"),
    "l": (lambda facts: None, "always ``-``"),
    "u": (_environ_value("REMOTE_USER"), "``REMOTE_USER`` of the environ"),
    "t": (_local_time, "local time of the first byte, in brackets"),
    "r": (_request_line, "request line"),
    "m": (lambda facts: facts.timeline.method, "method"),
    "U": (lambda facts: facts.timeline.path, "path as sent, without the query"),
    "q": (lambda facts: facts.timeline.query, "query"),
    "H": (protocol, "protocol, e.g. ``HTTP/1.1``"),
    "s": (_status, "status code; ``000`` where there was no response"),
    "B": (lambda facts: str(body_bytes(facts.timeline)), "octets sent behind the head"),
    "b": (
        lambda facts: _number(body_bytes(facts.timeline) or None),
        "the same, with ``-`` for none",
    ),
    "f": (_request_field("referer"), "``Referer``"),
    "a": (_request_field("user-agent"), "``User-Agent``"),
    "T": (_total(1_000_000), "total time in whole seconds"),
    "M": (_total(1000), "total time in milliseconds"),
    "D": (_duration(total_us), "total time in microseconds"),
    "L": (_total_seconds, "total time in seconds, with six decimals"),
    "p": (lambda facts: f"<{os.getpid()}>", "process id, in angle brackets"),
    "I": (lambda facts: str(facts.timeline.bytes_in), "octets received, head included"),
    "O": (lambda facts: str(facts.timeline.bytes_out), "octets sent, head included"),
    "receiving": (_duration(receiving_us), "time in which the request came, in microseconds"),
    "queued": (_duration(queued_us), "time in which it waited for a worker, in microseconds"),
    "app": (_duration(app_us), "time in the application, in microseconds"),
    "sending": (
        _duration(sending_us),
        "time in which the rest was sent that the application left, in microseconds",
    ),
    "end": (lambda facts: facts.timeline.termination, "termination code"),
    "refusal": (lambda facts: facts.timeline.refusal, "why the request was refused"),
    "id": (lambda facts: str(facts.timeline.request_id), "number of the request"),
    "channel": (lambda facts: str(facts.timeline.channel_id), "number of the connection"),
    "worker": (
        lambda facts: _number(facts.timeline.worker or None),
        "identity of the thread that served it",
    ),
    "peer": (peer_text, "address and port of the connection's peer, whatever proxies told"),
    "iso": (lambda facts: iso_time(facts.timeline), "time of the first byte, UTC, ISO 8601"),
}

# Atoms of what the server itself has made: no client can put anything into these.
SAFE = frozenset(
    (
        *("l", "t", "s", "B", "b", "T", "M", "D", "L", "p", "I", "O", "id", "channel"),
        *("receiving", "queued", "app", "sending", "worker", "iso"),
    )
)

BRACED: dict[str, Callable[[str], Value]] = {
    "i": _request_field,
    "o": _response_field,
    "e": _environ_value,
}
