"""`optimization.precision`: a version's graph converted, in a process of its own, before it is loaded.

The result lies in memory that has no name in any folder, or in a temporary file where a system has
no such memory, and is gone when the load is over, or with the daemon. How it is made is the
business of `nerve.engine.precision`; whether it is good enough, that of `nerve.golden`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import orjson

from nerve.config.model import ModelConfig
from nerve.config.running import Kind, Precision
from nerve.engine.graph_cache import (
    CPU_PROVIDER,
    GraphCache,
    NotCachedError,
    contents_of,
    entry_key,
    machine_identity,
)
from nerve.engine.session import gpu_devices, runtime_identity
from nerve.errors import ModelLoadFailed
from nerve.processes import python_module
from nerve.threads import in_own_thread
from nerve.types import VersionFiles

log = logging.getLogger(__name__)

REWRITE: Final = 1
"""Goes into every key: another one when the same graph is made into another than before."""
GPU_PROVIDER: Final = "CUDAExecutionProvider"
_PROC: Final = Path("/proc")
_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Converter:
    """Converts versions.

    `timeout_s` and `memory_bytes` bound one conversion; `cache` is looked into, and `fills` says
    that what was loaded is to be kept there; `advice` ends the sentence of one that took too long.
    """

    timeout_s: float
    memory_bytes: int | None
    cache: GraphCache | None = None
    fills: bool = False
    advice: str = "; raise load_timeout_s"

    @contextlib.asynccontextmanager
    async def converted(
        self, name: str, files: VersionFiles, config: ModelConfig
    ) -> AsyncIterator[VersionFiles]:
        """The version with its graph in the precision that its config wants, to be loaded inside.

        It is `files` itself where there is nothing to do.

        Raises:
            ModelLoadFailed: it cannot be had, with the reason for the index.
        """
        precision = config.optimization.precision
        if precision is None or files.problem or files.onnx is None:
            yield files
            return
        provider = provider_of(config)
        _check(name, precision, provider)
        key = conversion_key(files, precision, provider)
        kept = await asyncio.to_thread(self._find, name, key)
        with contextlib.nullcontext(kept) if kept else _unnamed_file() as graph:
            if kept is None:
                digest = await self._convert(files, precision, graph)
            else:
                digest = await asyncio.to_thread(_digest, graph)
            if not digest:
                yield files
                return
            if files.golden is None:
                message = "model %s: its conversion to %s is not checked: it has no golden.jsonl"
                log.warning(message, name, precision)
            try:
                digests = {graph: digest}
                yield replace(files, onnx=graph, external={}, digests=digests)
            except ModelLoadFailed as error:
                if kept is not None and self.cache is not None:
                    await asyncio.to_thread(self.cache.discard, kept)
                raise _named(error, graph, precision) from error
            if kept is None and key is not None:
                await asyncio.to_thread(self._keep, name, key, graph)

    def _find(self, name: str, key: str | None) -> Path | None:
        if self.cache is None:
            return None
        kept = self.cache.find_entry(key, warn=functools.partial(log.warning, "model %s: %s", name))
        if kept is not None:
            self.cache.touch(kept)
        return kept

    def _keep(self, name: str, key: str, graph: Path) -> None:
        if self.cache is None or not self.fills:
            return
        try:
            self.cache.keep_copy(key, graph, token=secrets.token_hex(8))
        except NotCachedError as error:
            message = "model %s: its converted graph is not kept in %s: %s"
            log.warning(message, name, self.cache.folder, error)

    async def _convert(self, files: VersionFiles, precision: Precision, target: Path) -> str:
        """Write the converted graph; its SHA-256, empty if the graph has that precision already."""
        order = {
            "graph": str(files.onnx),
            "external": {name: str(path) for name, path in files.external.items()},
            "digests": {str(path): digest for path, digest in files.digests.items()},
            "precision": precision,
            "target": str(target),
            "memory_bytes": self.memory_bytes,
        }
        process = _Process(orjson.dumps(order) + b"\n")
        try:
            async with asyncio.timeout(self.timeout_s):
                told = await in_own_thread(process.run, name="nerve-convert", stop=process.stop)
        except TimeoutError:
            fault = f"took over {self.timeout_s:g} s{self.advice}"
            raise ModelLoadFailed(f"the conversion to {precision} {fault}") from None
        reason = str(told.get("failed", "no answer"))
        if told.get("out_of_memory") and self.memory_bytes is not None:
            reason += f"; it was limited to {self.memory_bytes} bytes (proof_memory_bytes)"
        if reason:
            raise ModelLoadFailed(f"it cannot be converted to {precision}: {reason}")
        return "" if told.get("unchanged") else str(told["digest"])


def provider_of(config: ModelConfig) -> str:
    """The runtime's name of the device that a version will run on, if anywhere, on a GPU."""
    wants = any(group.kind is not Kind.CPU for group in config.instance_group)
    return GPU_PROVIDER if wants and gpu_devices() else CPU_PROVIDER


