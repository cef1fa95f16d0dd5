"""`nerve build` and `nerve inspect`: what they print, write and refuse. Programs are run elsewhere."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nerve
from nerve.building.payload import read_built_file
from nerve.building.runtime import cache_lock, host_target, keep_runtime, runtime_key
from nerve.cli import main
from nerve.proof import ForkServer, Prover
from unit.building.conftest import MakeRuntime

Run = Callable[..., tuple[int, str, str]]

BUILD_FILE = """\
encoderfile:
  name: ner-tagger
  version: "1.0.0"
  path: ./ner-model
  model_type: token_classification
  output_path: ./build/ner-tagger.encoderfile
"""
SOFTMAX = "  transform: |\n    function Postprocess(arr)\n        return arr:softmax(3)\n    end\n"


@pytest.fixture
def home(
    tmp_path: Path, tiny_models: Path, make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The working folder, with an export, a build file, a runtime and where the result goes."""
    folder = tmp_path / "home"
    shutil.copytree(tiny_models / "bert", folder / "ner-model")
    (folder / "ner-config.yml").write_text(BUILD_FILE)
    (folder / "build").mkdir()
    shutil.copy(make_runtime(), folder / "runtime")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.fixture(scope="module")
def fork_server() -> Iterator[ForkServer]:
    """Starting one takes longer than all else that a build with a ready runtime does."""
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _warm_proofs(fork_server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    class Warm(Prover):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given | {"server": fork_server})

        async def aclose(self) -> None:
            self._server = None
            await super().aclose()

    monkeypatch.setattr("nerve.cli.trial.Prover", Warm)


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


BUILD = ("build", "-f", "ner-config.yml", "--base-binary-path", "runtime")


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_model_is_validated_and_written(home: Path, run: Run) -> None:
    (home / "ner-config.yml").write_text(BUILD_FILE + SOFTMAX)
    status, out, err = run(*BUILD)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[:-2] == [
        "• Loading config...",
        "• Using local binary target: runtime",
        "Validating model...",
        "✓ Model config validated",
        "✓ Model weights validated",
        "✓ Transform validated",
        "✓ Tokenizer validated",
        "• Writing encoderfile...",
    ]
    assert lines[-2].startswith("✓ Encoderfile written to build/ner-tagger.encoderfile (")
    assert lines[-1] == "✓ Build complete: ./build/ner-tagger.encoderfile"
    assert tree(home / "build") == ["ner-tagger.encoderfile"]
    status, out, err = run("inspect", "build/ner-tagger.encoderfile")
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert out.startswith('{\n  "model_config": {\n    "model_type": "bert",')
    assert told["encoderfile_config"]["version"] == "1.0.0"
    assert told["encoderfile_config"]["transform"].startswith("function Postprocess")


def test_a_folder_instead(home: Path, run: Run) -> None:
    """In the folder that the file would be in; one that is there already stays unless told."""
    (home / "ner-config.yml").write_text(BUILD_FILE + SOFTMAX)
    wanted = ("build", "-f", "ner-config.yml", "--format", "folder")
    status, out, err = run(*wanted)
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == "✓ Build complete: build/ner-tagger"
    assert "config.yaml" in tree(home / "build" / "ner-tagger")
    status, _, err = run(*wanted)
    assert (status, err.split(";")[0]) == (1, "Error: build/ner-tagger is there already")
    assert run(*wanted, "--replace")[0] == 0


Break = Callable[[Path], object]


def rewrite(old: str, new: str) -> Break:
    def change(home: Path) -> None:
        assert old in BUILD_FILE
        (home / "ner-config.yml").write_text(BUILD_FILE.replace(old, new))

    return change


def remove(name: str) -> Break:
    return lambda home: (home / name).unlink()


def write(name: str, text: str) -> Break:
    return lambda home: (home / name).write_text(text)


def script(text: str) -> Break:
    return lambda home: (home / "ner-config.yml").write_text(
        f"{BUILD_FILE}  transform: {json.dumps(text)}\n"
    )


