"""What reverse proxies say about a request, believed only from those we trust.

A WSGI middleware, usable alone: from the header fields X-Forwarded-* or Forwarded of a
trusted peer it sets who the client is, which host and port it asked for and by which
scheme, and it takes the fields of everybody else out of the environ. It knows nothing of
connections and settings.

Of a field that several proxies have lengthened, each at its end, only the last
``trusted_proxy_count`` elements count: what stands before them was written by someone
whom nobody vouches for. The first of those that count tells of the client.

Row 2: imports ``observer``, ``peers``, ``rfc7230`` and ``utilities``.

Sources: RFC 7239 for Forwarded; for X-Forwarded-* there is only custom.
"""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from waitress.observer import NO_OBSERVER, Refusal
from waitress.peers import Trusted, TrustedPeers, read_address
from waitress.rfc7230 import HOST_RE, TOKEN
from waitress.utilities import BadRequest, logger, undquote

__all__ = [
    "PROXY_HEADERS",
    "Forwarded",
    "MalformedProxyHeader",
    "clear_untrusted_headers",
    "parse_proxy_headers",
    "proxy_headers_middleware",
    "strip_brackets",
]

#: The header fields of proxies, as they are called in an environ behind ``HTTP_``.
PROXY_HEADERS = frozenset(
    {
        "X_FORWARDED_FOR",
        "X_FORWARDED_HOST",
        "X_FORWARDED_PROTO",
        "X_FORWARDED_PORT",
        "X_FORWARDED_BY",
        "FORWARDED",
    }
)

# By the names that settings use, e.g. x-forwarded-for.
_ENVIRON_NAMES = {name.lower().replace("_", "-"): name for name in PROXY_HEADERS}

#: One element of a Forwarded field; what it does not say is the empty string.
Forwarded = namedtuple("Forwarded", ["by", "for_", "host", "proto"])

# White space around elements (RFC 9110, 5.6.3); str.strip() alone takes a no-break space
# and others for white space too, which other servers do not.
_OWS = " \t"

Environ = dict[str, Any]
Application = Callable[[Environ, Any], Iterable[bytes]]


class _Logger(Protocol):
    """What is asked of a logger."""

    def warning(self, msg: str, /, *args: object) -> object: ...


class MalformedProxyHeader(Exception):  # noqa: N818 -- the name is interface
    """A trusted peer sent a proxy header field that cannot be understood.

    Attributes:
        header: name of the field as users write it, e.g. ``X-Forwarded-For``.
        reason: what is wrong with it.
        value: the offending value.
    """

    def __init__(self, header: str, reason: str, value: str) -> None:
        self.header = header
        self.reason = reason
        self.value = value
        super().__init__(header, reason, value)


# The middleware


def proxy_headers_middleware(
    app: Application,
    trusted_proxy: Trusted = None,
    trusted_proxy_count: int = 1,
    trusted_proxy_headers: Collection[str] | None = None,
    clear_untrusted: bool = True,
    log_untrusted: bool = False,
    logger: _Logger = logger,
    tell_refusal: Callable[[Refusal], object] = NO_OBSERVER.refused,
) -> Application:
    """Return a WSGI application that corrects the environ and then calls ``app``.

    Args:
        app: the application to wrap.
        trusted_proxy: the ``REMOTE_ADDR`` of the peers that are believed: addresses and
            CIDR ranges, as :class:`waitress.peers.TrustedPeers` reads them; ``*`` for
            any; ``localhost`` for the peers of a unix socket; None for none.
        trusted_proxy_count: how many proxies, one behind another, are believed.
        trusted_proxy_headers: which fields are believed, by their lower-case names,
            e.g. ``x-forwarded-for``.
        clear_untrusted: whether the other fields are taken out of the environ.
        log_untrusted: whether that is logged.
        logger: where to log.
        tell_refusal: called for each malformed field.

    A malformed field of a trusted peer is logged and answered with 400; ``app`` is then
    not called.

    Raises:
        ValueError: peers are to be trusted, and ``trusted_proxy_count`` is less than 1,
            or ``trusted_proxy`` cannot be understood.

    Threads: the application returned may be called from any.
    """
    trusted_peers = TrustedPeers(trusted_proxy)
    if trusted_peers and trusted_proxy_count < 1:
        raise ValueError(f"trusted_proxy_count must be at least 1, not {trusted_proxy_count!r}")

    def translate_proxy_headers(environ: Environ, start_response: Any) -> Iterable[bytes]:
        # This runs for every request, and most have no such field. The names of
        # PROXY_HEADERS one by one: half the cost of environ.keys().isdisjoint().
        if not (
            "HTTP_X_FORWARDED_FOR" in environ
            or "HTTP_X_FORWARDED_PROTO" in environ
            or "HTTP_X_FORWARDED_HOST" in environ
            or "HTTP_X_FORWARDED_PORT" in environ
            or "HTTP_X_FORWARDED_BY" in environ
            or "HTTP_FORWARDED" in environ
        ):
            return app(environ, start_response)

        peer = environ.get("REMOTE_ADDR", "")
        untrusted_headers: Iterable[str] = PROXY_HEADERS
        if peer in trusted_peers:
            try:
                untrusted_headers = parse_proxy_headers(
                    environ, trusted_proxy_count, trusted_proxy_headers, logger
                )
            except MalformedProxyHeader as malformed:
                logger.warning(
                    'Malformed proxy header "%s" from "%s": %s value: %s',
                    malformed.header,
                    peer,
                    malformed.reason,
                    malformed.value,
                )
                tell_refusal(Refusal("proxy-header", peer, sample=malformed.value))
                error = BadRequest(f'Header "{malformed.header}" malformed.')
                return error.wsgi_response(environ, start_response)

        if clear_untrusted:
            clear_untrusted_headers(environ, untrusted_headers, log_untrusted, logger)
        return app(environ, start_response)

    return translate_proxy_headers


