"""Messages to webhooks: what they say, how often they are sent, and where never; by real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

import pytest
import trustme
from aiohttp import web
from aiohttp.test_utils import TestServer

from job_tools import (
    PATIENCE_S,
    QUICK,
    Receiver,
    Worker,
    job_config,
    new_job,
    receiving,
    running,
    signed,
    until,
)
from nerve.errors import InferenceFailed
from nerve.jobs.records import Status, WebhookStatus
from nerve.jobs.webhook import NotTaken, Webhooks

HERE = [ip_network("127.0.0.0/8"), ip_network("::1/128")]
SECRET, NEWER = "a-secret-of-16-and-more", "another-secret-of-that-kind"
MEBIBYTE = 2**20


@asynccontextmanager
async def sending(*networks: object, timeout_s: float = PATIENCE_S) -> AsyncIterator[Webhooks]:
    """A client for messages."""
    webhooks = Webhooks(networks, timeout_s=timeout_s, connections=4)  # type: ignore[arg-type]
    try:
        yield webhooks
    finally:
        await webhooks.aclose()


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


@asynccontextmanager
async def talking(talk: Talk) -> AsyncIterator[str]:
    """A receiver that is no server of HTTP, or a bad one."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await reader.readuntil(b"\r\n\r\n")
            await talk(reader, writer)  # type: ignore[misc]
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def test_a_message_is_as_baseten_documents_it(tmp_path: Path) -> None:
    """And its signature is of the bytes that were sent, by each of the secrets."""
    secrets = tmp_path / "secrets"
    secrets.write_text(f"{SECRET}\n{NEWER}\n")
    secrets.chmod(0o600)
    config = job_config(tmp_path, async_webhook_secrets_file=str(secrets))
    async with receiving(Receiver()) as receiver:
        job = new_job(webhook=receiver.url)
        async with running(config, Worker(b'[[{"token":"Z\xc3\xbcrich"}]]')) as jobs:
            await jobs.service.submit(job)
            record = await jobs.ended(job.request_id)
    assert (record.status, record.webhook_status) == (Status.SUCCEEDED, WebhookStatus.SUCCEEDED)
    [(body, headers)], [message] = receiver.got, receiver.messages()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", message.pop("time"))
    assert message == {
        "request_id": job.request_id,
        "model_id": "ner",
        "deployment_id": "7",
        "type": "async_request_completed",
        "data": [[{"token": "Zürich"}]],
        "errors": [],
    }
    assert headers["Content-Type"] == "application/json"
    assert headers["X-BASETEN-REQUEST-ID"] == job.request_id
    assert headers["X-BASETEN-SIGNATURE"] == signed(body, [SECRET, NEWER])
    assert int(headers["Content-Length"]) == len(body)
    assert jobs.value("nerve_async_deliveries_total", outcome="succeeded") == 1


async def test_a_failure_is_told_without_a_signature_where_there_is_no_secret(
    tmp_path: Path,
) -> None:
    error = InferenceFailed("ner", "broken")
    async with receiving(Receiver()) as receiver:
        job = new_job(webhook=receiver.url, max_attempts=1)
        async with running(job_config(tmp_path), Worker(error)) as jobs:
            await jobs.service.submit(job)
            record = await jobs.ended(job.request_id)
    assert (record.status, record.webhook_status) == (Status.FAILED, WebhookStatus.SUCCEEDED)
    [message] = receiver.messages()
    assert message["data"] is None
    assert message["errors"] == [{"code": "MODEL_PREDICT_ERROR", "message": str(error)}]
    assert "X-BASETEN-SIGNATURE" not in receiver.got[0][1]


@pytest.mark.parametrize(
    ("statuses", "tries", "taken"),
    [
        ([500, 503, 204], 3, True),
        ([408, 429, 201], 3, True),
        ([500], 3, False),
        ([404], 1, False),
        ([301], 1, False),
        ([307], 1, False),
    ],
)
async def test_how_often_a_message_is_sent(
    tmp_path: Path, statuses: list[int], tries: int, *, taken: bool
) -> None:
    """What was answered stays to be asked for where its webhook did not take it."""
    config = job_config(tmp_path, async_webhook_attempts=3)
    async with receiving(Receiver(statuses)) as receiver:
        job = new_job(webhook=receiver.url)
        async with running(config, Worker()) as jobs:
            await jobs.service.submit(job)
            record = await jobs.ended(job.request_id)
            assert await jobs.service.result(job.request_id, None) == b'[["fine"]]'
    assert len(receiver.got) == tries
    assert len({body for body, _ in receiver.got}) == 1
    if taken:
        assert record.webhook_status is WebhookStatus.SUCCEEDED
        assert record.errors == ()
        return
    assert record.webhook_status is WebhookStatus.FAILED
    assert record.status is Status.WEBHOOK_FAILED
    assert f"answered {statuses[0]}" in record.errors[-1].message
    assert "s3cret" not in str(record.errors)


