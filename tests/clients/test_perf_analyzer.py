"""Triton's own load generator, over both transports: its report, and the server's own numbers."""

from __future__ import annotations

import json
from pathlib import Path

import perf_analyzer
import pytest
from perf_analyzer import PerfAnalyzer

from clients.separate import cannot
from support import Daemon

REQUESTS = 24
SHORT = ("--request-count", str(REQUESTS), "--concurrency-range", "4")
"""One window of so many requests; else it goes on until its figures are stable."""


@pytest.fixture(scope="session")
def perf() -> PerfAnalyzer:
    found = perf_analyzer.find()
    return found or cannot(perf_analyzer.why_not())


@pytest.fixture(scope="session")
def texts(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real sentences, as --input-data takes them."""
    lines = (root / "benchmarks" / "texts" / "news.txt").read_text(encoding="utf-8").splitlines()
    file = tmp_path_factory.mktemp("texts") / "texts.json"
    file.write_text(json.dumps({"data": [{"TEXT": [line]} for line in lines[:64]]}))
    return file


@pytest.mark.parametrize(
    ("protocol", "batch", "flags"),
    [
        ("http", 1, ()),
        ("http", 8, ()),
        ("http", 8, ("--input-tensor-format", "json", "--output-tensor-format", "json")),
        ("http", 1, ("-a",)),
        ("grpc", 1, ()),
        ("grpc", 8, ()),
        ("grpc", 1, ("--streaming",)),
        ("grpc", 8, ("--streaming", "--grpc-compression-algorithm", "gzip")),
        ("grpc", 1, ("--request-parameter", "threshold:0.5:double")),
    ],
)
async def test_texts(
    perf: PerfAnalyzer, texts: Path, bundled_daemon: Daemon, protocol: str, batch: int,
    flags: tuple[str, ...],
) -> None:  # fmt: skip
    (report,) = await perf.run(
        "minilm-ner", url=f"127.0.0.1:{bundled_daemon.ports[protocol]}", protocol=protocol,
        flags=["-b", str(batch), "--input-data", str(texts), *SHORT, *flags],
    )  # fmt: skip
    assert report.concurrency == 4
    assert report.inferences_per_s > 0
    assert 0 < report.p50_us <= report.p99_us
    assert report.server_requests >= REQUESTS
    assert report.server_inferences == batch * report.server_requests
    assert 1 <= report.server_executions <= report.server_inferences
    assert report.server_compute_infer_us > 0
    assert "Request count: " in report.printed


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_ids(
    perf: PerfAnalyzer, bundled_daemon: Daemon, tmp_path: Path, protocol: str
) -> None:
    """The raw view: one row of token ids, sent four times in each request."""
    ids = [101, 15262, 26737, 2973, 1999, 2414, 1012, 102]
    row = {"input_ids": ids, "attention_mask": [1] * len(ids)}
    tensors = {name: {"content": values, "shape": [len(ids)]} for name, values in row.items()}
    file = tmp_path / "ids.json"
    file.write_text(json.dumps({"data": [tensors]}))
    (report,) = await perf.run(
        "minilm-ner.raw", url=f"127.0.0.1:{bundled_daemon.ports[protocol]}", protocol=protocol,
        flags=["-b", "4", "--input-data", str(file), *SHORT],
    )  # fmt: skip
    assert report.server_inferences == 4 * report.server_requests >= 4 * REQUESTS
    assert report.server_compute_infer_us > 0
