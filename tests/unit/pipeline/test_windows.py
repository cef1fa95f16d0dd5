"""Overlapping windows: which token counts where, and which entities stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerve.pipeline.windows import Window, joined, merge, owned, total_length

FAR = 1 << 30


def window(tokens: list[int], *, before: int, after: int) -> Window:
    """A window over tokens, known by their number in the text, between special ones (-1)."""
    ids = [*[-1] * before, *tokens, *[-1] * after]
    count = len(ids)
    return Window(
        ids=np.array(ids, dtype=np.int64),
        type_ids=np.zeros(count, dtype=np.int64),
        offsets=np.zeros((count, 2), dtype=np.int64),
        kept=np.array(ids, dtype=np.int64) >= 0,
        pieces=[""] * count,
    )


def cut(tokens: int, body: int, overlap: int) -> list[list[int]]:
    """Tokens of each window, as the tokenizers library cuts them from the left."""
    parts = []
    for start in range(0, max(tokens, 1), body - overlap):
        parts.append(list(range(start, min(start + body, tokens))))
        if start + body >= tokens:
            break
    return parts


_cuts = st.integers(1, 12).flatmap(
    lambda body: st.tuples(st.integers(0, 60), st.just(body), st.integers(0, body - 1))
)


@given(_cuts, st.integers(0, 1), st.integers(0, 2))
def test_each_token_counts_once(sizes: tuple[int, int, int], before: int, after: int) -> None:
    """Owned tokens of all windows, one after another, are the text; special ones are in none."""
    tokens, body, overlap = sizes
    windows = [window(part, before=before, after=after) for part in cut(tokens, body, overlap)]
    masks = owned(windows, overlap)
    counted = [
        number
        for each, mask in zip(windows, masks, strict=True)
        for number in each.ids[mask].tolist()
    ]
    assert counted == list(range(tokens))


@given(_cuts)
def test_a_token_counts_where_it_has_most_context(sizes: tuple[int, int, int]) -> None:
    """Of the windows that hold a token, none has more context on the token's poorer side."""
    tokens, body, overlap = sizes
    parts = cut(tokens, body, overlap)

    def context(number: int, token: int) -> int:
        part = parts[number]
        left = token - part[0] if number else FAR
        right = part[-1] - token if number + 1 < len(parts) else FAR
        return min(left, right)

    windows = [window(part, before=1, after=1) for part in parts]
    for number, mask in enumerate(owned(windows, overlap)):
        for token in windows[number].ids[mask].tolist():
            others = [other for other, part in enumerate(parts) if token in part]
            assert context(number, token) == max(context(other, token) for other in others)


@given(_cuts, st.integers(0, 1), st.integers(0, 2))
def test_joined_windows_are_the_uncut_text(
    sizes: tuple[int, int, int], before: int, after: int
) -> None:
    """Each token once, and what the tokenizer added at the two ends only."""
    tokens, body, overlap = sizes
    windows = [window(part, before=before, after=after) for part in cut(tokens, body, overlap)]
    found, uncut = (
        joined(windows, overlap),
        window(list(range(tokens)), before=before, after=after),
    )
    for name in ("ids", "type_ids", "offsets", "kept"):
        assert getattr(found, name).tolist() == getattr(uncut, name).tolist()
    assert len(found.pieces) == len(found.ids)


@given(_cuts)
def test_total_length_is_that_of_the_uncut_text(sizes: tuple[int, int, int]) -> None:
    """Shared tokens are counted once."""
    tokens, body, overlap = sizes
    assert total_length([len(part) for part in cut(tokens, body, overlap)], overlap) == tokens


Entity = tuple[int, int, float]


def merged(entities: list[Entity]) -> list[Entity]:
    """What `merge` keeps, as entities."""
    starts = np.array([start for start, _, _ in entities], dtype=np.int64)
    ends = np.array([end for _, end, _ in entities], dtype=np.int64)
    scores = [np.float32(score) for _, _, score in entities]
    return [entities[number] for number in merge(starts, ends, scores)]


def reference(entities: list[Entity]) -> list[Entity]:
    """Section 9 of the contract: a chain of winners over the entities in text order."""
    queue = sorted(entities, key=lambda entity: entity[0])
    if not queue:
        return []
    kept = []
    winner = queue[0]
    for challenger in queue:
        if not winner[0] <= challenger[0] < winner[1]:
            kept.append(winner)
            winner = challenger
            continue
        gain = (challenger[1] - challenger[0]) - (winner[1] - winner[0])
        if gain > 0 or (gain == 0 and np.float32(challenger[2]) > np.float32(winner[2])):
            winner = challenger
    kept.append(winner)
    return kept


_entities = st.tuples(
    st.integers(0, 12), st.integers(0, 6), st.sampled_from([0.1, 0.5, 0.50000001, 0.9])
).map(lambda each: (each[0], each[0] + each[1], each[2]))


@given(st.lists(_entities, max_size=10))
def test_merge_equals_the_reference(entities: list[Entity]) -> None:
    """Any entities in any order, of width 0 too, overlapping, equal, touching or apart."""
    assert merged(entities) == reference(entities)


@pytest.mark.parametrize(
    ("entities", "expected"),
    [
        pytest.param([], [], id="none"),
        pytest.param([(0, 6, 0.5), (3, 9, 0.9)], [(3, 9, 0.9)], id="equal length, better score"),
        pytest.param([(0, 6, 0.5), (3, 9, 0.5)], [(0, 6, 0.5)], id="a tie stays with the first"),
        pytest.param([(0, 6, 0.9), (3, 10, 0.1)], [(3, 10, 0.1)], id="length beats score"),
        pytest.param([(0, 6, 0.9), (0, 6, 0.5), (0, 6, 0.95)], [(0, 6, 0.95)], id="same span"),
        pytest.param([(0, 4, 0.9), (2, 10, 0.1), (5, 6, 0.99)], [(2, 10, 0.1)], id="chain"),
        pytest.param([(0, 3, 0.5), (3, 6, 0.5)], [(0, 3, 0.5), (3, 6, 0.5)], id="touching"),
        pytest.param([(3, 6, 0.5), (0, 3, 0.5)], [(0, 3, 0.5), (3, 6, 0.5)], id="text order"),
        pytest.param([(2, 2, 0.5)], [(2, 2, 0.5), (2, 2, 0.5)], id="width 0 in front, twice"),
        pytest.param([(0, 3, 0.5), (1, 1, 0.9)], [(0, 3, 0.5)], id="width 0 inside is lost"),
        pytest.param(
            [(0, 1, 0.5), (4, 4, 0.5)], [(0, 1, 0.5), (4, 4, 0.5)], id="width 0 later, once"
        ),
    ],
)
def test_merge_cases(entities: list[Entity], expected: list[Entity]) -> None:
    """The cases that section 9 names."""
    assert merged(entities) == expected
