"""The page for people: who gets it, what it comes with, and what stays as it was."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest

from api.conftest import settings
from nerve.app import App
from nerve.frontend.http.dialect import SYNC
from nerve.frontend.http.playground import HEADERS, TYPES

if TYPE_CHECKING:
    from api.conftest import Client, Repository, Serve

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
FOLDER = files("nerve.frontend.http") / "static" / "playground"
FILES = sorted(each.name for each in FOLDER.iterdir() if each.name != "index.html")


class Page(HTMLParser):
    """What a page has a browser fetch, and what it must not have in it."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.inline: list[str] = []
        self._within = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect."""
        self._within = tag
        for name, value in attrs:
            if name == "src" or (name == "href" and tag == "link"):
                self.urls.append(value or "")
            if name == "style" or name.startswith("on"):
                self.inline.append(f"{tag} {name}")

    def handle_data(self, data: str) -> None:
        """Collect."""
        if self._within in ("script", "style") and data.strip():
            self.inline.append(data)

    def handle_endtag(self, tag: str) -> None:
        """Out of it again."""
        self._within = ""


@pytest.mark.parametrize("prefix", [each for each in SYNC if "{" not in each])
async def test_a_browser_gets_the_page(http: Client, prefix: str) -> None:
    """With nothing in it that its own policy forbids; and all that it wants is there, also below a
    prefix."""
    answer = await http.send("GET", f"{prefix}/", headers=BROWSER)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Vary"] == "Accept"
    page = Page()
    page.feed(answer.text)
    assert page.inline == []
    assert {each.rpartition(".")[2] for each in page.urls} >= {"css", "js"}
    for url in page.urls:
        assert re.fullmatch(r"playground/[\w.-]+", url), url
        got = await http.get(f"{prefix}/{url}")
        assert got.status == 200
        assert got.headers["Content-Type"] == TYPES["." + url.rpartition(".")[2]]


@pytest.mark.parametrize("name", FILES)
async def test_a_file(http: Client, name: str) -> None:
    """As it is in the package, with what browsers are told of it; links to others lead somewhere."""
    answer = await http.get(f"/playground/{name}")
    assert (answer.status, answer.body) == (200, (FOLDER / name).read_bytes())
    for header, value in HEADERS.items():
        assert answer.headers.getall(header) == [value]
    head = await http.send("HEAD", f"/playground/{name}")
    assert (head.status, head.body) == (200, b"")
    for header in ("Content-Type", "Content-Length", "Etag"):
        assert head.headers[header] == answer.headers[header]
    for imported in re.findall(r"""(?:from|import) *\(?["']([^"']+)["']""", answer.text):
        assert imported.removeprefix("./") in FILES, (name, imported)


async def test_nothing_is_asked_of_others() -> None:
    """No address of another host but of the names of XML."""
    for name in [*FILES, "index.html"]:
        text = (FOLDER / name).read_text(encoding="utf-8").replace("http://www.w3.org/", "")
        found = re.findall(r"https?://[^\s\"'`<>)]*", text)
        assert [each for each in found if "$" not in each and "localhost" not in each] == [], name


async def test_a_page_that_is_known_is_not_sent_again(http: Client) -> None:
    """It is asked for each time, so that a new server's page is never an old one's."""
    for path in ("/", f"/playground/{FILES[0]}"):
        first = await http.send("GET", path, headers=BROWSER)
        assert first.headers["Cache-Control"] == "no-cache"
        tag = first.headers["Etag"]
        for known in (tag, f'"other", W/{tag}', "*"):
            again = await http.send("GET", path, headers=BROWSER | {"If-None-Match": known})
            assert (again.status, again.body) == (304, b"")
            assert again.headers["Etag"] == tag
            assert again.headers["Content-Security-Policy"]
        other = await http.send("GET", path, headers=BROWSER | {"If-None-Match": '"other"'})
        assert (other.status, other.body) == (200, first.body)


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("text/html", 200),
        ("TEXT/HTML;charset=utf-8", 200),
        ("application/json, text/html;q=0.5", 200),
        ("text/html;q=0", 404),
        ("text/html; q=0.0, */*", 404),
        ("*/*", 404),
        ("text/*", 404),
        ("application/json", 404),
        ("application/x-text/html", 404),
        ("", 404),
        (None, 404),
    ],
)
async def test_who_is_a_browser(http: Client, accept: str | None, status: int) -> None:
    """Who names HTML; for others there is nothing at /, and it says so as ever."""
    headers = {"Accept": "*/*"} if accept is None else {"Accept": accept}
    for method in ("GET", "HEAD"):
        answer = await http.send(method, "/", headers=headers)
        assert answer.status == status
        if status == 404:
            assert answer.body == b""
            assert answer.headers["x-nerve-reason"] == "not_served"
            assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_find_nothing(http: Client, method: str) -> None:
    """As without a page: / is no path of an API."""
    answer = await http.send(method, "/", headers=BROWSER)
    assert (answer.status, answer.body) == (404, b"")
    assert "Allow" not in answer.headers


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            "index.html",
            "nope.js",
            ".",
            "..",
            "%2e%2e",
            "..%2f..%2fserver.py",
            "%2fetc%2fpasswd",
        ),
        *("..%5cserver.py", "app.js/x", "app.js%00", "APP.JS", "%00", "..%2fswagger-ui%2fLICENSE"),
    ],
)
async def test_other_files(http: Client, name: str) -> None:
    """Only what was found in the folder is served, by its very name."""
    answer = await http.send("GET", f"/playground/{name}", headers=BROWSER)
    assert (answer.status, answer.body) == (404, b"")


async def test_without_it(serve: Serve, repository: Repository) -> None:
    """Browsers find what everybody does; the API's documentation stays."""
    repository.add("ner")
    http = await serve(repository.path, disable_playground=True)
    for path in ("/", "/playground/app.js", f"/playground/{FILES[0]}"):
        answer = await http.send("GET", path, headers=BROWSER)
        assert (answer.status, answer.body) == (404, b"")
        assert answer.headers["x-nerve-reason"] == "not_served"
    assert (await http.get("/docs")).status == 200
    assert (await http.get("/v1/server")).status == 200


@pytest.mark.parametrize("how", ["mcp", "disable_http", "as ever"])
def test_where_there_is_none(repository: Repository, how: str) -> None:
    """A server of tools alone, and one without HTTP, have no page."""
    mcp = how == "mcp"
    config = settings(
        repository.path,
        disable_grpc=how != "disable_http",
        disable_http=how == "disable_http",
        enable_mcp=mcp,
    )
    app = App(config, announce=lambda _line: None, only_mcp=mcp).http_app
    paths = {route.resource.canonical for route in app.router.routes() if route.resource}
    assert "/livez" in paths
    assert ({"/", "/playground/{file}"} <= paths) == (how == "as ever")
    assert ("/" in paths) == ("/playground/{file}" in paths)
