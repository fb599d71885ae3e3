"""What the clients do: each conversation is one connection from its beginning to its end."""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.soak.content import BLOCK_BYTES, content, digest
from tests.soak.serving import FILE_BYTES, FILE_NAME
from tests.soak.wire import Address, Asked, Connection, Pace

#: Sizes at which something changes in the server: buffers, spool, blocks, pieces sent.
EDGES = (0, 1, 16383, 16384, 16385, 18000, 65535, 65536, 65537, 131072, 262144, 1048576)
#: The most that one body has.
LARGEST = 24 * 1024 * 1024

_FILE = content(FILE_NAME, FILE_BYTES)
_DOWN = ("one", "length", "chunked", "written", "file")


class Tally:
    """What all clients together have done. Threads: any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()

    def add(self, what: str, count: int = 1) -> None:
        with self._lock:
            self.counts[what] += count


class Client:
    """One client, whose every step follows from its seed."""

    def __init__(self, seed: str, addresses: list[Address], tally: Tally) -> None:
        self._rng = random.Random(seed)
        self._seed = seed
        self._addresses = addresses
        self._tally = tally
        self._serial = 0
        self.doing = ""

    def converse(self) -> None:
        """Have one conversation, of a kind drawn by lot."""
        kinds, weights = zip(*CONVERSATIONS, strict=True)
        kind: Callable[[Client], None] = self._rng.choices(kinds, weights)[0]
        self.doing = f"{kind.__name__} of client {self._seed} after request {self._serial}"
        kind(self)
        self._tally.add(f"conversations: {kind.__name__.strip('_').replace('_', ' ')}")

    # -- kinds

    def _persistent(self) -> None:
        with self._connection() as connection:
            for _ in range(self._rng.randint(1, 30)):
                asked = self.anything()
                self._exchange(connection, asked)
                if asked.ends or asked.is_cut:
                    return

    def _pipelining(self) -> None:
        batch = [self.anything(50_000) for _ in range(self._rng.randint(2, 30))]
        batch = [each for each in batch if not each.expects_behind]
        for number, each in enumerate(batch):
            if each.ends or each.is_cut:
                del batch[number + 1 :]  # Nothing behind it is answered.
        with self._connection() as connection:
            connection.send(b"".join(each.octets for each in batch))
            for asked in batch:
                connection.read_answer(asked)
                self._count(asked)

    def _slow_reader(self) -> None:
        asked = self._down(self._rng.randint(500_000, 6_000_000))
        pace = Pace(read_bytes=self._rng.choice((20_000, 65536)), read_pause=0.02)
        with self._connection(pace, 16384) as connection:
            self._exchange(connection, asked)

    def _slow_sender(self) -> None:
        asked = self._up(self._rng.randint(1, 40_000))
        pace = Pace(send_bytes=self._rng.choice((7, 100, 3000)), send_pause=0.001)
        with self._connection(pace) as connection:
            self._exchange(connection, asked)

    def _half_close(self) -> None:
        batch = [self._down(self._size(1 << 20)) for _ in range(self._rng.randint(1, 4))]
        with self._connection() as connection:
            connection.send(b"".join(each.octets for each in batch))
            connection.half_close()
            for asked in batch:
                connection.read_answer(asked)
                self._count(asked)
            connection.await_end()

    def _http10(self) -> None:
        with self._connection() as connection:
            for _ in range(self._rng.randint(0, 4)):
                asked = self._get("length", self._size(1 << 20))
                head = asked.octets[:-2] + b"Connection: keep-alive\r\n\r\n"
                octets = head.replace(b"HTTP/1.1", b"HTTP/1.0")
                self._exchange(connection, replace(asked, octets=octets))
            asked = self._get(self._rng.choice(("chunked", "length")), self._size(1 << 20))
            octets = asked.octets.replace(b"HTTP/1.1", b"HTTP/1.0")
            self._exchange(connection, replace(asked, octets=octets, ends=True))

    def _dropper(self) -> None:
        """Leave before the answer is whole: amid the request, at its end or amid the answer."""
        asked = self._rng.choice((self._down, self._up))(self._size(LARGEST), kept="dropped")
        with self._connection(Pace(), 16384) as connection:
            where = self._rng.random()
            if where < 0.4:
                connection.send(asked.octets[: self._rng.randint(0, len(asked.octets))])
                connection.send_all()
            else:
                connection.send(asked.octets)
                if where > 0.6:
                    connection.read_some(self._rng.randint(1, asked.body_size + 1))
            if self._rng.random() < 0.5:
                connection.close(reset=True)

    def _refused(self) -> None:
        octets, status = self._rng.choice(REFUSED)
        with self._connection() as connection:
            if self._rng.random() < 0.5:
                self._exchange(connection, self._down(1000))
            self._exchange(connection, Asked("GET", octets, status, "", 0, "", ends=True))

    # -- requests

    def anything(self, most: int = LARGEST) -> Asked:
        draw = self._rng.random()
        if draw < 0.50:
            return self._down(self._size(most))
        if draw < 0.85:
            return self._up(self._size(most))
        if draw < 0.89:
            return self._get("paused", self._rng.randint(1, 10 * BLOCK_BYTES))
        if draw < 0.93:
            return replace(self._get("nothing", 0), status=204)
        if draw < 0.97:
            asked = self._get(self._rng.choice(_DOWN), self._rng.randint(0, 1000), "HEAD")
            return asked
        name = self._name()
        if draw < 0.985:
            octets = _request("GET", f"/kept/broken/{name}/0")
            return Asked("GET", octets, 500, "", 0, "", ends=True)
        return replace(self._get("cut", self._rng.randint(1, 300_000)), is_cut=True)

    def _down(self, size: int, kept: str = "kept") -> Asked:
        what = self._rng.choice(_DOWN)
        return self._get(what, min(size, FILE_BYTES) if what == "file" else size, kept=kept)

    def _get(self, what: str, size: int, method: str = "GET", kept: str = "kept") -> Asked:
        name = self._name()
        if what == "file":
            body_hash = _hash(_FILE[FILE_BYTES - size :])
        else:
            body_hash = digest(name, size)
        octets = _request(method, f"/{kept}/{what}/{name}/{size}")
        return Asked(method, octets, 200, name, size, body_hash)

    def _up(self, size: int, kept: str = "kept") -> Asked:
        name = self._name()
        body = content(f"up {name}", size)
        what = self._rng.choice(("hashed", "echo", "unread"))
        if what == "echo":
            body_size, body_hash = size, _hash(body)
        elif what == "unread":
            body_size, body_hash = 100, digest(name, 100)
        else:
            told = f"{size} {_hash(body)}".encode("ascii")
            body_size, body_hash = len(told), _hash(told)
        fields, sent = self._framed(body)
        expects = size > 0 and self._rng.random() < 0.15
        if expects:
            fields.append("Expect: 100-continue")
        head = _request("POST", f"/{kept}/{what}/{name}/{size}", *fields)
        behind = len(head) if expects else 0
        return Asked("POST", head + sent, 200, name, body_size, body_hash, expects_behind=behind)

    def _framed(self, body: bytes) -> tuple[list[str], bytes]:
        """Return the field of a body, and the body as it is sent."""
        if self._rng.random() < 0.5:
            return [f"Content-Length: {len(body)}"], body
        pieces = []
        at = 0
        most = max(len(body) // 20, 10)
        while at < len(body):
            piece = body[at : at + self._rng.randint(1, most)]
            extension = b";a=b" if self._rng.random() < 0.1 else b""
            pieces.append(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece))
            at += len(piece)
        pieces.append(b"0\r\n\r\n")
        return ["Transfer-Encoding: chunked"], b"".join(pieces)

    def _size(self, most: int) -> int:
        draw = self._rng.random()
        if draw < 0.35:
            size = self._rng.choice(EDGES) + self._rng.choice((0, 0, 1))
        elif draw < 0.99:
            size = int(2 ** self._rng.uniform(0, 20))
        else:
            size = self._rng.randint(1 << 20, LARGEST)
        return min(size, most)

    def _name(self) -> str:
        self._serial += 1
        return f"{self._seed}-{self._serial}"

    # -- exchanges

    @contextlib.contextmanager
    def _connection(self, pace: Pace | None = None, buffer: int = 0) -> Iterator[Connection]:
        connection = Connection(self._rng.choice(self._addresses), pace or Pace(), buffer)
        try:
            yield connection
        finally:
            connection.close()
            self._tally.add("bytes received", connection.received)

    def _exchange(self, connection: Connection, asked: Asked) -> None:
        if asked.expects_behind:
            connection.send(asked.octets[: asked.expects_behind])
            if self._rng.random() < 0.7:
                connection.await_invitation()
            connection.send(asked.octets[asked.expects_behind :])
        else:
            connection.send(asked.octets)
        connection.read_answer(asked)
        self._count(asked)

    def _count(self, asked: Asked) -> None:
        self._tally.add("answers checked")
        if b" /kept/" in asked.octets[:20]:
            self._tally.add("answers kept")


CONVERSATIONS: list[tuple[Callable[[Client], None], int]] = [
    (Client._persistent, 30),
    (Client._pipelining, 20),
    (Client._slow_reader, 6),
    (Client._slow_sender, 6),
    (Client._half_close, 8),
    (Client._http10, 10),
    (Client._dropper, 14),
    (Client._refused, 6),
]

#: Requests that never reach the application, and the status that answers them.
REFUSED = [
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
    (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    (b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 300_000 + b"\r\n\r\n", 431),
    (b"GET / HTTP/1.1\r\nHost: h\r\nExpect: 200-maybe\r\n\r\n", 417),
]


def _request(method: str, target: str, *fields: str) -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: h", *fields, "", ""]).encode()


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
