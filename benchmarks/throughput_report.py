"""What throughput.py measured, as tables, and against what the project promises."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Final

from doors import CONCURRENCY
from lone import Lone
from throughput_records import COMPARED_AT, TRANSFORM, Cell, Measured

LEAST_OF_ORACLE: Final = {
    ("bundled", 64): 0.85,
    ("bundled", 256): 0.90,
    ("bert-base", 64): 0.90,
    ("bert-base", 256): 0.95,
}
LEAST_WITH_TRANSFORM: Final = 0.9
LEAST_OF_FIFO: Final = 2.0
LEAST_OF_NONE: Final = 1.15
LEAST_GRPC_OF_HTTP: Final = 0.8
MOST_OF_LOOP: Final = 1.25
MOST_WASTE: Final = 0.10


def report(
    known: dict[str, str | int | float], measured: Sequence[Measured], *, when: str, quick: bool
) -> str:
    """The whole report in Markdown; figures are medians over the rounds."""
    machine = ", ".join(f"{name} {value}" for name, value in known.items())
    lines = [f"# Throughput, {when}", "", machine + ".", ""]
    if quick:
        lines += ["One short round: this shows that the benchmark works, not how fast it is.", ""]
    for each in measured:
        lines += [*_table(each), "", *_transform(each), *_oracle(each), "", *_lone(each), ""]
        lines += [*_doors(each), "", *_claims(each), ""]
    return "\n".join(lines)


def _table(model: Measured) -> list[str]:
    lines = [
        f"## {model.model}",
        "",
        f"{model.texts} texts of {model.mean_tokens:.1f} tokens on average, one a request; "
        f"{len(model.rounds)} rounds.",
        "",
        "| | texts/s | tokens/s | of the oracle | padding waste | rows a batch | p50 ms | p99 ms "
        "| event loop: CPU ms a text | other threads: CPU ms a text "
        "| tokens a CPU second, of the oracle's | failed |",
        "| --- |" + " ---: |" * 11,
    ]
    best = [one.best for one in model.rounds]
    texts_per_s = statistics.median(rate.texts_per_s for rate in best)
    tokens_per_s = statistics.median(rate.tokens_per_s for rate in best)
    cpu_ms = statistics.median(rate.cpu_ms_per_token for rate in best)
    lines.append(
        f"| oracle | {texts_per_s:.0f} | {tokens_per_s:.0f} | 1 | {best[0].padding_waste:.1%} "
        f"| {best[0].batch_size} | | | | {cpu_ms * model.mean_tokens:.2f} | 1 | |"
    )
    for at, cell in enumerate(model.rounds[0].cells):
        cells = [one.cells[at] for one in model.rounds]
        parts = [one.of_oracle(one.cells[at]) for one in model.rounds]
        work = [one.work_of_oracle(one.cells[at]) for one in model.rounds]
        lines.append(_row(cell, cells, parts, statistics.median(work)))
    return [*lines, "", _rest(model)]


def _rest(model: Measured) -> str:
    """What else the machine did: figures of a machine that is not idle say little."""
    cells = [cell for one in model.rounds for cell in one.cells]
    rest = [cell.server.rest_cores - cell.client.cores for cell in cells]
    rest += [rate.rest_cores for one in model.rounds for rate in one.oracle]
    return (
        f"Other programs than the server, the oracle and wrk took {statistics.median(rest):.2f} cores "
        f"(median; {max(rest):.2f} at most); wrk took up to "
        f"{max(cell.client.cores for cell in cells):.2f}."
    )


def _row(named: Cell, cells: Sequence[Cell], parts: Sequence[float], work: float) -> str:
    def median(value: Callable[[Cell], float]) -> float:
        return statistics.median(map(value, cells))

    name = f"{named.concurrency} callers"
    if named.scheduler != "cost":
        name += f", scheduler {named.scheduler}"
    return (
        f"| {name} | {median(lambda each: each.server.texts_per_s):.0f} "
        f"| {median(lambda each: each.server.tokens_per_s):.0f} "
        f"| {statistics.median(parts):.2f} ({_span(parts)}) "
        f"| {median(lambda each: each.server.padding_waste):.1%} "
        f"| {median(lambda each: each.server.batch_rows):.1f} "
        f"| {median(lambda each: each.client.p50_ms):.1f} "
        f"| {median(lambda each: each.client.p99_ms):.1f} "
        f"| {median(lambda each: each.server.loop_cpu_ms):.2f} "
        f"| {median(lambda each: each.server.other_cpu_ms):.2f} "
        f"| {work:.2f} | {sum(each.client.failed for each in cells)} |"
    )


def _transform(model: Measured) -> list[str]:
    """What a transform costs."""
    pairs = [pair for one in model.rounds for pair in one.pairs]
    if not pairs:
        return []
    lines = [
        f"`arr:softmax(3)` as its transform, {COMPARED_AT} callers, {len(pairs)} times by turns:",
        "",
        "| | texts/s | p50 ms | p99 ms | event loop: CPU ms a text | failed |",
        "| --- |" + " ---: |" * 5,
    ]
    for name, shown in (("cost", "without"), (TRANSFORM, "with")):
        cells = [pair[name] for pair in pairs]
        figures = [
            statistics.median(map(value, cells))
            for value in (
                lambda each: each.server.texts_per_s,
                lambda each: each.client.p50_ms,
                lambda each: each.client.p99_ms,
                lambda each: each.server.loop_cpu_ms,
            )
        ]
        rate, p50, p99, loop = figures
        failed = sum(cell.client.failed for cell in cells)
        lines.append(f"| {shown} | {rate:.0f} | {p50:.1f} | {p99:.1f} | {loop:.2f} | {failed} |")
    return [*lines, ""]


def _oracle(model: Measured) -> list[str]:
    """What the search for the oracle saw."""
    sizes = sorted({rate.batch_size for rate in model.searched})
    lines = [
        "What the oracle was chosen from, in tokens/s by rows a batch:",
        "",
        "| | " + " | ".join(map(str, sizes)) + " |",
        "| --- |" + " ---: |" * len(sizes),
    ]
    rates = {(rate.set_up, rate.batch_size): rate.tokens_per_s for rate in model.searched}
    for set_up in dict.fromkeys(rate.set_up for rate in model.searched):
        shown = [f"{rates[set_up, size]:.0f}" if (set_up, size) in rates else "" for size in sizes]
        lines.append(f"| {set_up} | " + " | ".join(shown) + " |")
    chosen = dict.fromkeys(f"{one.best.set_up}, {one.best.batch_size} rows" for one in model.rounds)
    return [*lines, "", f"Best in the rounds: {'; '.join(chosen)}."]


def _lone(model: Measured) -> list[str]:
    """Times of one caller."""
    lines = ["| one caller | mean ms | p50 ms |", "| --- | ---: | ---: |"]
    for at, loop in enumerate(model.rounds[0].lone):
        loops = [one.lone[at] for one in model.rounds]
        lines.append(_timed(f"loop without a server, session: {loop.session}", loops))
    callers = [one.caller for one in model.rounds if one.caller is not None]
    return [*lines, _timed("server", callers)]


def _timed(name: str, times: Sequence[Lone]) -> str:
    mean = statistics.median(each.mean_ms for each in times)
    p50 = statistics.median(each.p50_ms for each in times)
    return f"| {name} | {mean:.2f} | {p50:.2f} |"


def _doors(model: Measured) -> list[str]:
    """The Open Inference Protocol over HTTP and over gRPC."""
    if not model.rounds[0].doors:
        return ["gRPC was not measured: perf_analyzer cannot run here."]
    lines = [
        f"The Open Inference Protocol, {CONCURRENCY} requests in flight from perf_analyzer, which "
        "takes more of the machine than wrk:",
        "",
        "| | texts/s | rows a batch | event loop: CPU ms a text | other threads: CPU ms a text "
        "| cores for all other programs |",
        "| --- |" + " ---: |" * 5,
    ]
    for protocol in dict.fromkeys(door.protocol for door in model.rounds[0].doors):
        seen = [one.door(protocol).server for one in model.rounds]
        figures = [
            statistics.median(map(value, seen))
            for value in (
                lambda each: each.texts_per_s,
                lambda each: each.batch_rows,
                lambda each: each.loop_cpu_ms,
                lambda each: each.other_cpu_ms,
                lambda each: each.rest_cores,
            )
        ]
        rate, *rest = figures
        shown = " | ".join(f"{each:.2f}" for each in rest)
        lines.append(f"| {protocol} | {rate:.0f} | {shown} |")
    return lines


def _claims(model: Measured) -> list[str]:
    """Each figure that the project promises, and whether it holds here."""
    rounds = model.rounds
    lines = ["| promise | measured | |", "| --- | --- | --- |"]
    for (name, concurrency), bound in LEAST_OF_ORACLE.items():
        if name == model.model:
            parts = [one.of_oracle(one.cell("cost", concurrency)) for one in rounds]
            lines.append(_claim(f"of the oracle at {concurrency}", parts, at_least=bound))
    for scheduler, bound in (("fifo", LEAST_OF_FIFO), ("none", LEAST_OF_NONE)):
        gains = [one.over(scheduler) for one in rounds]
        title = f"over scheduler {scheduler} at {COMPARED_AT}"
        lines.append(_claim(title, gains, at_least=bound))
    waste = [one.cell("cost", COMPARED_AT).server.padding_waste for one in rounds]
    lines.append(_claim(f"padding waste at {COMPARED_AT}", waste, at_most=MOST_WASTE))
    if rounds[0].pairs:
        parts = [part for one in rounds for part in one.with_transform]
        title = f"throughput with a softmax transform of that without, at {COMPARED_AT}"
        lines.append(_claim(title, parts, at_least=LEAST_WITH_TRANSFORM))
    if rounds[0].doors:
        parts = [one.grpc_of_http for one in rounds]
        title = f"gRPC's throughput of HTTP's at {CONCURRENCY}"
        lines.append(_claim(title, parts, at_least=LEAST_GRPC_OF_HTTP))
    if model.model == "bundled":
        for name, value in (("p50", _p50), ("mean", _mean)):
            slower = [one.of_loop(value) for one in rounds]
            title = f"one caller's {name} over the better loop's"
            lines.append(_claim(title, slower, at_most=MOST_OF_LOOP))
    failed = sum(cell.client.failed for one in rounds for cell in one.cells)
    pairs = [pair for one in rounds for pair in one.pairs]
    failed += sum(cell.client.failed for pair in pairs for cell in pair.values())
    return [*lines, f"| failed requests: 0 | {failed} | {'holds' if failed == 0 else 'FAILS'} |"]


def _p50(lone: Lone) -> float:
    return lone.p50_ms


def _mean(lone: Lone) -> float:
    return lone.mean_ms


def _claim(
    title: str, values: Sequence[float], *, at_least: float = 0.0, at_most: float = float("inf")
) -> str:
    median = statistics.median(values)
    bound = f"at least {at_least:g}" if at_least else f"at most {at_most:g}"
    verdict = "holds" if at_least <= median <= at_most else "FALLS SHORT"
    return f"| {title}: {bound} | {median:.3f} ({_span(values)}) | {verdict} |"


def _span(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"
