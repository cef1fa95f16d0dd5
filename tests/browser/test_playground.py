"""What is marked, and what is copied, is what POST /predict_tokens answers, to the code point."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from playwright.async_api import Page, expect

from browser.conftest import Open
from browser.copied import in_python, in_shell
from browser.tagging import Entity, Tagging, answer, entities_in
from browser.texts import TEXTS, long_document
from support import Daemon

STRATEGIES = ("none", "simple", "first", "average", "max")
MODEL = "minilm-ner"


def as_shown(text: str) -> str:
    """What becomes of a text in a page: every end of a line is one character."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


async def test_every_text(daemon: Daemon, open_page: Open) -> None:
    """The page loads, by its own files alone, and marks texts with emoji, scripts of both directions,
    marks upon letters, any line ends, and markup that stays text."""
    watched = await open_page(daemon.url)
    tagging = Tagging(watched.page)
    await expect(tagging.marked.locator("mark").first).to_be_visible()
    await expect(watched.page).to_have_title("Playground · Nerve")
    await expect(watched.page.get_by_role("status", name="Server")).to_have_text("Ready")
    assert {"GET /", "GET /v1/models"} <= {*watched.requests}
    assert await watched.page.evaluate("() => localStorage.length") == 0
    for name, text in TEXTS.items():
        shown = as_shown(text)
        body = await answer(daemon.url, shown, MODEL)
        await tagging.put(text)
        assert await tagging.entities() == (shown, entities_in(body)), name
        assert await tagging.json() == [body], name
    markup = as_shown(TEXTS["markup"])
    await tagging.put(markup)
    assert await tagging.results.locator("b, img, script").count() == 0


async def test_choices(daemon: Daemon, open_page: Open) -> None:
    """Whatever is chosen, what is shown is what the server makes of it."""
    watched = await open_page(daemon.url)
    tagging, text = Tagging(watched.page), TEXTS["emoji"]
    await tagging.put(text)
    await check_strategies(tagging, daemon, text)
    await check_filters(tagging, daemon, text)
    await tagging.show("Table")
    await check_table(watched.page, entities_in(await answer(daemon.url, text, MODEL)))
    await tagging.show("Text")
    await check_versions(tagging, daemon, text)


async def check_strategies(tagging: Tagging, daemon: Daemon, text: str) -> None:
    """All of them; an entity tells its score and place when it is pointed at."""
    for strategy in STRATEGIES:
        await tagging.strategy.select_option(strategy)
        await tagging.done()
        body = await answer(daemon.url, text, MODEL, aggregation_strategy=strategy)
        assert await tagging.entities() == (text, entities_in(body)), strategy
    await tagging.marked.get_by_text("Berlin").hover()
    (berlin,) = [each for each in entities_in(body) if each.text == "Berlin"]
    tip = tagging.page.get_by_role("tooltip")
    await expect(tip).to_contain_text(f"score {berlin.score:.3f}")
    await expect(tip).to_contain_text(f"{berlin.start} to {berlin.end}")


async def check_filters(tagging: Tagging, daemon: Daemon, text: str) -> None:
    """The slider moves by keys; labels are shown and not; both as the server would leave them out."""
    page = tagging.page
    everything = entities_in(await answer(daemon.url, text, MODEL))
    await tagging.threshold.focus()
    for key in ("End", "PageDown", "PageDown", "ArrowLeft", "ArrowRight", "ArrowRight"):
        await page.keyboard.press(key)
    threshold = float(await tagging.threshold.input_value())
    assert (
        min(each.score for each in everything) < threshold < max(each.score for each in everything)
    )
    body = await answer(daemon.url, text, MODEL, threshold=threshold)
    await expect(tagging.marked.locator("mark")).to_have_count(len(entities_in(body)))
    assert await tagging.entities() == (text, entities_in(body))
    await expect(page.get_by_role("status", name="Result")).to_contain_text("not shown")

    labels = page.get_by_role("group", name="Labels")
    await labels.get_by_role("button", name="LOC").click()
    await expect(labels.get_by_role("button", name="LOC")).to_have_attribute(
        "aria-pressed", "false"
    )
    left = await answer(daemon.url, text, MODEL, threshold=threshold, ignore_labels=["O", "LOC"])
    assert 0 < len(entities_in(left)) < len(entities_in(body))
    await expect(tagging.marked.locator("mark")).to_have_count(len(entities_in(left)))
    assert await tagging.json() == [left]

    await labels.get_by_role("button", name="LOC").click()
    await tagging.threshold.press("Home")
    await expect(tagging.marked.locator("mark")).to_have_count(len(everything))


