"""Encoderfile's flags for ONNX Runtime and TLS, and what they mean in a program of ours."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Self

import typer

from nerve.config.running import GraphLevel
from nerve.errors import ConfigInvalid, Problem
from nerve.importing.config_text import config_text
from nerve.importing.plan import VERSION_FOLDER


class GraphOptimization(StrEnum):
    """Encoderfile's names for `optimization.graph_level`."""

    DISABLE = "disable"
    BASIC = "1"
    EXTENDED = "2"
    ALL = "3"


class ExecutionProvider(StrEnum):
    """Where Encoderfile can run a model."""

    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"
    COREML = "coreml"


class ComputeUnits(StrEnum):
    """Of CoreML."""

    ALL = "all"
    CPU_AND_NEURAL_ENGINE = "cpu-and-neural-engine"
    CPU_AND_GPU = "cpu-and-gpu"
    CPU_ONLY = "cpu-only"


_LEVELS: Final = {
    GraphOptimization.DISABLE: GraphLevel.DISABLE,
    GraphOptimization.BASIC: GraphLevel.BASIC,
    GraphOptimization.EXTENDED: GraphLevel.EXTENDED,
    GraphOptimization.ALL: GraphLevel.ALL,
}

Level = Annotated[
    GraphOptimization | None, typer.Option(help="How far the graph is rewritten. Default: 3")
]
Provider = Annotated[ExecutionProvider, typer.Option(help="Built programs run on the CPU.")]
CpuFallback = Annotated[
    bool, typer.Option("--disable-cpu-fallback", help="Says nothing where there is only the CPU.")
]
Arena = Annotated[
    bool, typer.Option("--with-arena-allocator", help="Memory is always kept for the next run.")
]
DeviceId = Annotated[int | None, typer.Option(hidden=True)]
ComputeUnit = Annotated[ComputeUnits | None, typer.Option(hidden=True)]
CertFile = Annotated[
    Path | None, typer.Option(help="Certificate with its chain, PEM, for HTTP and gRPC: TLS.")
]
KeyFile = Annotated[Path | None, typer.Option(help="Its private key, PEM.")]


@dataclass(frozen=True, slots=True)
class OnnxOptions:
    """What the flags change of the model's config."""

    level: GraphLevel | None = None

    @classmethod
    def of(
        cls,
        level: GraphOptimization | None,
        provider: ExecutionProvider,
        *,
        device_id: int | None,
        units: ComputeUnits | None,
    ) -> Self:
        """Raises ConfigInvalid: a device that this program cannot use."""
        if provider is not ExecutionProvider.CPU:
            fault = (
                f"{provider.value} is not there: built programs run on the CPU; for a GPU, write a "
                "model folder (nerve build --format folder) and serve that"
            )
            raise _refused("execution-provider", fault)
        if device_id is not None:
            raise _refused("device-id", "is for a GPU, and built programs run on the CPU")
        if units is not None:
            raise _refused("compute-units", "is for CoreML, and built programs run on the CPU")
        return cls(None if level is None else _LEVELS[level])

    def write(self, folder: Path) -> None:
        """Lay them over the model's config, in its unpacked folder."""
        if self.level is not None:
            content = config_text({"optimization": {"graph_level": self.level.value}}, ())
            (folder / VERSION_FOLDER / "config.yaml").write_text(content, encoding="utf-8")


def tls(cert_file: Path | None, key_file: Path | None) -> dict[str, object]:
    """The settings of the daemon for TLS, those that were given."""
    files = {"cert_file": cert_file, "key_file": key_file}
    return {name: path for name, path in files.items() if path is not None}


def _refused(flag: str, fault: str) -> ConfigInvalid:
    return ConfigInvalid("flags", [Problem(f"--{flag}", fault)])