async def test_deliveries_go_on_after_a_restart(tmp_path: Path) -> None:
    """Also of a message that was being sent: at least once."""
    config = job_config(tmp_path)
    async with receiving(Receiver(gate=asyncio.Event())) as receiver:
        job = new_job(webhook=receiver.url)
        async with running(config, Worker(), close_s=0.0) as jobs:
            await jobs.service.submit(job)
            async with asyncio.timeout(PATIENCE_S):
                while not receiver.got:
                    await asyncio.sleep(0.01)
        assert receiver.gate is not None
        receiver.gate.set()
        async with running(config, Worker()) as jobs:
            record = await jobs.ended(job.request_id)
    assert record.webhook_status is WebhookStatus.SUCCEEDED
    assert [each["request_id"] for each in receiver.messages()] == [job.request_id] * 2


async def test_a_receiver_that_hangs_does_not_hold_up_others(tmp_path: Path) -> None:
    """However many messages wait for it; and it gets them all in the end, none used up a try."""
    config = job_config(
        tmp_path, async_webhook_connections=4, async_webhook_attempts=1, async_max_in_progress=16
    )
    hanging, good = Receiver(gate=asyncio.Event()), Receiver()
    async with receiving(hanging), receiving(good), running(config, Worker()) as jobs:
        pending = [new_job(webhook=hanging.url) for _ in range(40)]
        for job in pending:
            await jobs.service.submit(job)
        async with asyncio.timeout(PATIENCE_S):
            while not hanging.got:
                await asyncio.sleep(0.01)
        quick = [new_job(webhook=good.url) for _ in range(5)]
        for job in quick:
            await jobs.service.submit(job)
        for job in quick:
            record = await jobs.ended(job.request_id)
            assert record.webhook_status is WebhookStatus.SUCCEEDED
        assert len(hanging.got) == 1
        assert hanging.gate is not None
        hanging.gate.set()
        for job in pending:
            record = await jobs.ended(job.request_id)
            assert record.webhook_status is WebhookStatus.SUCCEEDED
    told = [each["request_id"] for each in hanging.messages()]
    assert sorted(told) == sorted(job.request_id for job in pending)


async def test_what_was_put_off_for_too_long_is_given_up(tmp_path: Path) -> None:
    """Or it would be kept for as long as its receiver is slow."""
    config = job_config(tmp_path, async_webhook_connections=4)
    pace = QUICK._replace(given_up_s=0.0)
    hanging = Receiver(gate=asyncio.Event())
    async with receiving(hanging), running(config, Worker(), pace=pace, close_s=0.0) as jobs:
        made = [new_job(webhook=hanging.url) for _ in range(3)]
        for job in made:
            await jobs.service.submit(job)

        async def told() -> bool:
            counted = jobs.value("nerve_async_deliveries_total", outcome="failed")
            return counted == 2

        await until(told)
        records = [await jobs.service.status(job.request_id, None) for job in made]
    failed = [each for each in records if each.webhook_status is WebhookStatus.FAILED]
    assert len(failed) == 2
    assert {each.errors[-1].message for each in failed} == {
        "the webhook's server has been too slow for all that is sent to it"
    }
    assert len(hanging.got) == 1


