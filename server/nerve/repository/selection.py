"""Which versions are served, and which one answers. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from nerve.config.model import ModelConfig


@dataclass(frozen=True, slots=True)
class Selection:
    """What a config wants of the versions that are there.

    `wanted` ascending; `missing` are named in the config but not there; `newest` are those that
    were chosen because they are the newest, and `spare` those that stand in for them, highest
    first, when one cannot be loaded; `shadow` only gets copies of requests.
    """

    wanted: tuple[int, ...]
    missing: tuple[int, ...] = ()
    newest: tuple[int, ...] = ()
    spare: tuple[int, ...] = ()
    shadow: int | None = None


def select(available: Iterable[int], config: ModelConfig) -> Selection:
    """Apply version_policy, and add what routing and shadow name.

    The shadow version is none of the newest: it would otherwise take the place of the one that
    it is compared with.
    """
    numbers = sorted(available)
    named = set(config.routing.weights if config.routing else ())
    shadow = {config.shadow.version} if config.shadow else set()
    candidates = [number for number in numbers if number not in shadow]
    policy = config.version_policy
    newest: list[int] = []
    spare: list[int] = []
    if policy.all is not None:
        chosen = set(candidates)
    elif policy.specific is not None:
        chosen = set(policy.specific.versions)
    else:
        count = policy.latest.num_versions if policy.latest else 1
        newest = candidates[-count:]
        spare = [number for number in reversed(candidates[:-count]) if number not in named]
        chosen = set(newest)
    chosen |= named | shadow
    there = set(numbers)
    return Selection(
        wanted=tuple(sorted(chosen & there)),
        missing=tuple(sorted(chosen - there)),
        newest=tuple(newest),
        spare=tuple(spare),
        shadow=config.shadow.version if config.shadow else None,
    )


def superseded(
    selection: Selection, ready: Collection[int], stand_ins: Collection[int]
) -> list[int]:
    """READY versions that are to be unloaded now, ascending.

    Args:
        selection: of the model.
        ready: versions that are READY.
        stand_ins: those of `selection.spare` that serve because a newer one cannot be loaded.
    Returns:
        Nothing as long as no version that is wanted is READY: what served goes on. The shadow
        is no such version, unless nothing else is wanted.
    """
    keep = (set(selection.wanted) | set(stand_ins)) & set(ready)
    only_shadow = {*selection.wanted, *selection.missing} == {selection.shadow}
    taking_over = keep if only_shadow else keep - {selection.shadow}
    return sorted(set(ready) - keep) if taking_over else []


def choose(
    ready: Collection[int], *, weights: Mapping[int, float] | None, shadow: int | None, roll: float
) -> int | None:
    """The version that answers a request without a version; None if none is READY.

    Args:
        ready: versions that are READY.
        weights: of routing; versions without one, or that are not READY, get nothing.
        shadow: the version that only gets copies; it answers when there is no other.
        roll: a random number in [0, 1).
    """
    answering = [number for number in ready if number != shadow] or list(ready)
    if not answering:
        return None
    shares = [(number, weights.get(number, 0.0)) for number in sorted(answering)] if weights else []
    total = sum(share for _, share in shares)
    if total <= 0:
        return max(answering)
    left = roll * total
    for number, share in shares:
        left -= share
        if left < 0:
            return number
    return max(number for number, share in shares if share > 0)  # rounding
