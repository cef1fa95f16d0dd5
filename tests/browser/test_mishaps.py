"""What goes wrong around the page: odd addresses, little limits, late answers, far too many entities."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from playwright.async_api import Route, expect

from browser.conftest import Locked, Open
from browser.tagging import Tagging, answer, entities_in, parsed
from browser.test_people import fits
from browser.texts import TEXTS
from support import Daemon

NO_STORAGE: Final = """for (const name of ["localStorage", "sessionStorage"]) {
    Object.defineProperty(window, name, { get() { throw new DOMException("no", "SecurityError"); } });
}"""
BLANK: Final = "about:blank"
"""Where a page begins that is to be prepared before it comes to the playground."""
MANY: Final = 150_000
SHOWN: Final = 5_000


async def test_addresses_that_mean_nothing(daemon: Daemon, open_page: Open) -> None:
    """Names that every object of JavaScript has are no page, no strategy and no model."""
    for where in ("#constructor", "#/?strategy=toString", "#/?model=__proto__&threshold=x"):
        page = (await open_page(daemon.url, where)).page
        await expect(Tagging(page).marked.locator("mark").first).to_be_visible()


async def test_models_chosen_in_haste(daemon: Daemon, open_page: Open) -> None:
    """Another model is asked for its default version; what is told late of one is not the other's."""
    page = (await open_page(daemon.url, "#/?model=wide&version=1")).page
    tagging, held = Tagging(page), asyncio.Event()
    await expect(tagging.results).to_contain_text("wide version 1")
    await tagging.model.select_option("minilm-ner")
    await expect(tagging.results).to_contain_text("minilm-ner version 1")
    await expect(tagging.version).to_have_value("")

    async def hold(route: Route) -> None:
        await held.wait()
        await route.continue_()

    await page.route("**/v1/models/wide", hold)
    async with page.expect_request("**/v1/models/wide"):
        await tagging.model.select_option("wide")
    async with page.expect_response("**/v1/models/minilm-ner"):
        await tagging.model.select_option("minilm-ner")
    held.set()
    await tagging.put(TEXTS["plain"])
    await expect(tagging.results).to_contain_text("minilm-ner version 1")
    await expect(tagging.version.locator("option")).to_have_text(["Default", "1"])


async def test_a_server_that_is_busy_for_a_moment(daemon: Daemon, open_page: Open) -> None:
    """The page asks again by itself, and then has the text read."""
    watched = await open_page(BLANK)
    watched.url = daemon.url
    watched.expect(r"(answer|status of) 503")
    busy = {"error": "busy", "reason": "overloaded"}

    async def refuse(route: Route) -> None:
        await route.fulfill(status=503, headers={"Retry-After": "0"}, json=busy)

    await watched.page.route("**/v1/models", refuse, times=1)
    await watched.page.goto(daemon.url)
    await expect(Tagging(watched.page).marked.locator("mark").first).to_be_visible()
    assert watched.faults


async def test_little_limits(daemon: Daemon, open_page: Open) -> None:
    """A text is split so that each request fits; there is no command for a gRPC that is not there."""
    watched = await open_page(BLANK)
    watched.url, page = daemon.url, watched.page
    tagging, text, sizes = Tagging(page), TEXTS["plain"] * 40, list[int]()

    async def little(route: Route) -> None:
        said = await (await route.fetch()).json()
        said["grpc"]["port"] = None
        said["limits"] |= {"max_body_bytes": 1024, "max_client_batch_size": 1}
        await route.fulfill(json=said)

    await page.route("**/v1/server", little)
    page.on("request", lambda each: sizes.append(len(each.post_data_buffer or b"")))
    await page.goto(f"{daemon.url}/#/?model=wide")
    await tagging.put(text)
    assert await tagging.entities() == (
        text, entities_in(await answer(daemon.url, text, "wide"))
    )  # fmt: skip
    assert 0 < max(sizes) <= 1024
    await expect(page.get_by_role("button", name="Copy as curl")).to_be_visible()
    await expect(page.get_by_role("button", name="Copy as gRPC")).to_be_hidden()


