"""Debian's Chromium and daemons to look at, shared by all tests here; each test has its own context."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from browser.copied import install_grpcurl
from browser.repositories import write_models
from browser.watched import Watched
from clients.separate import cannot
from nerve.security.keys import new_key
from support import Daemon, running_server

PROGRAMS: Final = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PATIENCE_MS: Final = 60_000
FLAGS: Final = ("--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
Open = Callable[..., Awaitable[Watched]]
"""`await open_page(daemon.url, "#/models", viewport=…)`: a watched page that has loaded."""

expect.set_options(timeout=PATIENCE_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests here run in the loop that the browser's connection belongs to."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Headless, with no host to be found but this one."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        cannot("chromium is not installed (Debian: apt-get install chromium-headless-shell)")
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield running
        await running.close()


@pytest_asyncio.fixture(loop_scope="session")
async def open_page(browser: Browser) -> AsyncIterator[Open]:
    """Opens watched pages; in the end none of them may have a fault that the test did not expect."""
    watched: list[Watched] = []
    contexts = []

    async def opened(url: str, where: str = "", **options: Any) -> Watched:
        context = await browser.new_context(
            permissions=["clipboard-read", "clipboard-write"],
            **{
                "viewport": {"width": 1000, "height": 700},
                "reduced_motion": "reduce",
                "locale": "en-US",
            }
            | options,
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = Watched(await context.new_page(), url)
        page.watch()
        watched.append(page)
        await page.page.goto(f"{url}/{where}")
        return page

    yield opened
    for context in contexts:
        await context.close()
    assert [each.unexpected for each in watched] == [[] for _ in watched]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def daemon(
    tmp_path_factory: pytest.TempPathFactory, bundled: Path, tiny_models: Path
) -> AsyncIterator[Daemon]:
    """In explicit mode: the bundled model and `wide`, which are loaded, `broken`, and `spare`, which
    tests load and unload."""
    folder = write_models(tmp_path_factory.mktemp("more") / "repository", tiny_models)
    models = [f"--load-model={name}" for name in ("broken", "minilm-ner", "wide")]
    flags = ("--model-control-mode", "explicit", "--default-model", "minilm-ner")
    async with running_server(str(bundled), str(folder), *flags, *models) as running:
        yield running


@dataclass(frozen=True)
class Locked:
    """A server that asks for keys and lets nobody load, with a key that may see and ask."""

    daemon: Daemon
    key: str


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def locked(
    tmp_path_factory: pytest.TempPathFactory, tiny_models: Path
) -> AsyncIterator[Locked]:
    """On one tiny model, without model control."""
    folder = tmp_path_factory.mktemp("locked")
    shutil.copytree(tiny_models / "bert", folder / "repository" / "bert")
    key, digest = new_key()
    entry = {"name": "page", "sha256": digest, "scopes": ["predict", "read"]}
    (folder / "keys.json").write_text(json.dumps({"keys": [entry]}))
    flags = ("--api-keys-file", str(folder / "keys.json"))
    async with running_server(str(folder / "repository"), *flags) as running:
        yield Locked(running, key)


async def let_in(watched: Watched, key: str) -> None:
    """Give the key that the page asks for."""
    watched.expect(r"(answer|status of) 401")
    dialog = watched.page.get_by_role("dialog", name="API key")
    await dialog.get_by_label("Key").fill(key)
    await dialog.get_by_role("button", name="Use the key").click()
    await expect(dialog).to_be_hidden()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where what is copied is run; there are curl, and grpcurl or what stands in for it."""
    if shutil.which("curl") is None or shutil.which("bash") is None:
        cannot("curl and bash are needed (Debian: apt-get install curl)")
    if shutil.which("grpcurl") is None:
        install_grpcurl(tmp_path)
    return tmp_path
