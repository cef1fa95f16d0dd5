"""On a GPU: the server's engine beside the best that the runtime can do with the same rows.

    python benchmarks/gpu.py [--model FOLDER] [--seconds 3] [--try-on-cpu]

For the model as it is and in fp16, and for batches of 1 to 256 rows: rows and tokens a second of a
bare CUDA session (rows sorted by length beforehand, `session.run` in a loop), and of the engine
(rows in random order from many callers) without I/O binding, with it, with lengths rounded up, and
with CUDA graphs. Needs a GPU, onnxruntime-gpu and the extra `test`. About 6 minutes. Writes
benchmarks/results/gpu-<device>.json. `--try-on-cpu` goes through the same code on the CPU with two
batch sizes, to see that it works, and writes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import onnxruntime
from oracle import Session, feed
from prometheus_client import CollectorRegistry
from random_bert import bert_base
from rich.console import Console
from rich.table import Table
from sample import load_texts

from nerve.config.model import ModelConfig
from nerve.config.running import Gpu, InstanceGroup, Kind, Optimization, Precision
from nerve.engine.precision.convert import convert
from nerve.engine.providers import OnGpu, providers
from nerve.engine.session import gpu_devices
from nerve.errors import NerveError
from nerve.metrics.engine import EngineMetrics
from nerve.model import NerModel
from nerve.opening import open_model
from nerve.types import CutOptions, Row, VersionFiles

RESULTS: Final = Path(__file__).parent / "results"
SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
BUCKETS: Final = [16, 32, 64, 128, 256, 512]
WAYS: Final = {
    "plain runs": Gpu(io_binding=False),
    "I/O binding": Gpu(),
    "and buckets": Gpu(shape_buckets=BUCKETS),
    "and CUDA graphs": Gpu(shape_buckets=BUCKETS, cuda_graphs=True),
}
CALLERS: Final = 4
"""For each row of a full batch, so that the next one is waiting when one is done."""
MAX_NUM_TOKENS: Final = 1 << 17
SEED: Final = 5


@dataclass(frozen=True, slots=True)
class Measured:
    """`padding` is the share of the tokens run that were padding; `refused` says why nothing ran."""

    precision: str
    way: str
    batch_size: int
    rows_per_s: float = 0.0
    tokens_per_s: float = 0.0
    padding: float = 0.0
    refused: str = ""


def main() -> None:
    """Measure, or say why not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", type=Path, help="an export folder; by default a random bert-base"
    )
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    parser.add_argument("--try-on-cpu", action="store_true", help="only see that it works")
    given = parser.parse_args()
    gpus = gpu_devices()
    if not gpus and not given.try_on_cpu:
        built = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
        reason = "finds none" if built else "is built without CUDA: install onnxruntime-gpu"
        sys.exit(f"this benchmark needs an NVIDIA GPU, and ONNX Runtime {reason}; nothing measured")
    gpu = None if given.try_on_cpu else gpus[0]
    bench = Bench(given.model or bert_base(), gpu, given.seconds)
    sizes = SIZES[:2] if gpu is None else SIZES
    found = asyncio.run(bench.run(sizes))
    Console(width=120).print(table(found, sizes))
    if gpu is None:
        print("on the CPU, to see that it works: no measurement, nothing written")
    else:
        print("written to", write(found, gpu, str(given.model or "bert-base")))


