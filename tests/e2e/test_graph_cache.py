"""The real daemon with a cache of optimised graphs: same answers, and it never fails for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import aiohttp
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from nerve.engine.graph_cache import checksum
from support import running_server

BODY = {
    "inputs": [["Ada met Charles in London."], ["Siemens " * 40]],
    "raw_scores": True,
    "aggregation_strategy": "none",
}


async def answer(repository: Path, cache: Path | None, *, prove: bool = True) -> bytes:
    """What a daemon of its own says to `BODY`."""
    env = {"NERVE_PROVE_MODELS": str(prove)}
    if cache is not None:
        env["NERVE_GRAPH_CACHE"] = str(cache)
    async with (
        running_server(str(repository), env=env) as daemon,
        aiohttp.ClientSession(daemon.url) as http,
        http.post("/predict_tokens", json=BODY) as response,
    ):
        assert response.status == 200
        return await response.read()


def double(folder: Path) -> None:
    """Other weights, other answers."""
    model = onnx.load(folder / "model.onnx")
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2:
            doubled = numpy_helper.to_array(tensor) * np.float32(2)
            tensor.CopyFrom(numpy_helper.from_array(doubled, tensor.name))
    onnx.save_model(model, str(folder / "model.onnx"))


async def test_the_bundled_model_answers_alike(bundled: Path, tmp_path: Path) -> None:
    """Without a cache, with an empty one, and with one that holds the graph; to the last digit."""
    cache = tmp_path / "cache"
    plain = await answer(bundled, None)
    assert await answer(bundled, cache, prove=False) == plain
    assert not cache.exists()  # what is not proved is not kept
    assert await answer(bundled, cache) == plain
    (entry,) = cache.iterdir()
    before = entry.stat().st_ino
    assert await answer(bundled, cache) == plain
    assert await answer(bundled, cache, prove=False) == plain
    (entry,) = cache.iterdir()
    assert entry.stat().st_ino == before


@pytest.mark.parametrize("prove", [True, False])
async def test_the_cached_graph_is_what_answers(
    tiny_repository: Path, tmp_path: Path, prove: bool
) -> None:
    """Seen by putting that of another model in its place."""
    other = Path(shutil.copytree(tiny_repository, tmp_path / "other"))
    double(other / "bert")
    theirs = await answer(other, tmp_path / "theirs")
    ours = await answer(tiny_repository, tmp_path / "ours")
    assert ours != theirs
    (entry,), (foreign,) = (tmp_path / "ours").iterdir(), (tmp_path / "theirs").iterdir()
    key = entry.name.partition("-")[0]
    entry.unlink()
    foreign.rename(tmp_path / "ours" / f"{key}-{checksum(foreign)}.onnx")
    assert await answer(tiny_repository, tmp_path / "ours", prove=prove) == theirs


@pytest.mark.parametrize("prove", [True, False])
async def test_an_entry_that_cannot_be_loaded(
    tiny_repository: Path, tmp_path: Path, prove: bool
) -> None:
    cache = tmp_path / "cache"
    plain = await answer(tiny_repository, cache)
    (entry,) = cache.iterdir()
    entry.write_bytes(b"no graph at all")
    junk = entry.rename(cache / f"{entry.name.partition('-')[0]}-{checksum(entry)}.onnx")
    assert await answer(tiny_repository, cache, prove=prove) == plain
    assert list(cache.iterdir()) == ([entry] if prove else [])
    assert not junk.exists()


async def test_a_folder_that_cannot_be(tiny_repository: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    plain = await answer(tiny_repository, None)
    assert await answer(tiny_repository, tmp_path / "file" / "cache") == plain
