"""Facts about the platform, on this one and on pretended others."""

from __future__ import annotations

import importlib.util
import platform
import socket
import sys
import warnings
from types import ModuleType

import pytest

from waitress import compat


@pytest.fixture
def other_system(monkeypatch):
    """Give a function that loads the module anew as if on another system."""

    def load(system: str, *, has_ipv6: bool = True, **constants: int) -> ModuleType:
        monkeypatch.setattr(platform, "system", lambda: system)
        monkeypatch.setattr(socket, "has_ipv6", has_ipv6)
        for name in ("IPPROTO_IPV6", "IPV6_V6ONLY"):
            monkeypatch.delattr(socket, name, raising=False)
        for name, number in constants.items():
            monkeypatch.setattr(socket, name, number, raising=False)
        spec = importlib.util.spec_from_file_location("compat_elsewhere", compat.__file__)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def test_maxint_is_the_largest_size():
    assert sys.maxsize == compat.MAXINT


@pytest.mark.parametrize("module", [platform, socket, sys, warnings])
def test_modules_that_users_reach_through_it_are_there(module):
    assert getattr(compat, module.__name__) is module


@pytest.mark.parametrize(("system", "expected"), [("Windows", True), ("Linux", False)])
def test_windows_is_recognised_by_its_name(other_system, system, expected):
    assert other_system(system, IPPROTO_IPV6=1, IPV6_V6ONLY=2).WIN is expected


@pytest.mark.parametrize("system", ["Linux", "Windows"])
def test_numbers_of_the_system_are_taken_where_it_has_them(other_system, system):
    loaded = other_system(system, IPPROTO_IPV6=1, IPV6_V6ONLY=2)

    assert (loaded.IPPROTO_IPV6, loaded.IPV6_V6ONLY, loaded.HAS_IPV6) == (1, 2, True)


@pytest.mark.parametrize(
    ("constants", "expected"),
    [({}, (41, 27)), ({"IPPROTO_IPV6": 1}, (1, 27)), ({"IPV6_V6ONLY": 2}, (41, 2))],
)
def test_numbers_missing_on_windows_are_known(other_system, constants, expected):
    loaded = other_system("Windows", **constants)

    assert expected == (loaded.IPPROTO_IPV6, loaded.IPV6_V6ONLY)
    assert loaded.HAS_IPV6 is True


@pytest.mark.parametrize("constants", [{}, {"IPPROTO_IPV6": 1}, {"IPV6_V6ONLY": 2}])
def test_ipv6_is_off_where_a_number_is_missing_elsewhere(other_system, constants):
    with pytest.warns(RuntimeWarning, match="lacks the required IPv6 flags.*support is disabled"):
        loaded = other_system("Linux", **constants)

    assert loaded.HAS_IPV6 is False
    assert not hasattr(loaded, "IPPROTO_IPV6")
    assert not hasattr(loaded, "IPV6_V6ONLY")


def test_ipv6_is_off_where_the_system_was_built_without(other_system):
    loaded = other_system("Linux", has_ipv6=False, IPPROTO_IPV6=1, IPV6_V6ONLY=2)

    assert loaded.HAS_IPV6 is False
