"""Loggers, HTTP dates, quoted strings, and HTTP errors as values.

The one drawer of the package, kept small: what several modules need and none of them
owns. It knows nothing of sockets, threads, requests or settings; :class:`Error` is how
every other module says "answer this instead".

Row 1: imports ``rfc7230``.
"""

from __future__ import annotations

import calendar
import errno
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import MethodType
from typing import Any

from waitress.rfc7230 import QUOTED_PAIR_RE, QUOTED_STRING_RE

__all__ = [
    "BadRequest",
    "Error",
    "ExpectationFailed",
    "HTTPVersionNotSupported",
    "InsufficientStorage",
    "InternalServerError",
    "MethodNotAllowed",
    "RequestEntityTooLarge",
    "RequestHeaderFieldsTooLarge",
    "RequestTimeout",
    "ServerNotImplemented",
    "ServiceUnavailable",
    "build_http_date",
    "cleanup_unix_socket",
    "find_double_newline",
    "http_date_now",
    "is_method_of",
    "logger",
    "parse_http_date",
    "queue_logger",
    "undquote",
]

#: Everything the server has to say, but for the depth of the task queue.
logger = logging.getLogger("waitress")

#: The depth of the task queue alone, so that it can be silenced alone.
queue_logger = logging.getLogger("waitress.queue")


def is_method_of(owner: object, method: object, function: object) -> bool:
    """Say whether what ``owner`` has for a method is this function, bound to it.

    It is not where somebody has put another into the object or its class, or around it.
    """
    return type(method) is MethodType and (method.__func__ is function and method.__self__ is owner)


def find_double_newline(s: bytes) -> int:
    """Return the index behind the first CRLF CRLF in ``s``, or -1.

    Source: RFC 9112, 2.1. A bare LF is no line end.
    """
    at = s.find(b"\r\n\r\n")
    return at if at < 0 else at + 4


# Pieces of patterns


def concat(*args: str) -> str:
    """Return the strings one after the other."""
    return "".join(args)


def join(seq: Iterable[str], field: str = " ") -> str:
    """Return the strings of ``seq`` with ``field`` between them."""
    return field.join(seq)


def group(s: str) -> str:
    """Return the pattern ``s`` as a capturing group."""
    return f"({s})"


# HTTP dates (RFC 9110, 5.6.7)

short_days = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
long_days = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"]
months = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]

#: Name of a day, short or long, to its number; Sunday is 0.
daymap = {name: number for days in (short_days, long_days) for number, name in enumerate(days)}
#: Name of a month to its number; January is 1.
monmap = {name: number for number, name in enumerate(months, 1)}

short_day_reg = group(join(short_days, "|"))
long_day_reg = group(join(long_days, "|"))
months_reg = group(join(months, "|"))
hms_reg = join([group("[0-9]{2}")] * 3, ":")

# Both have seven groups: name of the day, day, month, year, hour, minute, second.
# One digit for a day is older than RFC 1123 and still met.
rfc822_date = concat(
    short_day_reg,
    ", ",
    join([group("[0-9]{1,2}"), months_reg, group("[0-9]{4}"), hms_reg, "gmt"]),
)
rfc850_date = concat(
    long_day_reg,
    ", ",
    join([join([group("[0-9]{1,2}"), months_reg, group("[0-9]{2}")], "-"), hms_reg, "gmt"]),
)

rfc822_reg = re.compile(rfc822_date)
rfc850_reg = re.compile(rfc850_date)

DateTuple = tuple[int, int, int, int, int, int, int, int, int]


def unpack_rfc822(m: re.Match[str]) -> DateTuple:
    """Return year, month, day, hour, minute, second and three zeros of a match."""
    _, day, month, year, hour, minute, second = m.groups()
    return (int(year), monmap[month], int(day), int(hour), int(minute), int(second), 0, 0, 0)


def unpack_rfc850(m: re.Match[str]) -> DateTuple:
    """Return the same for a match with two digits of a year, taken as one of the 1900s."""
    _, day, month, year, hour, minute, second = m.groups()
    return (int("19" + year), monmap[month], int(day), int(hour), int(minute), int(second), 0, 0, 0)


weekdayname = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
monthname: list[str | None] = [None, *(month.capitalize() for month in months)]


def build_http_date(when: float) -> str:
    """Return the IMF-fixdate, such as ``Thu, 01 Jan 1970 00:00:00 GMT``.

    Args:
        when: seconds since the epoch; fractions are cut off.

    Source: RFC 9110, 5.6.7. The names are English whatever the locale, which is why
    this is not ``strftime``.
    """
    year, month, day, hour, minute, second, weekday, _, _ = time.gmtime(when)
    return (
        f"{weekdayname[weekday]}, {day:02d} {monthname[month]} {year:04d} "
        f"{hour:02d}:{minute:02d}:{second:02d} GMT"
    )


# The second told last, and its text. Always replaced as a whole: a thread sees one pair
# or another, never half of each, and two that build the same second at once do no harm.
_date_told_last: tuple[float, str] = (0.0, build_http_date(0))


def http_date_now(now: float) -> str:
    """Return :func:`build_http_date` of ``now``, built once per second.

    Args:
        now: seconds since the epoch, of a clock that the caller chooses.

    Threads: any.
    """
    global _date_told_last
    second, text = _date_told_last
    # Without int(), which is a call, and among floats, which are compared the fastest.
    if not second <= now < second + 1.0:
        text = build_http_date(now)
        _date_told_last = (float(int(now)), text)
    return text


