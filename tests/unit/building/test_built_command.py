"""The commands of a built program, in this process; the program itself is run by tests/cookbook."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from nerve.building.assembly import assemble
from nerve.building.contents import pack
from nerve.building.runtime import read_runtime
from nerve.cli.built import main
from nerve.cli.built_process import own_folder
from nerve.importing.encoderfile import plan_of, read_build_config
from nerve.importing.plan import ImportPlan
from nerve.processes import MODULE_FLAG, MODULES, python_module
from unit.building.conftest import MakeRuntime

Run = Callable[..., tuple[int, str, str]]
TEXT = "Ada Lovelace lived in London."


@pytest.fixture
def program(
    plan: ImportPlan,
    make_runtime: MakeRuntime,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    path = tmp_path / "ner-tagger.encoderfile"
    assemble(read_runtime(make_runtime()), pack(plan, max_tokens=64), path)
    monkeypatch.setattr("nerve.cli.built_process.program", lambda: path)
    return path


@pytest.fixture
def run(program: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """`ner-tagger.encoderfile ARGUMENTS`: status, stdout, stderr."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [str(program), *map(str, arguments)])
        try:
            main()
            status = 0
        except SystemExit as ended:
            status = int(ended.code or 0)
        return status, *capfd.readouterr()

    return call


def test_infer_prints_and_writes_what_encoderfile_does(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is meant for a daemon on the same machine does not count.
    monkeypatch.setenv("NERVE_REPOSITORIES", "/nowhere")
    monkeypatch.setenv("NERVE_LOAD_MODEL", "other")
    status, out, err = run("infer", TEXT, "London", "--graph-optimization-level", "1")
    assert (status, err) == (0, "")
    assert out.startswith('{\n  "results": [\n    {\n      "tokens": [\n        {\n')
    assert out.endswith('  ],\n  "model_id": "ner-tagger",\n  "metadata": {}\n}\n')
    first, _ = json.loads(out)["results"]
    assert list(first["tokens"][0]) == ["token_info", "scores", "label", "score"]
    assert sum(first["tokens"][0]["scores"]) == pytest.approx(1)  # the transform in the file
    flags = ("-f", "json", "-o", tmp_path / "results.json")
    assert run("infer", TEXT, "London", *flags) == (0, "", "")
    written = (tmp_path / "results.json").read_text()
    assert not written.endswith("\n")
    for one, other in zip(
        first["tokens"], json.loads(written)["results"][0]["tokens"], strict=True
    ):
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-5)


def test_weights_in_files_of_their_own_are_packed_too(
    run: Run, program: Path, plan: ImportPlan, make_runtime: MakeRuntime, tmp_path: Path
) -> None:
    """As exporters write models that are too large for one file."""
    folder = tmp_path / "large"
    folder.mkdir()
    shutil.copytree(plan.files["1/model.onnx"].parent, folder, dirs_exist_ok=True)
    graph = onnx.load(folder / "model.onnx")
    (folder / "model.onnx").unlink()
    onnx.save(
        graph, folder / "model.onnx",
        save_as_external_data=True, location="model.onnx_data", size_threshold=1024,
    )  # fmt: skip
    (tmp_path / "large.yml").write_text(
        f"encoderfile:\n  name: large\n  path: {folder}\n  model_type: token_classification\n"
    )
    large = plan_of(read_build_config(tmp_path / "large.yml"), building=True)
    assert "1/model.onnx_data" in large.files
    assemble(read_runtime(make_runtime()), pack(large, max_tokens=64), program)
    status, out, err = run("infer", TEXT)
    assert (status, err) == (0, "")
    assert json.loads(out)["model_id"] == "large"


WRONG: dict[tuple[str, ...], tuple[int, str]] = {
    ("infer", ""): (1, "Error: Invalid Input: Cannot tokenize empty string\n"),
    ("infer", "a", ""): (1, "Error: Invalid Input: Cannot tokenize empty string\n"),
    ("infer", "a", "b\udcff"): (1, "Error: Invalid Input: INPUTS 2: is not valid UTF-8\n"),
    ("infer",): (2, "Missing argument"),
    ("infer", "a", "-f", "yaml"): (2, "'yaml' is not"),
    ("infer", "a", "-o", "/nowhere/x"): (1, "Error: Invalid Input: -o: there is no folder /nowhere\n"),
    ("infer", "a", "-o", "/"): (1, "Error: Invalid Input: -o: /: Is a directory"),
    ("infer", "a", "--execution-provider", "cuda"): (1, "built programs run on the CPU; for a GPU"),
    ("infer", "a", "--device-id", "0"): (1, "--device-id: is for a GPU"),
    ("infer", "a", "--compute-units", "all"): (1, "--compute-units: is for CoreML"),
    ("serve", "--disable-grpc", "--disable-http"): (
        1, "Error: Config Error: Cannot disable both gRPC and HTTP\n",
    ),
    ("serve", "--cert-file", "x"): (1, "Error: Config Error: cert_file is nothing without key_file"),
    ("mcp", "--key-file", "x"): (1, "Error: Config Error: key_file is nothing without cert_file"),
    ("serve", "--cert-file", "/nowhere/x", "--key-file", "y"): (
        1, "Error: Config Error: cert_file /nowhere/x: cannot be read: No such file",
    ),
    ("serve", "--otel-exporter-url", "x:1"): (1, "Error: Config Error: otel_exporter_url: "),
    ("serve", "--http-port", "70000"): (1, "Error: Config Error: http_port: "),
    ("serve", "--port", "1"): (2, "No such option"),
    ("fly",): (2, "No such command"),
}  # fmt: skip


@pytest.mark.parametrize("arguments", sorted(WRONG))
def test_what_is_refused(arguments: tuple[str, ...], run: Run) -> None:
    status, words = WRONG[arguments]
    ended, out, err = run(*arguments)
    assert (ended, out) == (status, "")
    assert words in err


@pytest.mark.parametrize("command", ["infer", "mcp", "serve"])
def test_help(command: str, run: Run) -> None:
    status, out, _ = run(command, "--help")
    assert status == 0
    defaults = {"serve": ("[::]", "50051", "0.0.0.0", "8080"), "mcp": ("0.0.0.0", "9100")}
    for value in defaults.get(command, ()):
        assert f"[default: {value}" in " ".join(out.split())


def test_a_damaged_program_does_not_start(run: Run, program: Path) -> None:
    content = program.read_bytes()
    middle = len(content) // 2  # in the weights
    program.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    status, out, err = run("infer", TEXT)
    assert (status, out) == (1, "")
    assert "is damaged: its contents are not those that were put in" in err


def test_modules_as_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is frozen starts itself; and only what is in the list."""
    name = MODULES[-1]
    assert python_module(name, "3") == [sys.executable, "-P", "-m", name, "3"]
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert python_module(name, "3") == [sys.executable, MODULE_FLAG, name, "3"]
    with pytest.raises(ValueError, match="os is none of"):
        python_module("os")
    monkeypatch.setattr(sys, "argv", ["x", MODULE_FLAG, "os"])
    with pytest.raises(ValueError, match="os is none of"):
        main()


def test_the_folder_is_locked_while_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs that clean /tmp up ask for the lock first."""
    monkeypatch.setattr(sys, "_MEIPASS", str(tmp_path), raising=False)
    asked = os.open(tmp_path, os.O_RDONLY)
    try:
        with own_folder() as folder:
            assert folder.parent == tmp_path
            with pytest.raises(BlockingIOError):
                fcntl.flock(asked, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(asked, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(asked)
    assert list(tmp_path.iterdir()) == []
