"""Whose message is sent next."""

from __future__ import annotations

from nerve.jobs.pace import Pace
from nerve.jobs.records import Delivery, Status
from nerve.jobs.turns import Turn, Turns

PACE = Pace(slow_s=0.5, postponed_max_s=120.0)


def delivery(request_id: str) -> Delivery:
    return Delivery(request_id, "ner", "1", "https://a/", Status.SUCCEEDED, 0.0, b"[]", (), 0)


def test_a_receiver_has_its_share() -> None:
    turns = Turns(8, PACE)
    for number in range(2):
        assert turns.turn("a", 0.0) is Turn.SEND
        turns.began("a", f"{number}", 0.0)
    assert turns.turn("a", 0.0) is Turn.WAIT
    assert turns.turn("b", 0.0) is Turn.SEND


def test_what_waits_is_sent_in_turn_when_there_is_room() -> None:
    turns = Turns(4, PACE)
    for place in ("a", "b"):
        turns.began(place, place, 0.0)
        for number in range(2):
            turns.wait(place, delivery(f"{place}{number}"))
    assert turns.next_waiting(0.1) is None
    sent = []
    for place in ("a", "b"):
        turns.ended(place, place, 0.2)
    while found := turns.next_waiting(0.2):
        turn, waiting = found
        assert turn is Turn.SEND
        sent.append(waiting.request_id)
    assert sent == ["a0", "b0", "a1", "b1"]  # none was begun, so that there always is room


def test_those_behind_a_slow_receiver_are_put_off() -> None:
    """It is known to be slow while it still takes its time, and stays so until it was quick."""
    turns = Turns(4, PACE)
    turns.began("a", "0", 0.0)
    turns.wait("a", delivery("1"))
    assert turns.next_waiting(0.5) is None
    found = turns.next_waiting(0.6)
    assert found is not None
    assert (found[0], found[1].request_id) == (Turn.POSTPONE, "1")
    assert turns.turn("a", 0.6) is Turn.POSTPONE
    turns.ended("a", "0", 10.0)
    turns.began("a", "2", 10.0)
    assert turns.turn("a", 10.0) is Turn.POSTPONE
    turns.ended("a", "2", 10.1)
    turns.began("a", "3", 10.1)
    assert turns.turn("a", 10.1) is Turn.WAIT


def test_they_come_back_one_after_the_other() -> None:
    turns = Turns(8, PACE)
    turns.began("a", "0", 0.0)
    waits = [turns.postponed_s("a", 10.0) for _ in range(30)]
    assert waits[:3] == [5.0, 10.0, 15.0]  # two at a time, 10 s each
    assert waits[-1] == 120.0


def test_slow_receivers_do_not_have_all_connections() -> None:
    turns = Turns(4, PACE)
    for place in "abc":
        turns.began(place, place, 0.0)
        turns.ended(place, place, 10.0)
    for place in "ab":
        assert turns.turn(place, 10.0) is Turn.SEND
        turns.began(place, place, 10.0)
    assert turns.turn("c", 10.0) is Turn.POSTPONE
    assert turns.turn("new", 10.0) is Turn.SEND


def test_one_that_nothing_is_known_of_is_forgotten() -> None:
    turns = Turns(4, PACE)
    turns.began("a", "0", 0.0)
    turns.postponed_s("a", 0.0)
    turns.forget_idle(5.0)
    turns.ended("a", "0", 9.0)
    assert turns.turn("a", 9.0) is Turn.SEND
    turns.forget_idle(9.0)
    turns.began("a", "1", 9.0)
    assert turns.turn("a", 9.0) is Turn.WAIT  # no longer slow
