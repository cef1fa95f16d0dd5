"""Hundreds of models in one daemon: start, memory, idle CPU, and a change of one of them.

    python benchmarks/many_models.py [--models 300]

Needs the `onnx` package (in the extra `test`). Copies a tiny model under many names into a
temporary repository. Exit code 1 if a model is not READY, the idle daemon takes 1 % of a core
or more, or a change of one model loads another.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import uvloop
from aiohttp import ClientSession
from measured_daemon import MeasuredDaemon, Memory, measured_daemon
from variants import TEXTS, Variant, make_variants

IDLE_PERCENT: Final = 1.0
CALM_S: Final = 3.0
ANSWER_S: Final = 60.0
TEXT: Final = 4
LOADS: Final = re.compile(r"nerve_model_loads_total\{(.*)\} ([0-9.e+]+)")


async def run(asked: argparse.Namespace, folder: Path) -> list[str]:
    """Measure in a temporary folder. Returns the claims that do not hold."""
    old, new = make_variants(folder / "variants", 2, external=False)
    empty, repository = folder / "empty", folder / "repository"
    empty.mkdir()
    names = [f"m-{number:04}" for number in range(asked.models)]
    for name in names:
        shutil.copytree(old.folder, repository / name / "1")
    flags = ["--model-control-mode", "watch", "--settle-seconds", str(asked.settle_seconds)]
    log = folder / "daemon.log"
    async with measured_daemon(empty, *flags, log=log) as daemon:
        without = await asyncio.to_thread(daemon.memory)
        print(f"empty daemon: {without}")
    problems: list[str] = []
    async with measured_daemon(repository, *flags, log=log) as daemon, ClientSession() as http:
        problems += await _started("first start", daemon, http, names)
        await asyncio.sleep(CALM_S)
        await _weighed(daemon, without, len(names))
        problems += await _idle(daemon, asked.idle_seconds)
        problems += await _changed(daemon, http, repository / names[len(names) // 2], old, new)
    async with measured_daemon(repository, *flags, log=log) as daemon, ClientSession() as http:
        problems += await _started("second start", daemon, http, names)
        await _weighed(daemon, without, len(names))
    if problems:
        print(f"last lines of the daemon's log:\n{daemon.last_lines()}")
    return problems


async def _started(
    title: str, daemon: MeasuredDaemon, http: ClientSession, names: list[str]
) -> list[str]:
    states = {name: row["state"] for name, row in (await _models(daemon, http)).items()}
    missing = [name for name in names if states.get(name) != "READY"]
    print(
        f"{title}: HTTP after {daemon.listening_s:.2f} s, {len(names) - len(missing)} models READY "
        f"after {daemon.ready_s:.2f} s, {daemon.ready_s / len(names) * 1e3:.1f} ms a model"
    )
    return [f"{title}: not READY: {', '.join(missing[:10])}"] if missing else []


async def _weighed(daemon: MeasuredDaemon, without: Memory, models: int) -> None:
    memory = await asyncio.to_thread(daemon.memory)
    each = (memory.rss_bytes - without.rss_bytes) / models / 2**20
    print(f"memory: {memory}; {each:.2f} MiB of RSS a model")


async def _idle(daemon: MeasuredDaemon, seconds: float) -> list[str]:
    before, began = daemon.cpu_s(), time.perf_counter()
    await asyncio.sleep(seconds)
    percent = (daemon.cpu_s() - before) / (time.perf_counter() - began) * 100
    verdict = "under" if percent < IDLE_PERCENT else "OVER"
    print(f"idle for {seconds:g} s: {percent:.2f} % of a core ({verdict} {IDLE_PERCENT:g} %)")
    return [] if percent < IDLE_PERCENT else [f"idle CPU is {percent:.2f} %"]


async def _changed(
    daemon: MeasuredDaemon, http: ClientSession, folder: Path, old: Variant, new: Variant
) -> list[str]:
    """Overwrite one model's files; time to its new answer, and what else was loaded."""
    name = folder.name
    if not await _gives(daemon, http, name, old):
        return [f"{name} does not give its model's answer"]
    models, loads = await _models(daemon, http), await _loads(daemon, http)
    for file in new.folder.iterdir():
        shutil.copyfile(file, folder / "1" / file.name)
    placed = time.perf_counter()
    while not await _gives(daemon, http, name, new):
        if time.perf_counter() - placed > ANSWER_S:
            return [f"{name}: the new model did not answer within {ANSWER_S:g} s"]
        await asyncio.sleep(0.01)
    print(f"one model changed: its new answer {time.perf_counter() - placed:.2f} s after the copy")
    await asyncio.sleep(CALM_S)
    again = Counter(await _loads(daemon, http))
    again.subtract(loads)
    loaded = {each: count for each, count in again.items() if count}
    print(f"loads since: {loaded}")
    problems = [] if loaded == {name: 1} else [f"expected one load, of {name}, not {loaded}"]
    after = await _models(daemon, http)
    moved = [each for each in models.keys() | after.keys() if models.get(each) != after.get(each)]
    if moved:
        problems.append(f"the list of models differs at {', '.join(sorted(moved)[:10])}")
    return problems


async def _gives(daemon: MeasuredDaemon, http: ClientSession, name: str, variant: Variant) -> bool:
    body = {"inputs": TEXTS[TEXT], "raw_scores": True, "ignore_labels": []}
    url = f"{daemon.url}/v1/models/{name}/predict_tokens"
    async with http.post(url, json=body) as response:
        return response.status == 200 and variant.gave(TEXT, (await response.json())[0])


async def _models(daemon: MeasuredDaemon, http: ClientSession) -> dict[str, dict[str, Any]]:
    async with http.get(f"{daemon.url}/v1/models") as response:
        return {row["name"]: row for row in (await response.json())["models"]}


async def _loads(daemon: MeasuredDaemon, http: ClientSession) -> Counter[str]:
    """Loads of each model so far, whatever came of them."""
    async with http.get(f"{daemon.url}/metrics") as response:
        text = await response.text()
    loads: Counter[str] = Counter()
    for labels, value in LOADS.findall(text):
        model = re.search(r'model="([^"]*)"', labels)
        assert model is not None, labels
        loads[model[1]] += int(float(value))
    return loads


def main() -> None:
    """Parse, run, exit with 1 if a claim failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--models", type=int, default=300)
    parser.add_argument("--settle-seconds", type=float, default=1.0)
    parser.add_argument(
        "--idle-seconds", type=float, default=35.0, help="more than a turn of the slow poll"
    )
    asked = parser.parse_args()
    print(f"{asked.models} models, settle {asked.settle_seconds:g} s")
    with (
        tempfile.TemporaryDirectory(prefix="nerve-many-") as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        try:
            problems = runner.run(run(asked, Path(folder)))
        except RuntimeError as error:  # of the daemon; its words are enough
            problems = [str(error)]
    print("\n".join(problems) or "every claim held")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