def conversion_key(files: VersionFiles, precision: Precision, provider: str) -> str | None:
    """What a converted graph is found by in the cache; None if the contents are not known."""
    contents = contents_of(files)
    if contents is None:
        return None
    made = f"{precision} {REWRITE}"
    runtime, machine = runtime_identity(), machine_identity()
    return entry_key(contents, made, runtime=runtime, machine=machine, provider=provider)


def _check(name: str, precision: Precision, provider: str) -> None:
    """Warn of what a precision does not bring. Raises ModelLoadFailed."""
    if precision is Precision.INT8 and provider == GPU_PROVIDER:
        raise ModelLoadFailed(
            "optimization.precision: int8 is made for the CPU, and this model has instances on a "
            "GPU; use fp16 there, or KIND_CPU"
        )
    if precision is Precision.FP16 and provider == CPU_PROVIDER:
        log.warning(
            "model %s: precision fp16 is no gain on the CPU: the runtime has few such kernels and "
            "computes most of it in fp32; int8 is faster",
            name,
        )


def _named(error: ModelLoadFailed, graph: Path, precision: Precision) -> ModelLoadFailed:
    """The same in words that make sense to somebody who never saw the file."""
    told = str(error).removeprefix(f"{graph.name} ")
    return error if told == str(error) else ModelLoadFailed(f"its graph in {precision} {told}")


def _digest(path: Path) -> str:
    """Raises ModelLoadFailed: it is gone."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelLoadFailed(f"its cached graph cannot be read: {error.strerror}") from error


@contextlib.contextmanager
def _unnamed_file() -> Iterator[Path]:
    """An empty file that other processes of ours can open, too, until this ends.

    Raises:
        ModelLoadFailed: there is no place for one.
    """
    with contextlib.ExitStack() as stack:
        try:
            if hasattr(os, "memfd_create") and _PROC.is_dir():
                descriptor = os.memfd_create("nerve-graph")
                stack.callback(os.close, descriptor)
                path = _PROC / str(os.getpid()) / "fd" / str(descriptor)
            else:
                folder = Path(tempfile.mkdtemp(prefix="nerve-"))
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
                path = folder / "graph.onnx"
        except OSError as error:
            raise ModelLoadFailed(f"there is no place for its converted graph: {error}") from error
        yield path


class _Process:
    """The process that converts, seen from the thread that waits for it.

    Not asyncio's: with uvloop that forks on the event loop, all of the daemon's memory mapped.
    """

    def __init__(self, order: bytes) -> None:
        self._order = order
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def run(self) -> dict[str, object]:
        """What it says to the order.

        Raises:
            ModelLoadFailed: it has died.
        """
        with self._lock:
            if self._stopped:
                raise ModelLoadFailed("its conversion was broken off")
            self._process = process = subprocess.Popen(  # noqa: S603  our own interpreter
                python_module("nerve.engine.precision"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C at a terminal is for the daemon alone
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path),
                    "OPENBLAS_NUM_THREADS": "1",
                },
            )
        assert process.stdin is not None  # they are pipes
        assert process.stdout is not None
        with process:
            with contextlib.suppress(BrokenPipeError):  # it has died; how is told below
                process.stdin.write(self._order)
                process.stdin.flush()
            said = process.stdout.read()  # it ends if its input does, so that stays open
        code = process.returncode
        if code != 0 or not said:
            fate = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise ModelLoadFailed(f"the process that converts its graph died ({fate})")
        told: dict[str, object] = orjson.loads(said)
        return told

    def stop(self) -> None:
        """Kill it; `run` ends then."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()