def clear_untrusted_headers(
    environ: Environ,
    untrusted_headers: Iterable[str],
    log_warning: bool = False,
    logger: _Logger = logger,
) -> None:
    """Take header fields out of ``environ``.

    Args:
        environ: changed in place.
        untrusted_headers: names as in :data:`PROXY_HEADERS`.
        log_warning: whether to log the names of those that were there.
        logger: where to log.
    """
    removed = [name for name in untrusted_headers if environ.pop(f"HTTP_{name}", None) is not None]
    if log_warning and removed:
        logger.warning(
            "Removed untrusted headers (%s). Waitress recommends these be removed upstream.",
            ", ".join(sorted(name.replace("_", "-").title() for name in removed)),
        )


# What the fields say


class _Claims(NamedTuple):
    """What trusted fields say of a request; the empty string where they say nothing.

    The same shape holds, per claim, the name that an error about it tells.
    """

    client: str = ""
    host: str = ""
    proto: str = ""
    port: str = ""


_X_FORWARDED_NAMES = _Claims(
    "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port"
)
_FORWARDED_NAMES = _Claims("Forwarded For=", "Forwarded Host=", "Forwarded Proto=")


def parse_proxy_headers(
    environ: Environ,
    trusted_proxy_count: int,
    trusted_proxy_headers: Collection[str] | None,
    logger: _Logger = logger,
) -> set[str]:
    """Make ``environ`` say what the trusted fields of a trusted peer say.

    Changes ``REMOTE_ADDR``, ``REMOTE_HOST``, ``REMOTE_PORT``, ``SERVER_NAME``,
    ``SERVER_PORT``, ``HTTP_HOST`` and ``wsgi.url_scheme`` as far as something is said of
    them, and cuts the fields that proxies lengthen down to the elements that count.

    Args:
        environ: changed in place; not at all if an error is raised.
        trusted_proxy_count: how many elements count. With less than one, none does, and
            no field is believed.
        trusted_proxy_headers: lower-case names of the fields that are believed. Where
            ``forwarded`` is among them, it alone is: the two kinds cannot be reconciled.
        logger: where unknown parameters of Forwarded are told.

    Returns:
        The names, as in :data:`PROXY_HEADERS`, of the fields that stay untrusted.

    Raises:
        MalformedProxyHeader: a trusted field is malformed, or says what cannot be.
    """
    trusted = trusted_proxy_headers or ()
    if trusted_proxy_count < 1:
        return set(PROXY_HEADERS)
    if "forwarded" in trusted:
        claims, kept = _read_forwarded(environ, trusted_proxy_count, logger)
        changes = _changes(environ, claims, _FORWARDED_NAMES)
        untrusted = PROXY_HEADERS - {"FORWARDED"}
    else:
        claims, kept = _read_x_forwarded(environ, trusted_proxy_count, trusted)
        changes = _changes(environ, claims, _X_FORWARDED_NAMES)
        untrusted = PROXY_HEADERS - {_ENVIRON_NAMES.get(name) for name in trusted}
    environ.update(changes)
    environ.update(kept)
    return set(untrusted)


# X-Forwarded-*


