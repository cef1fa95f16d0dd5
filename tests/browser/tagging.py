"""The view that tags a text, by what its user sees: roles and names, never classes."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

import aiohttp
from playwright.async_api import Page, expect

READ: Final = """(root) => {
    const found = [];
    let text = "";
    const walk = (node) => {
        if (node.nodeType === Node.TEXT_NODE) { text += node.data; return; }
        const start = text.length;
        node.childNodes.forEach(walk);
        if (node.localName === "mark") {
            found.push([start, text.length, node.dataset.label, Number(node.dataset.score)]);
        }
    };
    walk(root);
    return [text, found];
}"""
DROP: Final = """(node, [name, text]) => {
    const data = new DataTransfer();
    data.items.add(new File([text], name, { type: "text/plain" }));
    for (const type of ["dragover", "drop"]) {
        node.dispatchEvent(new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
    }
}"""


class Entity(NamedTuple):
    """As both sides tell it; `start` and `end` in code points."""

    text: str
    label: str
    score: float
    start: int
    end: int


class Tagging:
    """The page, when it shows this view."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.text = page.get_by_role("textbox", name="Text", exact=True)
        self.results = page.get_by_role("region", name="Entities")
        self.marked = page.get_by_role("group", name="Text with entities")
        self.model = page.get_by_label("Model", exact=True)
        self.version = page.get_by_label("Version", exact=True)
        self.strategy = page.get_by_label("Strategy", exact=True)
        self.threshold = page.get_by_role("slider", name="Threshold")

    async def done(self) -> None:
        """Wait until no request is under way; what runs one says so at once."""
        await expect(self.results).to_have_attribute("aria-busy", "false")

    async def put(self, text: str) -> None:
        """Have a text tagged."""
        await self.text.fill(text)
        await self.text.press("Control+Enter")
        await self.done()

    async def drop(self, name: str, text: str) -> None:
        """Drop a file on the text."""
        await self.text.evaluate(DROP, [name, text])

    async def entities(self) -> tuple[str, list[Entity]]:
        """The text with the entities that are marked in it, by their place among the characters."""
        text, found = await self.marked.evaluate(READ)
        points = code_points(text)
        return text, [
            Entity(text[points[start] : points[end]], label, score, points[start], points[end])
            for start, end, label, score in found
        ]

    async def show(self, view: str) -> None:
        """Choose Text, Table or JSON."""
        await self.page.get_by_role("tab", name=view).click()

    async def json(self) -> list[Any]:
        """The answers that are shown as JSON, one a request."""
        await self.show("JSON")
        shown = self.page.get_by_role("tabpanel", name="JSON").locator("pre")
        answers = parsed(await shown.text_content() or "")
        await self.show("Text")
        return answers

    async def copied(self, kind: str) -> str:
        """What `Copy as …` puts on the clipboard."""
        await self.page.get_by_role("button", name=f"Copy as {kind}").click()
        await expect(self.page.get_by_text(f"Copied as {kind}")).to_be_visible()
        text: str = await self.page.evaluate("() => navigator.clipboard.readText()")
        return text


def code_points(text: str) -> dict[int, int]:
    """Code points before each place that is counted in UTF-16 units."""
    places, units = {}, 0
    for at, character in enumerate(text):
        places[units] = at
        units += 1 + (character > "\uffff")
    return places | {units: len(text)}


def parsed(text: str) -> list[Any]:
    """JSON documents, one after the other."""
    documents, decoder, rest = [], json.JSONDecoder(), text.lstrip()
    while rest:
        document, end = decoder.raw_decode(rest)
        documents.append(document)
        rest = rest[end:].lstrip()
    return documents


async def answer(url: str, text: str, model: str, version: str = "", **body: Any) -> Any:
    """The body that POST predict_tokens answers."""
    place = f"{url}/v1/models/{model}" + (f"/versions/{version}" if version else "")
    async with aiohttp.ClientSession() as http:
        sent = {"inputs": [text], "aggregation_strategy": "max", **body}
        async with http.post(f"{place}/predict_tokens", json=sent) as answered:
            assert answered.status == 200, await answered.text()
            return json.loads(await answered.read())


def entities_in(body: Any) -> list[Entity]:
    """Those of an answer for one text."""
    (found,) = body
    return [
        Entity(each["token"], label, score, each["start"], each["end"])
        for each in found
        for label, score in each["results"].items()
    ]
