"""What a source is, told by its content."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

import pytest

from model_folders import graph_bytes
from nerve.config.model import load_model_config
from nerve.errors import ConfigInvalid
from nerve.importing.install import install
from nerve.importing.plan import ImportFailed
from nerve.importing.recognize import recognize
from nerve.importing.source import Wishes

CONFIG = "# mine\nname: old   # as the folder\nmax_batch_size: 4\ntransform: {path: t.lua}\n"


@pytest.fixture
def export(tmp_path: Path, tiny_models: Path) -> Path:
    return Path(shutil.copytree(tiny_models / "bert", tmp_path / "my-export"))


def test_an_export_folder(export: Path) -> None:
    kind, plan = recognize(export, Wishes())
    assert (kind, plan.name, plan.config, plan.head) == ("export folder", "my-export", {}, ())
    assert recognize(export, Wishes(name="x")).plan.name == "x"


@pytest.mark.parametrize("flat", [False, True])
def test_a_model_folder_of_ours(tmp_path: Path, export: Path, flat: bool) -> None:
    """It is taken as its author wrote it, under another name, too."""
    old = tmp_path / "old"
    export.rename(old if flat else tmp_path / "x")
    if not flat:
        old.mkdir()
        shutil.copytree(tmp_path / "x", old / "3")
        (tmp_path / "x").rename(old / "7")
        (old / "3" / "config.yaml").write_text("max_batch_size: 2\n")
    (old / "config.yaml").write_text(CONFIG)
    (old / "t.lua").write_text("function Postprocess(a) return a end")
    kind, plan = recognize(old, Wishes(name="new"))
    assert (kind, plan.name, plan.notes) == ("model folder", "new", ())
    folder = install(plan, tmp_path / "models", replace=False)
    assert (folder / "config.yaml").read_text() == CONFIG.replace("name: old", "name: new")
    assert load_model_config(folder / "config.yaml", name="new").transform is not None
    graphs = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("model.onnx"))
    assert graphs == (["1/model.onnx"] if flat else ["3/model.onnx", "7/model.onnx"])
    assert flat or (folder / "3" / "config.yaml").is_file()
    assert recognize(old, Wishes()).plan.name == "old"


def test_what_lies_in_a_version_folder(tmp_path: Path, export: Path) -> None:
    """A config with a script of its own comes along; checksums are checked, and stay behind."""
    own = Path(shutil.copytree(export, tmp_path / "ner" / "2"))
    (own / "config.yaml").write_text("transform: {path: v.lua}\n")
    (own / "v.lua").write_text("function Postprocess(a) return a end")
    digest = hashlib.sha256((own / "model.onnx").read_bytes()).hexdigest()
    (own / "SHA256SUMS").write_text(f"{digest}  model.onnx\n")
    plan = recognize(tmp_path / "ner", Wishes()).plan
    assert {"2/config.yaml", "2/v.lua", "2/model.onnx"} <= plan.files.keys()
    assert "2/SHA256SUMS" not in plan.files
    assert plan.notes == ("2/SHA256SUMS was checked, and is not copied",)


def test_a_name_that_is_hidden(export: Path) -> None:
    (export / "config.yaml").write_text("{name: old, max_batch_size: 4}\n")
    with pytest.raises(ImportFailed, match="states another name in a way that hides it"):
        recognize(export, Wishes(name="new"))


def test_a_version_that_is_not_whole(tmp_path: Path, export: Path) -> None:
    folder = tmp_path / "model"
    for version in ("1", "2", "3"):
        shutil.copytree(export, folder / version)
    (folder / "2" / "model.onnx").write_bytes(b"version https://git-lfs")
    (folder / "3" / "SHA256SUMS").write_text("0" * 64 + "  model.onnx\n")
    with pytest.raises(ConfigInvalid) as caught:
        recognize(folder, Wishes())
    assert [each.path for each in caught.value.problems] == ["version 2", "version 3"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.onnx", graph_bytes("x"), "is a graph alone; name the folder"),
        ("x.txt", b"x", "is not known; expected an Encoderfile build file"),
        ("x.yaml", b"a: 1", "has neither encoderfile: nor trt_llm:"),
        ("x.yaml", b"", "has neither encoderfile: nor trt_llm:"),
        ("x.yaml", b"max_batch_size: 3", "is the config of a model folder; name the folder"),
        ("nope", None, "there is no such file or folder"),
    ],
)
def test_no_source(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ImportFailed, match=said):
        recognize(tmp_path / name, Wishes())


def test_sources_that_are_neither_file_nor_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    for source, said in {
        tmp_path / "pipe": "is a pipe, expected a file or folder",
        Path(os.devnull): "is a device, expected a file or folder",
        tmp_path / "dangling": "is a link that leads nowhere",
        tmp_path / "loop": "is a link that leads to itself",
        tmp_path / ("x" * 300): "cannot be read: File name too long",
    }.items():
        with pytest.raises(ImportFailed, match=f"{said}; expected .*built .encoderfile"):
            recognize(source, Wishes())


@pytest.mark.parametrize("name", ["ner.YML", "ner.txt", "ner"])
def test_a_config_by_another_name(tmp_path: Path, export: Path, name: str) -> None:
    text = f"encoderfile: {{name: ner, path: {export}, model_type: token_classification}}\n"
    (tmp_path / name).write_text(text)
    assert recognize(tmp_path / name, Wishes()).kind == "Encoderfile build file"


def test_folders_whose_names_are_no_models(tmp_path: Path, export: Path) -> None:
    """A version has its model's name, a snapshot of the hub that of the repository."""
    version = Path(shutil.copytree(export, tmp_path / "minilm-ner" / "1"))
    assert recognize(version, Wishes()).plan.name == "minilm-ner"
    with contextlib.chdir(version):
        assert recognize(Path(), Wishes()).plan.name == "minilm-ner"
    cache = tmp_path / "models--dslim--bert-base-NER" / "snapshots" / ("0a" * 20)
    shutil.copytree(export, cache)
    assert recognize(cache, Wishes()).plan.name == "bert-base-NER"
    for name in ("1", "007", "config.yaml", "config.yml", "tokenizer.json", "model.onnx", "onnx"):
        with pytest.raises(ImportFailed, match="cannot be a model's name"):
            recognize(export, Wishes(name=name))


def test_folders_that_are_no_source(tmp_path: Path, export: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigInvalid, match=r"model\.onnx is not in"):
        recognize(tmp_path / "empty", Wishes())
    shutil.copytree(export, tmp_path / "models" / "a")
    shutil.copytree(export, tmp_path / "models" / "b" / "1")
    with pytest.raises(ImportFailed, match="is a repository") as caught:
        recognize(tmp_path / "models", Wishes())
    assert f"nerve import {tmp_path / 'models' / 'b'}" in str(caught.value)
    with pytest.raises(ImportFailed, match=r"cannot be a model's name.*add --name NAME"):
        recognize(export, Wishes(name="a b"))


def test_configs_in_a_folder(tmp_path: Path, export: Path) -> None:
    """A Truss is a folder with its config.yaml in it."""
    text = (
        "trt_llm: {build: {base_model: encoder_bert, checkpoint_repository: {repo: my-export}}}\n"
    )
    (tmp_path / "config.yaml").write_text(text)
    assert recognize(tmp_path, Wishes()).kind == "Truss config"
    (export / "config.yaml").write_text("[]")
    with pytest.raises(ConfigInvalid, match="expected a mapping"):
        recognize(export, Wishes())
