"""A model folder read to the end: configs laid over each other, and what makes two versions equal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from model_folders import DATA, DATA_BYTES, graph_bytes, place, write_model
from nerve.config.model import ModelConfig
from nerve.repository.fingerprint import Digests
from nerve.repository.layout import read_model, scan
from nerve.repository.wanted import Wanted, paths, read_wanted


def read(folder: Path, override: dict[str, object] | None = None) -> Wanted:
    """What the disk asks for."""
    files = read_model(scan(folder.parent).folders[folder.name])
    return read_wanted(files, Digests(), override=override)


def identity(folder: Path, number: int = 1) -> str:
    return read(folder).versions[number].identity


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model with one version and a config."""
    made = write_model(tmp_path / "ner", "max_batch_size: 4\n", v1="x")
    place(made / "1" / "config.json", b"{}")
    return made


def test_a_folder_is_read_to_the_end(folder: Path) -> None:
    place(folder / "1" / "golden.jsonl", b"")
    found = read(folder)
    assert (found.name, found.problem, found.warnings, found.overridden) == ("ner", "", (), False)
    assert found.config.max_batch_size == 4
    version = found.versions[1]
    assert (version.number, version.config, version.problem) == (1, found.config, "")
    names = {path.name for path in paths(version.files)}
    assert names == {"model.onnx", "config.json", "golden.jsonl"}
    assert version.untouched()


def test_equal_contents_are_the_same_version_wherever_and_whenever(tmp_path: Path) -> None:
    one = write_model(tmp_path / "one", v1="x", v7="x")
    other = write_model(tmp_path / "other", "max_batch_size: 32  # the default\n", v1="x")
    os.utime(other / "1" / "model.onnx", ns=(1, 1))
    assert identity(one) == identity(one, 7) == identity(other)


@pytest.mark.parametrize("name", ["model.onnx", "config.json", "golden.jsonl", "tokenizer.json"])
def test_any_file_that_counts_makes_another_version(folder: Path, name: str) -> None:
    before = identity(folder)
    place(folder / "1" / name, graph_bytes("other") if name.endswith("onnx") else b'{"a": 1}')
    assert identity(folder) != before


def test_files_that_do_not_count_make_no_other_version(folder: Path) -> None:
    before = identity(folder)
    place(folder / "1" / "README.md", b"hello")
    place(folder / "notes.txt", b"hello")
    place(folder / "1" / "training_args.bin", b"hello")
    assert identity(folder) == before


@pytest.mark.parametrize(
    ("config", "same"),
    [
        ("max_batch_size: 4\nversion_policy: all\n", True),
        ("max_batch_size: 4\nrouting: {weights: {1: 1}}\n", True),
        ("max_batch_size: 4\nshadow: {version: 1}\n", True),
        ("max_batch_size: 4\nname: ner\n", True),
        ("# the same with a comment\nmax_batch_size: 4\n", True),
        ("max_batch_size: 5\n", False),
        ("max_batch_size: 4\nquality_gate: {min_f1: 0.5}\n", False),
        ("max_batch_size: 4\nlabels: [O]\n", False),
    ],
)
def test_only_what_a_version_is_loaded_with_counts_of_the_config(
    folder: Path, config: str, same: bool
) -> None:
    """A policy, weights or a shadow say which versions serve, and reload none."""
    before = identity(folder)
    place(folder / "config.yaml", config.encode())
    assert (identity(folder) == before) is same


def test_a_version_s_own_config_is_laid_over_the_model_s(folder: Path) -> None:
    """For this version only."""
    write_model(folder, "max_batch_size: 4\ntokenizer: {stride: 8}\n", v2="x")
    place(folder / "2" / "config.yaml", b"tokenizer: {max_length: 64}\n")
    found = read(folder)
    assert found.versions[1].config == found.config
    own = found.versions[2].config
    assert (own.max_batch_size, own.tokenizer.stride, own.tokenizer.max_length) == (4, 8, 64)
    assert found.versions[1].identity != found.versions[2].identity


def test_a_broken_config_of_a_version_concerns_only_it(folder: Path) -> None:
    """The others are served; the reason names the file."""
    write_model(folder, v2="y")
    place(folder / "2" / "config.yaml", b"version_policy: all\n")
    found = read(folder)
    assert found.problem == found.versions[1].problem == ""
    assert found.versions[2].problem.startswith("2/config.yaml: line 1: version_policy: belongs")


def test_a_broken_model_config_concerns_all_of_it(folder: Path) -> None:
    place(folder / "config.yaml", b"max_batch: 4\n")
    found = read(folder)
    assert found.problem.startswith("config.yaml: line 1: max_batch: unknown key")
    assert not found.versions


def test_an_override_stands_in_for_the_file(folder: Path) -> None:
    """All of it: what it does not say is the default, not what the file says."""
    found = read(folder, {"max_num_tokens": 99})
    assert found.overridden
    assert found.config == ModelConfig(max_num_tokens=99)
    assert found.versions[1].config == found.config
    place(folder / "config.yaml", b"[broken")
    assert read(folder, {}).problem == ""
    assert read(folder, {"max_batch": 4}).problem.startswith("config override: max_batch")


def test_a_folder_without_a_graph_has_a_problem(tmp_path: Path) -> None:
    (tmp_path / "ner").mkdir()
    assert read(tmp_path / "ner").problem.startswith("no model.onnx found")


def test_a_graph_whose_data_is_not_there_yet(folder: Path) -> None:
    """It is a version that cannot be loaded; each step towards whole is another one."""
    place(folder / "1" / "model.onnx", graph_bytes("x", external=True))
    seen = []
    for content in (None, bytes(DATA_BYTES // 2), bytes(DATA_BYTES)):
        if content is not None:
            place(folder / "1" / DATA, content)
        version = read(folder).versions[1]
        seen.append((version.identity, bool(version.problem)))
    assert [problem for _, problem in seen] == [True, True, False]
    assert len({each for each, _ in seen}) == 3
    assert DATA in read(folder).versions[1].files.external


@pytest.mark.parametrize("content", [b"", b"no protobuf at all", b"\xff" * 100])
def test_a_broken_graph_is_its_version_s_problem(folder: Path, content: bytes) -> None:
    write_model(folder, v2="y")
    place(folder / "1" / "model.onnx", content)
    found = read(folder)
    assert found.versions[1].problem
    assert found.versions[2].problem == found.problem == ""


@pytest.mark.parametrize("part", [1, 40, -1])
def test_half_a_graph_is_its_version_s_problem(folder: Path, part: int) -> None:
    place(folder / "1" / "model.onnx", graph_bytes("x" * 200)[:part])
    assert read(folder).versions[1].problem


@pytest.mark.parametrize("change", ["write", "replace", "touch", "unlink"])
def test_untouched_looks_at_the_disk(folder: Path, change: str) -> None:
    """Any change counts, even one that keeps size and modification time."""
    graph = folder / "1" / "model.onnx"
    version = read(folder).versions[1]
    before = graph.stat()
    if change == "write":
        with graph.open("r+b") as file:
            file.write(graph_bytes("y"))
        os.utime(graph, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "replace":
        place(graph, graph_bytes("x"))
        os.utime(graph, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "touch":
        graph.touch()
    else:
        graph.unlink()
    assert not version.untouched()
