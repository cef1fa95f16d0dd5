"""Loading one version for `nerve validate`: in a throw-away process first, then to see what it is."""

from __future__ import annotations

import asyncio
from typing import Self

from prometheus_client import CollectorRegistry

from nerve.cli.checkup import Tried
from nerve.config.model import ModelConfig
from nerve.conversion import Converter
from nerve.engine.session import require_runtime
from nerve.errors import ModelLoadFailed
from nerve.golden import check_golden
from nerve.golden_texts import GoldenReport
from nerve.metrics.engine import EngineMetrics
from nerve.opening import open_model
from nerve.proof import ForkServer, Proof, Prover
from nerve.repository.onnx_file import batch_dependence
from nerve.types import ModelInfo, VersionFiles

LABELS_SHOWN = 12


class Trial:
    """`nerve.cli.checkup.Try` with the limits of a load; use it in `async with`."""

    def __init__(
        self,
        *,
        timeout_s: float,
        memory_bytes: int | None,
        advice: str = "; raise --timeout",
        forks: ForkServer | None = None,
    ) -> None:
        """Nothing is started. `advice` ends the sentence of a load that took over `timeout_s`; `forks`
        is where loads are forked from, if that runs already. It is closed with this."""
        self._timeout_s, self._advice = timeout_s, advice
        self._prover = Prover(
            timeout_s=timeout_s, memory_bytes=memory_bytes, advice=advice, server=forks
        )
        self._converter = Converter(timeout_s=timeout_s, memory_bytes=memory_bytes, advice=advice)
        self._metrics = EngineMetrics(CollectorRegistry())

    async def __aenter__(self) -> Self:
        """Raises RuntimeMissing."""
        require_runtime()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._prover.aclose()

    async def __call__(self, name: str, files: VersionFiles, config: ModelConfig) -> Tried:
        """Load, warm up, run golden.jsonl, and tell what was found.

        Raises:
            ModelLoadFailed: what a server would show in its index.
        """
        async with self._converter.converted(name, files, config) as ready:
            unconverted = None if ready is files else files
            proof = (
                await self._prover.prove(name, ready, config, unconverted=unconverted)
                if Prover.possible()
                else None
            )
            # It has run without taking its process down, so it may be looked at in this one.
            try:
                async with asyncio.timeout(self._timeout_s):
                    info, golden = await self._look(name, ready, config)
            except TimeoutError:
                fault = f"did not finish within {self._timeout_s:g} s{self._advice}"
                raise ModelLoadFailed(fault) from None
        lines = told(info, config, golden, proof)
        alone = config.optimization.batch_invariant
        if not alone and (warning := await asyncio.to_thread(batch_dependence, files)):
            lines += (f"warning: {warning}",)
        return Tried(lines, facts(info, golden, proof))

    async def _look(
        self, name: str, files: VersionFiles, config: ModelConfig
    ) -> tuple[ModelInfo, GoldenReport | None]:
        if Prover.possible():
            config = config.model_copy(update={"model_warmup": []})  # it was warm already
        model = await open_model(name, files, config, metrics=self._metrics, lean=True)
        try:
            golden = await check_golden(model, files.golden, config) if files.golden else None
            return model.info, golden
        finally:
            await model.aclose()


def told(
    info: ModelInfo, config: ModelConfig, golden: GoldenReport | None, proof: Proof | None
) -> tuple[str, ...]:
    """What a loaded version is, a line a fact. Pure."""
    more = "" if len(info.labels) <= LABELS_SHOWN else ", …"
    labels = ", ".join(info.labels[:LABELS_SHOWN]) + more
    longer = "are cut" if info.stride is None else f"are tagged in windows that share {info.stride}"
    runs = sum(sample.count for sample in config.model_warmup)
    lines = [
        f"{len(info.labels)} labels: {labels}",
        f"texts of up to {info.max_tokens} tokens; longer ones {longer}",
        f"warmed up on {info.device}, {runs} {'run' if runs == 1 else 'runs'}",
    ]
    if golden is not None:
        gate = config.quality_gate
        lines.append(
            str(golden) + (f" (at least {gate.min_f1:g} wanted)" if gate and gate.min_f1 else "")
        )
    if proof is not None:
        lines.append(f"{proof.seconds:.1f} s, {proof.peak_memory_bytes / 1e6:.0f} MB at most")
    return tuple(lines)


def facts(info: ModelInfo, golden: GoldenReport | None, proof: Proof | None) -> dict[str, object]:
    """The same as values; null is what was not measured. Pure."""
    return {
        "labels": list(info.labels),
        "max_tokens": info.max_tokens,
        "device": info.device,
        "f1": golden.f1 if golden else None,
        "seconds": round(proof.seconds, 3) if proof else None,
        "peak_memory_bytes": proof.peak_memory_bytes if proof else None,
    }
