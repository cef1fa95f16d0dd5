"""ModelInfer and ModelStreamInfer, message by message (contract: kserve-v2, 7 and 10)."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
import pytest_asyncio

from grpc_calls import Caller, calling, refusal, trailers
from nerve._proto.inference import inference_pb2 as pb

if TYPE_CHECKING:
    from pathlib import Path

    from api.conftest import Client

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVICE = "inference.GRPCInferenceService"
GRPC: dict[str, Any] = {"disable_grpc": False, "grpc_hostname": "127.0.0.1", "grpc_port": 0}
TEXTS = ["german music", "israel university", "nothing"]
Input = pb.ModelInferRequest.InferInputTensor
Output = pb.ModelInferRequest.InferRequestedOutputTensor
Contents = pb.InferTensorContents


def port_of(http: Client) -> int:
    (line,) = [line for line in http.server.announced if "gRPC" in line]
    return int(line.rpartition(":")[2])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(
    tmp_path_factory: pytest.TempPathFactory, tiny_models: Path
) -> AsyncIterator[Client]:
    """Models `rule`, `bert` (with token_type_ids), `distilbert` (without)."""
    from api.conftest import Repository, serving  # noqa: PLC0415  for typing only above

    repository = Repository(tmp_path_factory.mktemp("v2"), tiny_models)
    repository.add_rule("rule")
    repository.add("bert", version=1)
    repository.add("distilbert", of="distilbert", version=1)
    repository.add_patient("patient", max_queue_size=1)
    async with serving(repository.path, default_model="rule", **GRPC) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def v2(http: Client) -> AsyncIterator[Caller]:
    async with calling(port_of(http), SERVICE) as caller:
        yield caller


def framed(*texts: str) -> bytes:
    parts = [text.encode() for text in texts]
    return b"".join(struct.pack("<I", len(each)) + each for each in parts)


def asked(*texts: str, model: str = "rule", **more: Any) -> pb.ModelInferRequest:
    """A request for the text view, its content raw."""
    tensor = Input(name="TEXT", datatype="BYTES", shape=[len(texts), 1])
    return pb.ModelInferRequest(
        model_name=model, inputs=[tensor], raw_input_contents=[framed(*texts)], **more
    )


def raw(rows: list[list[int]], model: str = "bert.raw", **masks: list[list[int]]) -> Any:
    """A request for the raw view, its contents in fields."""
    tensors = {"input_ids": rows, **masks}
    return pb.ModelInferRequest(
        model_name=model,
        inputs=[
            Input(
                name=name,
                datatype="INT64",
                shape=[len(values), len(values[0])],
                contents=Contents(int64_contents=[each for row in values for each in row]),
            )
            for name, values in tensors.items()
        ],
    )


async def infer(v2: Caller, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    return await v2.call("ModelInfer", request, pb.ModelInferResponse)


def documents(answer: pb.ModelInferResponse, output: int = 0) -> list[Any]:
    """The JSON documents of an output."""
    blob, found = answer.raw_output_contents[output], []
    while blob:
        (length,) = struct.unpack_from("<I", blob)
        found.append(json.loads(blob[4 : 4 + length]))
        blob = blob[4 + length :]
    return found


def logits(answer: pb.ModelInferResponse) -> Any:
    shape = list(answer.outputs[0].shape)
    return np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(shape)


async def test_entities_are_those_of_predict_tokens(http: Client, v2: Caller) -> None:
    page = (await http.predict_tokens(TEXTS, aggregation_strategy="simple")).json()
    answer = await infer(v2, asked(*TEXTS, id="7"))
    assert (answer.model_name, answer.model_version, answer.id) == ("rule", "1", "7")
    assert [(each.name, each.datatype, list(each.shape)) for each in answer.outputs] == [
        ("ENTITIES", "BYTES", [3, 1])
    ]
    assert not answer.outputs[0].HasField("contents")
    assert documents(answer) == [
        [
            {
                "text": each["token"],
                "label": label,
                "start": each["start"],
                "end": each["end"],
                "score": score,
            }
            for each in text
            for label, score in each["results"].items()
        ]
        for text in page
    ]
    assert documents(answer)[2] == []


async def test_contents_and_flat_shapes_are_taken(v2: Caller) -> None:
    """And answered in the shape that was asked in."""
    wanted = documents(await infer(v2, asked(*TEXTS)))
    tensor = Input(name="TEXT", datatype="BYTES", shape=[3])
    tensor.contents.bytes_contents.extend(text.encode() for text in TEXTS)
    answer = await infer(v2, pb.ModelInferRequest(model_name="rule", inputs=[tensor]))
    assert list(answer.outputs[0].shape) == [3]
    assert documents(answer) == wanted


async def test_labels_and_tokens_when_named(v2: Caller) -> None:
    """In the order in which they are named; label and token of the same place belong together."""
    outputs = [Output(name="TOKENS"), Output(name="LABELS"), Output(name="ENTITIES")]
    answer = await infer(v2, asked(*TEXTS, outputs=outputs))
    assert [each.name for each in answer.outputs] == ["TOKENS", "LABELS", "ENTITIES"]
    tokens, labels, entities = (documents(answer, at) for at in range(3))
    assert [each["token"] for each in tokens[0]] == ["german", "music"]
    assert labels[0] == ["B-PER", "O"]
    assert [(each["start"], each["end"]) for each in tokens[0]] == [(0, 6), (7, 12)]
    assert entities == documents(await infer(v2, asked(*TEXTS)))


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ({}, [["german"], ["israel", "university"], []]),
        ({"labels": "WORK-OF-ART"}, [[], ["university"], []]),
        ({"labels": " PER , WORK-OF-ART"}, [["german"], ["israel", "university"], []]),
        ({"threshold": 0.985}, [[], ["university"], []]),
        (
            {"aggregation": "none", "ignore_labels": ""},
            [["german", "music"], None, ["not", "hing"]],
        ),
        ({"priority": 1, "timeout": 10_000_000}, [["german"], None, []]),
        ({"sequence_id": 3, "sequence_start": True}, [["german"], None, []]),
        ({"triton_enable_empty_final_response": True}, [["german"], None, []]),
    ],
)
async def test_parameters(v2: Caller, parameters: dict[str, Any], found: list[Any]) -> None:
    request = asked(*TEXTS)
    for name, value in parameters.items():
        kind = {bool: "bool", int: "int64", float: "double", str: "string"}[type(value)]
        setattr(request.parameters[name], f"{kind}_param", value)
    got = [[each["text"] for each in text] for text in documents(await infer(v2, request))]
    for one, other in zip(got, found, strict=True):
        assert other is None or one == other


async def test_the_raw_view_pads_and_cuts(v2: Caller) -> None:
    """Rows of different lengths in one batch: each has the logits that it has alone."""
    rows, mask = [[2, 7, 9, 3], [2, 11, 3, 0]], [[1, 1, 1, 1], [1, 1, 1, 0]]
    types = [[0, 0, 1, 1], [0, 0, 0, 0]]
    answer = await infer(v2, raw(rows, attention_mask=mask, token_type_ids=types))
    both = logits(answer)
    assert both.shape[:2] == (2, 4)
    assert (both[1, 3] == 0).all()
    alone = logits(await infer(v2, raw([[2, 11, 3]])))
    np.testing.assert_array_equal(both[1, :3], alone[0])
    typed = logits(await infer(v2, raw(rows[:1], token_type_ids=types[:1])))
    np.testing.assert_array_equal(both[:1], typed)
    assert (typed != logits(await infer(v2, raw(rows[:1])))).any()


def _request(**changes: Any) -> pb.ModelInferRequest:
    """A good request with one thing changed: `inputs.0.shape`-like paths would say less."""
    request = asked("german")
    for name, value in changes.items():
        if name in ("shape", "datatype", "name"):
            tensor = request.inputs[0]
            tensor.ClearField("shape") if name == "shape" else None
            tensor.MergeFrom(Input(**{name: value}))
        else:
            request.MergeFrom(pb.ModelInferRequest(**{name: value}))
    return request


def _parameter(name: str, **value: Any) -> pb.ModelInferRequest:
    request = asked("german")
    request.parameters[name].MergeFrom(pb.InferParameter(**value))
    return request


def _contents(**fields: Any) -> pb.ModelInferRequest:
    tensor = Input(name="TEXT", datatype="BYTES", shape=[1, 1], contents=Contents(**fields))
    return pb.ModelInferRequest(model_name="rule", inputs=[tensor])


def _blob(blob: bytes, *more: bytes) -> pb.ModelInferRequest:
    request = asked("german")
    del request.raw_input_contents[:]
    request.raw_input_contents.extend((blob, *more))
    return request


SHARED = Input(parameters={"shared_memory_region": pb.InferParameter(string_param="x")})
BAD: dict[str, tuple[pb.ModelInferRequest, str, str]] = {
    "unknown model": (asked("a", model="x"), "NOT_FOUND", "model 'x' is not in the repository"),
    "raw of unknown": (asked("a", model="x.raw"), "NOT_FOUND", "'x.raw' is not in"),
    "no model": (asked("a", model=""), "INVALID_ARGUMENT", "model_name: this field is required"),
    "unknown version": (_request(model_version="9"), "NOT_FOUND", "no version '9'"),
    "odd version": (_request(model_version="v1"), "INVALID_ARGUMENT", "a number from 1 on"),
    "version 0": (_request(model_version="0"), "INVALID_ARGUMENT", "a number from 1 on"),
    "no input": (
        pb.ModelInferRequest(model_name="rule"), "INVALID_ARGUMENT", "input TEXT is missing",
    ),
    "unknown input": (_request(name="TXT"), "INVALID_ARGUMENT", "no input 'TXT'; it takes TEXT"),
    "duplicate input": (
        _request(
            inputs=[Input(name="TEXT", datatype="BYTES", shape=[1, 1])],
            raw_input_contents=[framed("b")],
        ),
        "INVALID_ARGUMENT", "'TEXT' is there more than once",
    ),
    "unknown output": (
        _request(outputs=[Output(name="LOGITS")]),
        "INVALID_ARGUMENT", "no output 'LOGITS'; there are ENTITIES, LABELS, TOKENS",
    ),
    "duplicate output": (
        _request(outputs=[Output(name="LABELS")] * 2), "INVALID_ARGUMENT", "'LABELS' is there more",
    ),
    "wrong datatype": (_request(datatype="FP32"), "INVALID_ARGUMENT", "expected datatype BYTES"),
    "no datatype": (_request(datatype="TEXT"), "INVALID_ARGUMENT", "'TEXT' is no datatype"),
    "negative": (_request(shape=[-1, 1]), "INVALID_ARGUMENT", "negative dimension"),
    "overflowing": (_request(shape=[2**62, 1]), "INVALID_ARGUMENT", "holds 4611686018427387904"),
    "lying": (_request(shape=[2, 1]), "INVALID_ARGUMENT", "holds 2 elements, but 1 came"),
    "wide": (_request(shape=[1, 2]), "INVALID_ARGUMENT", "expected shape [texts,1]"),
    "deep": (_request(shape=[1, 1, 1]), "INVALID_ARGUMENT", "expected shape [texts,1]"),
    "shapeless": (_request(shape=[]), "INVALID_ARGUMENT", "expected shape [texts,1]"),
    "no row": (_request(shape=[0, 1]), "INVALID_ARGUMENT", "a batch of 0"),
    "large batch": (asked(*["a"] * 33), "INVALID_ARGUMENT", "a batch of 33, but the model takes 1 to"),
    "empty text": (asked("a", ""), "INVALID_ARGUMENT", "inputs.TEXT, element 1: at least one text"),
    "framing": (_blob(b"\x09\x00\x00\x00abc"), "INVALID_ARGUMENT", "has 9 bytes, but 3 are left"),
    "not UTF-8": (_blob(b"\x01\x00\x00\x00\xff"), "INVALID_ARGUMENT", "element 0 is not valid UTF-8"),
    "surplus raw": (_blob(framed("a"), b""), "INVALID_ARGUMENT", "one for each of 1 inputs, got 2"),
    "raw and contents": (
        _request(inputs=[Input(name="B", contents=Contents())], raw_input_contents=[b""]),
        "INVALID_ARGUMENT", "contents beside raw_input_contents",
    ),
    "no contents": (
        pb.ModelInferRequest(
            model_name="rule", inputs=[Input(name="TEXT", datatype="BYTES", shape=[1, 1])]
        ),
        "INVALID_ARGUMENT", "no contents",
    ),
    "other contents": (
        _contents(int64_contents=[1]), "INVALID_ARGUMENT", "int64_contents is not for datatype 'BYTES'",
    ),
    "unknown parameter": (
        _parameter("treshold", double_param=0.5),
        "INVALID_ARGUMENT", "there is no 'treshold'; did you mean threshold? There are",
    ),
    "no value": (_parameter("threshold"), "INVALID_ARGUMENT", "parameters.threshold: has no value"),
    "threshold of text": (
        _parameter("threshold", string_param="0.5"), "INVALID_ARGUMENT", "expected a number",
    ),
    "threshold NaN": (
        _parameter("threshold", double_param=float("nan")), "INVALID_ARGUMENT", "a score from 0 to 1",
    ),
    "no such label": (
        _parameter("labels", string_param="PERSON"), "INVALID_ARGUMENT", "is no label of 'rule'",
    ),
    "no such strategy": (
        _parameter("aggregation", string_param="best"),
        "INVALID_ARGUMENT", "expected one of none, simple, first, average, max, got 'best'",
    ),
    "strategy a number": (
        _parameter("aggregation", int64_param=1), "INVALID_ARGUMENT", "expected one of none",
    ),
    "truncate a number": (
        _parameter("truncate", int64_param=1), "INVALID_ARGUMENT", "expected true or false",
    ),
    "priority": (
        _parameter("priority", uint64_param=11), "INVALID_ARGUMENT", "a whole number from 0 to 10",
    ),
    "timeout": (_parameter("timeout", int64_param=-1), "INVALID_ARGUMENT", "microseconds from 0 to"),
    "timeout of text": (_parameter("timeout", string_param="1"), "INVALID_ARGUMENT", "got '1'"),
    "shared memory": (
        _request(inputs=[SHARED], raw_input_contents=[b""]), "UNIMPLEMENTED", "shared_memory",
    ),
    "classification": (
        _request(
            outputs=[
                Output(name="ENTITIES", parameters={"classification": pb.InferParameter(int64_param=3)})
            ]
        ),
        "UNIMPLEMENTED", "classification is not supported",
    ),
    "no ids": (
        pb.ModelInferRequest(model_name="bert.raw"), "INVALID_ARGUMENT", "input input_ids is missing",
    ),
    "types for distilbert": (
        raw([[1]], "distilbert.raw", token_type_ids=[[0]]),
        "INVALID_ARGUMENT", "no input 'token_type_ids'; it takes input_ids, attention_mask",
    ),
    "unlike shapes": (
        raw([[2, 3]], attention_mask=[[1]]), "INVALID_ARGUMENT", "is not that of input_ids: [1,2]",
    ),
    "hole in the mask": (
        raw([[2, 5, 3]], attention_mask=[[1, 0, 1]]), "INVALID_ARGUMENT", "padding goes to the right",
    ),
    "padding on the left": (
        raw([[0, 2, 3]], attention_mask=[[0, 1, 1]]), "INVALID_ARGUMENT", "padding goes to the right",
    ),
    "empty mask": (raw([[2]], attention_mask=[[0]]), "INVALID_ARGUMENT", "at least one"),
    "mask of twos": (raw([[2]], attention_mask=[[2]]), "INVALID_ARGUMENT", "must hold ones"),
    "negative id": (raw([[-1]]), "INVALID_ARGUMENT", "got -1"),
    "id beyond": (raw([[10**6]]), "INVALID_ARGUMENT", "inputs.input_ids: expected ids from 0 to"),
    "type that has no embedding": (
        raw([[1]], token_type_ids=[[2]]),
        "INVALID_ARGUMENT", "inputs.token_type_ids: expected ids from 0 to 1, got 2",
    ),
    "many outputs": (
        _request(outputs=[Output(name=str(number)) for number in range(5000)]),
        "INVALID_ARGUMENT", "outputs: expected at most 64 of them, got 5000",
    ),
    "deep shape": (_request(shape=[1] * 5000), "INVALID_ARGUMENT", "has 5000 dimensions"),
    "type beyond": (
        raw([[1]], token_type_ids=[[-5]]), "INVALID_ARGUMENT", "inputs.token_type_ids: expected ids",
    ),
    "too many tokens": (raw([[1] * 513]), "INVALID_ARGUMENT", "rows of 513 tokens"),
    "raw parameters": (
        pb.ModelInferRequest(
            model_name="bert.raw", parameters={"threshold": pb.InferParameter(double_param=1)}
        ),
        "INVALID_ARGUMENT", "there is no 'threshold'; the raw view takes",
    ),
}  # fmt: skip


async def test_bad_requests_are_told_what_is_wrong(v2: Caller) -> None:
    """Each with its status and the request's id; the one after it is answered."""
    for name, (request, code, text) in BAD.items():
        request.id = name
        error = await refusal(v2.start("ModelInfer", request))
        assert error.code().name == code, (name, error.details())
        assert str(error.details()).startswith(f"[request id: {name}] ")
        assert text in str(error.details()), name
    assert documents(await infer(v2, asked("german")))[0][0]["label"] == "PER"


