r"""Requests, good and bad, and what is to be made of each; by the words of the RFCs.

The cases lie in files that a person can read: ``valid``, ``invalid`` and ``unfinished``
requests, by subject. A file is read as follows.

``# ...``
    A remark.
``= NAME [SECTION]``
    Begins a case. SECTION is where the rule is that decides it.
``> LINE``
    Octets, with CRLF behind them.
``| OCTETS``
    Octets, with nothing behind them.
``KEY: VALUE``
    What is expected; see below.

Octets, and values too, are printed as they are but for ``\r``, ``\n``, ``\t``, ``\\``,
``\xHH``, and ``\{COUNT*OCTETS}`` for octets so many times over.

All that a case does not say is as in ``GET / HTTP/1.1`` with the one field ``Host: h``,
no body, and a connection that persists. A valid case says what differs:

``method``, ``version``, ``target``, ``path``, ``query``, ``body``
    Path is the target unless it is told.
``scheme``, ``authority``
    Of a target in absolute form.
``field: KEY: VALUE``, ``no field: KEY``
    A field as the parser gives it; one that is there by default and is not here.
``closes: yes``
    The connection ends with the response.
``continue: yes``
    The client awaits a 100 (Continue).

An invalid case says ``status: CODE REASON``, the status of the answer and the reason code
of the refusal; the connection always ends with it. ``early: REASON`` is for those that
are refused before the head ends if they come octet by octet: a lone LF, for one, is
hopeless wherever it stands, but a head that is there is read from its first line to its
last. ``decided by: the server`` is for those that the parser reads.

An unfinished case expects nothing: no answer, and no request.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["BODY_LIMIT", "FIELD_LIMIT", "HEAD_LIMIT", "SETTINGS", "Case", "Expected", "cases"]

HERE = Path(__file__).parent

#: The limits that the cases are written for.
HEAD_LIMIT = 8192
BODY_LIMIT = 32768
FIELD_LIMIT = 200
SETTINGS: dict[str, Any] = {
    "max_request_header_size": HEAD_LIMIT,
    "max_request_body_size": BODY_LIMIT,
    "max_request_header_fields": FIELD_LIMIT,
}


@dataclass
class Expected:
    """What is to become of a case; the defaults are those of the module's text."""

    method: str = "GET"
    version: str = "1.1"
    target: str = "/"
    path: str | None = None
    query: str = ""
    scheme: str = ""
    authority: str = ""
    fields: dict[str, str] = field(default_factory=lambda: {"HOST": "h"})
    body: bytes = b""
    closes: bool = False
    awaits_continue: bool = False
    status: int = 0
    reason: str = ""
    early: str = ""
    is_decided_by_server: bool = False


@dataclass
class Case:
    """One request of the corpus."""

    #: ``valid``, ``invalid`` or ``unfinished``.
    kind: str
    #: The file's name without its suffix.
    subject: str
    name: str
    section: str
    octets: bytes = b""
    expected: Expected = field(default_factory=Expected)

    def __str__(self) -> str:
        return f"{self.subject}: {self.name}"


def cases(kind: str) -> list[Case]:
    """Return all cases of a kind: ``valid``, ``invalid`` or ``unfinished``."""
    return [case for path in sorted((HERE / kind).glob("*.http")) for case in _read(path)]


_CASE_RE = re.compile(r"= (.+) \[(RFC [0-9]+, [0-9A-C](?:[0-9.]*[0-9])?)\]")
_TOLD_RE = re.compile(r"([a-z ]+):(?: (.*))?")


def _read(path: Path) -> Iterator[Case]:
    case = None
    for number, line in enumerate(path.read_text(encoding="ascii").split("\n"), 1):
        try:
            if line.startswith("= "):
                if case is not None:
                    yield case
                case = _begin(path, line)
            elif line and not line.startswith("#"):
                if case is None:
                    raise ValueError("no case has begun")
                _add(case, line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}: {line}") from error
    if case is not None:
        yield case


def _begin(path: Path, line: str) -> Case:
    match = _CASE_RE.fullmatch(line)
    if match is None:
        raise ValueError("no name and section")
    return Case(path.parent.name, path.stem, name=match[1], section=match[2])


def _add(case: Case, line: str) -> None:
    if line.startswith(">"):
        case.octets += octets(line[2:]) + b"\r\n"
    elif line.startswith("| "):
        case.octets += octets(line[2:])
    else:
        match = _TOLD_RE.fullmatch(line)
        if match is None:
            raise ValueError("neither octets nor an expectation")
        key, value = match.groups("")
        _expect(case.expected, key, octets(value).decode("latin-1"))


def _expect(expected: Expected, key: str, value: str) -> None:
    if key in ("method", "version", "target", "path", "query", "scheme", "authority"):
        setattr(expected, key, value)
    elif key == "body":
        expected.body = value.encode("latin-1")
    elif key == "field":
        name, _, text = value.partition(":")
        expected.fields[name] = text.removeprefix(" ")
    elif key == "no field":
        del expected.fields[value]
    elif key == "closes":
        expected.closes = _is_yes(value)
    elif key == "continue":
        expected.awaits_continue = _is_yes(value)
    elif key == "status":
        code, expected.reason = value.split(" ")
        expected.status = int(code)
    elif key == "early":
        expected.early = value
    elif (key, value) == ("decided by", "the server"):
        expected.is_decided_by_server = True
    else:
        raise ValueError("unknown expectation")


def _is_yes(value: str) -> bool:
    if value != "yes":
        raise ValueError("not yes")
    return True


_ESCAPE_RE = re.compile(r"\\(?:x([0-9a-f]{2})|\{([0-9]+)\*([^}]*)\}|(.?))")
_ESCAPED = {"r": b"\r", "n": b"\n", "t": b"\t", "\\": b"\\"}


def octets(text: str) -> bytes:
    """Return what a text means in the notation of the cases."""
    pieces = []
    start = 0
    for escape in _ESCAPE_RE.finditer(text):
        pieces.append(text[start : escape.start()].encode("ascii"))
        start = escape.end()
        pieces.append(_unescaped(*escape.groups()))
    pieces.append(text[start:].encode("ascii"))
    return b"".join(pieces)


def _unescaped(digits: str | None, count: str | None, repeated: str | None, mark: str) -> bytes:
    if digits:
        return bytes.fromhex(digits)
    if count and repeated is not None:
        return octets(repeated) * int(count)
    if mark not in _ESCAPED:
        raise ValueError("unknown escape")
    return _ESCAPED[mark]
