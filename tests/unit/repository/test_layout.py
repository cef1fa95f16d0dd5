"""Folders to models, versions and files: what is accepted, what is told, what is ignored."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nerve.errors import RepositoryInvalid
from nerve.repository.layout import SIDE_FILES, ModelFiles, read_models, scan
from nerve.types import VersionFiles


def fill(root: Path, *files: str) -> Path:
    """Make files, each of which holds its own path; a trailing slash makes a folder."""
    for name in files:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


def models(repository: Path) -> dict[str, ModelFiles]:
    found = read_models(scan(repository))
    assert [each.name for each in found] == sorted({each.name for each in found})
    return {each.name: each for each in found}


def only(repository: Path) -> ModelFiles:
    (model,) = models(repository).values()
    return model


def only_version(model: ModelFiles) -> VersionFiles:
    (version,) = model.versions.values()
    return version


def shown(version: VersionFiles, root: Path) -> tuple[str, dict[str, str]]:
    """Graph and side files, relative to the repository."""
    assert version.problem == ""
    assert version.onnx is not None
    real = root.resolve()
    side = {name: str(path.relative_to(real)) for name, path in version.side.items()}
    return str(version.onnx.relative_to(real)), side


@pytest.mark.parametrize(
    ("files", "number", "graph", "side"),
    [
        pytest.param(
            ["m/1/model.onnx", "m/1/tokenizer.json", "m/1/config.json"],
            1,
            "m/1/model.onnx",
            {"tokenizer.json": "m/1/tokenizer.json", "config.json": "m/1/config.json"},
            id="Triton",
        ),
        pytest.param(
            ["m/7/model.onnx", "m/tokenizer.json", "m/config.json"],
            7,
            "m/7/model.onnx",
            {"tokenizer.json": "m/tokenizer.json", "config.json": "m/config.json"},
            id="shared side files",
        ),
        pytest.param(
            ["m/1/model.onnx", "m/1/tokenizer.json", "m/tokenizer.json", "m/config.json"],
            1,
            "m/1/model.onnx",
            {"tokenizer.json": "m/1/tokenizer.json", "config.json": "m/config.json"},
            id="the version's own side file wins, file by file",
        ),
        pytest.param(
            ["m/model.onnx", *(f"m/{name}" for name in SIDE_FILES), "m/vocab.txt"],
            1,
            "m/model.onnx",
            {name: f"m/{name}" for name in SIDE_FILES},
            id="flat export",
        ),
        pytest.param(
            ["m/onnx/model.onnx", "m/tokenizer.json", "m/config.json"],
            1,
            "m/onnx/model.onnx",
            {"tokenizer.json": "m/tokenizer.json", "config.json": "m/config.json"},
            id="the hub's onnx folder",
        ),
        pytest.param(
            ["m/onnx/model.onnx", "m/onnx/tokenizer.json"],
            1,
            "m/onnx/model.onnx",
            {"tokenizer.json": "m/onnx/tokenizer.json"},
            id="side files in the hub's onnx folder",
        ),
        pytest.param(
            ["m/3/onnx/model.onnx", "m/3/tokenizer.json"],
            3,
            "m/3/onnx/model.onnx",
            {"tokenizer.json": "m/3/tokenizer.json"},
            id="the hub's folder as a version",
        ),
        pytest.param(
            ["m/1/model.onnx/model.onnx", "m/1/model.onnx/model.onnx.data", "m/1/tokenizer.json"],
            1,
            "m/1/model.onnx/model.onnx",
            {"tokenizer.json": "m/1/tokenizer.json"},
            id="model.onnx as a folder",
        ),
        pytest.param(
            ["m/1/model_quantized.onnx", "m/1/tokenizer.json"],
            1,
            "m/1/model_quantized.onnx",
            {"tokenizer.json": "m/1/tokenizer.json"},
            id="one graph of another name",
        ),
        pytest.param(
            ["m/1/model.onnx", "m/1/model_quantized.onnx", "m/1/onnx/model.onnx"],
            1,
            "m/1/model.onnx",
            {},
            id="model.onnx among others, here before below",
        ),
        pytest.param(
            ["m/1/extra.onnx", "m/1/onnx/model.onnx"],
            1,
            "m/1/onnx/model.onnx",
            {},
            id="model.onnx below before another name here",
        ),
    ],
)
def test_accepted_layouts(
    tmp_path: Path, files: list[str], number: int, graph: str, side: dict[str, str]
) -> None:
    """One model, one version: its number, its graph, its side files."""
    model = only(fill(tmp_path, *files))
    assert (model.name, model.problem, model.warnings) == ("m", "", ())
    assert list(model.versions) == [number]
    assert only_version(model).number == number
    assert shown(only_version(model), tmp_path) == (graph, side)


@pytest.mark.parametrize(
    ("files", "graphs", "config"),
    [
        pytest.param(["model.onnx", "tokenizer.json"], ["model.onnx"], None, id="flat"),
        pytest.param(
            ["onnx/model.onnx", "config.yaml"], ["onnx/model.onnx"], "config.yaml", id="hub"
        ),
        pytest.param(
            ["1/model.onnx", "2/model.onnx", "tokenizer.json"],
            ["1/model.onnx", "2/model.onnx"],
            None,
            id="versions and shared files",
        ),
        pytest.param(
            ["1/model.onnx", "1/tokenizer.json", "config.yml"],
            ["1/model.onnx"],
            "config.yml",
            id="versions and a config",
        ),
    ],
)
def test_a_repository_that_is_itself_a_model(
    tmp_path: Path, files: list[str], graphs: list[str], config: str | None
) -> None:
    """`nerve serve --model-repository ./my-export`; the model is called as the folder."""
    root = fill(tmp_path / "my-export", *files)
    model = only(root)
    assert (model.name, model.problem) == ("my-export", "")
    assert [shown(each, root)[0] for each in model.versions.values()] == graphs
    assert (model.config.name if model.config else None) == config


def test_versions_by_number_and_the_config_beside_them(tmp_path: Path) -> None:
    """Ten comes after nine; config.yml is as good as config.yaml."""
    fill(tmp_path, "m/9/model.onnx", "m/10/model.onnx", "m/config.yml")
    model = only(tmp_path)
    assert sorted(model.versions) == [9, 10]
    assert model.config is not None
    assert model.config.name == "config.yml"


def test_many_models_of_many_layouts(tmp_path: Path) -> None:
    fill(tmp_path, "b/1/model.onnx", "a/model.onnx", "c/onnx/model.onnx", "README.md", ".git/x")
    assert list(models(tmp_path)) == ["a", "b", "c"]
    assert all(model.problem == "" for model in models(tmp_path).values())


def test_an_empty_repository(tmp_path: Path) -> None:
    assert models(tmp_path) == {}


@pytest.mark.parametrize("name", ["gone", "file"])
def test_a_repository_that_is_no_folder(tmp_path: Path, name: str) -> None:
    fill(tmp_path, "file")
    with pytest.raises(RepositoryInvalid) as caught:
        scan(tmp_path / name)
    assert caught.value.path == str(tmp_path / name)


def test_a_repository_by_a_way_round(tmp_path: Path) -> None:
    """`..` in the path, and the repository itself being a link, are fine."""
    fill(tmp_path, "repo/m/1/model.onnx", "other/")
    (tmp_path / "link").symlink_to("repo")
    for way in ("other/../repo", "link", "other/../link"):
        model = only(tmp_path / way)
        graph = only_version(model).onnx
        assert graph is not None
        assert graph.resolve() == (tmp_path / "repo" / "m" / "1" / "model.onnx").resolve()


def test_a_model_that_is_the_repository_is_called_as_it_is_named(tmp_path: Path) -> None:
    """A link that is turned from one release to the next keeps the model's name."""
    fill(tmp_path, "release-1/1/model.onnx", "release-1/tokenizer.json", "other/")
    (tmp_path / "ner").symlink_to("release-1")
    assert only(tmp_path / "ner").name == "ner"
    assert only(tmp_path / "release-1").name == "release-1"
    assert only(tmp_path / "release-1" / ".." / "ner").name == "ner"
    assert only(tmp_path / "release-1" / "1" / "..").name == "release-1"


