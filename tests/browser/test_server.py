"""What the page tells of its server: its models, that it wants a key, that it is gone and is back."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Final

import aiohttp
from playwright.async_api import Locator, Page, expect

from browser.conftest import Locked, Open, let_in
from browser.copied import in_shell
from browser.door import door_to
from browser.tagging import Tagging
from browser.texts import TEXTS
from browser.watched import Watched
from support import Daemon

STORES: Final = "() => JSON.stringify([{...localStorage}, document.cookie, location.href])"
WRONG: Final = "nerve_" + "x" * 43


def card(page: Page, name: str) -> Locator:
    """What is shown of a model."""
    return page.get_by_role("article", name=name, exact=True)


async def states(daemon: Daemon) -> dict[str, tuple[str, str]]:
    """State and reason by model, as the server tells them."""
    async with aiohttp.ClientSession(daemon.url) as http, http.get("/v1/models") as answer:
        rows = (await answer.json())["models"]
    return {row["name"]: (row["state"], row["reason"]) for row in rows}


async def test_models(daemon: Daemon, open_page: Open) -> None:
    """Each model with its state; of a broken one why, in the server's words; versions."""
    watched = await open_page(daemon.url, "#/models")
    page = watched.page
    await expect(card(page, "minilm-ner").get_by_text("Ready", exact=True)).to_be_visible()
    await expect(card(page, "minilm-ner").get_by_text("default", exact=True)).to_be_visible()
    told = await states(daemon)
    assert told["broken"][0] == "UNAVAILABLE"
    await expect(card(page, "broken")).to_contain_text("Failed")
    await expect(card(page, "broken")).to_contain_text(told["broken"][1])
    await expect(card(page, "spare")).to_contain_text("Not loaded")
    await expect(card(page, "spare")).not_to_contain_text("cannot be loaded")
    wide = card(page, "wide")
    await wide.get_by_text("2 versions").click()
    rows = wide.get_by_role("table").filter(has_text="State").get_by_role("row")
    await expect(rows).to_have_count(3)
    for row, version in ((1, "1"), (2, "2")):
        await expect(rows.nth(row).get_by_role("rowheader")).to_have_text(version)
        await expect(rows.nth(row)).to_contain_text("Ready")
    await wide.get_by_text("9 labels").click()
    await expect(wide.get_by_text("B-PER")).to_be_visible()
    await check_control(watched, daemon)
    await check_charts(page, daemon)


async def check_control(watched: Watched, daemon: Daemon) -> None:
    """Models are loaded, and unloaded after a question; one that cannot be loaded tells why."""
    page, spare = watched.page, card(watched.page, "spare")
    await page.get_by_role("button", name="Load spare", exact=True).click()
    await expect(spare.get_by_text("Ready", exact=True)).to_be_visible()
    assert (await states(daemon))["spare"] == ("READY", "")

    unload = page.get_by_role("button", name="Unload spare")
    await unload.click()
    await page.get_by_role("dialog", name="Unload spare?").press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    assert (await states(daemon))["spare"] == ("READY", "")
    await unload.click()
    await page.get_by_role("dialog").get_by_role("button", name="Unload").click()
    await expect(spare.get_by_text("Unloaded", exact=True)).to_be_visible()
    assert (await states(daemon))["spare"][0] == "UNAVAILABLE"

    watched.expect(r"(answer|status of) 4\d\d.*")
    await page.get_by_role("button", name="Load broken", exact=True).click()
    await expect(card(page, "broken")).to_contain_text("It could not be loaded.")
    assert any("/v2/repository/models/broken/load" in each for each in watched.faults)


