"""Prometheus itself: it scrapes the daemon, loads our rules, and its own tool finds no fault."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from support import Daemon

BOUND_S = 60.0


def needed(program: str) -> str:
    """Its path; without it the test is skipped, or fails where every client is to be there."""
    path = shutil.which(program)
    if path is None:
        lacking = f"{program} is not installed (Debian: apt-get install prometheus)"
        if os.environ.get("TEST_CLIENTS") == "all":
            pytest.fail(lacking)
        pytest.skip(lacking)
    return path


async def run(*command: str, given: bytes = b"", cwd: Path | None = None) -> tuple[int, str]:
    """Exit code and all that it says."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(BOUND_S):
        said, _ = await process.communicate(given)
    return process.returncode or 0, said.decode()


@pytest.mark.parametrize("check", ["check rules nerve.rules.yml", "test rules nerve.test.yml"])
async def test_rules(root: Path, check: str) -> None:
    """They are well-formed; and each alert fires when it should, and not before."""
    folder = root / "deploy" / "prometheus"
    code, said = await run(needed("promtool"), *check.split(" "), cwd=folder)
    assert code == 0, said
    assert "SUCCESS" in said


async def test_documented_jobs(root: Path, tmp_path: Path) -> None:
    """Each is one that Prometheus takes, and has the name that the rules want."""
    page = (root / "docs" / "metrics.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        (job,) = yaml.safe_load(block)["scrape_configs"]
        assert job["job_name"] == "nerve"
        (tmp_path / "prometheus.yml").write_text(block)
        line = ("check", "config", "--syntax-only", "prometheus.yml")
        code, said = await run(needed("promtool"), *line, cwd=tmp_path)
        assert code == 0, said


def test_every_alert_has_a_test_and_a_runbook(root: Path) -> None:
    folder = root / "deploy" / "prometheus"
    groups = yaml.safe_load((folder / "nerve.rules.yml").read_text(encoding="utf-8"))["groups"]
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    tests = (folder / "nerve.test.yml").read_text(encoding="utf-8")
    assert len(alerts) >= 10
    for alert in alerts:
        assert alert["alert"] in tests
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert len(alert["annotations"]["runbook"]) > 80
        assert alert["annotations"]["summary"]


async def test_a_page_without_fault(bundled_daemon: Daemon) -> None:
    """Units, suffixes, help: as `promtool check metrics` wants them of our own metrics."""
    promtool = needed("promtool")
    async with aiohttp.ClientSession(bundled_daemon.url) as http:
        async with http.post("/predict", json={"inputs": ["Angela Merkel"]}) as answer:
            assert answer.status == 200
        async with http.get("/metrics") as answer:
            page = await answer.read()
    code, said = await run(promtool, "check", "metrics", given=page)
    assert (code, said.strip()) == (0, "")


@asynccontextmanager
async def prometheus(
    folder: Path, rules: Path, target: str
) -> AsyncIterator[aiohttp.ClientSession]:
    """One that scrapes `target` five times a second; a client of its API."""
    program = needed("prometheus")
    config = {
        "global": {"scrape_interval": "200ms", "evaluation_interval": "200ms"},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "nerve", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as free:  # it takes no port of the kernel's choice
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
            stdout=log,
            stderr=log,
        )
    try:
        async with aiohttp.ClientSession(f"http://{address}") as api:
            yield api
    except TimeoutError as error:
        sys.stderr.write((folder / "log").read_text())
        raise AssertionError("Prometheus did not get there in time") from error
    finally:
        if process.returncode is None:
            process.kill()  # its data is of no use
        await process.wait()


async def ask(api: aiohttp.ClientSession, path: str, **parameters: str) -> Any:
    """The data of an answer; None while nothing answers."""
    try:
        async with api.get(f"/api/v1/{path}", params=parameters) as answer:
            return (await answer.json())["data"] if answer.status == 200 else None
    except aiohttp.ClientConnectionError:
        return None


async def value(api: aiohttp.ClientSession, query: str) -> float | None:
    """The one sample that a query gives."""
    found = await ask(api, "query", query=query)
    return float(found["result"][0]["value"][1]) if found and found["result"] else None


async def test_it_scrapes_the_daemon(bundled_daemon: Daemon, root: Path, tmp_path: Path) -> None:
    """It is up, its counters go up as it is asked, and every rule can be evaluated."""
    rules = root / "deploy" / "prometheus" / "nerve.rules.yml"
    target = f"127.0.0.1:{bundled_daemon.ports['http']}"
    texts = 'nerve_texts_total{job="nerve", model="minilm-ner"}'
    async with (
        prometheus(tmp_path, rules, target) as api,
        aiohttp.ClientSession(bundled_daemon.url) as http,
        asyncio.timeout(BOUND_S),
    ):
        while await value(api, 'up{job="nerve"}') != 1 or await value(api, "nerve_ready") != 1:
            await asyncio.sleep(0.05)
        before = await value(api, texts) or 0
        async with http.post("/predict", json={"inputs": ["Angela Merkel", "Berlin"]}) as answer:
            assert answer.status == 200
        while (await value(api, texts) or 0) < before + 2:
            await asyncio.sleep(0.05)
        assert await value(api, 'ALERTS{alertname="NerveNotReady"}') is None
        while True:
            groups = (await ask(api, "rules"))["groups"]
            states = [rule for group in groups for rule in group["rules"]]
            if all(rule["health"] != "unknown" for rule in states):
                break
            await asyncio.sleep(0.05)
        assert [rule["name"] for rule in states if rule["health"] != "ok"] == []
        (target_told,) = (await ask(api, "targets"))["activeTargets"]
        assert target_told["lastError"] == ""
        kinds = (await ask(api, "metadata", metric="nerve_request_seconds"))[
            "nerve_request_seconds"
        ]
        assert kinds[0]["type"] == "histogram"
