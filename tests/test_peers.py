"""Peers by their addresses: compared by value, whatever the spelling."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from waitress.peers import TrustedPeers, client_group, peer_text, read_address, split_trusted


class TestTrustedPeers:
    @pytest.mark.parametrize("trusted", [None, "", " ", ",", [], (), [""]])
    def test_may_be_nobody(self, trusted):
        peers = TrustedPeers(trusted)

        assert not peers
        assert "192.0.2.1" not in peers
        assert "::1" not in peers
        assert "" not in peers

    def test_may_be_everybody(self):
        peers = TrustedPeers("192.0.2.1 *")

        assert peers
        assert all(peer in peers for peer in ("192.0.2.1", "198.51.100.1", "::1", "localhost", ""))

    def test_may_be_those_at_a_unix_socket(self):
        for trusted in ("localhost", "192.0.2.1,localhost"):
            assert "localhost" in TrustedPeers(trusted)
            assert "127.0.0.1" not in TrustedPeers(trusted)

    @pytest.mark.parametrize(
        "trusted",
        [
            "192.0.2.1 2001:db8::1 10.0.0.0/8",
            "192.0.2.1,2001:db8::1,10.0.0.0/8",
            " 192.0.2.1 ,\n\t2001:db8::1,, 10.0.0.0/8\n",
            ["192.0.2.1", "2001:db8::1", "10.0.0.0/8"],
            ("192.0.2.1 2001:db8::1", "10.0.0.0/8"),
            {"192.0.2.1", "2001:db8::1,10.0.0.0/8"},
            [ip_address("192.0.2.1"), ip_address("2001:db8::1"), ip_network("10.0.0.0/8")],
        ],
    )
    def test_may_be_several(self, trusted):
        peers = TrustedPeers(trusted)

        assert peers
        assert [peer in peers for peer in ("192.0.2.1", "2001:db8::1", "10.255.0.1")] == [True] * 3
        assert [peer in peers for peer in ("192.0.2.2", "2001:db8::2", "11.0.0.1")] == [False] * 3

    @pytest.mark.parametrize(
        ("trusted", "inside", "outside"),
        [
            ("192.0.2.0/24", ["192.0.2.0", "192.0.2.255"], ["192.0.1.255", "192.0.3.0"]),
            ("192.0.2.7/32", ["192.0.2.7"], ["192.0.2.6"]),
            ("0.0.0.0/0", ["0.0.0.0", "255.255.255.255"], ["::1", "localhost", ""]),
            ("10.0.0.0/255.0.0.0", ["10.1.2.3"], ["11.1.2.3"]),
            ("2001:db8::/32", ["2001:db8::", "2001:DB8:ffff::1"], ["2001:db9::", "10.0.0.1"]),
            ("::/0", ["::1", "fe80::1"], ["10.0.0.1", "::ffff:10.0.0.1"]),
            ("fe80::/10", ["fe80::1", "fe80::1%eth0"], ["fec0::1"]),
            ("::ffff:10.0.0.0/104", ["10.1.2.3", "::ffff:10.1.2.3"], ["11.1.2.3", "::1"]),
        ],
    )
    def test_may_be_a_range(self, trusted, inside, outside):
        peers = TrustedPeers(trusted)

        assert [peer for peer in inside + outside if peer in peers] == inside

    def test_may_be_one_network_object_and_not_each_of_its_addresses(self):
        assert "10.1.2.3" in TrustedPeers(ip_network("10.0.0.0/8"))

    @pytest.mark.parametrize("trusted", ["192.0.2.1", "192.0.2.1 ::1", "192.0.2.0/24"])
    def test_are_the_same_in_the_form_of_ipv6(self, trusted):
        assert "::ffff:192.0.2.1" in TrustedPeers(trusted)
        assert "::ffff:c000:201" in TrustedPeers(trusted)
        assert "::ffff:192.0.3.1" not in TrustedPeers(trusted)
        assert "::192.0.2.1" not in TrustedPeers(trusted)

    @pytest.mark.parametrize("trusted", ["2001:DB8:0::1", "2001:db8:0:0:0:0:0:1 10.0.0.1"])
    def test_are_the_same_in_any_spelling(self, trusted):
        for peer in ("2001:db8::1", "2001:DB8::1", "2001:0db8:0000::0001"):
            assert peer in TrustedPeers(trusted)
        assert "2001:db8::2" not in TrustedPeers(trusted)

    def test_told_in_the_form_of_ipv6_are_the_same_without(self):
        assert "192.0.2.1" in TrustedPeers("::ffff:192.0.2.1")

    @pytest.mark.parametrize("word", ["proxy.example", "unix", "192.0.2.300", "a:b", "_x"])
    def test_may_be_any_text_that_stands_alone(self, word):
        """Subclasses of the server tell peers as they like, and were always believed."""
        assert word in TrustedPeers(word)
        assert word in TrustedPeers(f" {word}\n")
        assert f"{word}x" not in TrustedPeers(word)

    @pytest.mark.parametrize("word", ["proxy.example", "192.0.2.300", "010.0.0.1", "a:b", "[::1]"])
    def test_may_not_be_any_text_among_several(self, word):
        with pytest.raises(ValueError) as caught:
            TrustedPeers(["192.0.2.1", word])
        assert str(caught.value) == f"{word!r} is neither an IP address nor a range of them"

    @pytest.mark.parametrize("word", ["10.0.0.0/33", "10.0.0.1/8", "a/b", "10.0.0.0/", "/8"])
    def test_may_not_be_a_range_that_is_none(self, word):
        with pytest.raises(ValueError, match=word):
            TrustedPeers(word)

    @pytest.mark.parametrize(
        "peer", ["", "unix", "192.0.2.1:80", "a:b", "10.0.0.1/8", "\u0663.1.1.1"]
    )
    def test_what_is_no_address_lies_in_no_range(self, peer):
        assert peer not in TrustedPeers("0.0.0.0/0 ::/0")

    def test_keeps_few_answers_however_many_ask(self):
        peers = TrustedPeers("10.0.0.0/8")

        for number in range(3000):
            assert f"10.0.{number // 250}.{number % 250}" in peers
            assert f"11.0.{number // 250}.{number % 250}" not in peers

        assert peers._is_known_by_value.cache_info().currsize <= 1024

    @pytest.mark.parametrize("peer", [None, 5, b"10.0.0.1", ("10.0.0.1", 80)])
    def test_what_is_no_text_is_no_peer(self, peer):
        assert peer not in TrustedPeers("10.0.0.0/8 ::/0 127.0.0.1")
        assert peer in TrustedPeers("*")

    @given(address=st.ip_addresses(), prefix=st.integers(0, 32))
    def test_are_those_whose_first_bits_agree(self, address, prefix):
        assume(getattr(address, "ipv4_mapped", None) is None)
        network = ip_network(f"{address}/{prefix}", strict=False)

        assert str(address) in TrustedPeers(str(network))
        assert str(address) in TrustedPeers(str(address))


class TestSplitting:
    @pytest.mark.parametrize(
        ("trusted", "words"),
        [
            (None, []),
            ("a", ["a"]),
            ("a,b c\r\nd", ["a", "b", "c", "d"]),
            (["a,b", "c"], ["a", "b", "c"]),
            (5, ["5"]),
        ],
    )
    def test_is_at_blanks_and_commas(self, trusted, words):
        assert split_trusted(trusted) == words


class TestReadAddress:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("192.0.2.1", "192.0.2.1"),
            ("::FFFF:192.0.2.1", "192.0.2.1"),
            ("2001:DB8::0", "2001:db8::"),
        ],
    )
    def test_is_of_one_form(self, text, expected):
        assert str(read_address(text)) == expected

    @pytest.mark.parametrize(
        "text", ["", "a", "1.2.3", "1.2.3.4.5", "01.2.3.4", "1::2::3", "[::1]"]
    )
    def test_is_none_where_there_is_none(self, text):
        assert read_address(text) is None


class TestClientGroup:
    @pytest.mark.parametrize(
        ("host", "group"),
        [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2::1", "2001:0db8:0001:0002::/64"),
            ("2001:db8:1:2:ffff::9", "2001:0db8:0001:0002::/64"),
            ("2001:db8:1:3::1", "2001:0db8:0001:0003::/64"),
            ("fe80::1%eth0", "fe80:0000:0000:0000::/64"),
            ("localhost", ""),
            ("a:b", ""),
            ("", ""),
        ],
    )
    def test_is_what_one_client_can_choose_from(self, host, group):
        assert client_group(host) == group


class TestPeerText:
    @pytest.mark.parametrize(
        ("address", "text"),
        [
            (("192.0.2.1", 80), "192.0.2.1:80"),
            (("2001:db8::1", 80, 0, 0), "[2001:db8::1]:80"),
            (("localhost", None), "localhost"),
            (("alone",), "alone"),
            ("/run/peer", "/run/peer"),
            ((), ""),
            (None, ""),
        ],
    )
    def test_names_host_and_port_as_far_as_there_are_such(self, address, text):
        assert peer_text(address) == text
