"""nerve.v1's ExtractStream: order, items that fail alone, clients that leave, the server's end."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import pytest_asyncio

from grpc_calls import BOUND_S, LISTENING, Caller, calling, port_of, refusal, trailers
from nerve._proto.nerve.v1 import nerve_pb2 as pb
from nerve.frontend.grpc.nerve_bulk import IN_FLIGHT

if TYPE_CHECKING:
    from pathlib import Path

    from api.conftest import Client

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORDS = ("german", "israel", "university", "company")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(
    tmp_path_factory: pytest.TempPathFactory, tiny_models: Path
) -> AsyncIterator[Client]:
    """`rule` is the default model; `patient` takes 10 s for one text, `picky` refuses most."""
    from api.conftest import Repository, serving  # noqa: PLC0415  for typing only above

    repository = Repository(tmp_path_factory.mktemp("streams"), tiny_models)
    repository.add_rule("rule")
    repository.add_picky("picky")
    repository.add_patient("patient", max_queue_size=1)
    async with serving(repository.path, default_model="rule", **LISTENING) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nerve(http: Client) -> AsyncIterator[Caller]:
    async with calling(port_of(http.server.announced)) as caller:
        yield caller


def message(*texts: str, **fields: Any) -> pb.ExtractStreamRequest:
    items = [pb.ExtractItem(id=f"{number}", text=text) for number, text in enumerate(texts)]
    return pb.ExtractStreamRequest(items=items, **fields)


async def send(call: Any, request: pb.ExtractStreamRequest | bytes) -> None:
    await call.write(request if isinstance(request, bytes) else request.SerializeToString())


async def receive(call: Any) -> pb.ExtractStreamResponse:
    async with asyncio.timeout(BOUND_S):
        body = await call.read()
    assert body is not grpc.aio.EOF, await call.details()  # type: ignore[attr-defined]  # not in the stubs
    return pb.ExtractStreamResponse.FromString(body)


async def answers(
    nerve: Caller, *requests: pb.ExtractStreamRequest, sent: Sequence[tuple[str, str]] = ()
) -> list[pb.ExtractStreamResponse]:
    """What a stream of `requests` gives; it must end well."""
    call = nerve.stream("ExtractStream", sent=sent)

    async def write() -> None:
        for request in requests:
            await send(call, request)
        await call.done_writing()

    writing = asyncio.create_task(write())
    found = [pb.ExtractStreamResponse.FromString(body) async for body in call]
    await writing
    assert await call.code() == grpc.StatusCode.OK
    return found


def outcomes(answer: pb.ExtractStreamResponse) -> list[tuple[str, str]]:
    """Of each item its id, and its entities' texts or its error's reason."""
    return [
        (
            result.id,
            result.error.reason
            if result.WhichOneof("outcome") == "error"
            else "+".join(entity.text for entity in result.entities.entities),
        )
        for result in answer.results
    ]


async def test_every_message_is_answered_in_order(nerve: Caller) -> None:
    """Many messages of many sizes, far more than are in flight; ids come back, entities too."""
    requests = [
        message(*(WORDS[(number + item) % 4] for item in range(1 + number % 7)))
        for number in range(300)
    ]
    requests.append(message(*["german"] * (IN_FLIGHT + 100)))  # more than that alone
    requests.append(message())
    found = await answers(nerve, *requests)
    assert [outcomes(answer) for answer in found] == [
        [(item.id, item.text) for item in request.items] for request in requests
    ]
    assert {(answer.model, answer.version) for answer in found[:-1]} == {("rule", "1")}


async def test_a_bad_item_fails_alone(nerve: Caller) -> None:
    """Empty, too long, a text that breaks the run, one whose scores are NaN: the rest is answered."""
    long = "german " * 300
    found = await answers(
        nerve,
        message("german", "", "israel"),
        message("", ""),
        message("german", long, options=pb.ExtractOptions(truncate=False)),
        message("german", long),
        message("german", "company early", "israel"),
        message("night", "university", "early", "german"),
        message("early"),
        message("german"),
    )
    assert [outcomes(answer) for answer in found] == [
        [("0", "german"), ("1", "empty_input"), ("2", "israel")],
        [("0", "empty_input"), ("1", "empty_input")],
        [("0", "german"), ("1", "text_too_long")],
        [("0", "german"), ("1", "+".join(["german"] * 126))],
        [("0", "german"), ("1", "inference_failed"), ("2", "israel")],
        [
            ("0", "non_finite_scores"),
            ("1", "university"),
            ("2", "inference_failed"),
            ("3", "german"),
        ],
        [("0", "inference_failed")],
        [("0", "german")],
    ]
    assert [answer.model for answer in found] == ["rule", "", *["rule"] * 4, "", "rule"]
    assert [answer.truncated_texts for answer in found] == [0, 0, 0, 1, 0, 0, 0, 0]
    error = found[0].results[1].error
    assert error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert error.message.startswith("items[1].text: at least one text is needed")
    assert error.retry_after_s == 0


async def test_a_tokenizer_that_fails_on_one_text(nerve: Caller) -> None:
    found = await answers(nerve, message("people", "strangers", model="picky"))
    (answer,) = found
    assert [reason for _, reason in outcomes(answer)][1] == "tokenization_failed"
    assert answer.results[0].WhichOneof("outcome") == "entities"


async def test_a_message_that_fails_as_a_whole(nerve: Caller) -> None:
    """An unknown model, a bad option, too many items: an error for each item; the stream goes on."""
    found = await answers(
        nerve,
        message("german", "israel", model="x"),
        message("german", "", version="3"),
        message("german", options=pb.ExtractOptions(threshold=7)),
        message("german", options=pb.ExtractOptions(labels=["XYZ"])),
        message(*["german"] * 1025),
        message("german"),
    )
    assert [outcomes(answer) for answer in found[:4]] == [
        [("0", "model_not_found"), ("1", "model_not_found")],
        [("0", "version_not_found"), ("1", "version_not_found")],
        [("0", "invalid_field")],
        [("0", "invalid_field")],
    ]
    assert {reason for _, reason in outcomes(found[4])} == {"too_many_inputs"}
    assert len(found[4].results) == 1025
    assert outcomes(found[5]) == [("0", "german")]
    errors = [answer.results[0].error for answer in found[:4]]
    assert [error.code for error in errors] == [5, 5, 3, 3]
    assert errors[2].message == "options.threshold: expected a score from 0 to 1, got 7"


async def test_a_message_of_far_too_many_items_ends_the_stream(nerve: Caller) -> None:
    """To tell each of them would be an answer of any size."""
    call = nerve.stream("ExtractStream")
    await send(call, message("german"))
    await send(call, b"\x22\x00" * 5000)
    await call.done_writing()
    assert outcomes(await receive(call)) == [("0", "german")]
    error = await refusal(call.read())
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "texts: 5000 texts in one request, at most 1024" in str(error.details())
    assert len(await answers(nerve, message("german"))) == 1


async def test_overload_is_told_by_item(http: Client, nerve: Caller) -> None:
    """A full queue: an error for the item with the seconds to wait; later messages are served."""
    waiting = nerve.start("Extract", pb.ExtractRequest(model="patient", texts=["a"]))
    await http.queued("patient", 1)
    answer, after = await answers(nerve, message("a", model="patient"), message("german"))
    assert {reason for _, reason in outcomes(answer)} == {"queue_full"}
    assert all(result.error.code == 8 for result in answer.results)  # RESOURCE_EXHAUSTED
    assert all(1 <= result.error.retry_after_s <= 60 for result in answer.results)
    assert outcomes(after) == [("0", "german")]
    waiting.cancel()
    await http.queued("patient", 0)


async def test_the_model_of_the_metadata(nerve: Caller) -> None:
    found = await answers(
        nerve, message("a", "b"), message("german", model="rule"), sent=[("model-name", "patient")]
    )
    assert [answer.model for answer in found] == ["patient", "rule"]


async def test_garbage_ends_the_stream_after_what_came_before(nerve: Caller) -> None:
    """INVALID_ARGUMENT, behind the answers to all that was sent before; the connection goes on."""
    call = nerve.stream("ExtractStream")
    await send(call, message("german", "israel"))
    await send(call, b"\x0a\x02\xff\xfe")
    assert outcomes(await receive(call)) == [("0", "german"), ("1", "israel")]
    error = await refusal(call.read())
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert trailers(error)["x-nerve-reason"] == "malformed_message"
    assert "nerve.v1.ExtractStreamRequest" in str(error.details())
    assert len(await answers(nerve, message("german"))) == 1


async def test_cancelled_in_mid_stream(http: Client, nerve: Caller) -> None:
    """What waits for a stream leaves the queue with it; others are not disturbed."""
    call = nerve.stream("ExtractStream")
    await send(call, message("a", model="patient"))
    await http.queued("patient", 1)
    call.cancel()
    await http.queued("patient", 0)
    assert len(await answers(nerve, message("german"), message("a", "b", model="patient"))) == 2


VANISH = """
import sys, time, grpc
def messages():
    yield bytes.fromhex(sys.argv[2])
    time.sleep(60)
