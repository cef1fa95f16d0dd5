"""Loads a version in a throw-away process first, so that a model that crashes takes nothing with it.

Here is the daemon's side; `nerve.proof_server` is the process that forks and what its children do.
Why not `multiprocessing`: its fork server needs a writable temporary folder (a container may have
none), keeps a second process for what we do not use, is one for the whole interpreter, has each
child import the console script again, and leaves children running when the daemon is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import orjson

from nerve.config.model import ModelConfig
from nerve.engine.graph_cache import GraphCache
from nerve.errors import ModelLoadFailed
from nerve.processes import python_module
from nerve.types import VersionFiles

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES: Final = 64 * 1024
START_TIMEOUT_S: Final = 60.0
"""Longest wait for the fork server to be there; starting it takes well under a second."""
END_TIMEOUT_S: Final = 5.0
"""Longest wait for a process that was killed or told to end."""
IDLE_S: Final = 60.0
"""How long the fork server, some 70 MB, is kept for the next proof."""
_CRASHES: Final = frozenset(
    {"SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGSYS", "SIGTRAP"}
)


@dataclass(frozen=True, slots=True)
class Proof:
    """A version that loads, runs and passes its gate; `f1` is None where there is no gate.

    `peak_memory_bytes` is the most that the whole process held, runtime and libraries included.
    `graph` is the optimised graph that was proved, too, and is to be loaded; None: there is none.
    """

    seconds: float
    peak_memory_bytes: int
    f1: float | None
    graph: Path | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What a child is sent. `token` names its temporary files; `unconverted` is what `files` was
    converted from, if it was; without `use_cached` it proves the version's own graph, whatever
    `cache` holds."""

    name: str
    files: VersionFiles
    config: ModelConfig
    memory_bytes: int | None
    log_level: int
    log_form: str
    cache: GraphCache | None
    token: str
    unconverted: VersionFiles | None = None
    use_cached: bool = True


class _Answer:
    """What a child has said so far, a JSON object a line."""

    def __init__(self) -> None:
        self.text = b""

    def lines(self) -> list[dict[str, object]]:
        """Those that are whole; empty if the child said too much."""
        whole = (
            b"" if len(self.text) > MAX_ANSWER_BYTES else self.text[: self.text.rfind(b"\n") + 1]
        )
        try:
            return [orjson.loads(line) for line in whole.splitlines()]
        except orjson.JSONDecodeError:
            return []

    def told(self) -> dict[str, object]:
        """All lines as one."""
        return {key: value for line in self.lines() for key, value in line.items()}


class _ServerGoneError(Exception):
    """The fork server died; nothing is known of the proof."""


