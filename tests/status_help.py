"""Help for the tests of what the server tells of itself."""

from __future__ import annotations

from typing import Any

from waitress.timeline import TIMES, Timeline


def timeline(**facts: Any) -> Timeline:
    """Return the timeline of a plain request that took a moment, but for what is given."""
    made = Timeline()
    usual: dict[str, Any] = {
        **dict.fromkeys(TIMES, 0.0),
        "application_started": None,
        "began_at": 0.0,
        "bytes_in": 0,
        "bytes_out": 0,
        "method": "GET",
        "path": "/",
        "peer": ("127.0.0.1", 1),
        "refusal": "",
        "status": "200 OK",
        "termination": "--",
        "worker": 0,
    }
    for name, value in {**usual, **facts}.items():
        setattr(made, name, value)
    return made
