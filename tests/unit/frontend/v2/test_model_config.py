"""The configuration as clients of Triton read it, from our own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from controlled import controlled
from model_folders import write_model
from nerve._proto.inference import inference_pb2 as pb
from nerve.config.model import ModelConfig
from nerve.errors import ModelNotFound
from nerve.frontend.v2.model_config import describe, model_config
from nerve.frontend.v2.views import View
from nerve.service.control import ServedVersion
from nerve.types import ModelInfo
from nerve.words import OffsetUnit, Strategy

INFO = ModelInfo(
    name="ner",
    version=2,
    labels=("O", "B-PER, 1"),
    max_tokens=128,
    max_batch_size=16,
    max_num_tokens=4096,
    max_queue_size=7,
    stride=None,
    device="cpu",
    aggregation_strategy=None,
    offset_unit=None,
    instances=((None, 2),),
)


def served(info: ModelInfo = INFO, **config: Any) -> ServedVersion:
    made = ModelConfig.model_validate(config)
    return ServedVersion(info, made, made.version_policy, ("1", "2"), OffsetUnit.CODEPOINT)


def told(view: View = View.TEXT, info: ModelInfo = INFO, **config: Any) -> dict[str, Any]:
    """What is told, which is seen to be a ModelConfig and nothing besides."""
    described = describe("ner", view, served(info, **config))
    message = ParseDict(described, pb.ModelConfig())
    again = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    assert plain(again) == plain(described)
    return json.loads(json.dumps(described))  # type: ignore[no-any-return]  # plain JSON it is


def plain(value: object) -> object:
    """Without the difference that protobuf's own JSON makes: it has large numbers as text."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def test_a_model_without_a_config() -> None:
    """Everything that contract kserve-v2, section 2, lists; large numbers are numbers."""
    assert told() == {
        "name": "ner",
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "runtime": "",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": 16,
        "input": [
            {
                "name": "TEXT",
                "data_type": "TYPE_STRING",
                "format": "FORMAT_NONE",
                "dims": [1],
                "is_shape_tensor": False,
                "allow_ragged_batch": False,
                "optional": False,
                "is_non_linear_format_io": False,
            }
        ],
        "output": [
            {
                "name": "ENTITIES",
                "data_type": "TYPE_STRING",
                "dims": [1],
                "label_filename": "",
                "is_shape_tensor": False,
                "is_non_linear_format_io": False,
            }
        ],
        "optimization": {
            "priority": "PRIORITY_DEFAULT",
            "input_pinned_memory": {"enable": True},
            "output_pinned_memory": {"enable": True},
            "gather_kernel_buffer_threshold": 0,
            "eager_batching": False,
        },
        "instance_group": [
            {
                "name": "ner_0",
                "kind": "KIND_CPU",
                "count": 2,
                "gpus": [],
                "profile": [],
                "passive": False,
                "host_policy": "",
            }
        ],
        "default_model_filename": "model.onnx",
        "cc_model_filenames": {},
        "metric_tags": {},
        "parameters": {
            "task": {"string_value": "token-classification"},
            "labels": {"string_value": '["O","B-PER, 1"]'},
            "max_tokens": {"string_value": "128"},
            "max_num_tokens": {"string_value": "4096"},
            "long_texts": {"string_value": "truncate"},
            "offset_unit": {"string_value": "codepoint"},
        },
        "dynamic_batching": {
            "preferred_batch_size": [],
            "max_queue_delay_microseconds": 0,
            "preserve_ordering": False,
            "priority_levels": 10,
            "default_priority_level": 5,
            "default_queue_policy": {
                "timeout_action": "REJECT",
                "default_timeout_microseconds": 0,
                "allow_timeout_override": True,
                "max_queue_size": 2048,
            },
            "priority_queue_policy": {},
        },
    }


