r"""The grammar of HTTP messages, as strings and compiled patterns.

The module is named after RFC 7230; the rules are those of its successors, RFC 9110
(fields) and RFC 9112 (messages), with RFC 3986 for hosts. Each production stands below
its ABNF. The strings are sources of regular expressions, for use in ``str`` and in
``bytes`` patterns alike; a name that ends in ``_RE`` is compiled.

Two properties hold for every pattern, and tests watch them:

*Linear time.* No input makes a pattern backtrack into itself. Wherever a repetition is
followed by something, the first character of what follows is not one that the
repetition could have taken, or giving a character back fails at once.

*Whole input.* A pattern that judges an input ends in ``\Z``. ``$`` would let a line feed
pass behind the end, which is a line terminator to some and data to others.

Which request fields may be repeated is grammar too: see :data:`REQUEST_FIELDS`.

Row 0: imports nothing of the package.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = [
    "BWS",
    "CHUNK_EXT",
    "CHUNK_EXT_NAME",
    "CHUNK_EXT_RE",
    "CHUNK_EXT_VAL",
    "DIGIT",
    "FIELD_CONTENT",
    "FIELD_LINE_RE",
    "FIELD_VALUE",
    "FIELD_VCHAR",
    "FORBIDDEN_TRAILER_FIELDS",
    "HEADER_FIELD_RE",
    "HEXDIG",
    "HOST_RE",
    "OBS_TEXT",
    "ONLY_DIGIT_RE",
    "ONLY_HEXDIG_RE",
    "OWS",
    "QDTEXT",
    "QUOTED_PAIR",
    "QUOTED_PAIR_RE",
    "QUOTED_STRING",
    "QUOTED_STRING_RE",
    "REFUSED_WHEN_REPEATED",
    "REQUEST_FIELDS",
    "RWS",
    "TCHAR",
    "TOKEN",
    "VCHAR",
    "WS",
    "RequestField",
    "first_malformed_line",
    "read_field_lines",
]

# -- RFC 5234, B.1: core rules ---------------------------------------------------------

# HEXDIG = DIGIT / "A" / "B" / "C" / "D" / "E" / "F"  (letters in either case)
HEXDIG = "[0-9a-fA-F]"

# DIGIT = %x30-39. Never "\d", which takes the digits of every script in str patterns.
DIGIT = "[0-9]"

# VCHAR = %x21-7E  (a range, to stand inside a class)
VCHAR = r"\x21-\x7e"

# -- RFC 9110, 5.6: common rules -------------------------------------------------------

# SP / HTAB. Never "\s": vertical tab, form feed, and in str patterns NEL and no-break
# space, are white space to that but not to HTTP.
WS = "[ \t]"

# OWS = *( SP / HTAB )   RWS = 1*( SP / HTAB )   BWS = OWS
OWS = WS + "*"
RWS = WS + "+"
BWS = OWS

# tchar = "!" / "#" / "$" / "%" / "&" / "'" / "*" / "+" / "-" / "." / "^" / "_" / "`" /
#         "|" / "~" / DIGIT / ALPHA
TCHAR = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"

# token = 1*tchar
TOKEN = TCHAR + "+"

# obs-text = %x80-FF  (a range, to stand inside a class)
OBS_TEXT = r"\x80-\xff"

# qdtext = HTAB / SP / %x21 / %x23-5B / %x5D-7E / obs-text
QDTEXT = r"[\t \x21\x23-\x5b\x5d-\x7e" + OBS_TEXT + "]"

# quoted-pair = "\" ( HTAB / SP / VCHAR / obs-text )
QUOTED_PAIR = r"\\([\t " + VCHAR + OBS_TEXT + "])"

# quoted-string = DQUOTE *( qdtext / quoted-pair ) DQUOTE
QUOTED_STRING = '"(?:' + QDTEXT + "|" + QUOTED_PAIR.replace("(", "(?:") + ')*"'

QUOTED_PAIR_RE = re.compile(QUOTED_PAIR)
QUOTED_STRING_RE = re.compile(QUOTED_STRING)

# -- RFC 9110, 5.5: field values; RFC 9112, 5: field lines -----------------------------

# field-vchar = VCHAR / obs-text
FIELD_VCHAR = "[" + VCHAR + OBS_TEXT + "]"

# field-content = field-vchar [ 1*( SP / HTAB / field-vchar ) field-vchar ]
# Written as words between blanks, which is the same language without two ways through.
FIELD_CONTENT = FIELD_VCHAR + "+(?:" + RWS + FIELD_VCHAR + "+)*"

# field-value = *field-content. RFC 9112, 5.2 forbids line folding in requests.
FIELD_VALUE = "(?:" + FIELD_CONTENT + ")?"

# field-line = field-name ":" OWS field-value OWS
# The look-ahead keeps the first OWS from giving blanks to the second one: without it a
# line of n blanks can be shared out between the two in n ways.
_FIELD_LINE = (
    "(?P<name>" + TOKEN + "):" + OWS + "(?!" + WS + ")(?P<value>" + FIELD_VALUE + ")" + OWS
)

#: A whole field line without its CRLF, as bytes: groups ``name`` and ``value``.
HEADER_FIELD_RE = re.compile((_FIELD_LINE + r"\Z").encode("latin-1"))

#: The field lines of a section, all in one ``findall``: name, and value with blanks around
#: it. Same language as :data:`HEADER_FIELD_RE` with CRLF behind. A match starts at the
#: beginning of a line and ends behind the next line feed, so that it is one line.
FIELD_LINE_RE = re.compile("^(" + TOKEN + "):([\t " + VCHAR + OBS_TEXT + "]*)\r\n", re.MULTILINE)


def read_field_lines(text: str, start: int, stop: int) -> list[tuple[str, str]] | None:
    """Split a field section into names and values, or return None if a line is bad.

    Args:
        text: octets decoded as latin-1.
        start: where the section begins: 0, or behind a line feed.
        stop: where it ends: at *start*, or behind the CRLF of its last line.

    Returns:
        One pair for each line, in order; values still have the blanks around them. None
        when any line is malformed; :func:`first_malformed_line` tells which.

    Source: RFC 9112, 5.
    """
    fields: list[tuple[str, str]] = FIELD_LINE_RE.findall(text, start, stop)
    # Each match is exactly one line, so equal numbers mean that each line is a match.
    return fields if len(fields) == text.count("\n", start, stop) else None


def first_malformed_line(section: bytes) -> tuple[bytes, str]:
    """Find the line for which :func:`read_field_lines` returned None.

    Args:
        section: the field section, which ends in CRLF.

    Returns:
        The line without its CRLF, and a code for what is wrong with it:
        ``bare-cr-lf``, ``obs-fold``, ``bad-field-name`` or ``bad-field-value``.
    """
    lines = section[:-2].split(b"\r\n")
    line = next(line for line in lines if HEADER_FIELD_RE.match(line) is None)
    if b"\r" in line or b"\n" in line:
        return line, "bare-cr-lf"
    if line[:1] in (b" ", b"\t"):
        return line, "obs-fold"
    if _FIELD_NAME_RE.match(line) is None:
        return line, "bad-field-name"
    return line, "bad-field-value"


_FIELD_NAME_RE = re.compile((TOKEN + ":").encode("latin-1"))

# -- RFC 9110, 8.6: Content-Length -----------------------------------------------------

#: ``Content-Length = 1*DIGIT``, whole input.
ONLY_DIGIT_RE = re.compile((DIGIT + r"+\Z").encode("latin-1"))

# -- RFC 9112, 7.1: chunked transfer coding --------------------------------------------

#: ``chunk-size = 1*HEXDIG``, whole input.
ONLY_HEXDIG_RE = re.compile((HEXDIG + r"+\Z").encode("latin-1"))

# chunk-ext-name = token   chunk-ext-val = token / quoted-string
CHUNK_EXT_NAME = TOKEN
CHUNK_EXT_VAL = "(?:" + TOKEN + "|" + QUOTED_STRING + ")"

# chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )
# RFC 9112, 7.1.1: a recipient reads and removes the bad white space.
CHUNK_EXT = (
    "(?:" + BWS + ";" + BWS + "(?P<extension>" + CHUNK_EXT_NAME + ")"
    "(?:" + BWS + "=" + BWS + "(?P<value>" + CHUNK_EXT_VAL + "))?)*"
)

#: Zero or more chunk extensions, whole input: groups of the last one.
CHUNK_EXT_RE = re.compile((CHUNK_EXT + r"\Z").encode("latin-1"))

# -- RFC 9110, 7.2 and RFC 3986, 3.2.2: Host -------------------------------------------

# dec-octet = 0 to 255 without leading zeros;  IPv4address = four of them
_DEC_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = _DEC_OCTET + r"(?:\." + _DEC_OCTET + "){3}"

# h16 = 1*4HEXDIG   ls32 = ( h16 ":" h16 ) / IPv4address
_H16 = HEXDIG + "{1,4}"
_LS32 = f"(?:{_H16}:{_H16}|{_IPV4})"

# IPv6address, the nine lines of the RFC in its order.
_IPV6 = "|".join(
    (
        f"(?:{_H16}:){{6}}{_LS32}",
        f"::(?:{_H16}:){{5}}{_LS32}",
        f"(?:{_H16})?::(?:{_H16}:){{4}}{_LS32}",
        f"(?:(?:{_H16}:){{0,1}}{_H16})?::(?:{_H16}:){{3}}{_LS32}",
        f"(?:(?:{_H16}:){{0,2}}{_H16})?::(?:{_H16}:){{2}}{_LS32}",
        f"(?:(?:{_H16}:){{0,3}}{_H16})?::{_H16}:{_LS32}",
        f"(?:(?:{_H16}:){{0,4}}{_H16})?::{_LS32}",
        f"(?:(?:{_H16}:){{0,5}}{_H16})?::{_H16}",
        f"(?:(?:{_H16}:){{0,6}}{_H16})?::",
    )
)

# reg-name = *( unreserved / pct-encoded / sub-delims ); an IPv4address is one as well.
_REG_NAME = r"(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%" + HEXDIG + HEXDIG + ")+"

# Host = uri-host [ ":" port ];  port = *DIGIT. Narrower than the RFC in two points: the
# host is not empty, since RFC 9110, 4.2.1 has an http URI without a host refused, and a
# port has at most five digits. No "IPvFuture": there is none, and no one can route to it.
#: Host and optional port of a Host field or an authority, whole input: groups ``host``
#: and ``port``. User information is no part of it (RFC 9110, 4.2.4).
HOST_RE = re.compile(rf"(?P<host>\[(?:{_IPV6})\]|{_REG_NAME})(?::(?P<port>{DIGIT}{{0,5}}))?\Z")

# -- Which request fields may be repeated ----------------------------------------------


class RequestField(NamedTuple):
    """What the RFCs say of one request field that may come in several lines.

    RFC 9110, 5.3: a sender must not repeat a field unless its value is a list. What to
    do with a field that is repeated all the same is :attr:`refused`.
    """

    #: The name in the spelling of its RFC.
    name: str
    #: Whether the grammar is a comma-separated list (RFC 9110, 5.6.1).
    is_list: bool
    #: Where the grammar is defined.
    section: str
    #: Whether a second line of that name makes the request an error: so where two readers
    #: that choose differently would disagree on where the message ends (Content-Length),
    #: whom it is for (Host), who sent it (Authorization) or what it means (Content-Type).
    refused: bool = False
    #: What stands between the values when several lines are made one.
    separator: str = ", "


_FIELDS = (
    # Single values; a second line is refused.
    RequestField("Authorization", False, "RFC 9110, 11.6.2", refused=True),
    RequestField("Content-Length", False, "RFC 9110, 8.6", refused=True),
    RequestField("Content-Type", False, "RFC 9110, 8.3", refused=True),
    RequestField("Host", False, "RFC 9110, 7.2", refused=True),
    # Single values; several lines are joined, and the application sees that.
    RequestField("Content-Location", False, "RFC 9110, 8.7"),
    RequestField("Content-Range", False, "RFC 9110, 14.4"),
    RequestField("Date", False, "RFC 9110, 6.6.1"),
    RequestField("From", False, "RFC 9110, 10.1.2"),
    RequestField("If-Modified-Since", False, "RFC 9110, 13.1.3"),
    RequestField("If-Range", False, "RFC 9110, 13.1.5"),
    RequestField("If-Unmodified-Since", False, "RFC 9110, 13.1.4"),
    RequestField("Max-Forwards", False, "RFC 9110, 7.6.2"),
    RequestField("Origin", False, "RFC 6454, 7.1"),
    RequestField("Proxy-Authorization", False, "RFC 9110, 11.7.2"),
    RequestField("Range", False, "RFC 9110, 14.2"),
    RequestField("Referer", False, "RFC 9110, 10.1.3"),
    RequestField("Sec-WebSocket-Key", False, "RFC 6455, 11.3.1"),
    RequestField("User-Agent", False, "RFC 9110, 10.1.5"),
    # One field by its own RFC; HTTP/2 clients split it, and gateways forward the pieces.
    RequestField("Cookie", False, "RFC 6265, 5.4 and RFC 9113, 8.2.3", separator="; "),
    # Lists.
    RequestField("Accept", True, "RFC 9110, 12.5.1"),
    RequestField("Accept-Charset", True, "RFC 9110, 12.5.2"),
    RequestField("Accept-Encoding", True, "RFC 9110, 12.5.3"),
    RequestField("Accept-Language", True, "RFC 9110, 12.5.4"),
    RequestField("Cache-Control", True, "RFC 9111, 5.2"),
    RequestField("Connection", True, "RFC 9110, 7.6.1"),
    RequestField("Content-Encoding", True, "RFC 9110, 8.4"),
    RequestField("Content-Language", True, "RFC 9110, 8.5"),
    RequestField("Expect", True, "RFC 9110, 10.1.1"),
    RequestField("Forwarded", True, "RFC 7239, 4"),
    RequestField("If-Match", True, "RFC 9110, 13.1.1"),
    RequestField("If-None-Match", True, "RFC 9110, 13.1.2"),
    RequestField("Pragma", True, "RFC 9111, 5.4"),
    RequestField("Prefer", True, "RFC 7240, 2"),
    RequestField("Sec-WebSocket-Extensions", True, "RFC 6455, 11.3.2"),
    RequestField("Sec-WebSocket-Protocol", True, "RFC 6455, 11.3.4"),
    RequestField("TE", True, "RFC 9110, 10.1.4"),
    RequestField("Trailer", True, "RFC 9110, 6.6.2"),
    RequestField("Transfer-Encoding", True, "RFC 9112, 6.1"),
    RequestField("Upgrade", True, "RFC 9110, 7.8"),
    RequestField("Via", True, "RFC 9110, 7.6.3"),
)

#: Request fields by the key that the parser gives them (upper case, ``_`` for ``-``).
#: A field that is not in the table is taken for a list: RFC 9110, 5.3 lets a recipient
#: join lines of a field that it does not know.
REQUEST_FIELDS: dict[str, RequestField] = {
    field.name.upper().replace("-", "_"): field for field in _FIELDS
}

#: Keys of the fields that may stand in a request only once.
REFUSED_WHEN_REPEATED = frozenset(key for key, field in REQUEST_FIELDS.items() if field.refused)

#: Lower-case names that may not stand in a trailer section: framing, routing, request
#: modifiers, authentication, content format. Source: RFC 9110, 6.5.1.
FORBIDDEN_TRAILER_FIELDS = frozenset(
    (
        # framing and the connection
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        # routing, and what a trusted proxy says of it
        "forwarded",
        "host",
        "via",
        "x-forwarded-by",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
        # request modifiers
        "cache-control",
        "expect",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "max-forwards",
        "pragma",
        "range",
        # authentication
        "authorization",
        "cookie",
        "proxy-authorization",
        "set-cookie",
        # format of the content
        "content-encoding",
        "content-range",
        "content-type",
    )
)
