"""The calls that a script's Tensors make into Python, with what they may take in memory and time.

A call never raises into Lua. It returns a tuple that Lua unpacks: (True, value, whether to look
for garbage); (False, text of an error) where the script is to blame; (None, name of a limit). Text
is bytes: lupa would turn a `str` into an object. And it never returns what it was given: lupa loses
count of an object that Lua has just dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final, NamedTuple

import numpy as np

from nerve.pipeline import tensor
from nerve.pipeline.tensor import MAX_RANK, Result, TensorError
from nerve.types import FloatArray

TENSOR_BYTES: Final = 512
"""What a Tensor takes besides its elements, here and in Lua."""
ROOM_BYTES: Final = 64 * 1024
"""Lua's allocator raises by a long jump, which a call into Python must never see, so it finds this
much free before and after each call; and for each Tensor what the table of references to them may
grow by."""
REFERENCE_BYTES: Final = 64
GARBAGE_SHARE: Final = 8
"""Lua does not know how large a Tensor is. It is told to look for garbage each time that they take
this part of the limit more."""

Answer = tuple[bool | None, object] | tuple[bool, object, bool]
Call = Callable[..., Answer]


class Meter:
    """Memory that Tensors hold, beside that of the virtual machine, within one limit for both.

    Args:
        limit_bytes: of both together.
        machine_bytes: tells what the machine holds.
        allow: is told what the machine may hold, each time that this changes.
    """

    def __init__(
        self, limit_bytes: int, machine_bytes: Callable[[], int], allow: Callable[[int], None]
    ) -> None:
        self._limit_bytes, self._machine_bytes, self._allow = limit_bytes, machine_bytes, allow
        self._held_bytes, self._tensors = 0, 0
        self._growth_bytes = limit_bytes // GARBAGE_SHARE
        self._mark_bytes = self._growth_bytes
        self.deadline = float("inf")

    @property
    def held_bytes(self) -> int:
        """What all Tensors take."""
        return self._held_bytes

    def take(self, size: int) -> None:
        """A Tensor came to be."""
        self._tensors += 1
        self._held_bytes += size
        self._allow(self._limit_bytes - self._held_bytes)

    def give_back(self, size: int) -> None:
        """A Tensor went away."""
        self._tensors -= 1
        self._held_bytes -= size
        self._mark_bytes = min(self._mark_bytes, self._held_bytes + self._growth_bytes)
        self._allow(self._limit_bytes - self._held_bytes)

    def close(self) -> None:
        """The machine goes: from here on nothing is asked of it, or told to it."""
        self._machine_bytes, self._allow = _nothing, _ignore

    def is_untidy(self) -> bool:
        """Whether Tensors take so much more than at their least that some may be garbage."""
        untidy = self._held_bytes > self._mark_bytes
        if untidy:
            self._mark_bytes = self._held_bytes + self._growth_bytes
        return untidy

    def has_room(self, size: int) -> bool:
        """Whether a call may take so many bytes more."""
        room = size + TENSOR_BYTES + ROOM_BYTES + REFERENCE_BYTES * self._tensors
        return self._machine_bytes() + self._held_bytes + room <= self._limit_bytes


def _nothing() -> int:
    return 0


def _ignore(_: int) -> None:
    pass


class Tensor:
    """An array as a script holds it; `data` never changes. `source` is the one it is a view of."""

    __slots__ = ("_meter", "_size", "_source", "data")

    def __init__(self, data: FloatArray, meter: Meter, *, source: Tensor | None = None) -> None:
        self.data, self._meter, self._source = data, meter, source
        self._size = TENSOR_BYTES if source else TENSOR_BYTES + data.nbytes
        meter.take(self._size)

    def __del__(self) -> None:
        self._meter.give_back(self._size)


class Parts(list[Tensor]):
    """Tensors on their way to be put together; only our own Lua code holds one."""


class Operation(NamedTuple):
    """`run` takes an array, then numbers and arrays; `needs` is its peak, in sizes of the array."""

    run: Callable[..., Result]
    needs: float = 1.0


METHODS: Final[Mapping[str, Operation]] = {
    "ndim": Operation(tensor.ndim, 0),
    "len": Operation(tensor.length, 0),
    "sum": Operation(tensor.total, 0),
    "mean": Operation(tensor.mean, 0),
    "min": Operation(tensor.smallest, 0),
    "max": Operation(tensor.largest, 0),
    "std": Operation(tensor.std, 4),
    "exp": Operation(tensor.exp),
    "log": Operation(tensor.log),
    "clamp": Operation(tensor.clamp, 2),
    "softmax": Operation(tensor.softmax, 2),
    "lp_normalize": Operation(tensor.lp_normalize, 6),
    "layer_norm": Operation(tensor.layer_norm, 4),
    "sum_axis": Operation(tensor.sum_axis, 2),
    "max_axis": Operation(tensor.max_axis, 2.25),
    "argmax": Operation(tensor.argmax, 7),
    "argmin": Operation(tensor.argmin, 7),
    "truncate_axis": Operation(tensor.truncate_axis),
    "mean_pool": Operation(tensor.mean_pool, 3),
    "part": Operation(tensor.part),
    "elements": Operation(tensor.elements, 2),
    "size": Operation(tensor.size, 0),
    "tostring": Operation(tensor.text, 0),
}
OPERATORS: Final[Mapping[str, Callable[..., FloatArray]]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
}


class Calls:
    """Every call by its name, for one virtual machine."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def all(self) -> dict[str, Call]:
        """Plain functions; a Tensor among their arguments is one of `Tensor`."""
        calls = {name: self._method(operation) for name, operation in METHODS.items()}
        calls |= {name: self._operator(run) for name, run in OPERATORS.items()}
        return calls | {
            "transpose": self._call(self._transpose),
            "equal": self._call(self._equal),
            "make": self._call(self._make),
            "parts": self._call(Parts),
            "append": self._call(self._append),
            "stack": self._call(self._stack),
        }

    def _call(self, run: Callable[..., object]) -> Call:
        meter = self._meter

        def call(*arguments: object) -> Answer:
            if not meter.has_room(0):
                return None, b"max_memory_bytes"
            try:
                value = run(*arguments)
                if isinstance(value, bytes):
                    self._need(len(value))
            except TensorError as error:
                return False, str(error).encode()
            except MemoryError:
                return None, b"max_memory_bytes"
            except Exception as error:  # noqa: BLE001 - boundary: Lua would get a Python object
                return False, f"{type(error).__name__}: {error}".encode()
            if monotonic() > meter.deadline:
                return None, b"timeout_microseconds"
            return True, value, meter.is_untidy()

        return call

    def _need(self, size: float) -> None:
        if size and not self._meter.has_room(int(size)):
            raise MemoryError

    def _method(self, operation: Operation) -> Call:
        meter, run, needs = self._meter, operation.run, operation.needs

        def method(receiver: object, *arguments: object) -> object:
            data = _array(receiver)
            self._need(data.nbytes * needs)
            result = run(
                data, *[_array(each) if isinstance(each, Tensor) else each for each in arguments]
            )
            # Of an array without axes, numpy makes a scalar.
            made = isinstance(result, np.ndarray | np.generic)
            return Tensor(np.asarray(result), meter) if made else result

        return self._call(method)

    def _operator(self, run: Callable[..., FloatArray]) -> Call:
        def operator(left: object, right: object) -> Tensor:
            one, other = _operand(left), _operand(right)
            self._need(4 * tensor.broadcast_size(one, other))
            made = run(np.asarray(one, np.float32), np.asarray(other, np.float32))
            return Tensor(np.asarray(made), self._meter)

        return self._call(operator)

    def _transpose(self, receiver: object) -> Tensor:
        data = _array(receiver)
        assert isinstance(receiver, Tensor)
        return Tensor(tensor.transpose(data), self._meter, source=receiver)

    @staticmethod
    def _equal(left: object, right: object) -> bool:
        return bool(np.array_equal(_array(left), _array(right)))

    def _make(self, elements: bytes, *sizes: int) -> Tensor:
        """From little-endian float32, row-major."""
        if len(sizes) > MAX_RANK:
            raise TensorError(f"a Tensor has {MAX_RANK} axes at most")
        self._need(len(elements))
        return Tensor(
            np.frombuffer(elements, dtype="<f4").reshape(sizes).astype(np.float32), self._meter
        )

    def _append(self, parts: Parts, part: object) -> None:
        _array(part)
        assert isinstance(part, Tensor)
        parts.append(part)

    def _stack(self, parts: Parts, axis: int) -> Tensor:
        self._need(sum(each.data.nbytes for each in parts))
        return Tensor(tensor.stack([each.data for each in parts], axis), self._meter)


def _array(value: object) -> FloatArray:
    if not isinstance(value, Tensor):  # an exception of lupa's own may look like one to Lua
        raise TensorError("not a Tensor")
    return value.data


def _operand(value: object) -> FloatArray | float:
    if isinstance(value, Tensor):
        return value.data
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise TensorError("Expected either number or Tensor.")
