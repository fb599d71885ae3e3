"""What is said of a request: durations, addresses, sizes, times."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests.timelines import make_timeline, refused_timeline
from waitress import access_values
from waitress.access_values import (
    VALUES,
    Facts,
    body_bytes,
    captured,
    iso_time,
    peer_text,
    protocol,
    remote_address,
    request_words,
    status_code,
)
from waitress.timeline import Timeline


def durations(timeline: Timeline) -> dict[str, int | None]:
    names = ("total", "receiving", "queued", "app", "sending")
    return {name: getattr(access_values, f"{name}_us")(timeline) for name in names}


def value(atom: str, timeline: Timeline, **capture: str) -> str | None:
    return VALUES[atom][0](Facts(timeline, capture))


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is that of a place with half an hour."""
    yield from local_time(monkeypatch, "XXX-05:30")


@pytest.fixture
def far_west(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from local_time(monkeypatch, "XXX+03:30")


def local_time(monkeypatch: pytest.MonkeyPatch, zone: str) -> Iterator[None]:
    if not hasattr(time, "tzset"):
        pytest.skip("the zone cannot be set here")
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    access_values._local_second.cache_clear()
    yield
    monkeypatch.undo()
    time.tzset()
    access_values._local_second.cache_clear()


class TestDurations:
    def test_of_a_request_that_was_served(self):
        assert durations(make_timeline()) == {
            "total": 2500,
            "receiving": 200,
            "queued": 400,
            "app": 1000,
            "sending": 600,
        }

    def test_of_what_never_was_are_none(self):
        assert durations(refused_timeline()) == {
            "total": 500_000,
            "receiving": 500_000,
            "queued": None,
            "app": None,
            "sending": None,
        }

    def test_of_what_was_interrupted_last_until_the_end(self):
        cancelled = refused_timeline(body_complete=100.1, queued=100.25)
        assert durations(cancelled)["queued"] == 250_000
        cut = make_timeline(
            application_finished=None, closed=None, serviced=None, last_byte_out=None, ended=101.0
        )
        assert durations(cut)["app"] == 999_200
        assert durations(cut)["total"] == 1_000_000
        unsent = make_timeline(last_byte_out=None, ended=101.0019)
        assert durations(unsent)["sending"] == 1_000_000

    def test_fall_back_to_the_next_best_instant(self):
        assert durations(make_timeline(body_complete=None))["receiving"] == 300
        assert durations(make_timeline(closed=None))["app"] == 900

    def test_are_never_negative(self):
        assert durations(make_timeline(started=100.0))["queued"] == 0

    def test_are_none_without_a_beginning(self):
        assert durations(make_timeline(first_byte=None))["total"] is None

    def test_come_in_every_unit(self):
        slow = make_timeline(last_byte_out=102.3456789)

        units = [value(atom, slow) for atom in ("T", "M", "D", "L")]

        assert units == ["2", "2345", "2345679", "2.345679"]
        never = make_timeline(first_byte=None)
        assert [value(atom, never) for atom in ("T", "M", "D", "L")] == [None] * 4

    def test_of_phases_have_atoms(self):
        atoms = ("receiving", "queued", "app", "sending")
        assert [value(atom, make_timeline()) for atom in atoms] == ["200", "400", "1000", "600"]


class TestAddresses:
    def test_are_those_that_the_application_saw(self):
        facts = Facts(make_timeline(), {"REMOTE_ADDR": "203.0.113.9"})
        assert remote_address(facts) == "203.0.113.9"
        assert peer_text(facts) == "192.0.2.1:4711"

    @pytest.mark.parametrize("capture", [{}, {"REMOTE_ADDR": ""}])
    def test_are_else_the_peers(self, capture):
        assert remote_address(Facts(make_timeline(), capture)) == "192.0.2.1"

    @pytest.mark.parametrize(
        ("peer", "address", "text"),
        [
            (("2001:db8::1", 80, 0, 0), "2001:db8::1", "[2001:db8::1]:80"),
            (("localhost", None), "localhost", "localhost"),
            ("somewhere", "somewhere", "somewhere"),
            (("alone",), "alone", "alone"),
            ((), "()", ""),
        ],
    )
    def test_are_of_every_kind(self, peer, address, text):
        facts = Facts(make_timeline(peer=peer), {})
        assert remote_address(facts) == address
        assert peer_text(facts) == text


class TestCapture:
    def test_takes_what_is_wanted_of_the_environ(self):
        environ = {"A": "1", "B": "2"}
        capture = captured(make_timeline(environ=environ), {"A", "C"})
        environ["A"] = "changed"
        assert capture == {"A": "1"}

    def test_is_empty_without_an_environ(self):
        assert captured(make_timeline(), {"A"}) == {}

    def test_runs_no_code_of_the_application(self):
        class Text(str):
            def __str__(self) -> str:
                raise AssertionError("a loop must not run this")

        class Thing:
            __repr__ = __str__ = Text.__str__

        environ = {"text": Text("t"), "thing": Thing(), "n": None, "i": 7, "b": True}
        capture = captured(make_timeline(environ=environ), set(environ))
        assert capture == {"text": "t", "thing": "<Thing>", "n": "None", "i": "7", "b": "True"}
        assert {type(each) for each in capture.values()} == {str}


class TestRequests:
    @pytest.mark.parametrize(
        ("attributes", "words"),
        [
            ({}, ["GET", "/p?q=1", "HTTP/1.1"]),
            ({"query": ""}, ["GET", "/p", "HTTP/1.1"]),
            ({"version": ""}, ["GET", "/p?q=1"]),
            ({"method": ""}, []),
        ],
    )
    def test_have_request_lines(self, attributes, words):
        facts = Facts(make_timeline(**attributes), {})
        assert request_words(facts) == words
        assert VALUES["r"][0](facts) == " ".join(words)

    def test_have_protocols(self):
        assert protocol(Facts(make_timeline(version="1.0"), {})) == "HTTP/1.0"
        assert protocol(Facts(refused_timeline(), {})) is None

    def test_have_parts(self):
        line = make_timeline()
        assert [value(atom, line) for atom in ("m", "U", "q", "H")] == [
            "GET",
            "/p",
            "q=1",
            "HTTP/1.1",
        ]

    def test_have_fields(self):
        line = make_timeline()
        assert value("f", line) == "http://b.example/"
        assert value("a", line) == "curl/8"
        assert value("a", refused_timeline()) is None

    def test_have_users_where_the_application_knows_them(self):
        assert value("u", make_timeline(), REMOTE_USER="alice") == "alice"
        assert value("u", make_timeline()) is None
        assert value("l", make_timeline()) is None


class TestResponses:
    @pytest.mark.parametrize(
        ("status", "code", "text"),
        [
            ("200 OK", 200, "200"),
            ("404", 404, "404"),
            ("", None, "000"),
            ("20", None, "000"),
            ("2\u0662\u0662 x", None, "000"),
            ("abc", None, "000"),
        ],
    )
    def test_have_codes(self, status, code, text):
        line = make_timeline(status=status)
        assert status_code(line) == code
        assert value("s", line) == text

    def test_have_bodies_behind_their_heads(self):
        line = make_timeline()
        assert body_bytes(line) == 5
        assert (value("B", line), value("b", line)) == ("5", "5")
        assert (value("I", line), value("O", line)) == ("80", str(line.bytes_out))

    @pytest.mark.parametrize(
        "attributes",
        [{"bytes_out": 12}, {"status": "", "response_headers": ()}],
        ids=["cut in the head", "no response"],
    )
    def test_may_have_none(self, attributes):
        line = make_timeline(**attributes)
        assert (value("B", line), value("b", line)) == ("0", None)


class TestTimes:
    def test_are_local_in_lines_of_old(self, far_east):
        assert value("t", make_timeline()) == "[09/Feb/2026:19:25:36 +0530]"

    def test_are_local_west_of_greenwich(self, far_west):
        assert value("t", make_timeline()) == "[09/Feb/2026:10:25:36 -0330]"

    def test_are_universal_elsewhere(self, far_east):
        assert iso_time(make_timeline()) == "2026-02-09T13:55:36.250000Z"
        assert value("iso", make_timeline()) == "2026-02-09T13:55:36.250000Z"

    def test_carry_what_is_rounded(self):
        late = make_timeline(began_at=1770645359.9999999)
        assert iso_time(late) == "2026-02-09T13:56:00.000000Z"


def test_numbers_and_codes_have_atoms():
    line = make_timeline(refusal="obs-fold")
    atoms = ("id", "channel", "worker", "end", "refusal", "peer")
    assert [value(atom, line) for atom in atoms] == [
        "7",
        "3",
        "140",
        "--",
        "obs-fold",
        "192.0.2.1:4711",
    ]
    assert value("worker", refused_timeline()) is None
    assert value("p", line) == f"<{os.getpid()}>"


def test_every_atom_has_a_value_whatever_became_of_the_request():
    for timeline in (make_timeline(), refused_timeline()):
        for atom in VALUES:
            assert isinstance(value(atom, timeline), str | None)
