"""What a session is told about its device: ONNX Runtime's providers with their options.

Pure, but for the look at what a provider's library lacks. Options are those of onnxruntime-gpu.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from nerve.config.model import ModelConfig
from nerve.config.running import Gpu, GpuProvider, Precision
from nerve.errors import ModelLoadFailed

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
TENSORRT: Final = "TensorrtExecutionProvider"
Provider = tuple[str, Mapping[str, str]]

_LIBRARIES: Final = {
    CUDA: "libonnxruntime_providers_cuda.so",
    TENSORRT: "libonnxruntime_providers_tensorrt.so",
}
_NAMES: Final = {CUDA: "CUDA", TENSORRT: "TensorRT"}
_NEEDS: Final = {
    CUDA: (
        "it needs NVIDIA's driver, and CUDA and cuDNN of its build, for example by "
        "`pip install 'onnxruntime-gpu[cuda,cudnn]'`"
    ),
    TENSORRT: (
        "it needs TensorRT of its build on LD_LIBRARY_PATH; or set optimization.gpu.provider: cuda"
    ),
}
_CUDA_FAILURE: Final = re.compile(r"CUDA failure \d+: ([^;]+?) ?;")


@dataclass(frozen=True, slots=True)
class OnGpu:
    """How a model uses the GPUs that it is placed on: what its config says of them."""

    settings: Gpu
    precision: Precision | None
    max_batch_size: int

    @classmethod
    def of(cls, config: ModelConfig) -> Self:
        """What `config` says."""
        optimization = config.optimization
        return cls(optimization.gpu, optimization.precision, config.max_batch_size)

    @property
    def provider(self) -> str:
        """The runtime's name of the provider that has to run the graph."""
        return TENSORRT if self.settings.provider is GpuProvider.TENSORRT else CUDA


PLAIN: Final = OnGpu.of(ModelConfig())


def providers(gpu: int | None, use: OnGpu, inputs: Iterable[str]) -> list[Provider]:
    """Providers in the order in which they are asked to take a node.

    Args:
        gpu: device number, or None for the CPU.
        use: what the model's config says.
        inputs: names of the graph's inputs, each (batch, tokens).
    """
    if gpu is None:
        return [(CPU, {})]
    wanted: list[Provider] = [(CUDA, _cuda(gpu, use)), (CPU, {})]
    if use.provider == TENSORRT:  # which leaves to the others what it does not know
        wanted.insert(0, (TENSORRT, _tensorrt(gpu, use, inputs)))
    return wanted


def _cuda(gpu: int, use: OnGpu) -> dict[str, str]:
    options = {
        "device_id": str(gpu),
        # The default times every algorithm anew for each shape, and shapes differ all the time.
        "cudnn_conv_algo_search": "HEURISTIC",
    }
    if use.precision is Precision.FP32:  # who asks for it does not mean TF32, the default
        options["use_tf32"] = "0"
    if use.settings.cuda_graphs and use.provider == CUDA:
        options["enable_cuda_graph"] = "1"
    return options


def _tensorrt(gpu: int, use: OnGpu, inputs: Iterable[str]) -> dict[str, str]:
    """One engine for every shape up to the largest; without a range each new shape builds one.

    No engine is kept on disk: the runtime finds one by the graph's structure, not by its weights,
    so a new version could be answered by the old one's.
    """
    lengths = use.settings.shape_buckets or [1]
    names = list(inputs)
    options = {
        "device_id": str(gpu),
        "trt_profile_min_shapes": _profile(names, 1, 1),
        "trt_profile_opt_shapes": _profile(names, use.max_batch_size, lengths[len(lengths) // 2]),
        "trt_profile_max_shapes": _profile(names, use.max_batch_size, lengths[-1]),
    }
    if use.precision is Precision.FP16:
        options["trt_fp16_enable"] = "1"
    if use.precision is Precision.BF16:
        options["trt_bf16_enable"] = "1"
    if use.settings.cuda_graphs:
        options["trt_cuda_graph_enable"] = "1"
    return options


def _profile(names: Iterable[str], rows: int, tokens: int) -> str:
    return ",".join(f"{name}:{rows}x{tokens}" for name in names)


def unusable(provider: str, gpu: int, *, available: Sequence[str], folder: Path) -> str:
    """Why a GPU's provider did not get its session, and what would help.

    Args:
        provider: CUDA or TENSORRT.
        gpu: device number.
        available: providers that the runtime was built with.
        folder: of the runtime's libraries.
    """
    name = _NAMES[provider]
    if provider not in available:
        reason = (
            f"this ONNX Runtime was built without {name}; it has {', '.join(available)}. Install "
            "onnxruntime-gpu in place of onnxruntime, or set KIND_CPU"
        )
    else:
        missing = _missing(folder / _LIBRARIES[provider]) or "ONNX Runtime fell back to another"
        reason = f"{missing} ({_NEEDS[provider]})"
    return _cannot(provider, gpu, reason)


def refusal(provider: str, gpu: int, error: ModelLoadFailed, *, folder: Path) -> ModelLoadFailed:
    """The same in plain words, where a GPU's provider is why a session could not be loaded."""
    told = str(error)
    if "graph capture" in told or "control flow" in told:
        return ModelLoadFailed(
            f"{told}; set optimization.gpu.cuda_graphs: false, or export the model without "
            "control flow and with every node for the GPU"
        )
    failure = _CUDA_FAILURE.search(told)
    missing = failure[1] if failure else _missing(folder / _LIBRARIES[provider])
    if not missing:
        return error
    return ModelLoadFailed(_cannot(provider, gpu, f"{missing} ({_NEEDS[provider]})"))


def _cannot(provider: str, gpu: int, reason: str) -> str:
    return f"{_NAMES[provider]} cannot be used on GPU {gpu}: {reason}"


def _missing(library: Path) -> str:
    """The linker's words on what a provider's library lacks; empty if it lacks nothing.

    The runtime itself only writes them to stderr.
    """
    try:
        ctypes.CDLL(str(library), mode=os.RTLD_LAZY)
    except OSError as error:
        # Its own symbols come from another library of the runtime: that is not what is wrong.
        return "" if "undefined symbol" in str(error) else str(error)
    return ""
