"""An import is there as a whole, or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
import yaml

from model_folders import DATA, DATA_BYTES, graph_bytes, write_model
from nerve.importing.config_text import config_text
from nerve.importing.export_folder import read_export
from nerve.importing.install import install
from nerve.importing.plan import ImportFailed, ImportPlan, folder_name, name_fault
from nerve.importing.staging import STAGING, staging_folder
from nerve.repository.layout import read_models, scan

NEW = "return 'new'\n"


@pytest.fixture
def plan(tmp_path: Path) -> ImportPlan:
    source = tmp_path / "source.onnx"
    source.write_bytes(graph_bytes("x"))
    return ImportPlan(
        "ner", {"1/model.onnx": source}, {"max_batch_size": 8}, texts={"t.lua": NEW}, head=("a\nb",)
    )


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def names(repository: Path) -> list[str]:
    return [model.name for model in read_models(scan(repository))]


def test_everything_is_written(plan: ImportPlan, tmp_path: Path) -> None:
    repository = tmp_path / "a" / "models"
    assert install(plan, repository, replace=False) == repository / "ner"
    assert tree(repository) == ["ner", "ner/1", "ner/1/model.onnx", "ner/config.yaml", "ner/t.lua"]
    assert (repository / "ner/config.yaml").read_text() == "# a b\nmax_batch_size: 8\n"
    assert (repository / "ner").stat().st_mode & 0o777 == 0o777 & ~_umask()
    graph = repository / "ner/1/model.onnx"
    assert graph.stat().st_ino != plan.files["1/model.onnx"].stat().st_ino  # copied, not linked


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_what_is_there_stays_unless_told(plan: ImportPlan, tmp_path: Path) -> None:
    repository = tmp_path / "models"
    write_model(repository / "ner", v1="old", v2="old")
    before = tree(repository)
    with pytest.raises(ImportFailed, match=r"is there already; add --replace .* or --name NAME"):
        install(plan, repository, replace=False)
    assert tree(repository) == before
    install(plan, repository, replace=True)
    assert tree(repository) == ["ner", "ner/1", "ner/1/model.onnx", "ner/config.yaml", "ner/t.lua"]


@pytest.mark.parametrize("fault", [ImportFailed("no"), KeyboardInterrupt(), OSError(28, "full")])
@pytest.mark.parametrize("there", [False, True])
def test_nothing_half_written_is_left(
    plan: ImportPlan, tmp_path: Path, fault: BaseException, there: bool
) -> None:
    """While it is written a server sees what was there; after a fault that is all there is."""
    repository = tmp_path / "models"
    if there:
        write_model(repository / "ner", v1="old")
    before = tree(tmp_path)

    def check(folder: Path) -> None:
        assert (folder / "1/model.onnx").is_file()
        assert names(repository) == (["ner"] if there else [])
        raise fault

    with pytest.raises(type(fault) if not isinstance(fault, OSError) else ImportFailed):
        install(plan, repository, replace=True, check=check)
    assert tree(tmp_path) == before


def test_a_source_that_goes_away_leaves_nothing(plan: ImportPlan, tmp_path: Path) -> None:
    plan.files["1/model.onnx"].unlink()
    with pytest.raises(ImportFailed, match=r"source\.onnx: No such file"):
        install(plan, tmp_path / "a" / "models", replace=False)
    assert tree(tmp_path) == []


def test_a_model_that_came_meanwhile_is_not_overwritten(plan: ImportPlan, tmp_path: Path) -> None:
    repository = tmp_path / "models"

    def check(_: Path) -> None:
        write_model(repository / "ner", v3="theirs")

    with pytest.raises(ImportFailed, match="is there already"):
        install(plan, repository, replace=False, check=check)
    assert tree(repository) == ["ner", "ner/3", "ner/3/model.onnx"]


def test_places_that_are_none(plan: ImportPlan, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ImportFailed, match="is a file, expected a folder of models"):
        install(plan, tmp_path / "file", replace=False)
    model = write_model(tmp_path / "models" / "other", v1="x", config="{}")
    with pytest.raises(ImportFailed, match="is itself a model's folder"):
        install(plan, model, replace=False)
    (tmp_path / "models" / "ner").symlink_to(model)
    with pytest.raises(ImportFailed, match="remove it first"):
        install(plan, tmp_path / "models", replace=True)
    for place in ("../x", "/x", "a/../../x"):
        bad = ImportPlan("ner2", {}, texts={place: ""})
        with pytest.raises(ImportFailed, match="is no place in a model's folder"):
            install(bad, tmp_path / "models", replace=False)
    assert names(tmp_path / "models") == ["ner", "other"]


@pytest.mark.parametrize(
    ("where", "given", "above"),
    [
        ("live/a", ".", ".."),
        ("live", "a", "."),
        (".", "live/a", "live"),
        ("live/a/1", "..", "../.."),
    ],
)
def test_a_model_with_nothing_but_versions_is_no_repository(
    plan: ImportPlan, tmp_path: Path, where: str, given: str, above: str
) -> None:
    write_model(tmp_path / "live" / "a", v1="x", v2="y")
    before = tree(tmp_path)
    with contextlib.chdir(tmp_path / where), pytest.raises(ImportFailed) as caught:
        install(plan, Path(given), replace=False)
    assert str(caught.value).startswith(f"{given} is itself a model's folder")
    assert str(caught.value).endswith(f"--repository {above}")
    assert tree(tmp_path) == before


def test_a_repository_whose_name_is_too_long(plan: ImportPlan, tmp_path: Path) -> None:
    with pytest.raises(ImportFailed, match="cannot be a folder of models: File name too long"):
        install(plan, tmp_path / ("x" * 300), replace=False)


def test_what_a_killed_import_left_is_swept(plan: ImportPlan, tmp_path: Path) -> None:
    """What another one is writing stays."""
    repository = tmp_path / "models"
    dead = repository / f"{STAGING}dead" / "ner"
    dead.mkdir(parents=True)
    (dead / "model.onnx").write_text("x")
    with staging_folder(repository) as busy:
        assert tree(repository) == [busy.name]
        install(plan, repository, replace=False)
        assert busy.is_dir()
    assert [each for each in tree(repository) if each.startswith(".")] == []


def test_external_data_comes_along(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    (folder / "onnx").mkdir(parents=True)
    (folder / "onnx" / "model.onnx").write_bytes(graph_bytes("x", external=True))
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    (problem,) = read_export(folder).problems
    assert DATA in problem
    (folder / "onnx" / DATA).write_bytes(bytes(DATA_BYTES))
    export = read_export(folder)
    assert export.problems == ()
    assert sorted(export.files) == ["config.json", "model.onnx", DATA, "tokenizer.json"]


def test_a_checkpoint_that_is_not_exported(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x")
    found = read_export(tmp_path).problems
    assert "nerve export" in found[0]
    (tmp_path / "a.onnx").write_bytes(graph_bytes("a"))
    assert read_export(tmp_path).files["model.onnx"] == tmp_path / "a.onnx"
    (tmp_path / "b.onnx").write_bytes(graph_bytes("b"))
    assert "several graphs" in read_export(tmp_path).problems[0]


@pytest.mark.parametrize(
    ("title", "name"),
    [("My NER (v2)", "My-NER-v2"), ("  bert.base_NER ", "bert.base_NER"), ("...", ""), ("é", ""),
     ("x" * 200, "x" * 128), ("a.tmp", ""), ("../../etc", "etc")],
)  # fmt: skip
def test_titles_become_names(title: str, name: str) -> None:
    assert folder_name(title) == name
    assert not name or not name_fault(name)


def test_a_name_is_checked_whoever_made_the_plan(tmp_path: Path) -> None:
    for name in ("", "..", "a/b", ".hidden"):
        with pytest.raises(ImportFailed, match="cannot be a model's name"):
            install(ImportPlan(name, {}), tmp_path / "models", replace=False)
    assert tree(tmp_path) == []


def test_config_text_is_read_back() -> None:
    config = {"b": {"x": ["a: b", "é\n\tc"]}, "a": "1.0"}
    assert yaml.safe_load(config_text(config, ["x\ny: z"])) == config
    assert config_text({}, ["only"]) == "# only\n"
    assert config_text({}, []) == ""
