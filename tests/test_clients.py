"""Who has to go when there is no room."""

from __future__ import annotations

from math import inf

import pytest

from waitress.clients import LINGERING_LIMIT, Clients

NOW = 1000.0


class Client:
    """A connection: how long it has been receiving a head, idle, or stalled."""

    def __init__(self, head=None, idle=None, stalled=None, lingering=None, stays=False):
        self._since = {"head": head, "idle": idle, "stalled": stalled, "lingering": lingering}
        self._stays = stays
        self.fate = None

    def _when(self, what, now=NOW):
        age = self._since[what]
        return inf if age is None else now - age

    def head_pending_since(self):
        return self._when("head")

    def idle_since(self):
        return self._when("idle")

    def stalled_since(self, now):
        return self._when("stalled", now)

    def lingering_since(self):
        return self._when("lingering")

    def close(self):
        self.fate = "closed"

    def give_up_head(self):
        self.fate = "head given up"

    def close_if_idle(self):
        self.fate = "looked at" if self._stays else "closed"
        return not self._stays

    def cut(self, reason):
        self.fate = reason


def clients_of(*channels):
    clients = Clients()
    clients.channels.update(channels)
    return clients


def test_set_that_changes_meanwhile_is_read_again():
    class Restless(set):
        turns = 0

        def __iter__(self):
            self.turns += 1
            if self.turns < 3:
                raise RuntimeError("Set changed size during iteration")
            return super().__iter__()

    clients = clients_of()
    clients.channels = Restless(["channel"])
    assert clients.snapshot() == ("channel",)


def test_no_clients_are_still_the_server_s_clients():
    assert Clients()


class TestTheLimit:
    def test_is_none_at_first(self):
        clients = clients_of(*(Client() for _ in range(100)))
        assert not clients.is_full
        assert len(clients.channels) <= clients.crowded_from

    @pytest.mark.parametrize(
        ("count", "full", "crowded"),
        [(17, False, False), (18, False, False), (19, False, True), (20, True, True)],
    )
    def test_makes_full_and_nine_tenths_of_it_make_crowded(self, count, full, crowded):
        clients = clients_of(*(Client() for _ in range(count)))
        clients.limit = 20
        assert clients.is_full is full
        assert (len(clients.channels) > clients.crowded_from) is crowded


class TestLingering:
    def test_is_for_a_hundred_at_once_and_then_the_longest_goes(self):
        clients = Clients()
        lingering = [Client() for _ in range(LINGERING_LIMIT)]
        for client in lingering:
            clients.linger(client)
        assert {client.fate for client in lingering} == {None}
        newcomer = Client()
        clients.linger(newcomer)
        assert [client.fate for client in lingering[:2]] == ["closed", None]
        assert newcomer.fate is None
        assert newcomer in clients.lingering


class TestRoomForANewcomer:
    def test_is_not_there_when_nobody_is(self):
        assert not Clients().make_room(NOW, 7.5)

    def test_is_made_by_the_oldest_head(self):
        old, older, idle = Client(head=8), Client(head=9), Client(idle=100)
        assert clients_of(old, older, idle).make_room(NOW, 7.5)
        assert older.fate == "head given up"
        assert old.fate is idle.fate is None

    def test_is_not_made_by_a_head_that_is_young_enough(self):
        head, idle = Client(head=7.5), Client(idle=2)
        assert clients_of(head, idle).make_room(NOW, 7.5)
        assert head.fate is None
        assert idle.fate == "closed"

    def test_is_made_by_the_longest_idle(self):
        idle, longer, busy = Client(idle=2), Client(idle=3), Client()
        assert clients_of(idle, longer, busy).make_room(NOW, 7.5)
        assert longer.fate == "closed"
        assert idle.fate is busy.fate is None

    def test_is_made_by_the_next_when_the_longest_idle_was_sending(self):
        first, second = Client(idle=3, stays=True), Client(idle=2)
        assert clients_of(first, second).make_room(NOW, 7.5)
        assert first.fate == "looked at"
        assert second.fate == "closed"

    def test_is_made_first_by_the_one_that_has_lingered_longest(self):
        short, long = Client(lingering=1.1), Client(lingering=1.2)
        others = Client(head=29), Client(idle=100)
        assert clients_of(short, long, *others).make_room(NOW, 7.5)
        assert long.fate == "closed"
        assert {client.fate for client in (short, *others)} == {None}

    def test_is_not_made_by_those_who_may_not_have_seen_their_answer_yet(self):
        answered = Client(lingering=0.9)
        assert not clients_of(answered).make_room(NOW, 7.5)
        assert answered.fate is None

    def test_is_not_made_by_those_who_have_just_become_idle(self):
        idle = Client(idle=0.9)
        assert not clients_of(idle, Client()).make_room(NOW, 7.5)
        assert idle.fate is None

    def test_is_not_made_when_all_turn_out_to_be_busy(self):
        channels = [Client(idle=2, stays=True) for _ in range(3)]
        assert not clients_of(*channels).make_room(NOW, 7.5)


class TestRoomOnTheDisk:
    def test_is_made_by_the_reader_that_has_stalled_longest(self):
        stalled, longer = Client(stalled=6), Client(stalled=7)
        assert clients_of(stalled, longer, Client()).relieve_spool(NOW, Client())
        assert longer.fate == "the spool is full and this reader has stalled longest"
        assert stalled.fate is None

    def test_is_not_made_by_a_reader_that_progresses(self):
        reader = Client(stalled=4.9)
        assert not clients_of(reader).relieve_spool(NOW, Client())
        assert reader.fate is None

    def test_is_not_made_by_the_one_that_asks(self):
        asking, other = Client(stalled=9), Client(stalled=6)
        assert clients_of(asking, other).relieve_spool(NOW, asking)
        assert asking.fate is None
        assert other.fate is not None

    def test_is_not_made_by_the_reader_of_the_worker_that_asks(self):
        own, other = Client(stalled=9), Client(stalled=6)
        assert clients_of(own, other).relieve_spool(NOW, own)
        assert own.fate is None
        assert other.fate is not None
        assert not clients_of(own).relieve_spool(NOW, own)

    def test_is_not_made_when_nobody_reads(self):
        assert not clients_of(Client()).relieve_spool(NOW, Client())


class TestTheLimitPerClient:
    def test_is_none_at_first(self):
        clients = Clients()
        for _ in range(100):
            assert clients.has_room_for("192.0.2.1")
            assert clients.count("192.0.2.1") == ""
        clients.uncount("")

    def test_holds_for_each_client_alone(self):
        clients = Clients()
        clients.limit_per_ip = 2
        taken = [clients.count("192.0.2.1") for _ in range(2)]
        assert not clients.has_room_for("192.0.2.1")
        assert not clients.has_room_for("::ffff:192.0.2.1")
        assert clients.has_room_for("192.0.2.2")
        clients.uncount(taken.pop())
        assert clients.has_room_for("192.0.2.1")
        clients.uncount(taken.pop())
        assert not clients._counts

    def test_holds_for_a_network_of_ipv6(self):
        clients = Clients()
        clients.limit_per_ip = 1
        clients.count("2001:db8::1")
        assert not clients.has_room_for("2001:db8::ffff")
        assert clients.has_room_for("2001:db8:0:1::1")

    def test_does_not_hold_for_those_named_and_those_without_an_address(self):
        clients = Clients()
        clients.limit_per_ip = 1
        clients.unlimited = {"192.0.2.1"}
        for host in ("192.0.2.1", "localhost", ""):
            assert clients.count(host) == clients.count(host) == ""
            assert clients.has_room_for(host)
