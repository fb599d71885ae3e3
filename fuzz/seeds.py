"""Seeds of the fuzzers: the corpus of the tests, and examples of what is not in it.

Usage: python -m fuzz.seeds DIRECTORY

Writes one file for each seed, into one directory for each target.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

from fuzz.harness import with_control
from tests import corpus

#: No seed is larger: a fuzzer is quicker with small ones.
LARGEST = 4096

PROXY_HEADERS = (
    b"X-Forwarded-For: 192.0.2.1",
    b"X-Forwarded-For: 192.0.2.1, 192.0.2.2, 192.0.2.3",
    b"X-Forwarded-For: [2001:db8::1]:99",
    b"X-Forwarded-For: 2001:db8::1",
    b"X-Forwarded-For: ::ffff:192.0.2.1",
    b"X-Forwarded-For: [fe80::1%eth0]",
    b'X-Forwarded-For: "192.0.2.1:80", unknown',
    b"X-Forwarded-For: _hidden, _obf:_port",
    b"X-Forwarded-For: ,,",
    b"X-Forwarded-Host: example.com",
    b"X-Forwarded-Host: example.com:8443, [::1]:80",
    b'X-Forwarded-Host: "example.com"',
    b"X-Forwarded-Proto: https",
    b"X-Forwarded-Proto: https, http\nX-Forwarded-Port: 8443",
    b"X-Forwarded-Port: 65536",
    b"X-Forwarded-By: 192.0.2.9",
    b"X-Forwarded-For: 192.0.2.1:80\nX-Forwarded-Host: a:81\nX-Forwarded-Proto: https\n"
    b"X-Forwarded-Port: 82",
    b"Forwarded: for=192.0.2.1",
    b'Forwarded: for="[2001:db8::1]:4711"',
    b"Forwarded: For=192.0.2.1;Proto=https;Host=example.com;By=192.0.2.9",
    b"Forwarded: for=192.0.2.1, for=192.0.2.2;proto=http",
    b'Forwarded: for=_gazonk;host="a,b;c=d"',
    b'Forwarded: for="_mdn:_obf", for=unknown',
    b'Forwarded: host="a\\"b";secret=abc',
    b'Forwarded: for="192.0.2.1, for=192.0.2.2',
    b"Forwarded: for=192.0.2.1;;proto=",
    b"Forwarded: , ,for=a",
    b"Forwarded: for = a; proto",
    b"Forwarded: host=[::1]:8080;proto=HTTPS",
)

V2 = b"\r\n\r\n\0\r\nQUIT\n"

PROXY_PROTOCOL = (
    b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\nGET / HTTP/1.1\r\n\r\n",
    b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.2 65535 0\r\n",
    b"PROXY UNKNOWN\r\n",
    b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
    b"PROXY TCP4 255.255.255.255 01.2.3.4 65536 00\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
    b"PROXY " + b"x" * 120,
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    V2 + b"\x20\x00\x00\x00",
    V2 + b"\x21\x11\x00\x0c" + bytes(range(12)),
    V2 + b"\x21\x21\x00\x24" + bytes(range(36)) + b"GET /",
    V2 + b"\x21\x31\x00\xd8" + bytes(216),
    V2 + b"\x21\x11\x00\x13" + bytes(12) + b"\x04\x00\x04abcd",
    V2 + b"\x21\x12\x00\x0c" + bytes(12),
    V2 + b"\x22\x11\x00\x0c" + bytes(12),
    V2 + b"\x21\x11\x00\x0b" + bytes(11),
    V2 + b"\x21\x11\xff\xff",
    V2 + b"\x11\x11\x00\x00",
)


def parser_seeds() -> Iterator[bytes]:
    """Yield the requests of the corpus, alone and two in a row."""
    for kind in ("valid", "invalid", "unfinished"):
        yield from (case.octets for case in corpus.cases(kind))
    for case in corpus.cases("valid"):
        yield case.octets + b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n"


def receiver_seeds() -> Iterator[bytes]:
    """Yield the bodies in chunks of the corpus."""
    for octets in parser_seeds():
        head, _, body = octets.partition(b"\r\n\r\n")
        if body and b"transfer-encoding: chunked" in head.lower():
            yield body


#: The seeds of each target.
TARGETS = {
    "parser": lambda: parser_seeds(),
    "receivers": lambda: receiver_seeds(),
    "proxy_headers": lambda: iter(PROXY_HEADERS),
    "proxy_protocol": lambda: iter(PROXY_PROTOCOL),
}


def seeds(target: str) -> list[bytes]:
    """Return the inputs that a target begins with."""
    found = dict.fromkeys(octets for octets in TARGETS[target]() if len(octets) < LARGEST)
    return [with_control(octets) for octets in found]


def main(directory: str) -> None:
    """Write all seeds."""
    for target in TARGETS:
        place = Path(directory, target)
        place.mkdir(parents=True, exist_ok=True)
        for seed in seeds(target):
            (place / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)


if __name__ == "__main__":
    main(sys.argv[1])
