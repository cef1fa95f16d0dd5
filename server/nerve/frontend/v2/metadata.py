"""Metadata of the server and of models, and the tensors of their two views, as the protocol's JSON.

Keys are the field names of proto/inference/inference.proto, so that a message can be parsed from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import nerve
from nerve.frontend.v2.views import (
    ATTENTION_MASK,
    ENTITIES,
    INPUT_IDS,
    LOGITS,
    TEXT,
    TOKEN_TYPE_IDS,
    View,
    resolve,
)
from nerve.service.control import ControlService, ServedVersion
from nerve.types import ModelInfo

Json = dict[str, object]
"""A JSON object."""

PLATFORM: Final = "onnxruntime_onnx"
EXTENSIONS: Final = (
    "model_repository",
    "schedule_policy",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "logging",
)
"""Those that are really served. Clients ask for statistics only where they are listed."""
_DATATYPES: Final = {"TYPE_STRING": "BYTES", "TYPE_INT64": "INT64", "TYPE_FP32": "FP32"}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor as the model configuration names it; `dims` without the batch, -1 is any length."""

    name: str
    data_type: str
    dims: tuple[int, ...]
    optional: bool = False

    @property
    def metadata(self) -> Json:
        """As the metadata tells it: with the batch, and without `TYPE_`."""
        shape = [-1, *self.dims]
        return {"name": self.name, "datatype": _DATATYPES[self.data_type], "shape": shape}


@dataclass(frozen=True, slots=True)
class Tensors:
    """What a view takes and gives."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


_TEXT_TENSORS: Final = Tensors(
    (TensorSpec(TEXT, "TYPE_STRING", (1,)),), (TensorSpec(ENTITIES, "TYPE_STRING", (1,)),)
)
"""Only what a client gets that asks for all outputs: others are given when named."""


def _raw_tensors(info: ModelInfo) -> Tensors:
    names = (ATTENTION_MASK, TOKEN_TYPE_IDS) if info.type_ids else (ATTENTION_MASK,)
    return Tensors(
        (
            TensorSpec(INPUT_IDS, "TYPE_INT64", (-1,)),
            *(TensorSpec(name, "TYPE_INT64", (-1,), optional=True) for name in names),
        ),
        (TensorSpec(LOGITS, "TYPE_FP32", (-1, len(info.labels))),),
    )


def tensors(view: View, info: ModelInfo) -> Tensors:
    """What a view of a version takes and gives."""
    return _raw_tensors(info) if view is View.RAW else _TEXT_TENSORS


def look_up(control: ControlService, name: str, version: str = "") -> tuple[View, ServedVersion]:
    """The view that a name means, and the version that would answer.

    Args:
        control: knows the models.
        name, version: as the client wrote them; an empty version leaves it to the server.
    Raises:
        ModelNotFound, VersionNotFound, ModelNotReady.
    """
    target = resolve(name, control.knows)
    return target.view, control.served(target.model, version or None)


def server_metadata() -> Json:
    """Of this server."""
    return {"name": "nerve", "version": nerve.__version__, "extensions": list(EXTENSIONS)}


def model_metadata(control: ControlService, name: str, version: str = "") -> Json:
    """Of a model; with a version, of that one alone. Raises as `look_up`."""
    view, served = look_up(control, name, version)
    has = tensors(view, served.info)
    return {
        "name": name,
        "versions": [str(served.info.version)] if version else list(served.ready),
        "platform": PLATFORM,
        "inputs": [each.metadata for each in has.inputs],
        "outputs": [each.metadata for each in has.outputs],
    }