# --- problems ---


@pytest.mark.parametrize(
    ("files", "words"),
    [
        pytest.param(["m/"], ["no model.onnx found", "m/<version>/model.onnx"], id="empty folder"),
        pytest.param(["m/tokenizer.json"], ["no model.onnx found"], id="no graph"),
        pytest.param(["m/v1/model.onnx"], ["no model.onnx found"], id="version named v1"),
        pytest.param(["m/a/b/model.onnx"], ["no model.onnx found"], id="one level too deep"),
        pytest.param(["m/model.onnx/"], ["model.onnx is a folder"], id="an empty folder"),
        pytest.param(
            ["m/onnx/model.onnx/"], ["model.onnx is a folder"], id="an empty folder below"
        ),
    ],
)
def test_a_folder_without_a_model_is_told(
    tmp_path: Path, files: list[str], words: list[str]
) -> None:
    """It is listed with its problem, not left out: somebody expects it to be served."""
    model = only(fill(tmp_path, *files))
    assert not model.versions
    for word in words:
        assert word in model.problem


def test_a_version_without_a_graph_does_not_hold_back_the_others(tmp_path: Path) -> None:
    model = only(fill(tmp_path, "m/1/model.onnx", "m/2/tokenizer.json"))
    assert model.problem == ""
    assert shown(model.versions[1], tmp_path)[0] == "m/1/model.onnx"
    assert model.versions[2].onnx is None
    assert model.versions[2].problem == "version 2 has no model.onnx"


