"""What those who trace requests are told of the run that they shared."""

from __future__ import annotations

from collections.abc import Sequence

from nerve.engine.batcher import Waiter
from nerve.types import TracedRun


def traced_run(
    batch: Sequence[Waiter], *, began: float, took_s: float, padded_tokens: int, device: str
) -> TracedRun | None:
    """The run of a batch, None if no request in it is traced. Pure.

    Args:
        batch: its rows, which led it first.
        began, took_s: of the run with its padding, monotonic seconds.
        padded_tokens: of all rows.
        device: cpu or gpu.
    """
    traces = [waiter.trace for waiter in batch if waiter.trace is not None]
    if not traces:
        return None
    return TracedRun(
        began,
        took_s,
        rows=len(batch),
        tokens=sum(waiter.length for waiter in batch),
        padded_tokens=padded_tokens,
        device=device,
        traces=tuple(dict.fromkeys(traces)),
    )
