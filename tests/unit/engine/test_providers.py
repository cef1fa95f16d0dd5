"""What the runtime is told about a GPU, and what people are told where there is none."""

from __future__ import annotations

import ctypes.util
from pathlib import Path

import pytest

from nerve.config.model import ModelConfig
from nerve.config.running import Gpu, GpuProvider, Optimization, Precision
from nerve.engine.providers import CPU, CUDA, PLAIN, TENSORRT, OnGpu, providers, refusal, unusable
from nerve.errors import ModelLoadFailed

INPUTS = ["input_ids", "attention_mask"]
BUCKETS = [16, 32, 128]
HEURISTIC = {"cudnn_conv_algo_search": "HEURISTIC"}


def use(precision: Precision | None = None, **gpu: object) -> OnGpu:
    optimization = Optimization(gpu=Gpu.model_validate(gpu), precision=precision)
    return OnGpu.of(ModelConfig(max_batch_size=8, optimization=optimization))


def test_the_cpu_gets_the_cpu() -> None:
    assert providers(None, use(provider=GpuProvider.TENSORRT, shape_buckets=BUCKETS), INPUTS) == [
        (CPU, {})
    ]


def test_a_gpu_by_default() -> None:
    assert providers(3, PLAIN, INPUTS) == [(CUDA, {"device_id": "3", **HEURISTIC}), (CPU, {})]


def test_who_asks_for_fp32_gets_no_tf32() -> None:
    (_, options), _ = providers(0, use(Precision.FP32), INPUTS)
    assert options["use_tf32"] == "0"


def test_cuda_graphs() -> None:
    (_, options), _ = providers(0, use(cuda_graphs=True, shape_buckets=BUCKETS), INPUTS)
    assert options["enable_cuda_graph"] == "1"


@pytest.mark.parametrize(
    ("precision", "more"),
    [
        (None, {}),
        (Precision.FP16, {"trt_fp16_enable": "1"}),
        (Precision.BF16, {"trt_bf16_enable": "1"}),
    ],
)
def test_tensorrt_before_cuda(precision: Precision | None, more: dict[str, str]) -> None:
    """One engine for every shape that can come, at its best in the middle of the lengths."""
    wanted = use(precision, provider=GpuProvider.TENSORRT, shape_buckets=BUCKETS)
    assert providers(1, wanted, INPUTS) == [
        (
            TENSORRT,
            {
                "device_id": "1",
                "trt_profile_min_shapes": "input_ids:1x1,attention_mask:1x1",
                "trt_profile_opt_shapes": "input_ids:8x32,attention_mask:8x32",
                "trt_profile_max_shapes": "input_ids:8x128,attention_mask:8x128",
                **more,
            },
        ),
        (CUDA, {"device_id": "1", **HEURISTIC}),
        (CPU, {}),
    ]


def test_cuda_graphs_of_tensorrt_are_tensorrt_s() -> None:
    wanted = use(provider=GpuProvider.TENSORRT, cuda_graphs=True, shape_buckets=BUCKETS)
    (_, tensorrt), (_, cuda), _ = providers(0, wanted, INPUTS)
    assert tensorrt["trt_cuda_graph_enable"] == "1"
    assert "enable_cuda_graph" not in cuda


@pytest.mark.parametrize(("provider", "name"), [(CUDA, "CUDA"), (TENSORRT, "TensorRT")])
def test_a_provider_that_was_not_built_in(tmp_path: Path, provider: str, name: str) -> None:
    told = unusable(provider, 2, available=[CPU], folder=tmp_path)
    assert told.startswith(
        f"{name} cannot be used on GPU 2: this ONNX Runtime was built without {name}; "
        f"it has {CPU}. Install onnxruntime-gpu"
    )


def test_a_provider_whose_library_lacks_another_one(tmp_path: Path) -> None:
    """The linker names it."""
    told = unusable(TENSORRT, 0, available=[TENSORRT, CPU], folder=tmp_path)
    assert "libonnxruntime_providers_tensorrt.so: cannot open shared object file" in told
    assert "optimization.gpu.provider: cuda" in told


@pytest.mark.skipif(ctypes.util.find_library("c") is None, reason="needs a C library to link to")
def test_a_provider_that_lacks_nothing(tmp_path: Path) -> None:
    library = ctypes.util.find_library("m") or ""
    (tmp_path / "libonnxruntime_providers_cuda.so").symlink_to(_path_of(library))
    told = unusable(CUDA, 0, available=[CUDA], folder=tmp_path)
    assert told.startswith("CUDA cannot be used on GPU 0: ONNX Runtime fell back to another (")
    error = ModelLoadFailed("model.onnx cannot be loaded: no such operator")
    assert refusal(CUDA, 0, error, folder=tmp_path) is error


def _path_of(library: str) -> str:
    ctypes.CDLL(library)
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    return next(line.split()[-1] for line in maps.splitlines() if library in line)


@pytest.mark.parametrize(
    "words",
    [
        "This session cannot use the graph capture feature as requested by the user as the model "
        "has control flow nodes which can't be supported by CUDAExecutionProvider",
        "This session cannot use the graph capture feature as requested by the user  as all "
        "compute graph nodes have not been partitioned to the CUDAExecutionProvider",
    ],
)
def test_a_graph_that_cannot_be_captured(tmp_path: Path, words: str) -> None:
    """In the runtime's words of 1.31, and what to do."""
    told = str(refusal(CUDA, 0, ModelLoadFailed(words), folder=tmp_path))
    assert told.startswith(f"{words}; set optimization.gpu.cuda_graphs: false")


def test_a_failure_of_cuda_is_told_without_its_source_code(tmp_path: Path) -> None:
    """As the runtime words it where the driver is too old."""
    words = (
        'model.onnx cannot be loaded: Failed to parse provider option "device_id": CUDA failure '
        "35: CUDA driver version is insufficient for CUDA runtime version ; GPU=-1 ; hostname=a ; "
        "file=…/cuda_execution_provider_info.cc ; line=70 ; expr=cudaGetDeviceCount(&num_devices);"
    )
    told = str(refusal(CUDA, 0, ModelLoadFailed(words), folder=tmp_path))
    assert told.startswith(
        "CUDA cannot be used on GPU 0: CUDA driver version is insufficient for CUDA runtime "
        "version (it needs NVIDIA's driver"
    )