def test_several_graphs_and_none_named_model(tmp_path: Path) -> None:
    """Which one is meant cannot be guessed; all are named."""
    model = only(fill(tmp_path, "m/1/a.onnx", "m/1/b.onnx", "m/1/onnx/c.onnx"))
    version = only_version(model)
    assert version.onnx is None
    for name in ("a.onnx", "b.onnx", "c.onnx", "rename"):
        assert name in version.problem


@pytest.mark.parametrize(
    "folder", ["01", "0", "007", "٣", "1" * 19, "1" * 200, "-1", "+1", "1.0", "1.5", "1_0", "1,5"]
)
def test_folders_that_are_nearly_versions(tmp_path: Path, folder: str) -> None:
    """Signs, fractions, leading zeros, zero, other scripts' digits, and beyond 18 digits: told."""
    model = only(fill(tmp_path, f"m/{folder}/model.onnx", "m/2/model.onnx"))
    assert list(model.versions) == [2]
    (warning,) = model.warnings
    assert warning.startswith(f"folder {folder!r} is ignored")


@pytest.mark.parametrize("folder", ["v1", "1 ", " 1", "one", "²", "1a", "backup", "1-old"])
def test_folders_that_are_no_versions(tmp_path: Path, folder: str) -> None:
    """They are somebody's own."""
    model = only(fill(tmp_path, f"m/{folder}/model.onnx", "m/2/model.onnx"))
    assert list(model.versions) == [2]
    assert model.warnings == ()


def test_a_graph_beside_versions_is_ignored_and_told(tmp_path: Path) -> None:
    model = only(fill(tmp_path, "m/model.onnx", "m/2/model.onnx"))
    assert list(model.versions) == [2]
    assert model.warnings == ("model.onnx beside version folders is ignored",)


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "0", "x" * 128, "1"])
def test_good_names(tmp_path: Path, name: str) -> None:
    assert models(fill(tmp_path, f"{name}/1/model.onnx"))[name].problem == ""


