"""How a model runs: the sections of `config.yaml` on batching, instances and the runtime."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """Frozen, and an unknown key is a problem."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Scheduler(StrEnum):
    """How rows that wait are put together."""

    COST = "cost"
    FIFO = "fifo"
    NONE = "none"


class DynamicBatching(Section):
    """How requests of different callers are put into one run."""

    scheduler: Scheduler = Scheduler.COST
    """cost joins the oldest row with those that the measured cost model says suit it; fifo takes
    rows in their order and pads them to the longest; none runs each row alone."""
    max_queue_delay_microseconds: Annotated[int, Field(strict=True, ge=0, le=10_000_000)] = 0
    """Longest time that a free instance waits for company; 0 sends whatever is waiting."""
    max_queue_size: Annotated[int, Field(strict=True, ge=1)] = 2048
    """Texts that may wait; a request that finds so many waiting is refused at once."""
    max_queue_tokens: Annotated[int, Field(strict=True, ge=1)] = 262_144
    """The same in tokens, of all that wait together."""
    default_timeout_microseconds: Annotated[int, Field(strict=True, ge=1)] | None = None
    """Longest time that a request may take; by default the server's request_timeout_s. The caller
    can ask for less."""
    default_priority: Annotated[int, Field(strict=True, ge=1, le=10)] = 5
    """Priority of requests that name none, from 1 (first) to 10."""
    priority_step_microseconds: Annotated[int, Field(strict=True, ge=0, le=60_000_000)] = 1_000_000
    """How much longer than a row of the next higher priority a row must have waited to go before
    it; 0 ignores priorities."""


class Kind(StrEnum):
    """Where an instance runs; the names are Triton's."""

    CPU = "KIND_CPU"
    GPU = "KIND_GPU"
    AUTO = "KIND_AUTO"


class InstanceGroup(Section):
    """A group of instances, each of which runs one batch at a time."""

    count: Annotated[int, Field(strict=True, ge=1, le=256)] | None = None
    """Instances, on a GPU per device; by default one a GPU, or as many as there are cores."""
    kind: Kind = Kind.AUTO
    """KIND_AUTO takes GPUs where there are some; KIND_GPU without one does not load."""
    gpus: Annotated[list[Annotated[int, Field(strict=True, ge=0)]], Field(min_length=1)] | None = (
        None
    )
    """Device numbers for KIND_GPU and KIND_AUTO; by default every device."""

    @model_validator(mode="after")
    def _gpus_on_gpu(self) -> Self:
        if self.gpus is not None and self.kind is Kind.CPU:
            raise ValueError("gpus is given, but kind is KIND_CPU")
        if self.gpus is not None and len(set(self.gpus)) != len(self.gpus):
            raise ValueError("gpus names a device twice; use count for several instances on it")
        return self


class GraphLevel(StrEnum):
    """How far ONNX Runtime rewrites the graph when it loads it."""

    DISABLE = "disable"
    BASIC = "basic"
    EXTENDED = "extended"
    ALL = "all"


class Precision(StrEnum):
    """Number format that a graph is computed in."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


class GpuProvider(StrEnum):
    """What runs a graph on a GPU."""

    CUDA = "cuda"
    TENSORRT = "tensorrt"


def _ascending(lengths: list[int]) -> list[int]:
    if lengths != sorted(set(lengths)):
        raise ValueError("lengths must ascend, each of them once")
    return lengths


_Length = Annotated[int, Field(strict=True, ge=1)]


class Gpu(Section):
    """How runs on a GPU are done; without effect on the CPU."""

    provider: GpuProvider = GpuProvider.CUDA
    """tensorrt builds an engine of its own at each load, which takes minutes (see
    load_timeout_s), and needs TensorRT installed and shape_buckets."""
    io_binding: bool = True
    """Copy from and to buffers that stay, in pinned memory where there is some."""
    cuda_graphs: bool = False
    """Capture the run of each shape once and replay it, which spares launching its kernels one by
    one; needs shape_buckets, rounds the number of rows up to a power of two, and refuses graphs
    with control flow."""
    shape_buckets: (
        Annotated[list[_Length], Field(min_length=1), AfterValidator(_ascending)] | None
    ) = None
    """Lengths in tokens, ascending, that batches are padded up to, so that shapes recur; the
    longest row of the model is always one. By default a batch is as long as its longest row."""

    @model_validator(mode="after")
    def _buckets_where_needed(self) -> Self:
        for name, wanted in (
            ("cuda_graphs: true", self.cuda_graphs),
            ("provider: tensorrt", self.provider is GpuProvider.TENSORRT),
        ):
            if wanted and self.shape_buckets is None:
                raise ValueError(
                    f"{name} needs shape_buckets, for example [16, 32, 64, 128, 256, 512]"
                )
        if self.cuda_graphs and not self.io_binding:
            raise ValueError("cuda_graphs: true needs io_binding: true")
        return self


class Optimization(Section):
    """How the graph is prepared and run."""

    graph_level: GraphLevel = GraphLevel.ALL
    """Graph rewriting; lower it when a model is miscompiled."""
    intra_op_threads: Annotated[int, Field(strict=True, ge=1, le=1024)] = 1
    """Threads of one run on the CPU. 1 runs in the instance's own thread; more instances are
    usually faster than more threads."""
    solo_threads: Annotated[int, Field(strict=True, ge=1, le=1024)] | None = None
    """Threads of a run on the CPU while nothing else is to do, which makes the answer to a lone
    request quicker. More than intra_op_threads takes a second session and so holds the weights
    twice; by default that is done, with as many threads as there are cores (8 at most), for graphs
    of up to 256 MiB."""
    precision: Precision | None = None
    """Convert the graph when it is loaded; by default it runs as it is. int8 scales each token by
    itself, so that an answer does not depend on what else is in the batch."""
    max_f1_loss: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.003
    """A conversion that loses more F1 than this on golden.jsonl, against the graph as it is, is
    refused. Without that file a conversion is not checked."""
    batch_invariant: bool = False
    """Run every row alone, for graphs whose answers depend on what else is in the batch
    (onnxruntime's quantize_dynamic makes such ones)."""
    gpu: Gpu = Gpu()
    """How runs on a GPU are done."""
