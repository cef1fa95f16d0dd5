"""What becomes of the server when far more is asked of it than it can do.

    python benchmarks/overload.py

Its capacity is measured with callers that wait for their answers, before and after each load; then
requests come at 1, 2, 5 and 10 times that rate, whatever is answered, and last at half of it, to see
it recover. Goodput is what was answered well in a second of a load's second half, by when queues are
full; its peak is the mean of the two capacities beside it, as a machine is not always as fast.
/health is asked 20 times a second all the time. The callers' process has a core of its own, the
server the others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from machine import ROOT, facts, slug
from measured_daemon import measured_daemon
from sample import load_texts, write_bodies

LEVELS: Final = (1.0, 2.0, 5.0, 10.0)
AFTERWARDS: Final = 0.5
CALLERS: Final = 64
RESULTS: Final = ROOT / "benchmarks" / "results"
KEPT: Final = 0.9
REFUSED_S: Final = 0.05
HEALTH_S: Final = 0.1
OK: Final = "200"


@dataclass(frozen=True, slots=True)
class Level:
    """What came of one rate. Times in seconds; None where there was no such answer."""

    times: float
    offered: float
    accepted: int
    refused: int
    broken: int
    goodput: float
    peak: float
    per_cpu_s: float
    """Answered well per second of the server's processor time, refusals and all."""
    accepted_p50_s: float | None
    accepted_p99_s: float | None
    refused_p50_s: float | None
    refused_p99_s: float | None
    health_p50_s: float
    health_max_s: float
    late_s: float


