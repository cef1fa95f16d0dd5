"""Inference by the Open Inference Protocol, for HTTP and gRPC alike: tensors in, tensors out.

Knows neither aiohttp nor grpc: a transport parses its wire into an `InferRequest` and writes an
`InferResponse`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from nerve.config.server import ServerConfig
from nerve.errors import InvalidField, shown
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
MAX_ENTRIES: Final = 64
MAX_ID: Final = 1024


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

    def require(self, model: str, version: str) -> None:
        """See that there is somebody to answer, before the work of reading what is asked.

        Args:
            model: of the repository, or the raw view of one.
            version: as the client wrote it, maybe empty.
        Raises:
            InvalidField: the version is no number; what `InferenceService.require` raises.
        """
        check_model(model)
        check_version(version)
        target = resolve(model, self._inference.knows)
        self._inference.require(target.model, version or None)

    async def infer(
        self,
        request: InferRequest,
        *,
        arrived: float,
        timeout_s: float | None = None,
        priority: int | None = None,
    ) -> InferResponse:
        """Run a request; `require` comes first.

        Args:
            request: its parameters `timeout` (microseconds) and `priority` win over what follows.
            arrived: in monotonic seconds.
            timeout_s: what the transport tells of the client's patience.
            priority: likewise, 1 to 10.
        Raises:
            InvalidField: what is wrong with the request.
            NerveError: what `InferenceService` raises.
        """
        _check_id(request.id)
        parameters = dict(request.parameters)
        for name in IGNORED & parameters.keys():
            del parameters[name]
        asked = _whole(parameters, "priority", "a whole number", highest=LOWEST)
        limit_us = _whole(parameters, "timeout", "microseconds", highest=2**63)
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
        check_names("inputs", [each.name for each in request.inputs])
        check_names("outputs", request.outputs)
        run = run_raw if target.view is View.RAW else run_text
        info, outputs, truncated = await run(
            self._inference, call, request.inputs, request.outputs, parameters
        )
        return InferResponse(request.model, str(info.version), request.id, outputs, truncated)


def _whole(parameters: dict[str, Scalar], name: str, what: str, *, highest: int) -> int:
    """Take out a parameter that is a whole number from 0 (not said) on."""
    value = parameters.pop(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= highest:
        fault = f"expected {what} from 0 to {highest}, got {shown(value, 40)}"
        raise InvalidField(f"parameters.{name}", fault)
    return value


def check_model(name: str) -> None:
    """Refuse a request that names no model: in this protocol there is no default one.

    Raises:
        InvalidField.
    """
    if not name:
        raise InvalidField("model_name", "this field is required")


def check_version(version: str) -> None:
    """Refuse a version that is neither a number from 1 on nor left out.

    Raises:
        InvalidField.
    """
    if version and not (version.isascii() and version.isdigit() and int(version[:20]) > 0):
        raise InvalidField(
            "model_version", f"expected a number from 1 on, got {shown(version, 40)}"
        )


def check_names(place: str, names: Sequence[str]) -> None:
    """Refuse a tensor that is named twice.

    Raises:
        InvalidField.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidField(place, f"{shown(name)} is there more than once")
        seen.add(name)


def check_few(place: str, count: int) -> None:
    """Refuse more tensors or parameters than anybody can mean, before they are looked at.

    Raises:
        InvalidField.
    """
    if count > MAX_ENTRIES:
        raise InvalidField(place, f"expected at most {MAX_ENTRIES} of them, got {count}")


def _check_id(request_id: str) -> None:
    if len(request_id) > MAX_ID:
        fault = f"expected at most {MAX_ID} characters, got {len(request_id)}"
        raise InvalidField("id", fault)


def message(text: str, request_id: str) -> str:
    """An error's text with the request's id, which tells a client of many which one failed."""
    return f"[request id: {request_id[:MAX_ID] or '<id_unknown>'}] {text}"