class Process(Protocol):
    """What is needed of a process of ours, as `subprocess.Popen` has it."""

    pid: int

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, later. Raises subprocess.TimeoutExpired."""

    def kill(self) -> None:
        """End it at once."""


def _started(control: int) -> Process:
    return subprocess.Popen(  # noqa: S603  our own interpreter
        python_module("nerve.proof_server", str(control)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # the daemon's is for its own lines
        pass_fds=[control],
        start_new_session=True,  # Ctrl-C at a terminal is for the daemon alone
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path),
            "OPENBLAS_NUM_THREADS": "1",  # threads do not go with forking
        },
    )


class ForkServer:
    """The process, and the socket that proofs are ordered on. `close` it."""

    def __init__(self, start: Callable[[int], Process] = _started) -> None:
        """Have it started, by default as an interpreter of its own.

        Args:
            start: makes a process that serves on the socket of this descriptor.
        Raises:
            ModelLoadFailed: the system starts no process.
        """
        self.control, theirs = socket.socketpair()
        self.control.setblocking(False)
        with theirs:
            try:
                self._process = start(theirs.fileno())
            except OSError as error:
                self.control.close()
                raise ModelLoadFailed(
                    "the process that proves models cannot be started: "
                    f"{error.strerror or error}; allow this user more processes and memory, or "
                    "set prove_models to false"
                ) from error

    @property
    def alive(self) -> bool:
        """Whether it is known to run."""
        return self._process.poll() is None

    def order(self, *ends: socket.socket) -> None:
        """Have a child forked that gets these sockets. Raises _ServerGoneError."""
        try:
            socket.send_fds(self.control, [b"."], [each.fileno() for each in ends])
        except OSError as error:  # gone, or hundreds of orders that it has not looked at
            raise _ServerGoneError from error

    def close(self) -> None:
        """End it and its children, in this thread."""
        self.control.close()  # it ends on that
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Prover:
    """Proves versions, several at once. One event loop; `aclose` it."""

    def __init__(
        self,
        *,
        timeout_s: float,
        memory_bytes: int | None,
        idle_s: float = IDLE_S,
        cache: GraphCache | None = None,
        advice: str = "; raise load_timeout_s",
        log_form: str = "console",
        server: ForkServer | None = None,
    ) -> None:
        """Nothing is started.

        Args:
            timeout_s: longest time of one proof.
            memory_bytes: what a model on the CPU may take on top of the bare process.
            idle_s: after so long without a proof the fork server is ended.
            cache: what optimised graphs are taken from and put into.
            advice: ends the sentence of a proof that took too long.
            log_form: how lines of the log look, console or json.
            server: the fork server to begin with, if there is one already. It is closed with this.
        """
        self._timeout_s, self._memory_bytes, self._idle_s = timeout_s, memory_bytes, idle_s
        self._cache, self._advice, self._log_form = cache, advice, log_form
        self._server = server
        self._proofs = 0  # in progress
        self._idle: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    @staticmethod
    def possible() -> bool:
        """Whether this system can fork (Windows cannot)."""
        return hasattr(os, "fork") and hasattr(socket, "send_fds")

    def start(self) -> None:
        """Start the fork server now, so that the first proof need not wait for it.

        Raises:
            ModelLoadFailed: the system starts no process.
        """
        self._running_server()
        self._watch_idle()

    def _watch_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(self._idle_s, self._end_idle)

    def _end_idle(self) -> None:
        server = self._server
        if server is not None and self._proofs == 0:
            self._server = None
            task = asyncio.create_task(asyncio.to_thread(server.close), name="proof-idle")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _running_server(self) -> ForkServer:
        if self._closed:
            raise ModelLoadFailed("was not proved: the server is stopping")
        if self._server is None or not self._server.alive:
            if self._server is not None:
                self._server.close()  # only frees what is left of it
            self._server = ForkServer()
        return self._server

    async def prove(
        self,
        name: str,
        files: VersionFiles,
        config: ModelConfig,
        *,
        unconverted: VersionFiles | None = None,
    ) -> Proof:
        """Load a version in a process of its own, warm it up, and run its golden texts.

        Cancelling this ends that process.

        Args:
            name, files, config: of the version.
            unconverted: what the graph of `files` was converted from, if it was.
        Raises:
            ModelLoadFailed: with the reason for the index.
        """
        level, token = logging.getLogger().getEffectiveLevel(), secrets.token_hex(8)
        request = Request(
            name,
            _sendable(files),
            config,
            self._memory_bytes,
            level,
            self._log_form,
            self._cache,
            token,
            unconverted=None if unconverted is None else _sendable(unconverted),
        )
        self._proofs += 1
        try:
            return await self._prove_cached(request)
        finally:
            self._proofs -= 1
            if self._proofs == 0 and not self._closed:
                self._watch_idle()

    async def _prove_cached(self, request: Request) -> Proof:
        """Prove; no failure of a cached graph, be it a crash, keeps a version from being served."""
        answer = _Answer()
        try:
            return await self._prove(request, answer)
        except ModelLoadFailed as error:
            graph = answer.told().get("graph")
            if self._cache is None or not isinstance(graph, str) or self._closed:
                raise
            reason = str(error)
        # If this fails, too, the cache was not to blame.
        proof = await self._prove(replace(request, use_cached=False), _Answer())
        message = "model %s: its cached graph %s failed, the model itself did not: %s"
        log.warning(message, request.name, graph, reason)
        if proof.graph != Path(graph):
            self._cache.discard(Path(graph))
        return proof

    async def _prove(self, request: Request, answer: _Answer) -> Proof:
        for _ in range(2):
            server = self._running_server()
            try:
                return await self._prove_on(server, request, answer)
            except _ServerGoneError:
                if self._closed:
                    break
                log.warning("the process that proves models has died; it is started again")
                if self._server is server:
                    self._server = None
                await asyncio.to_thread(server.close)
        raise ModelLoadFailed(
            "was not proved: the server is stopping"
            if self._closed
            else "could not be proved: the process that proves models died twice meanwhile"
        )

    async def _prove_on(self, server: ForkServer, request: Request, answer: _Answer) -> Proof:
        began = time.monotonic()
        with (
            _socketpair() as (child, child_end),
            _socketpair() as (own_end, status_end),
            contextlib.closing(Reports(own_end)) as status,
        ):
            server.order(child_end, status_end)
            child_end.close()
            status_end.close()
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    await status.next()
            except TimeoutError:
                raise ModelLoadFailed(
                    f"could not be proved: no process was there after {START_TIMEOUT_S:g} s"
                ) from None
            answer.text, ended, in_time = b"", None, True
            try:
                async with asyncio.timeout(self._timeout_s):
                    await _exchange(child, pickle.dumps(request), answer)
                    ended = await status.next()
            except TimeoutError:
                in_time = False
                if not self._passed(answer):
                    raise ModelLoadFailed(
                        f"did not finish within {self._timeout_s:g} s in a process of its own: it "
                        f"hangs or is too slow{self._advice}"
                    ) from None
            finally:
                if ended is None:
                    ended = await _kill(status)
                if self._cache is not None and ended["exit"] != 0:
                    self._cache.discard(self._cache.temporary(request.token))
        code, peak = os.waitstatus_to_exitcode(ended["exit"]), ended["peak_bytes"]
        self._warn(request.name, answer, _fate(code) if in_time else "it took too long")
        f1 = self._judge(answer.told(), 0 if self._passed(answer) else code)
        graph = answer.told().get("graph")
        seconds = time.monotonic() - began
        return Proof(seconds, peak, f1, Path(graph) if isinstance(graph, str) else None)

    def _passed(self, answer: _Answer) -> bool:
        """Whether the version is proved, whatever happened to the cache afterwards."""
        return self._cache is not None and "f1" in answer.told()

    def _warn(self, name: str, answer: _Answer, fate: str) -> None:
        """Log what went wrong without being a failure."""
        if self._cache is None:
            return
        for line in answer.lines():
            if "warning" in line:
                log.warning("model %s: %s", name, line["warning"])
        told = answer.told()
        reason = told.get("not_cached", "" if "graph" in told or "f1" not in told else fate)
        if reason:
            message = "model %s: its optimised graph is not kept in %s: %s"
            log.warning(message, name, self._cache.folder, reason)

    def _judge(self, told: dict[str, object], code: int) -> float | None:
        """The F1 that a child told. Raises ModelLoadFailed for anything but success."""
        limited = self._memory_bytes is not None
        if code < 0:
            name = _signal(code)
            hint = (
                f"; its memory was limited to {self._memory_bytes} bytes (proof_memory_bytes)"
                if limited
                else ""
            )
            if name in _CRASHES:
                raise ModelLoadFailed(
                    f"the model crashed the runtime ({name}) while it was loaded in a process of "
                    f"its own{hint}"
                )
            cause = ", most likely for lack of memory" if name == "SIGKILL" else ""
            raise ModelLoadFailed(
                f"the process that the model was loaded in was killed ({name}){cause}{hint}"
            )
        match told if code == 0 else None:
            case {"failed": str(reason), "memory": True} if limited:
                raise ModelLoadFailed(
                    f"needs more than {self._memory_bytes} bytes of memory (proof_memory_bytes): "
                    f"{reason}"
                )
            case {"failed": str(reason)}:
                raise ModelLoadFailed(reason)
            case {"f1": float() | None as f1}:
                return f1
        raise ModelLoadFailed(
            f"the process that the model was loaded in ended with exit code {code} and no answer"
        )

    async def aclose(self) -> None:
        """End the fork server; proofs in progress fail."""
        self._closed = True
        if self._idle is not None:
            self._idle.cancel()
        server, self._server = self._server, None
        if server is not None:
            await asyncio.to_thread(server.close)
        await asyncio.gather(*self._closing)


def _sendable(files: VersionFiles) -> VersionFiles:
    """The same without mappings that are read-only views, which cannot be sent."""
    side, external, digests = dict(files.side), dict(files.external), dict(files.digests)
    return replace(files, side=side, external=external, digests=digests)


def _signal(code: int) -> str:
    """The name of what ended a process, by its exit code."""
    return signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"


def _fate(code: int) -> str:
    """Why a child that had proved its version got no further; empty if it did."""
    if code == 0:
        return ""
    return f"the process that made it ended ({_signal(code) if code < 0 else code})"


@contextlib.contextmanager
def _socketpair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets; the first, which stays here, does not block."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


async def _exchange(child: socket.socket, request: bytes, answer: _Answer) -> None:
    """Send the request, and read until the child closes its end or has said too much."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):  # it has died; how, the fork server tells
        await loop.sock_sendall(child, request)
        child.shutdown(socket.SHUT_WR)
        while len(answer.text) <= MAX_ANSWER_BYTES and (part := await loop.sock_recv(child, 65536)):
            answer.text += part


