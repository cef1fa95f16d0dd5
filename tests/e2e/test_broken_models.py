"""What people put into a repository that is no model: told, and nothing else suffers from it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import pytest
import yarl
from onnx import TensorProto, helper
from tokenizers import AddedToken, Tokenizer

from living import (
    COLUMNS,
    DATA,
    FAST,
    VOCABULARY,
    Living,
    endless_graph,
    greedy_graph,
    living,
    mark,
    save_graph,
    scores,
    table_graph,
    until,
    write,
)

GRAPH: Final = "model.onnx"


@dataclass(frozen=True, slots=True)
class Breakage:
    """What is done to a whole model, and what its reason then has to say."""

    do: Callable[[Path], object]
    words: tuple[str, ...]
    external: bool = False


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _fewer_labels(folder: Path) -> None:
    _edit(folder / "config.json", id2label={"0": "O", "1": "B-X"})


def _custom_op(folder: Path) -> None:
    nodes = [helper.make_node("Frobnicate", ["input_ids"], ["logits"], domain="com.acme")]
    save_graph(folder / GRAPH, nodes, [])


def _no_logits(folder: Path) -> None:
    nodes = [helper.make_node("ReduceSum", ["input_ids"], ["pooled"], keepdims=0)]
    graph = helper.make_graph(
        nodes,
        "pooled",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("pooled", TensorProto.INT64, [])],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / GRAPH)


def _not_a_number(folder: Path) -> None:
    table_graph(folder / GRAPH, np.full((VOCABULARY, COLUMNS), np.nan, dtype=np.float32))


def _another_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken(f"alien{number}") for number in range(50)])
    tokenizer.save(str(folder / "tokenizer.json"))


def _and_no_vocabulary_size(folder: Path) -> None:
    _another_tokenizer(folder)
    about = json.loads((folder / "config.json").read_text())
    del about["vocab_size"]
    (folder / "config.json").write_text(json.dumps(about))


def _pipe(name: str) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return do


def _folder(name: str) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()
        (folder / name / "readme.txt").write_text("what is it?")

    return do


def _link(name: str, target: str) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return do


def _link_out(name: str) -> Callable[[Path], None]:
    """To the file itself, which is put beside the repository."""

    def do(folder: Path) -> None:
        outside = folder.parent.parent / f"outside-{folder.name}-{name}"
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)

    return do


def _text(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def _bytes(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def _two_configs(folder: Path) -> None:
    for name in ("config.yaml", "config.yml"):
        (folder / name).touch()


def _wrong_sums(folder: Path) -> None:
    (folder / "SHA256SUMS").write_text(f"{hashlib.sha256(b'').hexdigest()}  {GRAPH}\n")


def _data_elsewhere(location: str) -> Callable[[Path], None]:
    """External data that lies where it may not; it is whole."""

    def do(folder: Path) -> None:
        model = onnx.load(str(folder / GRAPH), load_external_data=False)
        (tensor,) = model.graph.initializer
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
        (folder / GRAPH).write_bytes(model.SerializeToString())

    return do


_LAUGHS = "a: &a [lol, lol]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

BREAKAGES: Final[Mapping[str, Breakage]] = {
    # the graph
    "truncated": Breakage(lambda at: _cut(at / GRAPH), (GRAPH, "incomplete")),
    "random": Breakage(_bytes(GRAPH, np.random.default_rng(7).bytes(50_000)), (GRAPH, "no ONNX")),
    "text": Breakage(_text(GRAPH, "<html>404 Not Found</html>"), (GRAPH, "no ONNX file")),
    "lfs": Breakage(
        _text(GRAPH, "version https://git-lfs.github.com/spec/v1\n"), ("Git LFS pointer",)
    ),
    "empty-graph": Breakage(lambda at: _empty(at / GRAPH), (GRAPH, "is an empty file")),
    "no-graph": Breakage(lambda at: (at / GRAPH).unlink(), (f"no {GRAPH} found",)),
    "custom-op": Breakage(_custom_op, (GRAPH, "com.acme", "Frobnicate")),
    "no-logits": Breakage(_no_logits, ("'logits'", "pooled")),
    "nan": Breakage(_not_a_number, ("NaN",)),
    # what belongs to it
    "few-labels": Breakage(_fewer_labels, ("2 labels", f"puts out {COLUMNS}")),
    "few-labels-in-yaml": Breakage(
        _text("config.yaml", "labels: [O, B-X]\n"), ("config.yaml", "2 labels", str(COLUMNS))
    ),
    "alien-tokenizer": Breakage(_another_tokenizer, ("tokenizer.json", "1549", "another model")),
    "alien-ids": Breakage(_and_no_vocabulary_size, ("tokenizer.json", "1549", "another model")),
    "no-tokenizer": Breakage(
        lambda at: (at / "tokenizer.json").unlink(), ("tokenizer.json is missing",)
    ),
    "empty-tokenizer": Breakage(lambda at: _empty(at / "tokenizer.json"), ("tokenizer.json",)),
    "cut-tokenizer": Breakage(lambda at: _cut(at / "tokenizer.json"), ("tokenizer.json",)),
    "list-tokenizer": Breakage(_text("tokenizer.json", "[1]"), ("tokenizer.json",)),
    "empty-json": Breakage(lambda at: _empty(at / "config.json"), ("config.json",)),
    "cut-json": Breakage(lambda at: _cut(at / "config.json"), ("config.json",)),
    "list-json": Breakage(_text("config.json", "[1]"), ("config.json",)),
    "deep-json": Breakage(_text("config.json", "[" * 200_000), ("config.json",)),
    "latin-json": Breakage(_bytes("config.json", b'{"a": "\xe9"}'), ("config.json",)),
    "empty-cuts": Breakage(lambda at: _empty(at / "tokenizer_config.json"), ("tokenizer_config",)),
    "wrong-sums": Breakage(_wrong_sums, ("SHA256SUMS", GRAPH, "damaged")),
    "gate-without-golden": Breakage(
        _text("config.yaml", "quality_gate: {min_f1: 0.5}\n"), ("golden.jsonl",)
    ),
    # config.yaml
    "tabs": Breakage(_text("config.yaml", "optimization:\n\tintra_op_threads: 1\n"), ("line 2",)),
    "twice": Breakage(
        _text("config.yaml", "max_batch_size: 1\nmax_batch_size: 2\n"), ("line 2", "twice")
    ),
    "laughs": Breakage(_text("config.yaml", _LAUGHS), ("config.yaml", "unknown key")),
    "laughs-in-labels": Breakage(
        _text("config.yaml", _LAUGHS.replace("i: &i", "labels: &i")), ("config.yaml", "labels")
    ),
    "merges": Breakage(
        _text("config.yaml", "a: &a {x: 1}\nb: {<<: *a}\n"), ("config.yaml", "merge keys")
    ),
    "loop-in-yaml": Breakage(_text("config.yaml", "labels: &a [*a]\n"), ("config.yaml", "labels")),
    "deep-yaml": Breakage(_text("config.yaml", "labels: " + "[" * 5000), ("config.yaml",)),
    "tag": Breakage(
        _text("config.yaml", "labels: !!python/object/apply:os.system [exit]\n"), ("config.yaml",)
    ),
    "latin-yaml": Breakage(_bytes("config.yaml", b"name: \xe9\n"), ("config.yaml", "UTF-8")),
    "huge-yaml": Breakage(_text("config.yaml", "# " + "x" * 2_000_000), ("config.yaml", "is over")),
    "list-yaml": Breakage(_text("config.yaml", "- 1\n"), ("config.yaml", "mapping")),
    "other-name": Breakage(_text("config.yaml", "name: other\n"), ("name", "'other'")),
    "two-yamls": Breakage(_two_configs, ("both", "config.yaml", "config.yml")),
    # what is no file
    "pipe-graph": Breakage(_pipe(GRAPH), (GRAPH, "is a pipe")),
    "pipe-tokenizer": Breakage(_pipe("tokenizer.json"), ("tokenizer.json is a pipe",)),
    "pipe-json": Breakage(_pipe("config.json"), ("config.json is a pipe",)),
    "pipe-yaml": Breakage(_pipe("config.yaml"), ("config.yaml is a pipe",)),
    "pipe-golden": Breakage(_pipe("golden.jsonl"), ("golden.jsonl is a pipe",)),
    "pipe-data": Breakage(_pipe(DATA), (DATA,), external=True),
    "folder-graph": Breakage(_folder(GRAPH), (GRAPH, "is a folder")),
    "folder-tokenizer": Breakage(_folder("tokenizer.json"), ("tokenizer.json", "folder")),
    # links
    "loop-graph": Breakage(_link(GRAPH, GRAPH), (GRAPH, "leads nowhere")),
    "loop-yaml": Breakage(_link("config.yaml", "config.yaml"), ("config.yaml", "leads nowhere")),
    "dangling": Breakage(_link("tokenizer.json", "nowhere"), ("tokenizer.json", "leads nowhere")),
    "out-graph": Breakage(_link_out(GRAPH), (GRAPH, "out of the repository")),
    "out-json": Breakage(_link_out("config.json"), ("config.json", "out of the repository")),
    "out-data": Breakage(_link_out(DATA), (DATA, "leads out"), external=True),
    "device": Breakage(_link(GRAPH, "/dev/zero"), (GRAPH,)),
    # external data
    "no-data": Breakage(
        lambda at: (at / DATA).unlink(), (f"waits for {DATA}", "not there"), external=True
    ),
    "half-data": Breakage(lambda at: _cut(at / DATA), (DATA, "incomplete"), external=True),
    "empty-data": Breakage(lambda at: _empty(at / DATA), (DATA, "incomplete"), external=True),
    "folder-data": Breakage(_folder(DATA), (DATA,), external=True),
    "data-above": Breakage(
        _data_elsewhere(f"../good/{DATA}"), ("outside of its folder",), external=True
    ),
    "absolute-data": Breakage(_data_elsewhere("/etc/passwd"), ("absolute path",), external=True),
}


async def test_each_has_its_reason(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In place of a model that serves, which goes on, and as a new one; the good one answers."""
    repository = tmp_path / "repository"
    write(repository / "good", 1, external=True)
    for name, breakage in BREAKAGES.items():
        write(repository / f"old-{name}", 2, external=breakage.external)
        new = write(tmp_path / "staged" / f"new-{name}", 2, external=breakage.external)
        breakage.do(new)
    async with living(repository, *FAST) as live:
        for name, breakage in BREAKAGES.items():
            breakage.do(repository / f"old-{name}")
            (tmp_path / "staged" / f"new-{name}").rename(repository / f"new-{name}")
        mute: list[str] = []
        for name, breakage in BREAKAGES.items():
            try:
                await _check_one(live, name, breakage, secret=str(tmp_path))
            except AssertionError as error:
                mute.append(str(error)[:300])
            assert (await live.ask("good")).said == mark(1)
        log = capfd.readouterr().err
        for name, breakage in BREAKAGES.items():
            for model in (f"old-{name}", f"new-{name}"):
                lines = [line for line in log.splitlines() if f"model {model} " in line]
                if not any(breakage.words[0] in line for line in lines):
                    mute.append(f"{model}: no line in the log: {lines}")
        assert not mute, "\n".join(mute)
        assert "Traceback" not in log
        await until(lambda: len(live.processes()) <= 1)  # the last proof may still be ending
        some = list(BREAKAGES)[::4]
        for name in some:
            _mend(repository / f"old-{name}", 3)
        for name in some:
            await live.until_serves(f"old-{name}", 3)
            await live.until_fine(f"old-{name}")
            assert await live.metric("nerve_model_stale", model=f"old-{name}") == 0


