"""Fuzz the receivers of bodies, by length and in chunks.

Whatever comes: nothing raises; any cut gives the same content and the same verdict; a body
in chunks is accepted exactly if a reader that was written from the grammar alone accepts
it, and then with the same content and the same end.
"""

from __future__ import annotations

import re
from typing import Any

from fuzz import harness

with harness.instrumented():
    from waitress.buffers import OverflowableBuffer
    from waitress.receiver import (
        MAX_CHUNK_LINE_BYTES,
        TRANSITIONS,
        ChunkedReceiver,
        FixedStreamReceiver,
        ReceiverState,
    )
    from waitress.rfc7230 import FORBIDDEN_TRAILER_FIELDS

LIMITS = {"max_body": 3000, "max_trailer_bytes": 500, "max_trailer_fields": 8}
LARGE = {"max_body": 1 << 24, "max_trailer_bytes": 1 << 24, "max_trailer_fields": 1 << 24}

#: What a refusal for size, and not for form, is called.
TOO_MUCH = {
    "body-too-large",
    "chunk-line-too-long",
    "chunk-overhead",
    "trailers-too-large",
    "too-many-trailers",
}


def check(data: bytes) -> None:
    """Check one input."""
    octets, chance = harness.controlled(data)
    with harness.limited_time():
        if chance.random() < 0.1:
            check_fixed(octets, chance.randrange(100), harness.cut(octets, chance))
        whole = read(new_chunked(), [octets])
        in_pieces = read(new_chunked(), harness.cut(octets, chance))
        assert told(whole) == told(in_pieces)
        check_against_grammar(whole, octets)
        if chance.random() < 0.1:
            receiver = ChunkedReceiver(OverflowableBuffer(1 << 24), **LARGE)
            read(receiver, [harness.pumped(octets, chance)])


def new_chunked() -> ChunkedReceiver:
    """Return a receiver with limits that a small input can reach."""
    return ChunkedReceiver(OverflowableBuffer(1 << 20), **LIMITS)


def read(receiver: Any, pieces: list[bytes]) -> Any:
    """Feed the pieces until the body ends; note how many octets that took."""
    receiver.octets_used = 0
    for piece in pieces:
        if receiver.completed:
            assert receiver.received(b"more") == 0
            break
        before = getattr(receiver, "state", None)
        used = receiver.received(piece)
        receiver.octets_used += used
        assert used == len(piece) or (0 < used < len(piece) and receiver.completed)
        if before is not None:
            check_state(receiver, before)
    return receiver


def check_state(receiver: Any, before: ReceiverState) -> None:
    """Check what holds after each call."""
    state = receiver.state
    assert state is before or state in reachable(before)
    assert receiver.completed is (state is ReceiverState.COMPLETE)
    assert (receiver.error is not None) is (state is ReceiverState.FAILED)
    assert (receiver.chunk_remainder > 0) is (state is ReceiverState.DATA)
    assert len(receiver.control_line) <= MAX_CHUNK_LINE_BYTES + 1
    assert len(receiver) < LARGE["max_body"]


def reachable(state: ReceiverState) -> set[ReceiverState]:
    """Return the states that may follow *state*, at once or later."""
    found: set[ReceiverState] = set()
    ahead = [state]
    while ahead:
        for follower in TRANSITIONS[ahead.pop()] - found:
            found.add(follower)
            ahead.append(follower)
    return found


def told(receiver: Any) -> list[Any]:
    """Return all that a receiver says of a body."""
    error = receiver.error
    facts = [receiver.state, content(receiver), receiver.chunk_remainder, receiver.octets_used]
    if error:
        return [*facts, error.code, error.reject_reason, error.body]
    return [*facts, receiver.trailer, receiver.control_line, receiver.chunk_end]


def content(receiver: Any) -> bytes:
    """Return what was stored."""
    stream = receiver.getfile()
    stream.seek(0)
    octets: bytes = stream.read()
    return octets


def check_fixed(octets: bytes, length: int, pieces: list[bytes]) -> None:
    """Check that a body of known length is that many octets, whatever they are."""
    if not length:
        return
    receiver = read(FixedStreamReceiver(length, OverflowableBuffer(1 << 20)), pieces)
    assert content(receiver) == octets[:length]
    assert receiver.octets_used == min(length, len(octets))
    assert receiver.completed is (len(octets) >= length)


# -- the grammar, once more ------------------------------------------------------------

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
EXTENSION = rb"[ \t]*;[ \t]*" + TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + TOKEN + rb"|" + QUOTED + rb"))?"
SIZE_LINE_RE = re.compile(rb"([0-9A-Fa-f]+)(?:" + EXTENSION + rb")*\r\n")
TRAILER_RE = re.compile(rb"(" + TOKEN + rb"):[\t -~\x80-\xff]*\r\n")


def check_against_grammar(receiver: Any, octets: bytes) -> None:
    """Compare with a reader that has no states, no limits and no cuts (RFC 9112, 7.1)."""
    read_anew = by_the_grammar(octets)
    if receiver.completed:
        assert read_anew == (content(receiver), receiver.octets_used)
    elif receiver.error is None or receiver.error.reject_reason not in TOO_MUCH:
        assert read_anew is None


def by_the_grammar(octets: bytes) -> tuple[bytes, int] | None:
    """Return the content of a body in chunks, and its length on the wire; None if it is none."""
    pieces = []
    position = 0
    while True:
        line = SIZE_LINE_RE.match(octets, position)
        if line is None:
            return None
        size, position = int(line[1], 16), line.end()
        if size == 0:
            break
        pieces.append(octets[position : position + size])
        position += size
        if octets[position : position + 2] != b"\r\n":
            return None
        position += 2
    while field := TRAILER_RE.match(octets, position):
        if field[1].decode().lower() in FORBIDDEN_TRAILER_FIELDS:
            return None
        position = field.end()
    if octets[position : position + 2] != b"\r\n":
        return None
    return b"".join(pieces), position + 2


if __name__ == "__main__":
    harness.main(check)
