"""The benchmarks' own parts that measure nothing: arithmetic, tables, what wrk is told."""

from __future__ import annotations

import http.client
import io
import itertools
import json
import logging
import select
import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import applications, bare, launch, load, overload, report
from benchmarks.__main__ import _measure, main
from benchmarks.errors import RowError
from benchmarks.launch import Facts
from benchmarks.open_loop import OpenLoop, Outcome
from benchmarks.results import MEASURES, Results, Sample, Target
from benchmarks.rows import ROWS
from benchmarks.servers import OURS, RELEASED, SERVERS
from tests.looping import PATIENCE

FASTER = Target("requests_per_cpu_second", at_least=4.5)
SOONER = Target("p99_ms", at_least=1)
ROW = ROWS["hello-64"]


def results(**rounds: list[Sample]) -> Results:
    """Return a run of one row; the servers are called by what stands before the space."""
    names = {"ours": OURS, "released": RELEASED, "cheroot": "cheroot", "granian": "granian"}
    versions = {names[name]: "1" for name in rounds}
    samples = {ROW.name: {names[name]: rounds[name] for name in rounds}}
    return Results({"date": "today"}, versions, {}, samples)


def at(*rates: float) -> list[Sample]:
    return [{"requests_per_cpu_second": rate} for rate in rates]


# Arithmetic.


def test_a_ratio_is_taken_within_each_round_and_then_the_median() -> None:
    run = results(ours=at(10, 80, 30), released=at(10, 10, 10))
    assert run.figure(ROW.name, OURS, FASTER) == 3
    wobbling = results(ours=at(10, 100, 20), released=at(5, 50, 10))
    assert wobbling.figure(ROW.name, OURS, FASTER) == 2


def test_a_ratio_of_what_should_be_small_is_turned_round() -> None:
    run = results(ours=[{"p99_ms": 2}], released=[{"p99_ms": 8}])
    assert run.figure(ROW.name, OURS, SOONER) == 4


def test_a_round_in_which_one_failed_is_no_pair() -> None:
    run = results(ours=[{}, *at(30)], released=at(10, 10))
    assert run.figure(ROW.name, OURS, FASTER) == 3
    assert results(ours=[{}], released=at(10)).figure(ROW.name, OURS, FASTER) is None


def test_a_difference_and_a_value_are_what_they_say() -> None:
    run = results(ours=[{"pss_mib": 13}], released=[{"pss_mib": 11}])
    assert run.figure(ROW.name, OURS, Target("pss_mib", "difference")) == 2
    assert run.figure(ROW.name, OURS, Target("pss_mib", "value")) == 13


def test_nothing_beside_something_has_a_ratio() -> None:
    run = results(ours=[{"p99_ms": 0}], released=[{"p99_ms": 3}])
    assert run.figure(ROW.name, OURS, SOONER) == float("inf")
    both = results(ours=[{"p99_ms": 0}], released=[{"p99_ms": 0}])
    assert both.figure(ROW.name, OURS, SOONER) == 1


def test_a_target_without_a_figure_is_missed() -> None:
    assert not FASTER.is_met(None)
    assert not FASTER.is_met(4.4)
    assert FASTER.is_met(4.5)
    assert not Target("pss_mib", at_most=4).is_met(4.1)


def test_level_is_less_than_a_hundredth_behind() -> None:
    run = results(ours=at(99.5), cheroot=at(100), granian=at(200))
    key = "requests_per_cpu_second"
    assert run.is_level(ROW.name, "cheroot", key) is True
    assert run.is_level(ROW.name, "granian", key) is False
    assert run.is_level(ROW.name, RELEASED, key) is None


def test_results_survive_being_written() -> None:
    run = results(ours=at(1, 2), released=at(1, 1))
    run.add(ROW.name, OURS, {}, "starved")
    again = Results.from_json(json.loads(json.dumps(run.as_json())))
    assert again == run
    assert again.samples[ROW.name][OURS][2] == {}
    assert again.failures[ROW.name] == {OURS: "starved"}


# Tables.


def test_the_table_marks_a_missed_target_and_names_rivals_that_are_ahead() -> None:
    run = results(ours=at(40), released=at(10), cheroot=at(50), granian=at(90))
    line = next(line for line in report.text(run).splitlines() if line.startswith(ROW.title))
    words = line.removeprefix(ROW.title).split()
    assert words[-9:] == [">=", "4.5", "4", "!", "1", "5", "9", "<", "cheroot"]
    assert report.missed(run) == 1


