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
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import orjson

from nerve.config.model import ModelConfig
from nerve.errors import ModelLoadFailed
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
    getattr(signal, name, None)
    for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGSYS", "SIGTRAP")
)


@dataclass(frozen=True, slots=True)
class Proof:
    """A version that loads, runs and passes its gate; `f1` is None where there is no gate.

    `peak_memory_bytes` is the most that the whole process held, runtime and libraries included.
    """

    seconds: float
    peak_memory_bytes: int
    f1: float | None


class _ServerGoneError(Exception):
    """The fork server died; nothing is known of the proof."""


class _ForkServer:
    """The process, and the socket that proofs are ordered on."""

    def __init__(self) -> None:
        self.control, theirs = socket.socketpair()
        self.control.setblocking(False)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  our own interpreter
                # -P: what lies in the working folder is not imported
                [sys.executable, "-P", "-m", "nerve.proof_server", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # the daemon's is for its own lines
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C at a terminal is for the daemon alone
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path),
                    "OPENBLAS_NUM_THREADS": "1",  # threads do not go with forking
                },
            )

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
        self, *, timeout_s: float, memory_bytes: int | None, idle_s: float = IDLE_S
    ) -> None:
        """Nothing is started.

        Args:
            timeout_s: longest time of one proof.
            memory_bytes: what a model on the CPU may take on top of the bare process.
            idle_s: after so long without a proof the fork server is ended.
        """
        self._timeout_s, self._memory_bytes, self._idle_s = timeout_s, memory_bytes, idle_s
        self._server: _ForkServer | None = None
        self._proofs = 0  # in progress
        self._idle: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    @staticmethod
    def possible() -> bool:
        """Whether this system can fork (Windows cannot)."""
        return hasattr(os, "fork") and hasattr(socket, "send_fds")

    def start(self) -> None:
        """Start the fork server now, so that the first proof need not wait for it."""
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

    def _running_server(self) -> _ForkServer:
        if self._closed:
            raise ModelLoadFailed("was not proved: the server is stopping")
        if self._server is None or not self._server.alive:
            if self._server is not None:
                self._server.close()  # only frees what is left of it
            self._server = _ForkServer()
        return self._server

    async def prove(self, name: str, files: VersionFiles, config: ModelConfig) -> Proof:
        """Load a version in a process of its own, warm it up, and run its golden texts.

        Cancelling this ends that process.

        Raises:
            ModelLoadFailed: with the reason for the index.
        """
        # Mappings may be read-only views, which cannot be sent.
        files = replace(files, side=dict(files.side), external=dict(files.external))
        level = logging.getLogger().getEffectiveLevel()
        request = pickle.dumps((name, files, config, self._memory_bytes, level))
        self._proofs += 1
        try:
            return await self._prove(request)
        finally:
            self._proofs -= 1
            if self._proofs == 0 and not self._closed:
                self._watch_idle()

    async def _prove(self, request: bytes) -> Proof:
        for _ in range(2):
            server = self._running_server()
            try:
                return await self._prove_on(server, request)
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

    async def _prove_on(self, server: _ForkServer, request: bytes) -> Proof:
        began = time.monotonic()
        with _socketpair() as (child, child_end), _socketpair() as (status, status_end):
            server.order(child_end, status_end)
            child_end.close()
            status_end.close()
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    await _report(status)
            except TimeoutError:
                raise ModelLoadFailed(
                    f"could not be proved: no process was there after {START_TIMEOUT_S:g} s"
                ) from None
            ended = None
            try:
                async with asyncio.timeout(self._timeout_s):
                    answer = await _exchange(child, request)
                    ended = await _report(status)
            except TimeoutError:
                raise ModelLoadFailed(
                    f"did not finish within {self._timeout_s:g} s in a process of its own: it hangs "
                    "or is too slow; raise load_timeout_s"
                ) from None
            finally:
                if ended is None:
                    await _kill(status)
        code, peak = os.waitstatus_to_exitcode(ended["exit"]), ended["peak_bytes"]
        told = self._judge(answer, code)
        return Proof(time.monotonic() - began, peak, told)

    def _judge(self, answer: bytes, code: int) -> float | None:
        """The F1 that a child told. Raises ModelLoadFailed for anything but success."""
        limited = self._memory_bytes is not None
        if code < 0:
            fate = signal.Signals(-code) if -code in set(signal.Signals) else None
            name = fate.name if fate else f"signal {-code}"
            hint = (
                f"; its memory was limited to {self._memory_bytes} bytes (proof_memory_bytes)"
                if limited
                else ""
            )
            if fate in _CRASHES:
                raise ModelLoadFailed(
                    f"the model crashed the runtime ({name}) while it was loaded in a process of "
                    f"its own{hint}"
                )
            cause = ", most likely for lack of memory" if name == "SIGKILL" else ""
            raise ModelLoadFailed(
                f"the process that the model was loaded in was killed ({name}){cause}{hint}"
            )
        try:
            told = orjson.loads(answer) if code == 0 else None
        except orjson.JSONDecodeError:
            told = None
        match told:
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


@contextlib.contextmanager
def _socketpair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets; the first, which stays here, does not block."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


async def _exchange(child: socket.socket, request: bytes) -> bytes:
    """Send the request, and read until the child closes its end or has said too much."""
    loop = asyncio.get_running_loop()
    answer = b""
    with contextlib.suppress(ConnectionError):  # it has died; how, the fork server tells
        await loop.sock_sendall(child, request)
        child.shutdown(socket.SHUT_WR)
        while len(answer) <= MAX_ANSWER_BYTES and (part := await loop.sock_recv(child, 65536)):
            answer += part
    return answer


async def _report(status: socket.socket) -> dict[str, int]:
    """The next line of the fork server: that there is a child, then how it ended.

    Raises:
        _ServerGoneError: it will come no more.
        ModelLoadFailed: it could not fork.
    """
    loop = asyncio.get_running_loop()
    line = b""
    while not line.endswith(b"\n"):
        try:
            part = await loop.sock_recv(status, 1)  # no further than this line
        except ConnectionError as error:
            raise _ServerGoneError from error
        if not part:
            raise _ServerGoneError
        line += part
    told: dict[str, int] = orjson.loads(line)
    if "error" in told:
        raise ModelLoadFailed(f"could not be proved: no process for it: {told['error']}")
    return told


async def _kill(status: socket.socket) -> None:
    """Have the fork server kill the child, and wait until it is gone."""
    with contextlib.suppress(OSError, TimeoutError, _ServerGoneError):
        status.shutdown(socket.SHUT_WR)  # what it kills on
        async with asyncio.timeout(END_TIMEOUT_S):
            await _report(status)
