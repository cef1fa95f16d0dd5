"""One ONNX Runtime session, bound by name; the only home of `onnxruntime`."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Final

import numpy as np

from nerve.config.running import GraphLevel
from nerve.engine.binding import BoundRuns, CapturedRuns
from nerve.engine.providers import (
    CPU,
    CUDA,
    PLAIN,
    TENSORRT,
    OnGpu,
    Provider,
    providers,
    refusal,
    unusable,
)
from nerve.engine.signature import Feed, Signature, read_signature
from nerve.errors import ModelLoadFailed, RuntimeMissing
from nerve.types import FloatArray, IntArray

_GRAPH_LEVELS: Final = {
    GraphLevel.DISABLE: "ORT_DISABLE_ALL",
    GraphLevel.BASIC: "ORT_ENABLE_BASIC",
    GraphLevel.EXTENDED: "ORT_ENABLE_EXTENDED",
    GraphLevel.ALL: "ORT_ENABLE_ALL",
}
_ERRORS_ONLY: Final = 3
Run = Callable[[Feed, Any], FloatArray]
"""Inputs and RunOptions -> logits."""
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
    if CUDA not in require_runtime().get_available_providers():
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
    options = _options(graph_level)
    options.optimized_model_filepath = str(target)
    buffers = {os.path.normpath(key): content for key, content in external.items()}
    _give(options, buffers)
    try:
        runtime.InferenceSession(graph, options, providers=[CPU], enable_fallback=0)
    except Exception as error:
        raise ModelLoadFailed(f"the graph cannot be optimised: {_told(error)}") from error


class LoadStop:
    """Breaks off the load of sessions from another thread; the load then raises. `wanted` tells."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._options: list[Any] = []
        self.wanted = False

    def set(self) -> None:
        """Break off the loads in progress, and every later one."""
        with self._lock:
            self.wanted = True
            for options in self._options:
                options.set_load_cancellation_flag(True)

    def attach(self, options: Any) -> None:  # noqa: ANN401  the runtime ships no types
        """From now on `set` breaks off the load that `options` are used for."""
        with self._lock:
            self._options.append(options)
            if self.wanted:
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
        spin: bool = False,
        external: Mapping[str, Path] = _NO_FILES,
        stop: LoadStop | None = None,
        use: OnGpu = PLAIN,
        bound: bool | None = None,
    ) -> None:
        """Load `model`.

        Args:
            model: the .onnx file.
            gpu: CUDA device number, or None for the CPU.
            graph_level, intra_op_threads: session options.
            spin: whether threads of a run that wait for one another do so busily.
            external: the graph's external data files, by the location that it names them with.
                They are read into memory and can change afterwards. What is not listed here is
                looked up beside the model and mapped: changing it changes the answers, truncating
                it kills the process.
            stop: breaks off the load.
            use: what the model's config says of GPUs.
            bound: whether runs go by I/O binding; by default what `use` says on a GPU, and not
                on the CPU, where that is slower.
        Raises:
            RuntimeMissing: no runtime is installed.
            ModelLoadFailed: the runtime refuses the file, or its inputs or outputs are not those
                of a token classifier, or the device cannot be used.
        """
        self.device, self.gpu = "cpu" if gpu is None else "gpu", gpu
        self.in_callers_thread = gpu is None and intra_op_threads == 1
        _check_file(model)
        source = _Source(model, external, stop)
        inputs: Iterable[str] = ()
        if gpu is not None and use.provider == TENSORRT:
            # It builds engines for named inputs, for minutes: first see whether the graph is ours.
            inputs = _signature(_open(source, _options(GraphLevel.DISABLE), [(CPU, {})])).inputs
        options = _options(graph_level, intra_op_threads=intra_op_threads, spin=spin)
        wanted = providers(gpu, use, inputs)
        self._session = (
            _open(source, options, wanted) if gpu is None else _on_gpu(source, options, wanted, gpu)
        )
        self._signature = _signature(self._session)
        self._running: set[Any] = set()  # RunOptions of runs in progress
        self._run = self._runs(
            gpu, use, bound=use.settings.io_binding and gpu is not None if bound is None else bound
        )

    def _runs(self, gpu: int | None, use: OnGpu, *, bound: bool) -> Run:
        """How runs are done: plainly, by I/O binding, or as CUDA graphs."""
        runtime, session, signature = require_runtime(), self._session, self._signature
        if gpu is not None and use.settings.cuda_graphs:
            if signature.labels is None:
                raise ModelLoadFailed(
                    "optimization.gpu.cuda_graphs: true needs a graph that states its number of "
                    f"labels, but its output {signature.output!r} does not; set it to false"
                )
            captured = CapturedRuns(runtime, session, signature, device="cuda", number=gpu)
            return captured.run
        if bound:
            return BoundRuns(runtime, session, signature).run
        return lambda feed, options: session.run([signature.output], feed, options)[0]

    @property
    def inputs(self) -> frozenset[str]:
        """Names of the graph's inputs."""
        return frozenset(self._signature.inputs)

    @property
    def labels(self) -> int | None:
        """Width of the logits, if the graph states it."""
        return self._signature.labels

    def run(self, ids: IntArray, mask: IntArray, type_ids: IntArray | None) -> FloatArray:
        """Run one padded batch in this thread.

        Args:
            ids, mask, type_ids: (batch, tokens) int64; no type ids means zeros.
        Returns:
            (batch, tokens, labels) float32, whatever the graph's own float type.
        Raises:
            Exception: whatever the runtime raises; its types are not public.
        """
        feed = self._signature.feed(ids, mask, type_ids)
        options = require_runtime().RunOptions()
        self._running.add(options)
        try:
            logits = self._run(feed, options)
        finally:
            self._running.discard(options)
        if logits.ndim != 3 or logits.shape[:2] != ids.shape:
            raise ValueError(
                f"output {self._signature.output!r} has shape {logits.shape} for an input of "
                f"{ids.shape}"
            )
        return np.asarray(logits, dtype=np.float32)

    def terminate(self) -> None:
        """Break off the runs in progress, in whatever threads they are; they raise."""
        for options in tuple(self._running):
            options.terminate = True


