"""The table, held against both packages, and what must be true of the table itself."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.differential import rows_applications, rows_requests, rows_servers
from tests.differential.applications import BEHAVIOURS
from tests.differential.released import RELEASED_VERSION
from tests.differential.servers import Servers, available_servers
from tests.differential.table import SERVERS, LogLine, Row
from tests.differential.wire import PATIENCE_SECONDS, SILENCE_SECONDS, Answer, converse

pytestmark = pytest.mark.differential

TABLE = [*rows_requests.ROWS, *rows_applications.ROWS, *rows_servers.ROWS]
LOG_PATIENCE_SECONDS = 2.0


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_answers_as_the_table_says(row: Row, released: Servers, ours: Servers):
    if row.server not in available_servers():
        pytest.skip(f"this platform cannot serve {row.server!r}")
    reference = _asked(released, row, SILENCE_SECONDS if row.released_is_silent else None)
    reference_log = _logged(released)
    answer = _asked(ours, row)
    expected = _ours_expected(row, reference)
    assert _readable(answer) == _readable(expected)
    expected_log = reference_log if row.ours_log is None else list(row.ours_log)
    assert _logged(ours, expected_log) == expected_log
    if row.because:
        assert (answer, expected_log) != (reference, reference_log), "this row is no difference"


def _asked(servers: Servers, row: Row, patience_seconds: float | None = None) -> Answer:
    servers.logged()  # what an earlier, failing row left behind
    address = servers.addresses[row.server]
    answer = converse(address, row.steps, row.methods, patience_seconds or PATIENCE_SECONDS)
    text = answer.data.decode("latin-1")
    for pattern, replacement in row.masks:
        text = re.sub(pattern, replacement, text)
    return answer.with_data(text.encode("latin-1"))


def _readable(answer: Answer) -> list[str | bytes]:
    """The same in pieces, so that a failing comparison shows the line that differs."""
    return [answer.then, *answer.data.splitlines(keepends=True)]


def _ours_expected(row: Row, reference: Answer) -> Answer:
    if row.ours is None:
        return reference
    return row.ours if isinstance(row.ours, Answer) else row.ours(reference)


def _logged(servers: Servers, expected: list[LogLine] | None = None) -> list[LogLine]:
    """What was logged for a row: at once, or as soon as it is what was expected.

    The depth of the task queue depends on how quickly a worker is back, so it is left out.
    """
    deadline = time.monotonic() + LOG_PATIENCE_SECONDS
    lines: list[LogLine] = []
    while True:
        lines += [line for line in servers.logged() if line[0] != "waitress.queue"]
        if expected is None or lines == expected or time.monotonic() > deadline:
            return lines


def test_serves_the_packages_that_are_meant(released: Servers, ours: Servers, package_parent: str):
    assert released.version == RELEASED_VERSION
    assert Path(ours.package).parents[1] == Path(package_parent)
    assert Path(released.package).parents[1] != Path(package_parent)


def test_names_are_unique():
    assert [name for name, count in Counter(row.name for row in TABLE).items() if count > 1] == []


def test_every_behaviour_and_every_server_has_a_row():
    sent = b"".join(step for row in TABLE for step in row.steps if isinstance(step, bytes))
    unused = [name for name in BEHAVIOURS if b"/run/%s " % name.encode() not in sent]
    assert unused == []
    assert set(SERVERS) - {row.server for row in TABLE} == set()


def test_the_table_is_as_long_as_promised():
    assert len(TABLE) >= 150


def test_a_row_says_what_is_different_and_why():
    for row in TABLE:
        differs = row.ours is not None or row.ours_log is not None
        assert bool(row.because) == differs, row.name
