"""A planned model, and a runtime whose archive is real but holds no program."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PyInstaller.archive.writers import CArchiveWriter

from nerve.building.runtime import INFO_FILE, host_target
from nerve.importing.encoderfile import plan_of, read_build_config
from nerve.importing.plan import ImportPlan

LOADER = b"\x7fELF" + bytes(range(256)) * 8
SCRIPT = "function Postprocess(arr) return arr:softmax(3) end"
MakeRuntime = Callable[..., Path]


@pytest.fixture
def plan(tmp_path: Path, tiny_models: Path) -> ImportPlan:
    """The tiny BERT with a transform, as a build file means it."""
    path = tmp_path / "ner.yml"
    path.write_text(
        "encoderfile:\n  name: ner-tagger\n  version: '2.0'\n"
        f"  path: {tiny_models / 'bert'}\n  model_type: token_classification\n"
        f"  transform: {SCRIPT}\n  lua_libs: [math]\n"
    )
    return plan_of(read_build_config(path), building=True)


@pytest.fixture
def make_runtime(tmp_path: Path) -> MakeRuntime:
    """Write a boot loader's bytes and an archive of PyInstaller's behind them."""

    def make(name: str = "runtime", *, target: str | None = None, info: bool = True) -> Path:
        facts = {"nerve": "1", "target": target or host_target(), "python": "3.11.0"}
        (tmp_path / "info").write_text(json.dumps(facts))
        (tmp_path / "other").write_bytes(b"MEI\014\013\012\013\016" * 20)
        entries = [("some/library.so", str(tmp_path / "other"), False, "b")]
        entries += [(INFO_FILE, str(tmp_path / "info"), True, "x")] if info else []
        CArchiveWriter(str(tmp_path / "archive"), entries, "libpython3.11.so")
        path = tmp_path / name
        path.write_bytes(LOADER + (tmp_path / "archive").read_bytes())
        return path

    return make
