"""Requests for inference that hold far too much of something, and those for the wrong version."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from api.openinference_wire import INFER, said, send, text_input

if TYPE_CHECKING:
    from api.conftest import Client, Repository, Serve

MANY = 20_000


def named(count: int) -> list[dict[str, str]]:
    return [{"name": str(number)} for number in range(count)]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"inputs": [text_input("a")], "outputs": named(MANY)}, "outputs: expected at most 64"),
        ({"inputs": [{}] * MANY}, "inputs: expected at most 64 of them, got 20000"),
        (
            {"inputs": [text_input("a")], "parameters": dict.fromkeys(map(str, range(MANY)), 1)},
            "parameters: expected at most 64",
        ),
        ({"inputs": [text_input("a", shape=[1] * MANY)]}, "shape: expected a list of a few"),
        ({"inputs": [text_input("a", data=["a"] * MANY)]}, "holds 1 elements, but 20000 came"),
        ({"inputs": [text_input("a", data=[["a"] * MANY])]}, "holds 1 elements, but 20000 came"),
        ({"inputs": [text_input("a", data=[[]] * MANY)]}, "holds 1 elements, but 20000 came"),
        ({"inputs": [text_input("a", datatype="X" * MANY)]}, "is no datatype"),
        ({"inputs": [text_input("a", name="X" * MANY)]}, "there is no input 'XXX"),
        ({"inputs": [text_input("a")], "id": "X" * MANY}, "id: expected at most 1024 characters"),
        ({"inputs": [], "id": "X" * MANY}, "id: expected at most 1024 characters"),
    ],
)
async def test_excess_is_refused_in_a_short_sentence(
    http: Client, value: object, sentence: str
) -> None:
    answer = await http.post(INFER, value)
    assert sentence in said(answer, 400)
    assert len(answer.body) < 2048


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize("verb", ["infer", "generate"])
async def test_json_has_a_limit_of_its_own(http: Client, encoding: str, verb: str) -> None:
    """What is large is content in the binary layout, which need not be parsed."""
    body = json.dumps({"inputs": [], "x": "x" * 2_100_000}).encode()
    data = gzip.compress(body) if encoding == "gzip" else body
    headers = {"Content-Encoding": encoding}
    path = f"/v2/models/minilm-ner/{verb}"
    answer = await http.send("POST", path, data=data, headers=headers)
    assert "the JSON (content in the binary layout does not count) is over 2097152" in said(
        answer, 413
    )


@pytest.mark.parametrize("path", ["/v2/models/nope", "/v2/models/minilm-ner/versions/9"])
async def test_who_is_asked_is_looked_at_first(http: Client, path: str) -> None:
    """Whatever else is wrong: a misspelt model must not be told of as one with other inputs."""
    values: list[dict[str, Any]] = [
        {}, {"inputs": [text_input("a", name="INPUT0")]}, {"inputs": []},
    ]  # fmt: skip
    for value in values:
        said(await http.post(f"{path}/infer", value), 404)
        said(await http.post(f"{path}/generate", value), 404)
    large = b'{"inputs":[' + b" " * 100_000  # no JSON, but nobody looks at it
    said(await http.send("POST", f"{path}/infer", data=large), 404)


async def test_the_version_that_answers_is_the_one_that_can(
    repository: Repository, serve: Serve
) -> None:
    """Two versions share the requests, and one of them takes less: it never gets more."""
    share: dict[str, Any] = {"version_policy": "all", "routing": {"weights": {1: 1, 2: 1}}}
    repository.add("shared", version=1, **share)
    repository.add("shared", version=2)
    path = repository.path / "shared" / "2" / "config.yaml"
    path.write_text("max_batch_size: 2\nmax_num_tokens: 64\n")
    http = await serve(repository.path)
    row = {"name": "input_ids", "shape": [1, 100], "datatype": "INT64", "data": [7] * 100}
    seen = set()
    for model, tensor, sentence in (
        ("shared", text_input("a", "b", "c"), "a batch of 3, but the model takes 1 to 2"),
        ("shared.raw", row, "rows of 100 tokens, but the model takes 1 to 64"),
    ):
        for _ in range(40):
            answer = await send(http, {"inputs": [tensor]}, path=f"/v2/models/{model}/infer")
            seen.add((model, answer.status))
            if answer.status == 200:
                assert answer.headers["x-nerve-model-version"] == "1"
            else:
                assert sentence in said(answer, 400)
    assert len(seen) == 4  # else 2 ** -40 has happened
