"""golden.jsonl: how it is read, how a model is scored against it, and what a gate says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerve.config.model import ModelConfig, QualityGate
from nerve.config.running import Optimization, Precision
from nerve.errors import InferenceFailed, ModelLoadFailed
from nerve.golden import TEXTS_PER_CALL, answers_before, check_gate, check_golden, enforce
from nerve.golden_texts import (
    MAX_FILE_BYTES,
    MAX_LINES,
    Example,
    Expected,
    GoldenReport,
    load_golden,
    score,
)
from nerve.types import CallStatistics, Span, SpanAnswer, SpanOptions, VersionFiles
from nerve.words import OffsetUnit, Strategy

TEXT = "Apple bought Beats, and Apple sang."


def span(label: str, start: int, end: int, text: str = TEXT) -> Span:
    return Span(text[start:end], label, np.float32(1), start, end, 0, None)


def placed(label: str, start: int, end: int, text: str = TEXT) -> Expected:
    return Expected(label, text[start:end], (start, end))


def anywhere(label: str, text: str) -> Expected:
    return Expected(label, text, None)


def written(path: Path, *lines: object) -> Path:
    path.write_text("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines))
    return path


def fault(path: Path) -> str:
    with pytest.raises(ModelLoadFailed) as caught:
        load_golden(path)
    return str(caught.value)


# --- reading ---


@pytest.mark.parametrize(
    ("entity", "expected"),
    [
        pytest.param({"label": "ORG", "start": 0, "end": 5}, placed("ORG", 0, 5), id="places"),
        pytest.param(
            {"text": "Apple", "label": "ORG", "start": 0, "end": 5, "score": 0.9},
            placed("ORG", 0, 5),
            id="nerve infer",
        ),
        pytest.param(
            {"entity_group": "ORG", "score": 0.9, "word": "apple", "start": 0, "end": 5},
            placed("ORG", 0, 5),
            id="transformers, aggregated",
        ),
        pytest.param(
            {"entity": "B-ORG", "score": 0.9, "index": 1, "word": "app", "start": 0, "end": 5},
            placed("B-ORG", 0, 5),
            id="transformers, tokens",
        ),
        pytest.param({"label": "ORG", "text": "Apple"}, anywhere("ORG", "Apple"), id="text"),
        pytest.param(
            {"entity_group": "ORG", "word": "Apple", "start": None, "end": None},
            anywhere("ORG", "Apple"),
            id="slow tokenizers of transformers know no places",
        ),
        pytest.param({"label": "X", "start": 34, "end": 35}, placed("X", 34, 35), id="to the end"),
    ],
)
def test_ways_to_write_an_entity(
    tmp_path: Path, entity: dict[str, object], expected: Expected
) -> None:
    path = written(tmp_path / "golden.jsonl", {"text": TEXT, "entities": [entity], "more": 1})
    assert load_golden(path) == (Example(TEXT, (expected,)),)


def test_lines_of_all_kinds(tmp_path: Path) -> None:
    """A byte-order mark, Windows line ends, empty lines, no last line end, no text, no entities."""
    path = tmp_path / "golden.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"text": "a", "entities": []}\r\n\r\n  \n'
        + '{"text": "Zürich 😀", "entities": [{"label": "X", "start": 7, "end": 8}]}\n'.encode()
        + b'{"text": "", "entities": []}'
    )
    assert load_golden(path) == (
        Example("a", ()),
        Example("Zürich 😀", (Expected("X", "😀", (7, 8)),)),
        Example("", ()),
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: is no JSON"),
        ("[" * 100_000, "line 2: is no JSON"),
        ('{"text": "\\ud800", "entities": []}', "line 2: is no JSON"),
        ("[]", "line 2: expected an object with text and entities"),
        ('{"entities": []}', "line 2: text: expected a string"),
        ('{"text": 1, "entities": []}', "line 2: text: expected a string"),
        ('{"text": "a"}', "line 2: entities: expected a list"),
        ('{"text": "a", "entities": {}}', "line 2: entities: expected a list"),
        ('{"text": "a", "entities": [[]]}', "line 2: entities[0]: expected an object"),
        ('{"text": "a", "entities": [{}]}', "entities[0]: label: expected a string"),
        ('{"text": "a", "entities": [{"label": 1}]}', "label: expected a string"),
        ('{"text": "a", "entities": [{"label": "X"}]}', "needs start and end, or its text"),
        (
            '{"text": "a", "entities": [{"label": "X", "text": "b"}]}',
            '"b" does not occur in the text',
        ),
        ('{"text": "a", "entities": [{"label": "X", "start": 0}]}', "expected two whole numbers"),
        (
            '{"text": "a", "entities": [{"label": "X", "start": 0, "end": true}]}',
            "expected two whole numbers",
        ),
        (
            '{"text": "a", "entities": [{"label": "X", "start": 0, "end": 1.0}]}',
            "expected two whole numbers",
        ),
        (
            '{"text": "aé", "entities": [{"label": "X", "start": 0, "end": 3}]}',
            "[0, 3) is not in the text, which has 2 code points",
        ),
        ('{"text": "a", "entities": [{"label": "X", "start": -1, "end": 1}]}', "is not in the"),
        ('{"text": "a", "entities": [{"label": "X", "start": 1, "end": 0}]}', "is not in the"),
        (
            '{"text": "éab", "entities": [{"label": "X", "start": 2, "end": 3, "text": "a"}]}',
            'of the text is "b", not "a"; start and end count code points',
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "golden.jsonl"
    path.write_text('{"text": "a", "entities": []}\n' + line + "\n")
    found = fault(path)
    assert found.startswith("golden.jsonl, line 2: ")
    assert words in found
    assert len(found) < 500


def test_a_file_that_is_none(tmp_path: Path) -> None:
    assert fault(tmp_path / "golden.jsonl").startswith("golden.jsonl cannot be read: ")
    assert fault(tmp_path).endswith(" cannot be read: Is a directory")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_an_empty_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "golden.jsonl"
    path.write_bytes(content)
    assert fault(path) == "golden.jsonl is empty"


def test_limits(tmp_path: Path) -> None:
    path = tmp_path / "golden.jsonl"
    line = b'{"text": "", "entities": []}\n'
    path.write_bytes(line * MAX_LINES)
    assert len(load_golden(path)) == MAX_LINES
    path.write_bytes(line * (MAX_LINES + 1))
    assert fault(path) == f"golden.jsonl has over {MAX_LINES} lines"
    path.write_bytes(b"\n" * (MAX_FILE_BYTES + 1))
    assert fault(path) == f"golden.jsonl is over {MAX_FILE_BYTES} bytes"


# --- scoring ---


@pytest.mark.parametrize(
    ("expected", "found", "precision", "recall", "f1"),
    [
        pytest.param([], [], 1, 1, 1, id="nothing there, nothing found"),
        pytest.param([placed("ORG", 0, 5)], [span("ORG", 0, 5)], 1, 1, 1, id="all"),
        pytest.param([placed("ORG", 0, 5)], [], 0, 0, 0, id="nothing found"),
        pytest.param([], [span("ORG", 0, 5)], 0, 0, 0, id="nothing there"),
        pytest.param([placed("ORG", 0, 5)], [span("PER", 0, 5)], 0, 0, 0, id="another label"),
        pytest.param([placed("ORG", 0, 5)], [span("ORG", 0, 4)], 0, 0, 0, id="another end"),
        pytest.param(
            [placed("ORG", 0, 5), placed("ORG", 13, 18)],
            [span("ORG", 0, 5)],
            1,
            0.5,
            2 / 3,
            id="half",
        ),
        pytest.param(
            [placed("ORG", 0, 5)], [span("ORG", 0, 5), span("ORG", 0, 5)], 0.5, 1, 2 / 3, id="twice"
        ),
        pytest.param(
            [anywhere("ORG", "Apple")], [span("ORG", 24, 29)], 1, 1, 1, id="anywhere in the text"
        ),
        pytest.param(
            [anywhere("ORG", "Apple")] * 2,
            [span("ORG", 0, 5), span("ORG", 24, 29)],
            1,
            1,
            1,
            id="as often as it is there",
        ),
        pytest.param(
            [anywhere("ORG", "Apple")] * 2, [span("ORG", 0, 5)], 1, 0.5, 2 / 3, id="not as often"
        ),
        pytest.param(
            [anywhere("ORG", "Apple"), placed("ORG", 0, 5)],
            [span("ORG", 0, 5), span("ORG", 24, 29)],
            1,
            1,
            1,
            id="one with a place and one without",
        ),
    ],
)
def test_scores(
    expected: list[Expected], found: list[Span], precision: float, recall: float, f1: float
) -> None:
    report = score([Example(TEXT, tuple(expected))], [found])
    assert (report.texts, report.precision, report.recall) == (1, precision, recall)
    assert report.f1 == pytest.approx(f1)
    assert report.differing == len(report.differences) == (f1 < 1)


def test_scores_are_of_all_texts_together() -> None:
    """Micro averages: a text with many entities weighs as much as its entities."""
    many = [placed("X", number, number + 1) for number in range(9)]
    report = score(
        [Example(TEXT, tuple(many)), Example(TEXT, (placed("X", 0, 1),))],
        [[span("X", *each.place) for each in many if each.place], []],
    )
    assert (report.precision, report.recall) == (1.0, 0.9)
    assert report.f1 == pytest.approx(18 / 19)


SPANS = st.lists(
    st.tuples(st.sampled_from("AB"), st.integers(0, 5), st.integers(1, 3)), max_size=6
).map(lambda found: [span(label, start, start + size) for label, start, size in found])


@given(SPANS, SPANS)
def test_scores_are_symmetric_and_bounded(one: list[Span], other: list[Span]) -> None:
    """F1 does not care which side is right; precision and recall change places."""

    def expected(spans: Sequence[Span]) -> Example:
        return Example(TEXT, tuple(placed(each.label, each.start, each.end) for each in spans))

    there = score([expected(one)], [other])
    back = score([expected(other)], [one])
    assert 0 <= there.f1 == back.f1 <= 1
    assert (there.precision, there.recall) == (back.recall, back.precision)
    assert (there.f1 == 1) == (sorted(one) == sorted(other))


# --- what is told ---


def test_a_report_says_what_is_missing_and_what_is_extra() -> None:
    report = score(
        [
            Example(TEXT, (placed("ORG", 0, 5), anywhere("PER", "Beats"))),
            Example("Rome", ()),
        ],
        [[span("ORG", 0, 4)], []],
    )
    assert str(report) == (
        "F1 0.000 on golden.jsonl (2 texts); 1 differ, first: "
        f'"{TEXT}": missing ORG "Apple" [0, 5), PER "Beats"; extra ORG "Appl" [0, 4)'
    )


def test_a_gate_tells_what_it_wants() -> None:
    report = GoldenReport(250, 0.9, 0.7, 0.81298, 0, ())
    enforce(report, QualityGate(min_f1=0.81298))
    with pytest.raises(ModelLoadFailed) as caught:
        enforce(report, QualityGate(min_f1=0.813))
    assert str(caught.value) == "F1 0.812 on golden.jsonl (250 texts), quality_gate wants 0.813"


def test_a_score_as_people_would_write_it_passes_its_own_gate() -> None:
    """Nine of ten is 0.9, not a little less."""
    for right in range(11):
        examples = [Example("x", (placed("X", 0, 1, "x"),))] * 10
        found = [[span("X" if number < right else "Y", 0, 1, "x")] for number in range(10)]
        enforce(score(examples, found), QualityGate(min_f1=right / 10))


def test_a_reason_is_of_a_sane_length() -> None:
    """However long the texts and however many the entities."""
    text = "wörd " * 10_000
    example = Example(text, tuple(placed("L" * 300, 0, end, text) for end in range(1, 4000)))
    report = score([example] * 20, [[span("X", 0, 50_000, text)] * 500] * 20)
    assert report.differing == 20
    assert len(report.differences) == 3
    assert len(str(report)) <= 1001


# --- running ---


@dataclass
class Model:
    """Answers with the spans that it was given for a text."""

    known: dict[str, list[Span]]
    calls: list[tuple[int, SpanOptions]] = field(default_factory=list)
    broken: bool = False
    closed: bool = False

    async def spans(
        self,
        texts: Sequence[str],
        options: SpanOptions,
        *,
        deadline: float | None,
        priority: int | None = None,
    ) -> SpanAnswer:
        self.calls.append((len(texts), options))
        if self.broken:
            raise InferenceFailed("probe", "no")
        return SpanAnswer(
            [self.known.get(text, []) for text in texts], CallStatistics(0, 0, 0, 0, 0)
        )

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("configured", "used"),
    [
        (None, Strategy.MAX),
        (Strategy.NONE, Strategy.MAX),
        (Strategy.FIRST, Strategy.FIRST),
    ],
)
async def test_the_model_s_own_strategy_is_used(
    tmp_path: Path, configured: Strategy | None, used: Strategy
) -> None:
    """Offsets in code points, whatever the model's own unit is."""
    path = written(tmp_path / "golden.jsonl", {"text": TEXT, "entities": []})
    config = ModelConfig(aggregation_strategy=configured, offset_unit=OffsetUnit.BYTE)
    model = Model({})
    assert (await check_golden(model, path, config)).f1 == 1
    assert model.calls == [(1, SpanOptions(used))]
    assert model.calls[0][1].offset_unit is OffsetUnit.CODEPOINT


