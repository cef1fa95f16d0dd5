"""For everybody: without a mouse, on a phone, in the dark, with a screen reader."""

from __future__ import annotations

import re
from typing import Final

from playwright.async_api import Page, expect

from browser.accessibility import CONTRAST, violations
from browser.conftest import Open
from browser.tagging import Tagging, answer, entities_in
from browser.texts import TEXTS
from browser.watched import Watched
from support import Daemon

FOCUS: Final = """() => {
    const style = getComputedStyle(document.activeElement);
    const { width, height, top, bottom } = document.activeElement.getBoundingClientRect();
    return {
        name: document.activeElement.ariaLabel || document.activeElement.textContent.trim()
            || document.activeElement.id,
        outlined: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1,
        seen: width > 0 && height > 0 && bottom > 0 && top < innerHeight,
    };
}"""
WIDTH: Final = "() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
OVERLAPS: Final = """() => {
    const shown = [...document.querySelectorAll("a, button, input, select, textarea, summary")]
        .filter((each) => each.checkVisibility({ visibilityProperty: true, opacityProperty: true }))
        .map((each) => [each, each.getBoundingClientRect()]);
    const over = (a, b) => a.left < b.right - 1 && b.left < a.right - 1
        && a.top < b.bottom - 1 && b.top < a.bottom - 1;
    const name = (each) => each.ariaLabel || each.id || each.textContent;
    return shown.flatMap(([a, here], at) => shown.slice(at + 1)
        .filter(([b, there]) => over(here, there) && !a.contains(b) && !b.contains(a))
        .map(([b]) => `${name(a)} | ${name(b)}`));
}"""
BACKGROUND: Final = "() => getComputedStyle(document.body).backgroundColor"
UNBROKEN: Final = "Angela Merkel " + "supercalifragilistic" * 30 + " in Berlin"


async def tab_to(page: Page, name: str, *, most: int = 40) -> list[str]:
    """Press Tab until something has the focus; at each stop one must see where one is."""
    passed: list[str] = []
    while not passed or not re.search(name, passed[-1]):
        assert len(passed) < most, f"{name} is not among {passed}"
        await page.keyboard.press("Tab")
        told = await page.evaluate(FOCUS)
        assert told["outlined"], told
        assert told["seen"], told
        passed.append(told["name"])
    return passed


async def test_keyboard_only(daemon: Daemon, open_page: Open) -> None:
    """From the empty page over the entities to the copied request, and to the other page."""
    page = (await open_page(daemon.url)).page
    tagging, text = Tagging(page), TEXTS["emoji"]
    await expect(tagging.marked.locator("mark").first).to_be_visible()
    await tab_to(page, "Skip to the content", most=1)
    await page.keyboard.press("Enter")
    await tab_to(page, "^model|minilm")
    await tab_to(page, "^text$|Ada Lovelace")
    await page.keyboard.press("Control+a")
    await page.keyboard.insert_text(text)
    await page.keyboard.press("Control+Enter")
    await tagging.done()
    found = entities_in(await answer(daemon.url, text, "minilm-ner"))
    assert await tagging.entities() == (text, found)

    await tab_to(page, "^Text$")
    await page.keyboard.press("ArrowRight")
    await expect(page.get_by_role("table")).to_be_visible()
    await page.keyboard.press("ArrowLeft")
    await tab_to(page, f"^{found[0].text}$")
    await expect(page.get_by_role("tooltip")).to_contain_text(f"score {found[0].score:.3f}")
    await page.keyboard.press("ArrowRight")
    assert (await page.evaluate(FOCUS))["name"] == found[1].text
    await expect(page.get_by_role("tooltip")).to_contain_text(f"score {found[1].score:.3f}")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("tooltip")).to_be_hidden()
    await tab_to(page, "Copy as curl")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status", name="Copied")).to_contain_text("curl")
    assert found[0].text in await page.evaluate("() => navigator.clipboard.readText()")

    await page.keyboard.press("Control+Home")
    for _ in range(60):
        await page.keyboard.press("Shift+Tab")
        if (await page.evaluate(FOCUS))["name"] == "Models":
            break
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Models", exact=True)).to_be_visible()
    await expect(page).to_have_title("Models · Nerve")


async def fits(watched: Watched) -> None:
    """Nothing goes over the edge of the window, and no control lies upon another."""
    needed, there = await watched.page.evaluate(WIDTH)
    assert needed <= there
    assert await watched.page.evaluate(OVERLAPS) == []


async def test_accessible_in_both_themes(daemon: Daemon, open_page: Open) -> None:
    """axe-core finds nothing; what the system wants is followed, and what is chosen is kept."""
    watched = await open_page(daemon.url, color_scheme="light")
    page, tagging = watched.page, Tagging(watched.page)
    await expect(tagging.marked.locator("mark").first).to_be_visible()
    light = await page.evaluate(BACKGROUND)
    await page.get_by_label("Theme").select_option("dark")
    dark = await page.evaluate(BACKGROUND)
    assert dark != light
    await page.reload()
    assert await page.evaluate(BACKGROUND) == dark
    await tagging.put(TEXTS["shell"])
    await page.get_by_role("group", name="Labels").get_by_role("button", name="PER").click()
    found = {"text, dark": await violations(page)}
    await page.get_by_label("Theme").select_option("auto")
    assert await page.evaluate(BACKGROUND) == light
    found["text, light"] = await violations(page, CONTRAST)
    await tagging.show("Table")
    await page.emulate_media(color_scheme="dark")
    found["table, dark"] = await violations(page)
    assert await page.evaluate(BACKGROUND) == dark

    await page.get_by_role("link", name="Models").click()
    await expect(page.get_by_role("article", name="minilm-ner")).to_contain_text("Ready")
    await page.get_by_text("2 versions").click()
    found["models, dark"] = await violations(page)
    await page.emulate_media(color_scheme="light")
    found["models, light"] = await violations(page, CONTRAST)
    await page.get_by_role("button", name="API key").click()
    await expect(page.get_by_role("dialog", name="API key")).to_be_visible()
    found["dialog, light"] = await violations(page)
    await page.keyboard.press("Escape")
    await check_phone(watched)
    assert found == {view: [] for view in found}


async def check_phone(watched: Watched) -> None:
    """360 pixels are enough for both pages, also for words that have no end."""
    page, tagging = watched.page, Tagging(watched.page)
    await page.set_viewport_size({"width": 360, "height": 640})
    await expect(page.get_by_role("article", name="broken")).to_contain_text("incomplete")
    await fits(watched)
    await page.get_by_role("link", name="Playground").click()
    await tagging.put(UNBROKEN)
    await expect(tagging.marked.locator("mark").first).to_be_visible()
    for view in ("Text", "Table", "JSON"):
        await tagging.show(view)
        await fits(watched)
