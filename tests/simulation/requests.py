"""Requests of every kind, drawn by the generator, and what has to become of them."""

from __future__ import annotations

import random

from tests.simulation.plans import Plan

_NOISE = random.Random(11).randbytes(1 << 15) * 2


class Request:
    """One request as a client sends it.

    Attributes:
        raw: all of its bytes.
        head_size: how many of them are the head.
        body: what the application has to get as the body.
        plan: what the application does with it; ``None`` if it must not get it.
        errors: the statuses of the refusals that it deserves.
        is_cut: it is not sent whole.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.method = "GET"
        self.version = "1.1"
        self.raw = b""
        self.head_size = 0
        self.body = b""
        self.plan: Plan | None = None
        self.errors: frozenset[int] = frozenset()
        self.is_cut = False
        self.expects = False
        self.waits_for_continue = False
        #: Whether the client asks for the connection to end with it.
        self.asks_to_close = False
        # What became of it:
        #: Bytes of the connection before it and up to its end, once it was sent.
        self.starts_at = -1
        self.ends_at = -1
        self.runs = 0

    def __repr__(self) -> str:
        what = self.plan if self.errors == frozenset() else sorted(self.errors)
        cut = " CUT" if self.is_cut else ""
        return f"<request {self.number}: {self.method} {len(self.raw)} bytes{cut}, {what}>"


class Requests:
    """Draws requests.

    Args:
        rng: draws.
        body_limit: the setting ``max_request_body_size``.
        head_limit: the setting ``max_request_header_size``.
        scale: about the number of bytes above which buffers overflow.
        mood: "stalling" for large responses, "old" for HTTP/1.0.
    """

    def __init__(
        self, rng: random.Random, body_limit: int, head_limit: int, scale: int, mood: str
    ) -> None:
        self.rng = rng
        self.mood = mood
        self.body_limit = body_limit
        self.head_limit = head_limit
        self.scale = scale
        self.by_number: dict[int, Request] = {}

    def draw(self, bad: float) -> Request:
        """Return a new request; a bad one so likely."""
        request = Request(len(self.by_number) + 1)
        self.by_number[request.number] = request
        rng = self.rng
        if rng.random() < bad:
            self._draw_bad(request)
        else:
            self._draw_good(request)
        return request

    def _draw_good(self, request: Request) -> None:
        rng = self.rng
        request.plan = Plan(rng, request.number, self.scale, self.mood)
        fields: list[str] = []
        if rng.random() < (0.6 if self.mood == "old" else 0.12):
            request.version = "1.0"
            if rng.random() < 0.5:
                fields.append("Connection: keep-alive")
            else:
                request.asks_to_close = True
        elif rng.random() < 0.08:
            request.asks_to_close = True
            fields.append(rng.choice(("Connection: close", "connection: foo, CLOSE")))
        if rng.random() < 0.2:
            fields.append("X-Padding: " + "x" * rng.randrange(self.head_limit // 3))
        kind = rng.choice(("get",) * 5 + ("head", "length", "length", "chunks", "empty"))
        if kind == "chunks" and request.version == "1.0":
            kind = "length"
        payload = b""
        if kind == "head":
            request.method = "HEAD"
        elif kind != "get":
            request.method = rng.choice(("POST", "PUT"))
            request.body = b"" if kind == "empty" else self._body(request)
            if kind == "chunks":
                fields.append("Transfer-Encoding: chunked")
                payload = self._chunks(request.body)
            else:
                fields.append(f"Content-Length: {len(request.body)}")
                payload = request.body
            if payload and rng.random() < 0.35:
                request.expects = request.version == "1.1"
                request.waits_for_continue = request.expects and rng.random() < 0.6
                fields.append("Expect: 100-continue")
        head = self._head(request, fields)
        if rng.random() < 0.05:
            head = b"\r\n" + head
        request.head_size = len(head)
        request.raw = head + payload

    def _body(self, request: Request) -> bytes:
        rng = self.rng
        largest = min(self.body_limit, self.scale if rng.random() < 0.8 else self.scale * 5)
        start = request.number * 31 & 0x7FFF
        return _NOISE[start : start + rng.randrange(largest)]

    def _chunks(self, body: bytes) -> bytes:
        rng = self.rng
        parts = []
        position = 0
        while position < len(body):
            size = 1 + rng.randrange(max(len(body) // 2, 1))
            piece = body[position : position + size]
            position += len(piece)
            extension = b';name="va\\"lue"' if rng.random() < 0.1 else b""
            parts.append(b"%X%b\r\n%b\r\n" % (len(piece), extension, piece))
        trailer = b"X-Trailer: 1\r\n" if rng.random() < 0.1 else b""
        return b"".join(parts) + b"0\r\n" + trailer + b"\r\n"

    def _head(self, request: Request, fields: list[str]) -> bytes:
        lines = [f"{request.method} /{request.number} HTTP/{request.version}"]
        if request.version == "1.1":
            lines.append("Host: localhost")
        self.rng.shuffle(fields)
        return "\r\n".join([*lines, *fields, "", ""]).encode("latin-1")

    def _draw_bad(self, request: Request) -> None:
        rng = self.rng
        kind = rng.choice(tuple(_BAD) + ("large-body", "large-chunks", "large-head", "chunk"))
        path = b"/%d" % request.number
        request.asks_to_close = True
        if kind == "large-body":
            size = self.body_limit + 1 + rng.randrange(self.scale * 20)
            request.method = "POST"
            request.errors = frozenset({413})
            head = b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (path, size)
            body = (_NOISE * (size // len(_NOISE) + 1))[:size]
        elif kind == "large-chunks":
            request.method = "POST"
            request.errors = frozenset({413})
            head = b"POST %b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" % path
            size = self.body_limit + 1
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (size, (_NOISE * (size // len(_NOISE) + 1))[:size])
        elif kind == "large-head":
            request.errors = frozenset({431})
            head = b"GET %b HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (path, b"x" * self.head_limit)
            body = b""
        elif kind == "chunk":
            request.method = "POST"
            request.errors = frozenset({400, 413})
            head = b"POST %b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" % path
            body = b"5\r\nhello\r\n" + rng.choice(
                (b"zz\r\n", b"-1\r\n", b"5\r\nhelloX\r\n", b"5\nhello\r\n", b"1" * 20 + b"\r\n")
            )
        else:
            template, errors = _BAD[kind]
            request.errors = errors
            head, body = template.replace(b"@", path), b""
        request.head_size = len(head)
        request.raw = head + body


#: Heads that deserve an answer other than the application's; ``@`` is the path.
_BAD: dict[str, tuple[bytes, frozenset[int]]] = {
    kind: (head, frozenset(errors))
    for kind, head, errors in (
        ("garbage", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", {400}),
        ("no-host", b"GET @ HTTP/1.1\r\n\r\n", {400}),
        ("two-hosts", b"GET @ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", {400}),
        ("version", b"GET @ HTTP/2.0\r\nHost: a\r\n\r\n", {505}),
        ("no-version", b"GET @\r\nHost: a\r\n\r\n", {400}),
        (
            "both",
            b"GET @ HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            {400},
        ),
        ("coding", b"GET @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", {400, 501}),
        ("folded", b"GET @ HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", {400}),
        ("nul", b"GET @ HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", {400}),
        ("bare-lf", b"GET @ HTTP/1.1\nHost: a\r\n\r\n", {400}),
        ("length", b"GET @ HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\n", {400}),
        ("lengths", b"GET @ HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\n", {400}),
        ("expect", b"GET @ HTTP/1.1\r\nHost: a\r\nExpect: wonders\r\n\r\n", {417}),
        ("connect", b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", {405, 501}),
        ("coding-in-1.0", b"GET @ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", {400}),
    )
}
