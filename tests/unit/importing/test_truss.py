"""Baseten's Truss config: what is taken, that nothing is dropped without a word, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from nerve.errors import ConfigInvalid
from nerve.importing.plan import ImportFailed, ImportPlan
from nerve.importing.recognize import recognize
from nerve.importing.source import Wishes

PAGE = """\
trt_llm:
  build:
    base_model: encoder_bert
    checkpoint_repository:
      source: HF
      repo: "baseten-admin/bert-base-ner-uncased"
      revision: main
    max_num_tokens: 16384
  runtime:
    webserver_default_route: /predict_tokens
"""
"""Baseten's page on NER."""

FULL = """\
model_name: BEI-Bert NER (uncased)
description: finds names
python_version: py39
model_metadata:
  example_model_input: {inputs: [["Apple"]]}
  tags: [ner]
environment_variables: {A: "1"}
requirements: [x]
resources: {accelerator: L4, cpu: '1', memory: 10Gi, use_gpu: true}
runtime: {predict_concurrency: 256}
secrets: {hf_access_token: null}
trt_llm:
  inference_stack: v1
  build:
    base_model: encoder_bert
    checkpoint_repository: {source: HF, repo: here, revision: abc, runtime_secret_name: hf_access_token}
    max_batch_size: 64
    max_num_tokens: 2048
    max_seq_len: 512
    num_builder_gpus: 1
    plugin_configuration: {paged_kv_cache: false}
    quantization_type: no_quant
    tensor_parallel_count: 1
  runtime: {kv_cache_free_gpu_mem_fraction: 0.9, webserver_default_route: /predict}
  version_overrides: {bei_bert_version: 1.2.3}
"""


def plan_of(path: Path, text: str, **wishes: Any) -> ImportPlan:
    path.write_text(text)
    found = recognize(path, Wishes(**wishes))
    assert found.kind == "Truss config"
    return found.plan


def without(text: str, *keys: str) -> str:
    value = inner = yaml.safe_load(text)
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return yaml.safe_dump(value)


def test_the_page(tmp_path: Path, tiny_models: Path) -> None:
    plan = plan_of(tmp_path / "config.yaml", PAGE, checkpoint=tiny_models / "bert")
    assert plan.name == "bert-base-ner-uncased"
    assert plan.config == {"max_num_tokens": 16384}
    assert plan.files["1/model.onnx"] == tiny_models / "bert" / "model.onnx"
    assert plan.notes == ("trt_llm.runtime.webserver_default_route: every route is served, always",)


def test_the_page_without_the_model_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ImportFailed) as caught:
        plan_of(tmp_path / "config.yaml", PAGE)
    repo, target = "baseten-admin/bert-base-ner-uncased", "./bert-base-ner-uncased"
    lines = str(caught.value).splitlines()
    assert f"  nerve export {repo} {target}" in lines
    assert f"  nerve import {tmp_path / 'config.yaml'} --checkpoint {target}" in lines
    assert f"optimum-cli export onnx --model {repo} --task token-classification {target}" in str(
        caught.value
    )
    pinned = PAGE.replace("revision: main", "revision: v2")
    with pytest.raises(ImportFailed) as caught:
        plan_of(tmp_path / "config.yaml", pinned, options=("--name", "a b", "--replace"))
    assert str(caught.value).count(" --revision v2") == 2
    assert f"--checkpoint {target} --name 'a b' --replace" in str(caught.value)


@pytest.mark.parametrize(
    ("repo", "said"),
    [('""', "is empty"), ("'  '", "is empty"), (".", "names no checkpoint"),
     ('"/"', "names no checkpoint"), ("../..", "names no checkpoint")],
)  # fmt: skip
def test_repos_that_are_none(tmp_path: Path, repo: str, said: str) -> None:
    text = PAGE.replace('"baseten-admin/bert-base-ner-uncased"', repo)
    with pytest.raises(ConfigInvalid) as caught:
        plan_of(tmp_path / "config.yaml", text)
    (problem,) = caught.value.problems
    assert (problem.path, problem.line) == ("trt_llm.build.checkpoint_repository.repo", 6)
    assert said in str(problem)