@dataclass(frozen=True, slots=True)
class _Source:
    """What a session is loaded from."""

    model: Path
    external: Mapping[str, Path]
    stop: LoadStop | None


def _signature(session: Any) -> Signature:  # noqa: ANN401  the runtime ships no types
    return read_signature(session.get_inputs(), session.get_outputs())


def _open(source: _Source, options: Any, wanted: Sequence[Provider]) -> Any:  # noqa: ANN401
    if source.stop is not None:
        source.stop.attach(options)
    # The runtime copies what it needs of them, so they go when this function ends.
    buffers = _read(source.external)
    try:
        _give(options, buffers)
        # Without fallback: a GPU model must not move to the CPU behind our back.
        return require_runtime().InferenceSession(
            str(source.model),
            options,
            providers=[(name, dict(settings)) for name, settings in wanted],
            enable_fallback=0,
        )
    except Exception as error:
        raise ModelLoadFailed(f"{source.model.name} cannot be loaded: {_told(error)}") from error


def _on_gpu(source: _Source, options: Any, wanted: Sequence[Provider], gpu: int) -> Any:  # noqa: ANN401
    """A session on the first of `wanted`, or the reason why there is none."""
    runtime = require_runtime()
    with contextlib.suppress(Exception):  # helps where CUDA came by pip; else the loader finds it
        runtime.preload_dlls()
    first, available = wanted[0][0], runtime.get_available_providers()
    folder = Path(str(runtime.__file__)).parent / "capi"
    if first in available:
        try:
            session = _open(source, options, wanted)
        except ModelLoadFailed as error:
            raise refusal(first, gpu, error, folder=folder) from error
        # The runtime falls back to the CPU with only a log line; that is not what was asked for.
        if first in session.get_providers():
            return session
    raise ModelLoadFailed(unusable(first, gpu, available=available, folder=folder))


def _options(graph_level: GraphLevel, *, intra_op_threads: int = 1, spin: bool = False) -> Any:  # noqa: ANN401
    runtime = require_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    options.graph_optimization_level = getattr(
        runtime.GraphOptimizationLevel, _GRAPH_LEVELS[graph_level]
    )
    # Threads that spin after a run would keep a core busy in an idle server.
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    options.add_session_config_entry("session.force_spinning_stop", "1")
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