def test_the_raw_view_has_other_tensors() -> None:
    """And says nothing of what only texts have."""
    raw = told(View.RAW, replace(INFO, type_ids=True, stride=8))
    assert [(each["name"], each["dims"], each["optional"]) for each in raw["input"]] == [
        ("input_ids", [-1], False),
        ("attention_mask", [-1], True),
        ("token_type_ids", [-1], True),
    ]
    assert {each["data_type"] for each in raw["input"]} == {"TYPE_INT64"}
    (logits,) = raw["output"]
    assert (logits["name"], logits["dims"]) == ("logits", [-1, 2])
    assert logits["data_type"] == "TYPE_FP32"
    assert sorted(raw["parameters"]) == ["labels", "max_num_tokens", "max_tokens", "task"]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("all", {"all": {}}),
        ({"latest": {"num_versions": 3}}, {"latest": {"num_versions": 3}}),
        ({"specific": {"versions": [1, 10**15]}}, {"specific": {"versions": [1, 10**15]}}),
    ],
)
def test_version_policy(policy: object, expected: object) -> None:
    assert told(version_policy=policy)["version_policy"] == expected


def test_a_model_that_does_not_batch_says_so() -> None:
    """By the absence of the key."""
    assert "dynamic_batching" not in told(dynamic_batching={"scheduler": "none"})
    assert "dynamic_batching" not in told(optimization={"batch_invariant": True})


def test_how_it_batches() -> None:
    batching = told(
        dynamic_batching={
            "max_queue_delay_microseconds": 150,
            "max_queue_size": 9,
            "default_timeout_microseconds": 5_000_000_000,
            "default_priority": 3,
        }
    )["dynamic_batching"]
    assert batching["max_queue_delay_microseconds"] == 150
    assert batching["default_priority_level"] == 3
    policy = batching["default_queue_policy"]
    assert (policy["max_queue_size"], policy["default_timeout_microseconds"]) == (9, 5_000_000_000)


def test_priorities_that_are_off_are_not_told() -> None:
    batching = told(dynamic_batching={"priority_step_microseconds": 0})["dynamic_batching"]
    assert (batching["priority_levels"], batching["default_priority_level"]) == (0, 0)


def test_where_it_runs() -> None:
    """Devices as they are used, whatever the config leaves open."""
    groups = told(info=replace(INFO, instances=((0, 2), (3, 1), (None, 4))))["instance_group"]
    assert [(each["name"], each["kind"], each["count"], each["gpus"]) for each in groups] == [
        ("ner_0", "KIND_GPU", 2, [0]),
        ("ner_1", "KIND_GPU", 1, [3]),
        ("ner_2", "KIND_CPU", 4, []),
    ]


def test_what_happens_to_long_texts_and_other_defaults() -> None:
    info = replace(INFO, stride=32, aggregation_strategy=Strategy.MAX)
    parameters = told(info=info)["parameters"]
    assert {key: each["string_value"] for key, each in parameters.items()} == {
        "task": "token-classification",
        "labels": '["O","B-PER, 1"]',
        "max_tokens": "128",
        "max_num_tokens": "4096",
        "long_texts": "window",
        "stride": "32",
        "aggregation_strategy": "max",
        "offset_unit": "codepoint",
    }


async def test_of_a_version_that_is_served(tmp_path: Path) -> None:
    """Under the name that was asked for; the policy is that of the model."""
    write_model(tmp_path / "a", "version_policy: all", v1="x", v2="y")
    async with controlled(tmp_path, load_model=["*"]) as made:
        made.model("x").change_info(max_batch_size=3)
        one, raw = model_config(made.control, "a", "1"), model_config(made.control, "a.raw")
        assert (one["name"], one["max_batch_size"]) == ("a", 3)
        assert one["version_policy"] == {"all": {}}
        assert (raw["name"], raw["max_batch_size"]) == ("a.raw", 1)
        with pytest.raises(ModelNotFound):
            model_config(made.control, "b")


def test_a_response_cache_is_told_where_it_answers() -> None:
    """perf_analyzer looks for it; logits are not kept, so the raw view has none."""
    assert told(response_cache=True)["response_cache"] == {"enable": True}
    assert "response_cache" not in told(View.RAW, response_cache=True)
    assert "response_cache" not in told(response_cache={"enable": False, "max_bytes": 5})
