"""`nerve validate`: what it finds in good, broken and odd folders, for people and for programs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest

from commands import run_here

ROOT_USER = os.geteuid() == 0


def validate(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """In this process; its proofs have processes of their own all the same."""
    ended = run_here("validate", *arguments)
    out, err = ended.stdout.decode(), ended.stderr.decode()
    return subprocess.CompletedProcess(ended.args, ended.returncode, out, err)


def validate_apart(
    *arguments: str | Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """In a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "nerve", "validate", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **(env or {})},
    )


def report(*arguments: str | Path) -> tuple[int, dict[str, Any]]:
    """Exit status, and the document of --json."""
    ended = validate("--json", *arguments)
    assert "Traceback" not in ended.stderr, ended.stderr
    document: dict[str, Any] = json.loads(ended.stdout)
    assert document["ok"] == (ended.returncode == 0)
    return ended.returncode, document


def only_model(document: dict[str, Any]) -> dict[str, Any]:
    ((model,),) = [folder["models"] for folder in document["folders"]]
    found: dict[str, Any] = model
    return found


def problems(place: Mapping[str, Any]) -> list[str]:
    """Details of every failed check of a folder, model or version, and of what is in it."""
    own = [
        detail
        for check in place["checks"]
        if check["outcome"] == "failed"
        for detail in check["details"]
    ]
    below = [*place.get("models", []), *place.get("versions", [])]
    return own + [detail for each in below for detail in problems(each)]


def edit_config(folder: Path, **changes: object) -> None:
    """Change config.json."""
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(about | changes))


@pytest.fixture
def model(tmp_path: Path, tiny_models: Path) -> Path:
    """A good model folder, `bert`."""
    folder = tmp_path / "bert"
    shutil.copytree(tiny_models / "bert", folder)
    return folder


def test_a_good_model_reads_well(bundled: Path) -> None:
    """A line a check, what was found, and a verdict; nothing on stderr."""
    ended = validate_apart(bundled)
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[:2] == [str(bundled), "  minilm-ner"]
    assert lines[2].split() == ["✓", "layout", "version", "1"]
    assert any(line.split()[:3] == ["✓", "files", "model.onnx,"] for line in lines)
    assert any("9 labels: O, B-MISC, " in line for line in lines)
    assert any("texts of up to 512 tokens" in line for line in lines)
    assert any(line.strip().endswith("MB at most") for line in lines)
    assert lines[-1] == "1 model, 1 version: all good"
    assert "✗" not in ended.stdout


def test_every_kind_of_folder(bundled: Path) -> None:
    """A repository, a model, a version: the same model, by its own name."""
    places = [f"{bundled}{place}" for place in ("", "/minilm-ner", "/minilm-ner/1/")]
    status, document = report(*places)
    assert status == 0
    assert [folder["folder"] for folder in document["folders"]] == [
        each.rstrip("/") for each in places
    ]
    for folder in document["folders"]:
        (found,) = folder["models"]
        assert found["name"] == "minilm-ner"
        (version,) = found["versions"]
        assert version["version"] == "1"
        assert version["labels"][:3] == ["O", "B-MISC", "I-MISC"]
        assert (version["max_tokens"], version["device"], version["f1"]) == (512, "cpu", None)
        assert version["seconds"] > 0
        assert version["peak_memory_bytes"] > 10_000_000


def test_several_folders(tiny_models: Path, model: Path) -> None:
    """Each family is good; one bad folder among them is enough for exit 1."""
    status, document = report(tiny_models, model)
    assert status == 0
    assert len(document["folders"][0]["models"]) == 5
    (model / "model.onnx").unlink()
    status, document = report(tiny_models / "bert", model)
    assert status == 1
    assert [folder["ok"] for folder in document["folders"]] == [True, False]


def test_every_version_whatever_the_policy(tmp_path: Path, tiny_models: Path) -> None:
    """An old version that nobody serves is checked as well; one that is named but missing, too."""
    folder = tmp_path / "multi"
    for number in (1, 2):
        shutil.copytree(tiny_models / "bert", folder / str(number))
    (folder / "1" / "model.onnx").write_bytes(b"no graph")
    (folder / "config.yaml").write_text("version_policy: {specific: {versions: [2, 5]}}\n")
    status, document = report(folder)
    versions = only_model(document)["versions"]
    assert [(each["version"], each["ok"]) for each in versions] == [
        ("1", False), ("2", True), ("5", False),
    ]  # fmt: skip
    assert status == 1


