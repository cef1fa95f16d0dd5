"""The Open Inference Protocol over gRPC, as Triton serves it (kserve-v2, 7); inference is `infer`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from nerve._proto.inference import inference_pb2 as pb
from nerve.errors import ModelUnavailable
from nerve.exchange import Access, Exchanges
from nerve.frontend.grpc.calls import Bind, Shell, unary
from nerve.frontend.grpc.infer import InferCalls, v2_code
from nerve.frontend.grpc.metadata import Context
from nerve.frontend.guard import Guard
from nerve.frontend.v2 import metadata, model_config, repository, settings, statistics
from nerve.frontend.v2.infer import Inferrer, check_model, check_version
from nerve.service.control import ControlService
from nerve.service.inference import InferenceService

RequestT = TypeVar("RequestT", bound=Message)
SettingsT = TypeVar("SettingsT", pb.TraceSettingRequest, pb.LogSettingsRequest)
Method = Callable[[RequestT], Awaitable[Message]]


class OpenInferenceService:
    """All twenty methods."""

    name: Final = "inference.GRPCInferenceService"

    def __init__(
        self,
        inference: InferenceService,
        control: ControlService,
        inferrer: Inferrer,
        changes: settings.Settings,
        exchanges: Exchanges,
        guard: Guard,
    ) -> None:
        """`inferrer` runs requests; `changes` are what clients may set."""
        self._inference, self._control, self._settings = inference, control, changes
        self.shell = Shell("openinference-grpc", exchanges, guard, code=v2_code)
        self._infer = InferCalls(inferrer, self.shell)

    def methods(self) -> dict[str, Bind]:
        """What answers each method."""
        return {
            "ServerLive": self._plain(pb.ServerLiveRequest, self._live, Access.OPEN),
            "ServerReady": self._plain(pb.ServerReadyRequest, self._ready, Access.OPEN),
            "ModelReady": self._plain(pb.ModelReadyRequest, self._model_ready, Access.OPEN),
            "ServerMetadata": self._plain(pb.ServerMetadataRequest, self._server, Access.READ),
            "ModelMetadata": self._plain(pb.ModelMetadataRequest, self._model, Access.READ),
            "ModelConfig": self._plain(pb.ModelConfigRequest, self._config, Access.READ),
            "ModelStatistics": self._plain(
                pb.ModelStatisticsRequest, self._statistics, Access.READ
            ),
            "RepositoryIndex": self._plain(pb.RepositoryIndexRequest, self._index, Access.READ),
            "RepositoryModelLoad": self._plain(
                pb.RepositoryModelLoadRequest, self._load, Access.ADMIN
            ),
            "RepositoryModelUnload": self._plain(
                pb.RepositoryModelUnloadRequest, self._unload, Access.ADMIN
            ),
            "TraceSetting": self._changing(pb.TraceSettingRequest, self._trace),
            "LogSettings": self._changing(pb.LogSettingsRequest, self._log),
            **self._shared_memory(),
            **self._infer.methods(),
        }

    def _plain(self, message: type[RequestT], method: Method[RequestT], access: Access) -> Bind:
        """A handler of a method that looks only at the message."""

        async def answer(request: RequestT, _context: Context, _size: int) -> bytes:
            return (await method(request)).SerializeToString()

        return unary(message, answer, shell=self.shell, access=access)

    def _changing(self, message: type[SettingsT], method: Method[SettingsT]) -> Bind:
        """A handler of a method that tells settings, and changes those that the message holds."""

        async def answer(request: SettingsT, context: Context, _size: int) -> bytes:
            if request.settings:
                self.shell.check(context, Access.ADMIN)
            return (await method(request)).SerializeToString()

        return unary(message, answer, shell=self.shell, access=Access.READ)

    def _shared_memory(self) -> dict[str, Bind]:
        """There is none: nothing is registered, and nothing can be."""

        def always(answer: Message) -> Method[Message]:
            async def method(_request: Message) -> Message:
                return answer

            return method

        def refused(kind: str) -> Method[Message]:
            async def method(_request: Message) -> Message:
                settings.refuse_shared_memory(kind)

            return method

        system, cuda = "SystemSharedMemory", "CudaSharedMemory"
        return {
            f"{system}Status": self._plain(
                pb.SystemSharedMemoryStatusRequest,
                always(pb.SystemSharedMemoryStatusResponse()),
                Access.PREDICT,
            ),
            f"{system}Register": self._plain(
                pb.SystemSharedMemoryRegisterRequest, refused("system"), Access.PREDICT
            ),
            f"{system}Unregister": self._plain(
                pb.SystemSharedMemoryUnregisterRequest,
                always(pb.SystemSharedMemoryUnregisterResponse()),
                Access.PREDICT,
            ),
            f"{cuda}Status": self._plain(
                pb.CudaSharedMemoryStatusRequest,
                always(pb.CudaSharedMemoryStatusResponse()),
                Access.PREDICT,
            ),
            f"{cuda}Register": self._plain(
                pb.CudaSharedMemoryRegisterRequest, refused("CUDA"), Access.PREDICT
            ),
            f"{cuda}Unregister": self._plain(
                pb.CudaSharedMemoryUnregisterRequest,
                always(pb.CudaSharedMemoryUnregisterResponse()),
                Access.PREDICT,
            ),
        }

    async def _live(self, _request: pb.ServerLiveRequest) -> Message:
        return pb.ServerLiveResponse(live=True)

    async def _ready(self, _request: pb.ServerReadyRequest) -> Message:
        return pb.ServerReadyResponse(ready=self._control.ready)

    async def _model_ready(self, request: pb.ModelReadyRequest) -> Message:
        """A model that is not known is not ready."""
        check_version(request.version)
        try:
            metadata.look_up(self._control, request.name, request.version)
        except ModelUnavailable:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def _server(self, _request: pb.ServerMetadataRequest) -> Message:
        return json_format.ParseDict(metadata.server_metadata(), pb.ServerMetadataResponse())

    async def _model(self, request: pb.ModelMetadataRequest) -> Message:
        check_model(request.name)
        check_version(request.version)
        told = metadata.model_metadata(self._control, request.name, request.version)
        return json_format.ParseDict(told, pb.ModelMetadataResponse())

    async def _config(self, request: pb.ModelConfigRequest) -> Message:
        check_model(request.name)
        check_version(request.version)
        told = model_config.model_config(self._control, request.name, request.version)
        return json_format.ParseDict({"config": told}, pb.ModelConfigResponse())

    async def _statistics(self, request: pb.ModelStatisticsRequest) -> Message:
        check_version(request.version)
        told = statistics.model_statistics(
            self._control, self._inference, request.name, request.version
        )
        return json_format.ParseDict(told, pb.ModelStatisticsResponse())

    async def _index(self, request: pb.RepositoryIndexRequest) -> Message:
        repository.check_repository(request.repository_name)
        rows = await repository.index(self._control, ready=request.ready)
        return json_format.ParseDict({"models": rows}, pb.RepositoryIndexResponse())

    async def _load(self, request: pb.RepositoryModelLoadRequest) -> Message:
        repository.check_repository(request.repository_name)
        parameters = repository.load_parameters(_values(request.parameters))
        await repository.load(self._control, request.model_name, parameters)
        return pb.RepositoryModelLoadResponse()

    async def _unload(self, request: pb.RepositoryModelUnloadRequest) -> Message:
        repository.check_repository(request.repository_name)
        parameters = repository.unload_parameters(_values(request.parameters))
        await repository.unload(self._control, request.model_name, parameters)
        return pb.RepositoryModelUnloadResponse()

    async def _trace(self, request: pb.TraceSettingRequest) -> Message:
        asked = {name: list(each.value) for name, each in request.settings.items()}
        told = self._settings.change_trace(asked, request.model_name)
        return json_format.ParseDict(settings.trace_message(told), pb.TraceSettingResponse())

    async def _log(self, request: pb.LogSettingsRequest) -> Message:
        told = self._settings.change_logging(_values(request.settings))
        return json_format.ParseDict(settings.logging_message(told), pb.LogSettingsResponse())


Parameter = pb.ModelRepositoryParameter | pb.LogSettingsRequest.SettingValue


def _values(parameters: Mapping[str, Parameter]) -> dict[str, object]:
    """Typed values by name; None where the message holds none."""
    return {name: _value(each) for name, each in parameters.items()}


def _value(parameter: Parameter) -> object:
    kind = parameter.WhichOneof("parameter_choice")
    return None if kind is None else getattr(parameter, kind)