async def test_far_too_many_entities(daemon: Daemon, open_page: Open) -> None:
    """All are counted; as JSON as many are shown as a browser bears."""
    watched = await open_page(daemon.url)
    page, tagging = watched.page, Tagging(watched.page)
    one = {"token": "a", "token_id": 0, "results": {"PER": 0.5}}
    found = [one | {"start": 2 * at, "end": 2 * at + 1} for at in range(MANY)]

    async def answer_much(route: Route) -> None:
        await route.fulfill(json=[found])

    await expect(tagging.marked.locator("mark").first).to_be_visible()
    await page.get_by_label("Split long text").uncheck()
    await tagging.done()
    await page.route("**/predict_tokens", answer_much)
    await tagging.show("JSON")
    panel = page.locator("#panel-json")  # roles take long to find among so many elements
    await tagging.drop("much.txt", "a " * MANY)
    await expect(page.locator(".summary")).to_have_text(f"{MANY:,} entities")
    await expect(panel.locator("p")).to_contain_text(f"The first {SHOWN:,} of {MANY:,}")
    (shown,) = parsed(await panel.locator("pre").text_content() or "")
    assert len(shown[0]) == SHOWN


async def test_a_label_without_end(daemon: Daemon, open_page: Open) -> None:
    """It has room in the text, the table and among the labels."""
    watched = await open_page(daemon.url)
    tagging = Tagging(watched.page)
    one = {"token": "a", "token_id": 0, "start": 0, "end": 1, "results": {"x" * 120: 0.5}}

    async def answer_oddly(route: Route) -> None:
        await route.fulfill(json=[[one]])

    await expect(tagging.marked.locator("mark").first).to_be_visible()
    await watched.page.route("**/predict_tokens", answer_oddly)
    await tagging.put("a b")
    await expect(tagging.results).to_contain_text("x" * 120)
    for view in ("Text", "Table"):
        await tagging.show(view)
        await fits(watched)


async def test_a_browser_that_keeps_nothing(locked: Locked, open_page: Open) -> None:
    """It has the key until the page is left. What cannot be a key is told, and not sent."""
    watched = await open_page(BLANK)
    watched.url = locked.daemon.url
    watched.expect(r"(answer|status of) 401")
    page = watched.page
    await page.add_init_script(NO_STORAGE)
    await page.goto(locked.daemon.url)
    dialog = page.get_by_role("dialog", name="API key")
    for key, taken in (("ключ", False), (locked.key, True)):
        await dialog.get_by_label("Key").fill(key)
        await dialog.get_by_role("button", name="Use the key").click()
        await expect(dialog).to_be_visible(visible=not taken)
    await expect(Tagging(page).results).to_contain_text("bert version 1")
    values: Any = await page.evaluate("() => document.getElementById('key-dialog').returnValue")
    assert values == ""


async def test_what_each_version_did(daemon: Daemon, open_page: Open) -> None:
    """The table of versions tells of runs that came after the page; the keyboard keeps its place."""
    page = (await open_page(daemon.url, "#/models")).page
    wide = page.get_by_role("article", name="wide", exact=True)
    versions = wide.get_by_text("2 versions")
    await versions.click()
    row = wide.get_by_role("row", name="1 Ready")
    before = await row.text_content()
    for _ in range(2):
        await answer(daemon.url, TEXTS["plain"], "wide", "1")
    await asyncio.gather(*(answer(daemon.url, TEXTS["plain"] * 9, "wide", "1") for _ in range(9)))
    await expect(row).not_to_have_text(before or "")
    await expect(versions).to_be_focused()


async def test_a_proxy_that_answers_itself(daemon: Daemon, open_page: Open) -> None:
    """A page where JSON should be is no fault of this one, which says so."""
    page = (await open_page(daemon.url)).page
    tagging = Tagging(page)
    await expect(tagging.marked.locator("mark").first).to_be_visible()

    async def log_in(route: Route) -> None:
        await route.fulfill(body="<html>log in</html>", content_type="text/html")

    await page.route("**/predict_tokens", log_in, times=1)
    await tagging.put(TEXTS["plain"])
    await expect(page.get_by_role("alert")).to_contain_text("The answer is no JSON")
