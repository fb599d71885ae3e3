"""What a timeline holds by itself, and what an application may see of it."""

from __future__ import annotations

from typing import Any

import pytest

from waitress.timeline import TIMES, Timeline, TimelineView


class TestTimeline:
    def test_begins_empty(self):
        timeline = Timeline()
        assert [getattr(timeline, name) for name in TIMES] == [None] * len(TIMES)
        assert (timeline.bytes_in, timeline.bytes_out, timeline.worker) == (0, 0, 0)
        assert (timeline.status, timeline.refusal, timeline.termination) == ("", "", "")
        assert tuple(timeline.response_headers) == ()
        assert (timeline.head_bytes, timeline.is_own_answer) == (0, False)
        assert dict(timeline.headers) == {}
        assert timeline.environ is None

    def test_reads_the_head_when_asked_for_its_fields(self):
        timeline = Timeline()
        timeline.note_head("200 OK", b"HTTP/1.1 200 OK\r\nDate: now\r\nX-A: b: c\r\n\r\n")
        assert timeline.status == "200 OK"
        assert timeline.response_headers == (("Date", "now"), ("X-A", "b: c"))
        assert timeline.head_bytes == len("HTTP/1.1 200 OK\r\nDate: now\r\nX-A: b: c\r\n\r\n")

    def test_tells_the_time_between_two_instants(self):
        timeline = Timeline()
        timeline.queued, timeline.started = 1.0, 3.5
        assert timeline.seconds("queued", "started") == 2.5
        assert timeline.seconds("queued", "ended") is None
        assert timeline.seconds("accepted", "queued") is None

    def test_is_shown_in_short(self):
        timeline = Timeline()
        timeline.request_id, timeline.method, timeline.path = 7, "GET", "/x"
        timeline.query = "secret=1"
        assert repr(timeline) == "<Timeline 7: GET /x - running>"
        timeline.status, timeline.termination = "200 OK", "--"
        assert repr(timeline) == "<Timeline 7: GET /x 200 -->"


class TestView:
    def test_shows_what_has_happened_so_far(self):
        timeline = Timeline()
        timeline.request_id = 7
        view = TimelineView(timeline)
        assert view.ended is None
        timeline.started, timeline.ended = 1.0, 2.0
        assert (view.started, view.ended, view.request_id) == (1.0, 2.0, 7)
        assert view.seconds("started", "ended") == 1.0
        assert repr(view) == "<TimelineView of request 7>"

    def test_gives_the_instants_as_of_now(self):
        timeline = Timeline()
        timeline.started = 1.0
        found = TimelineView(timeline).as_dict()
        timeline.ended = 2.0
        assert list(found) == list(TIMES)
        assert (found["started"], found["ended"]) == (1.0, None)

    @pytest.mark.parametrize("name", ["started", "termination", "anything", "_timeline"])
    def test_cannot_be_changed(self, name: str):
        view: Any = TimelineView(Timeline())
        with pytest.raises(AttributeError, match="cannot be changed"):
            setattr(view, name, 1.0)
        with pytest.raises(AttributeError, match="cannot be changed"):
            delattr(view, name)

    @pytest.mark.parametrize("name", ["environ", "note_head", "peer", "anything"])
    def test_shows_nothing_else(self, name: str):
        with pytest.raises(AttributeError, match=name):
            getattr(TimelineView(Timeline()), name)

    def test_lists_what_it_shows(self):
        view = TimelineView(Timeline())
        assert {"started", "ended", "seconds", "termination"} <= set(dir(view))
        for name in dir(view):
            getattr(view, name)
