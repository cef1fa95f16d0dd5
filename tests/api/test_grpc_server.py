"""What the gRPC server does around its services: limits, health, reflection, connections."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from grpc_calls import BOUND_S, LISTENING, Caller, calling, port_of, refusal, trailers
from nerve._proto.encoderfile import token_classification_pb2 as encoderfile
from nerve._proto.nerve.v1 import nerve_pb2 as pb
from nerve.frontend.grpc.reading import STRANGERS

if TYPE_CHECKING:
    from api.conftest import Client, Repository, Serve

ENCODERFILE = "encoderfile.token_classification.TokenClassificationInference"
HEALTH = "grpc.health.v1.Health"
REFLECTIONS = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
OURS = (ENCODERFILE, HEALTH, "nerve.v1.Nerve", *REFLECTIONS)
STATES = health_pb2.HealthCheckResponse


@pytest.fixture
async def http(repository: Repository, serve: Serve) -> Client:
    repository.add("bert")
    return await serve(repository.path, **LISTENING)


async def works(caller: Caller) -> None:
    request = pb.ExtractRequest(texts=["a"])
    assert len((await caller.call("Extract", request, pb.ExtractResponse)).results) == 1


async def test_a_message_of_100_mb(http: Client) -> None:
    """RESOURCE_EXHAUSTED without being read, and the connection goes on; so for a compressed one."""
    async with calling(port_of(http.server.announced)) as caller:
        await works(caller)
        huge = bytes(100_000_000)
        error = await refusal(caller.start("Extract", huge))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "(100000000 vs. 67108864)" in str(error.details())
        error = await refusal(
            caller.start("Extract", huge, compression=grpc.Compression.Gzip, timeout=60)
        )
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        await works(caller)

    async def both_counted() -> bool:
        refused = {"dialect": "nerve-grpc", "status": "ERROR"}
        return await http.metric("nerve_requests_total", **refused) == 2

    await http.until(both_counted)


async def test_the_limit_is_a_setting(repository: Repository, serve: Serve) -> None:
    repository.add("bert")
    http = await serve(repository.path, max_infer_bytes=2048, **LISTENING)
    async with calling(port_of(http.server.announced)) as caller:
        request = pb.ExtractRequest(texts=["x" * 3000])
        error = await refusal(caller.start("Extract", request))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        await works(caller)


async def test_encoderfile_has_its_own_limit(http: Client) -> None:
    """4 MiB to the byte, with the code and the text of its contract."""
    limit = 4 * 1024 * 1024

    def sized(size: int) -> bytes:
        request = encoderfile.TokenClassificationRequest(inputs=["a"])
        request.metadata["k"] = "x" * (size - 20)
        request.metadata["k"] += "x" * (size - request.ByteSize())
        assert request.ByteSize() == size
        return request.SerializeToString()

    async with calling(port_of(http.server.announced), ENCODERFILE) as caller:
        answer = encoderfile.TokenClassificationResponse
        assert len((await caller.call("Predict", sized(limit), answer)).results) == 1
        error = await refusal(caller.start("Predict", sized(limit + 1)))
        assert error.code() == grpc.StatusCode.OUT_OF_RANGE
        assert error.details() == (
            "Error, decoded message length too large: found 4194305 bytes, "
            "the limit is: 4194304 bytes"
        )


async def checked(health: Caller, service: str) -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    return int((await health.call("Check", request, STATES)).status)


async def test_health_follows_models(repository: Repository, serve: Serve) -> None:
    """Check and Watch of a model over load, unload and removal; of the server and its services."""
    folder = repository.add("bert")
    repository.add("other")
    http = await serve(
        repository.path, model_control_mode="explicit", load_model=["other"], **LISTENING
    )

    async def control(model: str, what: str) -> None:
        answer = await http.post(f"/v2/repository/models/{model}/{what}", {})
        assert answer.status == 200, answer

    async with calling(port_of(http.server.announced), HEALTH) as health, asyncio.timeout(BOUND_S):
        for service in ("", *OURS, "other"):
            assert await checked(health, service) == STATES.SERVING
        assert await checked(health, "bert") == STATES.NOT_SERVING
        missing = health_pb2.HealthCheckRequest(service="missing")
        assert (await refusal(health.start("Check", missing))).code() == grpc.StatusCode.NOT_FOUND

        stub = health_pb2_grpc.HealthStub(health.channel)

        def watch(service: str) -> Any:
            return stub.Watch(health_pb2.HealthCheckRequest(service=service))

        watched = {name: watch(name) for name in ("", "bert", "missing")}

        async def told(service: str) -> int:
            return int((await watched[service].read()).status)

        assert await told("") == STATES.SERVING
        assert await told("bert") == STATES.NOT_SERVING
        assert await told("missing") == STATES.SERVICE_UNKNOWN
        await control("bert", "load")
        assert await told("bert") == STATES.SERVING
        assert await checked(health, "bert") == STATES.SERVING
        await control("bert", "unload")
        assert await told("bert") == STATES.NOT_SERVING
        await control("other", "unload")
        repository.add("missing")
        await control("missing", "load")
        while (state := await told("missing")) != STATES.SERVING:
            assert state == STATES.NOT_SERVING
        shutil.rmtree(folder)
        assert (await http.post("/v2/repository/index", {})).status == 200  # looks again
        assert await told("bert") == STATES.SERVICE_UNKNOWN
        bert = health_pb2.HealthCheckRequest(service="bert")
        assert (await refusal(health.start("Check", bert))).code() == grpc.StatusCode.NOT_FOUND
        for call in watched.values():
            call.cancel()


async def test_reflection(http: Client) -> None:
    """A real client finds every service and its methods, with nothing of our code."""

    def described(port: int) -> dict[str, list[str]]:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            pool = DescriptorPool(database)
            return {
                name: [
                    f"{method.name}({method.input_type.full_name})"
                    for method in pool.FindServiceByName(name).methods
                ]
                for name in database.get_services()
            }

    found = await asyncio.to_thread(described, port_of(http.server.announced))
    assert set(OURS) <= set(found)
    assert "Extract(nerve.v1.ExtractRequest)" in found["nerve.v1.Nerve"]
    assert found[REFLECTIONS[0]] == [
        "ServerReflectionInfo(grpc.reflection.v1.ServerReflectionRequest)"
    ]
    served = {each.name for each in http.server.app._doors._grpc._services}  # type: ignore[union-attr]
    assert set(found) == served


@pytest.mark.parametrize("service", REFLECTIONS)
async def test_both_versions_of_reflection(http: Client, service: str) -> None:
    """Tools ask for v1 first; what they ask for and get is the same on the wire."""
    requests: Sequence[tuple[dict[str, Any], str]] = (
        ({"list_services": ""}, "list_services_response"),
        ({"file_containing_symbol": "nerve.v1.Nerve.Extract"}, "file_descriptor_response"),
        ({"file_by_filename": "grpc/reflection/v1/reflection.proto"}, "file_descriptor_response"),
        ({"file_containing_symbol": "nerve.v1.Nothing"}, "error_response"),
        ({}, "error_response"),
    )
    async with calling(port_of(http.server.announced), service) as caller:
        call = caller.stream("ServerReflectionInfo")
        for fields, expected in requests:
            request = reflection_pb2.ServerReflectionRequest(**fields)
            await call.write(request.SerializeToString())
            answer = reflection_pb2.ServerReflectionResponse.FromString(await call.read())
            assert answer.WhichOneof("message_response") == expected
        await call.done_writing()
        assert await call.code() == grpc.StatusCode.OK


PINGING = (
    ("grpc.keepalive_time_ms", 50),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_retries", 0),
)


@pytest.mark.parametrize(("interval_s", "stays"), [(0.0, True), (60.0, False)])
async def test_pings_of_idle_clients(
    repository: Repository, serve: Serve, interval_s: float, stays: bool
) -> None:
    """A client may ping as often as the setting says, without calls; who pings more is sent away."""
    repository.add("bert")
    http = await serve(repository.path, grpc_min_ping_interval_s=interval_s, **LISTENING)
    async with calling(port_of(http.server.announced), options=PINGING) as caller:
        await works(caller)
        ready = grpc.ChannelConnectivity.READY
        assert caller.channel.get_state() == ready
        changed = asyncio.create_task(caller.channel.wait_for_state_change(ready))
        await asyncio.wait([changed], timeout=1.0 if stays else BOUND_S)  # 20 pings
        assert changed.done() is not stays
        changed.cancel()
        await asyncio.gather(changed, return_exceptions=True)
        await works(caller)


async def test_connections_of_a_greatest_age(repository: Repository, serve: Serve) -> None:
    """An old connection is closed; the client makes a new one and notices nothing."""
    repository.add("bert")
    http = await serve(repository.path, grpc_max_connection_age_s=1.0, **LISTENING)
    async with calling(port_of(http.server.announced)) as caller, asyncio.timeout(BOUND_S):
        await works(caller)
        await caller.channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        await works(caller)


async def test_a_text_that_is_too_long_for_headers(repository: Repository, serve: Serve) -> None:
    """What an error says may hold names of any length; the client still gets its status."""
    for number in range(100):
        folder = repository.path / f"ü{number:03d}{'x' * 80}"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({}))
    repository.add("bert")
    http = await serve(repository.path, **LISTENING)
    async with calling(port_of(http.server.announced)) as caller:
        error = await refusal(caller.start("GetModel", pb.GetModelRequest(model="x")))
        assert error.code() == grpc.StatusCode.NOT_FOUND
        assert str(error.details()).startswith("model 'x' is not in the repository; it holds: bert")
        assert str(error.details()).endswith("…")


PROBES = (
    (HEALTH, "Check"),
    ("inference.GRPCInferenceService", "ServerLive"),
    ("inference.GRPCInferenceService", "ServerReady"),
    ("inference.GRPCInferenceService", "ModelReady"),
)


def unknown(size: int) -> bytes:
    """A message of so many bytes in a field that none has; at least 128 and less than 2 MiB."""
    body = size - 4
    return bytes([0x7A, body & 127 | 128, body >> 7 & 127 | 128, body >> 14]) + bytes(body)


async def test_where_little_is_to_be_said(http: Client) -> None:
    """A message of a probe, for which nobody needs a key, is short, and is let go else."""
    port = port_of(http.server.announced)
    for service, method in PROBES:
        async with calling(port, service) as caller:
            if method != "ModelReady":  # which wants a name
                await caller.start(method, unknown(4096))
            error = await refusal(caller.start(method, unknown(4097)))
            assert error.code() is grpc.StatusCode.OUT_OF_RANGE
            assert "4097 bytes, at most 4096" in str(error.details())
    async with calling(port, HEALTH) as caller:
        call = caller.stream("Watch")
        await call.write(unknown(4097))
        assert await call.code() is grpc.StatusCode.OUT_OF_RANGE
    async with calling(port) as caller:
        error = await refusal(caller.start("ListModels", unknown(2**16 + 1)))
        assert error.code() is grpc.StatusCode.OUT_OF_RANGE


async def test_probes_that_do_not_come_give_way(http: Client) -> None:
    """Of messages that nobody needs a key for, only some are read at a time."""
    async with calling(port_of(http.server.announced), HEALTH) as caller:
        channel: Any = caller.channel
        slow = [channel.stream_unary(f"/{HEALTH}/Check")(timeout=BOUND_S) for _ in range(STRANGERS)]
        await asyncio.gather(*(call.wait_for_connection() for call in slow))
        for _ in range(3):
            assert await checked(caller, "") == STATES.SERVING

        async def gave_way() -> bool:
            return any(call.done() for call in slow)

        await http.until(gave_way)
        ended = [call for call in slow if call.done()]
        assert {await call.code() for call in ended} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        for call in slow:
            call.cancel()


async def test_watches_are_limited(http: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is told so; one that ends makes room."""
    monkeypatch.setattr("nerve.frontend.grpc.health.MAX_WATCHES", 2)
    async with calling(port_of(http.server.announced), HEALTH) as caller:

        async def watching() -> Any:
            call = caller.stream("Watch")
            await call.write(b"")
            return call, await call.read()

        first, answer = await watching()
        assert STATES.FromString(answer).status == STATES.SERVING
        await watching()
        error = await refusal(watching())
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "2 calls of Watch" in str(error.details())
        first.cancel()

        async def room() -> bool:
            with suppress(grpc.aio.AioRpcError):
                await watching()
                return True
            return False

        await http.until(room)


