"""Triton's model folder: what of config.pbtxt is taken, what is told, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from model_folders import graph_bytes
from nerve.config.model import load_model_config
from nerve.config.running import GraphLevel, Kind
from nerve.errors import ConfigInvalid
from nerve.importing.install import install
from nerve.importing.plan import ImportFailed, ImportPlan
from nerve.importing.recognize import recognize
from nerve.importing.source import Wishes
from nerve.importing.triton_text import parse

FULL = """\
name: "ner"
platform: "onnxruntime_onnx"
max_batch_size: 16  # rows
version_policy: { all {} }
input [
  { name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] reshape { shape: [ 1 ] } },
  { name: "attention_mask" data_type: TYPE_INT64 dims: [ -1 ] }
]
output [ { name: "logits" data_type: TYPE_FP32 dims: [ -1, 9 ] label_filename: "labels.txt" } ]
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 100
  preserve_ordering: true
  priority_levels: 3
  default_priority_level: 2
  default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 500000 max_queue_size: 64 }
  priority_queue_policy { key: 1 value { max_queue_size: 8 } }
}
instance_group [ { name: "a" kind: KIND_CPU count: 2 host_policy: "x" rate_limiter { priority: 1 } } ]
optimization {
  graph { level: 1 }
  input_pinned_memory { enable: true }
  execution_accelerators { gpu_execution_accelerator : [ { name : "tensorrt" } ] }
}
model_warmup [ { name: "a } b" 'c' batch_size: 1 inputs { key: "x" value { dims: 3 } } } ]
response_cache { enable: true }
parameters { key: "intra_op_thread_count" value { string_value: "2" } }
parameters { key: "enable_mem_arena" value { string_value: "1" } }
metric_tags { key: "team" value: "a" }
made_up: "a" "b{"
model_transaction_policy { decoupled: true }
"""


def model(folder: Path, export: Path, config: str, *versions: int) -> Path:
    """A model folder of Triton's: side files beside the graph."""
    for version in versions:
        shutil.copytree(export, folder / str(version))
    folder.mkdir(exist_ok=True)
    (folder / "config.pbtxt").write_text(config)
    return folder


def plan_of(source: Path, **wishes: Path) -> ImportPlan:
    found = recognize(source, Wishes(**wishes))  # type: ignore[arg-type]
    assert found.kind == "Triton model"
    return found.plan


@pytest.mark.parametrize("source", [".", "config.pbtxt"])
def test_every_field_is_taken_or_told(tmp_path: Path, tiny_models: Path, source: str) -> None:
    folder = model(tmp_path / "ner", tiny_models / "bert", FULL, 1, 3)
    plan = plan_of(folder / source)
    assert {place.split("/")[0] for place in plan.files} == {"1", "3"}
    assert plan.files["3/model.onnx"] == folder / "3" / "model.onnx"
    written = install(plan, tmp_path / "models", replace=False)
    config = load_model_config(written / "config.yaml", name="ner")
    assert config.version_policy.all is not None
    assert config.max_batch_size == 16
    batching = config.dynamic_batching
    assert batching.max_queue_delay_microseconds == 100
    assert batching.default_timeout_microseconds == 500_000
    assert (batching.max_queue_size, batching.default_priority) == (64, 2)
    (group,) = config.instance_group
    assert (group.kind, group.count) == (Kind.CPU, 2)
    assert config.optimization.graph_level is GraphLevel.EXTENDED
    assert config.optimization.intra_op_threads == 2
    assert config.response_cache.enable
    notes = "\n".join(plan.notes)
    for field in (
        "input and output", "reshape", "label_filename labels.txt", "preferred_batch_size",
        "preserve_ordering", "priority_levels 3", "DELAY", "allow_timeout_override",
        "max_queue_size counts texts", "priority_queue_policy", "host_policy", "rate_limiter",
        "optimization.input_pinned_memory", "execution_accelerators", "model_warmup",
        "response_cache", "parameters.enable_mem_arena", "metric_tags", "made_up",
        "model_transaction_policy",
    ):  # fmt: skip
        assert field in notes, field
    assert "line 25: model_warmup" in notes


def test_the_least_that_triton_takes(tmp_path: Path, tiny_models: Path) -> None:
    folder = model(tmp_path / "ner", tiny_models / "bert", "", 1)
    plan = plan_of(folder)
    assert (plan.name, plan.config, plan.notes) == ("ner", {}, ())