def parse_http_date(d: str) -> int:
    """Return the seconds since the epoch that a date of RFC 1123 or RFC 850 form means.

    Returns:
        0 for any other text, the form of C's ``asctime`` included.
    """
    d = d.lower()
    try:
        if matched := rfc850_reg.fullmatch(d):
            return calendar.timegm(unpack_rfc850(matched))
        if matched := rfc822_reg.fullmatch(d):
            return calendar.timegm(unpack_rfc822(matched))
    except ValueError:
        # The year 0000 has the form of a date and is none.
        return 0
    return 0


def undquote(value: str) -> str:
    """Return what a quoted string says; a value without quotes is returned as it is.

    Raises:
        ValueError: there is a double quote at one end only, or what stands between
            two is no quoted string, e.g. because of another double quote.

    Source: RFC 9110, 5.6.4.
    """
    if not (value.startswith('"') or value.endswith('"')):
        return value
    matched = QUOTED_STRING_RE.match(value)
    if matched is None or matched.end() != len(value):
        raise ValueError("Invalid quoting in value")
    return QUOTED_PAIR_RE.sub(r"\1", value[1:-1])


def cleanup_unix_socket(path: str) -> None:
    """Remove ``path`` if it is a socket; leave anything else there alone.

    Raises:
        OSError: the path cannot be looked at, or the socket cannot be removed. That
            there is nothing at ``path`` is no error.
    """
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.remove(path)
    except OSError as error:
        # Somebody else may have removed it between the two calls: also well.
        if error.errno != errno.ENOENT:
            raise


# Errors as values

HeaderList = list[tuple[str, str]]


class Error:
    """What to answer instead of a response: a status and a line of explanation.

    A value, not an exception: it is handed along (parser, channel, task) and in the end
    written to the client. ``code`` and ``reason`` may be set on an instance and are then
    used as they are.
    """

    #: Status code.
    code: int = 500
    #: Reason phrase; also the first line of the body.
    reason: str = "Internal Server Error"
    #: Short kebab-case name of the rule that was broken, e.g. ``obs-fold``; set by
    #: whoever refuses, for logs and counters. Empty when nothing was refused. Never
    #: contains anything that the client sent.
    reject_reason: str = ""
    #: What was refused, or its beginning, for logs; where empty, the request line is it.
    sample: bytes = b""
    #: Header fields that the status calls for, e.g. ``Allow`` beside 405 (RFC 9110,
    #: 15.5.6) or ``Retry-After`` beside 503.
    headers: Sequence[tuple[str, str]] = ()
    #: Whether nothing may follow on the connection. False where the request was received
    #: whole and nothing is wrong with it.
    ends_connection: bool = True

    def __init__(self, body: object) -> None:
        #: The explanation; shown to the client as ``str(body)``.
        self.body = body

    def to_response(self, ident: str | None = None) -> tuple[str, HeaderList, bytes]:
        """Return status line text, header fields and body.

        Args:
            ident: who says so in the last line of the body; the server if empty.
        """
        status = f"{self.code} {self.reason}"
        headers = [("Content-Type", "text/plain; charset=utf-8"), *self.headers]
        text = f"{self.reason}\r\n\r\n{self.body}\r\n\r\n(generated by {ident or 'server'})"
        # A traceback may hold lone surrogates, from file names for one: an answer about
        # an error must not raise another.
        return status, headers, text.encode("utf-8", "backslashreplace")

    def wsgi_response(
        self, environ: dict[str, Any], start_response: Callable[[str, HeaderList], object]
    ) -> Iterator[bytes]:
        """Answer as a WSGI application does (PEP 3333); a generator."""
        status, headers, body = self.to_response()
        start_response(status, headers)
        yield body


class BadRequest(Error):
    """The request is malformed (RFC 9110, 15.5.1)."""

    code = 400
    reason = "Bad Request"


class MethodNotAllowed(BadRequest):
    """The target knows the method and does not take it (RFC 9110, 15.5.6)."""

    code = 405
    reason = "Method Not Allowed"


class RequestTimeout(BadRequest):
    """The request did not arrive in time (RFC 9110, 15.5.9)."""

    code = 408
    reason = "Request Timeout"


class RequestEntityTooLarge(BadRequest):
    """The body is larger than the server takes (RFC 9110, 15.5.14)."""

    code = 413
    reason = "Request Entity Too Large"


class ExpectationFailed(BadRequest):
    """The request expects what the server cannot do (RFC 9110, 15.5.18)."""

    code = 417
    reason = "Expectation Failed"


class RequestHeaderFieldsTooLarge(BadRequest):
    """The head is larger, or has more fields, than the server takes (RFC 6585, 5)."""

    code = 431
    reason = "Request Header Fields Too Large"


class InternalServerError(Error):
    """The application or the server failed (RFC 9110, 15.6.1)."""

    code = 500
    reason = "Internal Server Error"


class ServerNotImplemented(Error):
    """The server does not know the method or the transfer coding (RFC 9110, 15.6.2)."""

    code = 501
    reason = "Not Implemented"


class ServiceUnavailable(Error):
    """The server is overloaded or about to stop (RFC 9110, 15.6.4)."""

    code = 503
    reason = "Service Unavailable"


class HTTPVersionNotSupported(Error):
    """The request is of another major version of HTTP (RFC 9110, 15.6.6)."""

    code = 505
    reason = "HTTP Version Not Supported"


class InsufficientStorage(Error):
    """There is no room to store the body of the request (RFC 4918, 11.5)."""

    code = 507
    reason = "Insufficient Storage"
