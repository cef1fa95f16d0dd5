"""One version end to end: opened from files, labelled, warmed up, and tagging texts."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from prometheus_client import CollectorRegistry

from nerve.config.model import ModelConfig, TokenizerConfig, WarmupSample
from nerve.errors import (
    DeadlineExceeded,
    ModelLoadFailed,
    ModelUnloaded,
    NerveError,
    NonFiniteScores,
    TextTooLong,
    TokenizationFailed,
)
from nerve.metrics.engine import EngineMetrics
from nerve.model import NerModel, run_times
from nerve.offload import INLINE_CHARACTERS, INLINE_TOKENS
from nerve.opening import open_model
from nerve.repository.layout import read_model, scan
from nerve.types import CutOptions, Row, RowResult, SpanOptions
from nerve.words import OffsetUnit, Strategy

MODELS = Path(__file__).parents[1] / "models"
VOCABULARY = 1500
MakeGraph = Callable[..., Path]
ALL = SpanOptions(Strategy.NONE, frozenset())


async def opened(folder: Path, config: ModelConfig | None = None) -> NerModel:
    """The version in a flat folder, named `probe`."""
    files = read_model(scan(folder)).versions[1]
    metrics = EngineMetrics(CollectorRegistry())
    return await open_model("probe", files, config or ModelConfig(), metrics=metrics)


@asynccontextmanager
async def serving(folder: Path, config: ModelConfig | None = None) -> AsyncIterator[NerModel]:
    model = await opened(folder, config)
    try:
        yield model
    finally:
        await model.aclose()


async def reason(folder: Path, config: ModelConfig | None = None) -> str:
    """Why a version does not load; an engine that was opened for it must be closed again."""
    with pytest.raises(ModelLoadFailed) as caught:
        await opened(folder, config)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "worker-probe"]
    assert not [each for each in threading.enumerate() if each.name.startswith("nerve-probe")]
    return str(caught.value)


def change(folder: Path, name: str, **values: object) -> None:
    """Set keys of a JSON file; None takes them out."""
    file = folder / name
    value = {**json.loads(file.read_text()), **values}
    file.write_text(json.dumps({key: each for key, each in value.items() if each is not None}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A flat export folder with a real model."""
    return Path(shutil.copytree(MODELS / "bert", tmp_path / "ner"))


@pytest.fixture
def marked(folder: Path, table_graph: MakeGraph) -> Path:
    """The same with a graph of nine labels that gives token id n the label n modulo nine."""
    table = np.zeros((VOCABULARY, 9), dtype=np.float32)
    table[np.arange(VOCABULARY), np.arange(VOCABULARY) % 9] = 5
    table_graph(folder / "model.onnx", table)
    return folder


@pytest.fixture(autouse=True)
def _no_engine_is_left() -> Iterator[None]:
    yield
    assert not [each for each in threading.enumerate() if each.name.startswith("nerve-probe")]


# --- what is told of a version ---


async def test_info_comes_from_the_files(folder: Path) -> None:
    """Without any config."""
    async with serving(folder) as model:
        info = model.info
        assert (info.name, info.version, info.device) == ("probe", 1, "cpu")
        assert info.labels[:3] == ("O", "B-MISC", "I-MISC")
        assert len(info.labels) == 9
        assert (info.max_tokens, info.stride) == (128, None)
        assert (info.max_batch_size, info.max_num_tokens, info.max_queue_size) == (32, 8192, 2048)
        assert (info.aggregation_strategy, info.offset_unit) == (None, None)
        ((device, count),) = info.instances
        assert device is None
        assert count >= 1


async def test_info_follows_the_config(folder: Path) -> None:
    config = ModelConfig.model_validate(
        {
            "max_batch_size": 3,
            "max_num_tokens": 99,
            "dynamic_batching": {"max_queue_size": 5},
            "tokenizer": {"max_length": 20, "stride": 4},
            "labels": list("ABCDEFGHI"),
            "aggregation_strategy": "max",
            "offset_unit": "byte",
        }
    )
    async with serving(folder, config) as model:
        info = model.info
        assert info.labels == tuple("ABCDEFGHI")
        assert (info.max_tokens, info.stride) == (20, 4)
        assert (info.max_batch_size, info.max_num_tokens, info.max_queue_size) == (3, 99, 5)
        assert (info.aggregation_strategy, info.offset_unit) == (Strategy.MAX, OffsetUnit.BYTE)


