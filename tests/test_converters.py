from __future__ import annotations

import math
import socket
from typing import Any

import pytest

from waitress.converters import (
    as_socket_list,
    as_trusted_proxy,
    asbool,
    aslist,
    aslist_cronly,
    asoctal,
    asseconds,
    asset,
    int_ifgiven,
    slash_fixed_str,
    str_iftruthy,
    truthy,
)


class TestConverters:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (None, False),
            (True, True),
            (False, False),
            (1, True),
            ("1", True),
            (" Y ", True),
            ("ON", True),
            ("t", True),
            (2, False),
            (1.0, False),
            ("", False),
            ("off", False),
        ],
    )
    def test_asbool_knows_the_texts_that_are_true(self, value: Any, expected: bool) -> None:
        assert asbool(value) is expected

    def test_truthy_lists_them(self) -> None:
        assert truthy == {"t", "true", "y", "yes", "on", "1"}

    @pytest.mark.parametrize(("text", "expected"), [("600", 0o600), ("0o777", 0o777)])
    def test_asoctal_reads_digits(self, text: str, expected: int) -> None:
        assert asoctal(text) == expected

    def test_asoctal_refuses_a_number(self) -> None:
        with pytest.raises(TypeError):
            asoctal(600)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("value", "expected", "kind"),
        [
            ("5", 5, int),
            ("0.5", 0.5, float),
            (5, 5, int),
            (5.0, 5, int),
            (0.25, 0.25, float),
            (float("inf"), math.inf, float),
        ],
    )
    def test_asseconds_keeps_fractions(self, value: Any, expected: float, kind: type) -> None:
        assert asseconds(value) == expected
        assert type(asseconds(value)) is kind

    def test_asseconds_refuses_text_that_is_no_number(self) -> None:
        with pytest.raises(ValueError, match=r"invalid literal for int\(\)"):
            asseconds("soon")
        with pytest.raises(TypeError):
            asseconds(None)

    @pytest.mark.parametrize(("value", "expected"), [(None, None), (" ", None), ("0", 0), (7, 7)])
    def test_int_ifgiven_takes_nothing_for_none(self, value: Any, expected: int | None) -> None:
        assert int_ifgiven(value) == expected

    def test_aslist_cronly_splits_lines(self) -> None:
        assert aslist_cronly(" a b \n\n c\n") == ["a b", "c"]
        assert aslist_cronly(("a b", "c")) == ["a b", "c"]

    def test_aslist_splits_words(self) -> None:
        assert aslist(" a b \n\n c\n") == ["a", "b", "c"]
        assert aslist(["a b", "c"]) == ["a", "b", "c"]

    def test_asset_drops_repetitions(self) -> None:
        assert asset("a b a") == {"a", "b"}

    @pytest.mark.parametrize(
        ("text", "expected"),
        [("", ""), ("  ", ""), ("a/", "/a"), ("///foo/", "/foo"), ("/", "/"), ("/a/b", "/a/b")],
    )
    def test_slash_fixed_str_has_one_slash_in_front(self, text: str, expected: str) -> None:
        assert slash_fixed_str(text) == expected

    def test_str_iftruthy_takes_nothing_for_none(self) -> None:
        assert str_iftruthy("") is None
        assert str_iftruthy(None) is None
        assert str_iftruthy(5) == "5"

    def test_as_socket_list_drops_what_is_no_socket(self) -> None:
        with socket.socket() as first, socket.socket() as second:
            assert as_socket_list([first, "x", second, None]) == [first, second]

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (None, None),
            ("", None),
            (" ", None),
            ([], None),
            ("*", "*"),
            ("localhost", "localhost"),
            ("192.0.2.1", "192.0.2.1"),
            ("proxy.example", "proxy.example"),
            ("10.0.0.0/8,::1\n192.0.2.1", "10.0.0.0/8 ::1 192.0.2.1"),
            (["10.0.0.0/8", "::1"], "10.0.0.0/8 ::1"),
        ],
    )
    def test_as_trusted_proxy_is_one_text(self, value: Any, expected: str | None) -> None:
        assert as_trusted_proxy(value) == expected