@pytest.mark.parametrize("name", ["-a", "_a", "a b", "é", "a:b", "x" * 129, "a\nb", "a%2F"])
def test_bad_names(tmp_path: Path, name: str) -> None:
    """A name stands in URLs, metrics and logs."""
    assert "cannot be a model name" in models(fill(tmp_path, f"{name}/1/model.onnx"))[name].problem


@pytest.mark.parametrize(
    "name",
    [
        ".git",
        ".hidden",
        "m~",
        "m.swp",
        "m.swx",
        "m.tmp",
        "m.part",
        "m.crdownload",
        "lost+found",
        "__pycache__",
    ],
)
def test_ignored_names(tmp_path: Path, name: str) -> None:
    """As models, as files, and as versions in the making."""
    fill(tmp_path, f"{name}/1/model.onnx", "m/1/model.onnx", f"m/{name}/model.onnx", f"m/1/{name}")
    model = only(tmp_path)
    assert (model.name, list(model.versions), model.warnings) == ("m", [1], ())


def test_a_graph_that_is_still_being_copied_is_no_graph(tmp_path: Path) -> None:
    version = only_version(only(fill(tmp_path, "m/1/model.onnx.part", "m/1/.model.onnx.x1")))
    assert version.problem == "version 1 has no model.onnx"


# --- links ---


def test_links_within_the_repository_are_followed(tmp_path: Path) -> None:
    """A model, a version, a graph and a side file may each be a link."""
    fill(tmp_path, "a/1/model.onnx", "a/tokenizer.json", "b/2/", "c/")
    (tmp_path / "d").symlink_to("a")
    (tmp_path / "c" / "5").symlink_to(Path("..") / "a" / "1")
    (tmp_path / "b" / "2" / "model.onnx").symlink_to(tmp_path / "a" / "1" / "model.onnx")
    (tmp_path / "b" / "tokenizer.json").symlink_to(Path("..") / "a" / "tokenizer.json")
    found = models(tmp_path)
    assert list(found) == ["a", "b", "c", "d"]
    for name, number in (("a", 1), ("b", 2), ("c", 5), ("d", 1)):
        version = found[name].versions[number]
        assert version.problem == ""
        assert version.onnx is not None
        assert version.onnx.read_text() == "a/1/model.onnx"
    assert found["b"].versions[2].side["tokenizer.json"].read_text() == "a/tokenizer.json"


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("m/1/model.onnx", "secret/model.onnx"),
        ("m/1/tokenizer.json", "secret/tokenizer.json"),
        ("m/tokenizer.json", "secret/tokenizer.json"),
        ("m/1", "secret"),
        ("m", "secret"),
        ("m/model.onnx", "secret/model.onnx"),
    ],
)
def test_links_out_of_the_repository_are_not_followed(
    tmp_path: Path, link: str, target: str, absolute: bool
) -> None:
    """Nothing outside is handed out as a graph or a side file, and the reason is told."""
    outside = fill(tmp_path, "secret/model.onnx", "secret/tokenizer.json") / target
    root = fill(tmp_path / "repo", "m/config.yaml")
    if link.count("/") < 2:
        (root / "m" / "config.yaml").unlink()
        (root / "m").rmdir()
    place = root / link
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(outside if absolute else os.path.relpath(outside, place.parent))
    if place.name == "tokenizer.json":
        fill(root, "m/1/model.onnx")
    model = models(root)["m"]
    told = [model.problem, *(version.problem for version in model.versions.values())]
    assert any("link that leads out of the repository" in each for each in told)
    for version in model.versions.values():
        assert version.onnx is None
        for path in version.side.values():
            assert path.resolve().is_relative_to(root)


