"""A proof fills the cache of optimised graphs and is made on what it holds; it never fails for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from prometheus_client import CollectorRegistry

from nerve.config.model import ModelConfig, QualityGate
from nerve.config.running import GraphLevel, Optimization
from nerve.engine.graph_cache import GraphCache, checksum
from nerve.errors import ModelLoadFailed
from nerve.metrics.engine import EngineMetrics
from nerve.opening import open_model
from nerve.proof import Proof, Prover
from nerve.repository.fingerprint import Digests, inspect_version
from nerve.repository.layout import read_model, scan
from nerve.types import CutOptions, VersionFiles
from warm_prover import WarmServer

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="processes are looked for in /proc"
)

MODELS = Path(__file__).parents[1] / "models"
FAMILIES = ["bert", "deberta-v2", "distilbert", "roberta", "xlm-roberta"]
TEXTS = ["Ada met Charles in London.", "x", "Äpfel für 5 € — von Siemens " * 9]
PATIENCE_S = 60.0
GB = 2**30


def files_of(folder: Path) -> VersionFiles:
    """Of the version in a flat folder, as the daemon reads them."""
    files = inspect_version(read_model(scan(folder)).versions[1], Digests()).files
    assert files.problem == ""
    return files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A flat export folder with a real model."""
    return Path(shutil.copytree(MODELS / "bert", tmp_path / "ner"))


@pytest.fixture
def cache(tmp_path: Path) -> GraphCache:
    return GraphCache(tmp_path / "cache", GB)


@pytest.fixture
async def prover(warm: WarmServer, cache: GraphCache) -> AsyncIterator[Prover]:
    async with warm.prover(timeout_s=PATIENCE_S, cache=cache) as prover:
        yield prover


async def prove(prover: Prover, folder: Path, config: ModelConfig | None = None) -> Proof:
    return await prover.prove("probe", files_of(folder), config or ModelConfig())


async def logits(files: VersionFiles, graph: Path | None) -> list[bytes]:
    """What a model answers, loaded as the daemon does."""
    metrics = EngineMetrics(CollectorRegistry())
    model = await open_model("probe", files, ModelConfig(), metrics=metrics, optimised=graph)
    try:
        runs = [await model.run(texts, CutOptions(), None) for texts in (TEXTS[:1], TEXTS)]
    finally:
        await model.aclose()
    return [each.tobytes() for _, found, _ in runs for each in found]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Ours: asyncio tells in debug mode when a busy machine made something slow."""
    return [each.getMessage() for each in caplog.records if each.name.startswith("nerve")]


def held(cache: GraphCache) -> list[Path]:
    return sorted(cache.folder.iterdir()) if cache.folder.exists() else []


def other_weights(folder: Path) -> None:
    """The same graph with every matrix doubled: other answers."""
    model = onnx.load(folder / "model.onnx")
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2:
            doubled = onnx.numpy_helper.to_array(tensor) * np.float32(2)
            tensor.CopyFrom(onnx.numpy_helper.from_array(doubled, tensor.name))
    onnx.save_model(model, str(folder / "model.onnx"))


def named_after(entry: Path, content: bytes) -> Path:
    """A file that takes the place of an entry, with a checksum that is right."""
    entry.unlink()
    aside = entry.with_name("aside")
    aside.write_bytes(content)
    aside.chmod(0o600)
    return aside.rename(entry.with_name(f"{entry.name.partition('-')[0]}-{checksum(aside)}.onnx"))


@pytest.mark.parametrize("family", FAMILIES)
async def test_the_answers_are_the_same_bits(
    prover: Prover, cache: GraphCache, family: str
) -> None:
    files = files_of(MODELS / family)
    graph = (await prover.prove("probe", files, ModelConfig())).graph
    assert graph is not None
    assert held(cache) == [graph]
    assert await logits(files, graph) == await logits(files, None)


async def test_the_bundled_model_answers_the_same_bits(
    prover: Prover, cache: GraphCache, bundled: Path
) -> None:
    files = files_of(bundled / "minilm-ner")
    graph = (await prover.prove("probe", files, ModelConfig())).graph
    assert held(cache) == [graph]
    assert await logits(files, graph) == await logits(files, None)


async def test_the_second_proof_takes_what_the_first_has_made(
    prover: Prover, cache: GraphCache, folder: Path, tmp_path: Path
) -> None:
    """Other content under the entry's name shows what is really loaded, in both processes."""
    first = await prove(prover, folder)
    assert first.graph is not None
    assert held(cache) == [first.graph]
    os.utime(first.graph, (1, 1))
    second = await prove(prover, folder)
    assert second.graph == first.graph
    assert held(cache) == [first.graph]
    assert first.graph.stat().st_mtime > 1  # it was used

    other = Path(shutil.copytree(folder, tmp_path / "other"))
    other_weights(other)
    ours = await logits(files_of(folder), None)
    theirs = await logits(files_of(other), None)
    assert ours != theirs
    graph = (await prove(prover, other)).graph
    assert graph is not None
    fake = named_after(first.graph, graph.read_bytes())
    assert (await prove(prover, folder)).graph == fake
    assert await logits(files_of(folder), fake) == theirs


