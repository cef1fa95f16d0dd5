"""The unary methods of nerve.v1, against HTTP's answers and against its .proto's words."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
import pytest_asyncio

from grpc_calls import LISTENING, Caller, calling, port_of, refusal, trailers
from nerve._proto.nerve.v1 import nerve_pb2 as pb

if TYPE_CHECKING:
    from pathlib import Path

    from api.conftest import Client, Repository, Serve

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXTS = ["Zoë met 李明 in Paris.", "german israel company music", "x " * 700]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(
    tmp_path_factory: pytest.TempPathFactory, tiny_models: Path
) -> AsyncIterator[Client]:
    """`bert`, which is the default model, in two versions, `rule`, and some that cause trouble."""
    from api.conftest import Repository, serving  # noqa: PLC0415  for typing only above

    repository = Repository(tmp_path_factory.mktemp("nerve"), tiny_models)
    repository.add("bert", version=1)
    repository.add("bert", of="distilbert", version=2, version_policy="all")
    repository.add_rule("rule")
    repository.add_patient("patient", max_queue_size=1)
    repository.add_broken("broken")
    async with serving(repository.path, default_model="bert", **LISTENING) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nerve(http: Client) -> AsyncIterator[Caller]:
    async with calling(port_of(http.server.announced)) as caller:
        yield caller


def same_score(one: float, other: float) -> bool:
    return bool(np.float32(one) == np.float32(other))


@pytest.mark.parametrize("strategy", ["simple", "first", "average", "max", "none"])
@pytest.mark.parametrize("unit", ["codepoint", "byte", "utf16"])
async def test_extract_is_predict_tokens_with_entities(
    http: Client, nerve: Caller, strategy: str, unit: str
) -> None:
    """All strategies and units: same texts, labels, offsets and float32 scores as over HTTP."""
    page = await http.predict_tokens(
        TEXTS, model="rule", aggregation_strategy=strategy, offset_unit=unit
    )
    options = pb.ExtractOptions(
        aggregation=f"AGGREGATION_{strategy.upper()}", offset_unit=f"OFFSET_UNIT_{unit.upper()}"
    )
    request = pb.ExtractRequest(model="rule", texts=TEXTS, options=options)
    answer = await nerve.call("Extract", request, pb.ExtractResponse)
    assert (answer.model, answer.version, answer.truncated_texts) == ("rule", "1", 1)
    assert len(answer.results) == len(TEXTS)
    for mine, theirs in zip(answer.results, page.json(), strict=True):
        assert len(mine.entities) == len(theirs)
        for entity, other in zip(mine.entities, theirs, strict=True):
            ((label, score),) = other["results"].items()
            assert (entity.text, entity.label) == (other["token"], label)
            assert (entity.start, entity.end) == (other["start"], other["end"])
            assert same_score(entity.score, score)
    assert sum(len(result.entities) for result in answer.results) > 0


async def test_extract_joins_pieces_by_default(nerve: Caller) -> None:
    """SIMPLE where nothing is said; code points; metadata and answer tell who answered."""
    request = pb.ExtractRequest(model="rule", texts=["😀 german university"])
    call = nerve.start("Extract", request)
    answer = pb.ExtractResponse.FromString(await call)
    (result,) = answer.results
    assert [(each.text, each.label, each.start, each.end) for each in result.entities] == [
        ("german", "PER", 2, 8),
        ("university", "WORK-OF-ART", 9, 19),
    ]
    told = dict(await call.trailing_metadata())
    assert len(told.pop("x-request-id")) == 32
    assert told == {"x-nerve-model": "rule", "x-nerve-model-version": "1"}


async def test_threshold_and_labels(nerve: Caller) -> None:
    """Only entities that score enough, and only those of the labels."""

    async def found(**options: Any) -> list[str]:
        request = pb.ExtractRequest(
            model="rule",
            texts=["german israel company university"],
            options=pb.ExtractOptions(**options),
        )
        answer = await nerve.call("Extract", request, pb.ExtractResponse)
        return [entity.label for entity in answer.results[0].entities]

    everything = await found()
    assert everything == ["PER", "WORK-OF-ART", "WORK-OF-ART"]
    assert await found(threshold=0.0) == everything
    assert await found(threshold=1.0) == []
    assert await found(labels=["WORK-OF-ART"]) == ["WORK-OF-ART"] * 2
    assert await found(labels=["PER", "WORK-OF-ART"]) == everything
    assert await found(threshold=0.8) == ["PER", "WORK-OF-ART"]  # the company has 0.70


@pytest.mark.parametrize("raw", [False, True])
async def test_predict_tokens_is_http_s(http: Client, nerve: Caller, raw: bool) -> None:
    """Tokens by default, all labels with raw scores, labels left out as asked."""
    page = await http.predict_tokens(TEXTS, model="rule", raw_scores=raw, ignore_labels=["B-PER"])
    request = pb.PredictTokensRequest(
        model="rule", texts=TEXTS, raw_scores=raw, ignore_labels=pb.Labels(labels=["B-PER"])
    )
    answer = await nerve.call("PredictTokens", request, pb.PredictTokensResponse)
    assert answer.truncated_texts == 1
    for mine, theirs in zip(answer.results, page.json(), strict=True):
        assert [(t.token, t.token_id, t.start, t.end) for t in mine.tokens] == [
            (t["token"], t["token_id"], t["start"], t["end"]) for t in theirs
        ]
        for one, other in zip(mine.tokens, theirs, strict=True):
            assert sorted(one.results) == sorted(other["results"])
            assert all(
                same_score(one.results[label], other["results"][label]) for label in one.results
            )
            assert len(one.results) == (5 if raw else 1)
    everything = pb.PredictTokensRequest(
        model="rule", texts=["german x"], ignore_labels=pb.Labels()
    )
    answer = await nerve.call("PredictTokens", everything, pb.PredictTokensResponse)
    assert [list(token.results) for token in answer.results[0].tokens] == [["B-PER"], ["O"]]


async def test_predict_is_http_s_in_code_points(http: Client, nerve: Caller) -> None:
    """Every token with all logits; labels in their order."""
    page = (await http.predict(TEXTS, model="rule", offset_unit="codepoint")).json()
    request = pb.PredictRequest(model="rule", texts=TEXTS)
    answer = await nerve.call("Predict", request, pb.PredictResponse)
    assert list(answer.labels) == ["O", "B-PER", "I-PER", "B-WORK-OF-ART", "I-WORK-OF-ART"]
    for mine, theirs in zip(answer.results, page["results"], strict=True):
        assert [(t.token, t.token_id, t.start, t.end, t.label) for t in mine.tokens] == [
            (*t["token_info"].values(), t["label"]) for t in theirs["tokens"]
        ]
        for one, other in zip(mine.tokens, theirs["tokens"], strict=True):
            assert list(map(np.float32, one.scores)) == list(map(np.float32, other["scores"]))
            assert same_score(one.score, other["score"])


async def test_models(http: Client, nerve: Caller) -> None:
    """The list and the status say what HTTP's do; no name means the default model."""
    page = (await http.get("/v1/models")).json()
    listed = await nerve.call("ListModels", pb.ListModelsRequest(), pb.ListModelsResponse)
    assert [(m.name, m.state, m.reason, list(m.versions), m.default) for m in listed.models] == [
        (m["name"], m["state"], m["reason"], m["versions"], m["default"]) for m in page["models"]
    ]
    assert [m.name for m in listed.models if m.default] == ["bert"]
    one = (await http.get("/v1/models/bert")).json()
    for request, sent in (
        (pb.GetModelRequest(), []),
        (pb.GetModelRequest(model="bert"), [("model-name", "rule")]),
        (pb.GetModelRequest(), [("model-name", "bert")]),
    ):
        status = await nerve.call("GetModel", request, pb.GetModelResponse, sent=sent)
        assert (status.name, status.task, status.state) == ("bert", one["task"], "READY")
        assert list(status.labels) == one["labels"]
        assert status.limits.max_tokens == one["limits"]["max_tokens"]
        assert not status.limits.HasField("stride")
        assert [version.version for version in status.versions] == ["1", "2"]
        assert all(version.device == "cpu" for version in status.versions)
        assert [v.limits.max_batch_size for v in status.versions] == [
            v["limits"]["max_batch_size"] for v in one["versions"]
        ]
    broken = await nerve.call("GetModel", pb.GetModelRequest(model="broken"), pb.GetModelResponse)
    assert broken.state == "UNAVAILABLE"
    assert broken.versions[0].reason
    assert not broken.versions[0].HasField("limits")
    assert not broken.HasField("limits")