WRONG: dict[str, tuple[Break, tuple[str, ...]]] = {
    "no build file": (remove("ner-config.yml"), ("Encoderfile config not found",)),
    "files missing, each by its name": (
        lambda home: [remove(f"ner-model/{name}")(home) for name in ("model.onnx", "tokenizer.json")],
        ("model.onnx", "tokenizer.json"),
    ),
    "no such folder": (rewrite("./ner-model", "./nowhere"), ("there is no folder ./nowhere",)),
    "another model type": (
        rewrite("token_classification", "embedding"),
        ("model_type: embedding models are not served here, only token_classification",),
    ),
    "a name with a slash": (rewrite("ner-tagger\n  v", "a/b\n  v"), ("'a/b' cannot be a model's name",)),
    "no folder for the output": (
        rewrite("./build/", "./nowhere/"), ("make it: mkdir -p nowhere",)
    ),
    "the output is a folder": (rewrite("build/ner-tagger.encoderfile", "build"), ("it is a folder",)),
    "another machine": (
        rewrite("version", "target: sparc-sun-solaris\n  version"),
        ("cannot be built here: this machine is " + host_target(),),
    ),
    "config.json without a type": (
        write("ner-model/config.json", '{"id2label": {"0": "O"}}'), ("model_type is missing",)
    ),
    "config.json that is none": (write("ner-model/config.json", "{"), ("config.json",)),
    "a graph that is none": (write("ner-model/model.onnx", "no graph"), ("model.onnx",)),
    "a tokenizer that is none": (write("ner-model/tokenizer.json", "{}"), ("tokenizer.json",)),
    "a transform that is no Lua": (
        script("function Postprocess(arr"),
        ("❌ Transform validation failed: Failed to create transform",),
    ),
    "a transform that changes the shape": (
        script("function Postprocess(arr) return arr:sum_axis(1) end"),
        ("❌ Transform validation failed: ", "[128,"),
    ),
    "no runtime": (write("runtime", "#!/bin/sh"), ("runtime is no runtime of Nerve",)),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(WRONG))
def test_what_is_wrong_is_named_and_nothing_is_left(case: str, home: Path, run: Run) -> None:
    break_it, words = WRONG[case]
    break_it(home)
    before = tree(home)
    status, out, err = run(*BUILD)
    assert status == 1
    assert err.startswith("Error: ")
    for word in words:
        assert word in err
    assert "✓ Build complete" not in out
    assert tree(home) == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ("--target", "aarch64-apple-darwin"),
            "a program for aarch64-apple-darwin cannot be built",
        ),
        (("--platform", "x"), "a program for x cannot be built here"),
        (("--runtime-version", "0.1"), f"this is Nerve {nerve.__version__}"),
        (("--base-binary-path", "none"), "the runtime none cannot be read"),
        (("-o", "none/x"), "make it: mkdir -p none"),
    ],
)
def test_flags_that_cannot_be_followed(
    flags: tuple[str, ...], words: str, home: Path, run: Run
) -> None:
    status, _, err = run(*BUILD, *flags)
    assert status == 1
    assert words in err


@pytest.mark.parametrize(
    "output",
    [
        "ner-config.yml",
        "./build/../ner-model/model.onnx",
        "ner-model/model.onnx/",
        "ner-model/tokenizer.json",
        "link",
        "transform.lua",
        "runtime",
        "build/new/",
        "/proc/x",
    ],
)
def test_nothing_that_is_read_is_overwritten(output: str, home: Path, run: Run) -> None:
    """Said before the model is looked at, as of any place where nothing can be written."""
    (home / "link").symlink_to("ner-model/config.json")
    (home / "transform.lua").write_text("function Postprocess(arr) return arr:softmax(3) end")
    (home / "ner-config.yml").write_text(BUILD_FILE + "  transform: {path: transform.lua}\n")
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    status, out, err = run(*BUILD, "-o", output)
    assert status == 1
    assert "cannot be written: " in err
    assert "Validating" not in out
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before