def test_the_table_marks_nothing_where_all_is_well() -> None:
    run = results(ours=at(60), released=at(10), cheroot=at(50))
    line = next(line for line in report.text(run).splitlines() if line.startswith(ROW.title))
    assert line.split()[-3:] == ["6", "1", "5"]
    assert report.missed(run) == 0


def test_the_page_says_what_the_text_says() -> None:
    run = results(ours=at(40), released=at(10))
    run.add(ROW.name, RELEASED, {}, "starved: no answer at all")
    page = report.page(run)
    assert f'   "{ROW.title}","requests/CPU s ratio",">= 4.5","4","!","1",""' in page
    assert f"   {ROW.title}: {RELEASED}: starved: no answer at all" in page.splitlines()
    assert "| date: today" in page


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "none"), (float("inf"), "inf"), (12345.6, "12346"), (1.2345, "1.23"), (0.0, "0")],
)
def test_figures_have_the_digits_they_deserve(value: float | None, text: str) -> None:
    assert report.number_text(value) == text


def test_the_report_is_made_from_a_file(tmp_path: Path, capsys: Any) -> None:
    told, page = tmp_path / "results.json", tmp_path / "page.txt"
    told.write_text(json.dumps(results(ours=at(40), released=at(10)).as_json()))
    assert report.main([str(told)]) == 0
    assert ROW.title in capsys.readouterr().out
    assert report.main([str(told), str(page)]) == 0
    assert page.read_text().startswith("| date: today")
    assert report.main([]) == 2


# Rows and servers.


def test_targets_are_about_things_that_are_measured() -> None:
    for row in ROWS.values():
        assert row.targets
        assert {target.key for target in row.targets} <= MEASURES.keys()


def test_rows_are_listed(capsys: Any) -> None:
    assert main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(ROWS)


@pytest.mark.parametrize("arguments", [["no-such-row"], ["--peers", "no-such-peer"]])
def test_unknown_names_are_refused(arguments: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main([*arguments, "--list"])
    assert "no-such" in capsys.readouterr().err


def test_rivals_are_those_written_for_the_interpreter() -> None:
    rivals = [server.name for server in SERVERS.values() if server.is_rival]
    assert rivals == ["cheroot", "gunicorn-gthread", "gunicorn-sync", "gevent"]


def test_what_only_ours_has_is_measured_of_no_other() -> None:
    run = Results({}, {}, {})
    bench: Any = SimpleNamespace(server=SERVERS[RELEASED])
    _measure(ROWS["watched-64"], bench, run)
    assert run.failures == {"watched-64": {RELEASED: "not applicable"}}
    assert run.samples == {"watched-64": {RELEASED: [{}]}}


def test_what_a_server_cannot_do_is_not_asked_of_it() -> None:
    run = Results({}, {}, {})
    bench: Any = SimpleNamespace(server=SERVERS["bare"])
    _measure(ROWS["post-1k"], bench, run)
    assert run.failures == {"post-1k": {"bare": "not applicable"}}
    assert {row for row in SERVERS["bare"].rows or () if row not in ROWS} == set()


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="runs on Linux only")
def test_what_is_no_server_answers_all_the_same() -> None:
    server = bare.Bare(applications.application, "127.0.0.1", 0)
    address = server.listener.getsockname()
    served = threading.Thread(target=server.run, args=(1,), daemon=True)
    served.start()
    head = b"GET /?q HTTP/1.1\r\nHost: localhost\r\n"
    with socket.create_connection(address) as client, client.makefile("rb") as answers:
        for ending in (b"\r\n", b"Connection: close\r\n\r\n"):
            client.sendall(head + ending)
            response = http.client.HTTPResponse(client)
            response.begin()
            assert (response.status, response.read()) == (200, applications.HELLO)
        assert answers.read() == b""
    server.running = False
    served.join(PATIENCE)
    assert not served.is_alive()
    assert server.token.acquire(timeout=PATIENCE)  # Given on by the last thread to end.


# wrk.


