"""Statistics in the protocol's words."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.json_format import ParseDict

from controlled import Controlled, controlled
from model_folders import write_model
from nerve._proto.inference import inference_pb2 as pb
from nerve.errors import ModelNotFound, VersionNotFound
from nerve.frontend.v2.statistics import describe, model_statistics
from nerve.service.inference import Call, SpanRequest
from nerve.service.statistics import RequestTotals, VersionTotals
from nerve.types import BatchTotals, EngineStatistics
from nerve.words import Strategy

TOTALS = VersionTotals(
    "ner",
    2,
    RequestTotals(
        succeeded=3,
        failed=1,
        texts=7,
        succeeded_s=4.5,
        failed_s=0.25,
        queue_s=0.5,
        input_s=0.000_000_001,
        running_s=3.0,
        output_s=1e7,
        cache_hits=1,
        cache_hits_s=0.000_002,
        cache_misses=2,
        cache_misses_s=0.000_003,
        last_ms=1_732_212_000_123,
    ),
    EngineStatistics(
        batches=5,
        rows=9,
        sizes=(BatchTotals(1, 4, 0.25, 0.5, 0.75), BatchTotals(5, 1, 1.0, 2.0, 3.0)),
    ),
)


def duration(count: int, ns: int) -> dict[str, int]:
    return {"count": count, "ns": ns}


def test_one_version() -> None:
    """Requests are counted in inference_stats, runs in batch_stats; times are whole nanoseconds."""
    told = describe(TOTALS, "ner.raw")
    assert told == {
        "name": "ner.raw",
        "version": "2",
        "last_inference": 1_732_212_000_123,
        "inference_count": 7,
        "execution_count": 5,
        "inference_stats": {
            "success": duration(3, 4_500_000_000),
            "fail": duration(1, 250_000_000),
            "queue": duration(3, 500_000_000),
            "compute_input": duration(2, 1),
            "compute_infer": duration(2, 3_000_000_000),
            "compute_output": duration(2, 10**16),
            "cache_hit": duration(1, 2000),
            "cache_miss": duration(2, 3000),
        },
        "response_stats": {},
        "batch_stats": [
            {
                "batch_size": 1,
                "compute_input": duration(4, 250_000_000),
                "compute_infer": duration(4, 500_000_000),
                "compute_output": duration(4, 750_000_000),
            },
            {
                "batch_size": 5,
                "compute_input": duration(1, 1_000_000_000),
                "compute_infer": duration(1, 2_000_000_000),
                "compute_output": duration(1, 3_000_000_000),
            },
        ],
        "memory_usage": [],
    }
    message = ParseDict({"model_stats": [told]}, pb.ModelStatisticsResponse()).model_stats[0]
    assert message.inference_stats.compute_output.ns == 10**16
    assert message.batch_stats[1].compute_infer.count == 1


def told(made: Controlled, name: str = "", version: str = "") -> list[tuple[object, ...]]:
    """Name, version and texts of each."""
    answer = model_statistics(made.control, made.inference, name, version)
    message = ParseDict(answer, pb.ModelStatisticsResponse())
    return [(each.name, each.version, each.inference_count) for each in message.model_stats]


async def test_of_what_is_named(tmp_path: Path) -> None:
    """All, a model's, or one; the raw view's are those of the model."""
    write_model(tmp_path / "a", "version_policy: all", v1="x", v2="y")
    write_model(tmp_path / "b", v1="z")
    async with controlled(tmp_path, load_model=["*"]) as made:
        call = Call("a", "1", None, 8)
        await made.inference.spans(call, SpanRequest(["Ada", "Bob"], Strategy.FIRST))
        both = [("a", "1", 2), ("a", "2", 0)]
        assert told(made) == [*both, ("b", "1", 0)]
        assert told(made, "a") == both
        assert told(made, "a", "2") == both[1:]
        assert told(made, "a.raw", "1") == [("a.raw", "1", 2)]
        for kind, name, version in [(ModelNotFound, "c", ""), (VersionNotFound, "a", "3")]:
            with pytest.raises(kind):
                told(made, name, version)
