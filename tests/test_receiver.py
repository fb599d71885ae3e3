from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.feeding import CUTS, assert_linear, feed, feed_cut
from waitress.buffers import OverflowableBuffer
from waitress.receiver import (
    MAX_CHUNK_LINE_BYTES,
    MAX_CHUNK_OVERHEAD_BYTES,
    TRANSITIONS,
    ChunkedReceiver,
    FixedStreamReceiver,
    ReceiverState,
)

SIZE_LINE = ReceiverState.SIZE_LINE
DATA = ReceiverState.DATA
DATA_CRLF = ReceiverState.DATA_CRLF
TRAILERS = ReceiverState.TRAILERS
COMPLETE = ReceiverState.COMPLETE
FAILED = ReceiverState.FAILED


class Pieces:
    """A buffer that keeps the pieces it was given."""

    def __init__(self):
        self.pieces = []

    def append(self, s):
        self.pieces.append(s)

    def getfile(self):
        return self

    def __len__(self):
        return sum(len(piece) for piece in self.pieces)


def new_buffer():
    # Never reaches a file: that is the buffer's affair.
    return OverflowableBuffer(1 << 30)


def content(receiver):
    return receiver.getfile().read()


def new_receiver(**limits):
    return ChunkedReceiver(new_buffer(), **limits)


class TestFixedStreamReceiver:
    @pytest.mark.parametrize("cut", CUTS)
    def test_takes_its_length_and_not_an_octet_more(self, cut):
        receiver = FixedStreamReceiver(10, new_buffer())
        assert feed_cut(receiver, b"0123456789", cut) == 10
        assert receiver.completed
        assert receiver.error is None
        assert content(receiver) == b"0123456789"

    def test_is_not_complete_one_octet_early(self):
        receiver = FixedStreamReceiver(10, new_buffer())
        assert receiver.received(b"012345678") == 9
        assert not receiver.completed
        assert receiver.remain == 1

    def test_takes_nothing_when_complete(self):
        receiver = FixedStreamReceiver(1, new_buffer())
        receiver.received(b"a")
        assert receiver.received(b"b") == 0
        assert content(receiver) == b"a"

    def test_of_length_zero_completes_without_taking_anything(self):
        receiver = FixedStreamReceiver(0, new_buffer())
        assert receiver.received(b"a") == 0
        assert receiver.completed

    def test_hands_on_each_piece_once_and_uncopied_where_it_is_all_body(self):
        buffer = Pieces()
        receiver = FixedStreamReceiver(6, buffer)
        first, second = b"abc", b"def"
        receiver.received(first)
        receiver.received(second)
        assert buffer.pieces[0] is first
        assert buffer.pieces[1] is second
        assert len(receiver) == 6

    def test_takes_any_sequence_that_can_be_sliced(self):
        buffer = Pieces()
        receiver: Any = FixedStreamReceiver(2, buffer)
        assert receiver.received((1, 2, 3)) == 2
        assert buffer.pieces == [(1, 2)]

    def test_gives_buffer_and_file(self):
        buffer = new_buffer()
        receiver = FixedStreamReceiver(2, buffer)
        receiver.received(b"ab")
        assert receiver.getbuf() is buffer
        assert receiver.getfile() is buffer.getfile()


