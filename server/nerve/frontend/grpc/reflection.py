"""Server reflection, in both versions that tools ask for: which services there are, and their files.

grpcio-reflection answers; it knows only v1alpha, whose messages are those of v1 under another name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha import reflection_pb2 as pb

from nerve._proto import POOL
from nerve.exchange import Access, Exchanges
from nerve.frontend.grpc.calls import Bind, Shell
from nerve.frontend.grpc.metadata import Context
from nerve.frontend.grpc.streams import stream
from nerve.frontend.guard import Guard

OLD, NEW = "grpc.reflection.v1alpha", "grpc.reflection.v1"


class ReflectionService:
    """One of the two services; `services` names all that the server has, these two with them."""

    def __init__(
        self, name: str, services: Iterable[str], exchanges: Exchanges, guard: Guard
    ) -> None:
        names = sorted({*services, *NAMES})
        pool = pool_of(names)
        self.name = name
        self.shell = Shell("reflection-grpc", exchanges, guard)
        self._servicer: Any = reflection.ReflectionServicer(names, pool=pool)
        self._methods = {
            method.full_name: service
            for service in names
            for method in pool.FindServiceByName(service).methods
        }

    def methods(self) -> dict[str, Bind]:
        """What answers its method."""
        handler = stream(
            pb.ServerReflectionRequest,
            self._answer,
            shell=self.shell,
            in_flight=1,
            access=Access.READ,
        )
        return {"ServerReflectionInfo": handler}

    async def _answer(
        self, request: pb.ServerReflectionRequest, context: Context, _size: int
    ) -> bytes:
        asked = request
        if service := self._methods.get(request.file_containing_symbol):
            # The pool finds all other kinds of symbols, but no methods.
            asked = pb.ServerReflectionRequest(file_containing_symbol=service)
        answer = next(self._servicer.ServerReflectionInfo(iter((asked,)), context))
        answer.original_request.CopyFrom(request)
        return bytes(answer.SerializeToString())


NAMES = (f"{OLD}.ServerReflection", f"{NEW}.ServerReflection")


def pool_of(services: Iterable[str]) -> DescriptorPool:
    """A pool of its own with the files of `services` and all that those import.

    Raises:
        KeyError: a service is in no file.
    """
    pool = DescriptorPool()
    _add(pool, health_pb2.DESCRIPTOR)
    _add(pool, pb.DESCRIPTOR)
    pool.Add(_renamed(pb.DESCRIPTOR))
    for name in services:
        try:
            pool.FindServiceByName(name)
        except KeyError:
            _add(pool, POOL.FindFileContainingSymbol(name))
    return pool


def _add(pool: DescriptorPool, file: FileDescriptor) -> None:
    for needed in file.dependencies:
        _add(pool, needed)
    pool.AddSerializedFile(file.serialized_pb)


def _renamed(file: FileDescriptor) -> FileDescriptorProto:
    """The file of v1, from that of v1alpha."""
    found = FileDescriptorProto.FromString(file.serialized_pb)
    found.name, found.package = f"{NEW.replace('.', '/')}/reflection.proto", NEW

    def rename(message: DescriptorProto) -> None:
        for field in message.field:
            if field.type_name:  # set to "" it would name a type
                field.type_name = field.type_name.replace(OLD, NEW)
        for nested in message.nested_type:
            rename(nested)

    for message in found.message_type:
        rename(message)
    for method in found.service[0].method:
        method.input_type = method.input_type.replace(OLD, NEW)
        method.output_type = method.output_type.replace(OLD, NEW)
    return found