class Reports:
    """What the fork server says of one child: that there is one, then how it ended; a line each.

    Whoever waits for a line may be cancelled: the next one who asks gets it whole. `close` it.
    """

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self._reading: asyncio.Task[bytes] | None = None

    async def next(self) -> dict[str, int]:
        """The next line.

        Raises:
            _ServerGoneError: it will come no more.
            ModelLoadFailed: it could not fork.
        """
        if self._reading is None:
            self._reading = asyncio.create_task(self._line())
        # A cancelled sock_recv may have taken a byte that nobody gets.
        line = await asyncio.shield(self._reading)
        self._reading = None
        told: dict[str, int] = orjson.loads(line)
        if "error" in told:
            raise ModelLoadFailed(f"could not be proved: no process for it: {told['error']}")
        return told

    async def _line(self) -> bytes:
        loop = asyncio.get_running_loop()
        line = b""
        while not line.endswith(b"\n"):
            try:
                part = await loop.sock_recv(self.end, 1)  # no further than this line
            except ConnectionError as error:
                raise _ServerGoneError from error
            if not part:
                raise _ServerGoneError
            line += part
        return line

    def close(self) -> None:
        """Nobody waits for more."""
        if self._reading is not None and not self._reading.cancel():
            self._reading.exception()  # seen, should nobody have waited for it


async def _kill(status: Reports) -> dict[str, int]:
    """Have the fork server kill the child, and wait until it is gone; how it ended, if that is told."""
    with contextlib.suppress(OSError, TimeoutError, _ServerGoneError):
        status.end.shutdown(socket.SHUT_WR)  # what it kills on
        async with asyncio.timeout(END_TIMEOUT_S):
            return await status.next()
    return {"exit": signal.SIGKILL, "peak_bytes": 0}