def _read_x_forwarded(
    environ: Environ, count: int, trusted: Collection[str]
) -> tuple[_Claims, Environ]:
    """Return what the trusted X-Forwarded-* fields say, and the lists cut down."""
    client = host = proto = port = None
    if "x-forwarded-for" in trusted:
        client = environ.get("HTTP_X_FORWARDED_FOR")
    if "x-forwarded-host" in trusted:
        host = environ.get("HTTP_X_FORWARDED_HOST")
    if "x-forwarded-proto" in trusted:
        proto = environ.get("HTTP_X_FORWARDED_PROTO")
    if "x-forwarded-port" in trusted:
        port = environ.get("HTTP_X_FORWARDED_PORT")

    kept: Environ = {}
    names = _X_FORWARDED_NAMES
    if client is not None:
        client, kept["HTTP_X_FORWARDED_FOR"] = _of_list(client, count, names.client)
    if host is not None:
        host, kept["HTTP_X_FORWARDED_HOST"] = _of_list(host, count, names.host)
    if proto and "," in proto:
        # Each proxy of a chain told how it was spoken to; the one nearest to the client,
        # of those that count, knows how the client did.
        proto, kept["HTTP_X_FORWARDED_PROTO"] = _of_list(proto, count, names.proto)
    elif proto:
        proto = _unquoted(proto, names.proto, proto)
    if port:
        port = _single(port, names.port)
    return _Claims(client or "", host or "", proto or "", port or ""), kept


def _of_list(value: str, count: int, header: str) -> tuple[str, str]:
    """Return the first of the last ``count`` elements, and these as a field value."""
    elements = value.split(",")
    if '"' in value:
        # Those that do not count must be well-formed too.
        for element in elements:
            _unquoted(element.strip(_OWS), header, value)
    counting = elements[-count:]
    return _unquoted(counting[0].strip(_OWS), header, value), ",".join(counting).strip(_OWS)


def _single(value: str, header: str) -> str:
    """Return the value of a field that no proxy lengthens."""
    if "," in value:
        raise MalformedProxyHeader(
            header, "Unspecified behavior for multiple values found in header", value
        )
    return _unquoted(value, header, value)


def _unquoted(value: str, header: str, whole: str) -> str:
    """Return ``value`` without its quotes; they must fit, or ``header`` is malformed."""
    if '"' not in value:
        return value
    try:
        return undquote(value)
    except ValueError as error:
        raise MalformedProxyHeader(header, str(error), whole) from error


# Forwarded (RFC 7239, 4)


def _read_forwarded(environ: Environ, count: int, logger: _Logger) -> tuple[_Claims, Environ]:
    """Return what the Forwarded field says, and the field cut down."""
    whole = environ.get("HTTP_FORWARDED")
    if whole is None:
        return _Claims(), {}

    # An empty element is one of the grammar's own, so it counts: to skip it would be to
    # believe the one before it.
    elements = _split_outside_quotes(whole, ",")
    others, counting = elements[:-count], elements[-count:]
    for other in others:
        # Must be well-formed too, but silently: whoever may write these could fill the
        # log with unknown parameters.
        _parse_element(other.strip(_OWS), whole, None)
    parsed = [_parse_element(element.strip(_OWS), whole, logger) for element in counting]

    # The oldest of those that count knows best: it is the nearest to the client.
    client = host = proto = ""
    for element in reversed(parsed):
        client = element.for_ or client
        host = element.host or host
        proto = element.proto or proto
    return _Claims(client, host, proto), {"HTTP_FORWARDED": ",".join(counting).strip(_OWS)}


def _parse_element(element: str, whole: str, logger: _Logger | None) -> Forwarded:
    """Return what one element says; tell the logger of parameters nobody knows.

    Names of parameters do not depend on case, and the last of a name wins. Values may
    hold characters that belong in quotes: many proxies leave these out around an address
    with a port.
    """
    known = dict.fromkeys(("by", "for", "host", "proto"), "")
    for token, value in _pairs(element, whole):
        if token in known:
            known[token] = value
        elif logger is not None:
            logger.warning("Unknown Forwarded token: %s", token)
    return Forwarded(*known.values())


def _pairs(element: str, whole: str) -> Iterator[tuple[str, str]]:
    """Yield name, in lower case, and value, unquoted, of each parameter of an element.

    The quotes of parameters nobody knows are judged like the others: one that a client
    left open would otherwise take in what the trusted proxy appended.
    """
    for pair in _split_outside_quotes(element, ";"):
        if not pair:
            continue
        token, equals, value = pair.partition("=")
        if not equals:
            raise MalformedProxyHeader("Forwarded", 'Invalid forwarded-pair missing "="', whole)
        if token != token.strip(_OWS):
            raise MalformedProxyHeader(
                "Forwarded", "Token may not be surrounded by whitespace", whole
            )
        if value != value.strip(_OWS):
            raise MalformedProxyHeader(
                "Forwarded", "Value may not be surrounded by whitespace", whole
            )
        if not _TOKEN.fullmatch(token):
            raise MalformedProxyHeader("Forwarded", "Invalid token", whole)
        if '"' in value and value[0] != '"':
            raise MalformedProxyHeader("Forwarded", "Invalid quoting in value", whole)
        yield token.lower(), _unquoted(value, "Forwarded", whole)


