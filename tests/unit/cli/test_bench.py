"""`nerve bench` and `nerve tune` on a tiny model in this process, and what they refuse."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from nerve.cli import app
from nerve.cli.bench import concurrency_list
from nerve.cli.in_process import find_source, open_local
from nerve.cli.report import Bar
from nerve.cli.search import Settings, Trial
from nerve.cli.texts import read_texts
from nerve.cli.tune import row
from nerve.cli.tune_run import Tuning, Wanted
from nerve.errors import InvalidField, ModelLoadFailed, NerveError, RepositoryInvalid
from nerve.types import Span, SpanOptions
from nerve.words import Strategy

QUICK = ("--duration", "0.2", "--warm-up", "0.05")
BRIEF = ("--seconds-per-trial", "0.2", "--concurrency", "4")


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NERVE_URL", raising=False)


def nerve(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def document(*arguments: object) -> Any:
    ended = nerve(*arguments, "--format", "json")
    assert ended.exit_code == 0, ended.output
    return json.loads(ended.stdout)


def test_a_row_for_each_number_of_callers(tiny_repository: Path) -> None:
    found = document("bench", tiny_repository, "-c", "1,6", *QUICK)
    assert (found["place"], found["texts"]) == ("this process", 100)
    one, six = found["rows"]
    assert (one["concurrency"], six["concurrency"]) == (1, 6)
    assert one["mean_batch"] == 1
    assert one["padding_waste"] == 0
    for each in (one, six):
        assert each["failed"] == {}
        assert each["requests"] > 5
        assert each["texts_per_s"] == pytest.approx(each["requests"] / each["seconds"], rel=1e-2)
        assert each["tokens_per_s"] > each["texts_per_s"]
        assert each["p50_ms"] <= each["p95_ms"] <= each["p99_ms"]


def test_so_many_requests_of_one_s_own_texts(tiny_repository: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "Ada met Charles."}\n"Bonn"\n')
    arguments = ("-c", "2", "-n", "8", "--batch", "3", "--warm-up", "0", "--texts", texts)
    (each,) = document("bench", tiny_repository / "bert", *arguments)["rows"]
    assert each["requests"] == 8
    assert each["texts_per_s"] == pytest.approx(24 / each["seconds"], rel=1e-2)


def test_refused_requests_are_in_the_table(tiny_repository: Path) -> None:
    """A queue of one text and many callers: some are answered, the others end nothing."""
    (tiny_repository / "bert" / "config.yaml").write_text(
        "dynamic_batching: {max_queue_size: 1}\ninstance_group: {count: 1}\nmax_batch_size: 1\n"
    )
    ended = nerve("bench", tiny_repository, "-c", "16", *QUICK)
    assert ended.exit_code == 0
    assert re.search(r"\b[1-9]\d* \([1-9]\d* queue_full\)", ended.stdout)
    assert "queue_full: model 'bert' already has" in ended.stderr


def test_markdown(tiny_repository: Path) -> None:
    ended = nerve(
        "bench", tiny_repository, "-c", "1", "-n", "3", "--warm-up", "0", "-f", "markdown"
    )
    head, line, values = ended.stdout.splitlines()
    assert head.startswith("| CALLERS | TEXTS/S |")
    assert line.count("---") == head.count("|") - 1
    assert values.startswith("| 1 |")


@pytest.mark.parametrize("given", ["0", "1,0", "", "a", "1,,2", "-3", "1.5", "10001", "9" * 5000])
def test_concurrency_that_is_none(given: str) -> None:
    with pytest.raises(InvalidField, match="--concurrency: expected") as error:
        concurrency_list(given)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("folder", "kind", "detail"),
    [
        ("./none", RepositoryInvalid, "there is no such folder"),
        ("empty", InvalidField, "there is no model in it"),
        ("two", InvalidField, "name one of its models: .*/bert, .*/roberta"),
        ("broken", ModelLoadFailed, "."),
    ],
)
@pytest.mark.parametrize("command", ["bench", "tune"])
def test_folders_that_are_no_model(
    tmp_path: Path,
    tiny_models: Path,
    command: str,
    folder: str,
    kind: type[NerveError],
    detail: str,
) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("bert", "roberta"):
        shutil.copytree(tiny_models / name, tmp_path / "two" / name)
    shutil.copytree(tiny_models / "bert", tmp_path / "broken" / "bert")
    (tmp_path / "broken" / "bert" / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(kind, match=detail):
        raise nerve(command, tmp_path / folder).exception or AssertionError


def test_tuning_tells_each_trial(tiny_repository: Path) -> None:
    """Whatever is best here: the present settings lead the ratios, and the document adds up."""
    ended = nerve("tune", tiny_repository, *BRIEF, "--budget", "2.5", "--format", "json")
    assert ended.exit_code == 0, ended.output
    assert "there is no golden.jsonl" in ended.stderr
    found = json.loads(ended.stdout)
    present = [trial for trial in found["trials"] if trial["settings"] == {}]
    assert [trial["ratio"] for trial in present] == [1.0]
    assert all(trial["figures"]["requests"] for trial in found["trials"])
    assert len(found["trials"]) > 1 or found["ended_early"]
    assert bool(found["yaml"]) == found["gain"]
    assert (found["confirmed_ratio"] is None) == (found["best"] == {})
    assert not (tiny_repository / "bert" / "config.yaml").exists()  # without --write


def test_a_limit_that_nothing_keeps(tiny_repository: Path) -> None:
    arguments = (*BRIEF, "--budget", "0", "--max-latency-ms", "0.001", "--write")
    ended = nerve("tune", tiny_repository, *arguments)
    assert ended.exit_code == 1
    assert "nothing kept p99 within 0.001 ms; the nearest is" in ended.stderr
    assert "ended the search" in ended.stderr
    assert not (tiny_repository / "bert" / "config.yaml").exists()


def test_a_setting_that_does_better_is_written(tiny_repository: Path) -> None:
    """A config that makes each run wait for company that cannot come.

    Four callers fill a batch of four at once; one of eight waits until its delay is over.
    """
    config = tiny_repository / "bert" / "config.yaml"
    config.write_text(
        "# slow\nmax_batch_size: 8  # too many\ninstance_group: {count: 1}\n"
        "dynamic_batching: {max_queue_delay_microseconds: 100000, scheduler: fifo}\n"
    )
    ended = nerve("tune", tiny_repository, *BRIEF, "--write", "--budget", "20")
    assert ended.exit_code == 0, ended.output
    assert f"written into {config}" in ended.stderr, ended.output
    text = config.read_text()
    assert text.startswith("# slow\nmax_batch_size: ")
    assert find_source(tiny_repository).config.max_batch_size <= 4


def test_a_precision_that_is_none(tiny_repository: Path) -> None:
    ended = nerve("tune", tiny_repository, "--precision", "int4")
    assert isinstance(ended.exception, InvalidField)
    assert "expected some of fp32, fp16, bf16, int8; got 'int4'" in str(ended.exception)


def test_a_precision_that_loses_too_much_is_refused_with_the_reason(
    tmp_path: Path, tiny_models: Path
) -> None:
    """By the golden.jsonl for whose sake it is tried at all: what the model finds as it is."""
    folder = tmp_path / "roberta"
    shutil.copytree(tiny_models / "roberta", folder)
    texts = read_texts(None)
    answers = asyncio.run(found_by(folder, texts))
    lines = [
        {
            "text": text,
            "entities": [{"label": s.label, "start": s.start, "end": s.end} for s in each],
        }
        for text, each in zip(texts, answers, strict=True)
    ]
    (folder / "golden.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "config.yaml").write_text("optimization: {max_f1_loss: 0}")
    found = document("tune", folder, *BRIEF, "--budget", "15")
    (refused,) = [t for t in found["trials"] if t["settings"] == {"optimization.precision": "int8"}]
    assert "its conversion to int8 loses too much" in refused["refused"]
    assert refused["figures"] is None


async def found_by(repository: Path, texts: list[str]) -> list[list[Span]]:
    source = find_source(repository)
    async with open_local(source, source.config) as target:
        answer = await target.model.spans(texts, SpanOptions(Strategy.MAX), deadline=None)
        return answer.spans


def test_refusals_and_failures_have_rows(tiny_repository: Path) -> None:
    source = find_source(tiny_repository)
    wanted = Wanted(["a"], 1, 1, 1.0, 1.0, None, [])
    tuning = Tuning(source, wanted, Bar(None))
    cells = row(Trial(Settings.of(source.config), refused="F1 0.5"), tuning)
    assert cells == ["-"] * 7 + ["present: refused: F1 0.5"]