async def _check_one(live: Living, name: str, breakage: Breakage, *, secret: str) -> None:
    """`secret` is where the repository lies, which is not for clients."""
    old, new = f"old-{name}", f"new-{name}"
    for model in (old, new):
        await live.until_told(model, *breakage.words)
    index = await live.index()
    for (model, _), (state, reason) in index.items():
        if model in (old, new):
            assert all(word in reason for word in breakage.words), (model, reason)
            assert secret not in reason
            assert state == ("READY" if model == old else "UNAVAILABLE")
    metrics = await live.metrics()
    for model in (old, new):
        assert metrics[f'nerve_model_stale{{model="{model}"}}'] == 1
        assert metrics[f'nerve_model_loads_total{{model="{model}",outcome="failed"}}'] >= 1
    assert (await live.ask(old)).said == mark(2), old
    refused = await live.ask(new)
    assert refused.status == 503
    assert all(word in refused.said for word in breakage.words), refused


def _mend(folder: Path, who: int) -> None:
    """Replace a folder by a whole model."""
    fresh = write(folder.parent / f".fresh-{folder.name}", who)
    folder.rename(folder.parent / f".broken-{folder.name}")
    fresh.rename(folder)


async def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    """What `docker -v config.yaml:…` makes of a missing file: not served as if it said nothing."""
    names = ["config.yaml", "config.json", "tokenizer_config.json"]
    for name in names:
        _folder(name)(write(tmp_path / "repository" / f"odd-{name}", 1))
    async with living(tmp_path / "repository", "--disable-grpc") as live:
        reasons = {name: await live.reason(f"odd-{name}") for name in names}
        assert all(name in reason and "folder" in reason for name, reason in reasons.items())


