"""Runs a user's Lua script on a model's scores, within limits; the only home of lupa.

What a script sees is made by the trusted Lua code in `lua/`; nothing of Python can be reached from
it. A long loop inside Lua's C code cannot be stopped from here, so this belongs in a process of its
own, which can be killed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Final, cast

import numpy as np
from lupa.lua54 import LuaError, LuaMemoryError, LuaRuntime

from nerve.pipeline.tensor_calls import Answer, Call, Calls, Meter, Tensor
from nerve.pipeline.transformed import WrongResult, checked, one_line
from nerve.types import FloatArray, Limits
from nerve.words import LUA_LIBS, UNSAFE_LUA_LIBS

__all__ = ["LimitExceeded", "Sandbox", "ScriptFailed", "WrongResult", "chosen_libraries"]

PARTS: Final = ("meter", "base", "libraries", "tensor", "run")
"""Files of trusted code after `boot`, each building on those before."""
MAX_SCRIPT_BYTES: Final = 1024 * 1024
LEAST_BYTES: Final = 256 * 1024
"""What the virtual machine may always hold: with less, lupa could not even call it."""
UNTIDY_BYTES: Final = 4 * 1024 * 1024
"""With so much left over after a run, it is cleared up before the next."""


class ScriptFailed(Exception):
    """The script raised an error, or cannot be one; `text` is Lua's, as a rule."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class LimitExceeded(Exception):
    """A run reached `limit`, named as in the config, which is set to `value`."""

    def __init__(self, limit: str, value: int) -> None:
        super().__init__(limit, value)
        self.limit, self.value = limit, value


def chosen_libraries(names: Sequence[str] | None) -> tuple[str, ...]:
    """The libraries to load; None stands for the default ones.

    Raises:
        ScriptFailed: there is no such library, or not for transforms.
    """
    for name in names or ():
        if name in UNSAFE_LUA_LIBS:
            raise ScriptFailed(
                f"Lua library {name!r} is not available to transforms, which can reach nothing "
                f"outside of Lua; there are {', '.join(LUA_LIBS)}"
            )
        if name not in LUA_LIBS:
            raise ScriptFailed(f"Unknown Lua stdlib: {name}")
    return LUA_LIBS[:3] if names is None else tuple(dict.fromkeys(names))


def _trusted(part: str) -> bytes:
    return (Path(__file__).with_name("lua") / f"{part}.lua").read_bytes()


class _Machine:
    """One Lua virtual machine with the script in it, fit for any number of runs without an error.

    It holds on to itself by what it calls in Python: `close` it.
    """

    def __init__(
        self, script: bytes, *, libs: Sequence[str], limits: Limits, log: Callable[[str], None]
    ) -> None:
        runtime = LuaRuntime(
            encoding=None,
            source_encoding="UTF-8",
            register_eval=False,
            register_builtins=False,
            unpack_returned_tuples=True,
            max_memory=limits.max_memory_bytes + MAX_SCRIPT_BYTES,
        )
        base_bytes = 0

        def machine_bytes() -> int:
            return int(runtime.get_memory_used()) - base_bytes

        def allow(size: int) -> None:
            runtime.set_max_memory(base_bytes + max(size, LEAST_BYTES))

        def write(line: bytes) -> Answer:
            log(one_line(line.decode("utf-8", "replace")))
            return True, None

        self._limits, self._machine_bytes = limits, machine_bytes
        self.meter = Meter(limits.max_memory_bytes, machine_bytes, allow)
        calls: dict[str, Call] = Calls(self.meter).all()
        named = [
            each
            for name, call in (calls | {"print": write, "clock": monotonic}).items()
            for each in (name.encode(), call)
        ]
        host = runtime.execute(_trusted("boot"), *named, name=b"=[nerve]")
        given = {
            "tensor": (Tensor(np.zeros(0, np.float32), self.meter),),
            "run": (script, " ".join(libs).encode()),
        }
        for part in PARTS:
            made = runtime.execute(_trusted(part), host, *given.get(part, ()), name=b"=[nerve]")
        self._run, self._tidy, self._over = made
        base_bytes = int(runtime.get_memory_used())
        allow(limits.max_memory_bytes)

    def run(self, scores: FloatArray | None) -> tuple[str, object]:
        """What `run` in run.lua says: what became of it, and a value."""
        deadline = monotonic() + self._limits.timeout_us / 1e6
        self.meter.deadline = deadline
        argument = None if scores is None else Tensor(scores, self.meter)
        try:
            answer = self._run(argument, self._limits.max_instructions, deadline)
        except LuaMemoryError:
            return "limit", b"max_memory_bytes"
        except LuaError as error:
            # A limit that was reached between the script's last instruction and the end.
            over = self._over()
            return ("limit", over) if over else ("failed", str(error).encode())
        status, value = answer if isinstance(answer, tuple) else (answer, None)
        return cast("bytes", status).decode(), value

    def close(self) -> None:
        """Let go of the virtual machine, which goes at once then, with all that it holds."""
        self.meter.close()
        del self._machine_bytes, self._run, self._tidy, self._over

    def tidy(self) -> None:
        """Free what runs have left over, if it is much."""
        if self._machine_bytes() + self.meter.held_bytes > UNTIDY_BYTES:
            self._tidy()


