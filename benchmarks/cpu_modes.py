"""How to use the cores: one session and many threads, many sessions, or one run in many threads.

    python benchmarks/cpu_modes.py [--quick] [--models bundled bert-base]

For each batch and length the rows a second of: one caller and several callers of one session with
one thread a run, a session for each caller, and one session with a run in all cores, its threads
spinning while they wait or not. All ways of one shape take turns; the medians are shown. About 4
minutes. benchmarks/README.md says what the defaults make of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from machine import cores, facts, slug
from oracle import Batch, Session, feed, open_session, run_for
from random_bert import BUNDLED, bert_base

RESULTS: Final = Path(__file__).parent / "results"
SHAPES: Final = ((1, 8), (1, 24), (1, 64), (1, 256), (4, 24), (8, 24), (8, 64), (32, 24), (32, 64))
FIRST_WORD: Final = 1000
LAST_WORD: Final = 20000


def ways(model: Path, count: int) -> dict[str, Sequence[Session]]:
    """Sessions by the name of the way, one for each thread that calls."""
    one = open_session(model, threads=1, spinning=False)
    return {
        "1 caller": [one],
        f"1 session, {count} callers": [one] * count,
        f"{count} sessions": [
            one,
            *(open_session(model, threads=1, spinning=False) for _ in range(count - 1)),
        ],
        f"1 run in {count} threads": [open_session(model, threads=count, spinning=False)],
        f"1 run in {count} threads, spinning": [open_session(model, threads=count, spinning=True)],
    }


def measure(
    sessions: dict[str, Sequence[Session]], rows: int, length: int, *, turns: int, seconds: float
) -> dict[str, float]:
    """Rows a second of each way with one shape: medians over the turns."""
    random = np.random.default_rng(0)
    ids = random.integers(FIRST_WORD, LAST_WORD, (rows, length)).tolist()
    batch = Batch(feed(next(iter(sessions.values()))[0], ids), rows * length, rows)
    rates: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(turns + 1):
        for name, callers in sessions.items():
            _, tokens_per_s = run_for(callers, [batch], seconds=seconds)
            if turn:  # the first one warms up
                rates[name].append(tokens_per_s / length)
    return {name: statistics.median(each) for name, each in rates.items()}


def table(model: str, found: dict[tuple[int, int], dict[str, float]]) -> str:
    """Rows a second in Markdown."""
    names = list(next(iter(found.values())))
    lines = [f"{model}, rows/s:", "", "| rows x tokens | " + " | ".join(names) + " |"]
    lines.append("| --- |" + " ---: |" * len(names))
    for (rows, length), rates in found.items():
        shown = " | ".join(f"{rates[name]:.1f}" for name in names)
        lines.append(f"| {rows} x {length} | {shown} |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one short turn")
    parser.add_argument(
        "--models", nargs="+", choices=("bundled", "bert-base"), default=["bundled", "bert-base"]
    )
    asked = parser.parse_args()
    known = facts()
    content: dict[str, object] = {"machine": known}
    for model in asked.models:
        folder = BUNDLED if model == "bundled" else bert_base()
        sessions = ways(folder / "model.onnx", cores())
        turns, seconds = (1, 0.1) if asked.quick else (3, 0.5)
        found = {shape: measure(sessions, *shape, turns=turns, seconds=seconds) for shape in SHAPES}
        print(table(model, found), flush=True)
        print()
        content[model] = {f"{rows}x{length}": each for (rows, length), each in found.items()}
    RESULTS.mkdir(exist_ok=True)
    name = f"{datetime.now(UTC):%Y-%m-%d}-{slug(known)}-cpu-modes{'-quick' if asked.quick else ''}"
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"written to benchmarks/results/{name}.json")


if __name__ == "__main__":
    main()
