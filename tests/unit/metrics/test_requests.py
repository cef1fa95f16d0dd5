"""What exchanges leave behind, and the words that may be in it."""

from __future__ import annotations

import contextlib

import pytest
from prometheus_client import CollectorRegistry

from nerve import errors
from nerve.exchange import Exchange, Exchanges
from nerve.frontend.status import TABLE
from nerve.metrics.copies import Copies
from nerve.metrics.engine import EngineMetrics
from nerve.metrics.refusals import OF_PROTOCOLS, REASONS
from nerve.metrics.requests import RequestMetrics
from nerve.metrics.tei import TeiMetrics
from nerve.metrics.triton import reason_of
from nerve.metrics.versions import VersionMetrics
from nerve.types import NO_RUNS, CacheUse, CallStatistics, RunTimes, TextCost


def exchange(protocol: str = "http", **facts: object) -> Exchange:
    made = Exchange(protocol, "baseten", "POST", "/predict_tokens")
    for name, value in facts.items():
        setattr(made, name, value)
    return made


def test_requests_in_flight() -> None:
    """By protocol; one inside of another counts in both, whatever becomes of them."""
    registry = CollectorRegistry()
    exchanges = Exchanges([RequestMetrics(registry)])

    def now() -> list[float | None]:
        name = "nerve_in_flight_requests"
        return [
            registry.get_sample_value(name, {"protocol": each}) for each in ("grpc", "http", "mcp")
        ]

    assert now() == [0, 0, 0]
    with exchanges.open(exchange(counts=False), {}):
        with contextlib.suppress(KeyError), exchanges.open(exchange("mcp"), {}):
            assert now() == [0, 1, 1]
            raise KeyError
        assert now() == [0, 1, 0]
    assert now() == [0, 0, 0]


@pytest.mark.parametrize(("status", "shown"), [("429", "429"), ("OK", "OK"), ("", "cancelled")])
def test_a_request_has_a_status(status: str, shown: str) -> None:
    """Also one whose caller has left: nothing was answered."""
    registry = CollectorRegistry()
    with Exchanges([RequestMetrics(registry)]).open(exchange(status=status), {}):
        pass
    labels = {"dialect": "baseten", "status": shown}
    assert registry.get_sample_value("nerve_requests_total", labels) == 1


def test_a_call_whose_caller_has_left_is_cancelled() -> None:
    """Whatever its front end took it for before that."""
    registry = CollectorRegistry()
    with Exchanges([RequestMetrics(registry)]).open(exchange(status="ERROR", left=True), {}):
        pass
    labels = {"dialect": "baseten", "status": "cancelled"}
    assert registry.get_sample_value("nerve_requests_total", labels) == 1


TEI_WORDS = {
    "queue_full": "overloaded",
    "wait_too_long": "overloaded",
    "server_busy": "overloaded",
    "rate_limited": "overloaded",
    "async_queue_full": "overloaded",
    "too_many_inputs": "batch_size",
    "text_too_long": "validation",
    "body_too_large": "validation",
    "empty_input": "validation",
    "invalid_field": "validation",
    "malformed_body": "validation",
    "tokenization_failed": "tokenization",
    "inference_failed": "inference",
    "deadline_exceeded": "inference",
}


