"""GPUs, by NVIDIA's management library: where `nvidia-ml-py` is installed and there is one."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from nerve.metrics.bare import bare_counter

log = logging.getLogger(__name__)


class _Reading(NamedTuple):
    name: str
    text: str
    read: Callable[[Any, Any], float]
    """Of the library, and a device of its."""


READINGS: Final = (
    _Reading("utilization", "Share of the last moments in which a kernel ran, 0 to 1",
             lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100),
    _Reading("memory_total_bytes", "Memory of the GPU",
             lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).total),
    _Reading("memory_used_bytes", "Memory in use, by whatever process",
             lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used),
    _Reading("power_usage_watts", "Power drawn",
             lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000),
    _Reading("power_limit_watts", "Power that may be drawn",
             lambda nvml, gpu: nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1000),
)  # fmt: skip
TRITON: Final = {"power_usage_watts": "power_usage", "power_limit_watts": "power_limit"}
"""What a reading is called behind nv_gpu_, where not the same."""


def _energy(nvml: Any, gpu: Any) -> float:  # noqa: ANN401  the library has no types
    """Joules since the driver was loaded."""
    return float(nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1000)


class GpuMetrics(Collector):
    """nerve_gpu_* by GPU, and with `triton` also nv_gpu_*; read when asked for."""

    def __init__(self, nvml: Any, *, triton: bool) -> None:  # noqa: ANN401  as above
        """`nvml` is the library, initialized."""
        self._nvml, self._triton = nvml, triton
        count = nvml.nvmlDeviceGetCount()
        handles = [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(count)]
        self._gpus = [(str(nvml.nvmlDeviceGetUUID(handle)), handle) for handle in handles]

    def collect(self) -> Iterable[Metric]:
        """From any thread. What a GPU cannot tell is left out."""
        for reading in READINGS:
            values = self._read(reading.read)
            names = [f"nerve_gpu_{reading.name}"]
            if self._triton:
                names.append(f"nv_gpu_{TRITON.get(reading.name, reading.name)}")
            for name in names:
                family = GaugeMetricFamily(name, reading.text, labels=["gpu_uuid"])
                for gpu, value in values:
                    family.add_metric([gpu], value)
                yield family
        energy, text = self._read(_energy), "Energy drawn since the driver was loaded, in joules"
        joules = CounterMetricFamily("nerve_gpu_energy_joules", text, labels=["gpu_uuid"])
        for gpu, value in energy:
            joules.add_metric([gpu], value)
        yield joules
        if self._triton:
            told = [({"gpu_uuid": gpu}, value) for gpu, value in energy]
            yield bare_counter("nv_energy_consumption", text, told)

    def _read(self, read: Callable[[Any, Any], float]) -> list[tuple[str, float]]:
        found = []
        for uuid, handle in self._gpus:
            try:
                found.append((uuid, read(self._nvml, handle)))
            except self._nvml.NVMLError as error:
                log.debug("GPU %s does not tell: %s", uuid, error)
        return found


def register_gpus(registry: CollectorRegistry, *, triton: bool) -> None:
    """Tell of the GPUs, if there are any that can be asked; else nothing happens."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return
    try:
        nvml.nvmlInit()
        metrics = GpuMetrics(nvml, triton=triton)
    except nvml.NVMLError as error:
        log.debug("no GPU can be asked: %s", error)
        return
    registry.register(metrics)