async def test_who_answers(nerve: Caller) -> None:
    """By the request, else by the metadata, else the default model in its newest version."""

    async def answered(model: str, version: str, sent: list[tuple[str, str]]) -> tuple[str, str]:
        request = pb.ExtractRequest(model=model, version=version, texts=["x"])
        answer = await nerve.call("Extract", request, pb.ExtractResponse, sent=sent)
        return answer.model, answer.version

    rule, one = ("model-name", "rule"), ("model-version", "1")
    assert await answered("", "", []) == ("bert", "2")
    assert await answered("", "1", []) == ("bert", "1")
    assert await answered("bert", "1", []) == ("bert", "1")
    assert await answered("", "", [one]) == ("bert", "1")
    assert await answered("", "", [rule]) == ("rule", "1")
    assert await answered("bert", "", [one]) == ("bert", "1")
    assert await answered("bert", "", [("model-name", "bert"), one]) == ("bert", "1")
    assert await answered("bert", "", [rule, one]) == ("bert", "2")  # rule's version
    assert await answered("", "", [("model-name", ""), ("model-version", "")]) == ("bert", "2")


LONG = "word " * 700
OPTIONS = pb.ExtractOptions
BAD_OPTIONS: list[tuple[pb.ExtractOptions, str]] = [
    (OPTIONS(aggregation=6), "options.aggregation: expected a number from 0 to 5, got 6"),  # type: ignore[arg-type]  # any number is sent
    (OPTIONS(aggregation=-1), "options.aggregation: expected a number from 0 to 5, got -1"),  # type: ignore[arg-type]  # as above
    (OPTIONS(offset_unit=4), "options.offset_unit: expected a number from 0 to 3, got 4"),  # type: ignore[arg-type]  # as above
    (OPTIONS(truncation_side=3), "options.truncation_side: expected a number from 0 to 2"),  # type: ignore[arg-type]  # as above
    (OPTIONS(threshold=-0.5), "options.threshold: expected a score from 0 to 1, got -0.5"),
    (OPTIONS(threshold=1.5), "options.threshold: expected a score from 0 to 1, got 1.5"),
    (OPTIONS(threshold=math.nan), "options.threshold: expected a score from 0 to 1, got nan"),
    (OPTIONS(threshold=math.inf), "options.threshold: expected a score from 0 to 1, got inf"),
    (OPTIONS(labels=["XYZ"]), "'XYZ' is no label of 'rule'; it has PER, WORK-OF-ART"),
]