@pytest.mark.parametrize("way", ["dangling", "to itself", "in a circle"])
@pytest.mark.parametrize("link", ["m/1/model.onnx", "m/1/tokenizer.json", "m/2"])
def test_links_that_lead_nowhere(tmp_path: Path, link: str, way: str) -> None:
    """A broken link beside a version that works does not stop the scan."""
    fill(tmp_path, "m/9/model.onnx", "m/1/")
    if link != "m/1/model.onnx":
        fill(tmp_path, "m/1/model.onnx")
    place = tmp_path / link
    if way == "dangling":
        place.symlink_to("gone")
    elif way == "to itself":
        place.symlink_to(place.name)
    else:
        place.symlink_to(place.with_name("other"))
        place.with_name("other").symlink_to(place.name)
    model = only(tmp_path)
    assert shown(model.versions[9], tmp_path)[0] == "m/9/model.onnx"
    if link != "m/2":
        assert model.versions[1].onnx is None
        assert f"{place.name} is a link that leads nowhere" in model.versions[1].problem


@pytest.mark.parametrize("target", ["gone", "../../outside"])
def test_a_broken_link_of_a_version_is_told(tmp_path: Path, target: str) -> None:
    """Beside a version that works, too: as that version's problem or as a warning."""
    fill(tmp_path, "outside/model.onnx")
    root = fill(tmp_path / "repo", "m/1/model.onnx")
    (root / "m" / "2").symlink_to(target)
    model = only(root)
    assert shown(model.versions[1], root)[0] == "m/1/model.onnx"
    told = [*model.warnings, *(version.problem for version in model.versions.values())]
    assert any("2 is a link that leads" in each for each in told)


def test_a_fault_is_told_once(tmp_path: Path) -> None:
    """In a flat export the version's folder is the model's."""
    fill(tmp_path, "m/model.onnx")
    (tmp_path / "m" / "tokenizer.json").symlink_to("gone")
    problem = only_version(only(tmp_path)).problem
    assert problem.count("tokenizer.json is a link that leads nowhere") == 1


def test_a_folder_that_contains_itself(tmp_path: Path) -> None:
    """A link to a folder above is within the repository; the scan still ends."""
    fill(tmp_path, "m/1/model.onnx")
    (tmp_path / "m" / "up").symlink_to("..")
    (tmp_path / "m" / "1" / "up").symlink_to(Path("..") / "..")
    (tmp_path / "again").symlink_to(".")
    found = models(tmp_path)
    assert shown(found["m"].versions[1], tmp_path)[0] == "m/1/model.onnx"


def test_a_broken_link_at_the_top_is_not_passed_over(tmp_path: Path) -> None:
    """Somebody expects a model there: it is listed with its problem, as one that leads out is."""
    fill(tmp_path, "m/1/model.onnx")
    (tmp_path / "ner").symlink_to("gone")
    found = models(tmp_path)
    assert "ner" in found
    assert "link that leads nowhere" in found["ner"].problem


def test_a_link_to_a_file_at_the_top_is_no_model(tmp_path: Path) -> None:
    """A README that lies elsewhere is as little a model as one that lies here."""
    outside = fill(tmp_path, "README.md", "repo/m/1/model.onnx")
    (tmp_path / "repo" / "README.md").symlink_to(outside / "README.md")
    assert list(models(tmp_path / "repo")) == ["m"]


def test_the_version_s_own_file_makes_a_broken_shared_one_harmless(tmp_path: Path) -> None:
    fill(tmp_path, "m/1/model.onnx", "m/1/tokenizer.json")
    (tmp_path / "m" / "tokenizer.json").symlink_to("gone")
    version = only_version(only(tmp_path))
    side = {"tokenizer.json": "m/1/tokenizer.json"}
    assert shown(version, tmp_path) == ("m/1/model.onnx", side)


# --- the top ---


