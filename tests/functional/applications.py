"""Small WSGI applications that the functional tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

StartResponse = Callable[..., Callable[[bytes], None]]


def hello(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
    """Answer with a fixed body of known length."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


def path(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
    """Answer with the path, and the body if there is one."""
    body = environ["PATH_INFO"].encode("latin-1") + environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def stream(environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
    """Answer with the path, one character at a time and no length."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return (character.encode("latin-1") for character in environ["PATH_INFO"])


def large(size: int) -> Any:
    """Return an application whose answer has so many bytes, in one piece."""

    def application(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [("Content-Length", str(size))])
        return [b"x" * size]

    return application


def blocks(count: int, size: int) -> Any:
    """Return an application whose answer comes in so many blocks of so many bytes."""

    def application(environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", str(count * size))])
        return (b"x" * size for _ in range(count))

    return application


class Never:
    """An application that is not to be run.

    An exception would not do: the server catches it.
    """

    def __init__(self) -> None:
        self.was_run = False

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        self.was_run = True
        return hello(environ, start_response)
