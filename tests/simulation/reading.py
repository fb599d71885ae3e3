"""A strict reader of responses (RFC 9112, 4 to 7), independent of the server's code."""

from __future__ import annotations

import re
from collections.abc import Callable

_HEAD = re.compile(rb"HTTP/(1\.[01]) ([1-5][0-9][0-9]) ([\t -~\x80-\xff]*)\r\n")
_FIELD = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?\r\n"
)
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")


class Malformed(AssertionError):
    """What was read is no response."""


class Response:
    """One response, whole or not yet."""

    def __init__(self, version: str, status: int, headers: dict[str, str]) -> None:
        self.version = version
        self.status = status
        #: By name in lower case.
        self.headers = headers
        self.body = bytearray()
        #: How the body ends: "none", "length", "chunks", "end".
        self.framing = "none"
        self.is_whole = False
        #: Interim responses that came before it.
        self.interim = 0

    def __repr__(self) -> str:
        whole = "whole" if self.is_whole else "cut"
        return f"<{self.status} {whole} {self.framing} {len(self.body)} bytes {self.headers}>"

    @property
    def closes(self) -> bool:
        """Whether the connection ends with it."""
        if self.framing == "end" or not self.is_whole:
            return True
        options = self.headers.get("connection", "").lower()
        if self.version == "1.0":
            return "keep-alive" not in options
        return "close" in options


class Reader:
    """Reads the responses of one connection, as the bytes come.

    Args:
        method_of: returns the method of the request with this position.
    """

    def __init__(self, method_of: Callable[[int], str]) -> None:
        self._method_of = method_of
        self._data = bytearray()
        self._left = 0
        self._state = "head"
        self._interim = 0
        self._interim_seen = 0
        #: Final responses, whole ones and, as the last, the one being read.
        self.responses: list[Response] = []
        #: Interim responses in all.
        self.interim = 0

    @property
    def whole(self) -> int:
        """The number of whole responses."""
        count = len(self.responses)
        return count - (count > 0 and not self.responses[-1].is_whole)

    @property
    def rest(self) -> bytes:
        """What was read and belongs to nothing whole."""
        return bytes(self._data)

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            Malformed: they are not what a response may have here.
        """
        self._data += data
        while self._data and getattr(self, "_read_" + self._state)():
            pass

    def end(self) -> None:
        """Take the connection's orderly end."""
        if self._state == "end":
            self.responses[-1].is_whole = True
            self._state = "closed"

    def _read_head(self) -> bool:
        if self.responses and self.responses[-1].closes:
            raise Malformed(f"bytes behind a response that ends the connection: {self.rest!r}")
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            if not b"HTTP/1".startswith(self._data[:6]):
                raise Malformed(f"no status line: {self.rest[:80]!r}")
            return False
        head = bytes(self._data[: end + 2])
        del self._data[: end + 4]
        response = _parse_head(head)
        if response.status < 200:
            if response.status != 100 or response.headers:
                raise Malformed(f"an odd interim response: {head!r}")
            self.interim += 1
            self._interim += 1
            return True
        response.interim, self._interim = self._interim, 0
        method = self._method_of(len(self.responses))
        if response.status == 408 or (
            response.status == 503 and "retry-after" not in response.headers
        ):
            method = "GET"  # Of a request that was not read the server knows no method.
        self.responses.append(response)
        self._choose_framing(method, response)
        return True

    def _choose_framing(self, method: str, response: Response) -> None:
        headers = response.headers
        if "transfer-encoding" in headers and (
            headers["transfer-encoding"] != "chunked"
            or "content-length" in headers
            or response.status in (204, 304)
        ):
            raise Malformed(f"framing: {headers}")
        if "content-length" in headers and (
            not headers["content-length"].isdigit() or response.status == 204
        ):
            raise Malformed(f"framing: {headers}")
        if method == "HEAD" or response.status in (204, 304):
            self._finish()
        elif "transfer-encoding" in headers:
            if response.version == "1.0":
                raise Malformed("chunks in HTTP/1.0")
            response.framing = "chunks"
            self._state = "size"
        elif "content-length" in headers:
            response.framing = "length"
            self._left = int(headers["content-length"])
            self._state = "body"
            if not self._left:
                self._finish()
        else:
            response.framing = "end"
            self._state = "end"

    def _finish(self) -> None:
        self.responses[-1].is_whole = True
        self._state = "head"

    def _take(self) -> None:
        piece = self._data[: self._left]
        del self._data[: self._left]
        self.responses[-1].body += piece
        self._left -= len(piece)

    def _read_body(self) -> bool:
        self._take()
        if self._left:
            return False
        self._finish()
        return True

    def _read_end(self) -> bool:
        self._left = len(self._data)
        self._take()
        return False

    def _read_closed(self) -> bool:
        raise Malformed("bytes behind the end")

    def _read_size(self) -> bool:
        match = _SIZE.match(self._data)
        if match is None:
            if len(self._data) > 10 or (b"\n" in self._data):
                raise Malformed(f"no chunk size: {self.rest[:80]!r}")
            return False
        self._left = int(match[1], 16)
        self._state = "chunk" if self._left else "last"
        del self._data[: match.end()]
        return True

    def _read_chunk(self) -> bool:
        if self._left:
            self._take()
            if self._left:
                return False
        if len(self._data) < 2:
            return False
        if self._data[:2] != b"\r\n":
            raise Malformed("a chunk does not end where it should")
        del self._data[:2]
        self._state = "size"
        return True

    def _read_last(self) -> bool:
        if len(self._data) < 2:
            return False
        if self._data[:2] != b"\r\n":
            raise Malformed(f"a trailer: {self.rest!r}")
        del self._data[:2]
        self._finish()
        return True


def _parse_head(head: bytes) -> Response:
    match = _HEAD.match(head)
    if match is None:
        raise Malformed(f"no status line: {head!r}")
    headers: dict[str, str] = {}
    position = match.end()
    while position < len(head):
        field = _FIELD.match(head, position)
        if field is None:
            raise Malformed(f"no field line: {head[position:]!r}")
        name = field[1].decode("ascii").lower()
        if name in headers:
            raise Malformed(f"{name} stands twice: {head!r}")
        headers[name] = (field[2] or b"").decode("latin-1")
        position = field.end()
    return Response(match[1].decode("ascii"), int(match[2]), headers)
