"""Baseten's Truss `config.yaml` of an engine for NER (`trt_llm:`), made a plan.

The weights are not in it: it names a checkpoint, of which an export to ONNX is needed.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from nerve.config.problems import validate
from nerve.errors import ConfigInvalid, Problem
from nerve.importing.export_folder import is_folder, read_export
from nerve.importing.plan import VERSION_FOLDER, ImportFailed, ImportPlan, folder_name
from nerve.importing.source import Wishes

ROOT: Final = "trt_llm"
_ROUTE: Final = "/predict_tokens"


class _Open(BaseModel):
    """What matters here; all other keys are told of in notes."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


def _repo(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty; expected a model of the hub (org/name), or a folder")
    if Path(value).name in ("", ".."):
        raise ValueError(
            f"{value!r:.80} names no checkpoint; name its folder, or a model (org/name)"
        )
    return value


class Checkpoint(_Open):
    """`trt_llm.build.checkpoint_repository`."""

    source: str = "HF"
    repo: Annotated[str, AfterValidator(_repo)]
    revision: str | None = None


def _engine(value: object) -> object:
    if value == "decoder":
        raise ValueError("decoder engines generate text; only encoder_bert is served here")
    return value


class Build(_Open):
    """`trt_llm.build`."""

    base_model: Annotated[Literal["encoder_bert", "encoder"], BeforeValidator(_engine)]
    checkpoint_repository: Checkpoint
    max_num_tokens: Annotated[int, Field(strict=True, ge=8)] | None = None
    max_batch_size: Annotated[int, Field(strict=True, ge=1, le=4096)] | None = None
    quantization_type: str = "no_quant"


class Runtime(_Open):
    """`trt_llm.runtime`."""

    webserver_default_route: str | None = None


class Engine(_Open):
    """`trt_llm`."""

    build: Build
    runtime: Runtime = Runtime()


class TrussConfig(_Open):
    """The whole file."""

    model_name: str | None = None
    trt_llm: Engine


PYTHON_KEYS: Final = frozenset(
    {"model_class_name", "model_module_dir", "python_version", "requirements"}
)
"""Of a Truss whose model is Python code."""
_TAKEN: Final = frozenset(
    {
        "model_name", "trt_llm.build.checkpoint_repository.source",
        "trt_llm.build.checkpoint_repository.repo", "trt_llm.build.checkpoint_repository.revision",
        "trt_llm.build.max_num_tokens", "trt_llm.build.max_batch_size",
    }
)  # fmt: skip
_NOTES: Final[Mapping[str, str]] = {
    "trt_llm.runtime.webserver_default_route": "every route is served, always",
    "trt_llm.build.checkpoint_repository.runtime_secret_name": "nothing is downloaded",
    "trt_llm.build.max_seq_len": "the length is what the checkpoint's files say, as with BEI",
    "trt_llm.inference_stack": "there is one kind of engine",
    "resources.accelerator": "the model runs on the GPUs that there are, else on the CPU "
    "(instance_group in config.yaml)",
    "runtime.predict_concurrency": "as many requests are taken as dynamic_batching.max_queue_size "
    "in config.yaml allows",
    "secrets": "nothing is downloaded",
    "requirements": "no Python of the model's own is run",
}
"""What a key means for people who come from there; others have no meaning here."""
_DEPTH: Final = 3
"""Dots in the longest key of them."""
_WHOLE: Final = frozenset({"model_metadata", "secrets", "environment_variables", "requirements"})
"""Told of in one note, whatever is in them."""


def read_truss(
    value: Mapping[str, object],
    lines: Mapping[tuple[int | str, ...], int],
    *,
    path: Path,
    wishes: Wishes,
) -> ImportPlan:
    """What a Truss config means here.

    Args:
        value, lines: of `parse_yaml`.
        path: of the file, for messages; relative checkpoints start in its folder.
        wishes: `checkpoint` wins over the one that the file names.
    Raises:
        ConfigInvalid: with every problem of the file.
        ImportFailed: the checkpoint is not on this machine, or no export; says what to run.
    """
    config = validate(TrussConfig, value, source=str(path), lines=lines)
    build = config.trt_llm.build
    name = wishes.name or _name(config, path)
    folder = _checkpoint(build.checkpoint_repository, path, wishes)
    export = read_export(folder)
    if export.problems:
        raise ConfigInvalid(str(folder), [Problem("", each) for each in export.problems])
    content = {
        key: limit
        for key in ("max_batch_size", "max_num_tokens")
        if (limit := getattr(build, key)) is not None
    }
    return ImportPlan(
        name=name,
        files={f"{VERSION_FOLDER}/{place}": file for place, file in export.files.items()},
        config=content,
        notes=(*export.notes, *_notes(config, value)),
        head=(f"{config.model_name or name}, from {path.name} (Truss)",),
    )


def _name(config: TrussConfig, path: Path) -> str:
    repo = config.trt_llm.build.checkpoint_repository.repo
    name = folder_name(config.model_name or repo.rstrip("/").rpartition("/")[2])
    if not name:
        raise ImportFailed(f"{path} has no name that a model can have; add --name NAME")
    return name


def _checkpoint(stated: Checkpoint, path: Path, wishes: Wishes) -> Path:
    """The folder with the export."""
    if wishes.checkpoint is not None:
        if not is_folder(wishes.checkpoint):
            raise ImportFailed(f"--checkpoint {wishes.checkpoint}: there is no such folder")
        return wishes.checkpoint
    # In the folder of the file, as Truss looks for what is bundled, then where people stand.
    for start in (path.parent, Path()):
        if is_folder(folder := start / stated.repo):
            return folder
    target = f"./{folder_name(stated.repo.rstrip('/').rpartition('/')[2]) or 'export'}"
    again = shlex.join(["nerve", "import", str(path), "--checkpoint", target, *wishes.options])
    if stated.source != "HF":
        raise ImportFailed(
            f"the checkpoint {stated.repo} ({stated.source}) is not on this machine; download it, "
            f"export it to ONNX, and name the result:\n"
            f"  nerve export DOWNLOADED {shlex.quote(target)}\n  {again}"
        )
    repo = shlex.quote(stated.repo)
    pinned = stated.revision if stated.revision != "main" else None
    revision = f" --revision {shlex.quote(pinned)}" if pinned else ""
    raise ImportFailed(
        f"the checkpoint {stated.repo} is on the Hugging Face hub, and what is served here is an "
        f"export of it to ONNX; run\n  nerve export {repo} {shlex.quote(target)}{revision}\n"
        f"(it runs optimum-cli export onnx --model {repo} --task token-classification"
        f"{revision} {shlex.quote(target)}), then\n  {again}"
    )


def _notes(config: TrussConfig, value: Mapping[str, object]) -> Iterator[str]:
    engine = config.trt_llm
    for key in _leaves(value, ""):
        if key == "trt_llm.build.base_model":
            if engine.build.base_model == "encoder":
                yield "trt_llm.build.base_model: encoder does no NER there; here it makes no difference"
        elif key == "trt_llm.build.quantization_type":
            yield f"{key}: {_precision(engine.build.quantization_type)}"
        elif key == "trt_llm.runtime.webserver_default_route" and (
            (route := engine.runtime.webserver_default_route) != _ROUTE
        ):
            yield f"{key}: {route} is not taken; NER is served at {_ROUTE}"
        elif key == "model_name" and config.model_name != folder_name(config.model_name or ""):
            yield f"model_name {config.model_name!r} cannot be a folder's name as it is"
        elif key not in _TAKEN:
            yield f"{key}: {_NOTES.get(key, 'has no meaning here')}"


def _precision(kind: str) -> str:
    if kind == "no_quant":
        return (
            "no_quant there means fp16; here the model runs as it was exported "
            "(optimization.precision in config.yaml: fp16 for GPUs)"
        )
    return (
        f"{kind} is not done here, the model runs as it was exported "
        "(optimization.precision in config.yaml: fp16, bf16, int8)"
    )


def _leaves(value: Mapping[str, object], above: str) -> Iterator[str]:
    """Dotted paths of all keys that hold no mapping, or lie deeper than any that means something.

    A mapping of YAML may hold itself, so there must be an end.
    """
    for key, each in value.items():
        path = f"{above}.{key}" if above else str(key)
        whole = path in _WHOLE or path.count(".") == _DEPTH
        if isinstance(each, Mapping) and each and not whole:
            yield from _leaves(each, path)
        else:
            yield path
