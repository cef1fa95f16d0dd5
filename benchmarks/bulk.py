"""`nerve infer` over a file beside what `nerve bench` gets out of the same model; memory; interruptions.

    python benchmarks/bulk.py [--lines N] [--quick] [--rounds N] [--model FOLDER]

Rates: slices of the same sentences, by turns through `nerve infer` (a process that reads a file and
writes one) and through `nerve bench` with 64 callers of one text and 8 of 100; what counts is the ratio
to the better one within a round. Loading the model counts for neither: `nerve bench` measures without,
and the time of a file of one line is taken from that of the slice.

Then all lines in one run: its memory early and late, and how fast it was. Then the same again, broken
off with SIGINT and with SIGKILL and gone on with: the output must be the same to the byte.
100,000 lines take about as long as three runs of them; --quick takes 5,000.
"""

from __future__ import annotations

import argparse
import filecmp
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from machine import facts
from sample import load_texts

BUNDLED: Final = Path(__file__).parents[1] / "model_repository" / "minilm-ner"
LOADS: Final = (("64", "1"), ("8", "100"))
"""Callers of `nerve bench`, and texts a request."""
EARLY: Final = 0.25
"""Share of the lines after which memory counts as that of a run in full swing."""


def write_lines(path: Path, count: int) -> None:
    """So many sentences as JSONL, with an id each."""
    with path.open("w", encoding="utf-8") as file:
        for number, text in enumerate(itertools.islice(itertools.cycle(load_texts()), count)):
            file.write(json.dumps({"id": number, "text": text}) + "\n")


def command(model: Path, source: Path, target: Path) -> list[str]:
    """`nerve infer` from a file to a file."""
    return [
        sys.executable, "-m", "nerve", "infer", "-r", str(model), "-i", str(source), "-o", str(target),
    ]  # fmt: skip


def infer_s(model: Path, source: Path, target: Path) -> float:
    """Seconds of a whole run."""
    began = time.perf_counter()
    subprocess.run(command(model, source, target), check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def bench_rate(model: Path, seconds: float, source: Path) -> float:
    """The best of `nerve bench`, texts a second."""
    rates = []
    for callers, batch in LOADS:
        given = ["-c", callers, "--batch", batch, "-d", str(seconds), "--texts", str(source)]
        line = [sys.executable, "-m", "nerve", "bench", str(model), *given, "-f", "json"]
        ran = subprocess.run(line, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        rates.append(float(json.loads(ran.stdout)["rows"][0]["texts_per_s"]))
    return max(rates)


def compare(model: Path, folder: Path, lines: int, rounds: int) -> list[tuple[float, float]]:
    """Rates of infer and bench, by turns."""
    one, source, target = folder / "one.jsonl", folder / "slice.jsonl", folder / "slice.out.jsonl"
    write_lines(one, 1)
    write_lines(source, lines)
    found = []
    for number in range(rounds):
        start_s = infer_s(model, one, target)
        took_s = infer_s(model, source, target) - start_s
        infer_rate = (lines - 1) / took_s
        rate = bench_rate(model, took_s / len(LOADS), source)
        found.append((infer_rate, rate))
        print(
            f"round {number + 1}: infer {infer_rate:.0f} texts/s, bench {rate:.0f}: "
            f"{infer_rate / rate:.2f}",
            flush=True,
        )
    return found


def rss_bytes(pid: int) -> int:
    """Resident memory of a process, 0 if it is gone."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def part_bytes(target: Path) -> int:
    """What is written so far of an output that is not whole."""
    part = target.with_name(target.name + ".part")
    return part.stat().st_size if part.exists() else 0


def weigh(model: Path, source: Path, target: Path, out_bytes: int) -> tuple[int, int, float]:
    """Peak memory within the first quarter of a run's output and within the last, and its seconds.

    `out_bytes` is how long the output will be, about.
    """
    began = time.perf_counter()
    early = late = 0
    with subprocess.Popen(command(model, source, target), stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            done, used = part_bytes(target) / out_bytes, rss_bytes(process.pid)
            if 0 < done <= EARLY:
                early = max(early, used)
            elif done >= 1 - EARLY:
                late = max(late, used)
            time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"nerve infer ended with {process.returncode}")
    return early, late, time.perf_counter() - began


def interrupt(model: Path, source: Path, target: Path, out_bytes: int) -> list[str]:
    """Break it off twice, by what of the output is there, and run it to the end; what was done."""
    told = []
    for share, sent in ((0.3, signal.SIGINT), (0.6, signal.SIGKILL)):
        with subprocess.Popen(command(model, source, target), stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and part_bytes(target) < share * out_bytes:
                time.sleep(0.05)
            process.send_signal(sent)
        told.append(f"{sent.name} at {part_bytes(target) / out_bytes:.0%}: {process.returncode}")
    infer_s(model, source, target)
    return told


def run(model: Path, lines: int, rounds: int) -> None:
    """Measure, and print."""
    print(json.dumps(facts()), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ratios = [one / other for one, other in compare(model, folder, min(lines, 5_000), rounds)]
        print(
            f"of bench's rate: {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )
        of_slice = (folder / "slice.out.jsonl").stat().st_size / min(lines, 5_000)
        source, whole, broken = (folder / f"{name}.jsonl" for name in ("in", "whole", "broken"))
        write_lines(source, lines)
        early, late, took_s = weigh(model, source, whole, int(of_slice * lines))
        print(
            f"{lines} lines in {took_s:.0f} s with the start: {lines / took_s:.0f} texts/s; peak RSS "
            f"{early / 2**20:.0f} MiB in the first quarter, {late / 2**20:.0f} MiB in the last",
            flush=True,
        )
        told = interrupt(model, source, broken, whole.stat().st_size)
        same = filecmp.cmp(whole, broken, shallow=False)
        print(f"{', '.join(told)}; gone on with: {'the same bytes' if same else 'OTHER BYTES'}")
        if not same:
            raise SystemExit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--quick", action="store_true", help="5,000 lines")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, default=BUNDLED)
    given = parser.parse_args()
    # Under nohup, or in the background of a shell, it would be ignored by whatever we start, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run(given.model, 5_000 if given.quick else given.lines, given.rounds)
