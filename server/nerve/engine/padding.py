"""Rows of different lengths as one rectangle of ids, and how much of it is padding. Pure."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from nerve.config.model import ModelConfig
from nerve.config.running import GpuProvider
from nerve.errors import ModelLoadFailed
from nerve.types import IntArray, Row


@dataclass(frozen=True, slots=True)
class Shapes:
    """Shapes that runs are padded to, so that they recur.

    `lengths` and `rows` ascend; no rows means that only lengths are rounded. A rounded shape is
    never of more than `max_num_tokens`.
    """

    lengths: tuple[int, ...]
    rows: tuple[int, ...]
    max_num_tokens: int

    @classmethod
    def of(cls, config: ModelConfig, *, longest: int) -> Self | None:
        """The shapes for runs on a GPU, or None for none.

        Args:
            config: of the model.
            longest: tokens of the longest row that can come; no row is padded beyond.
        Raises:
            ModelLoadFailed: such a row is longer than what a TensorRT engine is built for.
        """
        gpu = config.optimization.gpu
        if gpu.shape_buckets is None:
            return None
        if gpu.provider is GpuProvider.TENSORRT and longest > gpu.shape_buckets[-1]:
            raise ModelLoadFailed(
                f"rows of this model have up to {longest} tokens, but its TensorRT engine is built "
                f"for {gpu.shape_buckets[-1]}, the last of optimization.gpu.shape_buckets: add "
                f"{longest}, or lower tokenizer.max_length"
            )
        lengths = [each for each in gpu.shape_buckets if each < longest]
        rows = _powers_of_two(config.max_batch_size) if gpu.cuda_graphs else ()
        return cls((*lengths, longest), rows, config.max_num_tokens)

    def fit(self, rows: int, tokens: int) -> tuple[int, int]:
        """The shape that `rows` rows, the longest of `tokens` tokens, are padded to."""
        longer = _rounded(tokens, self.lengths)
        if rows * longer > self.max_num_tokens:
            return rows, tokens
        more = _rounded(rows, self.rows)
        return (rows if more * longer > self.max_num_tokens else more), longer


def _rounded(number: int, steps: Sequence[int]) -> int:
    at = bisect.bisect_left(steps, number)
    return steps[at] if at < len(steps) else number


def _powers_of_two(most: int) -> tuple[int, ...]:
    """1, 2, 4, … and `most`."""
    return (*(1 << power for power in range((most - 1).bit_length())), most)


def pad(
    rows: Sequence[Row], pad_id: int, shapes: Shapes | None = None
) -> tuple[IntArray, IntArray, IntArray | None]:
    """Ragged rows -> ids, attention mask, type ids (None when all zero), each (rows, longest).

    With `shapes`, each has what `Shapes.fit` says: padding behind the rows' ends, then rows of
    nothing but padding behind the last.
    """
    if len(rows) == 1 and shapes is None:  # the usual batch of an idle server needs no padding
        (row,) = rows
        ids = row.ids[None]
        return ids, np.ones_like(ids), None if row.type_ids is None else row.type_ids[None]
    lengths = np.array([len(row.ids) for row in rows])
    count, longest = len(rows), int(lengths.max())
    if shapes is not None:
        count, longest = shapes.fit(count, longest)
    filled = np.zeros((count, longest), dtype=np.bool_)
    filled[: len(rows)] = np.arange(longest) < lengths[:, None]
    mask = filled.astype(np.int64)
    mask[len(rows) :, 0] = 1  # a row that sees nothing at all may come out as NaN
    ids = np.full(mask.shape, pad_id, dtype=np.int64)
    ids[filled] = np.concatenate([row.ids for row in rows])
    if all(row.type_ids is None for row in rows):
        return ids, mask, None
    type_ids = np.zeros_like(ids)
    type_ids[filled] = np.concatenate(
        [np.zeros_like(row.ids) if row.type_ids is None else row.type_ids for row in rows]
    )
    return ids, mask, type_ids
