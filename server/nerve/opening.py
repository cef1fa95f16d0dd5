"""A version's files become a loaded model: its parts are loaded, tried and seen to belong together."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import numpy as np

from nerve.config.model import ModelConfig
from nerve.config.transform import TransformOutput
from nerve.engine.engine import LocalEngine
from nerve.engine.padding import Shapes
from nerve.errors import InferenceFailed, ModelLoadFailed
from nerve.metrics.engine import EngineMetrics
from nerve.model import NerModel, check_logits
from nerve.pipeline.tokenizer import (
    TextTokenizer,
    load_tokenizer,
    positions_after_padding,
    read_json_object,
)
from nerve.threads import in_own_thread
from nerve.transforming.host import TransformHost
from nerve.types import (
    CutOptions,
    Limits,
    ModelInfo,
    Row,
    VersionFiles,
)

log = logging.getLogger(__name__)

_OUT_OF_BOUNDS: Final = "out of data bounds"
"""How the runtime says on the CPU that an id has no embedding."""


async def open_model(
    name: str,
    files: VersionFiles,
    config: ModelConfig,
    *,
    metrics: EngineMetrics,
    optimised: Path | None = None,
    lean: bool = False,
) -> NerModel:
    """Load a version, warm it up, and see that its parts belong together.

    When this is cancelled, the load is broken off and what there is of it is freed.

    Args:
        name, files, config: of the version.
        metrics: what its batches are counted in.
        optimised: its graph from `nerve.engine.graph_cache`.
        lean: only see whether it works: do without what would make it quick.
    Raises:
        ModelLoadFailed, RuntimeMissing: with the reason for the index.
    """
    if files.problem or files.onnx is None:
        raise ModelLoadFailed(files.problem)
    if "tokenizer.json" not in files.side:
        raise ModelLoadFailed(
            "tokenizer.json is missing: put the export's fast tokenizer beside the model "
            "(AutoTokenizer.from_pretrained(…).save_pretrained(folder) writes it)"
        )
    json_files = {
        key: await asyncio.to_thread(read_json_object, files.side.get(f"{key}.json"))
        for key in ("config", "tokenizer_config", "special_tokens_map")
    }
    tokenizer, engine = await _load_parts(name, files, config, json_files, metrics, optimised, lean)
    async with AsyncExitStack() as opened:  # what there is is freed if the load ends here
        opened.push_async_callback(engine.aclose)
        engine.round_on_gpus(Shapes.of(config, longest=tokenizer.max_tokens))
        _check_positions(engine, json_files["config"])
        labels = _labels(name, config, json_files["config"], engine.labels)
        timeout_us = config.dynamic_batching.default_timeout_microseconds
        info = ModelInfo(
            name=name,
            version=files.number,
            labels=labels,
            max_tokens=tokenizer.max_tokens,
            max_batch_size=config.max_batch_size,
            max_num_tokens=config.max_num_tokens,
            max_queue_size=config.dynamic_batching.max_queue_size,
            stride=tokenizer.stride,
            device=engine.device,
            aggregation_strategy=config.aggregation_strategy,
            offset_unit=config.offset_unit,
            default_timeout_s=None if timeout_us is None else timeout_us / 1e6,
            type_ids="token_type_ids" in engine.inputs,
            instances=engine.instances,
            vocab_size=_vocab_size(tokenizer.highest_id, json_files["config"]),
            type_vocab_size=_type_vocab_size(json_files["config"]),
        )
        transform = await _open_transform(info, config, metrics)
        if transform is not None:
            opened.push_async_callback(transform.aclose)
        model = NerModel(
            info,
            tokenizer=tokenizer,
            engine=engine,
            transform=transform,
            probabilities=_gives_probabilities(transform, config),
        )
        _check_vocabulary(tokenizer.highest_id, json_files["config"])
        await _warm_up(model, engine, config, tokenizer.highest_id)
        await _try_highest_id(engine, tokenizer.highest_id)
        if not lean:
            await engine.measure(tokenizer.max_tokens)
        engine.start()
        opened.pop_all()
    return model


async def _open_transform(
    info: ModelInfo, config: ModelConfig, metrics: EngineMetrics
) -> TransformHost | None:
    """The model's transform, tried, in its process; None if it has none. Raises ModelLoadFailed."""
    if config.transform is None:
        return None
    limits = config.transform_limits
    return await TransformHost.open(
        info.name,
        config.transform.text,
        libs=config.lua_libs,
        limits=Limits(
            limits.max_instructions, limits.timeout_microseconds, limits.max_memory_bytes
        ),
        labels=len(info.labels),
        validate=config.validate_transform,
        max_waiting=info.max_queue_size,
        watcher=metrics.transforms.of(info.name),
    )


def _gives_probabilities(transform: TransformHost | None, config: ModelConfig) -> bool:
    if config.transform_output is not None:
        return config.transform_output is TransformOutput.PROBABILITIES
    return transform is not None and transform.probabilities


