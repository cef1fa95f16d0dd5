"""What becomes of models."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class RepositoryMetrics:
    """What becomes of models."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.ready = Gauge(
            "nerve_model_version_ready",
            "1 for each model version that answers",
            ["model", "version"],
            registry=registry,
        )
        self.stale = Gauge(
            "nerve_model_stale",
            "1 while something in the model's folder should be served but cannot be loaded",
            ["model"],
            registry=registry,
        )
        self.loads = Counter(
            "nerve_model_loads",
            "Loads of model versions: loaded, failed, or discarded because the files had changed",
            ["model", "outcome"],
            registry=registry,
        )
        self.load_seconds = Gauge(
            "nerve_model_load_seconds",
            "Time that the last load of a version took, proof and warm-up counted",
            ["model", "version"],
            registry=registry,
        )

    def forget(self, model: str) -> None:
        """Drop the gauges of a model that is gone; counters stay."""
        self.stale.remove_by_labels({"model": model})
        self.ready.remove_by_labels({"model": model})
        self.load_seconds.remove_by_labels({"model": model})

    def forget_load(self, model: str, version: int) -> None:
        """Drop what the last load of a version took, which is loaded no longer."""
        self.load_seconds.remove_by_labels({"model": model, "version": str(version)})

    def forget_version(self, model: str, version: int) -> None:
        """Drop the gauges of a version that is gone."""
        self.ready.remove_by_labels({"model": model, "version": str(version)})
        self.forget_load(model, version)
