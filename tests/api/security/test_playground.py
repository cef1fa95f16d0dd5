"""The page where keys are wanted: it can be had without one, and what it asks for cannot."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import pytest

from api.security.conftest import sent

if TYPE_CHECKING:
    from api.conftest import Client

BROWSER = {"Accept": "text/html"}


async def test_the_page_needs_no_key_and_tells_nothing(http: Client) -> None:
    """A browser cannot send one with an address; the files are those of the package."""
    folder = files("nerve.frontend.http") / "static" / "playground"
    for path, name in (("/", "index.html"), ("/playground/favicon.svg", "favicon.svg")):
        answer = await http.send("GET", path, headers=BROWSER)
        assert (answer.status, answer.body) == (200, (folder / name).read_bytes())
        assert "WWW-Authenticate" not in answer.headers
    assert (await http.send("GET", "/", headers=BROWSER | sent("nobody"))).status == 200


async def test_others_need_one_as_ever(http: Client) -> None:
    """Whoever is no browser learns only with a key that there is nothing at /."""
    assert (await http.get("/")).status == 401
    assert (await http.send("GET", "/", headers=sent("read"))).status == 404
    assert (await http.send("POST", "/", headers=BROWSER)).status == 401


@pytest.mark.parametrize("path", ["/v1/server", "/v1/metrics", "/v1/metrics?name=nope"])
async def test_what_the_page_asks_for_needs_one(http: Client, path: str) -> None:
    """With the scope `read`."""
    found = 422 if "nope" in path else 200
    assert (await http.get(path)).status == 401
    assert (await http.send("GET", path, headers=sent("predict"))).status == 403
    answer = await http.send("GET", path, headers=sent("read"))
    assert answer.status == found
    if path == "/v1/server":
        assert answer.json()["keys"] is True