def test_another_file_name_of_the_graph(tmp_path: Path, tiny_models: Path) -> None:
    text = 'backend: "onnxruntime" default_model_filename: "fp16.onnx"'
    folder = model(tmp_path / "ner", tiny_models / "bert", text, 2)
    (folder / "2" / "fp16.onnx").write_bytes(graph_bytes("fp16"))
    plan = plan_of(folder)
    assert plan.files["2/model.onnx"] == folder / "2" / "fp16.onnx"


@pytest.mark.parametrize("stated", ["other.onnx", "sub/model.onnx", "../../etc/passwd"])
@pytest.mark.parametrize("flat", [False, True])
def test_a_graph_that_is_not_there(
    tmp_path: Path, tiny_models: Path, stated: str, flat: bool
) -> None:
    """Another one is not taken in its stead."""
    text = f'default_model_filename: "{stated}"'
    if flat:
        shutil.copytree(tiny_models / "bert", tmp_path / "ner")
    folder = model(tmp_path / "ner", tiny_models / "bert", text, *(() if flat else (1, 2)))
    with pytest.raises(ConfigInvalid) as caught:
        plan_of(folder)
    problems = caught.value.problems
    assert [each.path for each in problems] == ([""] if flat else ["version 1", "version 2"])
    assert all(f"'{stated}'" in str(each) for each in problems)


def test_a_kind_that_there_is_not(tmp_path: Path, tiny_models: Path) -> None:
    text = "instance_group [ { kind: 7 } ]"
    with pytest.raises(ImportFailed, match="there is no kind 7; expected KIND_AUTO"):
        plan_of(model(tmp_path / "ner", tiny_models / "bert", text, 1))


def test_a_tokenizer_from_elsewhere(tmp_path: Path, tiny_models: Path) -> None:
    """Triton's folders often hold the graph alone."""
    export = tiny_models / "bert"
    folder = model(tmp_path / "ner", export, "", 1)
    for path in (folder / "1").iterdir():
        if path.name != "model.onnx":
            path.unlink()
    assert sorted(plan_of(folder).files) == ["1/model.onnx"]
    plan = plan_of(folder, checkpoint=export)
    assert plan.files["tokenizer.json"] == export / "tokenizer.json"
    assert plan.files["1/model.onnx"] == folder / "1" / "model.onnx"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('backend: "python"', "python models are not served here"),
        ('backend: "onnxruntime" platform: "ensemble"', "ensemble models are not served here"),
        ('platform: "tensorrt_plan"', "tensorrt_plan models are not served here"),
    ],
)
def test_other_backends(tmp_path: Path, tiny_models: Path, text: str, said: str) -> None:
    model(tmp_path / "graph", tiny_models / "bert", "", 1, 2)
    with pytest.raises(ImportFailed, match=said) as caught:
        plan_of(model(tmp_path / "ner", tiny_models / "bert", text))
    assert ("the graph may be graph beside it" in str(caught.value)) == ("plan" not in text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_batch_size: 'x'", "line 1: "),
        ("\n\nname: {", "line 3: "),
        ("instance_group { kind: KIND_TPU }", "KIND_TPU"),
        ("a {" * 3, "line 1: "),
        ("a: [", "line 1: "),
        ("max_batch_size: 99999999999", "line 1: "),
        ("x: 'abc", "line 1: the value of x is not there or does not end"),
        ("\nfoo { a: 1", "line 2: the value of foo is not there or does not end"),
    ],
)
def test_no_config(text: str, said: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse(text, source="config.pbtxt")
    assert said in str(caught.value.problems[0])


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("new_field: 1 name: 'n'", "new_field: 1"),
        ("new_field { a { b: '}' } } name: 'n'", "new_field { a { b: '}' } }"),
        ("new_field < a: 1 > name: 'n'", "new_field < a: 1 >"),
        ("new_field: [1, 2] name: 'n'", "new_field: [1, 2]"),
        ("new_field: 'a' # x\n \"b\"\nname: 'n'", "new_field: 'a' # x\n \"b\""),
        ("name: 'n' new_field: X", "new_field: X"),
        ("name: 'n'\n  new_field {\n # }\n}", "new_field {\n # }\n}"),
        ("name: 'n', new_field: 1.5,", "new_field: 1.5"),
    ],
)
def test_unknown_fields_are_found_whole(text: str, taken: str) -> None:
    config, unknown = parse(text, source="x")
    assert config.name == "n"
    assert [(each.message, each.name, each.text) for each in unknown] == [
        ("ModelConfig", "new_field", taken)
    ]
