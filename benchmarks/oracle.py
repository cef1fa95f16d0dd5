"""The best that ONNX Runtime can do with these texts: tokenised beforehand, sorted by length, no server.

Grid over thread set-ups and batch sizes; the best ones are measured again beside the server.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime
from machine import busy_s

BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32, 64)
FIRST_BATCH_SIZE: Final = 8
FINALISTS: Final = 2
"""Ways that are measured again in every round: the search alone cannot tell near ones apart."""
SEED: Final = 4

Session = Any
"""onnxruntime.InferenceSession; the runtime ships no types."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs of one run; `tokens` and `texts` are what it holds, padding not counted."""

    feed: Mapping[str, npt.NDArray[np.int64]]
    tokens: int
    texts: int


@dataclass(frozen=True, slots=True)
class SetUp:
    """Threads that each keep running batches, one for each of `sessions` (which may be equal)."""

    name: str
    sessions: Sequence[Session]


@dataclass(frozen=True, slots=True)
class Rate:
    """What a set-up does with batches of a size; `rest_cores` is what the rest of the machine used
    meanwhile, a second."""

    set_up: str
    batch_size: int
    tokens_per_s: float
    texts_per_s: float
    padding_waste: float
    cpu_ms_per_token: float
    rest_cores: float


Way = tuple[SetUp, int]
"""A set-up and a batch size."""


def open_session(model: Path, *, threads: int, spinning: bool) -> Session:
    """A session with the server's options, but for threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    return onnxruntime.InferenceSession(
        str(model), options, providers=["CPUExecutionProvider"], enable_fallback=0
    )


def set_ups(model: Path, cores: int) -> list[SetUp]:
    """Every way worth trying to keep `cores` cores busy with one model."""
    one = open_session(model, threads=1, spinning=False)
    if cores == 1:
        return [SetUp("1 thread", [one])]
    more = [open_session(model, threads=1, spinning=False) for _ in range(cores - 1)]
    wide = open_session(model, threads=cores, spinning=False)
    spinning = open_session(model, threads=cores, spinning=True)
    return [
        SetUp(f"1 session called by {cores} threads", [one] * cores),
        SetUp(f"{cores} sessions", [one, *more]),
        SetUp(f"1 session of {cores} threads", [wide]),
        SetUp(f"1 session of {cores} threads, spinning", [spinning]),
    ]


def feed(session: Session, rows: Sequence[Sequence[int]]) -> dict[str, npt.NDArray[np.int64]]:
    """Token ids, padded with 0 to the longest, as the inputs that the graph names."""
    ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    mask = np.zeros_like(ids)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = row
        mask[at, : len(row)] = 1
    values = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return {each.name: values[each.name] for each in session.get_inputs()}


class Oracle:
    """A model and texts to run; `search` once, then `measure` as often as wanted."""

    def __init__(self, model: Path, rows: Sequence[Sequence[int]], *, cores: int) -> None:
        """Open the sessions.

        Args:
            model: the graph.
            rows: token ids of each text.
            cores: to use.
        """
        self._set_ups = set_ups(model, cores)
        session = self._set_ups[0].sessions[0]
        by_length = sorted(rows, key=len)
        self._batches = {
            size: [
                Batch(feed(session, part), sum(map(len, part)), len(part))
                for part in _parts(by_length, size)
            ]
            for size in BATCH_SIZES
        }
        self._best = [(self._set_ups[0], FIRST_BATCH_SIZE)]

    def search(self, *, seconds: float) -> list[Rate]:
        """Find the best set-ups and batch sizes; `seconds` for each try.

        All set-ups run one batch size, the better two of them all others. Each is tried twice,
        some time apart, and its better try counts: what else the machine does only slows it.
        """
        tried = self._tried([(each, FIRST_BATCH_SIZE) for each in self._set_ups], seconds)
        others = [size for size in BATCH_SIZES if size != FIRST_BATCH_SIZE]
        better = [set_up for _, (set_up, _) in sorted(tried, key=_slowness)[:2]]
        tried += self._tried([(set_up, size) for set_up in better for size in others], seconds)
        self._best = [way for _, way in sorted(tried, key=_slowness)[:FINALISTS]]
        return [rate for rate, _ in tried]

    def _tried(self, ways: Sequence[Way], seconds: float) -> list[tuple[Rate, Way]]:
        twice = [[self.rate(*way, seconds=seconds / 2) for way in ways] for _ in range(2)]
        best = [max(pair, key=lambda rate: rate.tokens_per_s) for pair in zip(*twice, strict=True)]
        return list(zip(best, ways, strict=True))

    def measure(self, *, seconds: float) -> list[Rate]:
        """The rates of the best ways, now; `seconds` for all of them."""
        return [self.rate(*way, seconds=seconds / len(self._best)) for way in self._best]

    def rate(self, set_up: SetUp, size: int, *, seconds: float) -> Rate:
        """Run batches of all lengths for `seconds`.

        In a shuffled order that is always the same, over and over, so that a part of the texts
        stands for all; each thread's own time counts, so none waits for another's last batch.
        """
        batches = list(self._batches[size])
        random.Random(SEED).shuffle(batches)
        for session in set_up.sessions:  # arenas grow with the first runs
            session.run(["logits"], batches[0].feed)
        began, cpu_s, rest_s = time.perf_counter(), time.process_time(), busy_s()
        ran, tokens_per_s = run_for(set_up.sessions, batches, seconds=seconds)
        cpu_s = time.process_time() - cpu_s
        rest_s = busy_s() - rest_s - cpu_s
        tokens, texts = sum(each.tokens for each in ran), sum(each.texts for each in ran)
        padded = sum(each.feed["input_ids"].size for each in ran)
        return Rate(
            set_up=set_up.name,
            batch_size=size,
            tokens_per_s=tokens_per_s,
            texts_per_s=tokens_per_s * texts / tokens,
            padding_waste=(padded - tokens) / padded,
            cpu_ms_per_token=cpu_s / tokens * 1e3,
            rest_cores=rest_s / (time.perf_counter() - began),
        )


def run_for(
    sessions: Sequence[Session], batches: Sequence[Batch], *, seconds: float
) -> tuple[list[Batch], float]:
    """Run batches in a thread for each of `sessions`: those that ran, and tokens a second."""
    ran: list[list[Batch]] = [[] for _ in sessions]
    rates = [0.0] * len(ran)
    order = itertools.cycle(batches)  # `next` of it is one step, so threads can share it

    def work(at: int) -> None:
        began = time.perf_counter()
        while (took := time.perf_counter() - began) < seconds:
            batch = next(order)
            sessions[at].run(["logits"], batch.feed)
            ran[at].append(batch)
        rates[at] = sum(batch.tokens for batch in ran[at]) / took

    threads = [threading.Thread(target=work, args=(at,)) for at in range(len(ran))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [batch for own in ran for batch in own], sum(rates)


def _slowness(tried: tuple[Rate, Way]) -> float:
    return -tried[0].tokens_per_s


def _parts(rows: Sequence[Sequence[int]], size: int) -> Iterator[Sequence[Sequence[int]]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