def test_what_wrk_tells_is_read() -> None:
    output = (
        "Running 1s test @ http://127.0.0.1:1/\n"
        "benchmarks: requests=1500 microseconds=2000000 p50=250 p99=9000 failures=3\n"
    )
    assert load.parsed(output) == load.Load(1500, 2.0, 0.25, 9.0, 3)


def test_wrk_without_an_account_is_an_error() -> None:
    with pytest.raises(RowError, match="unable to connect"):
        load.parsed("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_scripts_quote_what_is_sent() -> None:
    assert load.with_fields({"X": "it's \\"}) == "wrk.headers['X'] = 'it\\'s \\\\'\n"


# The application.


def ask(path: str, body: bytes = b"") -> tuple[str, bytes]:
    told: list[str] = []
    environ = {
        "PATH_INFO": path,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
    }
    answer = applications.application(environ, lambda status, headers: told.append(status))
    return told[0], b"".join(answer)


@pytest.mark.parametrize(
    ("path", "size"),
    [("/generate", 100 * 1024), ("/64k", 65536), ("/1m", 1 << 20), ("/900k", 900_000)],
)
def test_answers_are_as_long_as_the_rows_say(path: str, size: int) -> None:
    status, body = ask(path)
    assert (status, len(body)) == ("200 OK", size)


def test_a_body_is_read_to_its_end() -> None:
    assert ask("/read", b"x" * 1000) == ("200 OK", b"1000\n")


def test_a_file_is_served_where_there_is_no_wrapper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"y" * 100_000)
    monkeypatch.setenv(applications.FILE_VARIABLE, str(file))
    assert ask("/file") == ("200 OK", b"y" * 100_000)


# Overload.


def test_open_loop_tells_answers_refusals_and_those_who_waited_in_vain(serve: Any) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        number = next(numbers)
        if number % 4 == 3:
            released.wait(20)
        start_response("503 Busy" if number % 4 == 2 else "200 OK", [("Content-Length", "2")])
        return [b"ok"]

    numbers = itertools.count()
    released = threading.Event()
    running = serve(application, threads=100)
    outcome = OpenLoop(running.port, "/", rate=100, patience=0.3, seed=1).run(0.0, 0.4)
    released.set()
    # On a busy machine one may break that was about to be late.
    ended = len(outcome.good) + outcome.refused + outcome.late + outcome.broken
    assert outcome.offered == ended > 10
    assert outcome.broken < outcome.late
    assert min(outcome.refused, outcome.late, len(outcome.good)) > 0
    assert 0 < outcome.latency(0.5) < 0.3


def test_open_loop_tells_of_connections_that_end_without_an_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    outcome = OpenLoop(port, "/", rate=200, patience=0.3, seed=1).run(0.0, 0.1)
    assert outcome.offered == outcome.broken > 0
    assert outcome.latency(0.5) is None


def test_outcomes_are_told_a_second() -> None:
    outcome = Outcome(2.0, 10, [0.1, 0.2, 0.3], refused=4, late=2, broken=1, lag=0.01)
    told = overload.figures(outcome)
    assert told == {
        "offered": 5.0,
        "good": 1.5,
        "refused": 2.0,
        "late": 1.0,
        "broken": 0.5,
        "p50_ms": 200.0,
        "p99_ms": 300.0,
        "lag_ms": 10.0,
    }
    run = {
        "versions": {"a": "1"},
        "samples": {"a": [{"load": 2.0, **told}, {"load": 3.0, "failure": "does not start"}]},
    }
    lines = overload.table(run).splitlines()
    assert lines[0] == "a (1)"
    assert lines[3].split()[:3] == ["2.00", "5.00", "1.50"]
    assert lines[4].split() == ["3.00", "does", "not", "start"]


def test_settings_may_name_what_is_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr("waitress.serve", lambda application, **settings: told.update(settings))
    logger = logging.getLogger("waitress")
    handlers = logger.handlers[:]
    try:
        launch.run_waitress(None, Facts(80, 4, 10, ("on_event=hear", "access_log=a")))
    finally:
        logger.propagate, logger.handlers = True, handlers
    assert (told["on_event"], told["access_log"]) == (launch.hear, "a")


def test_settings_of_a_contestant_reach_the_command() -> None:
    facts = Facts(80, 4, 10, overload.LIMITED.settings)
    command = overload.LIMITED.server.command(Path("/bin"), facts)
    assert command[-2:] == ["queue_limit=200", "queue_timeout=0.5"]
