"""The same texts through every door of the daemon give the same entities, and the same tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from clients.door_values import Entities, Entity, Token, Tokens
from clients.entity_doors import ENTITY_DOORS
from clients.token_doors import TOKEN_DOORS
from support import Daemon

UNUSUAL = (
    "Zoë flog mit 李明 von Zürich nach København 🛫.",
    "🚀 Elon Musk 👩‍👩‍👧 met Zoë in São Paulo 🇧🇷.",
    "Jose\u0301 lives in Ko\u0308ln\r\nand Angela Merkel in Berlin.",
    "   ",
    "Nothing to see here",
)
EACH = 20
"""Texts of each file."""


@pytest.fixture(scope="session")
def texts(root: Path) -> list[str]:
    """Real sentences, and a few that make trouble."""
    found = list(UNUSUAL)
    for name in ("news.txt", "wikipedia.txt"):
        lines = (root / "benchmarks" / "texts" / name).read_text(encoding="utf-8").splitlines()
        found += lines[:EACH]
    return found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def entities(bundled_daemon: Daemon, texts: list[str]) -> Entities:
    """What the first door says."""
    return await ENTITY_DOORS["predict_tokens"](bundled_daemon, texts)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def tokens(bundled_daemon: Daemon, texts: list[str]) -> Tokens:
    """What the first of the doors that give tokens says."""
    return await TOKEN_DOORS["predict"](bundled_daemon, texts)


@pytest.mark.parametrize("door", ENTITY_DOORS)
async def test_entities(
    door: str, bundled_daemon: Daemon, texts: list[str], entities: Entities
) -> None:
    """Labels, places, texts, and the bits of the scores."""
    found = await ENTITY_DOORS[door](bundled_daemon, texts)
    assert sum(map(len, found)) > len(texts)
    for text, mine, theirs in zip(texts, found, entities, strict=True):
        assert mine == theirs
        assert all(text[each.start : each.end] == each.text for each in mine)


@pytest.mark.parametrize("door", TOKEN_DOORS)
async def test_tokens(door: str, bundled_daemon: Daemon, texts: list[str], tokens: Tokens) -> None:
    """Ids, places, labels, and the bits of the logits."""
    found = await TOKEN_DOORS[door](bundled_daemon, texts)
    for mine, theirs in zip(found, tokens, strict=True):
        assert mine == theirs


async def test_tokens_make_the_entities(
    bundled_daemon: Daemon, texts: list[str], entities: Entities, tokens: Tokens
) -> None:
    """Tokens that are put together here are the entities that the daemon tells."""
    for text, whole, pieces in zip(texts, entities, tokens, strict=True):
        made = [_joined(text, group) for group in _groups(pieces)]
        assert [each[:4] for each in made] == [each[:4] for each in whole]
        mine, theirs = ([each.score for each in some] for some in (made, whole))
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)


def _groups(tokens: list[Token]) -> list[list[Token]]:
    """Neighbours of one label, of which none but the first is a beginning."""
    groups: list[list[Token]] = []
    last = "O"
    for token in tokens:
        if token.label == "O":
            pass
        elif token.label.startswith("I-") and last[2:] == token.label[2:]:
            groups[-1].append(token)
        else:
            groups.append([token])
        last = token.label
    return groups


def _joined(text: str, group: list[Token]) -> Entity:
    start, end, label = group[0].start, group[-1].end, group[0].label[2:]
    scores = np.mean([_probability(token) for token in group], dtype=np.float32)
    return Entity(label, start, end, text[start:end], np.float32(scores))


def _probability(token: Token) -> np.float32:
    """Of the best label."""
    logits = np.array(token.scores, dtype=np.float32)
    powers = np.exp(logits - logits.max())
    return np.float32((powers / powers.sum()).max())
