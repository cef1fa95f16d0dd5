"""A version is loaded in a process of its own first: whatever happens there is only a reason."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nerve.config.model import ModelConfig, QualityGate
from nerve.config.running import InstanceGroup, Kind
from nerve.engine.memory import limit_memory
from nerve.errors import ModelLoadFailed
from nerve.proof import MAX_ANSWER_BYTES, Proof, Prover, Reports
from nerve.proof_server import (
    CHILD_NAME,
    MAX_REASON,
    SERVER_NAME,
    one_instance,
    ran_out_of_memory,
)
from nerve.repository.layout import read_model, scan
from nerve.types import VersionFiles
from warm_prover import WarmServer

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="processes are looked for in /proc"
)

MODELS = Path(__file__).parents[1] / "models"
VOCABULARY = 1500
PATIENCE_S = 60.0
MB = 2**20
MakeGraph = Callable[..., Path]


def files_of(folder: Path) -> VersionFiles:
    """Of the version in a flat folder."""
    return read_model(scan(folder)).versions[1]


async def prove(prover: Prover, folder: Path, config: ModelConfig | None = None) -> Proof:
    return await prover.prove("probe", files_of(folder), config or ModelConfig())


async def reason(prover: Prover, folder: Path, config: ModelConfig | None = None) -> str:
    with pytest.raises(ModelLoadFailed) as caught:
        await prove(prover, folder, config)
    return str(caught.value)


def children(parent: int, name: str) -> list[int]:
    """Processes of that name and parent, zombies left out."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            text = stat.read_text()
            comm, (state, ppid, *_) = (
                text[text.index("(") + 1 :].split(")")[0],
                text.rpartition(")")[2].split(),
            )
            if comm == name and int(ppid) == parent and state != "Z":
                found.append(int(stat.parent.name))
    return found


def servers() -> list[int]:
    return children(os.getpid(), SERVER_NAME)


def proofs() -> list[int]:
    return [child for server in servers() for child in children(server, CHILD_NAME)]


def gone(pid: int) -> bool:
    """Whether a process has ended; nobody may have asked for its status yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


def save(path: Path, nodes: list[onnx.NodeProto], initializers: list[onnx.TensorProto]) -> None:
    """A graph from input_ids to logits of nine labels."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "tokens", 9])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


async def test_no_process_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, and later by the model's state."""
    monkeypatch.setattr("sys.executable", "/proc/self/stat")
    prover = Prover(timeout_s=5, memory_bytes=None)
    with pytest.raises(
        ModelLoadFailed, match=r"cannot be started: Permission denied; .*prove_models"
    ):
        prover.start()
    await prover.aclose()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A flat export folder with a real model."""
    return Path(shutil.copytree(MODELS / "bert", tmp_path / "ner"))


@pytest.fixture
def endless(folder: Path) -> Path:
    """The same with a graph that loads at once and never ends its first run."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_in"], ["go_out"]),
            helper.make_node("Identity", ["value_in"], ["value_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("count", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value_in", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value_out", TensorProto.FLOAT, None),
        ],
    )
    save(
        folder / "model.onnx",
        [
            helper.make_node("Cast", ["input_ids"], ["cast"], to=TensorProto.FLOAT),
            helper.make_node("Loop", ["trips", "go", "cast"], ["looped"], body=body),
            helper.make_node("Unsqueeze", ["looped", "axis"], ["up"]),
            helper.make_node("Expand", ["up", "shape"], ["logits"]),
        ],
        [
            numpy_helper.from_array(np.array(2**62), "trips"),
            numpy_helper.from_array(np.array(True), "go"),
            numpy_helper.from_array(np.array([2]), "axis"),
            numpy_helper.from_array(np.array([1, 1, 9]), "shape"),
        ],
    )
    return folder


