"""What browsers are told, with keys and without."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING

import pytest

from api.conftest import Repository
from api.security.conftest import SITE, sent

if TYPE_CHECKING:
    from api.conftest import Answer, Client, Serve, Server


async def preflight(http: Client, path: str, origin: str) -> Answer:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    return await http.send("OPTIONS", path, headers=headers)


async def test_pages_that_may_ask(http: Client) -> None:
    """The browser's own question needs no key; answers, and refusals, can be read."""
    for path in ("/predict", "/v2/models/bert/infer", "/nowhere"):
        answer = await preflight(http, path, SITE)
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Origin"] == SITE
        assert answer.headers["Access-Control-Allow-Headers"] == "authorization,content-type"
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
        assert "Access-Control-Allow-Credentials" not in answer.headers
    for key, status in (("predict", 200), ("nobody", 401)):
        headers = {"Origin": SITE, **sent(key)}
        answer = await http.post("/predict", {"inputs": ["a"]}, headers=headers)
        assert answer.status == status
        assert answer.headers["Access-Control-Allow-Origin"] == SITE
        assert "Origin" in answer.headers.getall("Vary")
        exposed = answer.headers["Access-Control-Expose-Headers"].lower().split(", ")
        assert {"x-nerve-model", "retry-after", "x-request-id"} <= set(exposed)


async def test_pages_that_may_not(http: Client) -> None:
    """They get no header, but those who keep answers learn that it hangs on who asks."""
    answer = await preflight(http, "/predict", "https://evil.example")
    assert answer.status == 401
    for headers in ({"Origin": "https://evil.example"}, {}):
        answer = await http.post("/predict", {"inputs": ["a"]}, headers=headers | sent("predict"))
        assert answer.status == 200
        assert not [name for name in answer.headers if name.startswith("Access-Control")]
        assert answer.headers["Vary"] == "Origin"


async def test_mcp_has_its_own_list(http: Client) -> None:
    answer = await preflight(http, "/mcp", SITE)
    assert answer.status == 403


async def test_a_tool_call_with_a_key(http: Client) -> None:
    message = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    headers = {"Accept": "application/json, text/event-stream", **sent("predict")}
    answer = await http.post("/mcp", message, headers=headers)
    assert answer.status != 401, answer.text


async def test_every_answer_has_headers(http: Client, keyed: Server) -> None:
    for path in ("/livez", "/nowhere", "/docs", "/docs/swagger-ui.css"):
        answer = await http.send("GET", path, headers=sent("read"))
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Server"] == "nerve"
        cached = "max-age=86400" if path.endswith(".css") else "no-store"
        assert answer.headers["Cache-Control"] == cached
        assert "Strict-Transport-Security" not in answer.headers
    headers = {"Content-Type": "application/json", **sent("predict")}
    answer = await http.post(
        "/v2/models/bert/generate_stream", {"text_input": "London"}, headers=headers
    )
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_the_page_runs_only_its_own_script(http: Client) -> None:
    answer = await http.send("GET", "/docs", headers=sent("read"))
    (script,) = re.findall("<script>(.*?)</script>", answer.text)
    told = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = answer.headers["Content-Security-Policy"]
    assert f"'sha256-{told}'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "default-src 'none'" in policy


async def test_the_document_tells_of_keys(http: Client) -> None:
    document = (await http.send("GET", "/openapi.json", headers=sent("read"))).json()
    assert document["components"]["securitySchemes"] == {
        "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    predict = document["paths"]["/predict"]["post"]
    assert predict["security"] == [{"bearer": ["predict"]}, {"header": ["predict"]}]
    assert {"401", "403", "429"} <= set(predict["responses"])
    assert document["paths"]["/livez"]["get"]["security"] == []


@pytest.mark.parametrize("allowed", [False, True])
async def test_a_form_of_another_site_changes_nothing(
    repository: Repository, serve: Serve, allowed: bool
) -> None:
    """Such a request needs no preflight. Ours, and programs, may load models where that is on."""
    repository.add("bert")
    origins = ["https://evil.example"] if allowed else []
    http = await serve(repository.path, allow_model_control=True, cors_allowed_origins=origins)
    path = "/v2/repository/models/bert/load"
    own = f"http://127.0.0.1:{http.server.port}"
    for headers, status in (
        ({}, 200),
        ({"Origin": own}, 200),
        ({"Origin": "https://evil.example"}, 200 if allowed else 403),
        ({"Origin": "null"}, 403),
    ):
        answer = await http.send(
            "POST", path, data=b"{}", headers=headers, content_type="text/plain"
        )
        assert answer.status == status, (headers, answer.text)
        if status == 403:
            assert answer.headers["x-nerve-reason"] == "foreign_origin"
    answer = await http.post("/predict", {"inputs": ["a"]}, headers={"Origin": "https://a.example"})
    assert answer.status == 200


async def test_by_default_no_page_may_ask(http_open: Client) -> None:
    answer = await preflight(http_open, "/predict", SITE)
    assert answer.status == 405
    assert not [name for name in answer.headers if name.startswith("Access-Control")]
    answer = await http_open.post("/predict", {"inputs": ["a"]}, headers={"Origin": SITE})
    assert answer.status == 200
    assert "Vary" not in answer.headers
    assert not [name for name in answer.headers if name.startswith("Access-Control")]
    document = (await http_open.get("/openapi.json")).json()
    assert "securitySchemes" not in document["components"]


async def test_log_settings_are_not_for_everybody(http_open: Client) -> None:
    before = (await http_open.get("/v2/logging")).json()
    answer = await http_open.post("/v2/logging", {"log_error": False})
    assert answer.status == 409
    assert answer.headers["x-nerve-reason"] == "log_control_disabled"
    assert (await http_open.get("/v2/logging")).json() == before
    assert (await http_open.post("/v2/logging", before)).status == 200  # it is so already


@pytest.fixture
async def http_open(repository: Repository, serve: Serve) -> Client:
    repository.add("bert")
    return await serve(repository.path)
