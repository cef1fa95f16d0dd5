"""A served version's configuration in the shape of Triton's ModelConfig, defaults included."""

from __future__ import annotations

from typing import Final

import orjson

from nerve.config.model import ModelConfig
from nerve.config.running import Scheduler
from nerve.config.versions import VersionPolicy
from nerve.frontend.priority import LOWEST
from nerve.frontend.v2.metadata import PLATFORM, Json, TensorSpec, look_up, tensors
from nerve.frontend.v2.views import View
from nerve.service.control import ControlService, ServedVersion
from nerve.types import ModelInfo

BACKEND: Final = "onnxruntime"


def model_config(control: ControlService, name: str, version: str = "") -> Json:
    """Of the version that would answer, for the view that the name means.

    Args:
        control: knows the models.
        name, version: as the client wrote them; an empty version leaves it to the server.
    Raises:
        ModelNotFound, VersionNotFound, ModelNotReady.
    """
    view, served = look_up(control, name, version)
    return describe(name, view, served)


def describe(name: str, view: View, served: ServedVersion) -> Json:
    """The configuration under the name that was asked for; 64-bit integers are numbers. Pure."""
    config, has = served.config, tensors(view, served.info)
    pinned = {"enable": config.optimization.gpu.io_binding}
    described: Json = {
        "name": name,
        "platform": PLATFORM,
        "backend": BACKEND,
        "runtime": "",
        "version_policy": _policy(served.version_policy),
        "max_batch_size": served.info.max_batch_size,
        "input": [_input(each) for each in has.inputs],
        "output": [_output(each) for each in has.outputs],
        "optimization": {
            "priority": "PRIORITY_DEFAULT",
            "input_pinned_memory": pinned,
            "output_pinned_memory": pinned,
            "gather_kernel_buffer_threshold": 0,
            "eager_batching": False,
        },
        "instance_group": _groups(name, served.info),
        "default_model_filename": "model.onnx",
        "cc_model_filenames": {},
        "metric_tags": {},
        "parameters": {
            key: {"string_value": value} for key, value in _parameters(view, served).items()
        },
    }
    if (batching := _batching(config)) is not None:
        described["dynamic_batching"] = batching
    if config.response_cache.enable and view is View.TEXT:
        described["response_cache"] = {"enable": True}
    return described


def _policy(policy: VersionPolicy) -> Json:
    if policy.all is not None:
        return {"all": {}}
    if policy.specific is not None:
        return {"specific": {"versions": list(policy.specific.versions)}}
    return {"latest": {"num_versions": policy.latest.num_versions if policy.latest else 1}}


def _input(spec: TensorSpec) -> Json:
    return {
        "name": spec.name,
        "data_type": spec.data_type,
        "format": "FORMAT_NONE",
        "dims": list(spec.dims),
        "is_shape_tensor": False,
        "allow_ragged_batch": False,
        "optional": spec.optional,
        "is_non_linear_format_io": False,
    }


def _output(spec: TensorSpec) -> Json:
    return {
        "name": spec.name,
        "data_type": spec.data_type,
        "dims": list(spec.dims),
        "label_filename": "",
        "is_shape_tensor": False,
        "is_non_linear_format_io": False,
    }


def _batching(config: ModelConfig) -> Json | None:
    """None where every row runs alone: clients take its absence for that."""
    batching = config.dynamic_batching
    if config.optimization.batch_invariant or batching.scheduler is Scheduler.NONE:
        return None
    levels = LOWEST if batching.priority_step_microseconds else 0
    return {
        "preferred_batch_size": [],
        "max_queue_delay_microseconds": batching.max_queue_delay_microseconds,
        "preserve_ordering": False,
        "priority_levels": levels,
        "default_priority_level": batching.default_priority if levels else 0,
        "default_queue_policy": {
            "timeout_action": "REJECT",
            "default_timeout_microseconds": batching.default_timeout_microseconds or 0,
            "allow_timeout_override": True,
            "max_queue_size": batching.max_queue_size,
        },
        "priority_queue_policy": {},
    }


def _groups(name: str, info: ModelInfo) -> list[Json]:
    """Where it really runs: a group for the CPU, and one for each GPU."""
    return [
        {
            "name": f"{name}_{number}",
            "kind": "KIND_CPU" if gpu is None else "KIND_GPU",
            "count": count,
            "gpus": [] if gpu is None else [gpu],
            "profile": [],
            "passive": False,
            "host_policy": "",
        }
        for number, (gpu, count) in enumerate(info.instances)
    ]


def _parameters(view: View, served: ServedVersion) -> dict[str, str]:
    """What Triton has no field for; our own keys."""
    info = served.info
    said = {
        "task": served.config.task,
        "labels": orjson.dumps(info.labels).decode(),
        "max_tokens": str(info.max_tokens),
        "max_num_tokens": str(info.max_num_tokens),
    }
    if view is View.RAW:
        return said
    said["long_texts"] = "truncate" if info.stride is None else "window"
    if info.stride is not None:
        said["stride"] = str(info.stride)
    if info.aggregation_strategy is not None:
        said["aggregation_strategy"] = info.aggregation_strategy.value
    said["offset_unit"] = served.offset_unit.value
    return said
