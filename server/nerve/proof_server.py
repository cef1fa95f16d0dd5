"""The process behind `nerve.proof`: imports everything once, forks a child a proof, tells its end.

`python -m nerve.proof_server FD`, or `forked` from the daemon before that has begun. It has one thread
and no event loop, so that forking is safe. On the socket FD it gets two sockets a proof: one for the
child (request in, answer out) and one on which it reports the child's birth and end, and kills it when
the other side goes. It ends, with its children, when FD is closed, so nothing is left when the daemon
is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import pickle
import resource
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import orjson
from prometheus_client import CollectorRegistry

from nerve import logs
from nerve.config.model import ModelConfig, WarmupSample
from nerve.config.running import Kind
from nerve.engine.graph_cache import GraphCache, NotCachedError
from nerve.engine.memory import limit_memory
from nerve.engine.session import gpu_devices, require_runtime
from nerve.errors import ModelLoadFailed, NerveError, RuntimeMissing
from nerve.golden import Answers, answers_before, check_gate
from nerve.metrics.engine import EngineMetrics
from nerve.model import NerModel
from nerve.opening import open_model
from nerve.processes import ForkedProcess, forks_safely
from nerve.proof import ForkServer, Request
from nerve.types import CutOptions, VersionFiles

log = logging.getLogger("nerve.proof_server")

Tell = Callable[[dict[str, object]], None]

SERVER_NAME: Final = "nerve-fork"
CHILD_NAME: Final = "nerve-proof"
"""What ps(1) shows."""
MAX_REASON: Final = 4096
_PR_SET_PDEATHSIG: Final = 1
_NICE: Final = 5
"""Serving comes first."""
_OUT_OF_MEMORY: Final = ("bad_alloc", "Failed to allocate memory", "can't start new thread")
"""How ONNX Runtime and Python say so."""


class Orders:
    """Takes orders on `control` until it is closed."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: dict[int, socket.socket] = {}
        # Not epoll, whose registrations outlive a fork.
        self._selector = selectors.PollSelector()

    def serve(self) -> None:
        """Work until the other side closes `control`, then kill what runs."""
        woken, wake = socket.socketpair()
        woken.setblocking(False)
        wake.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        self._selector.register(woken, selectors.EVENT_READ)
        self._selector.register(self._control, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is woken:
                    with contextlib.suppress(BlockingIOError):
                        woken.recv(4096)
                elif key.fileobj is self._control:
                    ordered, ends, _, _ = socket.recv_fds(self._control, 1, 2)
                    if not ordered:
                        self._end()
                        return
                    self._fork(*(socket.socket(fileno=end) for end in ends))
                else:  # nobody waits for this one any more
                    os.kill(key.data, signal.SIGKILL)
                    self._selector.unregister(key.fileobj)
            while self._children and self._reap(os.WNOHANG):
                pass

    def _fork(self, end: socket.socket, status: socket.socket) -> None:
        me = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            _tell(status, {"error": error.strerror or str(error)})
            end.close()
            status.close()
            return
        if pid == 0:
            try:
                for other in (status, self._control, *self._children.values()):
                    other.close()
            finally:
                _run_child(end, me)
        end.close()
        self._children[pid] = status
        self._selector.register(status, selectors.EVENT_READ, pid)
        _tell(status, {"pid": pid})

    def _reap(self, options: int) -> bool:
        """Take one child that has ended, and tell; whether there was one."""
        pid, ended, usage = os.wait4(-1, options)
        if pid == 0:
            return False
        status = self._children.pop(pid)
        if status.fileno() >= 0 and status in self._selector.get_map():
            self._selector.unregister(status)
        unit = 1 if sys.platform == "darwin" else 1024
        _tell(status, {"exit": ended, "peak_bytes": usage.ru_maxrss * unit})
        status.close()
        return True

    def _end(self) -> None:
        for pid, status in self._children.items():
            status.close()  # that it was us is no reason to tell of a model
            os.kill(pid, signal.SIGKILL)
        while self._children:
            self._reap(0)


def _tell(status: socket.socket, report: dict[str, int | str]) -> None:
    with contextlib.suppress(OSError):  # nobody waits
        status.sendall(orjson.dumps(report) + b"\n")


def _run_child(end: socket.socket, server: int) -> NoReturn:
    """One proof; the process ends here, without the interpreter's own clean-up."""
    code = 1
    try:
        _leave_server(server)
        with end, end.makefile("rb") as requests:
            request: Request = pickle.load(requests)  # noqa: S301  the daemon's
            _set_up_logs(request.log_level, request.log_form)
            prove(request, lambda told: end.sendall(orjson.dumps(told) + b"\n"))
        code = 0
    except EOFError:  # given up before we were told what to do
        pass
    except BaseException:  # boundary: there is nobody above
        log.critical("a process that proves models failed", exc_info=True)
    finally:
        os._exit(code)


def _leave_server(server: int) -> None:
    """Be a process of one's own: name, signals, limits; end when the server does."""
    with contextlib.suppress(OSError, AttributeError):  # Linux only
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != server:  # it died before that
        os._exit(1)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    _write("/proc/self/comm", CHILD_NAME)
    _write("/proc/self/oom_score_adj", "1000")  # if memory runs out, this goes first
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(_NICE)


def _write(path: str, text: str) -> None:
    with contextlib.suppress(OSError):  # another system, or not allowed
        Path(path).write_text(text, encoding="ascii")


def _set_up_logs(level: int, form: str) -> None:
    """Say nothing that the reason or the daemon's own load says again, unless asked for all."""
    if level <= logging.DEBUG:
        logs.set_up("debug", form=form)
        return
    # The runtime writes to the descriptor itself; ours stays for what nobody has foreseen.
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    logs.set_up("critical", form=form)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a version did; `logits` of texts that the cache compares it by, None if not asked for
    or if it fails on them."""

    f1: float | None
    device: str
    logits: tuple[bytes, ...] | None


def prove(request: Request, tell: Tell) -> None:
    """Load, run and free a version in this process; then fill the cache with its graph.

    What is told, each as soon as it is known: `graph`, the entry that is proved in place of the
    version's own graph; `f1`, or `failed` and whether for `memory`; `warning`; `not_cached`.
    """
    cache, files, config = request.cache, request.files, one_instance(request.config)
    level, graph = config.optimization.graph_level, None
    try:
        if request.memory_bytes is not None and not _on_gpu(config):
            limit_memory(request.memory_bytes)
        if cache is not None and request.use_cached:
            graph = cache.find(files, level, warn=lambda text: tell({"warning": text}))
            if graph is not None:
                cache.touch(graph)
                tell({"graph": str(graph)})
        fills = cache is not None and graph is None and cache.can_hold(files, level)
        before = asyncio.run(_before(request, config))
        outcome = asyncio.run(_load(request, config, graph=graph, compared=fills, before=before))
        tell({"f1": outcome.f1})
    except Exception as error:  # boundary: whatever it is, the model is not served
        foreseen, memory = isinstance(error, NerveError), ran_out_of_memory(error)
        if not foreseen and not memory:
            log.critical(
                "the proof of model %s failed in a way of its own", request.name, exc_info=True
            )
        reason = str(error) if foreseen else f"{type(error).__name__}: {error}"
        tell({"failed": reason[:MAX_REASON], "memory": memory})
        return
    if cache is not None and fills and outcome.device == "cpu" and outcome.logits is not None:
        _fill(cache, request, config, outcome, tell)


def _fill(
    cache: GraphCache, request: Request, config: ModelConfig, outcome: Outcome, tell: Tell
) -> None:
    """Make an entry, and prove it as the version was: it must give the same bits."""
    level, temporary = config.optimization.graph_level, cache.temporary(request.token)
    try:
        cache.write(request.files, level, temporary)
        again = asyncio.run(_load(request, config, graph=temporary, compared=True))
        if again != outcome:
            reason = "it does not answer bit for bit as the model itself"
        else:
            tell({"graph": str(cache.keep(request.files, level, temporary))})
            return
    except Exception as error:  # noqa: BLE001  boundary: the version has been proved without
        foreseen = isinstance(error, NerveError | NotCachedError)
        reason = str(error) if foreseen else f"{type(error).__name__}: {error}"
        if ran_out_of_memory(error):
            reason = f"there is not enough memory for it ({reason})"
    finally:
        cache.discard(temporary)
    tell({"not_cached": reason[:MAX_REASON]})


async def _before(request: Request, config: ModelConfig) -> Answers | None:
    """What the version finds in its golden texts before it is converted, if it is."""

    async def load(files: VersionFiles) -> NerModel:
        metrics = EngineMetrics(CollectorRegistry())
        return await open_model(request.name, files, config, metrics=metrics, lean=True)

    return await answers_before(request.unconverted, config, load)


async def _load(
    request: Request,
    config: ModelConfig,
    *,
    graph: Path | None,
    compared: bool,
    before: Answers | None = None,
) -> Outcome:
    metrics, files = EngineMetrics(CollectorRegistry()), request.files
    model = await open_model(
        request.name, files, config, metrics=metrics, optimised=graph, lean=True
    )
    try:
        report = await check_gate(model, files, config, before=before)
        logits = await _logits(model, config) if compared else None
    finally:
        await model.aclose()
    return Outcome(None if report is None else report.f1, model.info.device, logits)


async def _logits(model: NerModel, config: ModelConfig) -> tuple[bytes, ...] | None:
    """Of one text alone, and of several at once."""
    texts = [WarmupSample().text, *(sample.text for sample in config.model_warmup)]
    try:
        runs = [await model.run(each, CutOptions(), None) for each in (texts[:1], texts)]
    except NerveError:
        return None  # with these texts; the version may well be good for others
    return tuple(each.tobytes() for _, logits, _ in runs for each in logits)


def one_instance(config: ModelConfig) -> ModelConfig:
    """The same model with each group once (on each of its devices): that proves as much."""
    groups = [group.model_copy(update={"count": 1}) for group in config.instance_group]
    return config.model_copy(update={"instance_group": groups})


def _on_gpu(config: ModelConfig) -> bool:
    return any(group.kind is not Kind.CPU for group in config.instance_group) and bool(
        gpu_devices()
    )


def ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says so."""
    while error is not None:
        if isinstance(error, MemoryError) or any(mark in str(error) for mark in _OUT_OF_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


def forked() -> ForkServer | None:
    """The fork server as a fork of this process: one import is for both. None where that is not safe.

    To be called before there is a thread or an event loop. None, too, where the system starts no
    process: a prover tries again, and tells why.
    """
    if not forks_safely():
        return None
    with contextlib.suppress(RuntimeMissing):  # the daemon will say so
        require_runtime()
    gc.freeze()  # what there is now is for good, and shared
    try:
        return ForkServer(lambda control: ForkedProcess(lambda: serve(control), keep=control))
    except ModelLoadFailed:
        return None


def serve(control: int) -> NoReturn:
    """Be the fork server on the socket of this descriptor."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the daemon decides, by closing the socket
    _write("/proc/self/comm", SERVER_NAME)
    Orders(socket.socket(fileno=control)).serve()
    os._exit(0)  # nothing to clean up


def main() -> None:
    """Serve on the socket whose descriptor is the first argument."""
    with contextlib.suppress(RuntimeMissing):  # a child will say so
        require_runtime()
    gc.collect()
    gc.freeze()  # children share what is there
    serve(int(sys.argv[1]))


if __name__ == "__main__":
    main()
