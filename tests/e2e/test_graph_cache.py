"""A cache of optimised graphs: same answers, and nothing fails for it.

With the real daemon, and where only an entry of the cache is another one, with the app in this process:
its proofs have processes of their own all the same.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import numpy as np
import onnx
import pytest
import pytest_asyncio
from onnx import numpy_helper

from api.conftest import serving
from nerve.engine.graph_cache import checksum
from support import Daemon, running_server

BODY = {
    "inputs": [["Ada met Charles in London."], ["Siemens " * 40]],
    "raw_scores": True,
    "aggregation_strategy": "none",
}


async def ask(daemon: Daemon) -> bytes:
    """What a daemon says to `BODY`."""
    async with (
        aiohttp.ClientSession(daemon.url) as http,
        http.post("/predict_tokens", json=BODY) as response,
    ):
        assert response.status == 200
        return await response.read()


async def answer(repository: Path, cache: Path, *, prove: bool = True) -> bytes:
    """What a daemon of its own says to `BODY`."""
    env = {"NERVE_PROVE_MODELS": str(prove), "NERVE_GRAPH_CACHE": str(cache)}
    async with running_server(str(repository), env=env) as daemon:
        return await ask(daemon)


async def answer_here(repository: Path, cache: Path, *, prove: bool = True) -> bytes:
    """What an app in this process says to `BODY`."""
    async with serving(repository, prove_models=prove, graph_cache=cache) as http:
        told = await http.post("/predict_tokens", BODY)
        assert told.status == 200
        return told.body


def double(folder: Path) -> None:
    """Other weights, other answers."""
    model = onnx.load(folder / "model.onnx")
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2:
            doubled = numpy_helper.to_array(tensor) * np.float32(2)
            tensor.CopyFrom(numpy_helper.from_array(doubled, tensor.name))
    onnx.save_model(model, str(folder / "model.onnx"))


@dataclass(frozen=True, slots=True)
class Caches:
    """As apps have filled them, one with the graph of `bert`, one with that of a model with
    other weights, and what these apps said to `BODY`."""

    ours: Path
    theirs: Path
    our_answer: bytes
    their_answer: bytes


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def caches(
    tmp_path_factory: pytest.TempPathFactory, tiny_models: Path
) -> AsyncIterator[Caches]:
    """To be copied, not to be changed."""
    place = tmp_path_factory.mktemp("caches")
    for name in ("repository", "other"):
        shutil.copytree(tiny_models / "bert", place / name / "bert")
    double(place / "other" / "bert")
    yield Caches(
        place / "ours",
        place / "theirs",
        await answer_here(place / "repository", place / "ours"),
        await answer_here(place / "other", place / "theirs"),
    )


async def test_the_bundled_model_answers_alike(
    bundled: Path, bundled_daemon: Daemon, tmp_path: Path
) -> None:
    """Without a cache, with an empty one, and with one that holds the graph; to the last digit."""
    cache = tmp_path / "cache"
    plain = await ask(bundled_daemon)
    assert await answer_here(bundled, cache, prove=False) == plain
    assert not cache.exists()  # what is not proved is not kept
    assert await answer(bundled, cache) == plain
    (entry,) = cache.iterdir()
    before = entry.stat().st_ino
    assert await answer_here(bundled, cache) == plain
    assert await answer_here(bundled, cache, prove=False) == plain
    (entry,) = cache.iterdir()
    assert entry.stat().st_ino == before


@pytest.mark.parametrize("prove", [True, False])
async def test_the_cached_graph_is_what_answers(
    caches: Caches, tiny_repository: Path, tmp_path: Path, prove: bool
) -> None:
    """Seen by putting that of another model in its place."""
    assert caches.our_answer != caches.their_answer
    cache = Path(shutil.copytree(caches.ours, tmp_path / "cache"))
    (entry,), (foreign,) = cache.iterdir(), caches.theirs.iterdir()
    key = entry.name.partition("-")[0]
    entry.unlink()
    shutil.copy2(foreign, cache / f"{key}-{checksum(foreign)}.onnx")
    assert await answer_here(tiny_repository, cache, prove=prove) == caches.their_answer


@pytest.mark.parametrize("prove", [True, False])
async def test_an_entry_that_cannot_be_loaded(
    caches: Caches, tiny_repository: Path, tmp_path: Path, prove: bool
) -> None:
    cache = Path(shutil.copytree(caches.ours, tmp_path / "cache"))
    (entry,) = cache.iterdir()
    entry.write_bytes(b"no graph at all")
    junk = entry.rename(cache / f"{entry.name.partition('-')[0]}-{checksum(entry)}.onnx")
    assert await answer_here(tiny_repository, cache, prove=prove) == caches.our_answer
    assert list(cache.iterdir()) == ([entry] if prove else [])
    assert not junk.exists()


async def test_a_folder_that_cannot_be(
    tiny_daemon: Daemon, tiny_repository: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    plain = await ask(tiny_daemon)
    assert await answer(tiny_repository, tmp_path / "file" / "cache") == plain