# --- labels ---


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param({"0": "O", "1": "B-X", "2": "I-X"}, ("O", "B-X", "I-X"), id="in order"),
        pytest.param({"2": "I-X", "0": "O", "1": "B-X"}, ("O", "B-X", "I-X"), id="by number"),
        pytest.param({"0": "O", "1": "", "2": "O"}, ("O", "", "O"), id="repeated and empty"),
        pytest.param({"0": 0, "1": 1, "2": 2}, ("0", "1", "2"), id="numbers as names"),
        pytest.param(None, ("LABEL_0", "LABEL_1", "LABEL_2"), id="no id2label"),
        pytest.param({}, ("LABEL_0", "LABEL_1", "LABEL_2"), id="empty id2label"),
    ],
)
async def test_labels_of_id2label(
    folder: Path, table_graph: MakeGraph, given: object, expected: tuple[str, ...]
) -> None:
    """In output order; where there are none, transformers' own names."""
    table_graph(folder / "model.onnx", np.zeros((VOCABULARY, 3), dtype=np.float32))
    change(folder, "config.json", id2label=given)
    async with serving(folder) as model:
        assert model.info.labels == expected


async def test_labels_without_config_json(folder: Path) -> None:
    (folder / "config.json").unlink()
    async with serving(folder) as model:
        assert model.info.labels == tuple(f"LABEL_{number}" for number in range(9))


async def test_labels_of_the_config_win(folder: Path) -> None:
    names = [f"B-{letter}" for letter in "ABCDEFGHI"]
    change(folder, "config.json", id2label={"7": "nonsense"})
    async with serving(folder, ModelConfig(labels=names)) as model:
        assert model.info.labels == tuple(names)


@pytest.mark.parametrize(
    ("id2label", "config", "words"),
    [
        pytest.param(
            {"0": "O", "1": "B"},
            None,
            "id2label in config.json has 2 labels, but the graph puts out 9",
            id="too few",
        ),
        pytest.param(
            {str(n): "O" for n in range(10)},
            None,
            "has 10 labels, but the graph puts out 9",
            id="many",
        ),
        pytest.param(
            {"0": "O"},
            ["O", "B"],
            "config.yaml names 2 labels, but the graph puts out 9",
            id="config",
        ),
        pytest.param({"0": "O", "2": "B"}, None, "must number its labels 0 to 1", id="a gap"),
        pytest.param({"1": "O", "2": "B"}, None, "must number its labels 0 to 1", id="from one"),
        pytest.param({"O": "0", "B": "1"}, None, "must number its labels 0 to 1", id="swapped"),
    ],
)
async def test_wrong_labels_are_refused(
    folder: Path, id2label: Mapping[str, str], config: list[str] | None, words: str
) -> None:
    change(folder, "config.json", id2label=id2label)
    assert words in await reason(folder, ModelConfig(labels=config))


async def test_a_graph_that_does_not_state_its_labels(folder: Path, table_graph: MakeGraph) -> None:
    """Names are then needed, and the warm-up counts what comes out."""
    table = np.zeros((VOCABULARY, 3), dtype=np.float32)
    table_graph(folder / "model.onnx", table, states_labels=False)
    change(folder, "config.json", id2label=None)
    assert "list them as `labels` in config.yaml" in await reason(folder)
    async with serving(folder, ModelConfig(labels=["O", "B", "I"])) as model:
        assert model.info.labels == ("O", "B", "I")
    assert "2 labels, but the graph puts out 3" in await reason(
        folder, ModelConfig(labels=["O", "B"])
    )


@pytest.mark.parametrize("labels", [["O"], ["O", "B", "I", "X"]])
async def test_wrong_labels_that_no_warm_up_finds(
    folder: Path, table_graph: MakeGraph, labels: list[str]
) -> None:
    """Without a warm-up the load or the first request finds out, by an error that can be told."""
    table = np.zeros((VOCABULARY, 3), dtype=np.float32)
    table[:, 2] = 1
    table_graph(folder / "model.onnx", table, states_labels=False)
    config = ModelConfig(labels=labels, model_warmup=[])

    async def attempt() -> None:
        async with serving(folder, config) as model:
            await model.spans(["Paris"], ALL, deadline=None)

    with pytest.raises(NerveError):
        await attempt()