async def test_many_texts_are_run_in_parts(tmp_path: Path) -> None:
    texts = [f"{number} x" for number in range(TEXTS_PER_CALL + 3)]
    lines = [{"text": text, "entities": [{"label": "N", "text": text[:-2]}]} for text in texts]
    model = Model({text: [span("N", 0, len(text) - 2, text)] for text in texts[:-1]})
    report = await check_golden(model, written(tmp_path / "golden.jsonl", *lines), ModelConfig())
    assert [count for count, _ in model.calls] == [TEXTS_PER_CALL, 3]
    assert report.texts == len(texts)
    assert [each.text for each in report.differences] == [texts[-1]]


async def test_a_model_that_fails_on_a_text(tmp_path: Path) -> None:
    path = written(tmp_path / "golden.jsonl", {"text": TEXT, "entities": []})
    with pytest.raises(ModelLoadFailed, match=r"golden\.jsonl cannot be run: .*failed to run: no"):
        await check_golden(Model({}, broken=True), path, ModelConfig())


async def test_a_gate_is_asked_only_where_there_is_one(tmp_path: Path) -> None:
    path = written(
        tmp_path / "golden.jsonl",
        {"text": TEXT, "entities": [{"label": "ORG", "start": 0, "end": 5}]},
    )
    files = VersionFiles(1, tmp_path / "model.onnx", {}, golden=path)
    bare = VersionFiles(1, tmp_path / "model.onnx", {})
    gated = ModelConfig(quality_gate=QualityGate(min_f1=0.5))
    assert await check_gate(Model({}), files, ModelConfig()) is None
    assert await check_gate(Model({}), bare, ModelConfig()) is None
    with pytest.raises(ModelLoadFailed, match=r"quality_gate needs golden\.jsonl beside the model"):
        await check_gate(Model({}), bare, gated)
    with pytest.raises(ModelLoadFailed, match=r"F1 0\.000 on golden\.jsonl .* wants 0\.5"):
        await check_gate(Model({}), files, gated)
    report = await check_gate(Model({TEXT: [span("ORG", 0, 5)]}), files, gated)
    assert report is not None
    assert report.f1 == 1