@pytest.mark.parametrize("reason", sorted(TEI_WORDS))
def test_words_of_text_embeddings_inference(reason: str) -> None:
    """Of a request to a route of that server's, whether or not it came as far as a model."""
    registry = CollectorRegistry()
    exchanges = Exchanges([TeiMetrics(registry, EngineMetrics(registry).queues)])
    with exchanges.open(exchange(reason=reason), {}):
        pass
    with exchanges.open(exchange(reason="", left=True, info=object()), {}):
        pass  # is no failure
    failures = {
        sample.labels["err"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "te_request_failure"
    }
    assert failures == {TEI_WORDS[reason]: 1}
    assert registry.get_sample_value("te_request_count", {"method": "single"}) == 2


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_refusals_are_counted_from_nothing(reason: str) -> None:
    registry = CollectorRegistry()
    exchanges, labels = Exchanges([RequestMetrics(registry)]), {"reason": reason}
    assert registry.get_sample_value("nerve_refused_requests_total", labels) == 0
    with exchanges.open(exchange(status="503", reason=reason), {}):
        pass
    assert registry.get_sample_value("nerve_refused_requests_total", labels) == 1
    with exchanges.open(exchange(status="503", reason=reason, counts=False), {}):
        pass
    assert registry.get_sample_value("nerve_refused_requests_total", labels) == 1


@pytest.mark.parametrize("reason", ["", "inference_failed", "invalid_field", "made_up"])
def test_what_is_no_refusal_makes_no_series(reason: str) -> None:
    registry = CollectorRegistry()
    with Exchanges([RequestMetrics(registry)]).open(exchange(status="500", reason=reason), {}):
        pass
    labels = {"reason": reason}
    assert registry.get_sample_value("nerve_refused_requests_total", labels) is None


def test_every_overload_is_a_refusal() -> None:
    """And every reason is one of an error, or of a protocol."""
    every = {kind.reason for kind in TABLE}
    assert {
        errors.QueueFull.reason,
        errors.RateLimited.reason,
        errors.AccessDenied.reason,
    } <= REASONS
    assert every >= REASONS - OF_PROTOCOLS


@pytest.mark.parametrize("kind", sorted(TABLE, key=str))
def test_every_error_is_a_failure_to_triton(kind: type[errors.NerveError]) -> None:
    expected = "OTHER"
    if issubclass(kind, errors.ServerFault | errors.TransformDown):
        expected = "BACKEND"
    elif kind.reason in ("queue_full", "wait_too_long", "server_busy", "deadline_exceeded"):
        expected = "REJECTED"
    assert reason_of(kind.reason) == expected
    assert reason_of("cancelled") == "CANCELED"


COST = CallStatistics(
    9, 0, 0.25, 0.5, 0.75, 0.125,
    runs=RunTimes(2.0, 0.1, 4.0), each=(TextCost(4, truncated=False), TextCost(5, truncated=False)),
)  # fmt: skip
ROWS = COST._replace(each=(), tokenization_s=0.0)
STAGES = ("queue", "tokenize", "decode")


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        (COST, (2.0, 0.5, 0.25)),
        (ROWS, (2.0, None, None)),
        (COST._replace(cached=CacheUse(1, 0.1)), (2.0, 0.5, 0.25)),
        (COST._replace(cached=CacheUse(2, 0.1), runs=NO_RUNS), (None, None, None)),
    ],
)
def test_stages_of_a_request(
    cost: CallStatistics, expected: tuple[float | None, float | None, float | None]
) -> None:
    """Of its texts together; rows of ids are not tokenized, and an answer that was there not run."""
    registry = CollectorRegistry()
    VersionMetrics(registry, Copies()).of("ner", 1).answered(2, cost)
    labels = {"model": "ner", "version": "1"}
    for stage, took in zip(STAGES, expected, strict=True):
        count = registry.get_sample_value(f"nerve_{stage}_seconds_count", labels)
        assert count == (took is not None)
        assert registry.get_sample_value(f"nerve_{stage}_seconds_sum", labels) == (took or 0)


def test_names_of_text_embeddings_inference() -> None:
    """With its buckets and its words."""
    registry = CollectorRegistry()
    engines = EngineMetrics(registry)
    tei = TeiMetrics(registry, engines.queues)
    engines.on_run.append(tei.ran)
    exchanges = Exchanges([tei])
    for facts in (
        {"cost": COST, "texts": 2},
        {"cost": COST._replace(each=COST.each[:1]), "texts": 1},
        {"reason": "queue_full"},
        {"reason": "too_many_inputs"},
        {"reason": "not_served"},
    ):
        with exchanges.open(exchange(**facts), {}):
            pass
    engines.of("ner", 1).observe([3, 5], 10, 0.1)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"te_{name}", labels)

    assert value("request_count", method="batch") == 1
    assert value("request_count", method="single") == 3
    assert value("request_success", method="single") == 1
    assert value("request_failure", err="overloaded") == 1
    assert value("request_failure", err="batch_size") == 1
    assert value("request_input_length_bucket", le="4.0") == 2
    assert value("request_queue_duration_sum") == 1.0
    assert value("request_duration_bucket", le="1.5000000000000002e-05") is not None
    assert value("batch_next_size_bucket", le="2.0") == 1
    assert value("batch_next_tokens_sum") == 8
    assert value("queue_size") == 0
