"""Inference by the Open Inference Protocol, for HTTP and gRPC alike: tensors in, tensors out.

Knows neither aiohttp nor grpc: a transport parses its wire into an `InferRequest` and writes an
`InferResponse`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from nerve.config.server import ServerConfig
from nerve.errors import InvalidField
from nerve.frontend.priority import LOWEST
from nerve.frontend.v2.raw_view import run_raw
from nerve.frontend.v2.tensors import InputTensor, OutputTensor
from nerve.frontend.v2.text_view import run_text
from nerve.frontend.v2.views import View, resolve
from nerve.service.inference import Call, InferenceService

Scalar: TypeAlias = bool | int | float | str
IGNORED: Final = frozenset(
    {"sequence_id", "sequence_start", "sequence_end", "triton_enable_empty_final_response"}
)
"""Parameters that clients send by themselves and that mean nothing to models without a state."""


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request. `version` and `id` may be empty; no `outputs` means those of the metadata."""

    model: str
    version: str
    id: str
    parameters: Mapping[str, Scalar]
    inputs: Sequence[InputTensor]
    outputs: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class InferResponse:
    """An answer; `model` as the client named it, `version` the one that ran."""

    model: str
    version: str
    id: str
    outputs: list[OutputTensor]
    truncated_texts: int

    @property
    def size(self) -> int:
        """Of all outputs, in bytes."""
        return sum(each.size for each in self.outputs)


class Inferrer:
    """Runs requests on both views."""

    def __init__(self, inference: InferenceService, config: ServerConfig) -> None:
        self._inference, self._config = inference, config

    async def infer(
        self,
        request: InferRequest,
        *,
        arrived: float,
        timeout_s: float | None = None,
        priority: int | None = None,
    ) -> InferResponse:
        """Run a request.

        Args:
            request: its parameters `timeout` (microseconds) and `priority` win over what follows.
            arrived: in monotonic seconds.
            timeout_s: what the transport tells of the client's patience.
            priority: likewise, 1 to 10.
        Raises:
            InvalidField: what is wrong with the request.
            NerveError: what `InferenceService` raises.
        """
        parameters = dict(request.parameters)
        for name in IGNORED & parameters.keys():
            del parameters[name]
        asked = _whole(parameters, "priority", highest=LOWEST)
        limit_us = _whole(parameters, "timeout", highest=2**63)
        limits = [] if timeout_s is None else [timeout_s]
        if limit_us:
            limits.append(limit_us / 1e6)
        target = resolve(request.model, self._inference.knows)
        call = Call(
            target.model,
            request.version or None,
            self._inference.deadline(arrived, timeout_s=min(limits, default=None)),
            max_texts=self._config.max_inputs,
            priority=asked or priority,
            arrived=arrived,
        )
        check_version(request.version)
        check_names("inputs", [each.name for each in request.inputs])
        check_names("outputs", request.outputs)
        run = run_raw if target.view is View.RAW else run_text
        info, outputs, truncated = await run(
            self._inference, call, request.inputs, request.outputs, parameters
        )
        return InferResponse(request.model, str(info.version), request.id, outputs, truncated)


def _whole(parameters: dict[str, Scalar], name: str, *, highest: int) -> int:
    """Take out a parameter that is a whole number from 0 (not said) on."""
    value = parameters.pop(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= highest:
        fault = f"expected a whole number from 0 to {highest}, got {value!r:.40}"
        raise InvalidField(f"parameters.{name}", fault)
    return value


def check_version(version: str) -> None:
    """Refuse a version that is neither a number from 1 on nor left out.

    Raises:
        InvalidField.
    """
    if version and not (version.isascii() and version.isdigit() and int(version[:20]) > 0):
        raise InvalidField("model_version", f"expected a number from 1 on, got {version!r:.40}")


def check_names(place: str, names: Sequence[str]) -> None:
    """Refuse a tensor that is named twice.

    Raises:
        InvalidField.
    """
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidField(place, f"{twice!r:.64} is there more than once")


def message(text: str, request_id: str) -> str:
    """An error's text with the request's id, which tells a client of many which one failed."""
    return f"[request id: {request_id or '<id_unknown>'}] {text}"