@pytest.fixture
def greedy(folder: Path) -> Path:
    """The same with a graph that takes 800 MB in its first run."""
    save(
        folder / "model.onnx",
        [
            helper.make_node("Cast", ["input_ids"], ["cast"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMax", ["cast"], ["one"], keepdims=0),
            helper.make_node("Expand", ["one", "many"], ["big"]),
            helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
            helper.make_node("Add", ["cast", "sum"], ["added"]),
            helper.make_node("Unsqueeze", ["added", "axis"], ["up"]),
            helper.make_node("Expand", ["up", "shape"], ["logits"]),
        ],
        [
            numpy_helper.from_array(np.array([200_000_000]), "many"),
            numpy_helper.from_array(np.array([2]), "axis"),
            numpy_helper.from_array(np.array([1, 1, 9]), "shape"),
        ],
    )
    return folder


@pytest.fixture
async def prover(warm: WarmServer) -> AsyncIterator[Prover]:
    """One whose fork server runs already."""
    async with warm.prover(timeout_s=PATIENCE_S) as prover:
        yield prover


@pytest.fixture
async def alone(warm: WarmServer) -> AsyncIterator[Prover]:
    """One that starts a fork server of its own, and no other runs."""
    warm.close()
    prover = Prover(timeout_s=PATIENCE_S, memory_bytes=None)
    yield prover
    await prover.aclose()
    assert servers() == []


@pytest.fixture(autouse=True)
def _nothing_is_left(warm: WarmServer) -> Iterator[None]:
    """Neither a process nor a descriptor, but for the shared fork server."""

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir())) - warm.descriptors

    before = descriptors()
    yield
    assert servers() == warm.pids
    assert proofs() == []
    assert descriptors() == before


# --- what passes ---


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
async def test_a_good_model_passes(prover: Prover, family: str) -> None:
    proof = await prove(prover, MODELS / family)
    assert proof.f1 is None
    assert 0 < proof.seconds < PATIENCE_S
    assert 10 * MB < proof.peak_memory_bytes < 4096 * MB
    assert proofs() == []


async def test_lines_look_like_the_daemons(
    warm: WarmServer, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """All that the process says with --log-format json is JSON."""
    warm.close()  # what it says goes elsewhere
    caplog.set_level(logging.DEBUG)
    prover = Prover(timeout_s=PATIENCE_S, memory_bytes=None, log_form="json")
    try:
        await prove(prover, MODELS / "bert")
    finally:
        await prover.aclose()
    lines = capfd.readouterr().err.splitlines()
    assert {json.loads(line)["level"] for line in lines} >= {"debug"}


async def test_several_at_once(prover: Prover, folder: Path, tmp_path: Path) -> None:
    """Each with its own answer."""
    broken = Path(shutil.copytree(folder, tmp_path / "broken"))
    (broken / "model.onnx").write_bytes(b"no graph")
    found = await asyncio.gather(
        *(prove(prover, broken if number % 3 == 0 else folder) for number in range(12)),
        return_exceptions=True,
    )
    assert [isinstance(each, ModelLoadFailed) for each in found] == [n % 3 == 0 for n in range(12)]
    assert len(servers()) == 1


async def test_external_data(prover: Prover, folder: Path) -> None:
    """As the layout tells it."""
    model = onnx.load(str(folder / "model.onnx"))
    onnx.save_model(model, str(folder / "model.onnx"), save_as_external_data=True, location="w.bin")
    files = replace(files_of(folder), external={"w.bin": folder / "w.bin"})
    await prover.prove("probe", files, ModelConfig())
    (folder / "w.bin").write_bytes(b"short")
    with pytest.raises(ModelLoadFailed, match="out of bounds"):
        await prover.prove("probe", files, ModelConfig())


# --- what does not ---


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "model.onnx is an empty file"), (b"no graph", "model.onnx cannot be loaded: ")],
)
async def test_a_broken_graph(prover: Prover, folder: Path, content: bytes, words: str) -> None:
    (folder / "model.onnx").write_bytes(content)
    assert (await reason(prover, folder)).startswith(words)


async def test_a_version_with_a_problem(prover: Prover, folder: Path) -> None:
    files = replace(files_of(folder), onnx=None, problem="there is no .onnx file")
    with pytest.raises(ModelLoadFailed, match=r"^there is no \.onnx file$"):
        await prover.prove("probe", files, ModelConfig())


