"""One model in this process, without a server: what `nerve infer` runs on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from nerve.app import App
from nerve.config.server import ServerConfig
from nerve.config.settings.repositories import ControlMode
from nerve.engine.session import require_runtime
from nerve.errors import InvalidField, LoadFailed, NoDefaultModel
from nerve.frontend.http.encoderfile import result
from nerve.service.inference import Call, InferenceService, SpanRequest
from nerve.types import Span
from nerve.words import OffsetUnit, Strategy


class Tagger:
    """Answers like the daemon's routes, as Python values."""

    def __init__(self, inference: InferenceService) -> None:
        self._inference = inference
        self.model_id = inference.info(None, None).name
        self.truncated = 0
        """Texts so far that were longer than the model and were cut."""

    def _call(self, texts: Sequence[str]) -> Call:
        return Call(None, None, deadline=None, max_texts=len(texts))

    async def tokens(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """One Encoderfile result a text."""
        info, answer = await self._inference.tokens(
            self._call(texts), texts, offset_unit=None, default_unit=OffsetUnit.BYTE
        )
        self.truncated += answer.statistics.truncated_texts
        return [result(tags, info.labels) for tags in answer.texts]

    async def entities(self, texts: Sequence[str]) -> list[list[dict[str, Any]]]:
        """Entities of each text, offsets in code points."""
        _, answer = await self._inference.spans(
            self._call(texts), SpanRequest(texts, default_strategy=Strategy.MAX)
        )
        self.truncated += answer.statistics.truncated_texts
        return [[entity(span) for span in spans] for spans in answer.spans]


def entity(span: Span) -> dict[str, Any]:
    """As JSON has it; the score is still numpy's."""
    return {
        "text": span.text,
        "label": span.label,
        "start": span.start,
        "end": span.end,
        "score": span.score,
    }


@asynccontextmanager
async def open_tagger(config: ServerConfig) -> AsyncIterator[Tagger]:
    """A tagger on the only model of `open_app`. Raises as that."""
    async with open_app(config) as app:
        yield Tagger(app.inference)


@asynccontextmanager
async def open_app(config: ServerConfig) -> AsyncIterator[App]:
    """Load the default model of `config`, or the only one, and nothing else.

    Raises:
        ModelNotFound, NoDefaultModel, ModelNotReady, RepositoryInvalid, RuntimeMissing.
    """
    require_runtime()
    # Nothing else depends on this process, so a proof in another one would only cost time.
    config = config.model_copy(
        update={"model_control_mode": ControlMode.NONE, "prove_models": False}
    )
    app = App(config, announce=lambda _: None)
    try:
        await app.sync.find()
        try:
            name = app.catalog.model(None).name
        except NoDefaultModel as error:
            several = ", ".join(error.known) or "none that can be used"
            raise InvalidField("--model", f"name one of the models: {several}") from error
        with suppress(LoadFailed):  # an older version may answer; else its own error tells
            await app.sync.load(name)
        yield app
    finally:
        await app.stop()
