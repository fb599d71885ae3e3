"""A few hundred runs of the simulation, and runs that once went wrong."""

from __future__ import annotations

import sys

import pytest

from tests.simulation.__main__ import main
from tests.simulation.runs import Failure, Run

#: Runs that go wrong when one mend is undone, by what it mends. Whoever changes what a
#: seed draws makes ordinary runs of them, and looks for others in the same way.
WRONG_WITHOUT = {
    "a connection is idle since its service ended, not since its last byte": 20814,
    "a connection is idle since its service ended, though its client has sent ahead": 9951710,
    "a connection whose service has ended is not idle before the loop has heard of it": 9501123,
    "a connection whose response is about to leave is not idle": 44781,
    "an answer is not reset because the client's next request is on the way": 200,
    "an answer is not reset because a refused request behind it is dropped": 710,
    "an end of both directions does not hide what is still to be read": 533,
    "a head that comes too late has a number": 6,
    "a response that ends with the connection looks cut when it is": 3584,
    "a channel that wants to be asked does not spin while it lingers": 17,
    "a disk that fails does not end a response silently": 1422,
    "a client that has left is looked at once more": 445,
    "a body that came with its head counts for its rate": 23391,
    "an end of both directions hides nothing from a channel that wants to be asked": 45728,
}
#: The same for runs in which threads take turns at every line.
WRONG_BETWEEN_LINES_WITHOUT = {
    "no 100 Continue stands behind the last response": 5054,
    "no 100 Continue stands within a response": 6169,
    "the end of a response does not wait for the next one's": 9801156,
    "the loop leaves the end of a response to its worker until that has reported": 18284,
}


@pytest.mark.parametrize("first", range(1, 301, 50))
def test_runs_of_random_clients_go_well(first: int) -> None:
    for seed in range(first, first + 50):
        Run(seed).go()


@pytest.mark.parametrize("seed", WRONG_WITHOUT.values(), ids=WRONG_WITHOUT)
def test_run_that_would_go_wrong_goes_well(seed: int) -> None:
    Run(seed, yields=False).go()


@pytest.mark.skipif(sys.gettrace() is not None, reason="another tracer is at work")
@pytest.mark.parametrize(
    "seed", WRONG_BETWEEN_LINES_WITHOUT.values(), ids=WRONG_BETWEEN_LINES_WITHOUT
)
def test_run_that_would_go_wrong_between_two_lines_goes_well(seed: int) -> None:
    Run(seed, fine=True, yields=False).go()


@pytest.mark.parametrize("seed", [4, 8, 27])
def test_seed_decides_everything(seed: int) -> None:
    first: list[str] = []
    second: list[str] = []
    for told in (first, second):
        Run(seed, told.append).go()
    assert len(first) > 20
    assert first == second


def test_command_tells_how_many_runs_failed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--runs", "3", "--seed", "5"]) == 0
    assert "3 runs from seed 5 in " in capsys.readouterr().out


def test_command_tells_one_run_step_by_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--replay", "5"]) == 0
    told = capsys.readouterr().out
    assert "client 1 connects" in told
    assert told.endswith("seed 5: nothing wrong\n")


class Forgetful(Run):
    """A run in which the loop is not told of what a worker has done."""

    def _start(self) -> None:
        super()._start()
        self.server.pull_trigger = lambda: None


class Careless(Run):
    """A run in which the application is given another body than was sent."""

    def _application(self, environ, start_response):  # type: ignore[no-untyped-def]
        environ["wsgi.input"].read(1)
        return super()._application(environ, start_response)


@pytest.mark.parametrize(
    ("kind", "complaint"), [(Forgetful, "not woken for"), (Careless, "has another body")]
)
def test_what_goes_wrong_is_found(kind: type[Run], complaint: str) -> None:
    found = []
    for seed in range(1, 40):
        try:
            kind(seed).go()
        except Failure as failure:
            found.append(str(failure))
    assert any(complaint in text for text in found), found