@pytest.mark.parametrize(
    ("right_before", "right_after", "allowed", "passes"),
    [(10, 10, 0.0, True), (10, 9, 0.1, True), (10, 9, 0.09, False), (8, 9, 0.0, True)],
)
async def test_a_conversion_may_lose_so_much(
    tmp_path: Path, right_before: int, right_after: int, allowed: float, passes: bool
) -> None:
    """F1 of n of 10 entities found, and a wrong one for each of the others, is n / 10."""
    texts = [f"{number} x" for number in range(10)]
    lines = [{"text": text, "entities": [{"label": "N", "text": text[:1]}]} for text in texts]
    files = VersionFiles(1, None, {}, golden=written(tmp_path / "golden.jsonl", *lines))
    config = ModelConfig(optimization=Optimization(precision=Precision.INT8, max_f1_loss=allowed))

    def model(right: int) -> Model:
        found = ["N"] * right + ["M"] * (10 - right)
        return Model(
            {text: [span(label, 0, 1, text)] for text, label in zip(texts, found, strict=True)}
        )

    plain = model(right_before)

    async def load(_: VersionFiles) -> Model:
        return plain

    before = await answers_before(files, config, load)
    assert before is not None
    assert plain.closed
    check = check_gate(model(right_after), files, config, before=before)
    if passes:
        assert await check is None
        return
    with pytest.raises(ModelLoadFailed) as refused:
        await check
    assert str(refused.value) == (
        "its conversion to int8 loses too much: F1 0.9000 on golden.jsonl, 1.0000 before it; "
        'max_f1_loss allows 0.09; 1 differ, first: "9 x": missing N "9" [0, 1); extra M "9" [0, 1)'
    )


async def test_nothing_is_asked_before_without_conversion_or_texts() -> None:
    async def load(_: VersionFiles) -> Model:
        pytest.fail("it was loaded")

    assert await answers_before(None, ModelConfig(), load) is None
    assert await answers_before(VersionFiles(1, None, {}), ModelConfig(), load) is None