def test_every_key_is_taken_or_told(tmp_path: Path, tiny_models: Path) -> None:
    (tmp_path / "here").symlink_to(tiny_models / "bert")
    plan = plan_of(tmp_path / "config.yaml", FULL)
    assert plan.name == "BEI-Bert-NER-uncased"
    assert plan.config == {"max_batch_size": 64, "max_num_tokens": 2048}
    told = {note.split(":")[0].split(" ")[0] for note in plan.notes}
    build, runtime = "trt_llm.build.", "trt_llm.runtime."
    assert told == {
        "description", "environment_variables", "model_metadata", "model_name", "python_version",
        "requirements", "resources.accelerator", "resources.cpu", "resources.memory",
        "resources.use_gpu", "runtime.predict_concurrency", "secrets", "trt_llm.inference_stack",
        f"{build}checkpoint_repository.runtime_secret_name", f"{build}max_seq_len",
        f"{build}num_builder_gpus", f"{build}plugin_configuration.paged_kv_cache",
        f"{build}quantization_type", f"{build}tensor_parallel_count",
        f"{runtime}kv_cache_free_gpu_mem_fraction", f"{runtime}webserver_default_route",
        "trt_llm.version_overrides.bei_bert_version",
    }  # fmt: skip
    assert plan_of(tmp_path / "config.yaml", FULL, name="x").name == "x"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("encoder_bert", "decoder", "line 3: trt_llm.build.base_model: decoder engines generate"),
        ("encoder_bert", "bert", "trt_llm.build.base_model: input should be 'encoder_bert'"),
        ("max_num_tokens: 16384", "max_num_tokens: '1'", "max_num_tokens: input should be"),
        ("max_num_tokens: 16384", "max_batch_size: 0", "line 8: trt_llm.build.max_batch_size"),
        ("  build:", "  bild:", "trt_llm.build: field required"),
        ("      repo:", "      repos:", "checkpoint_repository.repo: field required"),
        (PAGE, "trt_llm: {build: 3}", "trt_llm.build: expected a mapping, got 3"),
        (PAGE, "trt_llm: []", "trt_llm: expected a mapping"),
    ],
)
def test_refused(tmp_path: Path, tiny_models: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        plan_of(tmp_path / "c.yaml", PAGE.replace(old, new), checkpoint=tiny_models / "bert")
    assert any(said in str(each) for each in caught.value.problems), caught.value


def test_checkpoints_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ImportFailed, match="there is no such folder"):
        plan_of(tmp_path / "c.yaml", PAGE, checkpoint=tmp_path / "nope")
    with pytest.raises(ConfigInvalid, match=r"model\.onnx is not in"):
        plan_of(tmp_path / "c.yaml", PAGE, checkpoint=tmp_path)
    with pytest.raises(ImportFailed, match=r"\(GCS\) is not on this machine; download it"):
        plan_of(tmp_path / "c.yaml", PAGE.replace("source: HF", "source: GCS"))
    with pytest.raises(ImportFailed, match="add --name NAME"):
        plan_of(tmp_path / "c.yaml", PAGE.replace("bert-base-ner-uncased", "é"))


def test_a_mapping_that_holds_itself(tmp_path: Path, tiny_models: Path) -> None:
    text = f"{PAGE}extra: &x\n  y: *x\n"
    plan = plan_of(tmp_path / "c.yaml", text, checkpoint=tiny_models / "bert")
    assert "extra.y.y.y: has no meaning here" in plan.notes


def test_other_trusses(tmp_path: Path, tiny_models: Path) -> None:
    (tmp_path / "c.yaml").write_text("model_class_name: Model\npython_version: py311\n")
    with pytest.raises(ImportFailed, match="its model is Python code"):
        recognize(tmp_path / "c.yaml", Wishes())
    (tmp_path / "truss").mkdir()
    (tmp_path / "c.yaml").rename(tmp_path / "truss" / "config.yaml")
    with pytest.raises(ImportFailed, match="its model is Python code"):
        recognize(tmp_path / "truss", Wishes())
    text = PAGE.replace("encoder_bert", "encoder").replace("16384", "16384\n    x_new: 1")
    plan = plan_of(
        tmp_path / "c.yaml", without(text, "trt_llm", "runtime"), checkpoint=tiny_models / "bert"
    )
    assert sorted(note.split(":")[0] for note in plan.notes) == [
        "trt_llm.build.base_model", "trt_llm.build.x_new",
    ]  # fmt: skip