def test_a_folder_that_is_read_is_not_replaced(home: Path, run: Run) -> None:
    (home / "models" / "ner-tagger").mkdir(parents=True)
    (home / "ner-model").rename(home / "models" / "ner-tagger" / "2")
    (home / "ner-config.yml").write_text(BUILD_FILE.replace("./ner-model", "./models/ner-tagger/2"))
    before = tree(home)
    wanted = ("build", "-f", "ner-config.yml", "--format", "folder", "--replace")
    status, _, err = run(*wanted, "-o", "models")
    assert (status, "models/ner-tagger cannot be replaced: " in err) == (1, True)
    for place in ("ner-config.yml", "/proc/x"):
        status, out, err = run(*wanted, "-o", place)
        assert (status, "Validating" in out) == (1, False), err
    assert tree(home) == before


@pytest.mark.parametrize("how", ["flag", "variable", "file"])
def test_a_relative_cache(
    how: str, home: Path, run: Run, monkeypatch: pytest.MonkeyPatch, make_runtime: MakeRuntime
) -> None:
    """A runtime is made there by a process that has another working folder."""
    given: list[Path] = []

    def made(folder: Path) -> Path:
        given.append(folder)
        return make_runtime("made")

    monkeypatch.setattr("nerve.cli.build_steps.make_runtime", made)
    flags: tuple[str, ...] = ()
    if how == "flag":
        flags = ("--cache-dir", "../kept")
    elif how == "variable":
        monkeypatch.setenv("NERVE_CACHE_DIR", "../kept")
    else:
        (home / "ner-config.yml").write_text(BUILD_FILE + "  cache_dir: ../kept\n")
    status, _, err = run(*BUILD[:3], *flags)
    assert (status, err) == (0, "")
    assert given[0].is_absolute()
    assert [path.name for path in (home.parent / "kept").iterdir()] == ["runtimes"]


def test_a_runtime_for_another_machine(home: Path, run: Run, make_runtime: MakeRuntime) -> None:
    make_runtime("other", target="sparc-sun-solaris").rename(home / "runtime")
    status, _, err = run(*BUILD)
    assert (status, "is for sparc-sun-solaris" in err) == (1, True)


def test_without_what_makes_runtimes(home: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before the model is looked at."""
    monkeypatch.setenv("PATH", "")
    status, out, err = run(*BUILD[:3])
    assert status == 1
    assert "objcopy, objdump, ldd not found" in err
    assert "Validating" not in out


@pytest.mark.parametrize("is_global", [True, False])
def test_a_kept_runtime_is_found(
    home: Path, run: Run, make_runtime: MakeRuntime, is_global: bool
) -> None:
    """By the option of `build`, and by Encoderfile's place for it; a fault of the model comes later."""
    with cache_lock(home / "cache"):
        keep_runtime(home / "cache", runtime_key(), make_runtime())
    (home / "ner-model" / "config.json").write_text("[]")
    cache = ("--cache-dir", home / "cache")
    status, out, err = run(*cache, *BUILD[:3]) if is_global else run(*BUILD[:3], *cache)
    assert status == 1
    assert out.splitlines()[1] == "✓ Binary already cached"
    assert "model_type is missing" in err


def test_paths_start_in_the_named_folder(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "ner-config.yml").write_text(BUILD_FILE + "  base_binary_path: ./runtime\n")
    monkeypatch.chdir("/")
    flags = ("--directory", home, "--no-download", "--target", host_target())
    status, out, err = run("build", "-f", home / "ner-config.yml", *flags)
    assert (status, err) == (0, "")
    assert f"✓ Build complete: {home}/build/ner-tagger.encoderfile" in out
    assert read_built_file(home / "build" / "ner-tagger.encoderfile").manifest.name == "ner-tagger"


def test_inspect_refuses_what_is_none(home: Path, run: Run) -> None:
    status, out, err = run("inspect", "ner-config.yml")
    assert (status, out) == (1, "")
    assert err.startswith(
        "Error: ner-config.yml: is no file that `nerve build` or Encoderfile has made"
    )