def test_a_model_called_onnx_or_by_a_number(tmp_path: Path) -> None:
    """Such a folder at the top is a model of its own, not a part of the repository's."""
    for name in ("onnx", "7"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").touch()
    assert sorted(model.name for model in read_models(scan(tmp_path))) == ["7", "onnx"]


def test_links_to_folders_above_end(tmp_path: Path) -> None:
    """They would multiply what there is to scan."""
    (tmp_path / "m" / "1").mkdir(parents=True)
    for number in range(30):
        (tmp_path / "m" / f"up{number}").symlink_to(tmp_path)
        (tmp_path / "m" / "1" / f"up{number}").symlink_to(tmp_path / "m")
    folder = scan(tmp_path).folders["m"]
    assert list(folder.folders) == ["1"]
    assert "is a link to a folder that it lies in" in folder.faults["up0"]


def test_a_config_that_cannot_be_read_is_never_left_out(tmp_path: Path) -> None:
    """It may hold what the model must not be served without."""
    for name in ("linked", "twice"):
        (tmp_path / "repository" / name).mkdir(parents=True)
        (tmp_path / "repository" / name / "model.onnx").touch()
    (tmp_path / "outside.yaml").touch()
    (tmp_path / "repository" / "linked" / "config.yaml").symlink_to(tmp_path / "outside.yaml")
    (tmp_path / "repository" / "twice" / "config.yaml").touch()
    (tmp_path / "repository" / "twice" / "config.yml").touch()
    found = {model.name: model.problem for model in read_models(scan(tmp_path / "repository"))}
    assert "config.yaml is a link that leads out of the repository" in found["linked"]
    assert found["twice"] == "both config.yaml and config.yml are there; remove one"


def test_a_lone_graph_among_models_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "old.onnx").touch()
    (tmp_path / "ner").mkdir()
    (tmp_path / "ner" / "model.onnx").touch()
    assert [model.name for model in read_models(scan(tmp_path))] == ["ner"]


def test_one_model_s_folder_that_cannot_be_served_is_still_listed(tmp_path: Path) -> None:
    """Not exported yet; or every file a link into the hub's cache."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "config.json").touch()
    (tmp_path / "raw" / "model.safetensors").touch()
    (raw,) = read_models(scan(tmp_path / "raw"))
    assert raw.problem.startswith("no model.onnx, only model.safetensors; export the model")
    (tmp_path / "blob").touch()
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "model.onnx").symlink_to(tmp_path / "blob")
    (tmp_path / "hub" / "tokenizer.json").symlink_to(tmp_path / "blob")
    (hub,) = read_models(scan(tmp_path / "hub"))
    assert "model.onnx is a link that leads out of the repository" in hub.problem


# --- what lies beside a graph ---


def test_a_version_s_own_config(tmp_path: Path) -> None:
    """Told apart from the model's; a flat export has only the model's."""
    fill(tmp_path, "m/config.yaml", "m/1/model.onnx", "m/2/model.onnx", "m/2/config.yml")
    fill(tmp_path, "flat/config.yaml", "flat/model.onnx")
    found = models(tmp_path)
    assert found["m"].config == (tmp_path / "m" / "config.yaml").resolve()
    assert found["m"].versions[1].config is None
    assert found["m"].versions[2].config == (tmp_path / "m" / "2" / "config.yml").resolve()
    assert found["flat"].config is not None
    assert only_version(found["flat"]).config is None


@pytest.mark.parametrize("fault", ["twice", "linked"])
def test_a_version_s_own_config_that_cannot_be_read(tmp_path: Path, fault: str) -> None:
    """That version is not served without it; the others are."""
    fill(tmp_path, "m/1/model.onnx", "m/2/model.onnx", "m/2/config.yaml")
    if fault == "twice":
        fill(tmp_path, "m/2/config.yml")
    else:
        (tmp_path / "m" / "2" / "config.yaml").unlink()
        (tmp_path / "m" / "2" / "config.yaml").symlink_to("gone")
    model = only(tmp_path)
    assert model.problem == model.versions[1].problem == ""
    assert model.versions[2].onnx is None
    assert "config.yaml" in model.versions[2].problem


@pytest.mark.parametrize(
    ("files", "golden"),
    [
        (["m/1/golden.jsonl"], "m/1/golden.jsonl"),
        (["m/golden.jsonl"], "m/golden.jsonl"),
        (["m/golden.jsonl", "m/1/golden.jsonl"], "m/1/golden.jsonl"),
        ([], None),
    ],
)
def test_golden_texts(tmp_path: Path, files: list[str], golden: str | None) -> None:
    """The version's own, or those that all versions share; no side file."""
    version = only_version(only(fill(tmp_path, "m/1/model.onnx", *files)))
    assert (version.golden.read_text() if version.golden else None) == golden
    assert version.side == {}


