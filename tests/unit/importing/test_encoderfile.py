"""Encoderfile's build file: every key, both ways to write a path and a script, and what is refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import yaml

from nerve.config.model import load_model_config
from nerve.errors import ConfigInvalid
from nerve.importing.encoderfile import plan_of, read_build_config
from nerve.importing.encoderfile_keys import KEYS
from nerve.importing.install import install
from nerve.words import Side

PLAIN = """\
encoderfile:
  name: ner-tagger
  version: "1.0.0"
  path: ./ner-model
  model_type: token_classification
  output_path: ./build/ner-tagger.encoderfile
"""
TRANSFORM = """\
  transform: |
    --- Apply softmax to normalize logits
    function Postprocess(arr)
        return arr:softmax(3)
    end
"""
BESIDE = """\
transform: |
  function Postprocess(arr)
    -- Only return top prediction per token
    return arr:argmax(3)
  end
"""
"""As the page on NER shows it under "Performance Optimization"."""


@pytest.fixture
def home(tmp_path: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with an export in ner-model/."""
    shutil.copytree(tiny_models / "bert", tmp_path / "ner-model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(home: Path, text: str) -> Path:
    (home / "ner-config.yml").write_text(text, encoding="utf-8")
    return Path("ner-config.yml")


def problems(path: Path, directory: Path | None = None) -> list[str]:
    with pytest.raises(ConfigInvalid) as caught:
        read_build_config(path, directory=directory)
    return [str(each) for each in caught.value.problems]


def changed(home: Path, **keys: object) -> Path:
    """The plain build file with other keys; None takes one out."""
    value = yaml.safe_load(PLAIN)["encoderfile"] | keys
    kept = {key: each for key, each in value.items() if each is not None}
    return write(home, yaml.safe_dump({"encoderfile": kept}))


def test_the_page_without_a_transform(home: Path) -> None:
    plan = plan_of(read_build_config(write(home, PLAIN)))
    assert (plan.name, plan.version, dict(plan.config), dict(plan.texts)) == (
        "ner-tagger", "1.0.0", {}, {},
    )  # fmt: skip
    assert sorted(plan.files) == [
        "1/config.json", "1/model.onnx", "1/special_tokens_map.json", "1/tokenizer.json",
        "1/tokenizer_config.json",
    ]  # fmt: skip
    assert all(path.is_file() for path in plan.files.values())
    assert any("output_path" in note for note in plan.notes)
    building = plan_of(read_build_config(Path("ner-config.yml")), building=True)
    assert building.notes == ()


def test_the_page_with_a_transform(home: Path) -> None:
    plan = plan_of(read_build_config(write(home, PLAIN + TRANSFORM)))
    assert plan.config == {"transform": {"path": "transform.lua"}}
    assert "return arr:softmax(3)" in plan.texts["transform.lua"]


def test_a_transform_beside_the_key_is_taken_and_told(home: Path) -> None:
    config = read_build_config(write(home, PLAIN + BESIDE))
    assert "arr:argmax(3)" in plan_of(config).texts["transform.lua"]
    (warning,) = config.warnings
    assert warning.startswith("line 7: transform stands beside encoderfile:")


def test_of_two_transforms_the_inner_one_counts(home: Path) -> None:
    config = read_build_config(write(home, PLAIN + TRANSFORM + BESIDE))
    assert "softmax" in plan_of(config).texts["transform.lua"]
    assert "the one below it is taken" in config.warnings[0]


def test_files_one_by_one_and_a_script_in_a_file(home: Path) -> None:
    script = "\tfunction Postprocess(arr) return arr end"
    (home / "s.lua").write_text(script)
    (home / "ner-model" / "model.onnx").rename(home / "weights.onnx")
    path = {
        "model_config_path": "ner-model/config.json",
        "model_weights_path": "weights.onnx",
        "tokenizer_path": str(home / "ner-model" / "tokenizer.json"),
    }
    plan = plan_of(
        read_build_config(
            changed(home, path=path, transform={"path": "s.lua"}, lua_libs=["math"],
                    validate_transform=False)
        )
    )  # fmt: skip
    assert sorted(plan.files) == ["1/config.json", "1/model.onnx", "1/tokenizer.json"]
    assert plan.files["1/model.onnx"].name == "weights.onnx"
    assert plan.texts == {"transform.lua": script}
    assert plan.config == {
        "transform": {"path": "transform.lua"}, "lua_libs": ["math"], "validate_transform": False,
    }  # fmt: skip


def test_what_is_written_is_read_as_it_was_meant(home: Path) -> None:
    tokenizer = {"max_length": 64, "truncation_side": "left", "truncation_strategy": "only_first",
                 "stride": 8, "pad_strategy": {"fixed": 32}}  # fmt: skip
    path = changed(home, tokenizer=tokenizer, transform="function Postprocess(a) return a end\n")
    plan = plan_of(read_build_config(path))
    folder = install(plan, home / "models", replace=False)
    config = load_model_config(folder / "config.yaml", name="ner-tagger")
    assert config.tokenizer.max_length == 64
    assert config.tokenizer.truncation_side is Side.LEFT
    assert config.tokenizer.stride is None  # else long texts would be tagged, not cut as there
    assert config.transform is not None
    assert config.transform.text == "function Postprocess(a) return a end"
    head = (folder / "config.yaml").read_text().splitlines()[0]
    assert head == "# ner-tagger 1.0.0, from ner-config.yml (Encoderfile)"
    for key in ("stride", "pad_strategy", "truncation_strategy"):
        assert any(key in note for note in plan.notes), key


@pytest.mark.parametrize("strategy", [None, "batch_longest"])
def test_padding_to_the_longest_needs_no_note(home: Path, strategy: str | None) -> None:
    path = changed(home, tokenizer={"pad_strategy": strategy}, output_path=None)
    plan = plan_of(read_build_config(path), building=True)
    assert (plan.notes, plan.config) == ((), {})


def test_all_problems_at_once_each_with_its_line(home: Path) -> None:
    text = """\
encoderfile:
  name: a/b
  version: 1.0
  path: {model_config_path: nope.json, model_weights_path: no.onnx, tokenizer_path: 3}
  model_type: embedding
  lua_libs: [io, nope]
  validate_transform: "yes"
  tokenizer: {pad_strategy: longest, max_length: 2, stride: 1.5, truncation_side: up}
transform: {path: no.lua}
"""
    found = problems(write(home, text))
    expected = [
        "line 2: encoderfile.name: 'a/b' cannot be a model's name",
        "line 3: encoderfile.version: expected text, got 1.0; write it in quotes",
        "line 4: encoderfile.path.tokenizer_path: expected text, got 3",
        "line 4: encoderfile.path.model_config_path: there is no file nope.json",
        "line 4: encoderfile.path.model_weights_path: there is no file no.onnx",
        "line 5: encoderfile.model_type: embedding models are not served here",
        "line 6: encoderfile.lua_libs[0]: io is not available here",
        "line 6: encoderfile.lua_libs[1]: ",
        "line 7: encoderfile.validate_transform: input should be a valid boolean",
        "line 8: encoderfile.tokenizer.pad_strategy: expected {fixed: N} or batch_longest",
        "line 8: encoderfile.tokenizer.truncation_side",
        "line 8: encoderfile.tokenizer.max_length",
        "line 8: encoderfile.tokenizer.stride",
        "line 9: encoderfile.transform.path: there is no file no.lua",
    ]
    for each, start in zip(found, expected, strict=True):
        assert each.startswith(start)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"name": None}, "encoderfile.name: field required"),
        ({"name": 7}, "encoderfile.name: expected text, got 7"),
        ({"name": ".."}, "cannot be a model's name"),
        ({"name": "a\0b"}, "cannot be a model's name"),
        ({"name": "model.tmp"}, "cannot be a model's name"),
        ({"path": None}, "encoderfile.path: field required"),
        ({"path": 3}, "expected a folder, or a mapping with model_config_path"),
        ({"path": {"tokenizer_path": "ner-model/tokenizer.json"}},
         "model_config_path and model_weights_path missing"),
        ({"path": "ner-model/config.json"}, "there is no folder ner-model/config.json"),
        ({"path": "x" * 5000}, "there is no folder xxx"),
        ({"model_type": None}, "encoderfile.model_type: field required"),
        ({"model_type": "TokenClassification"}, "expected token_classification"),
        ({"transform": ""}, "the script is empty"),
        ({"transform": {"path": "ner-model/tokenizer.json\0"}}, "there is no file"),
        ({"transform": {"path": "ner-model"}}, "there is no file ner-model"),
        ({"transform": 5}, "expected a Lua script"),
        ({"transform": "-" * (128 * 1024 + 1)}, "the script is over 131072 bytes"),
        ({"tokenizer": {"pad_strategy": {"fixed": -1}}}, "pad_strategy.fixed"),
        ({"tokenizer": 1}, "encoderfile.tokenizer"),
    ],
)  # fmt: skip
def test_refused(home: Path, keys: dict[str, object], said: str) -> None:
    found = problems(changed(home, **keys))
    assert any(said in each for each in found), found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "encoderfile: field required"),
        ("encoderfile:", "line 1: encoderfile: expected a mapping"),
        ("[]", "expected a mapping"),
        ("encoderfile: {", "not valid YAML"),
        ("name: x\npath: y\n", "encoderfile: field required"),
    ],
)
def test_no_build_file(home: Path, text: str, said: str) -> None:
    assert any(said in each for each in problems(write(home, text)))


