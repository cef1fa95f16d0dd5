"""The real daemon with `optimization.precision`: what it serves, what it refuses, what it warns of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from onnxruntime.quantization import quantize_dynamic

from living import Living, living

TEXTS = ["Ada met Charles in London.", "Rain.", "Siemens " * 60]
INT8 = "optimization: {precision: int8}\n"


async def _answers(live: Living, model: str, texts: list[str]) -> list[object]:
    inputs = [[text] for text in texts]
    body = {"inputs": inputs, "raw_scores": True, "aggregation_strategy": "none"}
    status, answers = await live.post(f"/v1/models/{model}/predict_tokens", body)
    assert status == 200, answers
    return list(answers)


def _models(repository: Path, source: Path, names: dict[str, str]) -> None:
    """A copy of a tiny model for each name, with its config.yaml."""
    for name, config in names.items():
        shutil.copytree(source, repository / name)
        (repository / name / "config.yaml").write_text(config)
    for name in ("dynamic", "lonely"):
        graph = repository / name / "model.onnx"
        quantize_dynamic(source / "model.onnx", graph)
    # Nothing of this is found, in whatever precision, so that nothing is lost.
    lines = [{"text": text, "entities": []} for text in TEXTS]
    golden = "".join(json.dumps(line) + "\n" for line in lines)
    (repository / "checked" / "golden.jsonl").write_text(golden)


@pytest.mark.parametrize("prove", [True, False])
async def test_precision(
    tmp_path: Path, tiny_models: Path, capfd: pytest.CaptureFixture[str], prove: bool
) -> None:
    """With proof and cache, and with neither."""
    repository, cache = tmp_path / "repository", tmp_path / "cache"
    configs = {
        "plain": "",
        "small": INT8,
        "checked": INT8,
        "brain": "optimization: {precision: bf16}\n",
        "dynamic": "",
        "lonely": "optimization: {batch_invariant: true}\n",
        "twice": INT8,
    }
    _models(repository, tiny_models / "bert", configs)
    shutil.copy(repository / "dynamic" / "model.onnx", repository / "twice" / "model.onnx")
    env = {"NERVE_PROVE_MODELS": str(prove)} | ({"NERVE_GRAPH_CACHE": str(cache)} if prove else {})
    for _ in range(2 if prove else 1):  # the second time from the cache
        async with living(repository, env=env) as live:
            index = await live.index()
            together = await _answers(live, "small", TEXTS)
            for text, answer in zip(TEXTS, together, strict=True):
                assert await _answers(live, "small", [text]) == [answer]
            assert together != await _answers(live, "plain", TEXTS)
        ready = {name for (name, _), (state, _) in index.items() if state == "READY"}
        assert ready == {"plain", "small", "checked", "dynamic", "lonely"}
        reasons = {name: reason for (name, _), (_, reason) in index.items()}
        assert "its graph in bf16 cannot be loaded" in reasons["brain"]
        assert "quantised already? Convert the float export" in reasons["twice"]
        log = capfd.readouterr().err.splitlines()
        assert _named("conversion to int8 is not checked", log) == {"small"}
        assert _named("precision: int8 with the float export", log) == {"dynamic", "twice"}
    assert cache.exists() is prove


def _named(words: str, log: list[str]) -> set[str]:
    """The models that lines with `words` are of."""
    return {
        name
        for line in log
        if words in line
        for name in ("plain", "small", "checked", "brain", "dynamic", "lonely", "twice")
        if f"model {name}:" in line
    }
