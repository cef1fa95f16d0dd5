"""The raw view: token ids in, logits out, for clients that tokenize themselves (kserve-v2, 10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from nerve.errors import InvalidField
from nerve.frontend.v2.tensors import InputTensor, OutputTensor
from nerve.frontend.v2.text_view import check_batch
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
        fault = f"there is no {name!r:.64}; the raw view takes priority and timeout"
        raise InvalidField("parameters", fault)
    if unknown := [name for name in outputs if name != LOGITS]:
        raise InvalidField("outputs", f"there is no output {unknown[0]!r:.64}; there is {LOGITS}")
    before = inference.info(call.model, call.version)
    ids = _input_ids(inputs, before)
    inline = ids.size <= INLINE_TOKENS
    arrays = await offload(lambda: {each.name: each.array() for each in inputs}, inline=inline)
    lengths = _lengths(arrays.get(ATTENTION_MASK), ids.shape)

    def rows(info: ModelInfo) -> list[Row]:
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


def _input_ids(inputs: Sequence[InputTensor], info: ModelInfo) -> InputTensor:
    """The input of that name, when all inputs are known, of the right type, and alike in shape."""
    known = [INPUT_IDS, ATTENTION_MASK, *([TOKEN_TYPE_IDS] if info.type_ids else [])]
    by_name = {each.name: each for each in inputs}
    if unknown := [name for name in by_name if name not in known]:
        fault = f"there is no input {unknown[0]!r:.64}; it takes {', '.join(known)}"
        raise InvalidField("inputs", fault)
    ids = by_name.get(INPUT_IDS)
    if ids is None:
        raise InvalidField("inputs", f"input {INPUT_IDS} is missing")
    for each in inputs:
        each.check(INT64)
        if each.shape != ids.shape:
            fault = f"shape {list(each.shape)!r:.60} is not that of {INPUT_IDS}: {list(ids.shape)}"
            raise InvalidField(each.place, fault)
    if len(ids.shape) != 2:
        fault = f"expected shape [rows,tokens], got {list(ids.shape)!r:.60}"
        raise InvalidField(ids.place, fault)
    check_batch(ids, info)
    if not 1 <= ids.shape[1] <= info.max_tokens:
        fault = f"rows of {ids.shape[1]} tokens, but the model takes 1 to {info.max_tokens}"
        raise InvalidField(ids.place, fault)
    return ids


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
    for name, limit in ((INPUT_IDS, info.vocab_size), (TOKEN_TYPE_IDS, 2**31)):
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