# --- what does not load ---


async def test_a_version_with_a_problem(folder: Path) -> None:
    """The reason of the layout is the reason of the load."""
    (folder / "model.onnx").rename(folder / "a.onnx")
    shutil.copy(folder / "a.onnx", folder / "b.onnx")
    assert "several .onnx files" in await reason(folder)


async def test_a_missing_tokenizer_says_how_to_make_one(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    found = await reason(folder)
    assert "tokenizer.json is missing" in found
    assert "save_pretrained" in found


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json"]
)
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xff"])
async def test_a_broken_side_file_is_named(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    assert (await reason(folder)).startswith(f"{name} cannot be read: ")


@pytest.mark.parametrize(
    "name", ["tokenizer_config.json", "special_tokens_map.json", "config.json"]
)
async def test_side_files_may_be_missing(folder: Path, name: str) -> None:
    (folder / name).unlink()
    async with serving(folder) as model:
        answer = await model.spans(["Paris"], ALL, deadline=None)
        assert answer.spans[0]


async def test_a_broken_graph(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"no graph")
    assert "model.onnx cannot be loaded" in await reason(folder)


async def test_a_broken_graph_and_a_broken_tokenizer(folder: Path) -> None:
    """One reason is told; nothing of the other half is left."""
    (folder / "model.onnx").write_bytes(b"no graph")
    (folder / "tokenizer.json").write_bytes(b"{")
    assert "cannot be" in await reason(folder)


async def test_limits_that_contradict_each_other(folder: Path) -> None:
    config = ModelConfig(tokenizer=TokenizerConfig(max_length=500))
    assert "at most 128 tokens" in await reason(folder, config)


# --- warm-up ---


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
async def test_scores_that_are_no_numbers_are_refused_at_warm_up(
    folder: Path, table_graph: MakeGraph, value: float
) -> None:
    """A half-precision model that overflows."""
    table = np.zeros((VOCABULARY, 9), dtype=np.float32)
    table[2, 4] = value  # [CLS], in every text
    table_graph(folder / "model.onnx", table)
    found = await reason(folder)
    assert "warm-up failed" in found
    assert "NaN or infinite" in found


async def test_scores_that_are_no_numbers_fail_one_request(
    folder: Path, table_graph: MakeGraph
) -> None:
    """Only the text that leads to them."""
    table = np.zeros((VOCABULARY, 9), dtype=np.float32)
    table_graph(folder / "model.onnx", table)
    async with serving(folder) as model:
        answer = await model.tokens(["😀"], unit=OffsetUnit.BYTE, cut=CutOptions(), deadline=None)
    (bad,) = answer.texts[0].ids
    table[bad] = np.nan
    table_graph(folder / "model.onnx", table)
    async with serving(folder) as model:
        good = asyncio.create_task(model.spans(["Paris"], ALL, deadline=None))
        with pytest.raises(NonFiniteScores, match="'probe'"):
            await model.spans(["😀"], ALL, deadline=None)
        assert (await good).spans[0]


async def test_a_warm_up_that_fails_keeps_the_version_from_being_served(
    folder: Path, table_graph: MakeGraph
) -> None:
    """Its name is told, and what is most likely behind ids that the model does not have."""
    table_graph(folder / "model.onnx", np.zeros((5, 9), dtype=np.float32))
    samples = [WarmupSample(name="empty", text=""), WarmupSample(name="long", text="Paris")]
    found = await reason(folder, ModelConfig(model_warmup=samples))
    assert found.startswith("warm-up 'long' failed: ")
    assert "out of data bounds" in found
    assert found.endswith("with ids up to 1499, is probably that of another model")


# --- a tokenizer and a model that do not belong together ---


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("samples", [[], [WarmupSample()]])
async def test_an_id_that_the_model_does_not_have(
    folder: Path, table_graph: MakeGraph, samples: list[WarmupSample], special: bool
) -> None:
    """Even if no warm-up comes upon it: the highest one is tried."""
    config = ModelConfig(
        model_warmup=samples, tokenizer=TokenizerConfig(add_special_tokens=special)
    )
    table_graph(folder / "model.onnx", np.zeros((VOCABULARY - 1, 9), dtype=np.float32))
    found = await reason(folder, config)
    assert found.startswith("tokenizer.json has ids up to 1499, but the model fails on id 1499: ")
    assert "the tokenizer of another model" in found
    assert "out of data bounds" in found
    table_graph(folder / "model.onnx", np.zeros((VOCABULARY, 9), dtype=np.float32))
    async with serving(folder, config) as model:
        assert model.statistics().rows == 0


async def test_added_tokens_count(folder: Path) -> None:
    """The model was not resized for them."""
    file = folder / "tokenizer.json"
    value = json.loads(file.read_text())
    value["added_tokens"].append({**value["added_tokens"][0], "id": 1500, "content": "[NEW]"})
    file.write_text(json.dumps(value))
    change(folder, "config.json", vocab_size=None)
    assert "the model fails on id 1500" in await reason(folder)


async def test_a_vocabulary_that_config_json_knows_to_be_smaller(folder: Path) -> None:
    """Told without a run: a GPU reads beyond the embedding without a word."""
    change(folder, "config.json", vocab_size=VOCABULARY - 1)
    found = await reason(folder)
    assert found.startswith("tokenizer.json has ids up to 1499, but vocab_size in config.json is ")
    assert "the tokenizer of another model" in found


@pytest.mark.parametrize("size", [VOCABULARY, VOCABULARY + 8, None, "many", 0])
async def test_an_embedding_may_be_larger_than_the_vocabulary(
    folder: Path, table_graph: MakeGraph, size: object
) -> None:
    """Many are padded; nonsense in config.json tells nothing."""
    table_graph(folder / "model.onnx", np.zeros((VOCABULARY + 8, 9), dtype=np.float32))
    change(folder, "config.json", vocab_size=size)
    async with serving(folder) as model:
        assert (await model.spans(["Paris"], ALL, deadline=None)).spans[0]


# --- a load that nobody waits for any more ---


async def test_a_cancelled_load_leaves_nothing(bundled: Path) -> None:
    """Neither threads nor sessions, wherever it is."""
    for turns in (1, 5, 50, 500):
        before = set(threading.enumerate())  # a server of another ring may be running
        load = asyncio.create_task(opened(bundled / "minilm-ner"))
        for _ in range(turns):
            await asyncio.sleep(0)
        threads = [each for each in set(threading.enumerate()) - before if "nerve-" in each.name]
        load.cancel()
        with pytest.raises(asyncio.CancelledError):
            await load
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)


