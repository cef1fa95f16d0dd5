"""Writes docs/screenshots: both pages at three widths, light and dark, of a server at work.

`python -m browser.take_screenshots` in tests/. Needs Chromium, for all scripts and emoji
fonts-noto-core, fonts-noto-cjk and fonts-noto-color-emoji; pngquant makes the files smaller.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final, Literal

import aiohttp
from playwright.async_api import Browser, Page, async_playwright, expect

from browser.conftest import PROGRAMS
from browser.repositories import write_models
from browser.tagging import Tagging
from support import Daemon, running_server

TESTS: Final = Path(__file__).parents[1]
SHOTS: Final = TESTS.parent / "docs" / "screenshots"
SIZES: Final = {360: 780, 820: 1100, 1440: 900}
TEXT: Final = (
    "Angela Merkel and Barack Obama opened the fair in Hannover, where Siemens and Bosch showed their "
    "robots 🤖. Later that week she flew ✈️ to Paris 🇫🇷 for talks with François Hollande at the Élysée "
    "Palace.\n\n"
    "会議では Barack Obama と Angela Merkel が話した。\n\n"
    "زارت Angela Merkel مدينة Cairo في مارس."
)
TRAFFIC_S: Final = 12.0


async def traffic(daemon: Daemon) -> None:
    """Requests that come and go as they do in life, until cancelled."""
    lines = TEXT.split("\n\n")
    async with aiohttp.ClientSession(daemon.url) as http:
        for turn in range(1_000_000):
            texts = [lines[(turn + at) % len(lines)] for at in range(1 + turn % 5)]
            model = ("minilm-ner", "minilm-ner", "wide")[turn % 3]
            async with http.post(f"/v1/models/{model}/predict_tokens", json={"inputs": texts}):
                pass
            await asyncio.sleep(0.02 + 0.1 * ((turn // 20) % 3))


async def playground(page: Page, url: str) -> None:
    """With a text in several scripts, tagged."""
    await page.goto(url)
    tagging = Tagging(page)
    await tagging.put(TEXT)
    found = await tagging.marked.locator("mark").count()
    await expect(page.get_by_role("status", name="Result")).to_have_text(f"{found} entities")
    await tagging.text.evaluate("(area) => { area.scrollTop = 0; }")


async def models(page: Page, url: str) -> None:
    """With charts that have something to show."""
    await page.goto(f"{url}/#/models")
    await expect(page.get_by_role("article").first).to_be_visible()


async def take(browser: Browser, daemon: Daemon, scheme: Literal["light", "dark"]) -> None:
    """All of one colour scheme; the three widths side by side, so that their charts grow together."""
    contexts = {
        width: await browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, locale="en-US",
            reduced_motion="reduce",
        )
        for width, height in SIZES.items()
    }  # fmt: skip
    dark = "-dark" if scheme == "dark" else ""
    pages = {width: await context.new_page() for width, context in contexts.items()}
    for width, page in pages.items():
        await playground(page, daemon.url)
        await page.mouse.move(0, 0)
        await page.evaluate("() => document.activeElement.blur()")
        await page.screenshot(path=SHOTS / f"playground-{width}{dark}.png", full_page=width < 500)
    for page in pages.values():
        await models(page, daemon.url)
    await asyncio.sleep(TRAFFIC_S)
    for width, page in pages.items():
        await page.bring_to_front()
        await page.screenshot(path=SHOTS / f"models-{width}{dark}.png")
    for context in contexts.values():
        await context.close()


def shrink() -> None:
    """Fewer colours, which one does not see."""
    program = shutil.which("pngquant")
    if program is not None:
        files = sorted(str(path) for path in SHOTS.glob("*.png"))
        subprocess.run([program, "--force", "--ext=.png", "--skip-if-larger", *files], check=False)


async def main() -> None:
    """Start a server, have it busy, and look at it."""
    program = next(filter(None, map(shutil.which, PROGRAMS)))
    SHOTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        more = write_models(Path(folder) / "repository", TESTS / "models")
        models = [f"--load-model={name}" for name in ("broken", "minilm-ner", "wide")]
        flags = ("--model-control-mode", "explicit", "--default-model", "minilm-ner")
        bundled = TESTS.parent / "model_repository"
        async with (
            running_server(str(bundled), str(more), *flags, *models) as daemon,
            async_playwright() as playwright,
        ):
            browser = await playwright.chromium.launch(executable_path=program)
            busy = asyncio.create_task(traffic(daemon))
            await take(browser, daemon, "light")
            await take(browser, daemon, "dark")
            busy.cancel()
            await browser.close()
    shrink()


if __name__ == "__main__":
    asyncio.run(main())