channel = grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}")
for answer in channel.stream_stream("/nerve.v1.Nerve/ExtractStream")(messages()):
    pass
"""


async def test_a_client_that_vanishes_in_mid_stream(http: Client, nerve: Caller) -> None:
    """A process that is killed leaves nothing in the queue, nor a stream that is never counted."""
    body = message("a", model="patient").SerializeToString().hex()

    async def errors() -> float:
        return await http.metric("nerve_requests_total", dialect="nerve-grpc", status="cancelled")

    before = await errors()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", VANISH, str(port_of(http.server.announced)), body
    )
    try:
        await http.queued("patient", 1)
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()
    await http.queued("patient", 0)

    async def counted() -> bool:
        return await errors() == before + 1

    await http.until(counted)
    assert len(await answers(nerve, message("german"))) == 1


async def test_a_reader_that_is_slow_holds_up_itself_only(http: Client, nerve: Caller) -> None:
    """Nothing is read beyond what is in flight: a stream nobody reads from does not fill the server."""
    window = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65536)]
    wide = message(*["german " * 30] * IN_FLIGHT)  # its answer is larger than the window
    messages = 12
    before = int((await http.statistics("rule"))["rows"])
    async with calling(port_of(http.server.announced), options=window) as slow:
        call = slow.stream("ExtractStream")

        async def write() -> None:
            for _ in range(messages):
                await send(call, wide)
            await call.done_writing()

        async def rows() -> int:
            return int((await http.statistics("rule"))["rows"]) - before

        async def begun() -> bool:
            return await rows() >= IN_FLIGHT

        writing = asyncio.create_task(write())
        await http.until(begun)
        for _ in range(20):
            assert len(await answers(nerve, message("german"))) == 1  # meanwhile
        assert await rows() <= 3 * IN_FLIGHT
        found = [len(pb.ExtractStreamResponse.FromString(body).results) async for body in call]
        await writing
        assert found == [IN_FLIGHT] * messages
