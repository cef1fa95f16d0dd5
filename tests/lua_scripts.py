"""Scripts run in a sandbox, for the tests of transforms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from nerve.pipeline.tensor_calls import Tensor
from nerve.pipeline.transform import Sandbox
from nerve.types import FloatArray, Limits

SMALL = Limits(max_instructions=2_000_000, timeout_us=20_000_000, max_memory_bytes=16_000_000)
"""The clock is far away: these tests are about the others, on a busy machine too."""
LIBRARIES = ("coroutine", "math", "string", "table", "utf8")


def sandbox(
    script: str,
    *,
    libs: Sequence[str] | None = LIBRARIES,
    limits: Limits = SMALL,
    log: Callable[[str], None] = lambda _: None,
) -> Sandbox:
    """With every library, unless told otherwise."""
    return Sandbox(script, libs=libs, limits=limits, log=log)


def printed(script: str, *, libs: Sequence[str] | None = LIBRARIES) -> list[str]:
    """What a script prints while it is run once."""
    lines: list[str] = []
    sandbox(script, libs=libs, log=lines.append)
    return lines


def scores(*shape: int) -> FloatArray:
    """Random scores, always the same ones."""
    return np.random.default_rng(7).normal(size=shape).astype(np.float32)


@cache
def _box(expression: str) -> Sandbox:
    return sandbox(f"function Postprocess(t) return {expression} end")


def evaluate(expression: str, data: FloatArray) -> FloatArray:
    """What an expression of Lua makes of a Tensor `t` of any shape; a table becomes an array.

    Raises:
        ScriptFailed: it raised an error.
    """
    with np.errstate(all="ignore"):
        status, value = _box(expression)._attempt(data)
    assert status == "result"
    assert isinstance(value, Tensor)
    assert value.data.dtype == np.float32
    return value.data


def literal(value: object) -> str:
    """Nested lists of numbers as a table of Lua."""
    if isinstance(value, list):
        return "{" + ", ".join(map(literal, value)) + "}"
    return repr(value)