def percentile(values: Sequence[float], percent: int) -> float | None:
    """Of any order."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


async def load(job: dict[str, object], *, core: int) -> dict[str, object]:
    """Run the callers; what they tell."""
    process = await asyncio.create_subprocess_exec(
        "taskset", "-c", str(core), sys.executable, str(Path(__file__).with_name("overload_load.py")),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate(json.dumps(job).encode())
    if process.returncode:
        raise RuntimeError(f"the callers ended with {process.returncode}")
    told: dict[str, object] = json.loads(out)
    return told


def level(
    times: float, offered: float, told: dict[str, object], seconds: float, cpu_s: float
) -> Level:
    """Figures of one rate, the peak left out; `cpu_s` is what it took of the processor."""
    by_status: dict[str, list[float]] = told["seconds"]  # type: ignore[assignment]
    ended: list[float] = told["ended"]  # type: ignore[assignment]
    health: list[float] = told["health"]  # type: ignore[assignment]
    accepted = by_status.get(OK, [])
    refused = [
        each for status, many in by_status.items() if status in ("429", "503") for each in many
    ]
    other = sum(len(many) for status, many in by_status.items() if status not in (OK, "429", "503"))
    half = seconds / 2
    return Level(
        times, offered, len(accepted), len(refused), int(told["broken"]) + other,  # type: ignore[call-overload]
        sum(half <= each < seconds for each in ended) / half, 0.0, len(accepted) / cpu_s,
        percentile(accepted, 50), percentile(accepted, 99),
        percentile(refused, 50), percentile(refused, 99),
        statistics.median(health), max(health), float(told["late_s"]),  # type: ignore[arg-type]
    )  # fmt: skip


async def measure(seconds: float, flags: Sequence[str]) -> list[Level]:
    """Every rate in turn, on one server."""
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        bodies, log = Path(folder) / "bodies", Path(folder) / "log"
        write_bodies(load_texts(), bodies)
        if len(cores) > 1:
            os.sched_setaffinity(0, cores[:-1])  # the server inherits it
        async with measured_daemon(ROOT / "model_repository", *flags, log=log) as daemon:
            job = {
                "url": f"{daemon.url}/v1/models/minilm-ner/predict_tokens", "bodies": str(bodies),
                "rate": 0.0, "callers": CALLERS, "seconds": seconds,
            }  # fmt: skip
            await load(job | {"seconds": 5.0}, core=cores[-1])  # it learns what runs take

            async def one(times: float, capacity: float, seconds: float) -> Level:
                rate = {"rate": times * capacity, "callers": 0} if times else {}
                before = daemon.cpu_s()
                told = await load(job | rate | {"seconds": seconds}, core=cores[-1])
                cpu_s = daemon.cpu_s() - before
                print(f"{times:g} times of {capacity:.1f}/s", file=sys.stderr, flush=True)
                return level(times, times * capacity, told, seconds, cpu_s)

            found = [await one(0.0, 0.0, seconds / 2)]
            for times in (*LEVELS, AFTERWARDS):
                capacity = found[-1].goodput
                loaded = await one(times, capacity, seconds)
                after = await one(0.0, 0.0, seconds / 2)
                peak = (capacity + after.goodput) / 2
                found += [replace(loaded, peak=peak), after]
    return found


def table(found: Sequence[Level]) -> str:
    """Markdown."""
    rows = [
        "| load | offered/s | goodput/s | of peak | per CPU s | accepted p50, p99 s "
        "| refused p50, p99 ms | refused | broken | /health p50, worst ms |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for each in found:
        name = f"{each.times:g} x capacity" if each.times else f"{CALLERS} callers"
        rows.append(
            f"| {name} | {each.offered:.0f} | {each.goodput:.1f} "
            f"| {f'{each.goodput / each.peak:.2f}' if each.peak else '-'} | {each.per_cpu_s:.0f} "
            f"| {_shown(each.accepted_p50_s, 1)}, {_shown(each.accepted_p99_s, 1)} "
            f"| {_shown(each.refused_p50_s, 1e3)}, {_shown(each.refused_p99_s, 1e3)} "
            f"| {each.refused} | {each.broken} "
            f"| {each.health_p50_s * 1e3:.1f}, {each.health_max_s * 1e3:.1f} |"
        )
    return "\n".join(rows)


def _shown(value: float | None, scale: float) -> str:
    return "-" if value is None else f"{value * scale:.2f}"


def claims(found: Sequence[Level], *, timeout_s: float) -> list[tuple[str, float, bool]]:
    """What is promised, what was measured, and whether it holds."""
    over = [each for each in found if each.times >= 1]
    least = min(each.goodput / each.peak for each in over)
    p99 = max(each.accepted_p99_s or 0.0 for each in over)
    refused = max(each.refused_p50_s or 0.0 for each in over)
    health = max(each.health_max_s for each in over)
    after = next(each for each in found if each.times == AFTERWARDS)
    served = after.accepted / max(1, after.accepted + after.refused + after.broken)
    return [
        (f"goodput over its peak: at least {KEPT}", least, least >= KEPT),
        (f"accepted, p99: under {timeout_s:g} s", p99, p99 < timeout_s),
        (f"refused, p50: under {REFUSED_S} s", refused, refused < REFUSED_S),
        (f"/health, worst: under {HEALTH_S} s", health, health < HEALTH_S),
        ("afterwards, accepted: all", served, served == 1),
    ]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each rate")
    parser.add_argument(
        "--timeout", type=float, default=60.0, help="request_timeout_s of the server"
    )
    parser.add_argument("--write", action="store_true", help="keep the table in benchmarks/results")
    given, flags = parser.parse_known_args()
    known = facts()
    found = asyncio.run(measure(given.seconds, ["--request-timeout", str(given.timeout), *flags]))
    lines = [
        "# Overload", "", ", ".join(f"{name} {value}" for name, value in known.items()), "",
        f"{given.seconds:g} s of each rate; flags: {' '.join(flags) or 'none'}.", "", table(found), "",
        "| promise | measured | |", "| --- | ---: | --- |",
        *(
            f"| {promise} | {value:.3f} | {'holds' if holds else 'FALLS SHORT'} |"
            for promise, value, holds in claims(found, timeout_s=given.timeout)
        ),
    ]  # fmt: skip
    print("\n".join(lines))
    if given.write:
        name = f"{datetime.now(UTC):%Y-%m-%d}-{slug(known)}-overload"
        (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        record = {"machine": known, "levels": [asdict(each) for each in found]}
        (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
