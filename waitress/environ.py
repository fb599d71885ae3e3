"""The environ of a request: the dictionary that PEP 3333 describes.

This is the one place where bytes that arrived become the names and latin-1 strings that
an application sees: the parser knows field names, only here are there ``HTTP_*`` keys.

No I/O: what concerns the connection is told by arguments.
Row 4: knows the file wrapper from ``buffers``; of a request and of a server, only what
:class:`EnvironRequest` and :class:`EnvironServer` list.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from waitress.buffers import ReadOnlyFileBasedBuffer

__all__ = [
    "EnvironRequest",
    "EnvironServer",
    "build_environ",
    "build_path_info",
    "rename_headers",
]

#: Request fields whose environ keys have no ``HTTP_`` in front (RFC 3875, 4.1.2 and 4.1.3).
rename_headers = {
    "CONTENT_LENGTH": "CONTENT_LENGTH",
    "CONTENT_TYPE": "CONTENT_TYPE",
}

#: The caches are emptied when they have grown to so many entries: names are the clients' to
#: choose, memory is ours.
_CACHE_ENTRIES = 512

#: And so are the templates of each known section, of which clients choose a thousand.
_SECTION_TEMPLATES = 8

# What build_environ() sets for each request.
_REQUEST_KEYS = (
    "REMOTE_ADDR",
    "REMOTE_HOST",
    "REMOTE_PORT",
    "REQUEST_METHOD",
    "PATH_INFO",
    "REQUEST_URI",
    "QUERY_STRING",
    "wsgi.url_scheme",
    "wsgi.errors",
    "wsgi.input",
    "waitress.client_disconnected",
)

#: For whom a template is made: a server's name, port, ident and url_prefix.
_ServerKey = tuple[str, Any, str | None, str]

# Any thread may add to these or empty them at any time: what is missing is made again.
_environ_keys: dict[str, str] = {}
#: What all environs of a server have in common. A known section keeps its own templates, with
#: its fields in them.
_templates: dict[_ServerKey, dict[str, Any]] = {}


class EnvironRequest(Protocol):
    """What a request must have so that an environ can be built from it.

    It may have more: ``known_section``, the :class:`waitress.parser.KnownSection` that its
    fields were read from, or ``None``.
    """

    @property
    def headers(self) -> Mapping[str, str]:
        """Values by name, in upper case with ``_`` for ``-``."""

    @property
    def command(self) -> str:
        """The method."""

    @property
    def path(self) -> str:
        """The path, percent-decoded, each byte one latin-1 character."""

    @property
    def query(self) -> str:
        """The query, as sent."""

    @property
    def request_uri(self) -> str:
        """The request target, as sent."""

    @property
    def url_scheme(self) -> str:
        """``"http"`` or ``"https"``."""

    def get_body_stream(self) -> Any:
        """Return the body, a binary file positioned at its first byte."""


class EnvironServer(Protocol):
    """What a server must have so that environs can be built for it."""

    @property
    def adj(self) -> Any:
        """The settings ``ident`` and ``url_prefix``.

        ``ident`` is what the server calls itself; ``None`` makes ``SERVER_SOFTWARE`` empty.
        ``url_prefix`` is the application's place, ``""`` or ``"/..."`` without a slash at its
        end; it becomes ``SCRIPT_NAME``.
        """

    @property
    def effective_port(self) -> Any:
        """The port listened to; becomes a string."""

    @property
    def server_name(self) -> str:
        """The value of ``SERVER_NAME``."""


def build_environ(
    request: EnvironRequest,
    version: str,
    addr: Any,
    server: EnvironServer,
    client_disconnected: Callable[[], bool],
) -> dict[str, Any]:
    """Return a new environ for ``request``.

    Args:
        request: a complete request.
        version: ``"1.0"`` or ``"1.1"``, the version of the response.
        addr: the peer: a sequence of host and port (``None`` on a unix socket).
        server: who serves it.
        client_disconnected: tells whether the client has gone.

    Source: PEP 3333, "environ Variables"; RFC 3875, 4.1.
    """
    adj = server.adj
    url_prefix = adj.url_prefix
    headers = request.headers
    try:
        section = request.known_section  # type: ignore[attr-defined]
    except AttributeError:  # A parser of the user's own; getattr() takes longer.
        section = None
    templates = _templates
    # Unless somebody has changed the fields since. (A dict of another kind may have an items() of
    # its own. What is only equal to what was sent is not kept: it may belong to one request.)
    if section is not None and type(headers) is dict and headers == section.fields:
        templates = section.templates
        headers = section.fields
    key = (server.server_name, server.effective_port, adj.ident, url_prefix)
    try:
        environ = templates[key].copy()
    except KeyError:
        environ = _make_template(key, templates, headers).copy()
    host = addr[0]
    path = request.path
    environ["REMOTE_ADDR"] = host
    environ["REMOTE_HOST"] = host
    environ["REMOTE_PORT"] = str(addr[1])
    environ["REQUEST_METHOD"] = request.command.upper()
    if version != "1.1":
        environ["SERVER_PROTOCOL"] = f"HTTP/{version}"
    if url_prefix or "//" in path:
        # Not for most paths; startswith() would take three times as long to tell.
        path = build_path_info(path, url_prefix)
    environ["PATH_INFO"] = path
    environ["REQUEST_URI"] = request.request_uri
    environ["QUERY_STRING"] = request.query
    environ["wsgi.url_scheme"] = request.url_scheme
    environ["wsgi.errors"] = sys.stderr
    environ["wsgi.input"] = request.get_body_stream()
    environ["waitress.client_disconnected"] = client_disconnected
    if templates is _templates:
        _put_fields(environ, headers)
    return environ


def _put_fields(environ: dict[str, Any], headers: Mapping[str, str]) -> None:
    try:
        for name, value in headers.items():
            environ[_environ_keys[name]] = value
    except KeyError:
        # Once per name, as a rule: that the loop above has no default to think of makes it
        # a sixth faster.
        for name, value in headers.items():
            environ[_environ_keys.get(name) or _environ_key(name)] = value


def build_path_info(path: str, url_prefix: str) -> str:
    """Return ``PATH_INFO``: ``path`` without double slashes in front and without prefix.

    A path that does not lie below the prefix is returned as it is, and so are the empty
    path and ``*``, the target of an OPTIONS for the whole server.
    """
    if path.startswith("//"):
        path = "/" + path.lstrip("/")
    if url_prefix:
        if path == url_prefix:
            return ""
        if path.startswith(url_prefix + "/"):
            return path[len(url_prefix) :]
    return path


def _make_template(
    key: _ServerKey,
    templates: dict[_ServerKey, dict[str, Any]],
    headers: Mapping[str, str],
) -> dict[str, Any]:
    """Return what environs have in common, and keep it; it is copied, never given.

    Args:
        key: for whom.
        templates: where to keep it. Those of a known section have its fields, too.
        headers: the fields of the section, if it is one's.
    """
    server_name, server_port, ident, url_prefix = key
    template = {
        "SERVER_NAME": server_name,
        "SERVER_PORT": str(server_port),
        # The environ holds strings (PEP 3333), also of a server that keeps its name to
        # itself.
        "SERVER_SOFTWARE": ident or "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SCRIPT_NAME": url_prefix,
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": ReadOnlyFileBasedBuffer,
        "wsgi.input_terminated": True,
        # Places of what differs: a copy of a dictionary that has them already need not
        # grow, which would cost as much as filling it.
        **dict.fromkeys(_REQUEST_KEYS),
    }
    if templates is _templates:
        _make_room(templates)
    else:
        _put_fields(template, headers)
        _make_room(templates, _SECTION_TEMPLATES)
    templates[key] = template
    return template


def _environ_key(name: str) -> str:
    """Return the environ's key for a request field."""
    key = rename_headers.get(name) or f"HTTP_{name}"
    _make_room(_environ_keys)
    _environ_keys[name] = key
    return key


def _make_room(cache: dict[Any, Any], most: int = _CACHE_ENTRIES) -> None:
    if len(cache) >= most:
        cache.clear()
