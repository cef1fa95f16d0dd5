"""A repository that changes under a running daemon, by every means that people use."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from living import (
    COLUMNS,
    FAST,
    TEXT,
    VOCABULARY,
    Living,
    alive,
    descendants,
    endless_graph,
    living,
    mark,
    scores,
    table_graph,
    until,
    write,
)
from nerve._proto.encoderfile import token_classification_pb2 as pb

SHARED = pytest.mark.asyncio(loop_scope="module")
GRAPH = "model.onnx"
PREDICT = "/encoderfile.token_classification.TokenClassificationInference/Predict"


@dataclass(frozen=True, slots=True)
class Place:
    """A daemon that tests share, each with models of its own names, and its repository."""

    live: Living
    repository: Path

    def add(self, name: str, *versions: int, config: str = "") -> Path:
        """A model whose version n is model n, renamed into the repository; flat if there is one."""
        staged = self.repository / f".{name}"
        for number in versions:
            write(staged / str(number) if len(versions) > 1 else staged, number)
        if config:
            (staged / "config.yaml").write_text(config)
        return staged.rename(self.repository / name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """In watch mode; its one model has a newest version that cannot be loaded."""
    repository = tmp_path_factory.mktemp("shared") / "repository"
    for number in (1, 2, 3):
        write(repository / "lame" / str(number), number)
    nothing = np.full((VOCABULARY, COLUMNS), np.inf, dtype=np.float32)
    table_graph(repository / "lame" / "3" / GRAPH, nothing)
    async with living(repository, *FAST) as live:
        yield Place(live, repository)


# --- a copy that takes its time ---


async def _copy_slowly(
    source: Path, target: Path, *, chunks: int, gap_s: float, stall: asyncio.Event | None = None
) -> None:
    """Copy a folder, the graph first; with `stall`, wait for it in the middle of the graph."""
    target.mkdir()
    names = sorted((path.name for path in source.iterdir()), key=lambda name: name != GRAPH)
    for name in names:
        content = (source / name).read_bytes()
        size = -(-len(content) // chunks)
        with (target / name).open("wb") as file:
            for number in range(chunks):
                file.write(content[number * size :][:size])
                file.flush()
                if stall is not None and name == GRAPH and number == chunks // 2:
                    await stall.wait()
                await asyncio.sleep(gap_s)


async def test_a_slow_copy_is_loaded_once_when_whole(tmp_path: Path) -> None:
    """Over two seconds in chunks while it is polled; and one that stalls in mid-graph."""
    repository = tmp_path / "repository"
    write(repository / "good", 1)
    source = write(tmp_path / "source", 2)
    poll = ("--model-control-mode", "poll", "--repository-poll-seconds", "0.1")
    async with living(repository, *poll, "--settle-seconds", "1") as live:
        resume = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(
                _copy_slowly(source, repository / "steady", chunks=5, gap_s=0.1)  # 2.5 s
            )
            group.create_task(
                _copy_slowly(source, repository / "halting", chunks=5, gap_s=0.02, stall=resume)
            )
            await live.until_told("halting", GRAPH, "incomplete")
            assert (await live.ask("halting")).status == 503
            assert (await live.loads("halting"))["loaded"] == 0
            resume.set()
        for name in ("steady", "halting"):
            await live.until_serves(name, 2)
            await live.until_fine(name)
        assert await live.loads("steady") == {"loaded": 1, "failed": 0, "discarded": 0}
        assert (await live.loads("halting"))["loaded"] == 1
        assert (await live.ask("good")).said == mark(1)


# --- the process that models are proved in ---


def _arguments(process: int) -> list[str]:
    return Path(f"/proc/{process}/cmdline").read_text().split("\0")


async def _proof_of(live: Living) -> int:
    """The one process that proves a model."""
    found: list[int] = await until(lambda: live.processes("nerve-proof"))
    (proof,) = found
    return proof


async def test_a_model_that_kills_its_process(tmp_path: Path) -> None:
    """By SIGSEGV and SIGKILL: a reason in the index; the next good version is served."""
    repository = tmp_path / "repository"
    write(repository / "who", 1)
    async with living(repository, *FAST) as live, live.callers("who", {1, 2, 3, 4}):
        for who, number, words in [
            (2, signal.SIGSEGV, ("crashed the runtime", "SIGSEGV")),
            (3, signal.SIGKILL, ("SIGKILL", "memory")),
        ]:
            failed = (await live.loads("who"))["failed"]
            await until(lambda: not live.processes("nerve-proof"))  # the last may still be ending
            endless_graph(repository / "who" / GRAPH)
            os.kill(await _proof_of(live), number)
            reason = await live.until_told("who", *words)
            state, told = (await live.index())["who", "1"]
            assert (state, told in reason) == ("READY", True)
            assert await live.metric("nerve_model_stale", model="who") == 1
            assert (await live.loads("who"))["failed"] == failed + 1
            write(repository / "who", who)
            await live.until_serves("who", who)
            await live.until_fine("who")

        # the process that forks them: a fork of the daemon; it is started again, as another program
        await until(lambda: not live.processes("nerve-proof"))
        (fork,) = live.processes("nerve-fork")
        assert "serve" in _arguments(fork)
        endless_graph(repository / "who" / GRAPH)
        proof = await _proof_of(live)
        os.kill(fork, signal.SIGKILL)
        await until(lambda: not alive(proof))
        await until(lambda: live.processes("nerve-proof"))
        # new content ends the old proof: nobody waits for its time limit
        write(repository / "who", 4)
        await live.until_serves("who", 4)
        await until(lambda: not live.processes("nerve-proof"))
        (fork,) = live.processes("nerve-fork")
        assert "nerve.proof_server" in _arguments(fork)
        os.kill(fork, signal.SIGKILL)
        await until(lambda: not alive(fork))
        write(tmp_path / "staged", 5).rename(repository / "next")
        await live.until_serves("next", 5)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 0)]
)
async def test_nothing_is_left_of_a_daemon_that_ends(
    tmp_path: Path, number: int, status: int
) -> None:
    """Its processes go with it, in the middle of its first proof, too."""
    endless_graph(write(tmp_path / "repository" / "who", 1) / GRAPH)
    command = [sys.executable, "-m", "nerve", "serve", "--http-port", "0", "--disable-grpc"]
    daemon = await asyncio.create_subprocess_exec(
        *command, str(tmp_path / "repository"), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        await until(lambda: descendants(daemon.pid, "nerve-proof"))
        below = descendants(daemon.pid)
        assert len(below) == 2
        daemon.send_signal(number)
        async with asyncio.timeout(20):  # a proof may take 120 s
            assert await daemon.wait() == status
    finally:
        if daemon.returncode is None:
            daemon.kill()
            await daemon.wait()
    await until(lambda: not any(map(alive, below)))


# --- ways to change a model ---


async def _copy_over(source: Path, target: Path) -> None:
    """`cp`: each file is emptied, then filled in pieces."""
    for path in sorted(source.iterdir()):
        content = path.read_bytes()
        with (target / path.name).open("wb") as file:
            for start in range(0, len(content), 1 + len(content) // 3):
                file.write(content[start : start + 1 + len(content) // 3])
                file.flush()
                await asyncio.sleep(0.005)


async def _rsync(source: Path, target: Path) -> None:
    """A temporary name beside each file, renamed when it is whole; times are kept."""
    for path in sorted(source.iterdir()):
        aside = target / f".{path.name}.Ab12cD"
        aside.write_bytes(path.read_bytes()[:1000])
        await asyncio.sleep(0.01)
        shutil.copy2(path, aside)
        aside.rename(target / path.name)


async def _checkout(source: Path, target: Path) -> None:
    """`git checkout`: each file is removed and made anew."""
    for path in sorted(source.iterdir()):
        (target / path.name).unlink(missing_ok=True)
        await asyncio.sleep(0.01)
        (target / path.name).write_bytes(path.read_bytes())


async def _untar(source: Path, target: Path) -> None:
    """`tar xf`, in the order of the archive, with times of long ago."""
    archive = source.with_suffix(".tar")
    with tarfile.open(archive, "w") as tar:
        for path in sorted(source.iterdir(), reverse=True):
            os.utime(path, (1_500_000_000, 1_500_000_000))
            tar.add(path, arcname=path.name)
    with tarfile.open(archive) as tar:
        for member in tar:
            tar.extract(member, target, filter="data")
            await asyncio.sleep(0.01)


async def _move(source: Path, target: Path) -> None:
    """Another folder under the same name; there is none for a moment."""
    target.rename(source.with_name("old-" + source.name))
    shutil.copytree(source, target.with_name(f".{target.name}"))
    target.with_name(f".{target.name}").rename(target)


@SHARED
async def test_swaps_under_requests(place: Place, tmp_path: Path) -> None:
    """No request fails, and each is answered by a whole model, whatever is used to change it."""
    live = place.live
    who, kube, numbered = (
        place.add("who", 1),
        place.repository / "kube",
        place.repository / "numbered",
    )
    write(numbered / "1", 1)
    _flip(kube, 1)
    for name in ("who", "kube", "numbered"):
        await live.until_serves(name, 1)
    async with (
        live.callers("who", range(1, 10)) as seen,
        live.callers("kube", {1, 2}, count=2),
        live.callers("numbered", {1, 2}, count=2),
    ):
        for number, change in enumerate([_copy_over, _rsync, _checkout, _untar, _move], start=2):
            await change(write(tmp_path / f"source-{number}", number), who)
            await live.until_serves("who", number)
            await live.until_fine("who")
            await until(partial(seen.get, number))
        assert await live.loads("who") == {"loaded": 6, "failed": 0, "discarded": 0}

        _flip(kube, 2)
        write(numbered / ".2", 2)
        (numbered / ".2").rename(numbered / "2")
        await live.until_serves("kube", 2)
        await live.until_serves("numbered", 2)
        assert await live.loads("kube") == {"loaded": 2, "failed": 0, "discarded": 0}
        index = await live.index()
        assert index["numbered", "2"] == ("READY", "")
        assert index["numbered", "1"] == ("UNAVAILABLE", "unloaded")

        await _edit_config(live, who)
        await _edit_without_a_trace(live, who)
        await _do_nothing(live, who, numbered)


def _flip(folder: Path, who: int) -> None:
    """As Kubernetes fills a volume: files are links through ..data, which is replaced at once."""
    release = write(folder / f"..2030_01_01_{who}", who)
    (folder / "..data_tmp").symlink_to(release.name)
    for path in release.iterdir():
        if not (folder / path.name).is_symlink():
            (folder / path.name).symlink_to(f"..data/{path.name}")
    before = (folder / "..data").resolve()
    (folder / "..data_tmp").rename(folder / "..data")
    if before.name != "..data":
        shutil.rmtree(before)


async def _edit_config(live: Living, folder: Path) -> None:
    """As vim does: a swap file, a backup, the new text beside, renamed."""
    loaded = (await live.loads(folder.name))["loaded"]
    for batch in (3, 4):
        (folder / ".config.yaml.swp").write_bytes(b"b0VIM 9.0")
        if (folder / "config.yaml").exists():
            shutil.copy(folder / "config.yaml", folder / "config.yaml~")
        (folder / "4913").touch()
        (folder / "4913").unlink()
        (folder / "config.yaml.tmp").write_text(f"max_batch_size: {batch}\n")
        (folder / "config.yaml.tmp").rename(folder / "config.yaml")
        (folder / ".config.yaml.swp").unlink()
        await _until_batch(live, folder.name, batch)
        loaded += 1
    assert (await live.loads(folder.name))["loaded"] == loaded


async def _until_batch(live: Living, model: str, batch: int) -> None:
    async def taken() -> bool:
        limits = (await live.about(model))["limits"]
        return bool(limits["max_batch_size"] == batch)

    await live.until(taken)


async def _edit_without_a_trace(live: Living, folder: Path) -> None:
    """Labels and graph in place, of the same size and with the old times."""
    for number in (7, 8):
        fresh = write(folder.parent / ".fresh", number)
        for name in ("config.json", GRAPH):
            before = (folder / name).stat()
            with (folder / name).open("r+b") as file:
                file.write((fresh / name).read_bytes())
            os.utime(folder / name, ns=(before.st_atime_ns, before.st_mtime_ns))
            after = (folder / name).stat()
            assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
        await live.until_serves(folder.name, number)


async def _do_nothing(live: Living, folder: Path, other: Path) -> None:
    """touch, chmod, a file that is none of the model's, the same bytes again: no load."""
    before = await live.loads(folder.name)
    for path in folder.iterdir():
        path.touch()
        path.chmod(0o600)
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    (folder / "README.md").write_text("about this model")
    (other / "3").mkdir()
    write(other / "3", 2)

    async def newer() -> bool:  # begun later, so whatever there was to do has been begun, too
        return (await live.ask(other.name)).version == "3"

    await live.until(newer)
    assert (await live.index())[folder.name, "1"] == ("READY", "")
    assert await live.loads(folder.name) == before


