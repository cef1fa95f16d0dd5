"""The README's curl lines and the example client, against the daemon on the bundled model."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support import Daemon


def requests(page: str) -> list[tuple[str, str, str | None, str]]:
    """(method, path, body, content type) of each curl line of a page."""
    found = []
    for line in re.findall(r"^curl (?:.*\\\n)*.*", page, flags=re.MULTILINE):
        words = shlex.split(line.replace("\\\n", " "), comments=True)
        url = next(word for word in words if word.startswith("http://localhost:8080"))
        body = words[words.index("-d") + 1] if "-d" in words else None
        kind = "application/json" if "-H" in words else "application/x-www-form-urlencoded"
        found.append(
            ("POST" if body else "GET", url.removeprefix("http://localhost:8080"), body, kind)
        )
    return found


async def asked(
    http: aiohttp.ClientSession, method: str, path: str, body: str | None, headers: dict[str, str]
) -> tuple[int, Any]:
    """The status and the JSON of an answer."""
    async with http.request(method, path, data=body, headers=headers) as response:
        return response.status, await response.json()


async def test_curl_lines(root: Path, bundled_daemon: Daemon) -> None:
    """Each answers 200 as curl would send it; the first answer is the one that is printed."""
    page = (root / "README.md").read_text(encoding="utf-8")
    sent = requests(page)
    assert len(sent) == 7
    answers: list[Any] = []
    accepted = ""
    async with aiohttp.ClientSession(bundled_daemon.url) as http:
        for method, path, body, kind in sent:
            own = path.replace("my-ner", "minilm-ner").replace("$REQUEST_ID", accepted)
            headers = {"Content-Type": kind} if body else {}
            async with asyncio.timeout(60):
                status, answer = await asked(http, method, own, body, headers)
                while status == 409:  # not answered yet
                    status, answer = await asked(http, method, own, body, headers)
            assert status == (201 if path == "/async_predict" else 200), (path, answer)
            accepted = answer.get("request_id", accepted) if isinstance(answer, dict) else accepted
            answers.append(answer)
    assert [entity["token"] for entity in answers[-1][0]] == ["Ada", "Charles", "London"]
    printed = json.loads(page.split("```json\n")[1].split("```")[0])
    assert [[(e["token"], *e["results"]) for e in text] for text in answers[0]] == [
        [(e["token"], *e["results"]) for e in text] for text in printed
    ]
    for mine, shown in zip(answers[0][0], printed[0], strict=True):
        (score,), (wanted,) = mine["results"].values(), shown["results"].values()
        assert score == pytest.approx(wanted, abs=1e-4)


async def test_example_client(root: Path, bundled_daemon: Daemon) -> None:
    script = str(root / "clients" / "examples" / "entities.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, script, "--url", bundled_daemon.url, "Ada Lovelace lived in London.",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert re.search(r"PER +Ada Lovelace ", out.decode())
    process = await asyncio.create_subprocess_exec(
        sys.executable, script, "--url", bundled_daemon.url, "--model", "nope", "x",
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, err = await process.communicate()
    assert process.returncode == 1
    assert "404: model 'nope' is not in the repository; it holds: minilm-ner" in err.decode()
