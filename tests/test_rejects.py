"""Refusals: counted always, told where wanted, and never in a line of the client's own."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waitress.observer import Refusal
from waitress.rejects import SAMPLE_BYTES, RejectCounts, Rejects, escaped


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "waitress.reject")
    return caplog


def line(caplog: pytest.LogCaptureFixture) -> str:
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("waitress.reject", logging.INFO)
    return record.getMessage()


def by_default(caplog: pytest.LogCaptureFixture) -> None:
    """Have the levels that nobody has set."""
    caplog.set_level(logging.WARNING)
    caplog.set_level(logging.NOTSET, "waitress")
    caplog.set_level(logging.NOTSET, "waitress.reject")


class TestCounts:
    def test_begin_empty(self):
        assert RejectCounts().snapshot() == {}

    def test_are_kept_by_reason(self):
        counts = RejectCounts()

        for reason in ("obs-fold", "bad-host", "obs-fold"):
            counts.add(reason)

        assert counts.snapshot() == {"obs-fold": 2, "bad-host": 1}

    def test_of_a_snapshot_stay_what_they_were(self):
        counts = RejectCounts()
        counts.add("obs-fold")
        before = counts.snapshot()

        counts.add("obs-fold")
        before["bad-host"] = 7

        assert before == {"obs-fold": 1, "bad-host": 7}
        assert counts.snapshot() == {"obs-fold": 2}

    def test_are_of_a_bounded_number_of_reasons(self):
        counts = RejectCounts()

        for number in range(1000):
            counts.add(f"reason-{number}")
        counts.add("reason-0")

        snapshot = counts.snapshot()
        assert len(snapshot) == 257
        assert snapshot["reason-0"] == 2
        assert snapshot["other"] == 744
        assert sum(snapshot.values()) == 1001

    def test_lose_nothing_between_threads(self):
        counts = RejectCounts()
        barrier = threading.Barrier(4)

        def add() -> None:
            barrier.wait(10)
            for _ in range(2000):
                counts.add("obs-fold")

        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

        assert counts.snapshot() == {"obs-fold": 8000}


class TestLines:
    def test_tell_reason_peer_numbers_and_sample(self, told):
        Rejects().refused(Refusal("bad-host", ("192.0.2.1", 4711), 3, 7, b"GET / HTTP/1.1"))

        assert line(told) == (
            "refused: reason=bad-host peer=192.0.2.1:4711 channel=3 request=7 "
            'sample="GET / HTTP/1.1"'
        )

    def test_tell_what_is_not_known_as_a_hyphen(self, told):
        Rejects().refused(Refusal("", ""))

        assert line(told) == 'refused: reason=other peer=- channel=- request=- sample=""'

    @pytest.mark.parametrize(
        ("peer", "text"),
        [
            (("192.0.2.1", 80), "192.0.2.1:80"),
            (("2001:db8::1", 80, 0, 0), "[2001:db8::1]:80"),
            (("localhost", None), "localhost"),
            ("192.0.2.1", "192.0.2.1"),
            (("192.0.2.1",), "192.0.2.1"),
            (None, "-"),
            ("a b\nrefused:", "a\\x20b\\nrefused:"),
        ],
    )
    def test_tell_peers_of_every_kind(self, told, peer, text):
        Rejects().refused(Refusal("bad-host", peer))

        assert line(told).split("peer=")[1] == f'{text} channel=- request=- sample=""'

    @pytest.mark.parametrize(
        ("sample", "text"),
        [
            (b"a" * SAMPLE_BYTES, "a" * SAMPLE_BYTES + '"'),
            (b"a" * (SAMPLE_BYTES + 1), "a" * SAMPLE_BYTES + '"...'),
            (bytearray(b"\xff" * 9999), "\\xff" * SAMPLE_BYTES + '"...'),
            ("\u20ac" * 9999, "\\u20ac" * SAMPLE_BYTES + '"...'),
        ],
    )
    def test_tell_the_beginning_only(self, told, sample, text):
        Rejects().refused(Refusal("bad-host", "", sample=sample))

        assert line(told).split('sample="')[1] == text

    def test_tell_a_reason_as_one_short_word(self, told):
        rejects = Rejects()

        rejects.refused(Refusal("a b\r\n" + "c" * 9999, ""))

        assert line(told).startswith("refused: reason=a\\x20b\\r\\nccc")
        assert len(line(told)) < 250
        assert max(map(len, rejects.counts.snapshot())) == SAMPLE_BYTES

    def test_may_go_to_another_logger(self, caplog):
        caplog.set_level(logging.INFO)

        Rejects(logging.getLogger("mine")).refused(Refusal("bad-host", ""))

        assert [record.name for record in caplog.records] == ["mine"]


class TestSilence:
    def test_is_kept_unless_somebody_asks(self, caplog):
        """The default of the standard library shows warnings, and refusals are none."""
        by_default(caplog)
        rejects = Rejects()

        rejects.refused(Refusal("bad-host", ("192.0.2.1", 80)))

        assert caplog.records == []
        assert rejects.counts.snapshot() == {"bad-host": 1}

    def test_does_not_look_at_what_it_would_tell(self, caplog):
        by_default(caplog)

        class Peer:
            def __str__(self) -> str:
                raise AssertionError("nobody reads it")

        Rejects().refused(Refusal("bad-host", Peer()))

    def test_is_not_ordered_by_the_package(self):
        """Levels are the affair of whoever configures logging."""
        program = (
            "import logging, waitress.rejects\n"
            "logger = logging.getLogger('waitress.reject')\n"
            "print(logger is waitress.rejects.reject_logger, logger.level, logger.handlers)\n"
        )

        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
        )

        assert done.stdout == "True 0 []\n"


class TestEscaping:
    @pytest.mark.parametrize(
        ("sample", "text"),
        [
            (b"GET / HTTP/1.1", "GET / HTTP/1.1"),
            (b'a"b\\c', 'a\\"b\\\\c'),
            (b"\r\n\t\0\x1b[31m\x7f\x85\xff", "\\r\\n\\t\\x00\\x1b[31m\\x7f\\x85\\xff"),
            ("\x85\xa0\u2028\ud800", "\\x85\\xa0\\u2028\\ud800"),
            (b"\\", "\\\\"),
            (b'\\"', '\\\\\\"'),
        ],
    )
    def test_leaves_nothing_but_printable_ascii(self, sample, text):
        assert escaped(sample) == text

    @given(
        reason=st.text(max_size=200),
        peer=st.one_of(st.text(max_size=200), st.tuples(st.text(max_size=200), st.text())),
        sample=st.one_of(st.binary(max_size=400), st.text(max_size=400)),
    )
    def test_keeps_any_client_within_one_line_of_the_known_form(
        self, reason: str, peer: Any, sample: bytes | str
    ):
        class Keeping(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                records.append(record)

        records: list[logging.LogRecord] = []
        handler = Keeping()
        logger = logging.getLogger("waitress.reject.alone")
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        try:
            Rejects(logger).refused(Refusal(reason, peer, 1, 2, sample))
        finally:
            logger.removeHandler(handler)

        text = records[0].getMessage()
        assert text.isascii()
        assert text.isprintable()
        assert len(text) < 5000
        form = (
            r'refused: reason=\S+ peer=\S+ channel=1 request=2 sample="(?:[^"\\]|\\.)*"(?:\.\.\.)?'
        )
        assert re.fullmatch(form, text)