@SHARED
async def test_leaving_under_requests(place: Place) -> None:
    """A folder that is deleted or renamed: requests in flight are answered, then it is unknown."""
    live = place.live
    slow = "max_batch_size: 2\ndynamic_batching: {max_queue_delay_microseconds: 6000000}\n"
    gone, before = place.add("gone", 1, config=slow), place.add("before", 2, config=slow)
    versions = place.add("versions", 3, 4)
    for name in ("gone", "before", "versions"):
        await live.until(partial(_is_ready, live, name))
    asked = [asyncio.create_task(live.ask(name)) for name in ("gone", "before")]

    async def waiting() -> bool:
        rows = [(await live.about(name))["versions"][0] for name in ("gone", "before")]
        return all(row["statistics"]["queued_rows"] for row in rows)

    await live.until(waiting)
    shutil.rmtree(gone)
    before.rename(place.repository / "after")

    async def unknown() -> bool:
        names = {name for name, _ in await live.index()}
        return "after" in names and not names & {"gone", "before"}

    await live.until(unknown)
    assert not any(each.done() for each in asked)
    for name in ("gone", "before"):
        answer = await live.ask(name)
        assert (answer.status, "after" in answer.said) == (404, True)
    assert [(each.status, each.said) for each in await asyncio.gather(*asked)] == [
        (200, mark(1)),
        (200, mark(2)),
    ]
    await live.until(partial(_is_ready, live, "after"))

    # of a version, the one before takes over; the last one serves on
    async with live.callers("versions", {3, 4}):
        shutil.rmtree(versions / "4")
        await live.until_serves("versions", 3)
        shutil.rmtree(versions / "3")
        await live.until_told("versions", "no model.onnx found")
    shutil.rmtree(versions)

    async def forgotten() -> bool:
        return (await live.ask("versions")).status == 404

    await live.until(forgotten)


