"""One face for tritonclient's four clients, so that each check is written once."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

import numpy as np
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

KINDS: Final = ("http", "http.aio", "grpc", "grpc.aio")


@dataclass(frozen=True, slots=True)
class Client:
    """A tritonclient of one kind, and the module that its tensors come from."""

    kind: str
    native: Any
    tensors: ModuleType

    @property
    def grpc(self) -> bool:
        """Whether it speaks gRPC."""
        return self.kind.startswith("grpc")

    async def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method; the blocking kinds block."""
        answer = getattr(self.native, method)(*arguments, **options)
        return await answer if inspect.isawaitable(answer) else answer

    async def told(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method that answers with JSON; over gRPC, 64-bit numbers are strings in it."""
        as_json = {"as_json": True} if self.grpc else {}
        return await self.call(method, *arguments, **as_json, **options)

    def tensor(self, name: str, values: Any, *, binary: bool = True, datatype: str = "") -> Any:
        """An input with the values of an array; `binary` is for HTTP, gRPC knows no other."""
        array = np.asarray(values)
        tensor = self.tensors.InferInput(
            name, list(array.shape), datatype or np_to_triton_dtype(array.dtype)
        )
        tensor.set_data_from_numpy(array, **({} if self.grpc else {"binary_data": binary}))
        return tensor

    def texts(self, *texts: str | bytes, binary: bool = True) -> list[Any]:
        """Inputs of the text view."""
        return [self.tensor("TEXT", np.array([[t] for t in texts], dtype=object), binary=binary)]

    def wanted(self, name: str, *, binary: bool = True) -> Any:
        """An output to ask for."""
        options = {} if self.grpc else {"binary_data": binary}
        return self.tensors.InferRequestedOutput(name, **options)

    async def refused(
        self, method: str, *arguments: Any, http: int, grpc: str, says: str = "", **options: Any
    ) -> None:
        """A call must fail with this status of its transport, and a text that names the cause."""
        expected = f"StatusCode.{grpc}" if self.grpc else str(http)
        error = await self.failure(method, *arguments, **options)
        asked = (method, arguments, options)
        assert error.status() == expected, (asked, error.status(), expected, error.message())
        assert says in error.message(), (asked, says, error.message())
        assert error.message().strip()

    async def failure(
        self, method: str, *arguments: Any, **options: Any
    ) -> InferenceServerException:
        """The error that a call must end with."""
        try:
            answer = await self.call(method, *arguments, **options)
        except InferenceServerException as error:
            return error
        raise AssertionError(f"{method} of {arguments}, {options} was answered: {answer}")


@asynccontextmanager
async def opened(kind: str, ports: Mapping[str, int]) -> AsyncIterator[Client]:
    """A client of one of `KINDS`; `ports` of "http" and "grpc" on this machine."""
    module = importlib.import_module(f"tritonclient.{kind}")
    tensors = importlib.import_module(f"tritonclient.{kind.partition('.')[0]}")
    url = f"127.0.0.1:{ports[kind.partition('.')[0]]}"
    native = module.InferenceServerClient(url)
    try:
        yield Client(kind, native, tensors)
    finally:
        closing = native.close()
        if inspect.isawaitable(closing):
            await closing
