"""Triton's model folder with a `config.pbtxt`, made a plan: its versions and its config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from nerve._proto.inference.inference_pb2 import (
    ModelConfig,
    ModelDynamicBatching,
    ModelInstanceGroup,
)
from nerve.importing.model_folder import versions_of
from nerve.importing.plan import ImportFailed, ImportPlan
from nerve.importing.source import Wishes
from nerve.importing.triton_text import UnknownField, read_pbtxt

CONFIG: Final = "config.pbtxt"
_PLATFORMS: Final = ("", "onnxruntime_onnx")
_BACKENDS: Final = ("", "onnxruntime")
_GRAPH_LEVELS: Final = {"-1": "basic", "1": "extended", "2": "disable"}
_LEVEL: Final = "level:"
_LOWEST_PRIORITY: Final = 10
_ADVICE: Final[Mapping[str, str]] = {
    "model_warmup": "warm-up runs take texts here (model_warmup in config.yaml); one is made anyway",
    "execution_accelerators": "see optimization.gpu.provider in config.yaml for TensorRT",
    "rate_limiter": "instances run as soon as they are free",
    "reshape": "shapes are read from the graph",
    "sequence_batching": "requests do not depend on each other",
    "ensemble_scheduling": "tokenizer and decoder are part of the model",
    "batch_input": "rows of different length are put together by the server",
}
"""Fields of Triton's that our definition of its ModelConfig does not have."""


def read_triton(folder: Path, wishes: Wishes) -> ImportPlan:
    """What a model folder of Triton's means here.

    Raises:
        ConfigInvalid: config.pbtxt is no ModelConfig.
        ImportFailed: it is no model for ONNX Runtime, or a version is not whole.
    """
    path = folder / CONFIG
    config, unknown = read_pbtxt(path)
    if config.platform not in _PLATFORMS or config.backend not in _BACKENDS:
        kind = config.backend if config.backend not in _BACKENDS else config.platform
        raise ImportFailed(
            f"{path}: {kind} models are not served here, only those of ONNX Runtime "
            f"(platform onnxruntime_onnx, or backend onnxruntime){_instead(config, folder)}"
        )
    stated = config.name or folder.absolute().name
    found = versions_of(folder, graph=config.default_model_filename, checkpoint=wishes.checkpoint)
    notes: list[str] = list(found.notes)
    content = dict(_config(config, unknown, notes))
    return ImportPlan(
        name=wishes.name or stated,
        files=found.files,
        config=content,
        notes=(*notes, *_unknown(unknown)),
        texts=found.texts,
        head=(f"{stated}, from {CONFIG} (Triton)",),
    )


def _instead(config: ModelConfig, folder: Path) -> str:
    """Where the model may be: of an ensemble and a Python model, the graph is another folder's."""
    beside = folder.absolute().parent
    if config.platform != "ensemble" and config.backend != "python":
        return ""
    graphs = {each.parent.parent.name for each in beside.glob("*/[0-9]*/model.onnx")}
    graphs.discard(folder.absolute().name)
    return f"; the graph may be {', '.join(sorted(graphs))} beside it" if graphs else ""


def _config(
    config: ModelConfig, unknown: list[UnknownField], notes: list[str]
) -> Iterator[tuple[str, object]]:
    """The keys of config.yaml; what is not taken joins `notes`."""
    if config.HasField("version_policy"):
        yield "version_policy", _policy(config)
    if config.max_batch_size > 0:
        yield "max_batch_size", config.max_batch_size
    if config.HasField("dynamic_batching") and (
        batching := dict(_batching(config.dynamic_batching, notes))
    ):
        yield "dynamic_batching", batching
    if groups := [_group(each, notes) for each in config.instance_group]:
        yield "instance_group", groups
    if optimization := dict(_optimization(config, unknown, notes)):
        yield "optimization", optimization
    if config.response_cache.enable:
        yield "response_cache", {"enable": True}
        notes.append("response_cache: what it may hold is max_bytes of response_cache here")
    notes += [
        f"{key} has no meaning here"
        for key in ("cc_model_filenames", "metric_tags", "runtime")
        if getattr(config, key)
    ]
    if config.model_transaction_policy.decoupled:
        notes.append("model_transaction_policy: each request has one answer here")
    if config.input or config.output:
        notes.append("input and output are not taken: they are read from the graph, by name")
    labels = next((each.label_filename for each in config.output if each.label_filename), "")
    if labels:
        notes.append(
            f"label_filename {labels} is not taken: labels are id2label of config.json, or `labels` "
            "in config.yaml"
        )