async def test_external_data_is_not_looked_at_again(folder: Path) -> None:
    """The files that the layout names are handed on."""
    graph = onnx.load(str(folder / "model.onnx"))
    onnx.save_model(graph, str(folder / "model.onnx"), save_as_external_data=True, location="w.bin")
    files = replace(read_model(scan(folder)).versions[1], external={"w.bin": folder / "w.bin"})
    metrics = EngineMetrics(CollectorRegistry())
    model = await open_model("probe", files, ModelConfig(), metrics=metrics)
    try:
        before = await model.spans(["Paris"], ALL, deadline=None)
        (folder / "w.bin").write_bytes(b"")
        after = await model.spans(["Paris"], ALL, deadline=None)
    finally:
        await model.aclose()
    assert [span[:6] for span in before.spans[0]] == [span[:6] for span in after.spans[0]]


async def test_no_warm_up(folder: Path) -> None:
    async with serving(folder, ModelConfig(model_warmup=[])) as model:
        assert (await model.spans(["Paris"], ALL, deadline=None)).spans[0]


async def test_a_warm_up_in_batches(folder: Path) -> None:
    """More rows than a batch holds, more than once; none of it is in the statistics."""
    config = ModelConfig(max_batch_size=2, model_warmup=[WarmupSample(batch_size=5, count=2)])
    async with serving(folder, config) as model:
        assert model.statistics().rows == 0
        await model.spans(["Paris", "Rome"], ALL, deadline=None)
        assert model.statistics().rows == 2


