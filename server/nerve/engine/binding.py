"""Runs by I/O binding, for GPUs: buffers that stay, and shapes that are captured as CUDA graphs.

Everything here works on the CPU device, too, where it only costs time. `runtime` is the
onnxruntime module and `session` one of its sessions, neither of which ships types.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nerve.engine.pinned import cuda_runtime, empty_bytes, pin
from nerve.engine.signature import Feed, Signature
from nerve.types import FloatArray

Array = npt.NDArray[Any]

MAX_GRAPHS: Final = 256
"""Shapes that are captured, each with buffers of its own; others run without a graph."""
_GRAPH_ID: Final = "gpu_graph_id"
_NO_GRAPH: Final = "-1"
_SAME: Final = 0.01
"""How far a captured graph's logits may be from those of a plain run, as a share of the largest."""


class BoundRuns:
    """Runs that copy from and to buffers of their own, pinned where that can be done.

    Runs at the same time use different buffers.
    """

    def __init__(self, runtime: Any, session: Any, signature: Signature) -> None:  # noqa: ANN401
        self._runtime, self._session, self._signature = runtime, session, signature
        self._cuda = cuda_runtime(getattr(runtime, "cuda_version", None))
        self._idle: deque[_Buffers] = deque()
        self.pinned: bool | None = None
        """Whether the buffers are; None before the first run."""

    def run(self, feed: Feed, options: Any) -> FloatArray:  # noqa: ANN401
        """(batch, tokens, labels) float32, the caller's own."""
        signature = self._signature
        with self._buffers() as buffers:
            binding = buffers.binding
            for name, value in feed.items():
                buffer = self._view(buffers, name, value.shape, value.dtype)
                np.copyto(buffer, value)
                binding.bind_ortvalue_input(
                    name, self._runtime.OrtValue.ortvalue_from_numpy(buffer)
                )
            if signature.labels is None:  # how large the answer is, the run will tell
                binding.bind_output(signature.output)
                self._session.run_with_iobinding(binding, options)
                return np.asarray(binding.copy_outputs_to_cpu()[0], dtype=np.float32)
            shape = (*feed["input_ids"].shape, signature.labels)
            logits = self._view(buffers, signature.output, shape, np.dtype(signature.output_type))
            bound = self._runtime.OrtValue.ortvalue_from_numpy(logits)
            binding.bind_ortvalue_output(signature.output, bound)
            self._session.run_with_iobinding(binding, options)
            return logits.astype(np.float32)  # a copy: the next run writes there

    @contextlib.contextmanager
    def _buffers(self) -> Iterator[_Buffers]:
        try:
            buffers = self._idle.pop()
        except IndexError:
            buffers = _Buffers(self._session.io_binding())
        yield buffers
        self._idle.append(buffers)  # after an error they are dropped with what was bound

    def _view(
        self, buffers: _Buffers, name: str, shape: tuple[int, ...], kind: np.dtype[Any]
    ) -> Array:
        size = int(np.prod(shape)) * kind.itemsize
        whole = buffers.memory.get(name)
        if whole is None or whole.nbytes < size:
            whole = buffers.memory[name] = empty_bytes(1 << max(0, size - 1).bit_length())
            self.pinned = pin(whole, self._cuda)
        return whole[:size].view(kind).reshape(shape)


class _Buffers:
    """A binding, and the memory by name of what is bound."""

    def __init__(self, binding: Any) -> None:  # noqa: ANN401
        self.binding = binding
        self.memory: dict[str, Array] = {}


class CapturedRuns:
    """Runs whose shape recurs as CUDA graphs; at most `MAX_GRAPHS` shapes, the rest by `BoundRuns`.

    A graph reads and writes fixed addresses, one run at a time, and the runtime keeps it for the
    thread that captured it. So all runs happen in a thread of this object's own.
    """

    def __init__(
        self,
        runtime: Any,  # noqa: ANN401
        session: Any,  # noqa: ANN401
        signature: Signature,
        *,
        device: str,
        number: int,
    ) -> None:
        """Capture nothing yet.

        Args:
            runtime, session, signature: as above; the signature must state the number of labels.
            device: where the buffers are: "cuda", or "cpu".
            number: of the device.
        """
        self._runtime, self._session, self._signature = runtime, session, signature
        self._device, self._number = device, number
        self._plain = BoundRuns(runtime, session, signature)
        self._captured: dict[tuple[int, ...], _Captured] = {}
        # Every graph that the runtime may hold, so that its addresses stay good; their count is
        # the last number that was given, for one that was given before would be replayed.
        self._made: list[_Captured] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nerve-cuda-graphs")

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """What has been captured, as (batch, tokens)."""
        return list(self._captured)

    def run(self, feed: Feed, options: Any) -> FloatArray:  # noqa: ANN401
        """(batch, tokens, labels) float32, the caller's own."""
        return self._thread.submit(self._run, feed, options).result()

    def _run(self, feed: Feed, options: Any) -> FloatArray:  # noqa: ANN401
        shape = feed["input_ids"].shape
        captured = self._captured.get(shape)
        if captured is not None:
            return captured.run(self._session, feed, options)
        options.add_run_config_entry(_GRAPH_ID, _NO_GRAPH)
        logits = self._plain.run(feed, options)
        if len(self._made) < MAX_GRAPHS and np.isfinite(logits).all():
            captured = self._new(shape, feed)
            captured.run(self._session, feed, options)  # captures
            again = captured.run(self._session, feed, options)  # replays
            if not np.allclose(again, logits, rtol=0, atol=_SAME * float(np.abs(logits).max())):
                raise RuntimeError(
                    f"a CUDA graph for {shape} answers otherwise than a run without one; "
                    "set optimization.gpu.cuda_graphs: false"
                )
            self._captured[shape] = captured
        return logits

    def _new(self, shape: tuple[int, ...], feed: Feed) -> _Captured:
        def buffer(shape: tuple[int, ...], kind: npt.DTypeLike) -> Any:  # noqa: ANN401
            make = self._runtime.OrtValue.ortvalue_from_shape_and_type
            return make(list(shape), np.dtype(kind).type, self._device, self._number)

        signature = self._signature
        assert signature.labels is not None  # the caller has seen to it
        binding = self._session.io_binding()
        inputs = {name: buffer(shape, value.dtype) for name, value in feed.items()}
        for name, value in feed.items():
            inputs[name].update_inplace(value)
            binding.bind_ortvalue_input(name, inputs[name])
        output = buffer((*shape, signature.labels), signature.output_type)
        binding.bind_ortvalue_output(signature.output, output)
        captured = _Captured(str(len(self._made) + 1), binding, inputs, output)
        self._made.append(captured)
        return captured


class _Captured:
    """One shape: where its inputs and its output are, and the number of its graph."""

    def __init__(self, graph: str, binding: Any, inputs: dict[str, Any], output: Any) -> None:  # noqa: ANN401
        self._graph, self._binding = graph, binding
        self._inputs, self._output = inputs, output

    def run(self, session: Any, feed: Feed, options: Any) -> FloatArray:  # noqa: ANN401
        for name, value in feed.items():
            self._inputs[name].update_inplace(value)
        options.add_run_config_entry(_GRAPH_ID, self._graph)
        session.run_with_iobinding(self._binding, options)
        return np.array(self._output.numpy(), dtype=np.float32)
