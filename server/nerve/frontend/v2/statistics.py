"""Statistics of models as the protocol's JSON."""

from __future__ import annotations

from nerve.frontend.v2.metadata import Json
from nerve.frontend.v2.views import resolve
from nerve.service.control import ControlService
from nerve.service.inference import InferenceService
from nerve.service.statistics import VersionTotals
from nerve.types import BatchTotals


def model_statistics(
    control: ControlService, inference: InferenceService, name: str = "", version: str = ""
) -> Json:
    """`{"model_stats": […]}` of READY versions: all, a model's, or one.

    Args:
        control: knows the models.
        inference: has counted their requests.
        name, version: as the client wrote them; empty is all.
    Raises:
        ModelNotFound, VersionNotFound, ModelNotReady.
    """
    model = resolve(name, control.knows).model if name else None
    found = inference.statistics.versions(model, version or None)
    return {"model_stats": [describe(each, name or each.model) for each in found]}


def describe(totals: VersionTotals, name: str) -> Json:
    """One version under the name that was asked for. Counts of the stages are requests. Pure.

    A request that was answered by the response cache as a whole has a place in `queue` and
    `cache_hit`, but nothing was computed for it.
    """
    requests = totals.requests
    done = requests.succeeded
    computed = done - requests.cache_hits
    return {
        "name": name,
        "version": str(totals.version),
        "last_inference": requests.last_ms,
        "inference_count": requests.texts,
        "execution_count": totals.engine.batches,
        "inference_stats": {
            "success": _duration(done, requests.succeeded_s),
            "fail": _duration(requests.failed, requests.failed_s),
            "queue": _duration(done, requests.queue_s),
            "compute_input": _duration(computed, requests.input_s),
            "compute_infer": _duration(computed, requests.running_s),
            "compute_output": _duration(computed, requests.output_s),
            "cache_hit": _duration(requests.cache_hits, requests.cache_hits_s),
            "cache_miss": _duration(requests.cache_misses, requests.cache_misses_s),
        },
        "response_stats": {},
        "batch_stats": [_batches(each) for each in totals.engine.sizes],
        "memory_usage": [],
    }


def _batches(totals: BatchTotals) -> Json:
    """Here the counts are runs."""
    return {
        "batch_size": totals.rows,
        "compute_input": _duration(totals.runs, totals.padding_s),
        "compute_infer": _duration(totals.runs, totals.running_s),
        "compute_output": _duration(totals.runs, totals.output_s),
    }


def _duration(count: int, seconds: float) -> Json:
    return {"count": count, "ns": round(seconds * 1e9)}
