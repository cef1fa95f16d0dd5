"""The line that a request leaves in the log, and the id that it is found by."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from api.conftest import Client, Repository, in_thread, settings
from grpc_calls import LISTENING, calling, port_of, refusal, trailers
from nerve._proto.nerve.v1 import nerve_pb2 as pb

SECRET = "Angela Merkel lives in Timbuktu"
OURS = re.compile(r"[0-9a-f]{32}")
HOSTILE = {
    "with spaces and\ttabs": "withspacesandtabs",
    "ünïcode-😀-7": "ncode--7",
    "x" * 5000: "x" * 128,
    "a;b=<c>&'d'": "a;b=<c>&'d'",
}
"""Request ids that a client may send, and what is left of them."""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Iterator[Any]:
    """A server that logs its requests."""
    repository = Repository(tmp_path_factory.mktemp("logged"), tiny_models)
    repository.add("ner")
    repository.add_patient("patient")
    with in_thread(settings(repository.path, access_log=True, **LISTENING)) as server:
        yield server


@pytest.fixture
async def http(port: Any) -> AsyncIterator[Client]:
    async with port.client() as client:
        yield client


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nerve.access")


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The fields of each line, and its message."""
    return [
        {**vars(each), "said": each.getMessage()}
        for each in caplog.records
        if each.name == "nerve.access"
    ]


async def test_what_a_line_says(http: Client, caplog: pytest.LogCaptureFixture) -> None:
    """What it was, how it ended, how long what took; nothing of the text, nor of the path as sent."""
    path = "/environments/of-mine/sync/v1/models/ner/predict_tokens?x=Timbuktu"
    answer = await http.post(path, {"inputs": [SECRET, "b"]}, headers={"x-request-id": "id-1"})
    assert answer.status == 200
    (line,) = lines(caplog)
    route = "/environments/{environment}/sync/v1/models/{model}/predict_tokens"
    assert line["said"] == f"POST {route} 200"
    expected = {
        "protocol": "http",
        "dialect": "baseten",
        "status": "200",
        "peer": "127.0.0.1",
        "request_id": "id-1",
        "model": "ner",
        "version": 1,
        "texts": 2,
        "sent_bytes": len(answer.body),
    }
    assert {name: line[name] for name in expected} == expected
    stages = ["tokenize_ms", "queue_ms", "infer_ms", "decode_ms"]
    assert all(line[name] >= 0 for name in stages)
    assert line["infer_ms"] > 0
    assert sum(line[name] for name in stages) <= line["total_ms"] + 0.01
    assert line["tokens"] > 4
    assert line["received_bytes"] > len(SECRET)
    assert "reason" not in line
    assert "trace_id" not in line
    assert not re.search("Timbuktu|of-mine|Angela", str(line))


async def test_refusals_and_callers_that_leave(
    http: Client, caplog: pytest.LogCaptureFixture
) -> None:
    await http.predict_tokens("a", model="none")
    await http.send("POST", "/of-nobody", data=b"{}")
    async with http.waiting(http.predict_tokens("a", model="patient")):
        await http.queued("patient", 1)

    def told() -> list[dict[str, Any]]:
        return [line for line in lines(caplog) if line["said"].startswith("POST")]

    async def all_three() -> bool:
        return len(told()) == 3

    await http.until(all_three)
    assert [(line["status"], line.get("reason")) for line in told()] == [
        ("404", "model_not_found"),
        ("404", "not_served"),
        ("cancelled", None),
    ]
    assert told()[1]["said"] == "POST - 404"
    assert told()[2]["model"] == "patient"


async def test_probes_are_only_told_at_level_debug(
    http: Client, caplog: pytest.LogCaptureFixture
) -> None:
    for level, count in ((logging.INFO, 0), (logging.DEBUG, 4)):
        caplog.clear()
        caplog.set_level(level, "nerve.access")
        for path in ("/livez", "/readyz", "/metrics", "/health"):
            assert (await http.get(path)).status == 200
        assert len(lines(caplog)) == count


@pytest.mark.parametrize("sent", sorted(HOSTILE))
async def test_an_id_comes_back_as_far_as_it_can(http: Client, sent: str) -> None:
    """By both names that clients have for it; printable ASCII, so much of it."""
    headers = {"x-baseten-customer-request-id": sent}
    answer = await http.predict_tokens("a", model="ner", headers=headers)
    assert answer.headers["x-baseten-customer-request-id"] == HOSTILE[sent]
    assert answer.headers["x-request-id"] == HOSTILE[sent]


async def test_who_has_no_id_gets_one(http: Client, caplog: pytest.LogCaptureFixture) -> None:
    """A refusal, too; each its own."""
    answers = [
        await http.predict_tokens("a", model="ner"),
        await http.predict_tokens("a", model="none"),
        await http.predict_tokens("a", model="ner", headers={"x-request-id": "\t \t"}),
    ]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert all(OURS.fullmatch(each) for each in ids)
    assert len(set(ids)) == 3
    assert [line["request_id"] for line in lines(caplog)] == ids


async def test_grpc(port: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with calling(port_of(port.announced)) as caller:
        call = caller.start("Extract", pb.ExtractRequest(model="ner", texts=[SECRET]))
        body = await call
        told = dict(await call.trailing_metadata())
        request = pb.ExtractRequest(model="none", texts=["a"])
        error = await refusal(caller.start("Extract", request, sent=(("x-request-id", "a b"),)))

    async def both() -> bool:  # a refusal's line comes after the refusal
        return len(lines(caplog)) == 2

    await Client.until(both)
    good, bad = lines(caplog)
    assert good["said"] == "grpc /nerve.v1.Nerve/Extract OK"
    assert bad["said"] == "grpc /nerve.v1.Nerve/Extract NOT_FOUND"
    assert good["request_id"] == told["x-request-id"]
    assert OURS.fullmatch(good["request_id"])
    assert (bad["request_id"], bad["reason"]) == ("ab", "model_not_found")
    assert trailers(error)["x-request-id"] == "ab"
    assert (good["model"], good["texts"], good["sent_bytes"]) == ("ner", 1, len(body))
    assert "traceparent" not in told