def test_shared_side_files_of_a_version_folder(tmp_path: Path, tiny_models: Path) -> None:
    """A version folder is checked with what its model folder shares, config.yaml included."""
    folder = tmp_path / "shared"
    shutil.copytree(tiny_models / "bert", folder)
    (folder / "1").mkdir()
    (folder / "model.onnx").rename(folder / "1" / "model.onnx")
    (folder / "config.yaml").write_text("tokenizer: {max_length: 17}\n")
    status, document = report(folder / "1")
    assert status == 0, document
    assert only_model(document)["name"] == "shared"
    assert only_model(document)["versions"][0]["max_tokens"] == 17


def test_config_problems_with_lines(model: Path) -> None:
    """All of them at once; files are still looked at, the model is not tried."""
    (model / "config.yaml").write_text("max_batchsize: 3\nlabels: []\nname: other\n")
    ended = validate(model)
    assert ended.returncode == 1
    told = " ".join(ended.stdout.split())
    assert "✗ config.yaml line 1: max_batchsize: unknown key; did you mean 'max_b" in told
    assert "line 2: labels: " in told
    assert "line 3: name: is 'other', but the model's folder is 'bert'" in told
    assert "✓ files" in told
    assert "- load not tried" in told
    assert ended.stdout.rstrip().endswith("1 model, 1 version: 1 check failed")


