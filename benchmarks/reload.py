"""Swaps of a model under load: by cp, by rename, by symlink flip, every tenth one broken.

    python benchmarks/reload.py [--swaps 200] [--callers 16]

Needs the `onnx` package (in the extra `test`). Starts the daemon on a temporary repository.
Callers ask all the time and compare every answer with what ONNX Runtime says of the variants of
the model that were in place. Every seventh change is overtaken by the next while it is waited
for, proved or loaded. Prints the latency during the swaps beside the latency before them, and
the daemon's memory after the tenth swap beside that after the last. Exit code 1 if a request
failed, an answer was wrong, a swap was never served, a broken model was not refused with a
reason, or memory grew by more than a tenth.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import uvloop
from aiohttp import ClientError, ClientSession, TCPConnector
from load_of_requests import Callers, Generation, Tally, Target
from measured_daemon import MeasuredDaemon, Memory, measured_daemon
from placing import Copying, Flipping, Placing, Renaming
from reload_report import Phase, report
from variants import BREAKAGES, Variant, make_broken, make_variants

METHODS: Final = ("cp", "rename", "flip")
VARIANTS: Final = 8
BROKEN_EVERY: Final = 10
OVERTAKEN_EVERY: Final = 7
FIRST_WEIGHED: Final = 10
"""Memory is compared from this swap on: by then the allocator's pools have their size."""
WARM_S: Final = 3.0
SWAP_S: Final = 60.0
LINGER_S: Final = 0.3
"""How long the old answers are watched after a broken model was refused."""
OVERTAKEN_S: Final = 0.6
"""Longest time after the settle time at which the next change overtakes: it hits each step."""
MAX_STUCK: Final = 5


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for."""

    swaps: int
    callers: int
    models: int
    settle_seconds: float
    think_ms: float
    before_seconds: float
    methods: Sequence[str]
    verbose: bool


@dataclass(slots=True)
class Bench:
    """Everything that a run shares."""

    asked: Options
    daemon: MeasuredDaemon
    http: ClientSession
    callers: Callers
    good: Iterator[Variant]
    broken: Iterator[tuple[str, Path]]
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    number: int = 0
    stuck: int = 0
    weighed: dict[int, Memory] = field(default_factory=dict)


async def run(asked: Options, folder: Path) -> bool:
    """Run all phases in a temporary folder; whether every claim held."""
    variants = make_variants(folder / "variants", VARIANTS + 1)
    broken = make_broken(folder / "variants", variants[-1])
    repository = folder / "repository"
    repository.mkdir()
    good = itertools.cycle(variants[:-1])
    phases = {
        method: [_target(method, number, repository, asked) for number in range(asked.models)]
        for method in asked.methods
    }
    for target in itertools.chain(*phases.values()):
        variant = next(good)
        target.begin(variant, target.placing.next_version)
        target.placing.place(variant.folder)
    flags = ["--model-control-mode", "watch", "--settle-seconds", str(asked.settle_seconds)]
    log = folder / "daemon.log"
    connector = TCPConnector(limit=0, keepalive_timeout=60)
    async with (
        measured_daemon(repository, *flags, log=log) as daemon,
        ClientSession(connector=connector) as http,
    ):
        print(f"daemon ready in {daemon.ready_s:.2f} s; {daemon.memory()}")
        think_s = asked.think_ms / 1e3
        callers = Callers(http, daemon.url, variants, think_s=think_s)
        bench = Bench(asked, daemon, http, callers, good, itertools.cycle(broken.items()))
        tasks = [asyncio.create_task(callers.call(number)) for number in range(asked.callers)]
        try:
            callers.targets = list(itertools.chain(*phases.values()))
            await asyncio.sleep(WARM_S)  # each model has its working memory before any is weighed
            done = []
            for at, (method, targets) in enumerate(phases.items()):
                swaps = asked.swaps * (at + 1) // len(phases) - asked.swaps * at // len(phases)
                done.append(await _phase(bench, method, targets, swaps))
            finished = [task for task in tasks if task.done()]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in finished:
            task.result()  # a fault of this program
        held = report(done, bench.weighed)
        for target in itertools.chain(*phases.values()):
            if isinstance(target.placing, Copying):
                gap = target.placing.longest_gap_s
                print(f"longest pause within a copy: {gap:.3f} s")
                if gap > asked.settle_seconds:
                    print("  longer than the settle time: a half copy may have looked whole")
        if not held:
            print(f"last lines of the daemon's log:\n{daemon.last_lines()}")
    return held


def _target(method: str, number: int, repository: Path, asked: Options) -> Target:
    name = f"{method}-{number}"
    placings: dict[str, Callable[[], Placing]] = {
        "cp": lambda: Copying(repository, name, pause_s=asked.settle_seconds / 10),
        "rename": lambda: Renaming(repository, name),
        "flip": lambda: Flipping(repository, name),
    }
    return Target(name, placings[method]())


async def _phase(bench: Bench, method: str, targets: Sequence[Target], swaps: int) -> Phase:
    """One method: load alone, then load and swaps."""
    phase, callers = Phase(method), bench.callers
    callers.targets = targets
    await asyncio.sleep(1.0)
    callers.tally, earlier = phase.before, callers.tally  # whose times do not count
    await asyncio.sleep(bench.asked.before_seconds)
    callers.tally = phase.during
    for number in range(swaps):
        bench.number += 1
        target = targets[number % len(targets)]
        if bench.number % BROKEN_EVERY == 0:
            await _swap_broken(bench, phase, target)
        else:
            await _swap(bench, phase, target)
        if bench.daemon.process.returncode is not None:
            phase.problems.append(f"the daemon died with {bench.daemon.process.returncode}")
        if bench.number in (FIRST_WEIGHED, bench.asked.swaps):
            bench.weighed[bench.number] = await _weigh(bench)
        if bench.number % 20 == 0:
            _progress(bench, phase)
        if bench.stuck >= MAX_STUCK or bench.daemon.process.returncode is not None:
            phase.problems.append(f"gave up at swap {bench.number}")
            break
    callers.tally = Tally()
    phase.before.failed += earlier.failed
    phase.before.wrong += earlier.wrong
    return phase


async def _place(bench: Bench, target: Target) -> Generation:
    variant = next(bench.good)
    if variant is _newest_good(target).variant:  # with several models their turns may coincide
        variant = next(bench.good)
    generation = target.begin(variant, target.placing.next_version)
    await asyncio.to_thread(target.placing.place, variant.folder)
    return generation


async def _swap(bench: Bench, phase: Phase, target: Target) -> None:
    if bench.number % OVERTAKEN_EVERY == 0:
        await _place(bench, target)
        await asyncio.sleep(bench.chance.uniform(0.0, bench.asked.settle_seconds + OVERTAKEN_S))
        phase.overtaken += 1
    generation = await _place(bench, target)
    placed = time.perf_counter()
    phase.swaps += 1
    try:
        await asyncio.wait_for(generation.served.wait(), SWAP_S)
    except TimeoutError:
        bench.stuck += 1
        reasons = sorted(await _reasons(bench, target))
        phase.problems.append(f"swap {bench.number} of {target.name} was never served: {reasons}")
        return
    bench.stuck = 0
    phase.served_s.append(max(0.0, generation.first_answer - placed))
    await asyncio.to_thread(target.placing.tidy)


def _newest_good(target: Target) -> Generation:
    """The newest generation that may answer."""
    return next(each for each in reversed(target.generations) if each.variant is not None)


async def _swap_broken(bench: Bench, phase: Phase, target: Target) -> None:
    name, files = next(bench.broken)
    stale = await _reasons(bench, target)
    if stale:
        phase.problems.append(f"before swap {bench.number} {target.name} still says {stale}")
    target.begin(None, target.placing.next_version)
    await asyncio.to_thread(target.placing.place, files)
    placed = time.perf_counter()
    phase.swaps += 1
    phase.broken += 1
    while time.perf_counter() - placed < SWAP_S:
        reasons = await _reasons(bench, target) - stale
        if reasons:
            phase.refused += 1
            phase.refused_s.append(time.perf_counter() - placed)
            if bench.asked.verbose:
                print(f"    {target.name}: {name}: {sorted(reasons)}")
            await asyncio.sleep(LINGER_S)
            if not await _reasons(bench, target) - stale:
                phase.problems.append(f"swap {bench.number}: {name}: told {reasons}, then nothing")
            return
        await asyncio.sleep(0.02)
    phase.problems.append(f"swap {bench.number} of {target.name}: {name}: no reason is told")


async def _reasons(bench: Bench, target: Target) -> set[str]:
    """What GET /v1/models/{name} says is wrong with a model."""
    try:
        async with bench.http.get(f"{bench.daemon.url}/v1/models/{target.name}") as response:
            status = await response.json()
    except (ClientError, OSError) as error:
        return {f"{type(error).__name__}: {error}"}
    if response.status != 200:
        return {str(status)}
    told = {status["reason"], *(version["reason"] for version in status["versions"])}
    return told - {"", "unloaded"}


async def _weigh(bench: Bench) -> Memory:
    """Memory once the model that was replaced is gone, the load still on."""
    seen = []
    for _ in range(10):
        await asyncio.sleep(0.2)
        seen.append(await asyncio.to_thread(bench.daemon.memory))
    return sorted(seen, key=lambda each: each.rss_bytes)[len(seen) // 2]


def _progress(bench: Bench, phase: Phase) -> None:
    during = phase.during
    print(
        f"  swap {bench.number:4} ({phase.method}): {len(during.seconds)} requests, "
        f"{len(during.failed)} failed, {len(during.wrong)} wrong, "
        f"{len(phase.problems)} problems; {bench.daemon.memory()}",
        flush=True,
    )


def main() -> None:
    """Parse, run, exit with 1 if a claim failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--swaps", type=int, default=200)
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--models", type=int, default=1, help="models a method, swapped in turn")
    parser.add_argument("--settle-seconds", type=float, default=0.2)
    parser.add_argument("--think-ms", type=float, default=20.0, help="mean pause of a caller")
    parser.add_argument("--before-seconds", type=float, default=8.0)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--verbose", action="store_true", help="print the reasons that are told")
    asked = Options(**vars(parser.parse_args()))
    print(
        f"{asked.swaps} swaps, every {BROKEN_EVERY}th broken ({', '.join(BREAKAGES)}), "
        f"{asked.callers} callers pausing {asked.think_ms:g} ms, settle {asked.settle_seconds:g} s"
    )
    began = time.perf_counter()
    with (
        tempfile.TemporaryDirectory(prefix="nerve-reload-") as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        try:
            held = runner.run(run(asked, Path(folder)))
        except RuntimeError as error:  # of the daemon; its words are enough
            print(error)
            held = False
    print(f"{'every claim held' if held else 'FAILED'}, in {time.perf_counter() - began:.0f} s")
    sys.exit(not held)


if __name__ == "__main__":
    main()