# --- answers ---


async def test_every_token_gets_the_label_of_its_id(marked: Path) -> None:
    """Several texts in one call, answers in order, offsets of each text's own."""
    texts = ["Paris in May", "", "Zürich 😀", "[SEP] x"]
    async with serving(marked) as model:
        spans = (await model.spans(texts, ALL, deadline=None)).spans
        tags = await model.tokens(texts, unit=OffsetUnit.CODEPOINT, cut=CutOptions(), deadline=None)
        labels = model.info.labels
    assert len(spans) == len(tags.texts) == 4
    for text, found, tagged in zip(texts, spans, tags.texts, strict=True):
        assert [span.token_id for span in found] == tagged.ids
        assert [span.label for span in found] == [labels[number % 9] for number in tagged.ids]
        assert tagged.best.tolist() == [number % 9 for number in tagged.ids]
        assert [span.text for span in found] == [
            text[a:b] for a, b in zip(tagged.start, tagged.end, strict=True)
        ]
    assert spans[1] == []
    assert "".join(span.text for span in spans[2]) == "Zürich😀"


async def test_a_call_s_statistics(marked: Path) -> None:
    """Tokens with special ones, cut texts, and what it took."""
    config = ModelConfig(tokenizer=TokenizerConfig(max_length=6))
    async with serving(marked, config) as model:
        answer = await model.spans(["a", "a " * 50, ""], ALL, deadline=None)
        statistics = answer.statistics
        assert (statistics.tokens, statistics.truncated_texts) == (3 + 6 + 2, 1)
        for duration in (statistics.tokenization_s, statistics.queue_s, statistics.inference_s):
            assert duration >= 0
        with pytest.raises(TextTooLong):
            await model.spans(
                ["a " * 50],
                SpanOptions(Strategy.NONE, cut=CutOptions(truncate=False)),
                deadline=None,
            )


async def test_long_texts_in_windows(marked: Path) -> None:
    """Every token once, in text order, and nothing counts as cut."""
    text = " ".join("abcdefghijklmnopqrstuvwxyz" * 3)
    config = ModelConfig(tokenizer=TokenizerConfig(max_length=12, stride=4), max_batch_size=3)
    async with serving(marked, config) as model:
        answer = await model.spans([text, "x", text], ALL, deadline=None)
    assert [span.text for span in answer.spans[0]] == text.split(" ")
    assert [span.text for span in answer.spans[1]] == ["x"]
    assert [span[:6] for span in answer.spans[2]] == [span[:6] for span in answer.spans[0]]
    assert answer.statistics.truncated_texts == 0


async def test_long_calls_leave_the_event_loop_and_change_nothing(marked: Path) -> None:
    """More characters and tokens than are handled on the loop; answers are those of one by one."""
    texts = [f"{number} Paris in May" for number in range(INLINE_TOKENS // 4)]
    assert sum(map(len, texts)) > INLINE_CHARACTERS
    async with serving(marked) as model:
        together = await model.spans(texts, ALL, deadline=None)
        assert together.statistics.tokens > INLINE_TOKENS
        for number in (0, 7, len(texts) - 1):
            alone = await model.spans([texts[number]], ALL, deadline=None)
            assert [span[:6] for span in alone.spans[0]] == [
                span[:6] for span in together.spans[number]
            ]


async def test_rows_without_any_token(marked: Path) -> None:
    """No special tokens and no text: nothing to run, alone or beside others."""
    config = ModelConfig(tokenizer=TokenizerConfig(add_special_tokens=False))
    async with serving(marked, config) as model:
        answer = await model.spans(["", "x", " "], ALL, deadline=None)
        assert [len(spans) for spans in answer.spans] == [0, 1, 0]
        before = model.statistics().rows
        answer = await model.spans([""], ALL, deadline=None)
        assert answer.spans == [[]]
        assert answer.statistics.tokens == 0
        assert model.statistics().rows == before


async def test_a_text_that_is_none(marked: Path) -> None:
    """Half a surrogate pair fails its own call."""
    async with serving(marked) as model:
        with pytest.raises(TokenizationFailed):
            await model.spans(["\ud800"], ALL, deadline=None)
        assert (await model.spans(["x"], ALL, deadline=None)).spans[0]


async def test_a_deadline_that_has_passed(marked: Path) -> None:
    async with serving(marked) as model:
        with pytest.raises(DeadlineExceeded):
            await model.spans(["x"], ALL, deadline=time.monotonic() - 1)


async def test_a_closed_model(marked: Path) -> None:
    model = await opened(marked)
    await model.aclose()
    with pytest.raises(ModelUnloaded):
        await model.spans(["x"], ALL, deadline=None)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "xlm-roberta", "deberta-v2"])