async def test_scores_that_are_no_numbers(
    prover: Prover, folder: Path, table_graph: MakeGraph
) -> None:
    table_graph(folder / "model.onnx", np.full((VOCABULARY, 9), np.nan, dtype=np.float32))
    assert "NaN or infinite" in await reason(prover, folder)


async def test_a_tokenizer_of_another_model(
    prover: Prover, folder: Path, table_graph: MakeGraph, capfd: pytest.CaptureFixture[str]
) -> None:
    """The runtime says it, too, by itself; the reason is enough."""
    table_graph(folder / "model.onnx", np.zeros((VOCABULARY - 1, 9), dtype=np.float32))
    assert "the model fails on id 1499" in await reason(prover, folder)
    assert capfd.readouterr() == ("", "")


async def test_a_reason_is_of_a_sane_length(prover: Prover, folder: Path) -> None:
    """However long the names in a graph are."""
    model = onnx.load(str(folder / "model.onnx"))
    model.graph.input[0].name = "x" * 10 * MAX_ANSWER_BYTES
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    assert len(await reason(prover, folder)) <= MAX_REASON


async def test_a_golden_gate(prover: Prover, folder: Path, table_graph: MakeGraph) -> None:
    """Of a model that says B-PER (3) to every token; its F1 is told."""
    table = np.zeros((VOCABULARY, 9), dtype=np.float32)
    table[:, 3] = 9
    table_graph(folder / "model.onnx", table)
    label = json.loads((folder / "config.json").read_text())["id2label"]["3"].removeprefix("B-")
    lines = [
        {"text": "x", "entities": [{"label": label, "start": 0, "end": 1}]},
        {"text": "x y", "entities": [{"label": label, "text": "x"}]},
    ]
    golden = folder / "golden.jsonl"
    golden.write_text("".join(json.dumps(line) + "\n" for line in lines))
    files = replace(files_of(folder), golden=golden)

    def gated(least: float) -> ModelConfig:
        return ModelConfig(quality_gate=QualityGate(min_f1=least))

    proof = await prover.prove("probe", files, gated(0.75))
    assert proof.f1 == pytest.approx(0.8)
    assert (await prover.prove("probe", files, ModelConfig())).f1 is None
    with pytest.raises(
        ModelLoadFailed, match=r"F1 0\.800 .* wants 0\.81; .*extra .*\"y\" \[2, 3\)"
    ):
        await prover.prove("probe", files, gated(0.81))
    with pytest.raises(ModelLoadFailed, match=r"needs golden\.jsonl"):
        await prover.prove("probe", replace(files, golden=None), gated(0.1))


async def test_too_much_memory(warm: WarmServer, greedy: Path) -> None:
    async with warm.prover(timeout_s=PATIENCE_S, memory_bytes=300 * MB) as prover:
        found = await reason(prover, greedy)
        assert found.startswith(f"needs more than {300 * MB} bytes of memory (proof_memory_bytes)")
        assert await prove(prover, MODELS / "bert")


async def test_enough_memory(warm: WarmServer, greedy: Path) -> None:
    """What it took is told."""
    async with warm.prover(timeout_s=PATIENCE_S, memory_bytes=2000 * MB) as prover:
        assert (await prove(prover, greedy)).peak_memory_bytes > 700 * MB