async def _is_ready(live: Living, model: str) -> bool:
    return (await live.about(model)).get("state") == "READY"


@SHARED
async def test_layouts_that_change(place: Place, tmp_path: Path) -> None:
    """Versions are renumbered, come beside a flat folder and go; shared files; a lone file."""
    live = place.live
    pair, flat, shared = place.add("pair", 3, 4), place.add("flat", 5), place.add("shared", 6, 7)
    for name, who in (("pair", 4), ("flat", 5), ("shared", 7)):
        await live.until_serves(name, who)
    fresh = write(tmp_path / "fresh", 8)
    async with (
        live.callers("pair", {3, 4}, count=1),
        live.callers("flat", {5, 9}, count=1),
        live.callers("shared", {7, 8}, count=1),
    ):
        (pair / "3").rename(pair / ".kept")
        (pair / "4").rename(pair / "3")
        (pair / ".kept").rename(pair / "4")
        write(flat / ".9", 9).rename(flat / "9")
        (shared / "7" / "config.json").unlink()
        shutil.copy(fresh / "config.json", shared / "config.json")
        shutil.copy(fresh / GRAPH, shared / "7" / GRAPH)
        for name, who, number in (("pair", 3, "4"), ("flat", 9, "9"), ("shared", 8, "7")):
            await live.until_serves(name, who)
            assert (await live.ask(name)).version == number
        shutil.rmtree(flat / "9")
        await live.until_serves("flat", 5)
    shutil.rmtree(pair)
    pair.write_text("no folder any more")
    (place.repository / "alias").symlink_to("flat")
    await live.until_serves("alias", 5)
    assert (await live.ask("pair")).status == 404