async def test_every_family_answers_alike_alone_and_in_company(family: str) -> None:
    """Spans of a text are those that it gets beside strangers; scores to 1e-5."""
    texts = ["Angela Merkel visited Paris.", "x", "Ada Lovelace works at Siemens in Zürich 😀 " * 4]
    options = SpanOptions(Strategy.SIMPLE, frozenset())
    async with serving(MODELS / family) as model:
        assert model.info.max_tokens == 128
        together = await model.spans(texts, options, deadline=None)
        for text, company in zip(texts, together.spans, strict=True):
            alone = (await model.spans([text], options, deadline=None)).spans[0]
            assert [(span.label, span.start, span.end) for span in alone] == [
                (span.label, span.start, span.end) for span in company
            ]
            np.testing.assert_allclose(
                [span.score for span in alone], [span.score for span in company], rtol=0, atol=1e-5
            )


# --- what a call is charged with ---


def ran(queue_s: float, inference_s: float, padding_s: float = 0.0) -> RowResult:
    return RowResult(np.zeros((1, 1), np.float32), queue_s, inference_s, padding_s)


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([], (0.0, 0.0, 0.0)),
        ([ran(2.0, 4.0, 1.0)], (2.0, 1.0, 3.0)),
        ([ran(2.0, 4.0, 1.0)] * 3, (2.0, 1.0, 3.0)),
        # two runs, one after the other, and with one of somebody else in between
        ([ran(2.0, 4.0, 1.0), ran(6.0, 2.0, 0.5)], (2.0, 1.5, 4.5)),
        ([ran(2.0, 4.0), ran(9.0, 2.0)], (5.0, 0.0, 6.0)),
        # side by side on two instances
        ([ran(2.0, 4.0, 1.0), ran(2.0, 4.0, 3.0)], (2.0, 2.0, 2.0)),
        ([ran(0.0, 0.0)], (0.0, 0.0, 0.0)),
    ],
)
def test_runs_count_once_and_whole(
    results: list[RowResult], expected: tuple[float, float, float]
) -> None:
    """However many rows of the call were in them; all is the time until the last one's end."""
    assert run_times(results) == pytest.approx(expected)


@pytest.mark.parametrize("question", ["both", "logits", "spans", "tokens"])
async def test_the_stages_of_a_call_make_up_its_time(folder: Path, question: str) -> None:
    """In no more than it took from outside; each takes some."""
    async with serving(folder, ModelConfig(max_batch_size=2)) as model:
        texts = ["Ada Lovelace was here."] * 5
        began = time.monotonic()
        if question == "spans":
            statistics = (await model.spans(texts, ALL, deadline=None)).statistics
        elif question == "tokens":
            unit, cut = OffsetUnit.BYTE, CutOptions()
            statistics = (await model.tokens(texts, unit=unit, cut=cut, deadline=None)).statistics
        elif question == "both":
            statistics = (await model.spans_and_tokens(texts, ALL, deadline=None))[0].statistics
        else:
            rows = [Row(np.arange(3, 9))] * 5
            statistics = (await model.logits(rows, deadline=None)).statistics
        took_s = time.monotonic() - began
    runs, has_text = statistics.runs, question != "logits"
    assert runs.padding_s > 0.0
    assert runs.running_s > 0.0
    assert runs.waiting_s >= 0.0
    assert (statistics.tokenization_s > 0.0, statistics.decoding_s > 0.0) == (has_text, has_text)
    text_s = 5 * (statistics.tokenization_s + statistics.decoding_s)
    assert text_s + sum(runs) <= took_s
