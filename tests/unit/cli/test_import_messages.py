"""`nerve import` and its neighbours, given what they cannot take: a sentence, never a traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from commands import run_here
from nerve.building.payload import MAGIC

TRITON = "max_batch_size: 5000 instance_group [ { kind: KIND_GPU gpus: [-1] count: 100000 } ]"
TRUSS = "trt_llm: {build: {base_model: encoder_bert, checkpoint_repository: {repo: a/b}}}\n"


@pytest.fixture
def home(tmp_path: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(tiny_models / "bert", tmp_path / "ner" / "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def failed(*arguments: str | Path) -> str:
    ended = run_here(*arguments)
    assert ended.returncode in (1, 2)
    return ended.stderr.decode()


def test_names_that_are_too_long(home: Path) -> None:
    long = "x" * 300
    assert "File name too long" in failed("import", long)
    assert "File name too long" in failed("import", "ner", "-r", long)
    assert sorted(path.name for path in home.iterdir()) == ["ner"]


def test_a_dry_run_refuses_what_the_import_would(home: Path) -> None:
    (home / "ner" / "config.pbtxt").write_text(TRITON)
    err = failed("import", "ner", "--dry-run")
    for key in ("max_batch_size", "instance_group[0].gpus[0]", "instance_group[0].count"):
        assert f": {key}: input should be" in err, err
    assert run_here("import", "ner", "--dry-run", "--no-validate").returncode == 0
    (home / "ner" / "config.pbtxt").write_text("version_policy { specific { versions: [-1] } }")
    assert "version_policy.specific.versions[0]" in failed("import", "ner", "--dry-run")
    (home / "ner" / "config.pbtxt").unlink()
    (home / "ner" / "1" / "config.yaml").write_text("max_batch_size: 0\n")
    assert "max_batch_size" in failed("import", "ner", "--dry-run")
    (home / "ner" / "1" / "config.yaml").write_text("transform: {path: t.lua}\n")
    (home / "ner" / "1" / "t.lua").write_text("function Postprocess(a) return a end")
    assert run_here("import", "ner", "--dry-run").returncode == 0


def test_a_built_file_that_is_cut_short(home: Path) -> None:
    (home / "ner.encoderfile").write_bytes(MAGIC)
    assert "or it is cut short" in failed("import", "ner.encoderfile")


def test_the_line_to_type_again_has_the_options(home: Path) -> None:
    (home / "c.yaml").write_text(TRUSS)
    err = failed("import", "c.yaml", "-r", "my models", "--name", "x", "--replace")
    again = "nerve import c.yaml --checkpoint ./b --repository 'my models' --name x --replace"
    assert f"  {again}" in err.splitlines()


def test_a_load_that_takes_too_long_names_the_option(home: Path) -> None:
    ended = run_here("import", "ner", "--timeout", "0.001")
    assert ended.returncode == 1
    assert b"raise --timeout" in ended.stdout
    assert b"load_timeout_s" not in ended.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_told() -> None:
    """In a process of its own: also what the interpreter does when it ends."""
    with open("/dev/full", "w") as full:  # noqa: PTH123  no file
        ended = subprocess.run(
            [sys.executable, "-m", "nerve", "new-transform"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr == "Error: stdout cannot be written: No space left on device\n"
