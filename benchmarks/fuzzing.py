"""20,000 mutated JSON and protobuf bodies against the daemon: what it answers, and what is left.

    python benchmarks/fuzzing.py [--cases 20000] [--seed 7] [--only NUMBER]

Every second case goes over HTTP, the others over gRPC; its seed and number say all of it, so
`--only` sends one alone and shows it. Exit code 1 if one was answered with a 5xx but 503 (or 501, of
what the document says is not there), or not at all, or if tasks, threads, files, processes or memory are
left. About 1 minute; prints a table, and writes it to results/ with --write.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import uvloop
from machine import facts, slug

TESTS: Final = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))
from fuzz import aftermath  # noqa: E402  pytest has that folder on its path, an interpreter has not
from fuzz.campaign import case_of, clients  # noqa: E402
from fuzz.serving import Held, fuzzed  # noqa: E402

RESULTS: Final = Path(__file__).parent / "results"


async def all_cases(cases: int, seed: int) -> aftermath.Report:
    """Send them all to a daemon of their own."""
    with tempfile.TemporaryDirectory(prefix="nerve-fuzzing-") as folder:
        async with fuzzed(Path(folder)) as daemon:
            return await aftermath.run(daemon, cases=cases, seed=seed)


async def one_case(number: int, seed: int) -> bool:
    """Send one, and show it; whether its answer is well."""
    case = case_of(seed, number)
    print(case)
    with tempfile.TemporaryDirectory(prefix="nerve-fuzzing-") as folder:
        async with fuzzed(Path(folder)) as daemon, clients(daemon) as senders:
            answer = await senders.send(case, 0)
        print(answer)
        for line in daemon.wild_lines():
            print(line)
        return answer.problem is None and not daemon.wild_lines()


def table(report: aftermath.Report) -> str:
    """What came back, by door, and what the daemon held."""
    outcome = report.outcome
    lines = ["| door | cases | answers | slowest, s |", "| --- | ---: | --- | ---: |"]
    for door, counts in sorted(outcome.statuses.items()):
        told = ", ".join(f"{status} {count}" for status, count in sorted(counts.items()))
        lines.append(f"| {door} | {counts.total()} | {told} | {outcome.slowest_s[door]:.2f} |")
    lines += ["", "| | tasks | threads | files | processes | RSS MiB | peak MiB |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    lines += [_row("before", report.before), _row("after", report.after)]
    return "\n".join(lines)


def _row(name: str, held: Held) -> str:
    counts = [sum(each.values()) for each in (held.tasks, held.threads, held.files)]
    cells = [*map(str, counts), str(held.children)]
    cells += [f"{each / 2**20:.1f}" for each in (held.rss_bytes, held.peak_bytes)]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=aftermath.SEED)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="send this case alone")
    parser.add_argument("--write", action="store_true", help="write the table to results/")
    asked = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if asked.only is not None:
            sys.exit(0 if runner.run(one_case(asked.only, asked.seed)) else 1)
        report = runner.run(all_cases(asked.cases, asked.seed))
    known = facts()
    told = f"{report.outcome.count} cases of seed {asked.seed} in {report.outcome.took_s:.0f} s, "
    told += f"{len(report.problems)} problems.\n\n{table(report)}\n"
    print(told)
    for problem in report.problems:
        print(f"FAILS: {problem}")
    if asked.write:
        day = datetime.now(UTC).date()
        head = f"# Mutated bodies, {day}\n\n" + ", ".join(f"{k} {v}" for k, v in known.items())
        (RESULTS / f"{day}-{slug(known)}-fuzzing.md").write_text(f"{head}.\n\n{told}")
    sys.exit(1 if report.problems else 0)


if __name__ == "__main__":
    main()
