"""Version policy, routing and shadow: which versions are served, and which one answers."""

from __future__ import annotations

import pytest

from nerve.config.model import ModelConfig
from nerve.repository.selection import Selection, choose, select, superseded


def config(**keys: object) -> ModelConfig:
    return ModelConfig.model_validate(keys)


def latest(number: int) -> dict[str, object]:
    return {"latest": {"num_versions": number}}


def specific(*numbers: int) -> dict[str, object]:
    return {"specific": {"versions": list(numbers)}}


@pytest.mark.parametrize(
    ("available", "policy", "served", "missing"),
    [
        pytest.param([1, 10, 9], latest(1), (10,), (), id="the highest"),
        pytest.param([1, 10, 9], latest(2), (9, 10), (), id="the highest two"),
        pytest.param([1, 10, 9], latest(5), (1, 9, 10), (), id="more than there are"),
        pytest.param([], latest(1), (), (), id="none there"),
        pytest.param([3, 1, 2], "all", (1, 2, 3), (), id="all"),
        pytest.param([], "all", (), (), id="all of none"),
        pytest.param([3, 1, 2], specific(3, 1), (1, 3), (), id="specific"),
        pytest.param([1], specific(3, 1, 3, 2), (1,), (2, 3), id="some are missing, named once"),
        pytest.param([1], specific(2), (), (2,), id="none of them is there"),
    ],
)
def test_version_policy(
    available: list[int], policy: object, served: tuple[int, ...], missing: tuple[int, ...]
) -> None:
    """Ascending, whatever the order of the folders or of the config."""
    selection = select(available, config(version_policy=policy))
    assert (selection.wanted, selection.missing) == (served, missing)


def test_only_the_latest_have_somebody_to_stand_in() -> None:
    """The next older ones, highest first; the other policies say exactly what they want."""
    assert select([1, 2, 3, 4], config(version_policy=latest(2))) == Selection(
        (3, 4), newest=(3, 4), spare=(2, 1)
    )
    for policy in ("all", specific(4)):
        selection = select([1, 2, 3, 4], config(version_policy=policy))
        assert (selection.newest, selection.spare) == ((), ())


def test_routing_serves_what_it_names_in_addition() -> None:
    """There or not; one that is served anyway is no stand-in."""
    selection = select([1, 2, 3], config(routing={"weights": {1: 10, 3: 90, 7: 1}}))
    assert selection == Selection((1, 3), missing=(7,), newest=(3,), spare=(2,))


def test_a_shadow_is_served_in_addition_and_is_none_of_the_newest() -> None:
    """It is compared with the one that it may replace, so both are needed."""
    shadow = {"version": 3}
    assert select([1, 2, 3], config(shadow=shadow)) == Selection(
        (2, 3), newest=(2,), spare=(1,), shadow=3
    )
    assert select([1, 2, 3], config(shadow=shadow, version_policy="all")).wanted == (1, 2, 3)
    assert select([1, 2, 3], config(shadow=shadow, version_policy=specific(1))).wanted == (1, 3)
    assert select([1, 2], config(shadow=shadow)) == Selection(
        (2,), missing=(3,), newest=(2,), spare=(1,), shadow=3
    )
    assert select([3], config(shadow=shadow)) == Selection((3,), shadow=3)


@pytest.mark.parametrize(
    ("wanted", "ready", "stand_ins", "unloaded"),
    [
        pytest.param((2,), [1, 2], [], [1], id="replaced"),
        pytest.param((2,), [1], [], [], id="the new one is not READY: what served goes on"),
        pytest.param((3,), [1, 2], [2], [1], id="the stand-in is enough"),
        pytest.param((3,), [1, 2, 3], [], [1, 2], id="mended"),
        pytest.param((), [1], [], [], id="nothing is wanted any more: the last one serves on"),
        pytest.param((1, 2), [1, 2], [], [], id="all of them are wanted"),
        pytest.param((1,), [], [], [], id="nothing is READY"),
    ],
)
def test_superseded(
    wanted: tuple[int, ...], ready: list[int], stand_ins: list[int], unloaded: list[int]
) -> None:
    assert superseded(Selection(wanted), ready, stand_ins) == unloaded


@pytest.mark.parametrize(
    ("selection", "unloaded"),
    [
        pytest.param(Selection((2, 3), shadow=3), [], id="it takes nobody's place"),
        pytest.param(Selection((3,), missing=(2,), shadow=3), [], id="what is wanted is missing"),
        pytest.param(Selection((3,), shadow=3), [1], id="nothing else is wanted"),
    ],
)
def test_superseded_by_a_shadow(selection: Selection, unloaded: list[int]) -> None:
    """Only a version that answers is a reason to unload another one."""
    assert superseded(selection, [1, 3], []) == unloaded


def test_the_highest_ready_version_answers() -> None:
    assert choose([9, 10, 1], weights=None, shadow=None, roll=0.0) == 10
    assert choose([], weights=None, shadow=None, roll=0.0) is None


@pytest.mark.parametrize(
    ("roll", "answers"), [(0.0, 1), (0.89, 1), (0.9, 2), (0.95, 2), (0.999999, 2)]
)
def test_weights_share_the_requests(roll: float, answers: int) -> None:
    """Of any sum: 90 to 10 is 9 to 1."""
    for weights in ({1: 90.0, 2: 10.0}, {2: 0.1, 1: 0.9}):
        assert choose([2, 1], weights=weights, shadow=None, roll=roll) == answers


@pytest.mark.parametrize("roll", [0.0, 0.3, 0.5, 0.999])
def test_a_version_that_is_not_ready_or_has_no_weight_gets_nothing(roll: float) -> None:
    """Its share goes to the others."""
    weights = {1: 50.0, 2: 50.0, 3: 0.0}
    assert choose([1, 3], weights=weights, shadow=None, roll=roll) == 1
    assert choose([2, 3, 4], weights=weights, shadow=None, roll=roll) == 2


def test_without_any_weighted_version_the_highest_answers() -> None:
    """Serving beats routing."""
    assert choose([3, 4], weights={1: 1.0}, shadow=None, roll=0.5) == 4
    assert choose([3, 4], weights={3: 0.0}, shadow=None, roll=0.5) == 4


def test_every_roll_chooses_somebody() -> None:
    """Shares that do not add up exactly leave no gap at the end."""
    weights = dict.fromkeys(range(1, 11), 0.1)
    assert choose(range(1, 11), weights=weights, shadow=None, roll=1 - 2**-53) == 10


def test_the_shadow_answers_only_when_there_is_no_other() -> None:
    assert choose([1, 2], weights=None, shadow=2, roll=0.0) == 1
    assert choose([1, 2], weights={2: 1.0}, shadow=2, roll=0.0) == 1
    assert choose([2], weights=None, shadow=2, roll=0.0) == 2


@pytest.mark.parametrize("count", [1, 3])
def test_shares_come_out_as_asked(count: int) -> None:
    """Over evenly spread rolls, the share is the weight's."""
    weights = {1: 9.0, 2: 1.0}
    rolls = [number / (1000 * count) for number in range(1000 * count)]
    chosen = [choose([1, 2], weights=weights, shadow=None, roll=roll) for roll in rolls]
    assert chosen.count(2) == 100 * count
