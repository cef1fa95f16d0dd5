"""What becomes of a server's refusals: waited for, cut smaller, the fault of one text, or the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
import pytest

from nerve.cli.bulk import server as server_module
from nerve.cli.bulk.records import Failed, Outcome, Tagged
from nerve.cli.bulk.server import RemoteTagging, ServerGone, ServerRefused, choose, newest, seconds
from nerve.cli.drive import RequestFailed
from nerve.cli.remote import Answer, NotAnswering, RemoteTarget
from nerve.errors import InvalidField

ENTITY = {"token": "Ada", "token_id": 0, "start": 0, "end": 3, "results": {"PER": 0.5}}
FOUND = [{"text": "Ada", "label": "PER", "start": 0, "end": 3, "score": 0.5}]


class Target(RemoteTarget):
    """Says what it is told to, and then what a server says."""

    def __init__(
        self, *before: Answer | RequestFailed, refuse: Callable[[Sequence[str]], int] = lambda _: 0
    ) -> None:
        self.before, self.refuse = list(before), refuse
        self.asked: list[Sequence[str]] = []

    async def ask(self, request: Mapping[str, object]) -> Answer:
        texts = request["inputs"]
        assert isinstance(texts, list)
        self.asked.append(texts)
        if self.before:
            said = self.before.pop(0)
            if isinstance(said, RequestFailed):
                raise said
            return said
        if status := self.refuse(texts):
            return refusal(status)
        return Answer(200, orjson.dumps([[ENTITY]] * len(texts)), truncated=1)


def refusal(status: int, retry_after: str | None = "0") -> Answer:
    content = orjson.dumps({"error": f"no: {status}", "error_type": "T"})
    return Answer(status, content, retry_after)


async def tag(target: Target, *texts: str, wait_s: float = 60.0) -> list[Outcome]:
    return await RemoteTagging(target, "http://there", wait_s).tag(list(texts))


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "FIRST_PAUSE_S", 0.0)


async def test_what_passes_is_waited_for() -> None:
    """A busy server, one that loads its models, and one that is just being started anew."""
    gone = RequestFailed("no connection", "refused")
    target = Target(refusal(429), refusal(503, None), gone, RequestFailed("connection lost", ""))
    whole, cut = await tag(target, "Ada", "Ada and others")
    assert whole == Tagged(FOUND)
    assert cut == Tagged(FOUND, truncated=True)
    assert len(target.asked) == 5


@pytest.mark.parametrize(
    "said", [refusal(503), RequestFailed("no connection", "no: 503")], ids=["busy", "gone"]
)
async def test_not_for_ever(said: Answer | RequestFailed) -> None:
    with pytest.raises(ServerGone, match=r"http://there has tagged nothing for 0 s .*: .*no: 503"):
        await tag(Target(said), "Ada", wait_s=0.0)


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_what_no_other_text_would_change(status: int) -> None:
    with pytest.raises(ServerRefused, match=f"http://there refuses: {status} T: no: {status}"):
        await tag(Target(refusal(status)), "Ada")


async def test_one_bad_text() -> None:
    outcomes = await tag(Target(refuse=lambda texts: 500 if "bad" in texts else 0), "a", "bad", "b")
    assert [isinstance(each, Failed) for each in outcomes] == [False, True, False]
    assert outcomes[1] == Failed("no: 500")


async def test_too_many_at_once_are_halved() -> None:
    target = Target(refuse=lambda texts: 413 if len(texts) > 2 else 0)
    assert len(await tag(target, "a", "b", "c", "d", "e")) == 5
    assert [len(texts) for texts in target.asked] == [5, 3, 2, 1, 2]


async def test_a_text_that_is_always_late() -> None:
    """It is no server that is gone, and is not asked for ever."""
    late = RequestFailed("timeout", "no answer in time")
    outcomes = await tag(Target(refusal(504), late, refusal(504)), "Ada")
    assert outcomes == [Failed("no: 504")]


@pytest.mark.parametrize("content", [b"[]", b"{}", b"no", b"[[{}]]"])
async def test_an_answer_of_something_else(content: bytes) -> None:
    with pytest.raises(ServerRefused):
        await tag(Target(Answer(200, content)), "Ada")


@pytest.mark.parametrize(
    ("models", "name"),
    [
        ([{"name": "a", "default": True}, {"name": "b", "state": "READY"}], "a"),
        ([{"name": "a", "state": "UNAVAILABLE"}, {"name": "b", "state": "READY"}], "b"),
    ],
)
def test_the_model_that_is_meant(models: list[dict[str, Any]], name: str) -> None:
    assert choose(models, None) == name
    assert choose(models, "other") == "other"


def test_no_model_is_meant() -> None:
    ready = [{"name": "a", "state": "READY"}, {"name": "b", "state": "READY"}]
    with pytest.raises(InvalidField, match="--model: name one of the models: a, b"):
        choose(ready, None)


def test_the_version_that_is_meant() -> None:
    versions = [{"version": number, "state": "READY"} for number in ("9", "10")]
    assert (
        newest({"name": "a", "versions": [*versions, {"version": "11", "state": "LOADING"}]})
        == "10"
    )
    with pytest.raises(NotAnswering):
        newest({"name": "a", "versions": [], "reason": "gone"})


@pytest.mark.parametrize(
    ("header", "expected"), [("7", 7.0), (None, None), ("Wed, 21 Oct 2026 07:28:00 GMT", None)]
)
def test_retry_after(header: str | None, expected: float | None) -> None:
    assert seconds(header) == expected
