"""Many callers at once: each gets what it gets alone, and one that left costs nothing."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from api.conftest import Answer, Client, Repository, Serve

CALLERS = 64
TOLERANCE = 1e-4
SENTENCES = (
    "Apple is looking at buying a startup in London.",
    "Ada Lovelace met Charles Babbage.",
    "Zoë flew from São Paulo to 東京 with Lufthansa 🚀 last week, she said.",
    "The people of the world were asleep.",
    "Angela Merkel spoke at the University of Cambridge about the European Union.",
    "Yes.",
    "Microsoft and the Red Cross opened offices in Nairobi, Kenya, and in Lima, Peru.",
)
FAMILIES = ("bert", "distilbert", "roberta", "xlm-roberta", "deberta-v2")


def text_of(caller: int) -> str:
    """A text of its own for each caller, of a few to more than a hundred tokens."""
    chosen = [SENTENCES[(caller * step) % len(SENTENCES)] for step in range(1, 2 + caller % 9)]
    return f"{' '.join(chosen)} {caller}"


def same_spans(one: Any, other: Any) -> None:
    """Equal entities; scores within the tolerance."""
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert {**left, "results": 0} == {**right, "results": 0}
        assert list(left["results"]) == list(right["results"])
        np.testing.assert_allclose(
            list(left["results"].values()), list(right["results"].values()), rtol=0, atol=TOLERANCE
        )


def same_tokens(one: Any, other: Any) -> None:
    """Equal tokens and labels; logits within the tolerance."""
    assert len(one["tokens"]) == len(other["tokens"])
    for left, right in zip(one["tokens"], other["tokens"], strict=True):
        assert left["token_info"] == right["token_info"]
        assert left["label"] == right["label"]
        np.testing.assert_allclose(left["scores"], right["scores"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("scheduler", "mean_batch"), [("fifo", 4.0), ("cost", 1.0)])
async def test_64_callers(
    serve: Serve, repository: Repository, bundled: Path, scheduler: str, mean_batch: float
) -> None:
    """Each gets what it gets alone, and has company: whoever comes, or who is about as long."""
    folder = shutil.copytree(bundled / "minilm-ner", repository.path / "minilm-ner")
    (folder / "config.yaml").write_text(f"dynamic_batching: {{scheduler: {scheduler}}}")
    http = await serve(repository.path)
    texts = [text_of(caller) for caller in range(CALLERS)]
    assert len({len(text) for text in texts}) > 20

    async def ask(text: str) -> Answer:
        return await http.predict_tokens([text], aggregation_strategy="simple")

    alone = [await ask(text) for text in texts]
    before = await http.statistics("minilm-ner")
    together = await asyncio.gather(*map(ask, texts))
    after = await http.statistics("minilm-ner")
    found = 0
    for one, other in zip(alone, together, strict=True):
        assert one.status == other.status == 200
        same_spans(one.json()[0], other.json()[0])
        assert one.headers["x-compute-tokens"] == other.headers["x-compute-tokens"]
        found += len(one.json()[0])
    assert found > CALLERS
    rows = after["rows"] - before["rows"]
    assert rows == CALLERS
    assert rows / (after["batches"] - before["batches"]) > mean_batch
    assert after["queued_rows"] == 0


async def test_callers_of_encoderfile(http: Client) -> None:
    """The same, with every token's logits, several texts a call."""
    texts = [text_of(caller) for caller in range(24)]
    calls = [list(pair) for pair in zip(texts, reversed(texts), strict=True)]
    alone = [(await http.predict([text])).json()["results"][0] for text in texts]
    together = await asyncio.gather(*map(http.predict, calls))
    for caller, answer in enumerate(together):
        first, second = answer.json()["results"]
        same_tokens(first, alone[caller])
        same_tokens(second, alone[23 - caller])


async def test_many_models_and_dialects(http: Client) -> None:
    """Nothing leaks from one model or dialect into another."""

    async def ask(caller: int) -> Answer:
        model = FAMILIES[caller % len(FAMILIES)]
        if caller % 2:
            return await http.predict([text_of(caller)], model=model)
        return await http.predict_tokens(
            [text_of(caller)],
            model=model,
            aggregation_strategy=("none", "simple", "first", "average", "max")[caller % 3],
            ignore_labels=[],
        )

    alone = [await ask(caller) for caller in range(40)]
    together = await asyncio.gather(*map(ask, range(40)))
    for caller, (one, other) in enumerate(zip(alone, together, strict=True)):
        assert other.status == 200
        assert other.headers["x-nerve-model"] == FAMILIES[caller % len(FAMILIES)]
        if caller % 2:
            same_tokens(one.json()["results"][0], other.json()["results"][0])
        else:
            same_spans(one.json()[0], other.json()[0])


