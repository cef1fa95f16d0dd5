"""What a script can do with a Tensor, on numpy arrays; knows neither Lua nor limits.

Names, meanings and error texts are those of Encoderfile's `Tensor`; `argmax`, `argmin`, `max_axis`
and `log` are ours. Arrays are float32 of any rank, an axis counts from 1, nothing changes
its argument. Callers turn numpy's floating-point warnings off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from nerve.types import FloatArray

MAX_RANK: Final = 32
SMALLEST_NORM: Final = 1e-12
SHOWN_ELEMENTS: Final = 499
"""A text leaves out the middle of a Tensor with more."""
SHORT_AXIS, MANY_ELEMENTS = 16, 2000
"""Along a last axis no longer than this, numpy is slow on an array of so many."""

Result = FloatArray | float | bytes | None


class TensorError(Exception):
    """A script asked for something that a Tensor cannot do; the text is for its author."""


def _axis(data: FloatArray, axis: int) -> int:
    """The axis as numpy counts it."""
    if axis < 1:
        raise TensorError("Axis must be >= 1.")
    if axis > data.ndim:
        raise TensorError("Axis out of range.")
    return axis - 1


def _filled_axis(data: FloatArray, axis: int, name: str) -> int:
    at = _axis(data, axis)
    if data.shape[at] == 0:
        raise TensorError(f"{name}: axis {axis} is empty")
    return at


def _in_front(data: FloatArray, at: int) -> tuple[FloatArray, int]:
    """The array and where its axis is: in a copy in front, if that is faster."""
    if at != data.ndim - 1 or data.shape[at] > SHORT_AXIS or data.size < MANY_ELEMENTS:
        return data, at
    return np.array(data.transpose(at, *range(at)), order="C"), 0


def _rounded(value: float) -> float:
    """To the nearest float32, as every number of a Tensor."""
    return float(np.float32(value))


def ndim(data: FloatArray) -> float:
    """Rank."""
    return data.ndim


def length(data: FloatArray) -> float:
    """How many elements there are, over all axes."""
    return data.size


def total(data: FloatArray) -> float:
    """Sum of all elements, 0 if there are none."""
    return _rounded(np.add.reduce(data, axis=None, dtype=np.float64))


def mean(data: FloatArray) -> float | None:
    """Mean of all elements, None if there are none."""
    found = np.add.reduce(data, axis=None, dtype=np.float64)
    return _rounded(found / data.size) if data.size else None


def _extreme(data: FloatArray, reduce: Callable[..., np.float32]) -> float:
    if data.size == 0:
        raise TensorError("Min max error: Empty input.")
    found = float(reduce(data, axis=None))
    if math.isnan(found):  # numpy hands a NaN on
        raise TensorError("Min max error: Undefined ordering between a tested pair of values.")
    return found


def smallest(data: FloatArray) -> float:
    """The least element; raises TensorError where there is none, or a NaN."""
    return _extreme(data, np.minimum.reduce)


def largest(data: FloatArray) -> float:
    """The greatest element; raises TensorError where there is none, or a NaN."""
    return _extreme(data, np.maximum.reduce)


def std(data: FloatArray, ddof: float) -> float:
    """Standard deviation of all elements, of which `ddof` do not count as free."""
    if not 0 <= ddof <= data.size:
        raise TensorError(
            f"std: ddof must be from 0 to the number of elements, {data.size}; got {ddof:g}"
        )
    centred = data - np.float64(mean(data) or 0.0)
    squares = np.add.reduce(centred * centred, axis=None)
    return _rounded(np.sqrt(np.float64(squares) / np.float64(data.size - ddof)))


def exp(data: FloatArray) -> FloatArray:
    """Of each element."""
    return np.exp(data)


def log(data: FloatArray) -> FloatArray:
    """Natural logarithm of each element; -inf of 0, NaN below."""
    return np.log(data)


def clamp(data: FloatArray, low: float | None, high: float | None) -> FloatArray:
    """Each element within [low, high]; None is no bound, a NaN bound makes all NaN.

    A NaN element becomes a bound; where `high` is below `low`, every element becomes `high`.
    """
    if not data.flags.c_contiguous:
        raise TensorError("Array must be contiguous")
    if any(bound is not None and math.isnan(bound) for bound in (low, high)):
        return np.full_like(data, np.nan)
    result = data.copy() if low is None else np.fmax(data, np.float32(low))
    return result if high is None else np.fmin(result, np.float32(high))


def softmax(data: FloatArray, axis: int) -> FloatArray:
    """Exponentials that sum to 1 along the axis."""
    at = _axis(data, axis)
    if data.shape[at] == 0:
        return data.copy()
    moved, along = _in_front(data, at)
    most = np.maximum.reduce(moved, axis=along, keepdims=True)
    result = np.subtract(moved, most, out=None if moved is data else moved)
    np.exp(result, out=result)
    result /= np.add.reduce(result, axis=along, keepdims=True)
    return np.ascontiguousarray(np.moveaxis(result, along, at)) if along != at else result


def lp_normalize(data: FloatArray, p: float, axis: int) -> FloatArray:
    """Divided by the Lp norm along the axis, which is taken as 1e-12 at least."""
    at = _axis(data, axis)
    if data.size == 0:
        raise TensorError("lp_normalize: the Tensor is empty")
    if p == 0:
        raise TensorError("lp_normalize: p must not be 0")
    powers = np.power(np.abs(data.astype(np.float64)), p)
    norm = np.power(np.add.reduce(powers, axis=at, keepdims=True), 1.0 / p)
    return np.asarray(data / np.maximum(norm, SMALLEST_NORM), dtype=np.float32)


def layer_norm(data: FloatArray, axis: int, eps: float) -> FloatArray:
    """(x - mean) / sqrt(variance + eps) along the axis; the variance is that of a population."""
    at = _filled_axis(data, axis, "layer_norm")
    moved, along = _in_front(data, at)
    centred = moved - np.mean(moved, axis=along, keepdims=True)
    variance = np.mean(centred * centred, axis=along, keepdims=True)
    centred /= np.sqrt(variance + np.float32(eps))
    return np.ascontiguousarray(np.moveaxis(centred, along, at)) if along != at else centred


def sum_axis(data: FloatArray, axis: int) -> FloatArray:
    """Sums along the axis, which goes."""
    moved, along = _in_front(data, _axis(data, axis))
    return np.asarray(np.add.reduce(moved, axis=along))


def max_axis(data: FloatArray, axis: int) -> FloatArray:
    """Greatest elements along the axis, which goes; raises TensorError as `largest` does."""
    at = _axis(data, axis)
    if data.shape[at] == 0:
        raise TensorError("Min max error: Empty input.")
    moved, along = _in_front(data, at)
    result = np.asarray(np.maximum.reduce(moved, axis=along))
    if np.isnan(result).any():
        raise TensorError("Min max error: Undefined ordering between a tested pair of values.")
    return result


def _place(data: FloatArray, axis: int, name: str, reduce: Callable[..., FloatArray]) -> FloatArray:
    moved, along = _in_front(data, _filled_axis(data, axis, name))
    best = reduce(moved, axis=along, keepdims=True)
    if np.isnan(best).any():
        raise TensorError(f"{name}: nothing but NaN along axis {axis}")
    return np.asarray((moved == best).argmax(axis=along) + 1, dtype=np.float32)


def argmax(data: FloatArray, axis: int) -> FloatArray:
    """Where along the axis, which goes, the first greatest element is; counts from 1, skips NaN.

    Raises:
        TensorError: the axis is empty, or holds nothing but NaN.
    """
    return _place(data, axis, "argmax", np.fmax.reduce)


def argmin(data: FloatArray, axis: int) -> FloatArray:
    """As `argmax`, of the least element."""
    return _place(data, axis, "argmin", np.fmin.reduce)


def transpose(data: FloatArray) -> FloatArray:
    """All axes in reverse order: a view."""
    return data.T


def truncate_axis(data: FloatArray, axis: int, size: int) -> FloatArray:
    """The first `size` of the axis, or all if there are fewer."""
    at = _axis(data, axis)
    if size < 0:
        raise TensorError(f"truncate_axis: the length must be at least 0, got {size}")
    return data[(slice(None),) * at + (slice(size),)].copy()


def mean_pool(data: FloatArray, mask: FloatArray) -> FloatArray:
    """Mean over every axis but the first and the last, weighted by a mask without the last."""
    if data.ndim < 2 or mask.ndim != data.ndim - 1:
        raise TensorError(
            f"mean_pool: the mask must have one axis less than the Tensor, which must have 2 or "
            f"more; got shapes {list(mask.shape)} and {list(data.shape)}"
        )
    try:
        weights = np.broadcast_to(mask, data.shape[:-1])[..., np.newaxis]
    except ValueError:
        raise _no_broadcast(mask, data) from None
    inner = tuple(range(1, data.ndim - 1))
    summed = np.add.reduce(data * weights, axis=inner)
    return np.asarray(summed / np.add.reduce(weights, axis=inner))


def part(data: FloatArray, axis: int, index: int) -> FloatArray:
    """What is at `index`, from 1, of the axis, which goes; row-major."""
    at = _axis(data, axis)
    return data[(slice(None),) * at + (index - 1,)].copy()


def elements(data: FloatArray, axis: int) -> bytes:
    """All elements, little-endian float32: those at 1 of the axis, row-major, then at 2, and so on."""
    return np.moveaxis(data, _axis(data, axis), 0).astype("<f4").tobytes()


def size(data: FloatArray, axis: int) -> float:
    """How many parts the axis has."""
    return int(data.shape[_axis(data, axis)])


def stack(parts: Sequence[FloatArray], axis: int) -> FloatArray:
    """Arrays of one shape, one after the other along a new axis."""
    if not parts:
        raise TensorError("stack error: there is nothing to put together")
    for other in parts:
        if other.shape != parts[0].shape:
            raise TensorError(
                f"stack error: unequal shapes {list(parts[0].shape)} and {list(other.shape)}"
            )
    if axis > parts[0].ndim + 1:
        raise TensorError(f"stack error: no axis {axis} with parts of shape {list(parts[0].shape)}")
    if parts[0].ndim == MAX_RANK:
        raise TensorError(f"stack error: a Tensor has {MAX_RANK} axes at most")
    return np.stack(parts, axis=axis - 1)


def text(data: FloatArray) -> bytes:
    """Nested brackets; the middle is left out from 500 elements on."""
    shown = math.prod(min(each, 6) for each in data.shape)  # numpy keeps three at either end
    if data.size > SHOWN_ELEMENTS and shown > 10 * SHOWN_ELEMENTS:
        return f"Tensor of shape {list(data.shape)}".encode()
    return np.array2string(
        data,
        separator=", ",
        threshold=SHOWN_ELEMENTS,
        formatter={"float_kind": lambda value: np.format_float_positional(value, trim="-")},
    ).encode()


def _no_broadcast(left: FloatArray, right: FloatArray) -> TensorError:
    return TensorError(f"Shape {list(left.shape)} not broadcastable to {list(right.shape)}")


def broadcast_size(left: FloatArray | float, right: FloatArray | float) -> int:
    """Elements of what an operator makes of the two.

    Raises:
        TensorError: their shapes do not go together.
    """
    if isinstance(left, float) or isinstance(right, float):
        return max(getattr(left, "size", 1), getattr(right, "size", 1))
    if left.shape == right.shape:
        return left.size
    try:
        return math.prod(np.broadcast_shapes(left.shape, right.shape))
    except ValueError:
        raise _no_broadcast(left, right) from None