async def _load_parts(
    name: str,
    files: VersionFiles,
    config: ModelConfig,
    json_files: Mapping[str, Mapping[str, object]],
    metrics: EngineMetrics,
    optimised: Path | None,
    lean: bool,
) -> tuple[TextTokenizer, LocalEngine]:
    """Tokenizer and engine, loaded side by side."""
    assert files.onnx is not None  # the caller has checked
    pad_id = json_files["config"].get("pad_token_id", 0)
    opening = asyncio.create_task(
        LocalEngine.open(
            name,
            files.onnx,
            config,
            pad_id=pad_id if isinstance(pad_id, int) else 0,
            metrics=metrics.of(name, files.number),
            external=files.external,
            optimised=optimised,
            lean=lean,
        )
    )
    read_tokenizer = functools.partial(
        load_tokenizer,
        files.side["tokenizer.json"],
        model=name,
        config=config.tokenizer,
        max_row_tokens=config.max_num_tokens,
        tokenizer_config=json_files["tokenizer_config"],
        special_tokens=json_files["special_tokens_map"],
        model_config=json_files["config"],
    )
    try:
        return await in_own_thread(read_tokenizer, name=f"nerve-load-{name}"), await opening
    except BaseException:
        opening.cancel()  # breaks off its load; no effect if it is done
        engine = (await asyncio.gather(opening, return_exceptions=True))[0]
        if isinstance(engine, LocalEngine):
            await engine.aclose()
        raise


def _check_positions(engine: LocalEngine, model_config: Mapping[str, object]) -> None:
    if "position_ids" in engine.inputs and positions_after_padding(model_config):
        raise ModelLoadFailed(
            "the graph wants position_ids, which this server counts from 0, but a "
            f"{model_config.get('model_type')} counts them from its pad id on; export it without "
            "that input"
        )


def _labels(
    name: str, config: ModelConfig, model_config: Mapping[str, object], width: int | None
) -> tuple[str, ...]:
    """Label names in output order: config.yaml, else id2label, else LABEL_0 … as transformers."""
    if config.labels is not None:
        labels, source = tuple(config.labels), "config.yaml names"
    else:
        table = model_config.get("id2label")
        if not isinstance(table, dict) or not table:
            if width is None:
                raise ModelLoadFailed(
                    "no labels: config.json has no id2label, and the graph does not state how "
                    "many there are; list them as `labels` in config.yaml"
                )
            log.warning("model %s: no id2label in config.json; labels are LABEL_0 and on", name)
            return tuple(f"LABEL_{number}" for number in range(width))
        try:
            by_id = {int(key): str(label) for key, label in table.items()}
            labels = tuple(by_id[number] for number in range(len(by_id)))
        except (KeyError, ValueError):
            raise ModelLoadFailed(
                f"id2label in config.json must number its labels 0 to {len(table) - 1}"
            ) from None
        source = "id2label in config.json has"
    if width is not None and width != len(labels):
        raise ModelLoadFailed(f"{source} {len(labels)} labels, but the graph puts out {width}")
    return labels


def _check_vocabulary(highest: int, model_config: Mapping[str, object]) -> None:
    """What config.json tells; a GPU would read beyond the embedding without a word.

    Many models have more embeddings than their tokenizer has ids: they are padded.
    """
    size = model_config.get("vocab_size")
    if isinstance(size, int) and 0 < size <= highest:
        raise ModelLoadFailed(
            f"tokenizer.json has ids up to {highest}, but vocab_size in config.json is {size}: it "
            "is the tokenizer of another model, or the model was not resized for added tokens"
        )


def _vocab_size(highest: int, model_config: Mapping[str, object]) -> int:
    """How many ids have an embedding, as far as is known."""
    size = model_config.get("vocab_size")
    return size if isinstance(size, int) and size > highest else highest + 1


def _type_vocab_size(model_config: Mapping[str, object]) -> int:
    """How many token_type_ids have an embedding; a pair of texts, where nothing is said."""
    size = model_config.get("type_vocab_size")
    return size if isinstance(size, int) and size > 0 else 2


async def _warm_up(
    model: NerModel, engine: LocalEngine, config: ModelConfig, highest_id: int
) -> None:
    """Run the samples on every session; also the first look at what the graph really puts out."""
    for sample in config.model_warmup:
        try:
            (encoded,) = await asyncio.to_thread(model.encode, [sample.text], CutOptions())
            rows = model.rows([encoded])[:1] * sample.batch_size
            for _ in range(sample.count if len(rows[0].ids) else 0):
                for logits in await engine.warm(rows):
                    # rows alike, so nothing of this is padding
                    check_logits(model.info, logits)
        except Exception as error:
            name = f" {sample.name!r}" if sample.name else ""
            guess = (
                f"; tokenizer.json, with ids up to {highest_id}, is probably that of another model"
                if _OUT_OF_BOUNDS in str(error)
                else ""
            )
            raise ModelLoadFailed(f"warm-up{name} failed: {error}{guess}") from error


async def _try_highest_id(engine: LocalEngine, highest: int) -> None:
    """One row of one token with the highest id: on the CPU the runtime refuses one without embedding."""
    if highest < 0:
        return
    try:
        await engine.warm([Row(np.array([highest], dtype=np.int64))])
    except InferenceFailed as error:
        raise ModelLoadFailed(
            f"tokenizer.json has ids up to {highest}, but the model fails on id {highest}: it is "
            "the tokenizer of another model, or the model was not resized for added tokens "
            f"({error.detail})"
        ) from error
