"""What a run of reload.py came to: the tables, and whether every claim held."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from load_of_requests import Tally
from measured_daemon import Memory

GROWTH: Final = 1.10
SHOWN: Final = 5


@dataclass(slots=True)
class Phase:
    """What one way of placing models came to."""

    method: str
    before: Tally = field(default_factory=Tally)
    during: Tally = field(default_factory=Tally)
    swaps: int = 0
    overtaken: int = 0
    broken: int = 0
    refused: int = 0
    served_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def percentile(values: Sequence[float], percent: int) -> float:
    """By linear interpolation; NaN of nothing."""
    if len(values) < 2:
        return values[0] if values else float("nan")
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def report(phases: Sequence[Phase], weighed: Mapping[int, Memory]) -> bool:
    """Print the tables; whether every claim held.

    Args:
        phases: in the order of the run.
        weighed: memory by the number of the swap after which it was taken, of two swaps.
    """
    columns: list[tuple[str, Callable[[Phase], str]]] = [
        ("swaps", lambda phase: str(phase.swaps)),
        ("overtaken by the next", lambda phase: str(phase.overtaken)),
        ("broken, refused", lambda phase: f"{phase.broken}, {phase.refused}"),
        ("requests", lambda phase: str(len(phase.before.seconds) + len(phase.during.seconds))),
        ("failed requests", lambda phase: str(len(phase.before.failed + phase.during.failed))),
        ("wrong answers", lambda phase: str(len(phase.before.wrong + phase.during.wrong))),
        ("first new answer, median s", lambda phase: f"{percentile(phase.served_s, 50):.2f}"),
        ("first new answer, p95 s", lambda phase: f"{percentile(phase.served_s, 95):.2f}"),
        ("reason told, median s", lambda phase: f"{percentile(phase.refused_s, 50):.2f}"),
    ]
    for percent in (50, 99):
        columns += [
            (f"p{percent} before, ms", _latency("before", percent)),
            (f"p{percent} during, ms", _latency("during", percent)),
        ]
    print(f"\n{'':28}" + "".join(f"{phase.method:>12}" for phase in phases))
    for title, cell in columns:
        print(f"{title:28}" + "".join(f"{cell(phase):>12}" for phase in phases))
    print()
    bad = []
    for phase in phases:
        before, during = phase.before, phase.during
        for lines in (phase.problems, before.failed, before.wrong, during.failed, during.wrong):
            bad += lines[:SHOWN]
    for line in bad:
        print(f"  {line[:400]}")
    return _report_memory(weighed) and not bad


def _latency(tally: str, percent: int) -> Callable[[Phase], str]:
    def cell(phase: Phase) -> str:
        return f"{percentile(getattr(phase, tally).seconds, percent) * 1e3:.1f}"

    return cell


def _report_memory(weighed: Mapping[int, Memory]) -> bool:
    if len(weighed) < 2:
        print("memory was not compared: too few swaps")
        return False
    early, late = sorted(weighed)
    ratio = weighed[late].rss_bytes / weighed[early].rss_bytes
    print(f"after swap {early}: {weighed[early]}")
    print(f"after swap {late}: {weighed[late]}")
    verdict = "within" if ratio <= GROWTH else "OVER"
    print(f"RSS ratio {ratio:.3f} ({verdict} {GROWTH:g})")
    return ratio <= GROWTH
