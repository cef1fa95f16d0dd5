"""The harness itself: a page on which something goes wrong is told of."""

from __future__ import annotations

from aiohttp import web
from aiohttp.test_utils import TestServer

from browser.conftest import Open

PAGE = "<!doctype html><html lang=en><title>x</title><link rel=icon href='data:,'><p>here</p>"
POLICY = {"Content-Security-Policy": "script-src 'self'"}
FAULTS = {
    "answer 404": "<link rel=stylesheet href=/none.css>",
    "asked another host": "<img src=http://example.com/x.png alt=x>",
    "console error": "<script src=/said.js></script>",
    "script-src": "<script>document.title = 'inline'</script>",
    "uncaught": "<script src=/thrown.js></script>",
}
SCRIPTS = {"/said.js": "console.error('said')", "/thrown.js": "throw new Error('thrown')"}


async def test_faults_are_told(open_page: Open) -> None:
    """Each kind, from a page of its own; one without a fault has none."""

    async def answer(request: web.Request) -> web.Response:
        if (script := SCRIPTS.get(request.path)) is not None:
            return web.Response(text=script, content_type="text/javascript")
        if request.path == "/":
            more = FAULTS.get(request.query_string.replace("%20", " "), "")
            return web.Response(text=PAGE + more, content_type="text/html", headers=POLICY)
        raise web.HTTPNotFound

    app = web.Application()
    app.router.add_get("/{tail:.*}", answer)
    async with TestServer(app) as server:
        url = str(server.make_url("")).rstrip("/")
        watched = await open_page(url)
        assert watched.faults == []
        assert watched.requests == ["GET /"]
        for kind, _ in sorted(FAULTS.items()):
            before = len(watched.faults)
            await watched.page.goto(f"{url}/?{kind}", wait_until="load")
            told = watched.faults[before:]
            assert any(kind in each for each in told), (kind, told)
        watched.expect(".")
