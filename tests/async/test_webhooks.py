"""Messages: who signs them, what they say of requests that fail, and receivers that behave badly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from faults.mistreated import Served, calm, serving
from later import Later, Receiver

OLD, NEW, NEWEST = "the-old-secret-000", "the-new-secret-000", "the-newest-secret-000"
RETRIES = {"max_attempts": 3, "initial_delay_ms": 50, "max_delay_ms": 100}
MENDED = "function Postprocess(scores) return scores end\n"
pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(slots=True)
class Signing:
    """A daemon that signs with two secrets, waits for a webhook for 1 s, and sends twice at most."""

    daemon: Served
    later: Later
    secrets: Path
    receiver: Receiver

    async def submit(self, path: str, *, model: str | None = None, **fields: object) -> str:
        """A text for the webhook of that path."""
        hook = f"{self.receiver.url}{path}"
        return await self.later.submit(
            "Ada lived in London", model=model, webhook_endpoint=hook, **fields
        )

    def rss_bytes(self) -> int:
        """Memory of the daemon's process."""
        pages = Path(f"/proc/{self.daemon.process.pid}/statm").read_text().split()[1]
        return int(pages) * 4096


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def signing(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, receiver: Receiver
) -> AsyncIterator[Signing]:
    folder = tmp_path_factory.mktemp("signing")
    log, secrets = folder / "stderr", folder / "secrets"
    secrets.write_text(f"{OLD}\n{NEW}\n")
    secrets.chmod(0o600)
    arguments = (
        "--async-store", str(folder / "jobs.db"), "--default-model", "bert",
        "--async-webhook-networks", "127.0.0.0/8", "--async-webhook-secrets-file", str(secrets),
        "--async-webhook-attempts", "2", "--async-webhook-timeout", "1",
        "--settle-seconds", "0.1",
    )  # fmt: skip
    async with (
        serving(repository, log, *arguments) as daemon,
        aiohttp.ClientSession(daemon.url) as http,
    ):
        yield Signing(daemon, Later(http), secrets, receiver)
        daemon.terminate()
        assert await daemon.ended() == 0
    calm(log.read_text())


async def test_both_secrets_sign(signing: Signing) -> None:
    """Until the operator takes one away: a changed file is taken up while the daemon runs."""
    message = await signing.receiver.first(await signing.submit("/ok"))
    assert message.signed_by(OLD, NEW)
    assert not message.signed_by(NEW, OLD)
    signing.secrets.write_text(f"{NEWEST}\n")
    async with asyncio.timeout(60):
        while True:
            message = await signing.receiver.first(await signing.submit("/ok"))
            if message.signed_by(NEWEST):
                break
            assert message.signed_by(OLD, NEW)
            await asyncio.sleep(0.2)


async def test_a_poison_request_fails_after_its_attempts(signing: Signing) -> None:
    """It tells why, in its status and to its webhook; it is not tried for ever."""
    request_id = await signing.submit("/ok", model="poison", inference_retry_config=RETRIES)
    told = await signing.later.until(request_id, "FAILED", webhook="SUCCEEDED")
    (error,) = told["errors"]
    assert error["code"] == "MODEL_PREDICT_ERROR"
    assert "it is broken" in error["message"]
    message = (await signing.receiver.first(request_id)).told
    assert (message["data"], message["errors"]) == (None, [error])
    status, body = await signing.later.result(request_id)
    assert status == 409
    assert f"is FAILED: {error['message']}" in body["error"]
    async with signing.later.http.get("/metrics") as answer:
        page = await answer.text()
    attempts = {
        outcome: float(
            page.split(f'nerve_async_attempts_total{{outcome="{outcome}"}} ')[1].split()[0]
        )
        for outcome in ("retried", "failed")
    }
    assert attempts == {"retried": RETRIES["max_attempts"] - 1, "failed": 1}


async def test_what_can_never_be_answered_is_tried_once(signing: Signing) -> None:
    """A text that is too long is only seen when it is tokenized."""
    body = {"inputs": ["word " * 600], "truncate": False}
    told = await signing.later.send("POST", "/async_predict", {"model_input": body})
    ended = await signing.later.until(told[1]["request_id"], "FAILED")
    assert [each["code"] for each in ended["errors"]] == ["MODEL_INVALID_INPUT"]
    assert "tokens" in ended["errors"][0]["message"]


async def test_a_model_that_is_mended_answers(signing: Signing, repository: Path) -> None:
    """A request that failed is tried again with the model as it is by then."""
    patient = {"max_attempts": 10, "initial_delay_ms": 300, "max_delay_ms": 60_000}
    request_id = await signing.submit("/ok", model="poison", inference_retry_config=patient)
    async with asyncio.timeout(60):
        while not (await signing.later.status(request_id))["errors"]:
            await asyncio.sleep(0.05)
    (repository / "poison" / "transform.lua").write_text(MENDED)
    told = await signing.later.until(request_id, "SUCCEEDED", webhook="SUCCEEDED")
    assert (await signing.receiver.first(request_id)).told["errors"] == told["errors"]


async def test_receivers_that_behave_badly(signing: Signing) -> None:
    """Each costs bounded time and memory, and the others get theirs; one that recovers gets it, too."""
    later, receiver = signing.later, signing.receiver
    before = signing.rss_bytes()
    ids = {
        path: await signing.submit(path)
        for path in ("/hang", "/redirect", "/fails", "/flaky", "/endless")
    }
    good = await signing.submit("/ok")
    assert (await later.until(good, "SUCCEEDED", webhook="SUCCEEDED"))["errors"] == []
    ends = {
        path: await later.until(request_id, "SUCCEEDED", "WEBHOOK_FAILED", webhook=webhook)
        for path, request_id in ids.items()
        for webhook in ["SUCCEEDED" if path in ("/flaky", "/endless") else "FAILED"]
    }
    said = {
        "/hang": "the webhook did not answer within 1 s",
        "/redirect": "the webhook answered 307: redirects are not followed",
        "/fails": "the webhook answered 500",
    }
    for path, words in said.items():
        assert ends[path]["status"] == "WEBHOOK_FAILED"
        assert ends[path]["errors"][-1]["code"] == "WEBHOOK_FAILED"
        assert ends[path]["errors"][-1]["message"].startswith(words)
    tries = {path: len(receiver.of(request_id)) for path, request_id in ids.items()}
    assert tries == {"/hang": 2, "/redirect": 1, "/fails": 2, "/flaky": 2, "/endless": 1}
    assert receiver.sent_bytes < 64 * 2**20  # of 2 GiB
    assert signing.rss_bytes() - before < 64 * 2**20
    assert (await later.result(ids["/fails"]))[0] == 200  # what was not taken can be fetched


@pytest.mark.parametrize("path", ["/async_predict", "/async/v1/models/bert/predict_tokens"])
async def test_elsewhere_than_allowed(signing: Signing, path: str) -> None:
    """One network is; the others beside the internet stay closed."""
    body = {"model_input": {"inputs": "Ada"}, "webhook_endpoint": "http://10.0.0.1/"}
    status, told = await signing.later.send("POST", path, body)
    assert (status, told["error_type"]) == (422, "Validation")
    assert told["error"].startswith("webhook_endpoint: '10.0.0.1' is asked by plain http, nor in a")
    assert told["error"].endswith("--async-webhook-networks")
