"""Throughput of the server beside the best that the runtime can do with the same texts.

    python benchmarks/throughput.py [--quick] [--models bundled bert-base] [--rounds 2]

Needs wrk (apt-get install wrk) and the `onnx` package (in the extra `test`); gRPC beside HTTP is
measured where perf_analyzer can run (apt-get install libb64-0d). Everything is
measured in rounds, one thing after the other, so that what the machine does meanwhile hits all of
them; ratios are taken within a round, and the table shows medians over the rounds. About 15
minutes; --quick takes about 2, and shows that it works rather than how fast. Writes the table
and a JSON file with the machine's facts to benchmarks/results/. Nothing fails on a slow machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import uvloop
from aiohttp import ClientSession
from caller import call
from counters import window
from doors import CONCURRENCY, DOORS, Door, measure, write_input
from lone import Loop, token_rows
from machine import cores, facts, slug
from measured_daemon import MeasuredDaemon, measured_daemon
from oracle import Oracle, Rate
from perf_analyzer import PerfAnalyzer, find, why_not
from random_bert import BUNDLED, CACHE, bert_base
from sample import load_texts, write_bodies
from throughput_records import COMPARED_AT, TRANSFORM, Cell, Measured, Round
from throughput_report import report
from wrk import load, require_wrk

RESULTS: Final = Path(__file__).parent / "results"
SCHEDULERS: Final = ("cost", "fifo", "none")
CONFIGS: Final = {
    **{each: f"dynamic_batching:\n  scheduler: {each}\n" for each in SCHEDULERS},
    TRANSFORM: "transform: function Postprocess(arr) return arr:softmax(3) end\n",
}
"""What is served, by the model's name: the same export folder with each config."""
PAIRS: Final = 2
"""How often a round compares the transform with none."""
FLAGS: Final = ("--model-control-mode", "none", "--exit-on-error")
CONCURRENCIES: Final = (1, 8, 64, 256)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of each part. `ramp_s` passes under load before a measurement begins."""

    cell_s: float
    ramp_s: float
    oracle_s: float
    search_s: float
    lone_s: float


PACES: Final = {
    # bert-base is ten times slower: 256 texts alone take seconds.
    ("bundled", False): Pace(8, 2, 8, 1.5, 4),
    ("bundled", True): Pace(2, 1, 2, 0.4, 1),
    ("bert-base", False): Pace(12, 6, 12, 4, 5),
    ("bert-base", True): Pace(4, 3, 4, 1.5, 2),
}


class Bench:
    """One model: a daemon that serves it with each of `CONFIGS`, and the oracle beside it."""

    def __init__(
        self, model: str, folder: Path, scratch: Path, pace: Pace, tool: PerfAnalyzer | None
    ) -> None:
        self._model, self._pace, self._tool = model, pace, tool
        self._texts = load_texts()
        self._bodies = scratch / "bodies"
        write_bodies(self._texts, self._bodies)
        self._input = write_input(self._texts, scratch / "input.json")
        self._repository = make_repository(scratch / model, folder)
        self._log = scratch / "daemon.log"
        self._loop = Loop(folder)
        rows = token_rows(self._loop.tokenizer, self._texts)
        self._oracle = Oracle(folder / "model.onnx", rows, cores=cores())
        self.measured = Measured(model, len(rows), sum(map(len, rows)) / len(rows))

    async def run(self, rounds: int) -> Measured:
        """Search for the oracle, then measure in rounds."""
        self.measured.searched = await asyncio.to_thread(
            self._oracle.search, seconds=self._pace.search_s
        )
        served = measured_daemon(
            self._repository, *FLAGS, log=self._log, grpc=self._tool is not None
        )
        async with served as daemon, ClientSession() as http:
            for number in range(rounds):
                print(f"{self._model}: round {number + 1} of {rounds}", flush=True)
                self.measured.rounds.append(await self._round(daemon, http))
        return self.measured

    async def _round(self, daemon: MeasuredDaemon, http: ClientSession) -> Round:
        done = Round()
        done.oracle += await self._best()
        done.lone = await asyncio.to_thread(
            self._loop.measure, self._texts, seconds=self._pace.lone_s
        )
        done.caller = await asyncio.to_thread(
            call, self._url(daemon, SCHEDULERS[0]), self._bodies, seconds=self._pace.lone_s
        )
        for concurrency in CONCURRENCIES:
            for scheduler in SCHEDULERS if concurrency == COMPARED_AT else SCHEDULERS[:1]:
                done.cells.append(await self._cell(daemon, http, scheduler, concurrency))
        for number in range(PAIRS if self._model == "bundled" else 0):
            names = (SCHEDULERS[0], TRANSFORM)[:: -1 if number % 2 else 1]
            done.pairs.append(
                {name: await self._cell(daemon, http, name, COMPARED_AT) for name in names}
            )
        for protocol in DOORS if self._tool is not None else ():
            done.doors.append(await self._door(daemon, http, protocol))
        done.oracle += await self._best()
        return done

    async def _door(self, daemon: MeasuredDaemon, http: ClientSession, protocol: str) -> Door:
        assert self._tool is not None
        door = await measure(
            self._tool,
            daemon,
            http,
            model=SCHEDULERS[0],
            data=self._input,
            protocol=protocol,
            concurrency=CONCURRENCY,
            ramp_s=self._pace.ramp_s,
            seconds=self._pace.cell_s,
        )
        await _drained(daemon)
        return door

    async def _best(self) -> list[Rate]:
        return await asyncio.to_thread(self._oracle.measure, seconds=self._pace.oracle_s)

    async def _cell(
        self, daemon: MeasuredDaemon, http: ClientSession, scheduler: str, concurrency: int
    ) -> Cell:
        pace = self._pace
        url = self._url(daemon, scheduler)
        async with load(url, self._bodies, concurrency=concurrency) as sending:
            await asyncio.sleep(pace.ramp_s)
            seen = await window(http, daemon, scheduler, seconds=pace.cell_s)
            client = await sending.finish()
        await _drained(daemon)
        return Cell(scheduler, concurrency, seen, client)

    @staticmethod
    def _url(daemon: MeasuredDaemon, scheduler: str) -> str:
        return f"{daemon.url}/v1/models/{scheduler}/predict_tokens"


async def _drained(daemon: MeasuredDaemon) -> None:
    """What wrk left behind must not run into the next measurement."""
    before = daemon.cpu_s()
    while True:
        await asyncio.sleep(0.3)
        now = daemon.cpu_s()
        if now - before < 0.03:
            return
        before = now


def make_repository(root: Path, folder: Path) -> Path:
    """A repository with one export folder as a model for each config."""
    for name, config in CONFIGS.items():
        version = root / name / "1"
        version.mkdir(parents=True)
        for file in folder.iterdir():  # `root` is in the same file system: no copies
            (version / file.name).hardlink_to(file)
        (root / name / "config.yaml").write_text(config, encoding="utf-8")
    return root


def write_results(
    known: dict[str, str | int | float], quick: bool, measured: list[Measured]
) -> None:
    """Print the table, and write it and the JSON."""
    now = datetime.now(UTC)
    RESULTS.mkdir(exist_ok=True)
    name = f"{now:%Y-%m-%d}-{slug(known)}{'-quick' if quick else ''}"
    content = {
        "date": now.isoformat(timespec="seconds"),
        "quick": quick,
        "machine": known,
        "models": [asdict(each) for each in measured],
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    table = report(known, measured, when=f"{now:%Y-%m-%d}", quick=quick)
    (RESULTS / f"{name}.md").write_text(table, encoding="utf-8")
    print(f"\n{table}\nwritten to benchmarks/results/{name}.md and .json")


async def bench(models: list[str], *, rounds: int, quick: bool) -> None:
    """Measure the models one after the other, and write the results."""
    require_wrk()
    tool = find()
    if tool is None:
        print(f"gRPC is not measured: {why_not()}", flush=True)
    known = facts()
    measured = []
    for model in models:
        folder = BUNDLED if model == "bundled" else await asyncio.to_thread(bert_base)
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix="run-") as scratch:
            one = Bench(model, folder, Path(scratch), PACES[model, quick], tool)
            measured.append(await one.run(rounds))
    write_results(known, quick, measured)


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument(
        "--models", nargs="+", choices=("bundled", "bert-base"), default=["bundled", "bert-base"]
    )
    parser.add_argument("--rounds", type=int, help="default: 2, with --quick 1")
    asked = parser.parse_args()
    rounds = asked.rounds or (1 if asked.quick else 2)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bench(asked.models, rounds=rounds, quick=asked.quick))


if __name__ == "__main__":
    main()
