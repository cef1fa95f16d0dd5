"""Which session ends when there is no room for another."""

from __future__ import annotations

import pytest

from nerve.frontend.mcp.sessions import Session, to_end

NOW, PATIENCE_S = 100.0, 5.0


def session(name: str, idle_s: float = 0.0, **facts: int) -> Session:
    """Of whoever is named before the number; used, unless told otherwise."""
    holder = name.rstrip("0123456789")
    used = bool(facts.pop("used", True))
    return Session(holder, holder, NOW - idle_s, name, used, **facts)


@pytest.mark.parametrize(
    ("others", "holder", "ended"),
    [
        # alone: what is not used, then what was not used for long
        ([session("a1", 9), session("a2", 20), session("a3", 7)], "a", "a2"),
        ([session("a1", 99), session("a2", 1, used=0), session("a3", 2, used=0)], "a", "a3"),
        ([session("a1", 4.9), session("a2", 1)], "a", None),
        ([session("a1", 99, calls=1), session("a2", 99, streams=1), session("a3")], "a", None),
        ([session("a1", 99, calls=1, used=0)], "a", None),
        # one that has as many gives up what it did not use for a while
        ([session("a1", 4), session("b1", 4)], "c", None),
        ([session("a1", 4), session("b1", 6)], "c", "b1"),
        ([session("a1", 6), session("b1", 4)], "c", "a1"),
        ([session("a1", 1, used=0), session("b1", 4)], "c", None),
        # one that has more gives up what it used longest ago, even if it listens, but no call
        ([session("a1", 1), session("a2", 2), session("b1", 99)], "b", "b1"),
        ([session("a1", 1), session("a2", 2), session("b1", 99)], "c", "a2"),
        ([session("a1", 1, calls=1), session("a2", 1, calls=1), session("b1", 99)], "c", "b1"),
        ([session(f"a{at}", at) for at in range(4)], "b", "a3"),
        ([session("a1", 9, streams=1), session("a2", 1), session("a3", 0)], "b", "a2"),
        ([session("a1", 1, streams=1), session("a2", 2, streams=1)], "b", "a2"),
        ([session("a1", 1, calls=1), session("a2", 2, calls=1)], "b", None),
        # whoever has most gives up one of its own
        ([session("a1", 7), session("a2", 8), session("b1", 99)], "a", "a2"),
        ([session("a1", 1), session("a2", 2), session("b1", 99)], "a", None),
    ],
)
def test_which_one_ends(others: list[Session], holder: str, ended: str | None) -> None:
    new = session(holder, calls=1, used=0)
    found = to_end([*others, new], holder, now=NOW, patience_s=PATIENCE_S)
    assert (found and found.id) == ended


def test_what_two_share_when_one_had_all() -> None:
    """The second one gets half, however fast it asks."""
    held = [session(f"a{at}") for at in range(10)]
    for _ in range(20):
        new = session("b", calls=1, used=0)
        if ended := to_end([*held, new], "b", now=NOW, patience_s=PATIENCE_S):
            held.remove(ended)
            held.append(session("b0"))
    assert sorted(each.holder for each in held) == ["a"] * 5 + ["b"] * 5
