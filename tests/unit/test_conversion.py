"""A version in the precision that its config wants: where the graph lies, what is kept, what is told."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from nerve.config.model import ModelConfig, QualityGate
from nerve.config.running import Optimization, Precision
from nerve.conversion import Converter, conversion_key
from nerve.engine.graph_cache import GraphCache
from nerve.errors import ModelLoadFailed
from nerve.golden import answer_golden
from nerve.metrics.engine import EngineMetrics
from nerve.opening import open_model
from nerve.proof import Proof, Prover
from nerve.repository.fingerprint import Digests, inspect_version
from nerve.repository.layout import read_model, scan
from nerve.types import CutOptions, VersionFiles
from warm_prover import WarmServer

MODELS = Path(__file__).parents[1] / "models"
TEXTS = ["Ada met Charles in London.", "x", "Äpfel für 5 € — von Siemens " * 9]
PATIENCE_S = 60.0
GB = 2**30


def files_of(folder: Path) -> VersionFiles:
    files = inspect_version(read_model(scan(folder)).versions[1], Digests()).files
    assert files.problem == ""
    return files


def config_of(precision: str, **more: Any) -> ModelConfig:
    return ModelConfig(optimization=Optimization(precision=Precision(precision), **more))


def converter(cache: GraphCache | None = None, *, fills: bool = True) -> Converter:
    return Converter(timeout_s=PATIENCE_S, memory_bytes=None, cache=cache, fills=fills)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODELS / "bert", tmp_path / "ner"))


@pytest.fixture
def cache(tmp_path: Path) -> GraphCache:
    return GraphCache(tmp_path / "cache", GB)


@pytest.fixture
async def prover(warm: WarmServer, cache: GraphCache) -> AsyncIterator[Prover]:
    async with warm.prover(timeout_s=PATIENCE_S, cache=cache) as prover:
        yield prover


def held(cache: GraphCache) -> list[Path]:
    return sorted(cache.folder.iterdir()) if cache.folder.exists() else []


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def logits(files: VersionFiles, graph: Path | None, texts: list[str]) -> list[bytes]:
    """What a model answers to texts at once."""
    metrics = EngineMetrics(CollectorRegistry())
    model = await open_model("probe", files, ModelConfig(), metrics=metrics, optimised=graph)
    try:
        _, found, _ = await model.run(texts, CutOptions(), None)
    finally:
        await model.aclose()
    return [each.tobytes() for each in found]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name.startswith("nerve")]


async def write_golden(folder: Path, texts: list[str]) -> None:
    """golden.jsonl of a folder: what its model finds, so that its F1 is 1."""
    golden = folder / "golden.jsonl"
    golden.write_text("".join(json.dumps({"text": t, "entities": []}) + "\n" for t in texts))
    files, metrics = files_of(folder), EngineMetrics(CollectorRegistry())
    model = await open_model("probe", files, ModelConfig(), metrics=metrics)
    try:
        answers = await answer_golden(model, golden, ModelConfig())
    finally:
        await model.aclose()
    lines = [
        {
            "text": text,
            "entities": [{"label": s.label, "start": s.start, "end": s.end} for s in spans],
        }
        for text, spans in zip(texts, answers.found, strict=True)
    ]
    golden.write_text("".join(json.dumps(line) + "\n" for line in lines))


async def test_nothing_to_do(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No precision, and fp32 of a graph that is so already."""
    files = files_of(folder)
    for config in (ModelConfig(), config_of("fp32")):
        async with converter().converted("probe", files, config) as ready:
            assert ready is files
    assert warnings(caplog) == []


