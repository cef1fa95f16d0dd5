"""Padding: rows to a rectangle, and to shapes that recur."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerve.config.model import ModelConfig, TokenizerConfig
from nerve.config.running import Gpu, GpuProvider, Optimization
from nerve.engine.padding import Shapes, pad
from nerve.errors import ModelLoadFailed
from nerve.types import Row

PAD = 7


def row(*ids: int, types: list[int] | None = None) -> Row:
    return Row(np.array(ids), None if types is None else np.array(types))


def config(buckets: list[int] | None, *, max_batch_size: int = 6, **gpu: object) -> ModelConfig:
    settings = Gpu.model_validate({"shape_buckets": buckets, **gpu})
    return ModelConfig(
        max_batch_size=max_batch_size,
        max_num_tokens=256,
        optimization=Optimization(gpu=settings),
        tokenizer=TokenizerConfig(max_length=64),
    )


def test_rows_are_padded_to_the_longest() -> None:
    ids, mask, types = pad([row(1, 2), row(3, types=[1])], PAD)
    np.testing.assert_array_equal(ids, [[1, 2], [3, PAD]])
    np.testing.assert_array_equal(mask, [[1, 1], [1, 0]])
    np.testing.assert_array_equal(types, [[0, 0], [1, 0]])


@pytest.mark.parametrize("rows", [[row(1, 2, 3)], [row(1, 2), row(4, 5, 6)]])
def test_rows_are_padded_to_a_shape(rows: list[Row]) -> None:
    """What is added is padding that nothing attends to; a row of it sees itself, or it were NaN."""
    ids, mask, types = pad(rows, PAD, Shapes((5, 8), (4,), 100))
    assert ids.shape == mask.shape == (4, 5)
    assert types is None
    for at, each in enumerate(rows):
        length = len(each.ids)
        np.testing.assert_array_equal(ids[at, :length], each.ids)
        assert (ids[at, length:] == PAD).all()
        np.testing.assert_array_equal(mask[at], [1] * length + [0] * (5 - length))
    assert (ids[len(rows) :] == PAD).all()
    np.testing.assert_array_equal(mask[len(rows) :], [[1, 0, 0, 0, 0]] * (4 - len(rows)))


def test_type_ids_are_padded_to_a_shape() -> None:
    _, _, types = pad([row(1, 2, types=[0, 1])], PAD, Shapes((4,), (2,), 100))
    np.testing.assert_array_equal(types, [[0, 1, 0, 0], [0, 0, 0, 0]])


def test_no_buckets_no_shapes() -> None:
    assert Shapes.of(ModelConfig(), longest=512) is None


def test_shapes_of_a_config() -> None:
    """The longest row is a length of its own; what is longer than any row is none."""
    shapes = Shapes.of(config([16, 32, 128]), longest=64)
    assert shapes == Shapes((16, 32, 64), (), 256)
    assert shapes.fit(5, 17) == (5, 32)
    graphs = Shapes.of(config([16], cuda_graphs=True), longest=64)
    assert graphs == Shapes((16, 64), (1, 2, 4, 6), 256)
    assert graphs.fit(3, 5) == (4, 16)


def test_one_row_at_most_is_one_shape() -> None:
    shapes = Shapes.of(config([16], cuda_graphs=True, max_batch_size=1), longest=64)
    assert shapes is not None
    assert set(shapes.rows) == {1}


def test_a_tensorrt_engine_must_hold_the_longest_row() -> None:
    tensorrt = config([16, 32], provider=GpuProvider.TENSORRT)
    with pytest.raises(
        ModelLoadFailed, match=r"up to 64 tokens.* built for 32, .*add 64, or lower"
    ):
        Shapes.of(tensorrt, longest=64)
    assert Shapes.of(tensorrt, longest=32) == Shapes((16, 32), (), 256)


@given(
    st.sets(st.integers(1, 64), min_size=1),
    st.sets(st.integers(1, 16)),
    st.integers(64, 512),
    st.data(),
)
def test_a_shape_holds_the_batch_and_keeps_the_limit(
    lengths: set[int], rows: set[int], limit: int, data: st.DataObject
) -> None:
    """Whatever fits into max_num_tokens still does, and what has been rounded stays as it is."""
    shapes = Shapes(tuple(sorted(lengths)), tuple(sorted(rows)), limit)
    tokens = data.draw(st.integers(1, 64))
    count = data.draw(st.integers(1, limit // tokens))
    more, longer = shapes.fit(count, tokens)
    assert more >= count
    assert longer >= tokens
    assert more * longer <= limit
    assert longer == tokens or longer in lengths
    assert more == count or more in rows
    assert shapes.fit(more, longer) == (more, longer)
