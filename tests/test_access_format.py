"""Lines of the access log: what they look like, and that nobody can forge one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.timelines import make_timeline, refused_timeline
from waitress.access_format import ATOMS, NAMED, VALUE_CHARACTERS, _Escaping, make_format
from waitress.timeline import Timeline

#: As the usual parsers have it, which know nothing of escapes.
COMBINED = re.compile(
    r'(?P<h>\S+) (?P<l>\S+) (?P<u>\S+) \[(?P<t>[^\]]+)\] "(?P<r>[^"]*)" '
    r'(?P<s>\d{3}) (?P<b>\d+|-) "(?P<f>[^"]*)" "(?P<a>[^"]*)"'
)
TAIL = re.compile(r" total_us=(\S+) queued_us=(\S+) app_us=(\S+) send_us=(\S+) end=(\S+)")

ANY_TEXT = st.one_of(
    st.text(max_size=30),
    st.text(alphabet='"\\ -%x20[]\r\n\t\x00\x7f\x85\xa0\u2028\u2029\ud800\U0001f600é', max_size=30),
)


def line_of(text: str, timeline: Timeline) -> str:
    form = make_format(text)
    return form.render(timeline, form.capture(timeline))


def original(escaped: str) -> str | None:
    """Return the value that was escaped; ``None`` where there was none."""
    if escaped == "-":
        return None
    return re.sub(
        r"\\(?:x(..)|u(....)|U(........))",
        lambda found: chr(int(found[1] or found[2] or found[3], 16)),
        escaped,
    )


class TestNamedFormats:
    def test_common(self):
        line = line_of("common", make_timeline(environ={"REMOTE_USER": "alice"}))
        assert re.sub(r"\[.*\]", "[TIME]", line) == (
            '192.0.2.1 - alice [TIME] "GET /p?q=1 HTTP/1.1" 200 5'
            " total_us=2500 queued_us=400 app_us=1000 send_us=600 end=--"
        )

    def test_combined(self):
        line = line_of("combined", make_timeline(environ={"REMOTE_ADDR": "203.0.113.9"}))
        assert re.sub(r"\[.*\]", "[TIME]", line) == (
            '203.0.113.9 - - [TIME] "GET /p?q=1 HTTP/1.1" 200 5 "http://b.example/" "curl/8"'
            " total_us=2500 queued_us=400 app_us=1000 send_us=600 end=--"
        )

    def test_combined_of_a_request_that_never_was_complete(self):
        line = line_of("combined", refused_timeline())
        assert re.sub(r"\[.*\]", "[TIME]", line) == (
            '192.0.2.1 - - [TIME] "-" 000 - "-" "-"'
            " total_us=500000 queued_us=- app_us=- send_us=- end=CH"
        )

    def test_json(self):
        line = line_of("json", make_timeline(environ={"REMOTE_ADDR": "203.0.113.9"}))
        assert json.loads(line) == {
            "time": "2026-02-09T13:55:36.250000Z",
            "remote_addr": "203.0.113.9",
            "peer": "192.0.2.1:4711",
            "user": None,
            "method": "GET",
            "path": "/p",
            "query": "q=1",
            "protocol": "HTTP/1.1",
            "status": 200,
            "body_bytes": 5,
            "bytes_in": 80,
            "bytes_out": 50,
            "referer": "http://b.example/",
            "user_agent": "curl/8",
            "x_request_id": None,
            "traceparent": None,
            "total_us": 2500,
            "receiving_us": 200,
            "queued_us": 400,
            "app_us": 1000,
            "send_us": 600,
            "end": "--",
            "refusal": None,
            "request_id": 7,
            "channel_id": 3,
            "worker": 140,
        }

    def test_json_of_a_request_that_never_was_complete(self):
        told = json.loads(line_of("json", refused_timeline()))
        assert told["status"] is None
        assert told["method"] is None
        assert told["end"] == "CH"
        whole = json.loads(line_of("json", make_timeline()))
        assert list(told) == list(whole), "a line has the same names whatever happened"


class TestAtoms:
    def test_may_stand_anywhere(self):
        assert line_of("%(m)s%(s)s<%(U)s>%% \u20ac", make_timeline()) == "GET200</p>% \u20ac"

    def test_have_request_and_response_fields_and_the_environ(self):
        timeline = make_timeline(
            headers={"X_REQUEST_ID": "abc"},
            response_headers=[("Set-Cookie", "a"), ("X", "y"), ("set-cookie", "b")],
            environ={"wsgi.url_scheme": "https", "n": 7},
        )
        text = (
            '%({x-request-id}i)s %({X-Request-Id}i)s %({host}i)s "%({set-cookie}o)s" %({y}o)s '
            "%({wsgi.url_scheme}e)s %({n}e)s %({none}e)s"
        )
        assert line_of(text, timeline) == 'abc abc - "a, b" - https 7 -'

    def test_have_the_environ_as_it_was_when_the_request_ended(self):
        form = make_format("%(h)s %({k}e)s")
        timeline = make_timeline(environ={"REMOTE_ADDR": "203.0.113.9", "k": "v"})
        capture = form.capture(timeline)
        timeline.environ = None
        assert form.render(timeline, capture) == "203.0.113.9 v"

    def test_are_all_known(self):
        text = " ".join(f"%({atom})s" for atom in ATOMS)
        assert len(line_of(text, make_timeline()).split(" ")) == len(ATOMS) + 3, (
            "the time has a blank, the request line has two"
        )

    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ("%(x)s", "there is no atom %(x)s"),
            ("%(h)s %({a}x)s", "there is no atom %({a}x)s"),
            ("%(h)s %({}i)s", "there is no atom %({}i)s"),
            ("%(h)d", "there is no atom %(h)d"),
            ("%(h", "there is no atom %(h"),
            ("%(h)s %", "the percent sign at position 6 begins no atom; write %% for itself"),
            ("%h", "the percent sign at position 0 begins no atom; write %% for itself"),
            ("combnied", "there is no atom, such as %(h)s, and no format of that name"),
            ("100%%", "there is no atom, such as %(h)s, and no format of that name"),
            ("", "there is no atom, such as %(h)s, and no format of that name"),
            ("%(h)s\n%(s)s", "there is a control character at position 5"),
            ("%(h)s\u2028", "there is a control character at position 5"),
        ],
    )
    def test_that_are_wrong_are_named(self, text, error):
        with pytest.raises(ValueError) as raised:
            make_format(text)
        assert str(raised.value) == error


class TestEscapes:
    @pytest.mark.parametrize(
        ("agent", "shown"),
        [
            ("a b", "a b"),
            ('"', "\\x22"),
            ("\\", "\\x5c"),
            ("\r\n\t\x00\x7f", "\\x0d\\x0a\\x09\\x00\\x7f"),
            ("\xe9\u2028\U0001f600\ud800", "\\xe9\\u2028\\U0001f600\\ud800"),
            ("-", "\\x2d"),
            ("--", "--"),
            ("", "-"),
        ],
    )
    def test_leave_nothing_that_ends_a_value_in_quotes(self, agent, shown):
        timeline = make_timeline(headers={"USER_AGENT": agent})
        assert line_of('"%(a)s"', timeline) == f'"{shown}"'

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("%(a)s", "a\\x20b|c]%:d"),
            ("%(a)s|%(s)s", "a\\x20b\\x7cc]%:d|200"),
            ("[%(a)s]", "[a\\x20b|c\\x5d%:d]"),
            ("%(a)s%% %(s)s", "a\\x20b|c]\\x25:d% 200"),
            ("%(a)s%(s)s", "a\\x20b|c]%:d200"),
            ("%(a)sb", "a\\x20b|c]%:db"),
            ("%(a)s\\%(s)s", "a\\x20b|c]%:d\\200"),
            ('"%(a)s %(s)s"', '"a\\x20b|c]%:d 200"'),
            ("%(s)s|%(a)s", "200|a\\x20b\\x7cc]%:d"),
            ('"%(a)s" %(a)s', '"a b|c]%:d" a\\x20b|c]%:d'),
        ],
    )
    def test_fit_the_place_where_a_value_stands(self, text, shown):
        assert line_of(text, make_timeline(headers={"USER_AGENT": "a b|c]%:d"})) == shown

    def test_keep_the_words_of_a_request_line_apart(self):
        timeline = make_timeline(method="G T", path='/ "x', query="")
        assert line_of('"%(r)s"', timeline) == '"G\\x20T /\\x20\\x22x HTTP/1.1"'

    @pytest.mark.parametrize("text", ["json", '"%(a)s"', '"%(r)s"', '"%({user-agent}i)s"'])
    def test_come_behind_a_limit(self, text):
        long = "a" * (VALUE_CHARACTERS + 1)
        timeline = make_timeline(headers={"USER_AGENT": long}, path=long)
        line = line_of(text, timeline)
        assert "a" * VALUE_CHARACTERS + "..." in line
        assert "a" * (VALUE_CHARACTERS + 1) not in line

    @given(
        user=ANY_TEXT,
        address=ANY_TEXT,
        method=ANY_TEXT,
        path=ANY_TEXT,
        referer=st.one_of(st.none(), ANY_TEXT),
        agent=st.one_of(st.none(), ANY_TEXT),
        termination=ANY_TEXT,
    )
    def test_let_a_combined_line_be_read_back(
        self, user, address, method, path, referer, agent, termination
    ):
        headers = {"REFERER": referer, "USER_AGENT": agent}
        timeline = make_timeline(
            environ={"REMOTE_USER": user, "REMOTE_ADDR": address},
            method=method,
            path=path,
            query="",
            headers={name: value for name, value in headers.items() if value is not None},
            termination=termination,
        )
        line = line_of("combined", timeline)
        assert line.isascii()
        assert line.isprintable()
        found = COMBINED.match(line)
        assert found is not None
        assert original(found["u"]) == (user or None)
        assert original(found["h"]) == (address or "192.0.2.1")
        assert original(found["f"]) == (referer or None)
        assert original(found["a"]) == (agent or None)
        assert (found["s"], found["b"]) == ("200", "5")
        words = found["r"].split(" ")
        expected = [method, path, "HTTP/1.1"] if method else ["-"]
        if method:
            # A word alone is never taken for nothing.
            assert [original(word) for word in words] == [word for word in expected if word]
        else:
            assert words == expected
        tail = TAIL.fullmatch(line, found.end())
        assert tail is not None
        assert tail.groups()[:4] == ("2500", "400", "1000", "600")
        assert original(tail[5]) == (termination or None)

    @given(user=ANY_TEXT, path=ANY_TEXT, query=ANY_TEXT, agent=ANY_TEXT, request_id=ANY_TEXT)
    def test_let_a_line_of_json_be_read_back(self, user, path, query, agent, request_id):
        timeline = make_timeline(
            environ={"REMOTE_USER": user},
            path=path,
            query=query,
            headers={"USER_AGENT": agent, "X_REQUEST_ID": request_id},
        )
        line = line_of("json", timeline)
        assert line.isascii()
        assert line.isprintable()
        told = json.loads(line)
        assert told["user"] == user
        assert told["path"] == (path or None)
        assert told["query"] == (query or None)
        assert told["user_agent"] == agent
        assert told["x_request_id"] == request_id

    @example(values=["", "", ";"], separator=";")
    @given(
        values=st.lists(ANY_TEXT, min_size=3, max_size=3),
        separator=st.sampled_from([" ", "\t", "|", ";", ", ", "] [", " - ", ":", "'", "%%"]),
    )
    def test_let_fields_of_ones_own_be_read_back(self, values: list[Any], separator: str):
        timeline = make_timeline(headers={"A": values[0], "B": values[1], "C": values[2]})
        line = line_of(separator.join(f"%({{{name}}}i)s" for name in "abc"), timeline)
        fields = line.split(separator.replace("%%", "%"))
        assert [original(field) for field in fields] == [value or None for value in values]


def test_the_formats_with_a_name_are_made_of_atoms():
    for name, text in NAMED.items():
        assert line_of(name, make_timeline()) == line_of(text, make_timeline())


def manual() -> str:
    return (Path(__file__).parent.parent / "docs" / "observability_access_log.rst").read_text()


def test_the_samples_of_the_manual_are_lines() -> None:
    served = make_timeline(
        environ={"REMOTE_ADDR": "203.0.113.9"},
        path="/basket",
        query="item=7",
        headers={
            "REFERER": "https://shop.example/",
            "USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64)",
        },
    )
    lines = [line_of(name, served) for name in ("common", "combined", "json")]
    for line in (*lines, line_of("combined", refused_timeline())):
        # The time is local.
        before, _, after = line.partition("[")
        ending = after.partition("]")[2]
        assert f"\n      {before}" in manual()
        assert f"{ending}\n" in manual()


def test_the_atoms_of_the_manual_are_all_there_are() -> None:
    table = manual().split("     - Value\n")[1].split("   * - ``%({name}i)s``")[0]
    shown = re.findall(r"   \* - ``%\((\w+)\)s``\n     - (.*)\n", table)
    assert shown == list(ATOMS.items())


class TestARememberedValue:
    def test_is_escaped_as_the_place_wants_where_it_stands(self):
        timeline = make_timeline(headers={"USER_AGENT": "a;b c"})
        for _ in range(2):
            assert line_of("%(a)s|%(U)s;", timeline) == "a\\x3bb\\x20c|/p;"
            assert line_of('"%(a)s" %(U)s', timeline) == '"a;b c" /p'

    def test_is_not_kept_for_ever(self):
        escape = _Escaping("]")
        for number in range(1000):
            assert escape[f"[{number}]"] == f"[{number}\\x5d"
        assert 0 < len(escape) <= 128

    def test_is_not_kept_where_it_is_long(self):
        escape = _Escaping("]")
        for size in (256, 257):
            assert escape["]" * size] == "\\x5d" * size
        assert list(escape) == ["]" * 256]
