"""What a response cache saves when it hits, and costs when it does not.

    python benchmarks/response_cache.py [--rounds N] [--seconds S]

One daemon serves the bundled model three times: without a cache; with one that has every answer;
and with one that may keep none, so that each text is looked up, run and thrown away. They are loaded
by turns with the same texts, over POST predict_tokens. Needs `wrk`. About 2 minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import tempfile
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from measured_daemon import MeasuredDaemon, measured_daemon
from rich.console import Console
from rich.table import Table
from sample import load_texts, write_bodies
from wrk import load, require_wrk

BUNDLED: Final = Path(__file__).parents[1] / "model_repository" / "minilm-ner"
MODELS: Final = {
    "off": "response_cache: false\n",
    "hits": "response_cache: true\n",
    "misses": "response_cache: {enable: true, max_bytes: 1}\n",
}
CALLERS: Final = (1, 16)
TEXTS: Final = 300
MOST_TEXTS: Final = 100
"""In one request."""


@dataclass(frozen=True, slots=True)
class Measured:
    """`cpu_s` is processor time of the daemon a request."""

    rate: float
    p50_ms: float
    cpu_s: float


def send_all(daemon: MeasuredDaemon, model: str, texts: Sequence[str]) -> None:
    """Have a model answer each text once."""
    url = f"{daemon.url}/v1/models/{model}/predict_tokens"
    for at in range(0, len(texts), MOST_TEXTS):
        body = json.dumps({"inputs": texts[at : at + MOST_TEXTS]}).encode()
        asked = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=120) as answer:
            answer.read()


async def measure(
    daemon: MeasuredDaemon, model: str, bodies: Path, callers: int, seconds: float
) -> Measured:
    """Load one of the models for a while; ends the program if a request failed."""
    used_s = daemon.cpu_s()
    url = f"{daemon.url}/v1/models/{model}/predict_tokens"
    async with load(url, bodies, concurrency=callers) as loading:
        await asyncio.sleep(seconds)
        sent = await loading.finish()
    if sent.failed:
        raise SystemExit(f"{model}: {sent.failed} requests failed")
    cpu_s = (daemon.cpu_s() - used_s) / sent.requests
    return Measured(sent.requests / sent.duration_s, sent.p50_ms, cpu_s)


def show(callers: int, rounds: list[dict[str, Measured]]) -> Table:
    """Medians, and the ratios to "off" within each round."""
    table = Table(title=f"{callers} callers, {len(rounds)} rounds")
    for column in ("", "texts/s", "x off", "p50 ms", "x off", "CPU us a text", "x off"):
        table.add_column(column, justify="left" if not column else "right")
    for name in MODELS:
        cells = [name]
        for of in ("rate", "p50_ms", "cpu_s"):
            values = [getattr(each[name], of) for each in rounds]
            ratios = [getattr(each[name], of) / getattr(each["off"], of) for each in rounds]
            scale, digits = (1e6, 0) if of == "cpu_s" else (1, 2 if of == "p50_ms" else 0)
            cells.append(f"{statistics.median(values) * scale:.{digits}f}")
            low, high = min(ratios), max(ratios)
            cells.append(f"{statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})")
        table.add_row(*cells)
    return table


async def run(rounds: int, seconds: float) -> None:
    """Measure, and print the tables."""
    require_wrk()
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        repository, bodies = Path(folder) / "models", Path(folder) / "bodies"
        for name, config in MODELS.items():
            shutil.copytree(BUNDLED, repository / name)
            (repository / name / "config.yaml").write_text(config, encoding="utf-8")
        texts = load_texts()[:TEXTS]
        write_bodies(texts, bodies)
        async with measured_daemon(repository, log=Path(folder) / "log") as daemon:
            for name in MODELS:
                await asyncio.to_thread(send_all, daemon, name, texts)
            for callers in CALLERS:
                found = [
                    {name: await measure(daemon, name, bodies, callers, seconds) for name in MODELS}
                    for _ in range(rounds)
                ]
                console.print(show(callers, found))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    asyncio.run(run(given.rounds, given.seconds))
