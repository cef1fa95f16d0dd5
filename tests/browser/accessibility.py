"""What axe-core, the usual judge of accessible pages, finds wrong with one."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Final

from playwright.async_api import Page

RULES: Final = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
RUN: Final = """async (rules) => {
    const {violations} = await axe.run(document, {runOnly: rules, resultTypes: ["violations"]});
    return violations.flatMap(({id, help, nodes}) =>
        nodes.map(({target, any, all, none}) => [id, help, target.join(" "),
            ...[...any, ...all, ...none].map((each) => each.message)].join(" | ")));
}"""


CONTRAST: Final = ("color-contrast", "link-in-text-block")
"""Rules that depend on the theme."""


async def violations(page: Page, rules: Sequence[str] = RULES) -> list[str]:
    """A line for each element that breaks a rule: of WCAG 2.2 AA, or of good practice."""
    if not await page.evaluate("() => 'axe' in window"):
        await page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text("utf-8"))
    found: list[str] = await page.evaluate(RUN, list(rules))
    return found
