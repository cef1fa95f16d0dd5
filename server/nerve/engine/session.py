"""One ONNX Runtime session, bound by name; the only home of `onnxruntime`."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nerve.config.model import GraphLevel
from nerve.errors import ModelLoadFailed, RuntimeMissing
from nerve.types import FloatArray, IntArray

_INPUT_TYPES: Final[Mapping[str, npt.DTypeLike]] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(bool)": np.bool_,
}
_OUTPUT_TYPES: Final = ("tensor(float)", "tensor(float16)", "tensor(double)")
_KNOWN_INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
_GRAPH_LEVELS: Final = {
    GraphLevel.DISABLE: "ORT_DISABLE_ALL",
    GraphLevel.BASIC: "ORT_ENABLE_BASIC",
    GraphLevel.EXTENDED: "ORT_ENABLE_EXTENDED",
    GraphLevel.ALL: "ORT_ENABLE_ALL",
}
_ERRORS_ONLY: Final = 3
_NO_FILES: Final[Mapping[str, Path]] = MappingProxyType({})


def require_runtime() -> ModuleType:
    """The onnxruntime module.

    Raises:
        RuntimeMissing: neither distribution is installed (or what is there cannot be imported).
    """
    # From 1.29 on the runtime reports its use to its maker unless this is set before its import;
    # a server must not, and the thread that would do it does not go with forking (`nerve.proof`).
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime  # noqa: PLC0415  heavy, optional, and its absence is an answer
    except ModuleNotFoundError as error:
        raise RuntimeMissing("" if error.name == "onnxruntime" else str(error)) from error
    except ImportError as error:
        raise RuntimeMissing(str(error)) from error
    if not hasattr(onnxruntime, "InferenceSession"):  # a leftover folder after an uninstall
        raise RuntimeMissing("")
    module: ModuleType = onnxruntime
    return module


def gpu_devices() -> list[int]:
    """Numbers of the CUDA devices that this process can use; empty without the GPU build.

    The runtime lists its CUDA provider wherever it was built in, GPU or not, so the driver is
    asked for its devices.
    """
    if "CUDAExecutionProvider" not in require_runtime().get_available_providers():
        return []
    import ctypes  # noqa: PLC0415  only where there is a GPU build

    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
            return []
    except (OSError, AttributeError):
        return []
    return list(range(count.value))


def runtime_identity() -> str:
    """Version and build of the runtime; equal ones make the same of a graph."""
    runtime = require_runtime()
    return f"{runtime.__version__} {runtime.get_build_info()}"


def optimise(
    graph: bytes, target: Path, *, graph_level: GraphLevel, external: Mapping[str, bytes]
) -> None:
    """Write a graph as the runtime optimises it for this machine's CPU, all weights in one file.

    Args:
        graph: content of an .onnx file.
        target: the file to write; whether it is whole is only known when it has been loaded.
        graph_level: how far to go.
        external: the graph's external data, by the location that it names it with.
    Raises:
        RuntimeMissing: no runtime is installed.
        ModelLoadFailed: the runtime refuses the graph, or could not write.
    """
    runtime = require_runtime()
    options = _options(graph_level, intra_op_threads=1)
    options.optimized_model_filepath = str(target)
    buffers = {os.path.normpath(key): content for key, content in external.items()}
    _give(options, buffers)
    try:
        runtime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:
        raise ModelLoadFailed(f"the graph cannot be optimised: {_told(error)}") from error


class LoadStop:
    """Breaks off the load of sessions from another thread; the load then raises."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._options: Any = None
        self._wanted = False

    def set(self) -> None:
        """Break off the load in progress, and every later one."""
        with self._lock:
            self._wanted = True
            if self._options is not None:
                self._options.set_load_cancellation_flag(True)

    def attach(self, options: Any) -> None:  # noqa: ANN401  the runtime ships no types
        """From now on `set` breaks off the load that `options` are used for."""
        with self._lock:
            self._options = options
            if self._wanted:
                options.set_load_cancellation_flag(True)


