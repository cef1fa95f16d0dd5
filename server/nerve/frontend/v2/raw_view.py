"""The raw view: token ids in, logits out, for clients that tokenize themselves (kserve-v2, 10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from nerve.errors import InvalidField, shown
from nerve.frontend.v2.tensors import InputTensor, OutputTensor, shown_shape
from nerve.frontend.v2.text_view import check_batch, check_rows
from nerve.frontend.v2.views import ATTENTION_MASK, INPUT_IDS, LOGITS, TOKEN_TYPE_IDS
from nerve.offload import INLINE_TOKENS, offload
from nerve.service.inference import Call, InferenceService
from nerve.types import FloatArray, IntArray, ModelInfo, Row

INT64: Final = "INT64"
FP32: Final = "FP32"


async def run_raw(
    inference: InferenceService,
    call: Call,
    inputs: Sequence[InputTensor],
    outputs: Sequence[str],
    parameters: Mapping[str, object],
) -> tuple[ModelInfo, list[OutputTensor], int]:
    """Answer a request for the raw view: who answered, the logits, and 0 texts that were cut.

    Logits of padding, where the mask is 0, are 0: it is not run.

    Args:
        inference, call: see `InferenceService.logits`.
        inputs: input_ids (rows, tokens) int64; attention_mask and token_type_ids alike, if at all.
        outputs: `logits`, or none, which means the same.
        parameters: there are none.
    Raises:
        InvalidField: the request does not fit; what `InferenceService.logits` raises.
    """
    if parameters:
        name = next(iter(parameters))
        fault = f"there is no {shown(name, 64)}; the raw view takes priority and timeout"
        raise InvalidField("parameters", fault)
    if unknown := [name for name in outputs if name != LOGITS]:
        raise InvalidField(
            "outputs", f"there is no output {shown(unknown[0], 64)}; there is {LOGITS}"
        )
    ids = _input_ids(inputs)
    inline = ids.size <= INLINE_TOKENS and all(each.small for each in inputs)
    arrays = await offload(lambda: {each.name: each.array() for each in inputs}, inline=inline)

    def rows(info: ModelInfo) -> list[Row]:
        _check_fit(inputs, ids, info)
        lengths = _lengths(arrays.get(ATTENTION_MASK), ids.shape)
        _check_values(arrays, info)
        types = arrays.get(TOKEN_TYPE_IDS)
        return [
            Row(
                arrays[INPUT_IDS][at, :length],
                None if types is None or not types[at].any() else types[at, :length],
            )
            for at, length in enumerate(lengths)
        ]

    info, answer = await inference.logits(call, rows)
    shape = (*ids.shape, len(info.labels))
    logits = await offload(lambda: _padded(answer.logits, shape), inline=inline)
    return info, [OutputTensor(LOGITS, FP32, shape, logits)], 0


def _input_ids(inputs: Sequence[InputTensor]) -> InputTensor:
    """The input of that name, when all inputs are known, of the right type, and alike in shape."""
    _check_known(inputs, (INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS))
    ids = next((each for each in inputs if each.name == INPUT_IDS), None)
    if ids is None:
        raise InvalidField("inputs", f"input {INPUT_IDS} is missing")
    for each in inputs:
        each.check(INT64)
        if each.shape != ids.shape:
            one, other = shown_shape(each.shape), shown_shape(ids.shape)
            fault = f"shape {one} is not that of {INPUT_IDS}: {other}"
            raise InvalidField(each.place, fault)
    if len(ids.shape) != 2:
        fault = f"expected shape [rows,tokens], got {shown_shape(ids.shape)}"
        raise InvalidField(ids.place, fault)
    check_rows(ids)
    return ids


def _check_known(inputs: Sequence[InputTensor], known: Sequence[str]) -> None:
    if unknown := [each.name for each in inputs if each.name not in known]:
        fault = f"there is no input {shown(unknown[0], 64)}; it takes {', '.join(known)}"
        raise InvalidField("inputs", fault)


def _check_fit(inputs: Sequence[InputTensor], ids: InputTensor, info: ModelInfo) -> None:
    """See that the version that answers takes such inputs, and so many ids."""
    types = (TOKEN_TYPE_IDS,) if info.type_ids else ()
    _check_known(inputs, (INPUT_IDS, ATTENTION_MASK, *types))
    check_batch(ids, info)
    if not 1 <= ids.shape[1] <= info.max_tokens:
        fault = f"rows of {ids.shape[1]} tokens, but the model takes 1 to {info.max_tokens}"
        raise InvalidField(ids.place, fault)


def _lengths(mask: IntArray | None, shape: tuple[int, ...]) -> list[int]:
    """Tokens of each row that are no padding."""
    if mask is None:
        return [shape[1]] * shape[0]
    lengths = mask.sum(axis=1)
    expected = np.arange(shape[1]) < lengths[:, None]
    if (mask != expected).any() or not lengths.all():
        raise InvalidField(
            f"inputs.{ATTENTION_MASK}",
            "each row must hold ones, at least one, and then zeros: padding goes to the right",
        )
    return [int(length) for length in lengths]


def _check_values(arrays: Mapping[str, IntArray], info: ModelInfo) -> None:
    for name, limit in ((INPUT_IDS, info.vocab_size), (TOKEN_TYPE_IDS, info.type_vocab_size)):
        values = arrays.get(name)
        if values is None:
            continue
        lowest, highest = int(values.min()), int(values.max())
        if lowest < 0 or highest >= limit:
            wrong = lowest if lowest < 0 else highest
            raise InvalidField(f"inputs.{name}", f"expected ids from 0 to {limit - 1}, got {wrong}")


def _padded(rows: Sequence[FloatArray], shape: tuple[int, ...]) -> FloatArray:
    """Logits of rows in one array of `shape` (rows, tokens, labels)."""
    padded = np.zeros(shape, dtype=np.float32)
    for row, logits in zip(padded, rows, strict=True):
        row[: len(logits)] = logits
    return padded