async def test_a_copy_in_progress_at_start(tmp_path: Path) -> None:
    """A folder that is not quiet yet is not served half, only because the daemon starts now.

    The copy takes three seconds: longer than the daemon needs to look for the first time, and less
    than the three settle times after which it would call the model one that keeps changing.
    """
    source, model = write(tmp_path / "source", 1), tmp_path / "repository" / "who"
    model.mkdir(parents=True)
    for name in (GRAPH, "tokenizer.json"):
        shutil.copy(source / name, model / name)
    content = (source / "config.json").read_bytes()

    async def copy_slowly() -> None:
        with (model / "config.json").open("wb", buffering=0) as file:
            for start in range(0, len(content), 1 + len(content) // 12):
                file.write(content[start : start + 1 + len(content) // 12])
                await asyncio.sleep(0.25)

    copying = asyncio.create_task(copy_slowly())
    async with living(tmp_path / "repository", "--settle-seconds", "1.5") as live:
        await copying
        await live.until_serves("who", 1)
        assert await live.loads("who") == {"loaded": 1, "failed": 0, "discarded": 0}


@SHARED
async def test_a_file_that_never_rests(place: Place) -> None:
    """A log that grows in the model's folder is no part of it: it holds nothing up for ever."""
    folder = place.add("restless", 1)
    await place.live.until_serves("restless", 1)
    ended = asyncio.Event()

    async def grow() -> None:
        with (folder / "train.log").open("w") as log:
            while not ended.is_set():
                log.write("loss 0.1\n")
                log.flush()
                await asyncio.sleep(0.1)

    growing = asyncio.create_task(grow())
    try:
        write(folder, 2)

        async def taken() -> bool:
            return (await place.live.ask("restless")).said == mark(2)

        await place.live.until(taken, patience_s=10)
    finally:
        ended.set()
        await growing


# --- control modes ---


async def test_explicit(tmp_path: Path) -> None:
    """Only what is asked for, by flag or by request; a change on the disk waits for a request."""
    repository = tmp_path / "repository"
    for name in ("one", "two"):
        write(repository / name, 1)
    (write(repository / "bad", 1) / GRAPH).write_bytes(b"no graph")
    load = "/v2/repository/models/{}/load"
    unload = "/v2/repository/models/{}/unload"
    explicit = ("--model-control-mode", "explicit", "--load-model", "one")
    async with living(repository, *explicit) as live:
        assert await live.index() == {
            ("bad", ""): ("", ""), ("one", "1"): ("READY", ""), ("two", ""): ("", "")
        }  # fmt: skip
        answer = await live.ask("two")
        assert (answer.status, "loaded" in answer.said) == (503, True)
        write(repository / "one", 2)
        assert await live.post(load.format("two")) == (200, None)
        assert (await live.ask("two")).said == mark(1)
        assert (await live.ask("one")).said == mark(1)
        assert await live.post(load.format("one")) == (200, None)
        assert (await live.ask("one")).said == mark(2)

        status, told = await live.post(load.format("bad"))
        assert (status, "model.onnx is no ONNX file" in told["error"]) == (400, True)
        status, told = await live.post(load.format("nope"))
        assert (status, "it holds: bad, one, two" in told["error"]) == (404, True)
        # a bad change that is asked for: what served goes on
        (repository / "two" / "tokenizer.json").unlink()
        status, told = await live.post(load.format("two"))
        assert (status, "tokenizer.json is missing" in told["error"]) == (400, True)
        assert (await live.ask("two")).said == mark(1)

        override = {"parameters": {"config": json.dumps({"max_batch_size": 5})}}
        assert await live.post(load.format("one"), override) == (200, None)
        assert (await live.about("one"))["limits"]["max_batch_size"] == 5
        assert await live.post(unload.format("one"), {"parameters": {"wait": True}}) == (200, None)
        assert (await live.index())["one", "1"] == ("UNAVAILABLE", "unloaded")
        assert (await live.ask("one")).status == 503
        shutil.rmtree(repository / "one")
        assert {name for name, _ in await live.index()} == {"bad", "two"}


async def test_orders_that_overtake_each_other(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Loads, loads with another config, unloads, requests: the last order counts, nothing is left."""
    write(tmp_path / "repository" / "who", 1)
    path = "/v2/repository/models/who"
    explicit = ("--model-control-mode", "explicit", "--load-model", "*")
    async with living(tmp_path / "repository", *explicit, "--disable-grpc") as live:

        async def order(number: int) -> None:
            for turn in range(9):
                match (number + turn) % 3:
                    case 0:
                        status, _ = await live.post(f"{path}/load")
                        assert status in (200, 400)  # overtaken by an unload
                    case 1:
                        override = {"parameters": {"config": {"max_batch_size": 1 + number + turn}}}
                        status, _ = await live.post(f"{path}/load", override)
                        assert status in (200, 400)
                    case 2:
                        wait = {"parameters": {"wait": bool(turn % 2)}}
                        assert (await live.post(f"{path}/unload", wait))[0] == 200
                assert (await live.ask("who")).status in (200, 503)

        await asyncio.gather(*map(order, range(6)))
        assert await live.post(f"{path}/load") == (200, None)
        assert (await live.ask("who")).said == mark(1)
        assert (await live.about("who"))["limits"]["max_batch_size"] == 32
        await until(lambda: len(live.processes()) <= 1)
    assert "Traceback" not in capfd.readouterr().err


async def test_none(tmp_path: Path) -> None:
    """A change is not noticed, unless somebody who may asks for a load."""
    repository = tmp_path / "repository"
    write(repository / "who", 1)
    flags = ("--model-control-mode", "none", "--allow-model-control", *FAST)
    async with living(repository, *flags, "--settle-seconds", "0") as live:
        write(repository / "who", 2)
        write(repository / "late", 3)
        for _ in range(60):  # more than a second, where looking would take a tenth of it
            assert (await live.ask("who")).said == mark(1)
            await asyncio.sleep(0.02)
        assert (await live.ask("late")).status == 404
        for name, who in (("who", 2), ("late", 3)):
            assert await live.post(f"/v2/repository/models/{name}/load") == (200, None)
            assert (await live.ask(name)).said == mark(who)


@contextlib.asynccontextmanager
async def _channel(live: Living) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{live.daemon.ports['grpc']}") as channel:
        yield channel


async def test_readiness_and_control_in_watch_mode(tmp_path: Path) -> None:
    """Ready when the first model is; a failure later changes nothing; the API takes no orders."""
    repository = tmp_path / "repository"
    (write(repository / "who", 1) / GRAPH).write_bytes(b"no graph")
    serving, not_serving = (
        health_pb2.HealthCheckResponse.SERVING,
        health_pb2.HealthCheckResponse.NOT_SERVING,
    )
    async with living(repository, *FAST) as live, _channel(live) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        async def health() -> int:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=30)
            ready = (await live.get("/readyz"))["ready"]
            assert ready == (answer.status == serving)
            return int(answer.status)

        watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=60)
        states = aiter(watch)
        assert (await anext(states)).status == not_serving
        assert await health() == not_serving
        write(repository / "who", 1)
        assert (await anext(states)).status == serving
        await live.until_serves("who", 1)
        assert await health() == serving
        (repository / "who" / GRAPH).write_bytes(b"no graph")
        await live.until_told("who", "no ONNX file")
        assert await health() == serving
        watch.cancel()

        for verb in ("load", "unload"):
            status, told = await live.post(f"/v2/repository/models/who/{verb}")
            assert (status, "--allow-model-control" in told["error"]) == (409, True)
        assert (await live.ask("who")).said == mark(1)


async def test_control_that_is_allowed_in_watch_mode(tmp_path: Path) -> None:
    """A load is a look at once; what was unloaded stays so whatever happens to its files."""
    repository = tmp_path / "repository"
    write(repository / "who", 1)
    write(repository / "other", 1)
    flags = ("--allow-model-control", "--settle-seconds", "1.5")
    async with living(repository, *flags) as live:
        write(repository / "who", 2)
        assert await live.post("/v2/repository/models/who/load") == (200, None)
        assert (await live.ask("who")).said == mark(2)
        assert (await live.post("/v2/repository/models/who/unload"))[0] == 200
        write(repository / "who", 3)
        write(repository / "other", 3)
        await live.until_serves("other", 3)
        assert (await live.ask("who")).status == 503
        assert await live.post("/v2/repository/models/who/load") == (200, None)
        assert (await live.ask("who")).said == mark(3)


# --- versions ---


@SHARED
async def test_versions(place: Place) -> None:
    """Routing, shadow, policy, a version's own config, and who answered, over HTTP and gRPC."""
    live = place.live
    model = place.add(
        "several", 1, 2, 3,
        config='routing: {weights: {"1": 50, "2": 50}}\nshadow: {version: 3, fraction: 1.0}\n'
        "version_policy: all\nmax_batch_size: 7\n",
    )  # fmt: skip
    (model / "2" / "config.yaml").write_text("max_batch_size: 9\n")

    async def all_there() -> bool:
        index = await live.index()
        return all(index.get(("several", each)) == ("READY", "") for each in "123")

    await live.until(all_there)
    async with _channel(live) as channel:
        seen: Counter[str] = Counter()
        for _ in range(60):
            answer = await live.ask("several")
            assert answer.said == mark(int(answer.version))
            seen[answer.version] += 1
        assert set(seen) == {"1", "2"}
        assert min(seen.values()) >= 10  # one in half a million runs has less

        async def counted() -> bool:
            labels = {"model": "several", "version": "3", "outcome": "different"}
            return await live.metric("nerve_shadow_requests_total", **labels) == 60

        await live.until(counted)
        assert (await live.ask("several", "3")).said == mark(3)
        limits = {
            row["version"]: row["limits"]["max_batch_size"]
            for row in (await live.about("several"))["versions"]
        }
        assert limits == {"1": 7, "2": 9, "3": 7}

        predict = channel.unary_unary(
            PREDICT,
            request_serializer=pb.TokenClassificationRequest.SerializeToString,
            response_deserializer=pb.TokenClassificationResponse.FromString,
        )
        for version in ("1", "2", "3", ""):
            sent = (("model-name", "several"), ("model-version", version))
            call = predict(
                pb.TokenClassificationRequest(inputs=[TEXT]), metadata=sent if version else sent[:1]
            )
            result = await call
            told = dict(await call.trailing_metadata())
            assert told["x-nerve-model"] == "several"
            answered = told["x-nerve-model-version"]
            assert isinstance(answered, str)
            assert answered == version or answered in ("1", "2") * (not version)
            assert result.results[0].tokens[0].label == f"B-{mark(int(answered))}"

        # a change of policy, routing or shadow reloads nothing
        loaded = await live.loads("several")
        (model / "config.yaml").write_text(
            "version_policy: {specific: {versions: [1]}}\nmax_batch_size: 7\n"
        )

        async def only_the_first() -> bool:
            rows = await live.index()
            return {rows["several", number][0] for number in "23"} == {"UNAVAILABLE"}

        async with live.callers("several", {1, 2}):
            await live.until(only_the_first)
        assert await live.loads("several") == loaded
        assert (await live.ask("several", "2")).status == 503
        assert (await live.ask("several", "9")).status == 404


@SHARED
async def test_a_shadow_that_is_called_off_never_answers(place: Place) -> None:
    """Nor does it while the versions that the new config wants are still being loaded."""
    live = place.live
    model = place.add(
        "haunted", 1, 2, 3,
        config="version_policy: {specific: {versions: [1]}}\nshadow: {version: 3}\n",
    )  # fmt: skip
    endless_graph(model / "2" / GRAPH)

    async def both() -> bool:
        index = await live.index()
        return all(index.get(("haunted", each)) == ("READY", "") for each in "13")

    await live.until(both)
    await until(lambda: not live.processes("nerve-proof"))
    try:
        (model / "config.yaml").write_text("version_policy: {specific: {versions: [1, 2]}}\n")
        await _proof_of(live)
        answered = {(await live.ask("haunted")).version for _ in range(20)}
        assert answered == {"1"}
    finally:
        shutil.rmtree(model)
        await until(lambda: not live.processes("nerve-proof"))


@SHARED
async def test_golden_gate(place: Place) -> None:
    """A version that is worse than its gate is refused, with its F1 and the text that differs."""
    live, folder = place.live, place.add("gated", 1)
    golden = {"text": TEXT, "entities": [{"label": mark(1), "start": 0, "end": len(TEXT)}]}
    (folder / "golden.jsonl").write_text(json.dumps(golden) + "\n")
    (folder / "config.yaml").write_text("quality_gate: {min_f1: 0.9}\n")
    await live.until_serves("gated", 1)
    async with live.callers("gated", {1}):
        table_graph(folder / GRAPH, scores(2))
        reason = await live.until_told("gated", "F1 0.000", "0.9", TEXT, mark(1))
        assert (await live.index())["gated", "1"][0] == "READY"
        assert "golden" in reason
    async with live.callers("gated", {1}):
        table_graph(folder / GRAPH, scores(1) * 2)  # new bytes, as good as the old ones
        await live.until_fine("gated")
    loads = await live.loads("gated")
    assert (loads["failed"], loads["loaded"] >= 2) == (1, True)
    (folder / "golden.jsonl").write_text('{"text": \n')
    await live.until_told("gated", "golden.jsonl", "line 1")
    assert (await live.ask("gated")).said == mark(1)
    shutil.rmtree(folder)


@SHARED
async def test_one_bad_version_holds_back_no_good_one(place: Place) -> None:
    """Also right after a start; an older one stands in for the newest until that is mended."""
    live = place.live
    assert (await live.ask("lame")).said == mark(2)
    index = await live.index()
    assert index["lame", "2"] == ("READY", "")
    assert index["lame", "3"][0] == "UNAVAILABLE"
    assert "NaN or infinite" in index["lame", "3"][1]
    assert ("lame", "1") not in index
    async with live.callers("lame", {2, 3}):
        write(place.repository / "lame" / "3", 3)
        await live.until_serves("lame", 3)
        await live.until_fine("lame")


def test_exit_on_error(tmp_path: Path) -> None:
    """With the reason; without the flag it would serve the others."""
    write(tmp_path / "repository" / "good", 1)
    (write(tmp_path / "repository" / "bad", 1) / "tokenizer.json").unlink()
    ended = subprocess.run(
        [
            sys.executable, "-m", "nerve", "serve", "--http-port", "0", "--disable-grpc",
            "--exit-on-error", str(tmp_path / "repository"),
        ],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    told = " ".join(ended.stderr.split())
    assert "bad" in told
    assert "tokenizer.json is missing" in told
    assert "Traceback" not in told