async def test_good_among_bad(http: Client) -> None:
    """A bad request fails alone, whatever is wrong with it."""
    good = (await http.predict_tokens(["german israel"], model="rule")).body
    asked: list[tuple[object, int]] = [
        (["german israel"], 200),
        (["early"], 424),
        (["night"], 500),
        ([""], 400),
        (3, 422),
        (["a"] * 129, 413),
    ] * 8
    answers = await asyncio.gather(
        *(http.predict_tokens(inputs, model="rule") for inputs, _ in asked)
    )
    for (_, status), answer in zip(asked, answers, strict=True):
        assert answer.status == status
        if status == 200:
            assert answer.body == good


@pytest.mark.parametrize(("word", "status"), [("early", 424), ("night", 500)])
async def test_bad_row_in_a_batch(
    serve: Serve, repository: Repository, word: str, status: int
) -> None:
    """Two callers whose texts share a run: only the bad one's fails."""
    repository.add_rule("rule")
    repository.configure(
        "rule",
        {
            "max_batch_size": 2,
            "dynamic_batching": {"max_queue_delay_microseconds": 10_000_000},
            "model_warmup": [{"batch_size": 2}],
        },
    )
    http = await serve(repository.path)
    for texts in (["german people", word], [word, "german people"]):
        async with http.waiting(http.predict_tokens([texts[0]])) as first:
            await http.queued("rule", 1)
            second = await http.predict_tokens([texts[1]])
            answers = dict(zip(texts, (await first, second), strict=True))
        assert answers[word].status == status
        assert answers["german people"].status == 200
        assert [item["token"] for item in answers["german people"].json()[0]] == ["german"]


async def test_two_callers_share_a_run(serve: Serve, repository: Repository) -> None:
    """Of different dialects even: two requests, one batch."""
    repository.add_patient("patient")
    http = await serve(repository.path)
    before = await http.statistics("patient")
    async with http.waiting(http.predict_tokens(["german people"])) as first:
        await http.queued("patient", 1)
        second = await http.predict(["world"])
        assert ((await first).status, second.status) == (200, 200)
    after = await http.statistics("patient")
    assert (after["batches"] - before["batches"], after["rows"] - before["rows"]) == (1, 2)


@pytest.mark.parametrize("route", ["predict", "predict_tokens"])
async def test_caller_that_left(http: Client, route: str) -> None:
    """Its text leaves the queue when its connection ends, and is never run."""
    before = await http.statistics("patient")
    for _ in range(3):
        ask = http.predict if route == "predict" else http.predict_tokens
        async with http.waiting(ask(["people"], model="patient")) as gone:
            await http.queued("patient", 1)
            assert not gone.done()
        await http.queued("patient", 0)
    assert await http.statistics("patient") == before
    assert (await http.predict(["people", "world"], model="patient")).status == 200
    after = await http.statistics("patient")
    assert (after["batches"] - before["batches"], after["rows"] - before["rows"]) == (1, 2)


async def test_callers_that_leave_a_busy_model(serve: Serve, repository: Repository) -> None:
    """One row a run, and long lists of texts: what was not yet run when they left never is."""
    repository.add("bert", max_batch_size=1, instance_group={"count": 1, "kind": "KIND_CPU"})
    http = await serve(repository.path)
    before = await http.statistics("bert")
    texts = ["people " * 100] * 128

    async def busy() -> bool:
        return bool((await http.statistics("bert"))["queued_rows"] > 256)

    async with (
        http.waiting(http.predict_tokens(texts)),
        http.waiting(http.predict_tokens(texts)),
        http.waiting(http.predict_tokens(texts)),
    ):
        await http.until(busy)
    await http.queued("bert", 0)
    assert (await http.predict_tokens(["german", "world"])).status == 200
    after = await http.statistics("bert")
    assert 2 <= after["rows"] - before["rows"] < 3 * 128 + 2


async def test_callers_that_leave_at_any_moment(http: Client) -> None:
    """Half of them give up; the others get their answers, and nothing is left behind."""
    expected = [await http.predict_tokens([text_of(caller)]) for caller in range(16)]
    asked = [
        asyncio.create_task(http.predict_tokens([text_of(caller % 16)])) for caller in range(48)
    ]
    for task in asked[1::2]:
        await asyncio.sleep(0)  # one turn of the loop: a bit further on for each
        task.cancel()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    stayed = 0
    for caller, answer in enumerate(answers):
        if isinstance(answer, asyncio.CancelledError):
            assert caller % 2
            continue
        assert not isinstance(answer, BaseException)
        assert answer.status == 200
        same_spans(answer.json()[0], expected[caller % 16].json()[0])
        stayed += 1
    assert stayed >= 24
    await http.queued("minilm-ner", 0)