@pytest.mark.parametrize(("options", "text"), BAD_OPTIONS)
async def test_bad_options(nerve: Caller, options: pb.ExtractOptions, text: str) -> None:
    """INVALID_ARGUMENT that names the field and says what would be right."""
    request = pb.ExtractRequest(model="rule", texts=["a"], options=options)
    error = await refusal(nerve.start("Extract", request))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert text in str(error.details())
    assert trailers(error)["x-nerve-reason"] == "invalid_field"


async def test_refusals(nerve: Caller) -> None:
    """Codes, reasons and texts of what can be wrong with a request or a model."""
    status = grpc.StatusCode
    cases: list[tuple[pb.ExtractRequest, Any, grpc.StatusCode, str, str]] = [
        (pb.ExtractRequest(), [], status.INVALID_ARGUMENT, "empty_input", "texts: at least one"),
        (
            pb.ExtractRequest(texts=["a", ""]),
            [],
            status.INVALID_ARGUMENT,
            "empty_input",
            "texts[1]: at least one",
        ),
        (
            pb.ExtractRequest(texts=["a"] * 1025),
            [],
            status.INVALID_ARGUMENT,
            "too_many_inputs",
            "texts: 1025 texts in one request, at most 1024",
        ),
        (
            pb.ExtractRequest(texts=["a"], options=OPTIONS(labels=["PER"] * 1025)),
            [],
            status.INVALID_ARGUMENT,
            "invalid_field",
            "options.labels: expected at most 1024 of them, got 1025",
        ),
        (
            pb.ExtractRequest(texts=[LONG], options=OPTIONS(truncate=False)),
            [],
            status.INVALID_ARGUMENT,
            "text_too_long",
            "texts: a text of 1402 tokens, the model takes 128",
        ),
        (pb.ExtractRequest(texts=["a"], model="x"), [], status.NOT_FOUND, "model_not_found", "'x'"),
        (
            pb.ExtractRequest(texts=["a"], version="7"),
            [],
            status.NOT_FOUND,
            "version_not_found",
            "no version '7'; served versions: 1, 2",
        ),
        (
            pb.ExtractRequest(texts=["a"], model="broken"),
            [],
            status.UNAVAILABLE,
            "model_not_ready",
            "'broken' is UNAVAILABLE",
        ),
        (
            pb.ExtractRequest(texts=["a"]),
            [("x-nerve-priority", "0")],
            status.INVALID_ARGUMENT,
            "invalid_field",
            "metadata x-nerve-priority: expected",
        ),
        (
            pb.ExtractRequest(texts=["german early"], model="rule"),
            [],
            status.INTERNAL,
            "inference_failed",
            "'rule' failed to run",
        ),
        (
            pb.ExtractRequest(texts=["night"], model="rule"),
            [],
            status.INTERNAL,
            "non_finite_scores",
            "NaN",
        ),
    ]
    for request, sent, code, reason, text in cases:
        error = await refusal(nerve.start("Extract", request, sent=sent))
        assert (error.code(), trailers(error)["x-nerve-reason"]) == (code, reason)
        assert text in str(error.details())
        assert "retry-after" not in trailers(error)
    error = await refusal(nerve.start("Extract", b"\x1a\x02\xff\xfe"))
    assert error.code() == status.INVALID_ARGUMENT
    assert error.details() == (
        "the request is not a valid nerve.v1.ExtractRequest: broken wire format or invalid UTF-8"
    )
    error = await refusal(nerve.start("GetModel", pb.GetModelRequest(model="x" * 9000)))
    assert error.code() == status.NOT_FOUND
    error = await refusal(nerve.start("Nothing", b""))
    assert error.code() == status.UNIMPLEMENTED
    well = await nerve.call("Extract", pb.ExtractRequest(texts=["a"]), pb.ExtractResponse)
    assert len(well.results) == 1


