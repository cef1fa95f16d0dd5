"""Tokenizing and decoding for every protocol: limits, deadlines, units, leases."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fake_models import PATIENCE_S, World, world
from nerve.config.running import Precision
from nerve.config.server import ServerConfig
from nerve.errors import (
    DeadlineExceeded,
    EmptyInput,
    InvalidField,
    ModelNotFound,
    NerveError,
    TooManyInputs,
)
from nerve.service.inference import Call
from nerve.service.tokenization import TokenizationService

MAX_TEXTS = 3
MAX_TOKENS = 8
"""Of the fake model."""


@asynccontextmanager
async def serving(**config: Any) -> AsyncIterator[tuple[World, TokenizationService]]:
    async with world() as made:
        await made.apply("ner", {1: "one"}, **config)
        yield made, TokenizationService(made.catalog, config=ServerConfig())


def call(model: str | None = "ner", *, left_s: float = PATIENCE_S) -> Call:
    return Call(model, None, time.monotonic() + left_s, MAX_TEXTS)


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([], EmptyInput("ids")),
        ([[1], []], EmptyInput("ids[1]")),
        ([[1]] * 4, TooManyInputs(4, 3)),
        ([[1] * 20, [1] * 5], InvalidField("ids", "25 ids in one request, at most 24 are taken")),
    ],
)  # fmt: skip
async def test_rows_that_are_refused(rows: list[list[int]], fault: NerveError) -> None:
    """Before the model is asked."""
    async with serving() as (made, service):
        with pytest.raises(type(fault)) as caught:
            await service.decode(call(), rows, skip_special_tokens=True)
        assert caught.value.args == fault.args
        assert made.model("one").asked == []


async def test_as_many_ids_as_the_model_can_take_are_taken() -> None:
    async with serving() as (_, service):
        rows = [[1] * MAX_TOKENS] * MAX_TEXTS
        info, texts = await service.decode(call(), rows, skip_special_tokens=True)
        assert (info.name, len(texts)) == ("ner", MAX_TEXTS)


@pytest.mark.parametrize(
    ("texts", "fault"),
    [([], EmptyInput), (["a", ""], EmptyInput), (["a"] * 4, TooManyInputs)],
)
async def test_texts_that_are_refused(texts: list[str], fault: type[NerveError]) -> None:
    """As for inference."""
    async with serving() as (made, service):
        with pytest.raises(fault):
            await service.tokenize(call(), texts, add_special_tokens=None, offset_unit=None)
        assert made.model("one").asked == []


async def test_a_tokenizer_that_takes_too_long() -> None:
    """The caller hears so; the model is given back, so that it can be unloaded."""
    async with serving() as (made, service):
        stuck = asyncio.Event()
        made.model("one").answer = stuck.wait
        with pytest.raises(DeadlineExceeded):
            await service.tokenize(
                call(left_s=0.01), ["a"], add_special_tokens=None, offset_unit=None
            )
        with pytest.raises(DeadlineExceeded):
            await service.decode(call(left_s=-1.0), [[1]], skip_special_tokens=True)


async def test_an_unknown_model() -> None:
    async with serving() as (_, service):
        with pytest.raises(ModelNotFound):
            await service.tokenize(call("nope"), ["a"], add_special_tokens=None, offset_unit=None)
        with pytest.raises(ModelNotFound):
            await service.decode(call("nope"), [[1]], skip_special_tokens=True)
        with pytest.raises(ModelNotFound):
            service.describe("nope", None)


@pytest.mark.parametrize("precision", [None, *Precision])
async def test_what_a_version_was_converted_to(precision: Precision | None) -> None:
    """As it was loaded; the default model needs no name."""
    async with serving(optimization={"precision": precision}) as (_, service):
        described = service.describe(None, None)
        assert (described.info.name, described.precision) == ("ner", precision)
