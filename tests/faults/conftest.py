"""What the tests of faults have in common."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def silent_queue(levels_of_loggers: None) -> None:
    """Have the log tell of faults only: a request may come before the workers have begun."""
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