async def test_overload_says_when_to_come_back(http: Client, nerve: Caller) -> None:
    """RESOURCE_EXHAUSTED at once, in the words of HTTP and in those of gRPC's retry policies."""
    request = pb.ExtractRequest(model="patient", texts=["a"])
    waiting = nerve.start("Extract", request)
    await http.queued("patient", 1)
    error = await refusal(nerve.start("Extract", request))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    told = trailers(error)
    assert told["x-nerve-reason"] == "queue_full"
    assert 1 <= int(told["retry-after"]) <= 60
    assert int(told["grpc-retry-pushback-ms"]) == 1000 * int(told["retry-after"])
    waiting.cancel()
    await http.queued("patient", 0)


async def test_deadlines_and_cancellation_reach_the_queue(http: Client, nerve: Caller) -> None:
    """A caller that gives up, in either way, leaves nothing in the queue; the next one is served."""
    request = pb.ExtractRequest(model="patient", texts=["a"])
    error = await refusal(nerve.start("Extract", request, timeout=0.3))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await http.queued("patient", 0)
    waiting = nerve.start("Extract", request)
    await http.queued("patient", 1)
    waiting.cancel()
    await http.queued("patient", 0)
    two = pb.ExtractRequest(model="patient", texts=["a", "b"])
    answer = await nerve.call("Extract", two, pb.ExtractResponse)
    assert len(answer.results) == 2


@pytest.mark.asyncio(loop_scope="function")
async def test_the_server_s_own_deadline(repository: Repository, serve: Serve) -> None:
    """request_timeout_s ends a call that has no deadline or a later one."""
    repository.add_patient("patient")
    http = await serve(repository.path, request_timeout_s=0.2, **LISTENING)
    async with calling(port_of(http.server.announced)) as nerve:
        for timeout in (None, 15.0):
            request = pb.ExtractRequest(texts=["a"])
            error = await refusal(nerve.start("Extract", request, timeout=timeout))
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            assert trailers(error)["x-nerve-reason"] == "deadline_exceeded"


async def test_counts(http: Client, nerve: Caller) -> None:
    """Calls are counted under the service's name."""

    async def count(status: str) -> float:
        return await http.metric("nerve_requests_total", dialect="nerve-grpc", status=status)

    counted = {status: await count(status) for status in ("OK", "ERROR")}
    await nerve.call("Extract", pb.ExtractRequest(texts=["a"]), pb.ExtractResponse)
    await refusal(nerve.start("Extract", pb.ExtractRequest()))
    for status, before in counted.items():
        assert await count(status) == before + 1