def test_checksums_are_the_version_s_own(tmp_path: Path) -> None:
    """Those of another folder would name other files."""
    fill(tmp_path, "m/SHA256SUMS", "m/1/model.onnx", "m/2/model.onnx", "m/2/SHA256SUMS")
    versions = only(tmp_path).versions
    assert list(versions[1].side) == []
    assert list(versions[2].side) == ["SHA256SUMS"]


def test_everything_is_every_file_that_may_be_part_of_a_model(tmp_path: Path) -> None:
    """It is what tells that a folder has changed; logs change all the time."""
    fill(tmp_path, "m/1/model.onnx", "m/1/weights", "m/x/y.json", "m/spiece.model")
    fill(tmp_path, "m/1/README.md", "m/notes.txt", "m/train.log")
    fill(tmp_path, "m/1/.model.onnx.Xy12", "m/model.onnx.part", "m/.git/HEAD", "m/notes.txt~")
    found = {str(path.relative_to(tmp_path.resolve())) for path in only(tmp_path).everything}
    assert found == {"m/1/model.onnx", "m/1/weights", "m/x/y.json", "m/spiece.model"}


# --- entries that are no files ---


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "config.yaml", "golden.jsonl"])
def test_a_pipe_in_a_version_is_told(tmp_path: Path, name: str) -> None:
    """Whoever reads it would wait for ever. The other version is served."""
    fill(tmp_path, "m/1/", "m/2/model.onnx")
    if name != "model.onnx":
        fill(tmp_path, "m/1/model.onnx")
    os.mkfifo(tmp_path / "m" / "1" / name)
    model = only(tmp_path)
    assert f"{name} is a pipe, socket or device" in model.versions[1].problem
    assert model.versions[1].onnx is None
    assert model.versions[2].problem == ""


def test_a_pipe_as_the_model_s_config_is_told(tmp_path: Path) -> None:
    os.mkfifo(fill(tmp_path, "m/1/model.onnx") / "m" / "config.yaml")
    assert "config.yaml is a pipe, socket or device" in only(tmp_path).problem


def test_a_pipe_at_the_top_is_no_model(tmp_path: Path) -> None:
    os.mkfifo(fill(tmp_path, "m/1/model.onnx") / "pipe")
    assert list(models(tmp_path)) == ["m"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
@pytest.mark.parametrize("folder", ["m", "m/1"])
def test_a_folder_that_may_not_be_read(tmp_path: Path, folder: str) -> None:
    """Told; the others are served."""
    fill(tmp_path, "m/1/model.onnx", "other/1/model.onnx")
    (tmp_path / folder).chmod(0)
    try:
        found = models(tmp_path)
    finally:
        (tmp_path / folder).chmod(0o700)
    told = [found["m"].problem, *(each.problem for each in found["m"].versions.values())]
    assert any("cannot be read: Permission denied" in each for each in told)
    assert found["other"].problem == ""


def test_a_folder_that_is_deeper_than_a_repository_ends(tmp_path: Path) -> None:
    """Nothing that far down is looked at."""
    deep = "/".join(["x"] * 50)
    assert "no model.onnx" in only(fill(tmp_path, f"{deep}/model.onnx")).problem
    assert only(tmp_path).everything == ()
