"""Series of what was unloaded go, and those of nothing else."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from nerve.metrics.all import Metrics
from nerve.metrics.bare import typed
from nerve.metrics.engine import EngineMetrics, RunMetrics
from nerve.metrics.entities import Found
from nerve.types import CallStatistics, TextCost

COST = CallStatistics(9, 1, 0.001, 0.002, 0.003, each=(TextCost(9, truncated=True),))


def use(metrics: Metrics, model: str, version: int) -> RunMetrics:
    """A copy that is loaded, has run, and has answered."""
    runs = metrics.engines.of(model, version)
    runs.watch(lambda _now: (2, 1.5))
    runs.observe([4, 5], 10, 0.01)
    metrics.requests.versions.of(model, version).answered(1, COST)
    metrics.requests.versions.of(model, version).failed("queue_full")
    metrics.requests.entities.observe(model, Found(["PER"], [0.9]))
    metrics.requests.observe_shadow(model, version, "equal")
    return runs


def series(registry: CollectorRegistry) -> set[tuple[str, str, str]]:
    """Metric, model and version of each series of a model."""
    page = generate_latest(registry).decode()
    return {
        (sample.name, sample.labels["model"], sample.labels.get("version", ""))
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if "model" in sample.labels
    }


def of(registry: CollectorRegistry, model: str, version: str) -> set[str]:
    return {name for name, *labels in series(registry) if labels == [model, version]}


def test_a_version_goes_with_its_last_copy_and_a_model_with_its_last_version() -> None:
    """Of every metric; what else is loaded stays as it was, and so do a reload's counts."""
    registry = CollectorRegistry()
    metrics = Metrics(registry, compat=["triton", "tei"])
    first, other = use(metrics, "ner", 1), use(metrics, "ner", 2)
    stays = use(metrics, "stays", 1)
    reloaded = use(metrics, "ner", 1)
    assert of(registry, "ner", "1") == of(registry, "ner", "2") == of(registry, "stays", "1")
    assert {"nerve_entities_total", "nerve_texts_total"} <= of(registry, "ner", "")

    before = of(registry, "ner", "1")
    first.close()
    assert of(registry, "ner", "1") == before
    ok = {"model": "ner", "version": "1", "outcome": "ok"}
    assert registry.get_sample_value("nerve_model_requests_total", ok) == 2

    reloaded.close()
    reloaded.close()
    assert of(registry, "ner", "1") == set()
    assert of(registry, "ner", "2") == before
    assert of(registry, "ner", "") == of(registry, "stays", "")

    other.close()
    assert {model for _, model, _ in series(registry)} == {"stays"}
    stays.close()
    assert series(registry) == set()


def test_a_version_that_comes_back_counts_from_nothing() -> None:
    """In series that are there, not in those that were removed."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    use(metrics, "ner", 1).close()
    again = use(metrics, "ner", 1)
    labels = {"model": "ner", "version": "1"}
    for name in ("nerve_queue_seconds_count", "nerve_sequence_tokens_count", "nerve_queue_rows"):
        assert registry.get_sample_value(name, labels) == {"nerve_queue_seconds_count": 1}.get(
            name, 2
        )
    assert registry.get_sample_value("nerve_texts_total", {"model": "ner"}) == 1
    again.close()


def test_copies_of_a_version_share_its_queue_gauges() -> None:
    """Rows add up, the age is that of the oldest; a copy that only ran for a trial has no queue."""
    registry = CollectorRegistry()
    metrics = EngineMetrics(registry)
    one, two = metrics.of("ner", 1), metrics.of("ner", 1)
    labels = {"model": "ner", "version": "1"}
    assert registry.get_sample_value("nerve_queue_rows", labels) is None
    one.watch(lambda _now: (3, 0.5))
    two.watch(lambda _now: (4, 2.5))
    assert registry.get_sample_value("nerve_queue_rows", labels) == 7
    assert registry.get_sample_value("nerve_queue_age_seconds", labels) == 2.5
    one.close()
    assert registry.get_sample_value("nerve_queue_rows", labels) == 4
    two.close()
    assert registry.get_sample_value("nerve_queue_rows", labels) is None


def test_counters_without_total_are_counters() -> None:
    """In Prometheus' text; what has no type of ours stays as it is."""
    page = b"# TYPE nv_inference_count untyped\nnv_inference_count 1\n# TYPE x untyped\nx 1\n"
    assert typed(page) == page.replace(b"nv_inference_count untyped", b"nv_inference_count counter")