async def test_the_graph_is_gone_afterwards(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is in no folder, and a failure inside leaves nothing either."""
    files, before = files_of(folder), descriptors()
    async with converter().converted("probe", files, config_of("int8")) as ready:
        assert ready.onnx is not None
        assert ready.onnx.stat().st_size > 0
        assert ready.side == files.side
        assert set(ready.digests) == {ready.onnx}
        answers = await logits(ready, None, TEXTS)
    assert not ready.onnx.exists()
    assert answers != await logits(files, None, TEXTS)
    assert warnings(caplog) == [
        "model probe: its conversion to int8 is not checked: it has no golden.jsonl"
    ]
    with pytest.raises(RuntimeError):
        async with converter().converted("probe", files, config_of("int8")):
            raise RuntimeError
    assert descriptors() == before


async def test_a_system_without_unnamed_memory(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As macOS and Windows: the graph lies in a temporary folder of its own, for as long."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("nerve.conversion._PROC", tmp_path / "none")
    monkeypatch.setattr("tempfile.tempdir", str(place))
    async with converter().converted("probe", files_of(folder), config_of("int8")) as ready:
        assert ready.onnx is not None
        assert place in ready.onnx.parents
        assert len(await logits(ready, None, TEXTS)) == len(TEXTS)
    assert list(place.iterdir()) == []
    place.rmdir()
    with pytest.raises(ModelLoadFailed, match="there is no place for its converted graph"):
        async with converter().converted("probe", files_of(folder), config_of("int8")):
            pytest.fail("there was")


async def test_answers_do_not_depend_on_company(folder: Path) -> None:
    """End to end, with texts of very different lengths in one batch."""
    async with converter().converted("probe", files_of(folder), config_of("int8")) as ready:
        together = await logits(ready, None, TEXTS)
        assert together == [(await logits(ready, None, [text]))[0] for text in TEXTS]


async def test_proved_and_kept(
    folder: Path, cache: GraphCache, prover: Prover, caplog: pytest.LogCaptureFixture
) -> None:
    """The first load makes two entries, the converted and the optimised graph; the next takes them."""
    config, files = config_of("int8"), files_of(folder)

    async def load() -> tuple[Path | None, Proof]:
        async with converter(cache).converted("probe", files, config) as ready:
            return ready.onnx, await prover.prove("probe", ready, config, unconverted=files)

    own, first = await load()
    assert own is not None
    assert own not in held(cache)
    assert first.graph is not None
    assert len(held(cache)) == 2
    again, second = await load()
    assert second.graph == first.graph
    assert sorted([again or own, first.graph]) == held(cache)
    async with converter().converted("probe", files, config) as fresh:
        assert await logits(files, first.graph, TEXTS) == await logits(fresh, None, TEXTS)


async def test_what_is_not_proved_is_not_kept(folder: Path, cache: GraphCache) -> None:
    files = files_of(folder)
    async with converter(cache, fills=False).converted("probe", files, config_of("int8")):
        pass
    with pytest.raises(ModelLoadFailed, match="no good"):
        async with converter(cache).converted("probe", files, config_of("int8")):
            raise ModelLoadFailed("no good")
    assert held(cache) == []


async def test_an_entry_that_fails_is_not_used_again(folder: Path, cache: GraphCache) -> None:
    files, config = files_of(folder), config_of("int8")
    async with converter(cache).converted("probe", files, config):
        pass
    (entry,) = held(cache)
    with pytest.raises(ModelLoadFailed, match="no good"):
        async with converter(cache).converted("probe", files, config) as ready:
            raise ModelLoadFailed("no good" if ready.onnx == entry else "not the entry")
    assert held(cache) == []


def test_every_part_of_a_key_counts(folder: Path) -> None:
    files = files_of(folder)
    keys = {
        conversion_key(files, precision, provider)
        for precision in Precision
        for provider in ("CPUExecutionProvider", "CUDAExecutionProvider")
    }
    assert len(keys) == 2 * len(Precision)
    assert None not in keys
    assert conversion_key(VersionFiles(1, None, {}), Precision.INT8, "x") is None


async def test_a_loss_is_refused(folder: Path, prover: Prover) -> None:
    """Told with both F1 and what differs; a loss that is allowed is none."""
    words = [f"Text {number} of Ada, Bob and Siemens in Oslo" for number in range(80)]
    await write_golden(folder, words)
    files = files_of(folder)

    async def prove(config: ModelConfig) -> Proof:
        async with converter().converted("probe", files, config) as ready:
            return await prover.prove("probe", ready, config, unconverted=files)

    with pytest.raises(ModelLoadFailed) as refused:
        await prove(config_of("int8", max_f1_loss=0))
    told = str(refused.value)
    assert told.startswith("its conversion to int8 loses too much: F1 0.")
    assert "on golden.jsonl, 1.0000 before it; max_f1_loss allows 0; " in told
    assert ' differ, first: "Text ' in told
    assert (await prove(config_of("int8", max_f1_loss=1))).f1 is None
    gated = config_of("int8", max_f1_loss=1).model_copy(
        update={"quality_gate": QualityGate(min_f1=1)}
    )
    with pytest.raises(ModelLoadFailed, match=r"quality_gate wants 1"):
        await prove(gated)  # the gate is for what is served


async def test_bf16_without_kernels_is_refused(folder: Path, prover: Prover) -> None:
    with pytest.raises(ModelLoadFailed, match=r"^its graph in bf16 cannot be loaded: .*implementa"):
        async with converter().converted("probe", files_of(folder), config_of("bf16")) as ready:
            await prover.prove("probe", ready, config_of("bf16"))


async def test_fp16_on_the_cpu_is_served_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with converter().converted("probe", files_of(folder), config_of("fp16")) as ready:
        assert len(await logits(ready, None, TEXTS)) == len(TEXTS)
    assert "precision fp16 is no gain on the CPU" in warnings(caplog)[0]


async def test_what_cannot_be_converted(folder: Path) -> None:
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes() + b"\0")
    files = VersionFiles(1, folder / "model.onnx", {})
    with pytest.raises(ModelLoadFailed, match=r"it cannot be converted to int8: it cannot be read"):
        async with converter().converted("probe", files, config_of("int8")):
            pytest.fail("it was")


@pytest.mark.parametrize("how", ["in time", "cancelled"])
async def test_a_conversion_that_hangs_is_ended(tmp_path: Path, how: str) -> None:
    """Here one that waits for a pipe that nobody writes to."""
    os.mkfifo(tmp_path / "pipe")
    files, before = VersionFiles(1, tmp_path / "pipe", {}), descriptors()
    own = Converter(timeout_s=2 if how == "in time" else PATIENCE_S, memory_bytes=None)

    async def convert() -> None:
        async with own.converted("probe", files, config_of("int8")):
            pytest.fail("it was")

    running = asyncio.create_task(convert())
    if how == "in time":
        with pytest.raises(ModelLoadFailed, match=r"took over 2 s; raise load_timeout_s"):
            await running
    else:
        await asyncio.sleep(1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert descriptors() == before
