"""Calls that are made together."""

from __future__ import annotations

import asyncio
import threading

import pytest

from fake_models import everybody_had_a_turn, until
from nerve.offload import MAX_TOGETHER, Together


class Doubling:
    """Doubles numbers, notes what it was asked; below 0 it fails. A gate holds it in its thread."""

    def __init__(self, *, inline: bool = True) -> None:
        self.asked: list[tuple[str, list[int]]] = []
        self.threads: set[threading.Thread] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.together: Together[str, int, int] = Together(self.work, inline=lambda _: inline)

    def work(self, key: str, items: list[int]) -> list[int]:
        self.asked.append((key, items))
        self.threads.add(threading.current_thread())
        assert self.gate.wait(20)
        if min(items) < 0:
            raise ValueError(f"{min(items)} is below 0")
        return [2 * item for item in items]

    async def all(self, *items: int, key: str = "a") -> list[int | BaseException]:
        return await asyncio.gather(
            *(self.together(key, item) for item in items), return_exceptions=True
        )


@pytest.mark.parametrize("inline", [True, False])
async def test_calls_of_one_turn_are_made_as_one(inline: bool) -> None:
    """Each gets its own result; afterwards nothing is left running."""
    doubling = Doubling(inline=inline)
    assert await doubling.all(1, 2, 3) == [2, 4, 6]
    assert await doubling.all(4) == [8]
    assert doubling.asked == [("a", [1, 2, 3]), ("a", [4])]
    assert (doubling.threads == {threading.current_thread()}) is inline
    await everybody_had_a_turn()
    assert [task.get_name() for task in asyncio.all_tasks()].count("together") == 0


async def test_only_calls_with_the_same_key() -> None:
    doubling = Doubling()
    found = await asyncio.gather(doubling.all(1, 2), doubling.all(3, key="b"), doubling.all(4))
    assert list(found) == [[2, 4], [6], [8]]
    assert doubling.asked == [("a", [1, 2, 4]), ("b", [3])]


async def test_never_too_many() -> None:
    """What is over the limit comes after those with another key."""
    doubling = Doubling()
    many = list(range(MAX_TOGETHER + 3))
    found = await asyncio.gather(doubling.all(*many), doubling.all(7, key="b"))
    assert list(found) == [[2 * each for each in many], [14]]
    assert doubling.asked == [
        ("a", many[:MAX_TOGETHER]), ("b", [7]), ("a", many[MAX_TOGETHER:]),
    ]  # fmt: skip


async def test_a_bad_call_fails_alone() -> None:
    doubling = Doubling()
    found = await doubling.all(1, -2, 3, -4)
    assert [each for each in found if isinstance(each, int)] == [2, 6]
    assert [str(each) for each in found[1::2]] == ["-2 is below 0", "-4 is below 0"]
    assert all(isinstance(each, ValueError) for each in found[1::2])


async def test_those_that_come_meanwhile_wait_and_go_together() -> None:
    """One thread at a time; a caller that left while it waited is not worked for."""
    doubling = Doubling(inline=False)
    doubling.gate.clear()
    first = asyncio.create_task(doubling.together("a", 1))
    await until(lambda: doubling.asked)
    later = [asyncio.create_task(doubling.together("a", each)) for each in (2, 3, 4)]
    await everybody_had_a_turn()
    first.cancel()
    later[1].cancel()
    await everybody_had_a_turn()
    assert doubling.asked == [("a", [1])]
    doubling.gate.set()
    assert [await later[0], await later[2]] == [4, 8]
    assert doubling.asked == [("a", [1]), ("a", [2, 4])]
    assert first.cancelled()


async def test_when_all_have_left_nothing_is_done() -> None:
    doubling = Doubling()
    gone = [asyncio.create_task(doubling.together("a", each)) for each in (1, 2)]
    await asyncio.sleep(0)
    for task in gone:
        task.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    await everybody_had_a_turn()
    assert doubling.asked == []
    assert await doubling.all(3) == [6]


async def test_nobody_is_left_waiting_when_the_loop_ends() -> None:
    """What asyncio.run does with every task."""
    doubling = Doubling(inline=False)
    doubling.gate.clear()
    waiting = [asyncio.create_task(doubling.together(key, 1)) for key in "aab"]
    await until(lambda: doubling.asked)
    for task in asyncio.all_tasks():
        if task.get_name() == "together":
            task.cancel()
    found = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 20)
    assert [type(each) for each in found] == [asyncio.CancelledError] * 3
    doubling.gate.set()