# --- what never answers ---


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGSEGV, "the model crashed the runtime (SIGSEGV) while it was loaded"),
        (signal.SIGKILL, "was killed (SIGKILL), most likely for lack of memory"),
        (signal.SIGTERM, "was killed (SIGTERM)"),
        (signal.SIGRTMIN + 3, f"was killed (signal {signal.SIGRTMIN + 3})"),
    ],
)
async def test_a_crash_is_a_reason(
    prover: Prover, endless: Path, number: int, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """And nothing else: the next proof is a good one, by the same fork server."""
    proof = asyncio.create_task(reason(prover, endless))
    await until(proofs)
    (child,), before = proofs(), servers()
    os.kill(child, number)
    assert words in await proof
    assert await prove(prover, MODELS / "bert")
    assert servers() == before
    assert capfd.readouterr() == ("", "")


async def test_a_hang_is_a_reason(warm: WarmServer, endless: Path) -> None:
    """The process is gone when it is told."""
    async with warm.prover(timeout_s=1.5) as prover:
        found = await reason(prover, endless)
        assert found.startswith("did not finish within 1.5 s")
        assert "load_timeout_s" in found
        assert proofs() == []


async def test_a_cancelled_proof(prover: Prover, endless: Path) -> None:
    """The process is gone, the next proof goes."""
    proof = asyncio.create_task(prove(prover, endless))
    await until(proofs)
    proof.cancel()
    with pytest.raises(asyncio.CancelledError):
        await proof
    await until(lambda: proofs() == [])
    assert await prove(prover, MODELS / "bert")


async def test_a_proof_that_is_cancelled_before_there_is_a_process(prover: Prover) -> None:
    proof = asyncio.create_task(prove(prover, MODELS / "bert"))
    await asyncio.sleep(0)
    proof.cancel()
    with pytest.raises(asyncio.CancelledError):
        await proof
    assert await prove(prover, MODELS / "bert")
    await until(lambda: not proofs())


async def test_closing_ends_what_runs(alone: Prover, endless: Path) -> None:
    proof = asyncio.create_task(reason(alone, endless))
    await until(proofs)
    (child,) = proofs()
    await alone.aclose()
    assert gone(child)
    assert await proof == "was not proved: the server is stopping"
    assert await reason(alone, endless) == "was not proved: the server is stopping"


# --- the process that forks ---


async def test_the_fork_server_may_die(alone: Prover, endless: Path) -> None:
    """Between two proofs, and in the middle of one: its child goes, too, and it is done again."""
    assert await prove(alone, MODELS / "bert")
    (first,) = servers()
    os.kill(first, signal.SIGKILL)
    assert await prove(alone, MODELS / "bert")
    (second,) = servers()
    assert second != first
    proof = asyncio.create_task(reason(alone, endless))
    await until(proofs)
    (child,) = proofs()
    os.kill(second, signal.SIGKILL)
    await until(lambda: gone(child))
    await until(proofs)
    (third,) = servers()
    (again,) = proofs()
    os.kill(third, signal.SIGKILL)
    assert "died twice" in await proof
    await until(lambda: gone(again))
    assert await prove(alone, MODELS / "bert")


async def test_the_fork_server_leaves_signals_to_the_daemon(alone: Prover) -> None:
    """A terminal sends SIGINT to the group, systemd SIGTERM to every process of a service."""
    assert await prove(alone, MODELS / "bert")
    (server,) = servers()
    assert os.getpgid(server) != os.getpgid(0)
    os.kill(server, signal.SIGINT)
    os.kill(server, signal.SIGTERM)
    assert await prove(alone, MODELS / "bert")
    assert servers() == [server]


async def test_the_fork_server_has_one_thread_and_no_front_end(alone: Prover) -> None:
    """Threads would not go with forking."""
    assert await prove(alone, MODELS / "bert")
    (server,) = servers()
    assert len(list(Path(f"/proc/{server}/task").iterdir())) == 1
    maps = Path(f"/proc/{server}/maps").read_text()
    assert "onnxruntime" in maps
    assert "tokenizers" in maps
    assert "grpc" not in maps
    assert "aiohttp" not in maps


async def test_the_fork_server_ends_when_it_has_nothing_to_do(
    warm: WarmServer, folder: Path
) -> None:
    warm.close()
    prover = Prover(timeout_s=PATIENCE_S, memory_bytes=None, idle_s=0)
    try:
        prover.start()
        await until(lambda: not servers())
        assert await prove(prover, folder)
        await until(lambda: not servers())
        assert await prove(prover, folder)
    finally:
        await prover.aclose()


async def test_it_is_started_once(alone: Prover) -> None:
    alone.start()
    alone.start()
    await until(servers)
    assert await prove(alone, MODELS / "bert")
    assert len(servers()) == 1


async def test_nothing_outlives_a_daemon_that_is_killed(endless: Path, tmp_path: Path) -> None:
    script = tmp_path / "daemon.py"
    script.write_text(
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from nerve.config.model import ModelConfig\n"
        "from nerve.proof import Prover\n"
        "from nerve.repository.layout import read_model, scan\n"
        "files = read_model(scan(Path(sys.argv[1]))).versions[1]\n"
        "prover = Prover(timeout_s=1000, memory_bytes=None)\n"
        "asyncio.run(prover.prove('probe', files, ModelConfig()))\n"
    )
    daemon = subprocess.Popen([sys.executable, str(script), str(endless)])
    try:
        await until(lambda: children(daemon.pid, SERVER_NAME))
        (server,) = children(daemon.pid, SERVER_NAME)
        await until(lambda: children(server, CHILD_NAME))
        (child,) = children(server, CHILD_NAME)
    finally:
        daemon.kill()
        daemon.wait()
    await until(lambda: gone(server) and gone(child))


async def test_a_child_is_a_process_of_its_own(prover: Prover, endless: Path) -> None:
    """First to go when memory runs out, behind serving, without core files, deaf to nothing."""
    proof = asyncio.create_task(reason(prover, endless))
    await until(proofs)
    (child,) = proofs()
    # its name comes first; the rest follows before it reads what it is to load
    await until(lambda: os.getpriority(os.PRIO_PROCESS, child) > 0)
    assert Path(f"/proc/{child}/oom_score_adj").read_text() == "1000\n"
    assert "Max core file size        0 " in Path(f"/proc/{child}/limits").read_text()
    status = Path(f"/proc/{child}/status").read_text()
    ignored = int(status.split("SigIgn:")[1].split()[0], 16)
    assert not ignored & (1 << signal.SIGTERM - 1)
    assert not ignored & (1 << signal.SIGINT - 1)
    os.kill(child, signal.SIGKILL)
    await proof


def test_a_model_is_proved_once_however_many_instances_it_has() -> None:
    config = ModelConfig(
        instance_group=[InstanceGroup(count=8, kind=Kind.GPU, gpus=[1, 2]), InstanceGroup()]
    )
    groups = one_instance(config).instance_group
    assert groups == [
        InstanceGroup(count=1, kind=Kind.GPU, gpus=[1, 2]),
        InstanceGroup(count=1),
    ]


def test_errors_that_mean_memory() -> None:
    """Anywhere in the chain."""

    def caused(error: Exception, cause: Exception | None) -> Exception:
        error.__cause__ = cause
        return error

    assert not ran_out_of_memory(caused(ModelLoadFailed("no"), ValueError("no")))
    assert ran_out_of_memory(MemoryError())
    assert ran_out_of_memory(caused(ModelLoadFailed("no"), MemoryError()))
    assert ran_out_of_memory(ModelLoadFailed("x failed:std::bad_alloc"))


def test_the_memory_limit_is_on_top_of_what_there_is() -> None:
    """In a process of its own, as it cannot be taken back."""
    code = (
        "from nerve.engine.memory import limit_memory\n"
        f"limit_memory({100 * MB})\n"
        f"good = bytearray({80 * MB})\n"
        "try:\n"
        f"    bytearray({100 * MB})\n"
        "except MemoryError:\n"
        "    print('limited')\n"
    )
    assert limit_memory.__module__ == "nerve.engine.memory"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "limited\n"


def test_nothing_happens_before_a_start(warm: WarmServer) -> None:
    warm.close()
    began = time.monotonic()
    Prover(timeout_s=1, memory_bytes=None)
    assert servers() == []
    assert time.monotonic() - began < 1


async def test_a_report_is_read_on_after_whoever_waited_for_it_left() -> None:
    """An order that is overtaken is cancelled anywhere, also in the middle of a line."""
    own, other = socket.socketpair()
    with own, other:
        own.setblocking(False)
        reports = Reports(own)
        other.send(b'{"exit": 9, ')
        waiting = asyncio.create_task(reports.next())
        await asyncio.sleep(0)
        while readable(own):
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        other.send(b'"peak_bytes": 7}\n{"exit": 0}\n')
        assert await reports.next() == {"exit": 9, "peak_bytes": 7}
        assert await reports.next() == {"exit": 0}


def readable(end: socket.socket) -> bool:
    return bool(select.select([end], [], [], 0)[0])