async def hangs(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def trickles_headers(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: y\r\n")
        await writer.drain()
        await asyncio.sleep(0.1)


async def only_continues(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("talk", [hangs, trickles_headers, only_continues])
async def test_a_receiver_that_never_ends_its_head_costs_the_time_limit(talk: Talk) -> None:
    async with talking(talk) as url, sending(*HERE, timeout_s=0.3) as webhooks:
        with pytest.raises(NotTaken, match=r"did not answer within 0\.3 s") as caught:
            await webhooks.post(url, b"{}", {})
    assert caught.value.again


async def floods_headers(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: " + b"y" * 4096 + b"\r\n")
        await writer.drain()


async def floods_one_header(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        writer.write(b"y" * 4096)
        await writer.drain()


async def babbles(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    await writer.drain()


async def leaves(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


@pytest.mark.parametrize("talk", [floods_headers, floods_one_header, babbles, leaves])
async def test_what_is_no_answer_of_http_is_cut_off(talk: Talk) -> None:
    async with talking(talk) as url, sending(*HERE) as webhooks:
        with pytest.raises(NotTaken) as caught:
            await webhooks.post(url, b"{}", {})
    assert caught.value.again


async def test_an_answer_of_two_gigabytes_is_not_read() -> None:
    """The receiver gets rid of what the sockets hold, and no more."""
    written, cut_off = 0, asyncio.Event()

    async def streams(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2147483648\r\n\r\n")
        try:
            while written < 2**31:
                writer.write(bytes(64 * 1024))
                await writer.drain()
                written += 64 * 1024
        except ConnectionError:
            cut_off.set()

    async with talking(streams) as url, sending(*HERE) as webhooks:
        await webhooks.post(url, b"{}", {})
        async with asyncio.timeout(PATIENCE_S):
            await cut_off.wait()
    assert written < 64 * MEBIBYTE


async def test_a_receiver_that_does_not_read_costs_the_time_limit() -> None:
    async with talking(hangs) as url, sending(*HERE, timeout_s=0.5) as webhooks:
        with pytest.raises(NotTaken, match="did not answer"):
            await webhooks.post(url, bytes(32 * MEBIBYTE), {})


async def test_a_large_message_arrives_whole_over_one_connection() -> None:
    """And the connection serves the next one."""
    peers = []

    async def take(request: web.Request) -> web.Response:
        assert request.transport is not None
        peers.append(request.transport.get_extra_info("peername"))
        return web.Response(text=str(len(await request.read())))

    app = web.Application(client_max_size=2**30)
    app.router.add_post("/", take)
    async with TestServer(app) as server, sending(*HERE) as webhooks:
        for size in (3 * MEBIBYTE, 10):
            await webhooks.post(str(server.make_url("/")), bytes(size), {})
    assert len(peers) == 2
    assert len(set(peers)) == 1


async def test_nobody_there_is_tried_again() -> None:
    async with receiving(Receiver()) as receiver:
        pass
    async with sending(*HERE) as webhooks:
        with pytest.raises(NotTaken, match="takes no connection") as caught:
            await webhooks.post(receiver.url, b"{}", {})
    assert caught.value.again


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1", "[::1]", "[::ffff:127.0.0.1]"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_what_is_not_allowed_is_not_reached(scheme: str, host: str) -> None:
    """Whatever was checked before: a name may mean another address by now. No byte is sent."""
    reached = asyncio.Event()

    async def notes(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        reached.set()

    server = await asyncio.start_server(notes, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, sending(ip_network("10.0.0.0/8")) as webhooks:
        with pytest.raises(NotTaken, match="--async-webhook-networks") as caught:
            await webhooks.post(f"{scheme}://{host}:{port}/", b"{}", {})
    assert not caught.value.again
    assert "127.0.0.1" not in str(caught.value).replace(host.strip("[]"), "")
    assert not reached.is_set()


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would reach what we may not, and look names up themselves."""
    async with receiving(Receiver()) as proxy, receiving(Receiver()) as receiver:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        async with sending(*HERE) as webhooks:
            await webhooks.post(receiver.url, b"{}", {})
    assert (len(proxy.got), len(receiver.got)) == (0, 1)


async def test_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An authority of one's own is named by SSL_CERT_FILE."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.take)
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=context)
    try:
        for host, trusted, fault in (
            ("localhost", False, "no safe connection.*issuer"),
            ("127.0.0.1", True, "no safe connection.*mismatch"),
            ("localhost", True, None),
        ):
            if trusted:
                authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
                monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
            refused = pytest.raises(NotTaken, match=fault)
            async with sending(*HERE) as webhooks:
                with contextlib.nullcontext() if fault is None else refused:
                    await webhooks.post(f"https://{host}:{server.port}/hook", b"{}", {})
    finally:
        await server.close()
    assert len(receiver.got) == 1