async def check_charts(page: Page, daemon: Daemon) -> None:
    """Under traffic they get points; the table beside them has the same numbers."""
    minilm = card(page, "minilm-ner")
    rate = minilm.get_by_role("figure").filter(has_text="Requests a second")
    await expect(rate).to_be_visible()
    async with aiohttp.ClientSession(daemon.url) as http, asyncio.TaskGroup() as group:
        traffic = group.create_task(ask_on(http))
        for title in ("Requests a second", "Time of a run", "Rows in a batch", "Tokens a second"):
            figure = minilm.get_by_role("figure").filter(has_text=title)
            await expect(figure.locator(".value").first).to_have_text(re.compile("[1-9]"))
            await expect(figure.locator("path.line").first).to_have_attribute(
                "d", re.compile(r"M.*L")
            )
            await expect(figure.get_by_role("img")).to_have_accessible_name(
                re.compile(f"{title}.*now .*highest")
            )
        traffic.cancel()
    await minilm.get_by_text("As a table").click()
    table = minilm.get_by_role("table", name="minilm-ner, the numbers of the charts")
    await expect(table.get_by_role("row").nth(1)).to_contain_text("Requests a second")
    await expect(table.get_by_role("row").nth(1)).to_contain_text(re.compile("[1-9]"))


async def ask_on(http: aiohttp.ClientSession) -> None:
    """A few requests a second, until cancelled."""
    while True:
        async with http.post("/predict_tokens", json={"inputs": "Angela Merkel"}) as answer:
            assert answer.status == 200
        await asyncio.sleep(0.1)


async def test_a_key(locked: Locked, open_page: Open, folder: Path) -> None:
    """It is asked for; a wrong one is told; the right one stays in this tab, and in no text."""
    watched = await open_page(locked.daemon.url)
    page, tagging = watched.page, Tagging(watched.page)
    watched.expect(r"(answer|status of) 401")
    dialog = page.get_by_role("dialog", name="API key")
    await dialog.get_by_label("Key").fill(WRONG)
    await dialog.get_by_label("Key").press("Enter")
    await expect(dialog).to_contain_text("the API key is not known")
    await let_in(watched, locked.key)
    await tagging.put(TEXTS["plain"])
    await expect(tagging.marked.locator("mark").first).to_be_visible()
    shown = await tagging.json()
    copied = await tagging.copied("curl")
    assert locked.key not in copied
    assert await in_shell(copied, folder, key=locked.key) == shown
    for kind in ("Python", "gRPC"):
        assert locked.key not in await tagging.copied(kind)
    assert locked.key not in await page.evaluate(STORES)
    assert locked.key not in await page.content()
    assert not any(locked.key in each for each in watched.requests)
    await page.reload()
    await expect(tagging.marked.locator("mark").first).to_be_visible()

    await page.get_by_role("link", name="Models").click()  # which nobody may load by request here
    bert = page.get_by_role("article", name="bert")
    await expect(bert.get_by_text("Ready", exact=True)).to_be_visible()
    await expect(bert.get_by_role("button")).to_have_count(0)


async def test_it_goes_and_comes_back(daemon: Daemon, open_page: Open) -> None:
    """The page says that nothing answers, keeps the text, and goes on by itself."""
    async with door_to(daemon.ports["http"]) as door:
        watched = await open_page(door.url)
        page, tagging = watched.page, Tagging(watched.page)
        await tagging.put(TEXTS["plain"])
        await expect(tagging.marked.locator("mark")).to_have_count(4)
        watched.expect(r"net::ERR_\w+")
        door.shut()
        await tagging.put(TEXTS["emoji"])
        await expect(page.get_by_role("alert")).to_contain_text("does not answer")
        await expect(page.get_by_role("status", name="Server")).to_have_text("Not reachable")
        await expect(tagging.text).to_have_value(TEXTS["emoji"])
        door.reopen()
        await expect(page.get_by_role("status", name="Server")).to_have_text("Ready")
        await expect(page.get_by_role("alert")).to_be_hidden()
        await expect(tagging.marked).to_contain_text("🛫")
        await check_policy(watched)


async def check_policy(watched: Watched) -> None:
    """A script that gets into the page is not run, and nothing can be fetched from elsewhere."""
    watched.expect("Content Security Policy")
    await watched.page.evaluate(
        "() => { const script = document.createElement('script');"
        " script.textContent = 'window.ran = true'; document.head.append(script); }"
    )
    assert await watched.page.evaluate("() => window.ran") is None
    left = "() => fetch('http://example.com/').then(() => 'fetched', () => 'refused')"
    assert await watched.page.evaluate(left) == "refused"
    assert any("inline script" in each for each in watched.faults)
    assert any("example.com" in each for each in watched.faults)