async def test_garbage_is_no_request(v2: Caller) -> None:
    error = await refusal(v2.start("ModelInfer", b"\x0a\x05garbage"))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "not a valid inference.ModelInferRequest" in str(error.details())
    assert documents(await infer(v2, asked("german")))[0]


async def test_a_failing_model_is_internal(v2: Caller) -> None:
    error = await refusal(v2.start("ModelInfer", asked("early")))
    assert error.code() == grpc.StatusCode.INTERNAL


async def test_a_stream_answers_in_order_and_only_the_bad_item_fails(
    http: Client, v2: Caller
) -> None:
    """And it alone is counted as an error."""

    async def count(status: str) -> float:
        labels = {"dialect": "openinference-grpc", "status": status}
        return await http.metric("nerve_requests_total", **labels)

    before = {status: await count(status) for status in ("OK", "ERROR")}
    stream = v2.stream("ModelStreamInfer")
    requests = [asked("german", id="0"), BAD["framing"][0], asked("israel", id="2")]
    for request in requests:
        await stream.write(request.SerializeToString())
    await stream.done_writing()
    answers = [pb.ModelStreamInferResponse.FromString(each) async for each in stream]
    assert [each.infer_response.id for each in answers] == ["0", requests[1].id, "2"]
    assert [bool(each.error_message) for each in answers] == [False, True, False]
    assert "has 9 bytes, but 3 are left" in answers[1].error_message
    assert answers[0].infer_response.parameters["triton_final_response"].bool_param
    assert documents(answers[2].infer_response)[0][0]["text"] == "israel"
    assert await stream.code() == grpc.StatusCode.OK
    for status, more in (("OK", 2), ("ERROR", 1)):
        assert await count(status) == before[status] + more


