"""Whole responses as values, for what the server itself has to say.

Row 0: imports nothing of the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["NO_SNIFF", "NO_STORE", "TEXT", "Answer", "method_refusal", "text_answer"]

#: Answers hold for the moment only.
NO_STORE = ("Cache-Control", "no-store")
#: They are what they say they are.
NO_SNIFF = ("X-Content-Type-Options", "nosniff")
TEXT = ("Content-Type", "text/plain; charset=utf-8")


@dataclass(frozen=True)
class Answer:
    """A whole response.

    Args:
        status: code and reason phrase.
        headers: the fields, but for those of framing and connection.
        body: not sent where the request was HEAD.
    """

    status: str
    headers: Sequence[tuple[str, str]]
    body: bytes


def text_answer(status: str, text: str, *headers: tuple[str, str]) -> Answer:
    """Return an answer of plain text."""
    return Answer(status, (TEXT, NO_STORE, NO_SNIFF, *headers), text.encode("utf-8"))


def method_refusal(request: Any) -> Answer | None:
    """Return the refusal of a request that is neither GET nor HEAD (RFC 9110, 15.5.6)."""
    if request.command in ("GET", "HEAD"):
        return None
    return text_answer("405 Method Not Allowed", "GET and HEAD only\n", ("Allow", "GET, HEAD"))