async def test_the_level_counts(prover: Prover, cache: GraphCache, folder: Path) -> None:
    """Nothing is kept where nothing is optimised."""
    for level, entries in ((GraphLevel.DISABLE, 0), (GraphLevel.BASIC, 1), (GraphLevel.ALL, 2)):
        config = ModelConfig(optimization=Optimization(graph_level=level))
        proof = await prove(prover, folder, config)
        assert len(held(cache)) == entries
        assert (proof.graph is None) is (level is GraphLevel.DISABLE)


async def test_a_gate_is_passed_on_the_cached_graph(
    prover: Prover, cache: GraphCache, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One that is not passed leaves no entry, and an entry is no way around it."""
    (folder / "golden.jsonl").write_text('{"text": "Ada", "entities": []}\n')
    strict = ModelConfig(quality_gate=QualityGate(min_f1=1.0))
    with pytest.raises(ModelLoadFailed, match="F1"):
        await prove(prover, folder, strict)
    assert held(cache) == []
    assert (await prove(prover, folder)).graph
    with pytest.raises(ModelLoadFailed, match="F1"):
        await prove(prover, folder, strict)
    assert len(held(cache)) == 1  # it was not to blame
    assert warnings(caplog) == []
    easy = ModelConfig(quality_gate=QualityGate(min_f1=0.0))
    for _ in range(2):
        proof = await prove(prover, folder, easy)
        assert proof.f1 is not None
        assert held(cache) == [proof.graph]


async def test_a_damaged_entry_is_made_again(
    prover: Prover, cache: GraphCache, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entry = (await prove(prover, folder)).graph
    assert entry is not None
    whole = entry.read_bytes()
    entry.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    proof = await prove(prover, folder)
    assert proof.graph is not None
    assert held(cache) == [proof.graph]
    assert proof.graph.read_bytes() == whole
    assert warnings(caplog) == [f"model probe: the cached graph {entry} is damaged; it is deleted"]


async def test_an_entry_that_cannot_be_loaded_is_made_again(
    prover: Prover, cache: GraphCache, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever its checksum says."""
    entry = (await prove(prover, folder)).graph
    assert entry is not None
    fake = named_after(entry, b"no graph at all")
    assert (await prove(prover, folder)).graph == entry
    assert held(cache) == [entry]
    (message,) = warnings(caplog)
    assert message.startswith(f"model probe: its cached graph {fake} failed, the model")


async def test_other_bits_are_not_kept(
    prover: Prover, cache: GraphCache, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Here for a graph that never gives the same ones."""
    model = onnx.load(folder / "model.onnx")
    graph = model.graph
    (output,) = graph.output
    for node in graph.node:
        node.output[:] = ["before" if name == output.name else name for name in node.output]
    graph.node.append(helper.make_node("RandomNormalLike", ["before"], ["noise"]))
    graph.node.append(helper.make_node("Add", ["before", "noise"], [output.name]))
    onnx.save_model(model, str(folder / "model.onnx"))
    assert (await prove(prover, folder)).graph is None
    assert held(cache) == []
    assert warnings(caplog) == [
        f"model probe: its optimised graph is not kept in {cache.folder}: "
        "it does not answer bit for bit as the model itself"
    ]


async def test_a_folder_of_others_is_not_used(
    prover: Prover, cache: GraphCache, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.folder.mkdir()
    cache.folder.chmod(0o777)
    assert (await prove(prover, folder)).graph is None
    assert held(cache) == []
    (message,) = warnings(caplog)
    assert "others can write to it" in message


async def test_a_process_that_dies_while_it_writes(
    prover: Prover, cache: GraphCache, bundled: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The version was proved before that; nothing is left of the file."""
    cache.folder.mkdir(mode=0o700)
    running = asyncio.create_task(prove(prover, bundled / "minilm-ner"))
    async with asyncio.timeout(PATIENCE_S):
        while not (child := _writer(cache)):
            await asyncio.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    assert (await running).graph is None
    assert held(cache) == []
    assert warnings(caplog) == [
        f"model probe: its optimised graph is not kept in {cache.folder}: "
        "the process that made it ended (SIGKILL)"
    ]


def _writer(cache: GraphCache) -> int | None:
    """The process of a proof that has begun to write."""
    if not held(cache):
        return None
    (server,) = _children(os.getpid(), "nerve-fork")
    (child,) = _children(server, "nerve-proof")
    return child


def _children(parent: int, name: str) -> list[int]:
    """Processes of that name and parent."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            head, _, rest = stat.read_text().rpartition(")")
            if head.endswith(f"({name}") and int(rest.split()[1]) == parent:
                found.append(int(stat.parent.name))
    return found


async def test_too_slow_for_an_entry(
    warm: WarmServer, cache: GraphCache, bundled: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is proved stays proved when the time runs out over the cache."""
    cache.folder.mkdir(mode=0o700)
    async with warm.prover(timeout_s=4, cache=cache) as prover:
        running = asyncio.create_task(prove(prover, bundled / "minilm-ner"))
        async with asyncio.timeout(PATIENCE_S):
            while not (child := _writer(cache)):
                await asyncio.sleep(0.002)
        os.kill(child, signal.SIGSTOP)
        assert (await running).graph is None
    assert held(cache) == []
    assert [each.rpartition(": ")[2] for each in warnings(caplog)] == ["it took too long"]


# --- disks that take nothing: for real, each in a process or namespace of its own ---

PROVE = """
import asyncio, logging, resource, sys
from pathlib import Path
from nerve.config.model import ModelConfig
from nerve.engine.graph_cache import GraphCache
from nerve.proof import Prover
from nerve.repository.fingerprint import Digests, inspect_version
from nerve.repository.layout import read_model, scan

async def main(folder, cache, limit):
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    files = inspect_version(read_model(scan(Path(folder))).versions[1], Digests()).files
    prover = Prover(timeout_s=60, memory_bytes=None, cache=GraphCache(Path(cache), 2**30))
    try:
        print((await prover.prove("probe", files, ModelConfig())).graph)
    finally:
        await prover.aclose()

logging.basicConfig(format="%(message)s")
asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def proved(command: list[str], folder: Path, cache: Path, limit: int = 0) -> tuple[str, str]:
    """What a proof in a process of its own has for a graph, and what it logs."""
    ended = subprocess.run(
        [*command, sys.executable, "-c", PROVE, str(folder), str(cache), str(limit)],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    return ended.stdout.strip(), ended.stderr.strip()


def test_a_limit_on_file_sizes(folder: Path, cache: GraphCache) -> None:
    cache.folder.mkdir(mode=0o700)
    graph, told = proved([], folder, cache.folder, limit=100_000)
    assert graph == "None"
    assert told == (
        f"model probe: its optimised graph is not kept in {cache.folder}: File too large"
    )
    assert held(cache) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [("size=128k,mode=700", "No space left on device"), ("ro,mode=700", "Read-only file system")],
)
def test_a_disk_that_takes_nothing(folder: Path, tmp_path: Path, options: str, words: str) -> None:
    """A file system that is full, and one that is read-only."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o {options} none "{disk}" && '
    inside = ["unshare", "-Urm", "sh", "-c"]
    try:
        subprocess.run([*inside, f"{mount} true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here")
    command = [*inside, f'{mount} "$@" && ls -A "{disk}"', "sh"]
    graph, told = proved(command, folder, disk)
    assert graph == "None"  # and nothing that ls would list
    assert told == f"model probe: its optimised graph is not kept in {disk}: {words}"
