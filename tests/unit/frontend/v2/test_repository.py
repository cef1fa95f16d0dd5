"""Index, load and unload without a transport, and the typed parameters that gRPC brings."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.json_format import ParseDict

from controlled import controlled
from model_folders import write_model
from nerve._proto.inference import inference_pb2 as pb
from nerve.errors import InvalidField, LoadFailed, ModelLoadFailed, ModelNotFound, Unsupported
from nerve.frontend.v2.repository import (
    LoadParameters,
    UnloadParameters,
    check_repository,
    index,
    index_row,
    load,
    load_parameters,
    unload,
    unload_parameters,
)


def test_typed_parameters() -> None:
    assert load_parameters({}).config is None
    assert load_parameters({"config": '{"max_batch_size": 4}'}).config == {"max_batch_size": 4}
    assert unload_parameters({"unload_dependents": True, "wait": True}).wait
    assert not unload_parameters({}).wait


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"confg": "{}"}, "parameters: unknown parameter 'confg'; known: config"),
        ({"config": "max: 4"}, "parameters.config: is not valid JSON"),
        ({"config": "[1]"}, "parameters.config: expected the text of a JSON object, got that of a"),
        ({"config": b"{}"}, "parameters.config: expected a JSON object, or its text, got bytes"),
        ({"config": True}, "parameters.config: expected a JSON object, or its text, got a boolean"),
        ({"file:1/model.onnx": b"x"}, "parameters: 'file:1/model.onnx': files are not taken"),
    ],
)
def test_wrong_load_parameters(given: dict[str, object], fault: str) -> None:
    with pytest.raises(InvalidField) as caught:
        load_parameters(given)
    assert str(caught.value).startswith(fault)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"force": True}, "parameters: unknown parameter 'force'; known: unload_dependents, wait"),
        ({"wait": 1}, "parameters.wait: input should be a valid boolean, got a number"),
        ({"unload_dependents": "no"}, "parameters.unload_dependents: input should be a valid bool"),
    ],
)
def test_wrong_unload_parameters(given: dict[str, object], fault: str) -> None:
    with pytest.raises(InvalidField) as caught:
        unload_parameters(given)
    assert str(caught.value).startswith(fault)


def test_a_repository_cannot_be_named() -> None:
    check_repository("")
    with pytest.raises(Unsupported, match="naming a repository is not supported"):
        check_repository("models")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (("a", 1, "READY", ""), {"name": "a", "version": "1", "state": "READY"}),
        (
            ("a", 2, "READY", "broken"),
            {"name": "a", "version": "2", "state": "READY", "reason": "broken"},
        ),
        (("a", 0, "UNAVAILABLE", ""), {"name": "a"}),
        (("a", 0, "UNAVAILABLE", "x"), {"name": "a", "state": "UNAVAILABLE", "reason": "x"}),
        (("a", 0, "LOADING", ""), {"name": "a", "state": "LOADING"}),
    ],
)
def test_a_row_has_only_what_means_something(
    row: tuple[str, int, str, str], told: dict[str, str]
) -> None:
    assert index_row(*row) == told


async def test_the_index(tmp_path: Path) -> None:
    write_model(tmp_path / "a", "version_policy: all", v1="x", v2="bad")
    write_model(tmp_path / "b", v1="y")
    broken: dict[str, Exception] = {"bad": ModelLoadFailed("broken")}
    async with controlled(tmp_path, failures=broken, load_model=["a"]) as made:
        rows = await index(made.control, ready=False)
        assert rows == [
            {"name": "a", "version": "1", "state": "READY"},
            {"name": "a", "version": "2", "state": "UNAVAILABLE", "reason": "broken"},
            {"name": "b"},
        ]
        message = ParseDict({"models": rows}, pb.RepositoryIndexResponse())
        assert [each.state for each in message.models] == ["READY", "UNAVAILABLE", ""]
        assert await index(made.control, ready=True) == rows[:1]


async def test_load_and_unload(tmp_path: Path) -> None:
    write_model(tmp_path / "a", v1="x")
    write_model(tmp_path / "b", v1="bad")
    broken: dict[str, Exception] = {"bad": ModelLoadFailed("broken")}
    async with controlled(tmp_path, failures=broken) as made:
        await load(made.control, "a", load_parameters({"config": '{"max_batch_size": 4}'}))
        assert made.control.served("a", None).config.max_batch_size == 4
        with pytest.raises(InvalidField, match=r"^parameters\.config: max_batch_sze: "):
            await load(made.control, "a", LoadParameters(config={"max_batch_sze": 4}))
        with pytest.raises(LoadFailed, match="broken"):
            await load(made.control, "b", LoadParameters())
        await unload(made.control, "a", UnloadParameters(wait=True))
        assert await index(made.control, ready=True) == []
        for call in (
            load(made.control, "c", LoadParameters()),
            unload(made.control, "c", UnloadParameters()),
        ):
            with pytest.raises(ModelNotFound):
                await call