_TOKEN = re.compile(TOKEN)

# A quoted string or a delimiter. The closing quote may be missing: the match then takes
# the rest in one step, where a search for it from each quote anew would be quadratic;
# such a value fails when its quotes are taken off.
_QUOTED_OR_DELIMITER = re.compile(r'"(?:[^"\\]|\\.)*"?|[,;]', re.DOTALL)


def _split_outside_quotes(text: str, delimiter: str) -> list[str]:
    """Split at each ``delimiter``, comma or semicolon, outside quoted strings."""
    if '"' not in text or delimiter not in text:
        return text.split(delimiter)
    pieces = []
    start = 0
    for found in _QUOTED_OR_DELIMITER.finditer(text):
        if found.group() == delimiter:
            pieces.append(text[start : found.start()])
            start = found.end()
    pieces.append(text[start:])
    return pieces


# From claims to the environ

_DEFAULT_PORTS = {"http": "80", "https": "443"}


def _changes(environ: Environ, claims: _Claims, names: _Claims) -> Environ:
    """Return what the claims change in ``environ``.

    Raises:
        MalformedProxyHeader: one of them cannot be true of any request.
    """
    changes: Environ = {}
    port = _checked_port(claims.port, names.port)

    if claims.proto:
        scheme = claims.proto.lower()
        if scheme not in _DEFAULT_PORTS:
            raise MalformedProxyHeader(names.proto, "unsupported proto value", claims.proto)
        changes["wsgi.url_scheme"] = scheme
        port = port or _DEFAULT_PORTS[scheme]

    if claims.host:
        host, own_port = _split_host(claims.host, names.host)
        # The port of the Host is what the client asked for; the other one may be that
        # of some proxy in between.
        port = _checked_port(own_port, names.host) or port
        scheme = changes.get("wsgi.url_scheme") or environ.get("wsgi.url_scheme", "")
        is_implied = not own_port and port in ("", _DEFAULT_PORTS.get(scheme))
        changes["SERVER_NAME"] = host
        changes["HTTP_HOST"] = host if is_implied else f"{host}:{own_port or port}"

    if port:
        changes["SERVER_PORT"] = port

    if claims.client:
        address, client_port = _split_node(claims.client, names.client)
        changes["REMOTE_ADDR"] = changes["REMOTE_HOST"] = address
        if client_port:
            changes["REMOTE_PORT"] = client_port
    return changes


def _split_host(value: str, header: str) -> tuple[str, str]:
    """Split the value of a Host field; an IPv6 address keeps its brackets.

    It obeys the grammar of Host, so neither white space nor a delimiter of a URI can
    come into ``HTTP_HOST``, from which applications build links.
    """
    matched = HOST_RE.fullmatch(value)
    if matched is None:
        raise MalformedProxyHeader(header, "invalid host", value)
    host, port = matched.group("host", "port")
    return host, port or ""


# A name or an IPv4 address, or an IPv6 address in brackets, perhaps with a zone; then
# perhaps a port. Names are not only those of RFC 7239, 6.3 ("unknown", and obfuscated
# ones that begin with "_"): custom has others, so any registered name will do. What
# follows a part begins with a character that the part cannot hold.
_NODE = re.compile(
    r"([A-Za-z0-9._~!$&'()*+,;=%-]+|\[([0-9A-Fa-f:.]+)(?:%[A-Za-z0-9._~-]+)?\])(?::([^:]*))?"
)
_OBFUSCATED_PORT = re.compile(r"_[A-Za-z0-9._-]+")


def _split_node(node: str, header: str) -> tuple[str, str]:
    """Split the address of a client, without brackets, from its port, perhaps empty.

    In X-Forwarded-For an IPv6 address usually has no brackets, and then no port.
    """
    is_bare_ipv6 = node.count(":") > 1 and not node.startswith("[")
    matched = _NODE.fullmatch(f"[{node}]" if is_bare_ipv6 else node)
    if matched is None or (matched[2] and not _is_ipv6(matched[2])):
        raise MalformedProxyHeader(header, "invalid address", node)
    address, _, port = matched.groups("")
    if not _OBFUSCATED_PORT.fullmatch(port):
        port = _checked_port(port, header)
    return strip_brackets(address), port


def _is_ipv6(text: str) -> bool:
    return ":" in text and read_address(text) is not None


_PORT = re.compile(r"[0-9]{1,5}")


def _checked_port(port: str, header: str) -> str:
    """Return a port as a plain decimal number, or the empty string as it is."""
    if not port:
        return ""
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise MalformedProxyHeader(header, "invalid port number", port)
    return str(int(port))


def strip_brackets(addr: str) -> str:
    """Return an IPv6 address without the brackets around it; others as they are."""
    if addr.startswith("[") and addr.endswith("]"):
        return addr[1:-1]
    return addr
