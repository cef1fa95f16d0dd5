"""A page of headless Chromium in which nothing goes wrong unsaid: each fault becomes a line."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from playwright.async_api import ConsoleMessage, Dialog, Error, Page, Request, Response, WebSocket

INLINE: Final = ("data", "blob")
"""Schemes of addresses that are no request."""
GIVEN_UP: Final = "net::ERR_ABORTED"
"""By the page itself, which has something else to ask."""


@dataclass  # no slots: Playwright keeps something on handlers' objects
class Watched:
    """A page on `url`, which alone it may ask; `faults` should be empty in the end."""

    page: Page
    url: str
    faults: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    """`GET /path` of all that it asked, in order."""
    _expected: list[re.Pattern[str]] = field(default_factory=list)

    def watch(self) -> None:
        """Begin; before the page goes anywhere."""
        self.page.on("console", self._console)
        self.page.on("pageerror", self._uncaught)
        self.page.on("request", self._asked)
        self.page.on("requestfailed", self._failed)
        self.page.on("response", self._answered)
        self.page.on("websocket", self._socket)
        self.page.on("dialog", self._dialog)

    def expect(self, pattern: str) -> None:
        """Have faults in which this is found be none, as a test brings them about."""
        self._expected.append(re.compile(pattern))

    @property
    def unexpected(self) -> list[str]:
        """The faults that no test brought about."""
        return [
            each for each in self.faults if not any(known.search(each) for known in self._expected)
        ]

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning", "assert"):
            where = message.location.get("url", "")
            self.faults.append(f"console {message.type}: {message.text} ({where})")

    def _uncaught(self, error: Error) -> None:
        self.faults.append(f"uncaught: {error}")

    def _asked(self, request: Request) -> None:
        if urlsplit(request.url).scheme in INLINE:
            return
        own, path = request.url.startswith(f"{self.url}/"), request.url.removeprefix(self.url)
        self.requests.append(f"{request.method} {path}")
        if not own:
            self.faults.append(f"asked another host: {request.url}")

    def _failed(self, request: Request) -> None:
        if request.failure != GIVEN_UP:
            self.faults.append(f"failed: {request.method} {request.url}: {request.failure}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self.faults.append(
                f"answer {response.status}: {response.request.method} {response.url}"
            )

    def _socket(self, socket: WebSocket) -> None:
        self.faults.append(f"opened a socket: {socket.url}")

    async def _dialog(self, dialog: Dialog) -> None:
        self.faults.append(f"opened a box: {dialog.message}")
        await dialog.dismiss()