async def test_a_stream_ends_with_its_first_error_if_it_is_to(v2: Caller) -> None:
    stream = v2.stream("ModelStreamInfer", sent=[("triton_grpc_error", "true")])
    await stream.write(asked("german").SerializeToString())
    await stream.write(asked("a", model="x").SerializeToString())
    await stream.done_writing()
    answers = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        answers = [each async for each in stream]
    assert answers == []  # the list was not finished; the first answer came before the error
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_full_queue_is_unavailable(http: Client, v2: Caller) -> None:
    """With the time after which to try again: what clients of the protocol know to wait for."""
    holding = v2.start("ModelInfer", asked("a", model="patient"))
    await http.queued("patient", 1)
    error = await refusal(v2.start("ModelInfer", asked("a", model="patient")))
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert "already has 1 texts waiting" in str(error.details())
    assert int(trailers(error)["retry-after"]) >= 1
    holding.cancel()
    await http.queued("patient", 0)


async def test_a_timeout_is_kept(v2: Caller) -> None:
    """Parameter `timeout`, in microseconds."""
    request = asked("a", model="patient")
    request.parameters["timeout"].int64_param = 50_000
    error = await asyncio.wait_for(refusal(v2.start("ModelInfer", request)), 20)
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert "no answer before the request's deadline" in str(error.details())