class Session:
    """A loaded graph on one device. `run` may be called from several threads at once."""

    def __init__(
        self,
        model: Path,
        *,
        gpu: int | None,
        graph_level: GraphLevel,
        intra_op_threads: int,
        external: Mapping[str, Path] = _NO_FILES,
        stop: LoadStop | None = None,
    ) -> None:
        """Load `model`.

        Args:
            model: the .onnx file.
            gpu: CUDA device number, or None for the CPU.
            graph_level, intra_op_threads: session options.
            external: the graph's external data files, by the location that it names them with.
                They are read into memory and can change afterwards. What is not listed here is
                looked up beside the model and mapped: changing it changes the answers, truncating
                it kills the process.
            stop: breaks off the load.
        Raises:
            RuntimeMissing: no runtime is installed.
            ModelLoadFailed: the runtime refuses the file, or its inputs or outputs are not those
                of a token classifier, or the device cannot be used.
        """
        self.device = "cpu" if gpu is None else "gpu"
        self._session = _open(
            model,
            gpu=gpu,
            graph_level=graph_level,
            intra_op_threads=intra_op_threads,
            external=external,
            stop=stop,
        )
        self._running: set[Any] = set()  # RunOptions of runs in progress
        self._inputs = {each.name: each.type for each in self._session.get_inputs()}
        self._check_inputs()
        self._output, self.labels = self._find_logits()

    def _check_inputs(self) -> None:
        if "input_ids" not in self._inputs:
            raise ModelLoadFailed(
                f"the graph has no input named 'input_ids'; its inputs: {', '.join(self._inputs)}"
            )
        for name, kind in self._inputs.items():
            if name not in _KNOWN_INPUTS:
                raise ModelLoadFailed(
                    f"the graph wants an input {name!r}, which this server cannot give; "
                    f"it gives {', '.join(_KNOWN_INPUTS)}"
                )
            if kind not in _INPUT_TYPES:
                raise ModelLoadFailed(f"input {name!r} is {kind}, expected int64 or int32")

    def _find_logits(self) -> tuple[str, int | None]:
        """Name of the output to read, and its label count if the graph states it."""
        outputs = self._session.get_outputs()
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
        return output.name, last if isinstance(last, int) and last > 0 else None

    @property
    def inputs(self) -> frozenset[str]:
        """Names of the graph's inputs."""
        return frozenset(self._inputs)

    def run(self, ids: IntArray, mask: IntArray, type_ids: IntArray | None) -> FloatArray:
        """Run one padded batch in this thread.

        Args:
            ids, mask, type_ids: (batch, tokens) int64; no type ids means zeros.
        Returns:
            (batch, tokens, labels) float32, whatever the graph's own float type.
        Raises:
            Exception: whatever the runtime raises; its types are not public.
        """
        feed: dict[str, npt.NDArray[Any]] = {}
        for name, kind in self._inputs.items():
            if name == "input_ids":
                value = ids
            elif name == "attention_mask":
                value = mask
            elif name == "position_ids":
                value = np.broadcast_to(np.arange(ids.shape[1], dtype=np.int64), ids.shape)
            else:
                value = np.zeros_like(ids) if type_ids is None else type_ids
            feed[name] = np.ascontiguousarray(value, dtype=_INPUT_TYPES[kind])
        options = require_runtime().RunOptions()
        self._running.add(options)
        try:
            logits = self._session.run([self._output], feed, options)[0]
        finally:
            self._running.discard(options)
        if logits.ndim != 3 or logits.shape[:2] != ids.shape:
            raise ValueError(
                f"output {self._output!r} has shape {logits.shape} for an input of {ids.shape}"
            )
        return np.asarray(logits, dtype=np.float32)

    def terminate(self) -> None:
        """Break off the runs in progress, in whatever threads they are; they raise."""
        for options in tuple(self._running):
            options.terminate = True


def _open(
    model: Path,
    *,
    gpu: int | None,
    graph_level: GraphLevel,
    intra_op_threads: int,
    external: Mapping[str, Path],
    stop: LoadStop | None,
) -> Any:  # noqa: ANN401  the runtime ships no types
    runtime = require_runtime()
    _check_file(model)
    options = _options(graph_level, intra_op_threads=intra_op_threads)
    providers: Sequence[object] = ["CPUExecutionProvider"]
    if gpu is not None:
        with contextlib.suppress(
            Exception
        ):  # helps where CUDA came by pip; else the loader finds it
            runtime.preload_dlls()
        providers = [("CUDAExecutionProvider", {"device_id": gpu}), "CPUExecutionProvider"]
    if stop is not None:
        stop.attach(options)
    # The runtime copies what it needs of them, so they go when this function ends.
    buffers = _read(external)
    try:
        _give(options, buffers)
        # Without fallback: a GPU model must not move to the CPU behind our back.
        session = runtime.InferenceSession(
            str(model), options, providers=providers, enable_fallback=0
        )
    except Exception as error:
        raise ModelLoadFailed(f"{model.name} cannot be loaded: {_told(error)}") from error
    if gpu is not None and "CUDAExecutionProvider" not in session.get_providers():
        # The runtime falls back to the CPU with only a log line; that is not what was asked for.
        raise ModelLoadFailed(
            f"CUDA device {gpu} cannot be used: ONNX Runtime fell back to "
            f"{', '.join(session.get_providers())} (are CUDA and cuDNN of its build installed?)"
        )
    return session


def _options(graph_level: GraphLevel, *, intra_op_threads: int) -> Any:  # noqa: ANN401  as above
    runtime = require_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    options.graph_optimization_level = getattr(
        runtime.GraphOptimizationLevel, _GRAPH_LEVELS[graph_level]
    )
    # Threads that spin while they wait would keep a core busy in an idle server.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _give(options: Any, buffers: Mapping[str, bytes]) -> None:  # noqa: ANN401  as above
    """Have external data taken from memory; `buffers` must live until the session is made."""
    if buffers:
        options.add_external_initializers_from_files_in_memory(
            list(buffers), list(buffers.values()), [len(each) for each in buffers.values()]
        )


def _read(external: Mapping[str, Path]) -> dict[str, bytes]:
    """The external data, by location; `a.bin` and `./a.bin` are one to the runtime, too."""
    buffers = {}
    for location, file in {os.path.normpath(key): each for key, each in external.items()}.items():
        try:
            buffers[location] = file.read_bytes()
        except OSError as error:
            raise ModelLoadFailed(f"{location} cannot be read: {error.strerror}") from error
    return buffers


def _check_file(model: Path) -> None:
    """What people often have in place of a graph, said better than the runtime does."""
    try:
        with model.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise ModelLoadFailed(f"{model.name} cannot be read: {error.strerror}") from error
    if head.startswith(b"version https://git-lfs"):
        raise ModelLoadFailed(f"{model.name} is only a Git LFS pointer; run `git lfs pull`")
    if not head:
        raise ModelLoadFailed(f"{model.name} is an empty file")


def _told(error: Exception) -> str:
    """The runtime's message without the server's folders: clients see why a load failed."""
    return re.sub(r"(?<![\w.…])/(?:[^/\s\"':]+/)+", "…/", str(error))
