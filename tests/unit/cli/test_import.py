"""`nerve import`, `nerve new-transform` and `nerve export`: what they print, write and return."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nerve.cli import main
from nerve.cli.export_run import INSTALL, find_program
from nerve.pipeline.transform import Sandbox
from nerve.types import Limits

Run = Callable[..., tuple[int, str, str]]

BUILD_FILE = """\
encoderfile:
  name: ner-tagger
  version: "1.0.0"
  path: ./ner-model
  model_type: token_classification
"""


@pytest.fixture
def home(tmp_path: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with an export in ner-model/ and a build file."""
    shutil.copytree(tiny_models / "bert", tmp_path / "ner-model")
    (tmp_path / "ner.yml").write_text(BUILD_FILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """`nerve ARGUMENTS` in this process: status, stdout, stderr."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nerve", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out, err

    return call


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def tree_top(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_good_model_is_checked_and_installed(home: Path) -> None:
    """The whole command, in a process of its own, into a folder that it makes."""
    ended = subprocess.run(
        [sys.executable, "-m", "nerve", "import", "ner.yml", "-r", "a models"],
        capture_output=True, text=True, timeout=60, check=False, cwd=home, encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[0] == "ner.yml: Encoderfile build file"
    assert any(line.startswith("  ok   version 1 load: 9 labels: O, ") for line in lines)
    assert "✓ installed a models/ner-tagger" in lines
    assert any(line.startswith("  note: version 1.0.0 is kept") for line in lines)
    assert lines[-2] == "  nerve serve 'a models'"
    assert "http://localhost:8080/v1/models/ner-tagger/predict" in lines[-1]
    assert tree(home / "a models") == [
        "ner-tagger", "ner-tagger/1", "ner-tagger/1/config.json", "ner-tagger/1/model.onnx",
        "ner-tagger/1/special_tokens_map.json", "ner-tagger/1/tokenizer.json",
        "ner-tagger/1/tokenizer_config.json", "ner-tagger/config.yaml",
    ]  # fmt: skip


def test_a_broken_model_leaves_nothing_unless_asked(home: Path, run: Run) -> None:
    (home / "ner-model" / "tokenizer.json").write_text("{}")
    before = tree(home)
    status, out, err = run("import", "ner-model")
    assert status == 1
    assert "FAIL version 1 load: tokenizer.json cannot be read" in out
    assert "is not installed: mend the above first, or add --no-validate" in err
    assert tree(home) == before
    status, out, _ = run("import", "ner-model", "--no-validate")
    assert (status, "FAIL" in out) == (0, False)
    assert (home / "model_repository" / "ner-model" / "1" / "model.onnx").is_file()


@pytest.mark.parametrize(
    ("stop", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=["INT", "TERM", "HUP"],
)
def test_an_import_that_is_stopped_leaves_nothing(
    home: Path, stop: signal.Signals, status: int
) -> None:
    """Stopped when its files are written and are being looked at."""
    before = tree(home)
    with subprocess.Popen(
        [sys.executable, "-m", "nerve", "import", "ner-model", "-r", "models/new"],
        cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        lines = iter(process.stdout)
        assert next(lines) == "ner-model: export folder\n"
        assert "layout: version 1" in next(lines)
        assert list((home / "models" / "new").glob(".*/ner-model/1/model.onnx"))
        process.send_signal(stop)
        assert "Traceback" not in "".join(lines)
    assert process.returncode == status
    assert tree(home) == before


def test_what_is_there_is_replaced_only_if_told(home: Path, run: Run) -> None:
    place = home / "model_repository" / "ner-tagger"
    place.mkdir(parents=True)
    (place / "mine").write_text("")
    status, out, err = run("import", "ner.yml", "--no-validate")
    assert (status, out) == (1, "")
    assert "is there already; add --replace" in err
    assert tree(place) == ["mine"]
    assert run("import", "ner.yml", "--no-validate", "--replace")[0] == 0
    assert "mine" not in tree(place)
    assert run("import", "ner.yml", "--no-validate", "--name", "other")[0] == 0
    assert tree_top(place.parent) == ["ner-tagger", "other"]


def test_a_dry_run_writes_nothing(home: Path, run: Run) -> None:
    with (home / "ner.yml").open("a") as file:
        file.write("  tokenizer: {max_length: 64}\n")
        file.write("  transform: function Postprocess(a) return a end\n")
    before = tree(home)
    status, out, _ = run("import", "ner.yml", "--dry-run")
    assert status == 0
    lines = out.splitlines()
    assert "would write model_repository/ner-tagger/" in lines
    assert "  1/model.onnx <- ner-model/model.onnx" in [
        line.replace(f"{home}/", "") for line in lines
    ]
    assert "  transform.lua" in lines
    assert lines[lines.index("  config.yaml:") + 2 :][:4] == [
        "    tokenizer:", "      max_length: 64", "    transform:", "      path: transform.lua",
    ]  # fmt: skip
    assert tree(home) == before


def test_problems_of_a_build_file_are_listed(home: Path, run: Run) -> None:
    (home / "ner.yml").write_text(BUILD_FILE.replace("./ner-model", "nope").replace('"', ""))
    status, out, err = run("import", "ner.yml")
    assert (status, out) == (2, "")
    assert err.splitlines()[0] == "Error: ner.yml cannot be used:"
    assert "  line 4: encoderfile.path: there is no folder nope in" in err


def test_directory_moves_the_start_of_paths(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "below").mkdir()
    monkeypatch.chdir(home / "below")
    status, _, err = run("import", "../ner.yml", "--no-validate")
    assert (status, "add --directory .." in err) == (2, True)
    assert run("import", "../ner.yml", "--no-validate", "--directory", "..")[0] == 0


def test_the_new_transform_is_lua_that_changes_nothing(run: Run) -> None:
    status, out, _ = run("new-transform")
    assert (status, run("new-transform", "-m", "token_classification")[1]) == (0, out)
    code = [line for line in out.splitlines() if line.split("--")[0].strip()]
    assert code == ["function Postprocess(arr)", "    return arr", "end"]


@pytest.mark.parametrize("example", ["", "arr = arr:softmax(3)", "arr = arr:argmax(3)"])
def test_the_new_transform_runs(run: Run, example: str) -> None:
    """As it is, and with either of its examples uncommented."""
    script = run("new-transform")[1]
    assert f"    -- {example}" in script
    script = script.replace(f"    -- {example}", f"    {example}") if example else script
    limits = Limits(max_instructions=1_000_000, timeout_us=2_000_000, max_memory_bytes=1 << 26)
    sandbox = Sandbox(script, libs=None, limits=limits, log=print)
    scores = np.random.default_rng(42).uniform(-1, 1, (32, 128, 9)).astype(np.float32)
    softmax = np.exp(scores) / np.exp(scores).sum(axis=2, keepdims=True)
    expected = {"softmax": softmax, "argmax": scores.argmax(axis=2) + 1}
    meant = next((each for name, each in expected.items() if name in example), scores)
    np.testing.assert_allclose(sandbox.run(scores), meant, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "said"),
    [("embedding", "models are not served here"), ("colour", "is no model type")],
)
def test_other_model_types_have_no_transform(run: Run, kind: str, said: str) -> None:
    status, out, err = run("new-transform", "--model-type", kind)
    assert (status, out) == (2, "")
    told = " ".join(err.replace("│", " ").split())
    assert f"{kind} {said}; expected token_classification" in told


def test_export_without_its_exporter_says_what_to_type(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(home))
    if find_program() is not None:
        pytest.skip("optimum-cli is installed beside this Python")
    status, out, err = run("export", "dslim/bert-base-NER")
    assert (status, out) == (1, "")
    lines = err.splitlines()
    assert f"  {INSTALL}" in lines
    assert (
        "  optimum-cli export onnx --model dslim/bert-base-NER --task token-classification "
        "bert-base-NER"
    ) in lines
    assert not (home / "bert-base-NER").exists()


@pytest.fixture
def stand_in(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A program called optimum-cli on PATH. It is none: these tests are about how we drive it."""

    def make(script: str) -> None:
        folder = home / "bin"
        folder.mkdir()
        program = folder / "optimum-cli"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    return make


def test_export_runs_the_exporter_and_looks_at_what_it_made(
    home: Path, run: Run, stand_in: Callable[[str], None]
) -> None:
    stand_in(
        f'printf "%s\\n" "$@"; echo working >&2; for out; do :; done; cp -r {home}/ner-model "$out"'
    )
    status, out, err = run(
        "export", "dslim/bert base", "out put", "--revision", "v 1", "--opset", "17"
    )
    assert (status, err) == (0, "working\n")
    lines = out.splitlines()
    arguments = ["export", "onnx", "--model", "dslim/bert base", "--task", "token-classification",
                 "--revision", "v 1", "--opset", "17", "out put"]  # fmt: skip
    assert lines[0] == shlex.join(["optimum-cli", *arguments])
    assert lines[1 : 1 + len(arguments)] == arguments
    assert "  nerve import 'out put'" in lines
    status, out, err = run("export", "x", "out put")
    assert (status, out) == (1, "")
    assert "is not empty; name another folder, or add --force" in err


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 3", "optimum-cli failed with status 3; its reason stands above"),
        ("kill -9 $$", "optimum-cli was ended by SIGKILL"),
        ("kill -40 $$", "optimum-cli was ended by signal 40"),
        ("true", "has ended well, but x cannot be served: model.onnx is not in x"),
        ("mkdir x; touch x/model.onnx x/config.json", "tokenizer.json is not in x"),
    ],
)
def test_an_export_that_fails(
    run: Run, stand_in: Callable[[str], None], script: str, said: str
) -> None:
    stand_in(script)
    status, _, err = run("export", "some/x")
    assert (status, said in err) == (1, True), err


def test_exports_that_are_not_tried(home: Path, run: Run) -> None:
    status, _, err = run("export", "x", "--task", "fill-mask")
    assert (status, "models are not served here" in err) == (2, True)
    status, _, err = run("export", "x", home / "ner.yml")
    assert (status, "is a file, expected a folder" in err) == (1, True)
    status, _, err = run("export", "x", "y" * 300)
    assert (status, "cannot be written: File name too long" in err) == (1, True)
    assert run("export", "x" * 300)[0] == 1
