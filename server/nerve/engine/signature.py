"""What a graph takes and gives, and whether that is a token classifier's. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from nerve.errors import ModelLoadFailed
from nerve.types import IntArray

Feed = Mapping[str, npt.NDArray[Any]]

_INPUT_TYPES: Final[Mapping[str, npt.DTypeLike]] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(bool)": np.bool_,
}
_OUTPUT_TYPES: Final[Mapping[str, npt.DTypeLike]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
}
_KNOWN_INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


class Value(Protocol):
    """An input or output, as the runtime describes it."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def type(self) -> str: ...  # noqa: D102
    @property
    def shape(self) -> Sequence[int | str | None]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs by name with their types; the output to read, its type and, if stated, its width."""

    inputs: Mapping[str, npt.DTypeLike]
    output: str
    output_type: npt.DTypeLike
    labels: int | None

    def feed(self, ids: IntArray, mask: IntArray, type_ids: IntArray | None) -> Feed:
        """The inputs of a run, from (batch, tokens) int64 each; no type ids means zeros."""
        given: dict[str, npt.NDArray[Any]] = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self.inputs:
            given["token_type_ids"] = np.zeros_like(ids) if type_ids is None else type_ids
        if "position_ids" in self.inputs:
            positions = np.arange(ids.shape[1], dtype=np.int64)
            given["position_ids"] = np.broadcast_to(positions, ids.shape)
        return {
            name: np.ascontiguousarray(given[name], dtype=kind)
            for name, kind in self.inputs.items()
        }


def read_signature(inputs: Sequence[Value], outputs: Sequence[Value]) -> Signature:
    """Find what to give and what to read.

    Raises:
        ModelLoadFailed: they are not those of a token classifier.
    """
    output, labels = _find_logits(outputs)
    return Signature(_input_types(inputs), output.name, _OUTPUT_TYPES[output.type], labels)


def _input_types(inputs: Sequence[Value]) -> dict[str, npt.DTypeLike]:
    names = [each.name for each in inputs]
    if "input_ids" not in names:
        raise ModelLoadFailed(
            f"the graph has no input named 'input_ids'; its inputs: {', '.join(names)}"
        )
    for each in inputs:
        if each.name not in _KNOWN_INPUTS:
            raise ModelLoadFailed(
                f"the graph wants an input {each.name!r}, which this server cannot give; "
                f"it gives {', '.join(_KNOWN_INPUTS)}"
            )
        if each.type not in _INPUT_TYPES:
            raise ModelLoadFailed(f"input {each.name!r} is {each.type}, expected int64 or int32")
    return {each.name: _INPUT_TYPES[each.type] for each in inputs}


def _find_logits(outputs: Sequence[Value]) -> tuple[Value, int | None]:
    """The output to read, and its label count if the graph states it."""
    named = [each for each in outputs if each.name == "logits"]
    found = named or [each for each in outputs if each.shape and len(each.shape) == 3]
    if len(found) != 1:
        shown = ", ".join(f"{each.name} {each.shape}" for each in outputs)
        raise ModelLoadFailed(
            "expected an output named 'logits', or exactly one of rank 3 "
            f"(batch, tokens, labels); the graph has: {shown}"
        )
    output = found[0]
    if output.type not in _OUTPUT_TYPES:
        raise ModelLoadFailed(
            f"output {output.name!r} is {output.type}, expected float32 or float16"
        )
    if output.shape and len(output.shape) != 3:
        raise ModelLoadFailed(
            f"output {output.name!r} has shape {output.shape}, expected rank 3 "
            "(batch, tokens, labels): is this a token-classification export?"
        )
    last = output.shape[-1] if output.shape else None
    return output, last if isinstance(last, int) and last > 0 else None