async def check_table(page: Page, found: list[Entity]) -> None:
    """A row an entity, with offsets in code points; a column sorts it, up and down."""
    table = page.get_by_role("table")

    async def rows() -> list[list[str]]:
        texts = await table.locator("tbody tr").all()
        return [await row.locator("td").all_text_contents() for row in texts]

    written = [
        [each.text, each.label, f"{each.score:.3f}", str(each.start), str(each.end)]
        for each in found
    ]
    assert await rows() == written
    score = table.get_by_role("columnheader", name="Score")
    for direction, sign in (("ascending", 1), ("descending", -1)):
        await score.get_by_role("button").click()
        await expect(score).to_have_attribute("aria-sort", direction)
        scores = [float(row[2]) * sign for row in await rows()]
        assert all(before <= after for before, after in pairwise(scores))
    await table.get_by_role("button", name="Text").click()
    assert [row[0] for row in await rows()] == sorted(each.text for each in found)


async def check_versions(tagging: Tagging, daemon: Daemon, text: str) -> None:
    """Both of a model that has two; what is chosen is in the address, the text is not."""
    await tagging.model.select_option("wide")
    await expect(tagging.results).to_contain_text("wide version 2")
    answers = []
    for version in ("1", "2"):
        await tagging.version.select_option(version)
        await tagging.done()
        answers.append(entities_in(await answer(daemon.url, text, "wide", version)))
        assert await tagging.entities() == (text, answers[-1])
    assert answers[0] != answers[1]
    await expect(tagging.page).to_have_url(f"{daemon.url}/#/?model=wide&version=2")
    await tagging.page.reload()
    await expect(tagging.version).to_have_value("2")


async def test_long_document(daemon: Daemon, open_page: Open, folder: Path) -> None:
    """Dropped as a file, it has what the server finds in the whole; so have table and copied request."""
    page = (await open_page(daemon.url, "#/?model=wide")).page
    tagging, text = Tagging(page), long_document()
    assert len(text.encode()) > 250_000
    await tagging.drop("long.txt", text)
    found = entities_in(await answer(daemon.url, text, "wide"))
    await expect(tagging.results).to_contain_text(f"{len(found):,} entities")
    await expect(tagging.marked.locator("mark")).to_have_count(len(found))
    assert await tagging.entities() == (text, found)

    await tagging.show("Table")
    await page.get_by_role("button", name="Show more").click()
    rows = page.get_by_role("table").locator("tbody tr")
    await expect(rows).to_have_count(min(1200, len(found)))
    last = found[:1200][-1]
    assert await rows.last.locator("td").all_text_contents() == [
        last.text, last.label, f"{last.score:.3f}", f"{last.start:,}", f"{last.end:,}"
    ]  # fmt: skip

    shown = await tagging.json()
    assert len(shown) > 1
    assert sum(len(piece) for request in shown for piece in request) == len(found)
    assert await in_shell(await tagging.copied("curl"), folder) == shown


def plain(entities: list[dict[str, Any]], *, score: int = 6) -> list[tuple[Any, ...]]:
    """What both wires tell of entities: as many digits as a float32 has, absent is zero."""
    return [
        (each["token"], int(each.get("start", 0)), each["end"],
         {label: round(value, score) for label, value in each["results"].items()})
        for each in entities
    ]  # fmt: skip


async def test_copying(daemon: Daemon, open_page: Open, folder: Path) -> None:
    """What is copied is run for real: quotes, dollars, backticks, newlines and emoji come through whole,
    and the answer is what the page shows."""
    tagging = Tagging((await open_page(daemon.url, "#/?strategy=first&threshold=0.5")).page)
    for name in ("emoji", "lines", "markup", "shell"):
        await tagging.put(TEXTS[name])
        shown = await tagging.json()
        assert shown[0][0], name
        assert await in_shell(await tagging.copied("curl"), folder) == shown, name
        if name in ("markup", "shell"):
            assert await in_python(await tagging.copied("Python"), folder) == shown, name
    await check_grpc(tagging, folder)


async def check_grpc(tagging: Tagging, folder: Path) -> None:
    """By PredictTokens, and by Extract where there is a threshold."""
    await tagging.threshold.press("Home")
    await expect(tagging.marked.locator("mark")).to_have_count(3)
    (shown,) = await tagging.json()
    copied = await tagging.copied("gRPC")
    assert "nerve.v1.Nerve/PredictTokens" in copied
    (answer,) = await in_shell(copied, folder)
    assert [plain(each["tokens"]) for each in answer["results"]] == [plain(each) for each in shown]

    await tagging.threshold.fill("0.6")
    labels = tagging.page.get_by_role("group", name="Labels")
    await labels.get_by_role("button", name="PER").click()
    await expect(tagging.marked.locator("mark")).to_have_count(1)
    (shown,) = await tagging.json()
    copied = await tagging.copied("gRPC")
    assert "nerve.v1.Nerve/Extract" in copied
    (answer,) = await in_shell(copied, folder)
    (found,) = answer["results"]
    assert [(each["text"], each["start"], each["end"]) for each in found["entities"]] == [
        (each["token"], each["start"], each["end"]) for each in shown[0]
    ]