@pytest.mark.parametrize("key", ["name", "version", "path", "model_type", "transform", "tokenizer"])
def test_values_that_hold_themselves(home: Path, key: str) -> None:
    """Aliases make a small file as large as one likes."""
    lines = [f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    text = "\n".join(["encoderfile:", "  a0: &a0 [x]", *lines, f"  {key}: *a11", "  b: &b {b: *b}"])
    found = problems(write(home, text))
    assert any(f"encoderfile.{key}:" in each for each in found)
    assert all(len(each) < 1000 for each in found)


def test_a_build_file_that_cannot_be_read(home: Path) -> None:
    assert problems(Path("nope.yml")) == ["Encoderfile config not found"]
    (home / "latin.yml").write_bytes(b"encoderfile: {name: \xe9}")
    assert "not UTF-8" in problems(Path("latin.yml"))[0]
    (home / "large.yml").write_bytes(b"#" * 300_000)
    assert "is over" in problems(Path("large.yml"))[0]


def test_unknown_keys_are_only_told(home: Path) -> None:
    config = read_build_config(
        write(home, PLAIN + "  colour: red\n  tokenizer: {padding: x}\nother: 1\n7: x\nyes: x\n")
    )
    assert sorted(config.warnings) == [
        "True is no key of Encoderfile's",
        "line 10: 7 is no key of Encoderfile's",
        "line 7: encoderfile.colour is no key of Encoderfile's",
        "line 8: encoderfile.tokenizer.padding is no key of Encoderfile's",
        "line 9: other is no key of Encoderfile's",
    ]


@pytest.mark.parametrize("key", ["cache_dir", "base_binary_path", "output_path", "target"])
def test_what_only_a_build_reads(home: Path, key: str) -> None:
    """An import tells that it passes over it, a build does not."""
    config = read_build_config(changed(home, **{key: "x"}))
    assert f"{key} is only for `nerve build`" in plan_of(config).notes
    assert plan_of(config, building=True).notes == ()


def test_every_missing_file_of_a_folder_is_named(home: Path) -> None:
    for name in ("model.onnx", "tokenizer.json", "config.json", "tokenizer_config.json"):
        (home / "ner-model" / name).unlink()
    found = problems(write(home, PLAIN))
    assert sorted(each.split(" is not in")[0] for each in found) == [
        f"line 4: encoderfile.path: {name}"
        for name in ("config.json", "model.onnx", "tokenizer.json")
    ]


def test_what_a_folder_lacks_or_has_too_much_is_told(home: Path) -> None:
    (home / "ner-model" / "tokenizer_config.json").unlink()
    (home / "ner-model" / "config.yaml").write_text("max_batch_size: 4")
    plan = plan_of(read_build_config(write(home, PLAIN)), building=True)
    lacks, has = plan.notes
    assert lacks.startswith("tokenizer_config.json is not there: ")
    assert has.startswith("config.yaml of ")
    assert plan.config == {}


def test_paths_start_where_the_user_is(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with Encoderfile; the error names the option that helps."""
    path = home / write(home, PLAIN)
    (home / "elsewhere").mkdir()
    monkeypatch.chdir(home / "elsewhere")
    (found,) = problems(path)
    assert f"there is one beside ner-config.yml: add --directory {home}" in found
    assert read_build_config(path, directory=home).name == "ner-tagger"
    assert read_build_config(Path(os.path.relpath(path)), directory=Path("..")).name == "ner-tagger"


def test_the_cache_of_the_hub_is_links(home: Path) -> None:
    """Its snapshots link to blobs outside of them."""
    snapshot = home / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for path in sorted((home / "ner-model").iterdir()):
        blob = home / "blobs" / f"{path.name}-blob"
        blob.parent.mkdir(exist_ok=True)
        path.rename(blob)
        (snapshot / path.name).symlink_to(blob)
    (snapshot / "onnx").mkdir()
    (snapshot / "model.onnx").rename(snapshot / "onnx" / "model.onnx")
    plan = plan_of(read_build_config(changed(home, path="snapshots/abc")))
    folder = install(plan, home / "models", replace=False)
    assert (folder / "1" / "model.onnx").is_file()
    assert not any(path.is_symlink() for path in folder.rglob("*"))


def test_every_key_is_documented(root: Path) -> None:
    text = (root / "docs" / "importing.md").read_text(encoding="utf-8")
    assert [key for keys in KEYS.values() for key in sorted(keys) if key not in text] == []
