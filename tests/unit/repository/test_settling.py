"""What is quiet, what waits, what is due, with a clock that the test moves."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nerve.repository.settling import GONE, Settling

SETTLE_S = 1.0

Step = tuple[float, object, bool]
"""When, what is seen of the one name (GONE: it is not there), whether it is returned."""


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([(0, 1, False), (0.9, 1, False), (1, 1, True)], id="quiet from the start"),
        pytest.param([(0, 1, False), (9, 1, True)], id="two looks are enough"),
        pytest.param([(0, 1, False), (9, 2, False), (9.5, 2, False), (10, 2, True)], id="changed"),
        pytest.param([(0, 1, False), (0.8, 2, False), (1.6, 3, False), (2.6, 3, True)], id="copy"),
        pytest.param([(0, 1, False), (0.5, 2, False), (1, 1, False), (2, 1, True)], id="and back"),
        pytest.param([(0, 1, False), (1, 1, True), (2, 1, True), (3, 2, False)], id="not taken"),
        pytest.param([(0, 1, False), (0.5, GONE, False), (2, GONE, False)], id="a short visit"),
        pytest.param([(0, GONE, False), (2, GONE, False), (3, 1, False), (4, 1, True)], id="comes"),
    ],
)
def test_settling(steps: list[Step]) -> None:
    settling = Settling(SETTLE_S)
    for now, value, due in steps:
        seen = {} if value is GONE else {"m": value}
        assert settling.observe(seen, now) == (["m"] if due else []), now


@pytest.mark.parametrize(
    ("taken", "steps"),
    [
        pytest.param(1, [(0, 1, False), (5, 1, False)], id="the same"),
        pytest.param(1, [(0, 1, False), (5, 2, False), (5.5, 1, False), (9, 1, False)], id="back"),
        pytest.param(1, [(0, 2, False), (1, 2, True)], id="another"),
        pytest.param(1, [(0, GONE, False), (0.5, GONE, False), (1, GONE, True)], id="gone"),
        pytest.param(
            1, [(0, 1, False), (1, GONE, False), (1.5, 1, False), (9, 1, False)], id="blink"
        ),
        pytest.param(GONE, [(0, GONE, False), (5, GONE, False)], id="never there"),
    ],
)
def test_what_was_taken_is_not_due(taken: object, steps: list[Step]) -> None:
    settling = Settling(SETTLE_S)
    settling.taken("m", taken)
    for now, value, due in steps:
        seen = {} if value is GONE else {"m": value}
        assert settling.observe(seen, now) == (["m"] if due else []), now


def test_no_time_to_settle() -> None:
    """Settings may say 0: whatever is seen counts."""
    settling = Settling(0)
    assert settling.observe({"m": 1}, 5) == ["m"]
    settling.taken("m", 1)
    assert settling.observe({"m": 1}, 5) == []
    assert settling.observe({}, 5) == ["m"]


def test_names_do_not_wait_for_each_other() -> None:
    settling = Settling(SETTLE_S)
    settling.observe({"b": 1, "a": 1}, 0)
    settling.observe({"b": 1, "a": 1, "c": 1}, 0.5)
    assert settling.observe({"b": 1, "a": 1, "c": 1}, 1) == ["a", "b"]
    settling.taken("a", 1)
    assert settling.observe({"b": 2, "a": 1, "c": 1}, 1.5) == ["c"]


def test_what_could_not_be_dealt_with_is_due_once_more() -> None:
    """Although it looks the same; after a while that the caller chooses."""
    settling = Settling(SETTLE_S)
    settling.again("m", 0)  # not known yet
    assert settling.due(0) is None
    settling.observe({"m": 1}, 0)
    settling.taken("m", 1)
    assert not settling.waits("m")
    settling.again("m", 5)
    assert settling.waits("m")
    assert settling.observe({"m": 1}, 5.9) == []
    assert settling.due(5.9) == pytest.approx(0.1)
    assert settling.observe({"m": 1}, 6) == ["m"]
    settling.taken("m", 1)
    assert settling.due(6) is None


def test_when_to_look_again() -> None:
    settling = Settling(SETTLE_S)
    assert settling.due(0) is None
    settling.observe({"a": 1}, 0)
    settling.observe({"a": 1, "b": 1}, 0.25)
    assert settling.due(0.5) == 0.5
    assert settling.due(3) == 0
    settling.taken("a", 1)
    assert settling.due(0.5) == 0.75
    settling.taken("b", 1)
    assert settling.due(0.5) is None
    settling.observe({"a": 1}, 5)
    assert settling.due(5.5) == 0.5


class Model(RuleBasedStateMachine):
    """Settling against the plainest history there is: every look, kept."""

    def __init__(self) -> None:
        super().__init__()
        self.settling = Settling(SETTLE_S)
        self.now = 0.0
        self.history: list[tuple[float, dict[str, int]]] = []
        self.taken: dict[str, int | None] = {}

    def expected(self, name: str) -> bool:
        """Whether the name is due now, the last look having been made now."""
        latest = self.history[-1][1].get(name)
        since = self.now
        for at, seen in reversed(self.history):
            if seen.get(name) != latest:
                break
            since = at
        quiet = self.now - since >= SETTLE_S
        return quiet and latest != self.taken.get(name)

    @rule(
        after=st.integers(0, 8),
        seen=st.dictionaries(st.sampled_from("abc"), st.integers(0, 2)),
        take=st.booleans(),
    )
    def look(self, after: int, seen: dict[str, int], take: bool) -> None:
        self.now += after / 4
        self.history.append((self.now, seen))
        due = self.settling.observe(seen, self.now)
        assert due == [name for name in "abc" if self.expected(name)]
        for name in due if take else ():
            self.settling.taken(name, seen.get(name))
            self.taken[name] = seen.get(name)

    @precondition(lambda self: self.history)
    @invariant()
    def due_is_when_a_look_would_find_something(self) -> None:
        due = self.settling.due(self.now)
        waiting = [name for name in "abc" if self.history[-1][1].get(name) != self.taken.get(name)]
        assert (due is None) == (not waiting)
        assert due is None or 0 <= due <= SETTLE_S


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=50, stateful_step_count=20)


@given(st.lists(st.text(max_size=3), unique=True))
def test_forgotten_names_leave_nothing_behind(names: list[str]) -> None:
    settling = Settling(SETTLE_S)
    settling.observe(dict.fromkeys(names, 1), 0)
    for name in settling.observe(dict.fromkeys(names, 1), 1):
        settling.taken(name, 1)
    for name in settling.observe({}, 2) or settling.observe({}, 3):
        settling.taken(name, GONE)
    assert settling.due(9) is None
    assert not settling._things