class Bench:
    """A model, its texts as rows, and a GPU (None: the CPU)."""

    def __init__(self, folder: Path, gpu: int | None, seconds: float) -> None:
        self._folder, self._gpu, self._seconds = folder, gpu, seconds
        self._rows: list[Row] = []

    async def run(self, sizes: Sequence[int]) -> list[Measured]:
        """Everything, one after the other."""
        found = []
        with tempfile.TemporaryDirectory() as scratch:
            for precision in (None, Precision.FP16):
                graph = self._graph(precision, Path(scratch))
                name = precision or "as it is"
                for size in sizes:
                    # First the engine, which makes the rows that the bare session runs, too.
                    for way, settings in WAYS.items():
                        config = self._config(settings, precision, size)
                        found.append(await self._engine(graph, config, name, way))
                    if not self._rows:
                        sys.exit(f"the model cannot be loaded: {found[0].refused}")
                    found.append(self._bare(graph, precision, name, size))
        return found

    def _graph(self, precision: Precision | None, scratch: Path) -> Path:
        graph = self._folder / "model.onnx"
        content = convert(graph.read_bytes(), {}, precision) if precision else None
        if content is None:
            return graph
        converted = scratch / "model.onnx"
        converted.write_bytes(content)
        return converted

    def _config(self, gpu: Gpu, precision: Precision | None, size: int) -> ModelConfig:
        return ModelConfig(
            max_batch_size=size,
            max_num_tokens=MAX_NUM_TOKENS,
            instance_group=[
                InstanceGroup(kind=Kind.CPU if self._gpu is None else Kind.GPU, count=1)
            ],
            optimization=Optimization(gpu=gpu, precision=precision),
        )

    async def _engine(self, graph: Path, config: ModelConfig, name: str, way: str) -> Measured:
        side = {each.name: each for each in self._folder.iterdir() if each.suffix == ".json"}
        metrics = EngineMetrics(CollectorRegistry())
        try:
            model = await open_model("gpu", VersionFiles(1, graph, side), config, metrics=metrics)
        except NerveError as error:
            return Measured(name, way, config.max_batch_size, refused=str(error))
        try:
            if not self._rows:
                self._rows = model.rows(model.encode(load_texts(), CutOptions()))
            return await self._loaded(model, name, way)
        finally:
            await model.aclose()

    async def _loaded(self, model: NerModel, name: str, way: str) -> Measured:
        engine = model._engine  # the seam below text: what is compared is runs, not tokenizing
        rows, size = itertools.cycle(self._rows), model.info.max_batch_size
        until = time.perf_counter() + self._seconds * 1.5

        async def call() -> None:
            while time.perf_counter() < until:
                await engine.infer([next(rows)], deadline=None)

        callers = [asyncio.create_task(call()) for _ in range(CALLERS * size)]
        await asyncio.sleep(self._seconds / 2)  # every caller waits, every shape has been seen
        before, began = engine.statistics(), time.perf_counter()
        await asyncio.sleep(self._seconds)
        after, took = engine.statistics(), time.perf_counter() - began
        await asyncio.gather(*callers)
        tokens, padded = after.tokens - before.tokens, after.padded_tokens - before.padded_tokens
        count = after.rows - before.rows
        waste = (padded - tokens) / max(1, padded)
        return Measured(name, way, size, count / took, tokens / took, waste)

    def _bare(self, graph: Path, precision: Precision | None, name: str, size: int) -> Measured:
        session = open_bare(graph, self._gpu, precision)
        by_length = sorted((row.ids.tolist() for row in self._rows), key=len)
        batches = [by_length[at : at + size] for at in range(0, len(by_length), size)]
        feeds = [feed(session, batch) for batch in batches]
        order = list(range(len(batches)))
        random.Random(SEED).shuffle(order)
        for at in order[:5]:
            session.run(["logits"], feeds[at])
        rows = tokens = padded = 0
        began = time.perf_counter()
        for at in itertools.cycle(order):
            session.run(["logits"], feeds[at])
            rows += len(batches[at])
            tokens += sum(map(len, batches[at]))
            padded += feeds[at]["input_ids"].size
            if (took := time.perf_counter() - began) > self._seconds:
                break
        waste = (padded - tokens) / padded
        return Measured(name, "bare session", size, rows / took, tokens / took, waste)


def open_bare(graph: Path, gpu: int | None, precision: Precision | None) -> Session:
    """A session with the server's provider options and nothing else of the server."""
    use = OnGpu.of(ModelConfig(optimization=Optimization(precision=precision)))
    wanted = [(name, dict(options)) for name, options in providers(gpu, use, ())]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(graph), options, providers=wanted, enable_fallback=0)


def table(found: Sequence[Measured], sizes: Sequence[int]) -> Table:
    """Tokens a second by way and batch size, and how they compare with the bare session."""
    shown = Table("precision", "way", *map(str, sizes), title="tokens/s (of the bare session)")
    by = {(each.precision, each.way, each.batch_size): each for each in found}
    for precision, way in dict.fromkeys((each.precision, each.way) for each in found):
        cells = []
        for size in sizes:
            own, bare = by[precision, way, size], by[precision, "bare session", size]
            share = f" ({own.tokens_per_s / bare.tokens_per_s:.2f})" if own is not bare else ""
            cells.append(own.refused or f"{own.tokens_per_s:,.0f}{share}")
        shown.add_row(precision, way, *cells)
    return shown


def write(found: Sequence[Measured], gpu: int, model: str) -> Path:
    """The figures with what they were measured on."""
    query = ["nvidia-smi", f"--id={gpu}", "--query-gpu=name,driver_version,memory.total"]
    ran = subprocess.run(
        [*query, "--format=csv,noheader"], capture_output=True, text=True, check=True
    )
    name, driver, memory = ran.stdout.strip().split(", ")
    known = {
        "gpu": name,
        "driver": driver,
        "memory": memory,
        "cuda": onnxruntime.cuda_version,
        "onnxruntime": onnxruntime.__version__,
        "model": model,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"gpu-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}.json"
    content = {"machine": known, "measured": [asdict(each) for each in found]}
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return file


if __name__ == "__main__":
    main()