async def test_a_versions_own_broken_config(tmp_path: Path) -> None:
    """Told of a version that serves, too; the other one, and what served, go on."""
    model = tmp_path / "repository" / "who"
    for number in (1, 2):
        write(model / str(number), number)
    (model / "config.yaml").write_text("version_policy: all\n")
    async with living(tmp_path / "repository", *FAST) as live, live.callers("who", {2}):
        for text, words in [
            ("max_batchsize: 2\n", ("2/config.yaml", "did you mean 'max_batch_size'?")),
            ("version_policy: all\n", ("2/config.yaml", "belongs into the model's config.yaml")),
            ("a: &a [*a]\n", ("2/config.yaml", "unknown key")),
        ]:
            (model / "2" / "config.yaml").write_text(text)
            await live.until_told("who", *words)
            index = await live.index()
            assert index["who", "1"] == ("READY", "")
            assert index["who", "2"][0] == "READY"
            assert await live.metric("nerve_model_stale", model="who") == 1
        (model / "2" / "config.yaml").unlink()
        await live.until_fine("who")


async def test_names(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Names of models, versions and what lies about; and names in requests."""
    repository = tmp_path / "repository"
    write(repository / "good", 1)
    async with living(repository, *FAST) as live:
        staged = tmp_path / "staged"
        bad = [
            "with space",
            "ünïcode",
            "李明",
            "-dash",
            "a:b",
            "n" * 129,
            "x" * 250,
            "a\nb",
            "a%2fb",
        ]
        for name in bad:
            write(staged / name, 2).rename(repository / name)
        fine = ["n" * 128, "UPPER", "1", "v1.2_x-y", "a..b"]
        for name in fine:
            write(staged / name, 3).rename(repository / name)
        for name in [".hidden", "backup~", "copy.part", "lost+found"]:
            write(staged / name, 2).rename(repository / name)
        (repository / "README.md").write_text("models")
        os.mkfifo(repository / "pipe")
        (repository / "loop").symlink_to("loop")
        (repository / "knot").mkdir()
        (repository / "knot" / "1").symlink_to("..")
        write(tmp_path / "outside", 4)
        (repository / "outside").symlink_to(tmp_path / "outside")
        (repository / "dangling").symlink_to("nowhere")
        (repository / "alias").symlink_to("good")
        (repository / "nothing").mkdir()
        numbers = ["007", "-1", "1.5", "0", "9" * 20, "1_0", "１", "1e3"]
        for number in numbers:
            write(staged / "numbers" / number, 5)
        shutil.copytree(staged / "numbers", staged / "some-numbers")
        write(staged / "some-numbers" / "12", 6)
        (staged / "numbers").rename(repository / "numbers")
        (staged / "some-numbers").rename(repository / "some-numbers")

        for name in fine:
            await live.until_serves(name, 3)
        await live.until_serves("alias", 1)
        await live.until_serves("some-numbers", 6)
        for name, words in [
            ("loop", "leads nowhere"),
            ("dangling", "leads nowhere"),
            ("outside", "out of the repository"),
            ("knot", "a folder that it lies in"),
            ("nothing", "no model.onnx found"),
            ("numbers", "numbers/<version>/model.onnx"),
        ]:
            await live.until_told(name, words)
        index = await live.index()
        for name in bad:
            assert "cannot be a model name" in index[name, ""][1], index[name, ""]
        names = {name for name, _ in index}
        others = {"good", "alias", "loop", "dangling", "outside", "knot", "nothing"}
        assert names == {*bad, *fine, *others, "numbers", "some-numbers"}
        log = capfd.readouterr().err
        for number in ("007", "-1", "1.5", "0", "9" * 20):
            for model in ("numbers", "some-numbers"):
                assert f"model {model}: folder '{number}' is ignored" in log
        assert "Traceback" not in log

        for name in [
            "..", "%2e%2e", "..%2f..%2fetc%2fpasswd", ".hidden", "%2fgood", "good%2f", "x" * 300,
            "GOOD", "%00", "%ff", "good%00", "pipe", "README.md", "with%20space%20", "%25", "*",
        ]:  # fmt: skip
            for path in (f"/v1/models/{name}/predict_tokens", f"/v1/models/{name}/predict"):
                status = await _status(live, path)
                assert status in (400, 404), (path, status)
        for number in [*numbers, "..", "x" * 300, "1%2f..", "13", "", "12x", "%2012"]:
            path = f"/v1/models/some-numbers/versions/{number}/predict_tokens"
            assert await _status(live, path) in (400, 404), path
        assert (await live.ask("some-numbers", "12")).said == mark(6)
        assert await _status(live, "/v1/models/with%20space/predict_tokens") == 503
        assert (await live.ask("good")).said == mark(1)

        # a rename that changes only the case
        (repository / "good").rename(repository / "Good")
        await live.until_serves("Good", 1)
        assert (await live.ask("good")).status == 404
        (repository / "Good").rename(repository / "good")
        await live.until_serves("good", 1)
        assert (await live.ask("Good")).status == 404


async def _status(live: Living, path: str) -> int:
    """Of a tagging request to a path that is sent as it is."""
    url = yarl.URL(live.daemon.url + path, encoded=True)
    async with live.http.post(url, json={"inputs": ["Ada"]}) as answer:
        await answer.read()
        return answer.status


async def test_two_repositories_with_one_name(tmp_path: Path) -> None:
    """What served goes on; the reason names both; it passes when one of them goes."""
    one, two = tmp_path / "one", tmp_path / "two"
    (tmp_path / "release-1").mkdir()
    one.symlink_to("release-1")
    write(one / "both", 1)
    write(one / "mine", 2)
    write(two / "yours", 3)
    write(two / "always", 4)
    write(one / "always", 5)
    async with living(one, "-r", two, *FAST) as live:
        await live.until_told("always", "several repositories", "one", "two")
        assert (await live.ask("always")).status == 503
        async with live.callers("both", {1}):
            write(tmp_path / "staged", 6).rename(two / "both")
            reason = await live.until_told("both", "several repositories", "one", "two")
            assert (await live.index())["both", "1"] == ("READY", reason)
            shutil.rmtree(two / "both")
            await live.until_fine("both")
        shutil.rmtree(one / "always")
        await live.until_serves("always", 4)
        # the repository itself goes and comes back, alone, or with something else in it
        async with live.callers("mine", {2}), live.callers("yours", {3, 7}):
            two.rename(tmp_path / "away")
            for _ in range(30):
                assert (await live.ask("yours")).said == mark(3)
                await asyncio.sleep(0.05)
            (tmp_path / "away").rename(two)
            await live.until_fine("yours")
            two.rename(tmp_path / "away")
            write(two / "yours", 7)
            await live.until_serves("yours", 7)
        assert (await live.ask("always")).status == 404
        assert (await live.get("/readyz"))["ready"] is True
        # a repository that is a link, to the next release
        write(tmp_path / "release-2" / "mine", 8)
        (tmp_path / "next").symlink_to("release-2")
        async with live.callers("mine", {2, 8, 9}):
            (tmp_path / "next").rename(one)
            await live.until_serves("mine", 8)
            shutil.rmtree(tmp_path / "release-1")
            write(one / "mine", 9)
            await live.until_serves("mine", 9)


async def test_external_data_that_is_written_to_while_it_serves(tmp_path: Path) -> None:
    """Overwritten, cut short, removed, put back, all in place: answers stay what they were."""
    folder = write(tmp_path / "repository" / "who", 1, external=True)
    data = folder / DATA
    whole = data.read_bytes()
    async with living(tmp_path / "repository", *FAST) as live:
        harms: list[tuple[Callable[[], object], str]] = [
            (lambda: os.truncate(data, 1000), "incomplete"),
            (lambda: os.truncate(data, 0), "incomplete"),
            (data.unlink, "waits for"),
            (lambda: data.write_bytes(np.full_like(scores(1), np.nan).tobytes()), "NaN"),
            (lambda: data.write_bytes(b"x"), "incomplete"),
        ]
        for harm, words in harms:
            async with live.callers("who", {1}):
                harm()
                await live.until_told("who", words)
            data.write_bytes(whole)
            await live.until_fine("who")
        assert (await live.loads("who"))["loaded"] == 1  # it is what was loaded all the time
        data.write_bytes(scores(2).tobytes())

        async def changed() -> bool:
            return (await live.ask("who")).said == "1of2"  # only the data were changed

        await live.until(changed)


async def test_graphs_that_hang_or_take_all_memory(tmp_path: Path) -> None:
    """Each is ended at its limit; the version that served goes on, others load meanwhile."""
    repository = tmp_path / "repository"
    write(repository / "hang", 1)
    write(repository / "eat", 2)
    env = {"NERVE_LOAD_TIMEOUT_S": "6", "NERVE_PROOF_MEMORY_BYTES": str(400 * 2**20)}
    async with living(repository, *FAST, env=env) as live:
        async with live.callers("hang", {1}), live.callers("eat", {2}):
            endless_graph(repository / "hang" / GRAPH)
            greedy_graph(repository / "eat" / GRAPH, 1_000_000_000)
            await live.until_told("eat", f"more than {400 * 2**20} bytes", "proof_memory_bytes")
            write(tmp_path / "staged", 3).rename(repository / "late")
            await live.until_serves("late", 3)
            await live.until_told("hang", "did not finish within 6 s", "load_timeout_s")
        await until(lambda: not live.processes("nerve-proof"))
        for name in ("hang", "eat"):
            assert (await live.index())[name, "1"][0] == "READY"
            assert (await live.loads(name))["failed"] == 1
            assert await live.metric("nerve_model_stale", model=name) == 1
        write(repository / "hang", 4)
        await live.until_serves("hang", 4)
        await live.until_fine("hang")


async def test_what_may_not_be_read(tmp_path: Path) -> None:
    """A file and a folder."""
    (tmp_path / "probe").touch(mode=0)
    if os.access(tmp_path / "probe", os.R_OK):
        pytest.skip("root may read everything")
    repository = tmp_path / "repository"
    for name in ("file", "folder", "good"):
        write(repository / name, 1)
    async with living(repository, *FAST) as live:
        (repository / "file" / GRAPH).chmod(0)
        (repository / "folder").chmod(0)
        try:
            async with live.callers("file", {1}), live.callers("folder", {1}):
                await live.until_told("file", GRAPH, "Permission denied")
                await live.until_told("folder", "Permission denied")
        finally:
            (repository / "folder").chmod(0o755)
            (repository / "file" / GRAPH).chmod(0o644)
        await live.until_fine("file")
        await live.until_fine("folder")
