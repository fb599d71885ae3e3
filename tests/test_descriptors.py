from __future__ import annotations

import os
import select
from types import SimpleNamespace
from typing import Any

import pytest

from tests.looping import load_elsewhere
from waitress import descriptors
from waitress.descriptors import derived_connection_limit, open_descriptors


@pytest.mark.parametrize("soft", [None, "infinite", 1])
def test_limit_follows_from_what_the_system_has(
    soft: int | str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = getattr(descriptors, "resource")  # noqa: B009 - not exported
    if soft is None:
        monkeypatch.setattr(descriptors, "resource", None)
        assert derived_connection_limit(1000) == 1000
        return
    if resource is None:
        pytest.skip("the system has no such limits")
    infinite = resource.RLIM_INFINITY
    value = infinite if soft == "infinite" else soft
    monkeypatch.setattr(resource, "getrlimit", lambda which: (value, infinite))
    assert derived_connection_limit(1000) == (1000 if soft == "infinite" else 1)


def test_limit_follows_from_what_the_poller_can_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    only_select = SimpleNamespace(select=select.select)
    monkeypatch.setattr(descriptors, "select", only_select)
    monkeypatch.setattr(descriptors, "resource", None)
    assert derived_connection_limit(10_000) <= 1024


def test_descriptors_are_not_counted_where_the_system_does_not_list_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(path: Any) -> Any:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "listdir", refuse)
    assert open_descriptors() == 0


def test_module_works_where_there_are_no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    elsewhere: Any = load_elsewhere(monkeypatch, descriptors, without=("resource",))
    assert elsewhere.resource is None
    assert elsewhere.derived_connection_limit(1000) == 1000