class Sandbox:
    """A script, compiled and run once; each run starts from its first line, in an empty world.

    Args:
        script: Lua 5.4. Its global function `Postprocess`, if it has one, makes new scores.
        libs: names of the libraries that it sees besides the basic functions; None: the default.
        limits: of each run, this first one included.
        log: is given what the script prints, a line at a time.
    Raises:
        ScriptFailed, LimitExceeded: the script cannot be compiled or run.
    """

    def __init__(
        self,
        script: str,
        *,
        libs: Sequence[str] | None,
        limits: Limits,
        log: Callable[[str], None],
    ) -> None:
        self._script = script.encode("utf-8", "replace")
        if len(self._script) > MAX_SCRIPT_BYTES:
            raise ScriptFailed(
                f"the script has {len(self._script)} bytes; {MAX_SCRIPT_BYTES} at most"
            )
        self._libs, self._limits, self._log = chosen_libraries(libs), limits, log
        self._machine: _Machine | None = None
        with np.errstate(all="ignore"):
            status, _ = self._attempt(None)
        self._has_postprocess = status == "present"

    @property
    def has_postprocess(self) -> bool:
        """Whether the script has a function `Postprocess`; without one, scores stay as they are."""
        return self._has_postprocess

    def run(self, scores: FloatArray, *, lengths: Sequence[int] | None = None) -> FloatArray:
        """Run the script and its `Postprocess` on the scores of a request.

        Args:
            scores: (batch, tokens, labels) float32, padding included.
            lengths: real tokens of each row, if not all: beyond, the result is not looked at.
        Returns:
            Scores of the same shape, or (batch, tokens) float32 numbers of classes, from 1.
        Raises:
            ScriptFailed: the script raised an error.
            LimitExceeded: a run reached a limit.
            WrongResult: what came of it is neither.
        """
        scores = np.ascontiguousarray(scores, dtype=np.float32)
        with np.errstate(all="ignore"):  # NaN and infinities are values as others
            status, value = self._attempt(scores)
            if status == "absent":
                return scores
            if not isinstance(value, Tensor):
                raise WrongResult("Postprocess must return a Tensor or a nested table of numbers")
            return checked(value.data, scores.shape, lengths=lengths)

    def _attempt(self, scores: FloatArray | None) -> tuple[str, object]:
        """Run, in a new machine if the last run failed: what it left behind may be half-made."""
        machine, self._machine = self._machine, None
        if machine is None:
            machine = _Machine(self._script, libs=self._libs, limits=self._limits, log=self._log)
        try:
            status, value = machine.run(scores)
            if status in {"absent", "present", "result"}:
                machine.tidy()
                self._machine = machine
                return status, value
        finally:
            if self._machine is None:
                machine.close()
        text = one_line(cast("bytes", value).decode("utf-8", "replace"))
        if status == "limit":
            setting = {
                "max_instructions": self._limits.max_instructions,
                "timeout_microseconds": self._limits.timeout_us,
            }
            raise LimitExceeded(text, setting.get(text, self._limits.max_memory_bytes))
        raise WrongResult(text) if status == "wrong" else ScriptFailed(text)