async def test_messages_count_and_calls_before_theirs(repository: Repository, serve: Serve) -> None:
    """Against the limits of the whole server; a place is taken, or refused, before a message is read,
    and not for ever."""
    repository.add("bert")
    repository.add_patient("patient")
    limits: dict[str, Any] = {"max_requests_in_flight": 2, "max_bytes_in_flight": 1024}
    http = await serve(
        repository.path, default_model="bert", body_timeout_s=1, **limits, **LISTENING
    )
    held = http.server.app._guard
    async with calling(port_of(http.server.announced)) as caller:
        large = pb.ExtractRequest(model="patient", texts=["x " * 800])
        patient = caller.start("Extract", large)

        async def there() -> bool:
            return held.held_bytes > 1024  # alone it may be over the limit

        await http.until(there)
        error = await refusal(caller.start("Extract", pb.ExtractRequest(texts=["a"])))
        assert trailers(error)["x-nerve-reason"] == "server_busy"
        assert "1024 bytes of requests" in str(error.details())
        stream = caller.stream("ExtractStream")
        await stream.write(unknown(200))
        assert await stream.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        channel: Any = caller.channel
        unsaid = channel.stream_unary("/nerve.v1.Nerve/Extract")
        waits = unsaid(timeout=BOUND_S)

        async def full() -> bool:
            return held.full

        await http.until(full)
        error = await refusal(unsaid(timeout=BOUND_S))
        assert "2 requests in flight" in str(error.details())
        error = await refusal(waits)
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert trailers(error)["x-nerve-reason"] == "body_timeout"
        patient.cancel()

        async def free() -> bool:
            return (held.requests, held.held_bytes) == (0, 0)

        await http.until(free)
        await works(caller)


SETTINGS_FRAME = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


async def test_connections_are_limited(repository: Repository, serve: Serve) -> None:
    """One too many is closed at once, an idle one after a while."""
    repository.add("bert")
    limits: dict[str, Any] = {"grpc_max_connections": 2, "grpc_max_connection_idle_s": 1}
    http = await serve(repository.path, **limits, **LISTENING)
    port = port_of(http.server.announced)

    async def connected() -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(SETTINGS_FRAME)
        return reader, writer, await reader.read(1)

    async with asyncio.timeout(BOUND_S):
        ends = [await connected() for _ in range(2)]
        assert all(first for _, _, first in ends)
        with suppress(ConnectionError):
            reader, writer, first = await connected()
            ends.append((reader, writer, first))
            assert first == b""
        for reader, _, _ in ends[:2]:
            while await reader.read(65536):
                pass
        for _, writer, _ in ends:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        async with calling(port) as caller:
            await works(caller)
            await caller.channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
            await works(caller)