def _policy(config: ModelConfig) -> dict[str, object]:
    policy = config.version_policy
    if policy.HasField("all"):
        return {"all": {}}
    if policy.HasField("specific"):
        return {"specific": {"versions": list(policy.specific.versions)}}
    return {"latest": {"num_versions": policy.latest.num_versions or 1}}


def _batching(batching: ModelDynamicBatching, notes: list[str]) -> Iterator[tuple[str, int]]:
    if batching.max_queue_delay_microseconds:
        yield "max_queue_delay_microseconds", batching.max_queue_delay_microseconds
    policy = batching.default_queue_policy
    if policy.max_queue_size:
        yield "max_queue_size", policy.max_queue_size
        notes.append("max_queue_size counts texts here, requests there")
    if policy.default_timeout_microseconds:
        yield "default_timeout_microseconds", policy.default_timeout_microseconds
    if policy.timeout_action:
        notes.append("timeout_action: DELAY is not taken: what is late is refused")
    if batching.HasField("default_queue_policy") and not policy.allow_timeout_override:
        notes.append("allow_timeout_override: callers may always ask for less time")
    if 0 < batching.default_priority_level <= _LOWEST_PRIORITY:
        yield "default_priority", batching.default_priority_level
    if batching.priority_levels:
        notes.append(
            f"priority_levels {batching.priority_levels} is not taken: there are always "
            f"{_LOWEST_PRIORITY}, 1 is the first as there, and none waits for ever"
        )
    elif batching.default_priority_level > _LOWEST_PRIORITY:
        notes.append(f"default_priority_level is not taken: {_LOWEST_PRIORITY} is the last")
    if batching.preferred_batch_size:
        notes.append("preferred_batch_size is not taken: batches are chosen by their measured cost")
    if batching.preserve_ordering:
        notes.append("preserve_ordering is not taken: an answer leaves when it is ready")
    if batching.priority_queue_policy:
        notes.append("priority_queue_policy is not taken: all priorities share one queue's limits")


def _group(group: ModelInstanceGroup, notes: list[str]) -> dict[str, object]:
    if group.kind not in ModelInstanceGroup.Kind.values():  # the text may have any number
        kinds = ", ".join(ModelInstanceGroup.Kind.keys())
        raise ImportFailed(
            f"{CONFIG}: instance_group: there is no kind {group.kind}; expected {kinds}"
        )
    kind = ModelInstanceGroup.Kind.Name(group.kind)
    if kind == "KIND_MODEL":
        notes.append("instance_group: KIND_MODEL is taken as KIND_AUTO")
        kind = "KIND_AUTO"
    found: dict[str, object] = {"kind": kind}
    if group.count > 0:
        found["count"] = group.count
    if group.gpus and kind != "KIND_CPU":
        found["gpus"] = list(group.gpus)
    notes += [
        f"instance_group.{key} has no meaning here"
        for key in ("profile", "passive", "host_policy")
        if getattr(group, key)
    ]
    return found


def _optimization(
    config: ModelConfig, unknown: list[UnknownField], notes: list[str]
) -> Iterator[tuple[str, object]]:
    """Session options, of `optimization` and of `parameters`."""
    for each in unknown:
        words = each.text.replace("{", " ").replace("}", " ").replace(":", ": ").split()
        if each.name == "graph" and _LEVEL in words[:-1]:
            level = words[words.index(_LEVEL) + 1]
            if level in _GRAPH_LEVELS:
                yield "graph_level", _GRAPH_LEVELS[level]
    notes += [
        f"optimization.{field.name} has no meaning here"
        for field, _ in config.optimization.ListFields()
    ]
    for key, parameter in sorted(config.parameters.items()):
        value = parameter.string_value
        if key == "intra_op_thread_count" and value.isdecimal() and int(value) > 0:
            yield "intra_op_threads", int(value)
        else:
            notes.append(f"parameters.{key} ({value!r:.60}) has no meaning here")


def _unknown(unknown: list[UnknownField]) -> Iterator[str]:
    for each in unknown:
        if each.name == "graph" and each.message == "ModelOptimizationPolicy":
            continue
        advice = _ADVICE.get(each.name, "has no meaning here")
        yield f"line {each.line}: {each.name} is not taken: {advice}"
