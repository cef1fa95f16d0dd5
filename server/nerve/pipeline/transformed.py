"""What may come of a transform: as many scores, a class for each token, or a text about its failure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nerve.types import BoolArray, FloatArray


class WrongResult(Exception):
    """A transform's result cannot be used; `text` says what was expected and what came."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def one_line(text: str) -> str:
    """What a script says with all escaped, but tabs, that breaks a line or steers a terminal."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each == "\t" else ascii(each)[1:-1] for each in text
    )


def checked(
    result: FloatArray, shape: tuple[int, ...], *, lengths: Sequence[int] | None = None
) -> FloatArray:
    """The result itself, row-major, once nothing is wrong with it.

    Args:
        result: what the transform made, of any shape, float32.
        shape: of the model's scores: (batch, tokens, labels).
        lengths: real tokens of each row; what lies beyond is padding and may be anything.
    Returns:
        (batch, tokens, labels) scores, or (batch, tokens) numbers of classes, from 1.
    Raises:
        WrongResult: another shape; NaN, +inf or nothing but -inf for a token; no such class.
    """
    if result.shape not in {shape, shape[:2]}:
        raise WrongResult(
            f"Postprocess must return a Tensor of the shape it got, {list(shape)}, or one class "
            f"number for each token, of shape {list(shape[:2])}; got shape {list(result.shape)}"
        )
    if result.ndim == 3:
        if math.isfinite(np.add.reduce(result, axis=None)):  # as it mostly is: then all are
            return np.ascontiguousarray(result)
        best = np.maximum.reduce(result, axis=2, initial=-np.inf)  # a NaN wins
        wrong = ~np.isfinite(best)
    else:
        wrong = ~((result >= 1) & (result <= shape[2]) & (result == np.floor(result)))
    if wrong.any() and (place := _first(wrong, lengths)) is not None:
        raise WrongResult(_problem(result, place, labels=shape[2]))
    return np.ascontiguousarray(result, dtype=np.float32)


def _first(wrong: BoolArray, lengths: Sequence[int] | None) -> tuple[int, int] | None:
    """Row and token of the first that is wrong and no padding."""
    if lengths is not None:
        wrong = wrong & (np.arange(wrong.shape[1]) < np.asarray(lengths)[:, np.newaxis])
    found = np.argwhere(wrong)
    return (int(found[0, 0]), int(found[0, 1])) if len(found) else None


def _problem(result: FloatArray, place: tuple[int, int], *, labels: int) -> str:
    row, token = place
    where = f"row {row + 1}, token {token + 1}"
    if result.ndim == 2:
        return (
            f"a class must be a whole number from 1 to {labels}; got {result[place]:g} for {where}"
        )
    scores = result[place]
    wrong = np.isnan(scores) | (scores == np.inf)
    if not wrong.any():
        return f"a token needs at least one score above -inf; got none for {where}"
    label = int(wrong.argmax())
    return (
        f"a score must be a number below +inf; got {scores[label]:g} for {where}, label {label + 1}"
    )
