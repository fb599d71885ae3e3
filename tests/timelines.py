"""Timelines as tests want them: a complete one by default, each attribute to be replaced."""

from __future__ import annotations

from typing import Any

from waitress.timeline import TIMES, Timeline

#: 9 February 2026, 13:55:36.25 UTC.
BEGAN_AT = 1770645336.25


def make_timeline(**attributes: Any) -> Timeline:
    """Return the timeline of a small GET that was answered, but for what is given."""
    timeline = Timeline()
    instants = {
        "accepted": 99.0,
        "first_byte": 100.0,
        "head_complete": 100.000_100,
        "body_complete": 100.000_200,
        "queued": 100.000_300,
        "started": 100.000_700,
        "application_started": 100.000_800,
        "response_started": 100.001_000,
        "first_byte_out": 100.001_900,
        "application_finished": 100.001_700,
        "closed": 100.001_800,
        "serviced": 100.001_900,
        "last_byte_out": 100.002_500,
        "ended": 100.002_600,
    }
    assert set(instants) == set(TIMES)
    values = {
        **instants,
        "began_at": BEGAN_AT,
        "bytes_in": 80,
        # The head that is made of the fields below, and 5 octets of body.
        "bytes_out": len("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n") + 5,
        "channel_id": 3,
        "environ": None,
        "headers": {"HOST": "a.example", "REFERER": "http://b.example/", "USER_AGENT": "curl/8"},
        "method": "GET",
        "path": "/p",
        "peer": ("192.0.2.1", 4711),
        "query": "q=1",
        "refusal": "",
        "request_id": 7,
        "response_headers": [("Content-Type", "text/plain")],
        "status": "200 OK",
        "termination": "--",
        "version": "1.1",
        "worker": 140,
        **attributes,
    }
    fields = values.pop("response_headers")
    if values["status"]:
        lines = [f"HTTP/1.1 {values['status']}", *map(": ".join, fields), "", ""]
        timeline.note_head(values["status"], "\r\n".join(lines).encode("latin-1", "replace"))
    for name, value in values.items():
        setattr(timeline, name, value)
    return timeline


def refused_timeline(**attributes: Any) -> Timeline:
    """Return that of a head that broke off: the least there can be."""
    nothing = dict.fromkeys(TIMES)
    return make_timeline(
        **{
            **nothing,
            "first_byte": 100.0,
            "ended": 100.5,
            "bytes_out": 0,
            "headers": {},
            "method": "",
            "path": "",
            "query": "",
            "version": "",
            "response_headers": (),
            "status": "",
            "termination": "CH",
            "request_id": 0,
            "worker": 0,
            **attributes,
        }
    )


def momentary_timeline(**attributes: Any) -> Timeline:
    """Return that of a request that took no time and never came to an application."""
    nothing = dict.fromkeys(TIMES, 0.0)
    return make_timeline(**{**nothing, "application_started": None, "path": "/", **attributes})
