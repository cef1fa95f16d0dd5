"""The bound of what is kept, which answers go, and what they really hold."""

from __future__ import annotations

import gc
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from nerve.caching.store import Entry, Key, Store, entry, tags_of
from nerve.metrics.cache import CacheMetrics
from nerve.types import Span, TextCost, TokenTags

COST = TextCost(3, False)
LABELS = {"model": "ner", "version": "1"}


class Counted:
    """A store and its metrics."""

    def __init__(self, max_bytes: int) -> None:
        self.registry = CollectorRegistry()
        self.counts = CacheMetrics(self.registry).of("ner", 1)
        self.store = Store(max_bytes, self.counts)

    def metric(self, name: str) -> float | None:
        return self.registry.get_sample_value(f"nerve_cache_{name}", LABELS)


def spans(number: int, *, scores: bool = False) -> list[Span]:
    """Spans with objects of their own, as a decoder makes them: parts of arrays of a batch."""
    batch = np.random.default_rng(0).random((256, 9), dtype=np.float32)
    own = (row if scores else None for row in batch)
    return [
        Span(f"wörd {at}", "PER", batch[at, 0], 1000 + at, 2000 + at, 3000 + at, next(own))
        for at in range(number)
    ]


def tags(number: int) -> TokenTags:
    batch = np.random.default_rng(0).random((256, 9), dtype=np.float32)
    numbers = [1000 + at for at in range(number)]
    return TokenTags(
        pieces=[f"##{at}" for at in range(number)],
        ids=numbers,
        start=[2000 + at for at in range(number)],
        end=[3000 + at for at in range(number)],
        logits=batch[:number],
        best=batch.argmax(axis=1)[:number],
        score=batch[:number, 0],
    )


@given(
    max_bytes=st.integers(1, 12_000),
    steps=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6), st.booleans()), max_size=60),
)
def test_the_bound_holds_and_those_go_that_were_not_asked_for_longest(
    max_bytes: int, steps: list[tuple[int, int, bool]]
) -> None:
    """Against a model that is a list: after each step the same answers, in the same order."""
    counted, told = Counted(max_bytes), OrderedDict[Key, Entry]()
    evicted = 0
    for name, size, looks in steps:
        key = (f"text {name}", "spans")
        if looks:
            assert counted.store.get(key) is told.get(key)
            if key in told:
                told.move_to_end(key)
            continue
        made = entry(key, spans(size), None, COST)
        counted.store.put(key, made)
        if made.held_bytes <= max_bytes:
            told.pop(key, None)
            while sum(each.held_bytes for each in told.values()) + made.held_bytes > max_bytes:
                told.popitem(last=False)
                evicted += 1
            told[key] = made
        held = sum(each.held_bytes for each in told.values())
        assert counted.store.held_bytes == held <= max_bytes
        assert (counted.metric("bytes"), counted.metric("entries")) == (held, len(told))
    assert len(counted.store) == len(told)
    assert counted.metric("evictions_total") == evicted
    counted.store.clear()
    assert (len(counted.store), counted.store.held_bytes) == (0, 0)
    assert (counted.metric("bytes"), counted.metric("entries")) == (0, 0)


def test_what_is_larger_than_the_bound_drops_nothing() -> None:
    small = entry(("a", "spans"), [], None, COST)
    counted = Counted(small.held_bytes)
    counted.store.put(("a", "spans"), small)
    large = entry(("b", "spans"), spans(1), None, COST)
    counted.store.put(("b", "spans"), large)
    counted.store.put(("a", "spans"), large)
    assert counted.store.get(("a", "spans")) is small
    assert counted.store.get(("b", "spans")) is None
    assert counted.metric("evictions_total") == 0


MAKE: dict[str, Callable[[], tuple[list[Span] | None, TokenTags | None]]] = {
    "no spans": lambda: ([], None),
    "spans": lambda: (spans(6), None),
    "tokens as spans": lambda: (spans(30, scores=True), None),
    "tags": lambda: (None, tags(30)),
    "both": lambda: (spans(6), tags(30)),
}


@pytest.mark.parametrize("what", sorted(MAKE))
def test_bytes_are_those_that_are_really_held(what: str) -> None:
    """Measured; and what an answer was cut out of is not kept alive by it."""
    counted, number = Counted(1 << 30), 120
    entry(("", ""), *MAKE[what](), COST)  # what is only made once is made now
    gc.collect()
    tracemalloc.start(6)
    try:
        for at in range(number):
            key = (f"text number {at} " * 3, repr(("both", at)))
            counted.store.put(key, entry(key, *MAKE[what](), COST))
            del key
        gc.collect()
        snapshot = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    ours = [tracemalloc.Filter(True, __file__, all_frames=True)]  # not another thread's
    held = sum(trace.size for trace in snapshot.filter_traces(ours).traces)
    assert 0.95 * held <= counted.store.held_bytes <= 1.5 * held


def test_nobody_can_change_what_is_kept() -> None:
    given_spans, given_tags = spans(3, scores=True), tags(3)
    kept = entry(("a", "both"), given_spans, given_tags, COST)
    assert kept.spans is not None
    assert kept.tags is not None
    first = kept.spans[0]
    assert first.scores is not None
    assert first[:6] == given_spans[0][:6]
    assert given_spans[0].scores is not None
    assert first.scores.tobytes() == given_spans[0].scores.tobytes()
    arrays = [span.scores for span in kept.spans]
    for array in [*arrays, kept.tags.logits, kept.tags.best, kept.tags.score]:
        assert array is not None
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    copied = tags_of(kept.tags)
    for own in (copied.pieces, copied.ids, copied.start, copied.end):
        own.clear()
    assert (kept.tags.pieces, kept.tags.ids) == (given_tags.pieces, given_tags.ids)
    assert (kept.tags.start, kept.tags.end) == (given_tags.start, given_tags.end)
    assert kept.tags.logits.tobytes() == given_tags.logits.tobytes()


def test_series_go_with_the_last_copy() -> None:
    """A reload has two copies of a version for a while; the counters go on."""
    registry = CollectorRegistry()
    metrics = CacheMetrics(registry)
    key = ("a", "spans")
    made = entry(key, [], None, COST)
    old_counts, new_counts = metrics.of("ner", 1), metrics.of("ner", 1)
    old, new = Store(1 << 20, old_counts), Store(1 << 20, new_counts)
    old.put(key, made)
    new.put(key, made)
    old_counts.hit(2)
    old_counts.miss(3)
    old.clear()
    old_counts.close()
    old_counts.close()  # twice is once
    values = {
        name: registry.get_sample_value(f"nerve_cache_{name}", LABELS)
        for name in ("hits_total", "misses_total", "bytes", "entries")
    }
    assert values == {"hits_total": 2, "misses_total": 3, "bytes": made.held_bytes, "entries": 1}
    new.clear()
    new_counts.close()
    assert "ner" not in str([family.samples for family in registry.collect()])