GOOD_BODIES = [
    pytest.param(b"0\r\n\r\n", b"", id="empty"),
    pytest.param(b"3\r\nabc\r\n0\r\n\r\n", b"abc", id="one chunk"),
    pytest.param(b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", b"abc", id="two chunks"),
    pytest.param(b"0003\r\nabc\r\n000\r\n\r\n", b"abc", id="leading zeros"),
    pytest.param(b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789", id="lower-case digit"),
    pytest.param(b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789", id="upper-case digit"),
    pytest.param(b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n", id="content of CRLFs"),
    pytest.param(b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n", id="content like a last chunk"),
    pytest.param(b"3;a\r\nabc\r\n0;b\r\n\r\n", b"abc", id="extension"),
    pytest.param(b'3;a="\\";\xff"\r\nabc\r\n0\r\n\r\n', b"abc", id="quoted extension"),
    pytest.param(b"3 ; a = b\r\nabc\r\n0\r\n\r\n", b"abc", id="bad white space in an extension"),
    pytest.param(b"3\r\nabc\r\n0\r\nA: b\r\nc:\r\n\r\n", b"abc", id="trailers"),
    pytest.param(b"0\r\nX_Y: z\r\n\r\n", b"", id="trailer with underscore"),
]

BAD_BODIES = [
    pytest.param(b"\r\n", "bad-chunk-size", id="no size"),
    pytest.param(b"x\r\n", "bad-chunk-size", id="no digit"),
    pytest.param(b"3\n\r\nabc", "bad-chunk-size", id="LF in front of CRLF"),
    pytest.param(b"3\nabc\n0\n\n\r\n", "bad-chunk-size", id="LF as line end"),
    pytest.param(b"3\rabc\r\n", "bad-chunk-size", id="CR as line end"),
    pytest.param(b"+3\r\n", "bad-chunk-size", id="plus"),
    pytest.param(b"-3\r\n", "bad-chunk-size", id="minus"),
    pytest.param(b"0x3\r\n", "bad-chunk-size", id="prefix"),
    pytest.param(b"1_0\r\n", "bad-chunk-size", id="underscore"),
    pytest.param(b" 3\r\n", "bad-chunk-size", id="blank in front"),
    pytest.param(b"3 \r\n", "bad-chunk-size", id="blank behind"),
    pytest.param(b"3\t\r\n", "bad-chunk-size", id="tab behind"),
    pytest.param(b"3 3\r\n", "bad-chunk-size", id="two sizes"),
    pytest.param(b"\xb2\r\n", "bad-chunk-size", id="superscript digit"),
    pytest.param(b"3\x00\r\n", "bad-chunk-size", id="NUL"),
    pytest.param(b";a\r\n", "bad-chunk-size", id="extension without size"),
    pytest.param(b" ;a\r\n", "bad-chunk-size", id="blank and extension without size"),
    pytest.param(b"3;\r\n", "bad-chunk-extension", id="empty extension"),
    pytest.param(b"3;a\n\r\n", "bad-chunk-extension", id="LF behind an extension"),
    pytest.param(b"3;a\nabc\r\n", "bad-chunk-extension", id="LF inside an extension"),
    pytest.param(b"3;a\rb\r\n", "bad-chunk-extension", id="CR inside an extension"),
    pytest.param(b'3;a="\r\n', "bad-chunk-extension", id="open string"),
    pytest.param(b"3;a b\r\n", "bad-chunk-extension", id="blank inside an extension"),
    pytest.param(b"3;a=\x00\r\n", "bad-chunk-extension", id="NUL in an extension"),
    pytest.param(b"3\r\nabcd\r\n", "bad-chunk-end", id="content longer than said"),
    pytest.param(b"3\r\nabc\n0\r\n", "bad-chunk-end", id="LF behind the content"),
    pytest.param(b"3\r\nabc\rx", "bad-chunk-end", id="CR behind the content"),
    pytest.param(b"3\r\nabc\r\r\n", "bad-chunk-end", id="two CR behind the content"),
    pytest.param(b"3\r\nabc0\r\n\r\n", "bad-chunk-end", id="nothing behind the content"),
    pytest.param(b"0\r\na\r\n\r\n", "trailer-bad-field-name", id="trailer without colon"),
    pytest.param(b"0\r\na : b\r\n\r\n", "trailer-bad-field-name", id="blank before the colon"),
    pytest.param(b"0\r\na: \x00\r\n\r\n", "trailer-bad-field-value", id="NUL in a trailer"),
    pytest.param(b"0\r\na: b\r\n c\r\n\r\n", "trailer-obs-fold", id="folded trailer"),
    pytest.param(b"0\r\na: b\nc: d\r\n\r\n", "trailer-bare-cr-lf", id="LF in a trailer"),
    pytest.param(b"0\r\n\n\r\n\r\n", "trailer-bare-cr-lf", id="LF before the trailers"),
    pytest.param(b"0\r\nGET / HTTP/1.1\r\n\r\n", "trailer-bad-field-name", id="a request"),
    pytest.param(b"0\r\nContent-Length: 5\r\n\r\n", "forbidden-trailer", id="length"),
    pytest.param(b"0\r\nx: y\r\nTRANSFER-ENCODING: chunked\r\n\r\n", "forbidden-trailer", id="TE"),
    pytest.param(b"0\r\nhost: a\r\n\r\n", "forbidden-trailer", id="host"),
    pytest.param(b"0\r\nAuthorization: a\r\n\r\n", "forbidden-trailer", id="authorization"),
]


class TestChunkedReceiver:
    @pytest.mark.parametrize("cut", CUTS)
    @pytest.mark.parametrize(("body", "expected"), GOOD_BODIES)
    def test_decodes_a_well_formed_body_and_takes_nothing_behind_it(self, body, expected, cut):
        receiver = new_receiver()
        assert feed_cut(receiver, body, cut) == len(body)
        assert receiver.state is COMPLETE
        assert receiver.completed
        assert receiver.error is None
        assert content(receiver) == expected
        assert len(receiver) == len(expected)

    @pytest.mark.parametrize("cut", CUTS)
    @pytest.mark.parametrize(("body", "reason"), BAD_BODIES)
    def test_refuses_a_malformed_body_and_loses_all_that_follows(self, body, reason, cut):
        receiver = new_receiver()
        feed_cut(receiver, body, cut)
        assert receiver.state is FAILED
        assert receiver.error.reject_reason == reason
        assert receiver.error.code == 400
        assert not receiver.completed
        assert receiver.all_chunks_received
        stored = len(receiver)
        assert receiver.received(b"0\r\n\r\nGET / HTTP/1.1") == 19
        assert receiver.state is FAILED
        assert len(receiver) == stored

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            (b"x\r\n", "Invalid chunk size"),
            (b"3;\r\n", "Invalid chunk extension"),
            (b"x;\r\n", "Invalid chunk extension"),
            (b"3\r\nabcd\r\n", "Chunk not properly terminated"),
            (b"0\r\na\r\n\r\n", "Invalid trailer"),
            (b"0\r\nHost: a\r\n\r\n", "Forbidden trailer"),
        ],
    )
    def test_tells_the_client_what_was_wrong(self, body, text):
        receiver = new_receiver()
        assert receiver.received(body) == len(body)
        assert receiver.error.body == text

    @pytest.mark.parametrize("body", [b"3\r\nabc\r\n0\r\n\r\n", b"0\r\na: b\r\n\r\n"])
    def test_is_complete_with_the_last_octet_and_not_before(self, body):
        for size in range(1, len(body)):
            receiver = new_receiver()
            assert feed(receiver, body[:-1], size) == len(body) - 1
            assert not receiver.completed
            assert receiver.received(body[-1:]) == 1
            assert receiver.completed

    def test_takes_nothing_when_complete(self):
        receiver = new_receiver()
        receiver.received(b"0\r\n\r\n")
        assert receiver.received(b"3\r\nabc\r\n") == 0
        assert len(receiver) == 0

    def test_takes_nothing_from_nothing(self):
        receiver = new_receiver()
        assert receiver.received(b"") == 0
        assert receiver.state is SIZE_LINE

    def test_trailer_section_is_kept_as_it_came_with_its_empty_line(self):
        receiver = new_receiver()
        receiver.received(b"0\r\na: b\r\nc: d\r\n\r\n")
        assert receiver.trailer == b"a: b\r\nc: d\r\n\r\n"

    def test_no_trailer_section_leaves_none(self):
        receiver = new_receiver()
        receiver.received(b"0\r\n\r\n")
        assert receiver.trailer == b""

    def test_content_is_handed_on_as_it_arrives(self):
        buffer = Pieces()
        receiver = ChunkedReceiver(buffer)
        receiver.received(b"6\r\nabc")
        assert buffer.pieces == [b"abc"]
        receiver.received(b"def")
        assert buffer.pieces == [b"abc", b"def"]

    def test_a_piece_that_is_all_content_is_not_copied(self):
        buffer = Pieces()
        receiver = ChunkedReceiver(buffer)
        receiver.received(b"ff\r\n")
        piece = bytes(b"a" * 100)
        receiver.received(piece)
        assert buffer.pieces[0] is piece

    def test_gives_buffer_and_file(self):
        buffer = new_buffer()
        receiver = ChunkedReceiver(buffer)
        receiver.received(b"1\r\na")
        assert receiver.getbuf() is buffer
        assert receiver.getfile() is buffer.getfile()

    @pytest.mark.parametrize(("data", "remainder"), [(b"4;discard\r\n", 4), (b"a;discard\r\n", 10)])
    def test_tells_how_much_of_the_chunk_is_to_come(self, data, remainder):
        receiver = new_receiver()
        receiver.received(data)
        assert receiver.chunk_remainder == remainder
        assert not receiver.all_chunks_received


# Octets that lead to each state, octets that are the event there, and the state after.
STATE_TABLE = [
    (b"", b"3", SIZE_LINE),
    (b"", b"3\r", SIZE_LINE),
    (b"", b"3\r\n", DATA),
    (b"", b"0\r\n", TRAILERS),
    (b"", b"x\r\n", FAILED),
    (b"3\r\n", b"ab", DATA),
    (b"3\r\n", b"abc", DATA_CRLF),
    (b"3\r\nabc", b"\r", DATA_CRLF),
    (b"3\r\nabc", b"\r\n", SIZE_LINE),
    (b"3\r\nabc", b"x", FAILED),
    (b"3\r\nabc\r", b"x", FAILED),
    (b"0\r\n", b"\r", TRAILERS),
    (b"0\r\n", b"a: b\r\n", TRAILERS),
    (b"0\r\n", b"\r\n", COMPLETE),
    (b"0\r\n", b"a: b\r\n\r\n", COMPLETE),
    (b"0\r\n", b"a\r\n\r\n", FAILED),
    (b"0\r\n\r\n", b"3\r\n", COMPLETE),
    (b"x\r\n", b"3\r\n", FAILED),
]


class TestStates:
    @pytest.mark.parametrize(("before", "event", "after"), STATE_TABLE)
    def test_event_leads_to_the_state_of_the_table(self, before, event, after):
        receiver = new_receiver()
        receiver.received(before)
        begun = receiver.state
        receiver.received(event)
        assert receiver.state is after
        assert after is begun or after in TRANSITIONS[begun]

    def test_every_allowed_transition_has_a_row(self):
        seen = set()
        for before, _, after in STATE_TABLE:
            receiver = new_receiver()
            receiver.received(before)
            seen.add((receiver.state, after))
        assert seen >= {(old, new) for old, new in transitions()}

    @pytest.mark.parametrize(("before", "event", "after"), STATE_TABLE)
    def test_flags_of_older_releases_follow_the_state(self, before, event, after):
        receiver = new_receiver()
        receiver.received(before)
        receiver.received(event)
        assert receiver.completed is (after is COMPLETE)
        assert receiver.all_chunks_received is (after in (TRAILERS, COMPLETE, FAILED))
        assert receiver.validate_chunk_end is (after is DATA_CRLF)
        assert (receiver.error is not None) is (after is FAILED)

    def test_parts_of_lines_are_told(self):
        receiver = new_receiver()
        receiver.received(b"3;a\r")
        assert receiver.control_line == b"3;a\r"
        receiver.received(b"\nabc\r")
        assert receiver.control_line == b""
        assert receiver.chunk_end == b"\r"
        receiver.received(b"\n")
        assert receiver.chunk_end == b""


def transitions():
    return [(old, new) for old, followers in TRANSITIONS.items() for new in followers]


class TestLimits:
    @pytest.mark.parametrize("cut", CUTS)
    def test_chunk_size_line_of_the_greatest_length_passes(self, cut):
        line = b"0" * (MAX_CHUNK_LINE_BYTES - 1) + b"1"
        receiver = new_receiver()
        feed_cut(receiver, line + b"\r\na\r\n0\r\n\r\n", cut)
        assert receiver.completed
        assert content(receiver) == b"a"

    @pytest.mark.parametrize("cut", CUTS)
    @pytest.mark.parametrize("line", [b"0" * MAX_CHUNK_LINE_BYTES, b"1;" + b"a" * 4095])
    def test_a_longer_one_is_refused(self, line, cut):
        receiver = new_receiver()
        feed_cut(receiver, line + b"1\r\na\r\n0\r\n\r\n", cut)
        assert receiver.error.reject_reason == "chunk-line-too-long"
        assert receiver.error.code == 400

    @pytest.mark.parametrize("size", [1, 7, 100000])
    def test_a_line_without_end_is_refused_before_it_ends(self, size):
        receiver = new_receiver()
        feed(receiver, b"1" * (MAX_CHUNK_LINE_BYTES + 10), size)
        assert receiver.error.reject_reason == "chunk-line-too-long"

    def test_line_that_grows_too_long_in_its_last_piece_is_refused(self):
        receiver = new_receiver()
        receiver.received(b"0" * MAX_CHUNK_LINE_BYTES)
        receiver.received(b"1\r\na\r\n0\r\n\r\n")
        assert receiver.error.reject_reason == "chunk-line-too-long"

    @pytest.mark.parametrize("cut", CUTS)
    def test_extensions_are_bounded_in_sum(self, cut):
        chunk = b"1;" + b"a" * 998 + b"\r\nb\r\n"
        allowed = MAX_CHUNK_OVERHEAD_BYTES // (998 + 2 + 2 - 16 - 2)
        receiver = new_receiver()
        feed_cut(receiver, chunk * allowed + b"0\r\n\r\n", cut)
        assert receiver.completed
        receiver = new_receiver()
        feed_cut(receiver, chunk * (allowed + 1), cut)
        assert receiver.error.reject_reason == "chunk-overhead"
        assert receiver.error.code == 400
        assert len(receiver) == allowed

    def test_extensions_in_proportion_to_the_content_pass(self):
        signature = b"10000;chunk-signature=" + b"0" * 64 + b"\r\n" + b"a" * 65536 + b"\r\n"
        receiver = new_receiver()
        assert feed(receiver, signature * 300 + b"0\r\n\r\n", 1 << 20)
        assert receiver.completed

    def test_content_earns_no_credit_for_later(self):
        receiver = new_receiver()
        receiver.received(b"100000\r\n" + b"a" * 0x100000 + b"\r\n")
        chunk = b"1;" + b"a" * 998 + b"\r\nb\r\n"
        receiver.received(chunk * 17)
        assert receiver.error.reject_reason == "chunk-overhead"

    def test_small_chunks_without_extensions_are_no_overhead(self):
        receiver = new_receiver()
        feed(receiver, b"1\r\na\r\n" * 20000 + b"0\r\n\r\n", 1 << 20)
        assert receiver.completed

    @pytest.mark.parametrize("cut", CUTS)
    @pytest.mark.parametrize("body", [b"a\r\n", b"5\r\n01234\r\n5\r\n", b"f" * 1000 + b"\r\n"])
    def test_content_of_the_limit_is_refused_when_announced(self, body, cut):
        receiver = new_receiver(max_body=10)
        feed_cut(receiver, body, cut)
        assert receiver.error.reject_reason == "body-too-large"
        assert receiver.error.code == 413
        assert receiver.error.body == "exceeds max_body of 10"

    def test_content_below_the_limit_passes(self):
        receiver = new_receiver(max_body=10)
        receiver.received(b"5\r\n01234\r\n4\r\n5678\r\n0\r\n\r\n")
        assert receiver.completed

    @pytest.mark.parametrize("cut", CUTS)
    def test_trailer_section_of_the_limit_is_refused(self, cut):
        receiver = new_receiver(max_trailer_bytes=100)
        feed_cut(receiver, b"0\r\na: " + b"b" * 93 + b"\r\n\r\n", cut)
        assert receiver.error.reject_reason == "trailers-too-large"
        assert receiver.error.code == 431
        assert receiver.error.body == "exceeds max_header of 100"

    @pytest.mark.parametrize("cut", CUTS)
    def test_trailer_section_below_the_limit_passes(self, cut):
        receiver = new_receiver(max_trailer_bytes=100)
        feed_cut(receiver, b"0\r\na: " + b"b" * 92 + b"\r\n\r\n", cut)
        assert receiver.completed

    @pytest.mark.parametrize("size", [1, 9, 5000])
    def test_trailer_section_without_end_is_refused_before_it_ends(self, size):
        receiver = new_receiver(max_trailer_bytes=100)
        feed(receiver, b"0\r\na: " + b"b" * 1000, size)
        assert receiver.error.reject_reason == "trailers-too-large"

    @pytest.mark.parametrize("cut", CUTS)
    def test_trailer_fields_are_counted(self, cut):
        receiver = new_receiver(max_trailer_fields=3)
        feed_cut(receiver, b"0\r\n" + b"a: b\r\n" * 3 + b"\r\n", cut)
        assert receiver.completed
        receiver = new_receiver(max_trailer_fields=3)
        feed_cut(receiver, b"0\r\n" + b"a: b\r\n" * 4 + b"\r\n", cut)
        assert receiver.error.reject_reason == "too-many-trailers"
        assert receiver.error.code == 431


FRAGMENTS = [b"0", b"1", b"3", b"a", b"abc", b";", b"=", b'"', b":", b" ", b"\r", b"\n", b"\r\n"]
FRAGMENTS += [b"1\r\na\r\n", b"3\r\nabc\r\n", b"0\r\n", b"0\r\n\r\n", b"x: y\r\n"]


class TestCuts:
    @given(
        st.lists(
            st.sampled_from(FRAGMENTS),
            max_size=12,
        ).map(b"".join),
        st.lists(st.integers(min_value=1, max_value=9), min_size=1),
    )
    def test_any_cut_gives_the_same_result(self, body, sizes):
        whole = new_receiver(max_body=50, max_trailer_bytes=30)
        used_whole = whole.received(body)
        cut = new_receiver(max_body=50, max_trailer_bytes=30)
        used_cut = 0
        while used_cut < len(body) and not cut.completed:
            size = sizes[used_cut % len(sizes)]
            used_cut += cut.received(body[used_cut : used_cut + size])
        assert used_cut == used_whole
        assert cut.state is whole.state
        assert content(cut) == content(whole)
        assert cut.trailer == whole.trailer
        if whole.error:
            assert cut.error.reject_reason == whole.error.reject_reason

    @given(st.lists(st.binary(min_size=1, max_size=40)), st.binary())
    def test_what_was_written_in_chunks_is_read_back(self, chunks, tail):
        body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
        receiver = new_receiver()
        assert receiver.received(body + b"0\r\n\r\n" + tail) == len(body) + 5
        assert content(receiver) == b"".join(chunks)


class TestLinearTime:
    def test_small_chunks(self):
        def work(n):
            new_receiver().received(b"1\r\na\r\n" * n)

        assert_linear(work, 1000)

    def test_content_by_the_octet(self):
        def work(n):
            feed(ChunkedReceiver(Pieces()), b"ffffff\r\n" + b"a" * n, 1)

        assert_linear(work, 4000)

    def test_trailers_by_the_octet(self):
        def work(n):
            receiver = new_receiver(max_trailer_bytes=1 << 24)
            feed(receiver, b"0\r\na: " + b"b" * n, 1)

        assert_linear(work, 8192)

    def test_trailers_of_many_lines(self):
        def work(n):
            receiver = ChunkedReceiver(
                new_buffer(), max_trailer_bytes=1 << 24, max_trailer_fields=1 << 24
            )
            receiver.received(b"0\r\n" + b"a: b\r\n" * n + b"\r\n")
            assert receiver.completed

        assert_linear(work, 4000)

    def test_chunk_size_lines_without_end(self):
        def work(n):
            receiver = new_receiver()
            feed(receiver, b"0" * n, 1)

        assert_linear(work, 8192)

    def test_fixed_body_by_the_octet(self):
        def work(n):
            feed(FixedStreamReceiver(n, Pieces()), b"a" * n, 1)

        assert_linear(work, 4000)
