"""Copies of real requests for a model's shadow version; their answers are compared, then dropped."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Final, TypeVar

from nerve.errors import NerveError
from nerve.exchange import nobodys
from nerve.metrics.requests import RequestMetrics
from nerve.repository.catalog import Catalog
from nerve.types import ModelInfo, ServedModel, SpanAnswer, TokenAnswer

log = logging.getLogger(__name__)

MAX_COPIES: Final = 16
"""Copies in flight at the same time; more are skipped, so that they never pile up."""

COPY_PRIORITY: Final = 10
"""Of copies, where the shadow version also answers real requests: after all of those."""

Answer = TypeVar("Answer", SpanAnswer, TokenAnswer)


def found(answer: SpanAnswer | TokenAnswer, labels: Sequence[str]) -> list[list[Hashable]]:
    """What an answer says of each text, without scores: (label, start, end) of all it found.

    Args:
        answer: entities, or tokens.
        labels: of the version that answered; tokens carry only numbers.
    """
    if isinstance(answer, SpanAnswer):
        return [[(span.label, span.start, span.end) for span in text] for text in answer.spans]
    return [
        list(zip([labels[best] for best in text.best], text.start, text.end, strict=True))
        for text in answer.texts
    ]


class ShadowRunner:
    """Runs the copies in the background. `aclose` ends those in flight."""

    def __init__(self, catalog: Catalog, metrics: RequestMetrics, *, timeout_s: float) -> None:
        self._catalog, self._metrics, self._timeout_s = catalog, metrics, timeout_s
        self._tasks: set[asyncio.Task[None]] = set()

    def consider(
        self,
        info: ModelInfo,
        answer: Answer,
        ask: Callable[[ServedModel, float], Awaitable[Answer]],
    ) -> None:
        """Copy a request that was just answered, if its model has a shadow and the dice say so.

        Args:
            info: of the version that answered.
            answer: what the caller gets, whatever becomes of the copy.
            ask: puts the same question to another version, with a deadline in monotonic seconds.
        """
        shadow = self._catalog.shadow_of(info.name)
        if shadow is None or shadow[0] == info.version:
            return
        version, fraction = shadow
        if random.random() >= fraction:  # noqa: S311  no secret
            return
        if len(self._tasks) >= MAX_COPIES:
            self._metrics.observe_shadow(info.name, version, "skipped")
            return

        async def copy() -> None:
            outcome = "failed"
            try:
                with self._catalog.lease(info.name, str(version)) as model:
                    other = await ask(model, time.monotonic() + self._timeout_s)
                    same = found(other, model.info.labels) == found(answer, info.labels)
                outcome = "equal" if same else "different"
            except NerveError as error:
                log.debug("model %s: the shadow version failed: %s", info.name, error)
            except Exception:  # boundary: nobody waits for this
                log.exception("model %s: the shadow version failed", info.name)
            finally:
                self._metrics.observe_shadow(info.name, version, outcome)

        with nobodys():
            task = asyncio.create_task(copy(), name=f"shadow-{info.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Give up the copies in flight."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
