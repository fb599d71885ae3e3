r"""What a line of the access log looks like: timelines in, text out.

Owns the syntax of formats, those that have a name, and the escaping. Whatever a
client sent is escaped so that it can neither end a line nor end the field in which it
stands: every line is ASCII without controls, but for what the text of the format itself
holds, and every value can be had back from it.

In two steps, because they happen in two threads. :meth:`Format.capture` takes, in the
loop's thread, what may change once the request is over. :meth:`Format.render` does the
work, in whatever thread writes.

Row 2: imports access_values and timeline.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from waitress.access_values import (
    BRACED,
    SAFE,
    VALUES,
    Capture,
    Facts,
    app_us,
    body_bytes,
    captured,
    iso_time,
    peer_text,
    protocol,
    queued_us,
    receiving_us,
    remote_address,
    request_words,
    sending_us,
    status_code,
    total_us,
)
from waitress.timeline import Timeline

__all__ = [
    "ATOMS",
    "NAMED",
    "TAIL",
    "VALUE_CHARACTERS",
    "Format",
    "make_format",
]

#: How much of one value is told, in characters; ``...`` follows where there was more.
VALUE_CHARACTERS = 8192

#: What stands behind the standard fields of the formats ``common`` and ``combined``.
TAIL = " total_us=%(D)s queued_us=%(queued)s app_us=%(app)s send_us=%(sending)s end=%(end)s"

_COMMON = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s'

#: The formats of atoms that have a name.
NAMED = {
    "common": _COMMON + TAIL,
    "combined": _COMMON + ' "%(f)s" "%(a)s"' + TAIL,
}

#: The atoms that have no braces, and what each stands for, in the words of the manual.
ATOMS = {name: meaning for name, (_, meaning) in VALUES.items()}

# An atom, or a percent sign that begins none.
_ATOM = re.compile(r"%(?:(%)|\((\{[^{}()]+\}[ioe]|\w+)\)s)?")

# What has no business in the text of a format; a tab may separate fields.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

#: How many values are remembered with what they are when escaped, since most of one line are those
#: of many others; and how long they are at the most, in characters.
_MOST_ESCAPED = 128
_LONGEST_ESCAPED = 256

_Piece = Callable[[Facts], "str | None"]


class Format(Protocol):
    """A way to write the line of a request.

    Threads: immutable; ``capture`` belongs to the loop's thread, ``render`` to any one.
    """

    #: The variables of the environ that it shows.
    environ_names: set[str]

    def capture(self, timeline: Timeline) -> Capture:
        """Take what may change after the request has ended."""

    def render(self, timeline: Timeline, capture: Capture) -> str:
        """Return the line, without its end."""


def make_format(text: str) -> Format:
    """Return the format of a name, or of a text with atoms.

    Args:
        text: ``common``, ``combined``, ``json``, or a text such as ``%(h)s "%(r)s" %(s)s``.

    Raises:
        ValueError: there is an atom that is not known, or no atom, or a control character.
    """
    if text == "json":
        return _JsonFormat()
    return _AtomFormat(NAMED.get(text, text))


# -- lines of atoms ------------------------------------------------------------------


class _AtomFormat:
    """A text in which atoms stand for values."""

    def __init__(self, text: str) -> None:
        self.environ_names = {"REMOTE_ADDR", "REMOTE_USER"}
        #: What writes each of the atoms, and the text with ``%s`` in their places.
        self._pieces: list[_Piece] = []
        self._template = ""
        control = _CONTROL.search(text)
        if control is not None:
            raise ValueError(f"there is a control character at position {control.start()}")
        self._compile(text)
        if not self._pieces:
            raise ValueError("there is no atom, such as %(h)s, and no format of that name")

    def _compile(self, text: str) -> None:
        parts = list(_parts(text))
        # What ends a value in the format cannot stand in one, wherever that value stands:
        # readers split a line at such characters before they look at anything else.
        endings = {True: "", False: " "}
        for part in parts:
            if part.follower != "\\" and not part.follower.isalnum():
                endings[part.in_quotes] += part.follower
        for part in parts:
            if part.is_atom:
                self._pieces.append(self._piece(part.text, endings[part.in_quotes]))
            self._template += "%s" if part.is_atom else part.text.replace("%", "%%")

    def _piece(self, name: str, ending: str) -> _Piece:
        """Return what writes an atom, escaped according to where it stands; nothing for none."""
        if name.startswith("{"):
            inner, kind = name[1:-2], name[-1]
            value = BRACED[kind](inner)
            if kind == "e":
                self.environ_names.add(inner)
        elif name in VALUES:
            value = VALUES[name][0]
        else:
            raise ValueError(f"there is no atom %({name})s")
        if name in SAFE:
            return value
        if name == "r":
            # Three words for every reader, whatever was refused.
            word = _escaping(ending + " ")
            return lambda facts: " ".join(map(word, request_words(facts)))
        escape = _escaping(ending)

        def piece(facts: Facts) -> str | None:
            text = value(facts)
            return escape(text) if text else None

        return piece

    def capture(self, timeline: Timeline) -> Capture:
        return captured(timeline, self.environ_names)

    def render(self, timeline: Timeline, capture: Capture) -> str:
        facts = Facts(timeline, capture)
        return self._template % tuple([piece(facts) or "-" for piece in self._pieces])


class _Part(NamedTuple):
    """A piece of a format's text: an atom's name, or what stands for itself."""

    text: str
    is_atom: bool = False
    in_quotes: bool = False
    #: The character of the text behind an atom; empty where another atom is, or the end.
    follower: str = ""


def _parts(text: str) -> Iterator[_Part]:
    place = 0
    in_quotes = False
    for found in _ATOM.finditer(text):
        literal = text[place : found.start()]
        place = found.end()
        in_quotes ^= literal.count('"') % 2 == 1
        name = found[2]
        if name is None:
            if not found[1]:
                raise ValueError(_no_atom(text, found.start()))
            literal += "%"
        yield _Part(literal)
        if name is not None:
            follower = "" if text.startswith("%(", place) else text[place : place + 1]
            yield _Part(name, True, in_quotes, follower)
    yield _Part(text[place:])


def _no_atom(text: str, place: int) -> str:
    if text.startswith("%(", place):
        end = text.find(")", place)
        shown = text[place : place + 40] if end < 0 else text[place : end + 2]
        return f"there is no atom {shown}"
    return f"the percent sign at position {place} begins no atom; write %% for itself"


class _Escaping(dict[str, str]):
    r"""Values, escaped so that nothing in them can end them.

    Controls, the double quote, the backslash, whatever is not ASCII, and the characters of
    *ending* become ``\xhh``, ``\uhhhh`` or ``\Uhhhhhhhh``. No other backslash is left, so
    the value can be had back; and no quote, so readers that know of no escapes agree too.

    Any value is found; some are remembered. Threads: any; at worst two escape the same.
    """

    def __init__(self, ending: str) -> None:
        self._unsafe = re.compile(f'[^\x20-\x7e]|["\\\\{re.escape(ending)}]')

    def __missing__(self, text: str) -> str:
        # A hyphen alone would be read as: there is none.
        escaped = "\\x2d" if text == "-" else self._unsafe.sub(_escaped, _cut(text))
        if len(text) <= _LONGEST_ESCAPED:
            if len(self) >= _MOST_ESCAPED:
                self.clear()
            self[text] = escaped
        return escaped


def _escaping(ending: str) -> Callable[[str], str]:
    """Return what escapes a value that one of the characters of *ending* would end."""
    return _Escaping(ending).__getitem__


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _cut(text: str) -> str:
    return text if len(text) <= VALUE_CHARACTERS else text[:VALUE_CHARACTERS] + "..."


# -- lines of JSON -------------------------------------------------------------------


class _JsonFormat:
    """An object of JSON; each line has the same names, ``null`` for what there is not."""

    def __init__(self) -> None:
        self.environ_names = {"REMOTE_ADDR", "REMOTE_USER"}

    def capture(self, timeline: Timeline) -> Capture:
        return captured(timeline, self.environ_names)

    def render(self, timeline: Timeline, capture: Capture) -> str:
        facts = Facts(timeline, capture)
        field = timeline.headers.get
        line = {
            "time": iso_time(timeline),
            "remote_addr": remote_address(facts),
            "peer": peer_text(facts),
            "user": capture.get("REMOTE_USER"),
            "method": timeline.method or None,
            "path": timeline.path or None,
            "query": timeline.query or None,
            "protocol": protocol(facts),
            "status": status_code(timeline),
            "body_bytes": body_bytes(timeline),
            "bytes_in": timeline.bytes_in,
            "bytes_out": timeline.bytes_out,
            "referer": field("REFERER"),
            "user_agent": field("USER_AGENT"),
            "x_request_id": field("X_REQUEST_ID"),
            "traceparent": field("TRACEPARENT"),
            "total_us": total_us(timeline),
            "receiving_us": receiving_us(timeline),
            "queued_us": queued_us(timeline),
            "app_us": app_us(timeline),
            "send_us": sending_us(timeline),
            "end": timeline.termination or None,
            "refusal": timeline.refusal or None,
            "request_id": timeline.request_id,
            "channel_id": timeline.channel_id,
            "worker": timeline.worker or None,
        }
        cut = {k: _cut(v) if isinstance(v, str) else v for k, v in line.items()}
        # ASCII without controls: so also DEL, and U+2028, which ends lines for some readers.
        return json.dumps(cut, separators=(",", ":"), ensure_ascii=True)