def test_a_versions_own_config(tmp_path: Path, tiny_models: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(tiny_models / "bert", folder / "1")
    (folder / "1" / "config.yaml").write_text("max_batch_size: 0\nrouting: {weights: {1: 1}}\n")
    _, document = report(folder)
    assert [each[:6] for each in problems(only_model(document))] == ["line 1", "line 2"]
    (folder / "1" / "config.yaml").write_text("tokenizer: {max_length: 9}\n")
    status, document = report(folder)
    assert (status, only_model(document)["versions"][0]["max_tokens"]) == (0, 9)


def _truncate(folder: Path) -> None:
    content = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(content[: len(content) // 2])


def _unknown_operator(folder: Path) -> None:
    graph = onnx.load(str(folder / "model.onnx"))
    graph.graph.node[0].op_type = "Frobnicate"
    onnx.save(graph, str(folder / "model.onnx"))


def _fifo(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    os.mkfifo(folder / "model.onnx")


def _folder_for_graph(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").mkdir()


def _link_loop(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to("model.onnx")


def _few_labels(folder: Path) -> None:
    edit_config(folder, id2label={"0": "O", "1": "B-PER"})


def _other_tokenizer(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    last = max(tokenizer["model"]["vocab"].values())
    tokenizer["model"]["vocab"]["nerve"] = last + 5000  # beyond the embedding
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "config.yaml").write_text("model_warmup: [{text: nerve}]\n")


def _both(folder: Path) -> None:
    for name in ("config.yaml", "config.yml"):
        (folder / name).write_text("")


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (_truncate, "it is incomplete"),
    "empty": (lambda folder: (folder / "model.onnx").write_bytes(b""), "empty"),
    "random": (
        lambda folder: (folder / "model.onnx").write_bytes(bytes(range(256)) * 16),
        "model.onnx",
    ),
    "operator": (_unknown_operator, "Frobnicate"),
    "fifo": (_fifo, "is a pipe"),
    "folder": (_folder_for_graph, "model.onnx"),
    "loop": (_link_loop, "link that leads nowhere"),
    "bare": (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    "tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{"), "tokenizer.json"),
    "other": (_other_tokenizer, "tokenizer.json has ids up to"),
    "about": (lambda folder: (folder / "config.json").write_text("[]"), "config.json"),
    "labels": (_few_labels, "2 labels, but the graph puts out 9"),
    "bomb": (lambda folder: (folder / "config.yaml").write_text("a: &a [*a, *a]"), "unknown key"),
    "both": (_both, "remove one"),
    "sums": (lambda folder: (folder / "SHA256SUMS").write_text(f"{0:064}  model.onnx"), "SHA256"),
    "golden": (lambda folder: (folder / "golden.jsonl").write_text("no JSON"), "golden.jsonl"),
}


def test_faults(tmp_path: Path, tiny_models: Path) -> None:
    """A sentence about each, and exit 1; the good model among them is good."""
    shutil.copytree(tiny_models / "bert", tmp_path / "good")
    for name, (break_it, _) in FAULTS.items():
        shutil.copytree(tiny_models / "bert", tmp_path / name)
        break_it(tmp_path / name)
    status, document = report(tmp_path)
    assert status == 1
    found = {each["name"]: each for each in document["folders"][0]["models"]}
    assert found.keys() == {"good", *FAULTS}
    assert found["good"]["ok"]
    for name, (_, told) in FAULTS.items():
        assert not found[name]["ok"], name
        assert any(told in each for each in problems(found[name])), found[name]


@pytest.mark.skipif(ROOT_USER, reason="root reads everything")
def test_unreadable_files(model: Path) -> None:
    (model / "tokenizer.json").chmod(0)
    status, document = report(model)
    assert status == 1
    assert "Permission denied" in problems(document["folders"][0])[0]


def test_odd_names(tmp_path: Path, tiny_models: Path) -> None:
    """Spaces, umlauts, bytes that are no UTF-8, escapes, the longest name: a problem each."""
    names = ["with space", "ünï", os.fsdecode(b"no\xffutf8"), "red\x1b[31m", "x" * 255]
    for name in names:
        shutil.copytree(tiny_models / "bert", tmp_path / name)
    ended = validate_apart(tmp_path)
    assert ended.returncode == 1
    assert ended.stdout.count("cannot be a model name") == 5
    assert "\x1b" not in ended.stdout
    status, document = report(tmp_path, *(tmp_path / name for name in names))
    assert status == 1
    assert len(document["folders"]) == 6


def test_odd_versions_are_warnings(tmp_path: Path, tiny_models: Path) -> None:
    """Ignored folders are told, and are no failure."""
    folder = tmp_path / "odd"
    for number in ("007", "2", "99999999999999999999"):
        shutil.copytree(tiny_models / "bert", folder / number)
    ended = validate(folder)
    assert ended.returncode == 0, ended.stdout
    told = " ".join(ended.stdout.split())
    assert "! layout folder '007' is ignored" in told
    assert "folder '99999999999999999999' is ignored" in told
    assert told.endswith("1 model, 1 version: all good")


def test_folders_without_a_model(tmp_path: Path) -> None:
    """Nothing there, no folder, nothing in it, a name that is too long, a loop of links."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    told = {
        "empty": "there is no model in it",
        "none": "there is no such folder",
        "file": "is a file",
        "fifo": "is a file",
        "loop": "symbolic links",
        "x" * 300: "too long",
        "file/below": "cannot be read",
    }
    status, document = report(*(tmp_path / name for name in told))
    assert status == 1
    for folder, sentence in zip(document["folders"], told.values(), strict=True):
        assert sentence in problems(folder)[0]


def test_no_utf8_terminal(model: Path) -> None:
    """Marks of ASCII, and nothing that stdout cannot write."""
    edit_config(model, id2label={str(n): f"B-Ö{n}" for n in range(9)})
    ended = validate_apart(model, env={"PYTHONIOENCODING": "ascii"})
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.isascii()
    assert "ok   files" in ended.stdout
    (model / "model.onnx").unlink()
    ended = validate_apart(model, env={"PYTHONIOENCODING": "ascii", "FORCE_COLOR": "1"})
    assert "FAIL layout" in ended.stdout
    assert "\x1b" not in ended.stdout


def test_golden_without_a_gate_is_told(bundled: Path, tmp_path: Path) -> None:
    """F1 of golden.jsonl is measured even if nothing asks for a least one; a gate then refuses."""
    folder = tmp_path / "repository"
    shutil.copytree(bundled, folder)
    golden = folder / "minilm-ner" / "1" / "golden.jsonl"
    right = {"text": "Ada met Tim in Berlin.", "entities": [
        {"start": 0, "end": 3, "label": "PER"}, {"start": 8, "end": 11, "label": "PER"},
        {"start": 15, "end": 21, "label": "LOC"},
    ]}  # fmt: skip
    golden.write_text(json.dumps(right) + "\n")
    status, document = report(folder)
    assert status == 0, document
    assert only_model(document)["versions"][0]["f1"] == 1.0
    right["entities"] = [{"start": 0, "end": 3, "label": "LOC"}]
    golden.write_text(json.dumps(right) + "\n")
    ended = validate(folder)
    assert ended.returncode == 0
    assert 'F1 0.000 on golden.jsonl (1 text); 1 differ, first: "Ada met' in ended.stdout
    (folder / "minilm-ner" / "config.yaml").write_text("quality_gate: {min_f1: 0.5}\n")
    status, document = report(folder)
    assert status == 1
    assert "F1" in problems(document["folders"][0])[0]


def test_a_load_that_takes_too_long(model: Path) -> None:
    """--timeout ends it; the process of the load is gone with it."""
    (model / "config.yaml").write_text("model_warmup: [{count: 1000, batch_size: 1024}]\n")
    status, document = report("--timeout", "1", model)
    assert status == 1
    assert "1 s" in problems(document["folders"][0])[0]


@pytest.mark.parametrize("arguments", [[], ["--timeout", "0", "."], ["--nonsense", "."]])
def test_usage(arguments: list[str]) -> None:
    ended = validate(*arguments)
    assert ended.returncode == 2
    assert "Usage" in ended.stderr
    assert "Traceback" not in ended.stderr
