"""ModelInfer and ModelStreamInfer: messages become requests, answers become messages (kserve-v2, 7)."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import grpc

from nerve._proto.inference import inference_pb2 as pb
from nerve.errors import InvalidField, NerveError, Unsupported, shown
from nerve.exchange import Access
from nerve.frontend.grpc.calls import Bind, Shell, presentable, unary
from nerve.frontend.grpc.metadata import Context, sent
from nerve.frontend.grpc.streams import Refusal, stream
from nerve.frontend.priority import PRIORITY_KEY, parse_priority
from nerve.frontend.status import outcome
from nerve.frontend.v2.infer import (
    InferRequest,
    Inferrer,
    InferResponse,
    Scalar,
    check_few,
    message,
)
from nerve.frontend.v2.tensors import MAX_RANK, InputTensor, shown_shape
from nerve.offload import INLINE_BYTES, offload

IN_FLIGHT: Final = 256
"""Requests of one stream that may be worked on; one of many bytes counts for more."""
END_ON_ERROR_KEY: Final = "triton_grpc_error"
"""Metadata with which a client asks that a failed request ends its stream."""
CONTENTS: Final[Mapping[str, str]] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}  # fmt: skip
"""The field of InferTensorContents for each datatype."""


def v2_code(error: NerveError) -> grpc.StatusCode:
    """The status code of the protocol's methods."""
    row = outcome(error)
    return grpc.StatusCode[row.v2_grpc or row.grpc]


class InferCalls:
    """The two methods that run models."""

    def __init__(self, inferrer: Inferrer, shell: Shell) -> None:
        self._inferrer, self._shell = inferrer, shell

    def methods(self) -> dict[str, Bind]:
        """What answers each of them."""
        return {
            "ModelInfer": unary(
                pb.ModelInferRequest,
                self._infer,
                shell=self._shell,
                access=Access.PREDICT,
                told=_told,
            ),
            "ModelStreamInfer": stream(
                pb.ModelInferRequest,
                self._stream_infer,
                shell=self._shell,
                in_flight=IN_FLIGHT,
                access=Access.PREDICT,
                weight=lambda _, size: 1 + size // INLINE_BYTES,
                told=_told,
            ),
        }

    async def _infer(self, request: pb.ModelInferRequest, context: Context, size: int) -> bytes:
        response = await self._run(request, context, size)
        inline = response.size <= INLINE_BYTES
        return await offload(lambda: to_message(response).SerializeToString(), inline=inline)

    async def _stream_infer(
        self, request: pb.ModelInferRequest, context: Context, size: int
    ) -> bytes:
        """One answer; a failed request is one, too, and only it fails."""
        try:
            response = await self._run(request, context, size)
        except Exception as error:
            if sent(context).get(END_ON_ERROR_KEY) == "true":
                raise
            refusal = pb.ModelStreamInferResponse(
                error_message=message(str(presentable(error)), request.id),
                infer_response=pb.ModelInferResponse(id=request.id),
            )
            return Refusal(refusal.SerializeToString())

        def write() -> bytes:
            answer = to_message(response)
            answer.parameters["triton_final_response"].bool_param = True
            return pb.ModelStreamInferResponse(infer_response=answer).SerializeToString()

        return await offload(write, inline=response.size <= INLINE_BYTES)

    async def _run(
        self, request: pb.ModelInferRequest, context: Context, size: int
    ) -> InferResponse:
        self._inferrer.require(request.model_name, request.model_version)
        inline = size <= INLINE_BYTES
        return await self._inferrer.infer(
            await offload(lambda: from_message(request), inline=inline),
            arrived=time.monotonic(),
            timeout_s=context.time_remaining(),
            priority=parse_priority(sent(context).get(PRIORITY_KEY), place="metadata"),
        )


def _told(request: pb.ModelInferRequest) -> Callable[[str], str]:
    return functools.partial(message, request_id=request.id)


def from_message(request: pb.ModelInferRequest) -> InferRequest:
    """What a message asks for. Pure.

    Raises:
        InvalidField: its tensors have no content, or more than one.
        Unsupported: shared memory, or classification.
    """
    for place in ("inputs", "outputs", "parameters"):
        check_few(place, len(getattr(request, place)))
    for output in request.outputs:
        _check_parameters(f"outputs.{output.name:.64}", output.parameters)
    return InferRequest(
        model=request.model_name,
        version=request.model_version,
        id=request.id,
        parameters={name: _scalar(name, each) for name, each in request.parameters.items()},
        inputs=_inputs(request),
        outputs=[output.name for output in request.outputs],
    )


def to_message(response: InferResponse) -> pb.ModelInferResponse:
    """The answer; contents are always raw, which is what clients look at. Pure."""
    return pb.ModelInferResponse(
        model_name=response.model,
        model_version=response.version,
        id=response.id,
        outputs=[
            pb.ModelInferResponse.InferOutputTensor(
                name=each.name, datatype=each.datatype, shape=each.shape
            )
            for each in response.outputs
        ],
        raw_output_contents=[each.raw() for each in response.outputs],
    )


def _inputs(request: pb.ModelInferRequest) -> list[InputTensor]:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        fault = f"expected one for each of {len(request.inputs)} inputs, got {len(raw)}"
        raise InvalidField("raw_input_contents", fault)
    inputs = []
    for at, each in enumerate(request.inputs):
        place = f"inputs.{each.name:.64}"
        _check_parameters(place, each.parameters)
        if each.HasField("contents") == bool(raw):
            both = "contents beside raw_input_contents" if raw else "no contents"
            fault = f"{both}: give contents in every input, or raw_input_contents alone"
            raise InvalidField(place, fault)
        inputs.append(
            InputTensor(
                each.name,
                each.datatype,
                tuple(each.shape),
                raw=raw[at] if raw else None,
                values=None if raw else _contents(each, place),
            )
        )
    return inputs


def _contents(tensor: pb.ModelInferRequest.InferInputTensor, place: str) -> list[Any]:
    """The values of a tensor, from the field that is for its datatype."""
    wanted = CONTENTS.get(tensor.datatype)
    filled = [field.name for field, _ in tensor.contents.ListFields()]
    if wrong := [name for name in filled if name != wanted]:
        fault = f"{wrong[0]} is not for datatype {shown(tensor.datatype, 40)}"
        raise InvalidField(place, f"{fault}; use {wanted or 'raw_input_contents'}")
    if wanted is None:
        return []
    values = getattr(tensor.contents, wanted)
    if len(values) > math.prod(tensor.shape[:MAX_RANK]):  # before millions are taken out
        fault = f"shape {shown_shape(tensor.shape)} holds less than the {len(values)} that came"
        raise InvalidField(place, fault)
    return list(values)


def _check_parameters(place: str, parameters: Mapping[str, pb.InferParameter]) -> None:
    for name in ("shared_memory_region", "classification"):
        if name in parameters:
            raise Unsupported(f"{place}: {name}", "send and ask for whole tensors")


def _scalar(name: str, parameter: pb.InferParameter) -> Scalar:
    kind = parameter.WhichOneof("parameter_choice")
    if kind is None:
        raise InvalidField(f"parameters.{name:.64}", "has no value")
    value: Scalar = getattr(parameter, kind)
    return value
