"""What clients/python refuses before it sends anything: the same over HTTP and gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from nerve_client import InvalidRequest, ItemError

from clients.python_support import KINDS, Caller, Seen, entity_of, little_server


@pytest.fixture(params=KINDS)
def asked(request: pytest.FixtureRequest) -> Iterator[tuple[Caller, Seen]]:
    """A client, and what its server saw."""
    with little_server(request.param.removesuffix("-async")) as (url, seen):
        yield Caller(request.param, url), seen


TYPES: list[tuple[str, Any, str]] = [
    ("threshold", "0.5", "threshold: expected a number, got str"),
    ("threshold", True, "threshold: expected a number, got bool"),
    ("priority", "1", "priority: expected a whole number, got str"),
    ("priority", 1.0, "priority: expected a whole number, got float"),
    ("timeout_s", "5", "timeout_s: expected a number, got str"),
    ("truncate", "no", "truncate: expected True or False, got str"),
    ("truncate", 1, "truncate: expected True or False, got int"),
    ("truncation_side", 1, "truncation_side: expected a string, got int"),
    ("labels", [5], "labels[0]: expected a string, got int"),
    ("labels", ["PER", None], "labels[1]: expected a string, got NoneType"),
    ("labels", "PER", "labels: expected a list of strings, got str"),
    ("labels", 5, "labels: expected a list of strings, got int"),
    ("aggregation", ["max"], "aggregation: expected a string, got list"),
    ("offset_unit", 1, "offset_unit: expected a string, got int"),
    ("model", 5, "model: expected a string, got int"),
    ("version", 1.0, "version: expected a whole number, got float"),
]
VALUES: list[tuple[str, Any]] = [
    ("threshold", 1.5), ("threshold", float("nan")), ("priority", 11), ("timeout_s", -1),
    ("timeout_s", float("inf")), ("timeout_s", float("nan")), ("truncation_side", "middle"),
    ("aggregation", ""), ("model", ""), ("version", ""), ("version", -1),
]  # fmt: skip


def test_types_of_options(asked: tuple[Caller, Seen]) -> None:
    """The name of the option, what it takes, what it got."""
    client, seen = asked
    for name, value, message in TYPES:
        options = {"model": "m", name: value}
        for call, texts in ((client.extract, "Ada"), (client.many, ["Ada"])):
            with pytest.raises(TypeError) as raised:
                call(texts, **options)
            assert str(raised.value) == message
    for name, value in VALUES:
        with pytest.raises(ValueError, match=f"^{name} must"):
            client.extract("Ada", **{"model": "m", name: value})
    with pytest.raises(TypeError, match=r"^raw_scores: expected True or False, got int$"):
        client.predict_tokens("Ada", raw_scores=1)
    with pytest.raises(TypeError, match=r"^ignore_labels\[0\]: expected a string, got int$"):
        client.predict_tokens("Ada", ignore_labels=[5])
    assert seen.texts == []


def test_numbers_of_other_kinds(asked: tuple[Caller, Seen]) -> None:
    """Whatever Python holds to be a number is one."""
    client, seen = asked
    for threshold in (np.float32(0.5), np.float64(0.5), Fraction(1, 2), 0, 1):
        found = client.extract(
            "Ada", model="m", version=np.int64(1), priority=np.int8(3), threshold=threshold
        )
        assert found == [entity_of("Ada")]
    assert {each["x-nerve-priority"] for each in seen.headers} == {"3"}


@pytest.mark.parametrize(
    ("method", "option", "others"),
    [
        ("extract", "treshold", ("threshold", "labels", "model", "timeout_s")),
        ("predict_tokens", "threshold", ("ignore_labels", "raw_scores", "aggregation")),
        ("predict", "truncate", ("offset_unit", "priority", "version")),
    ],
)
def test_options_that_there_are_not(
    asked: tuple[Caller, Seen], method: str, option: str, others: tuple[str, ...]
) -> None:
    client, seen = asked
    with pytest.raises(TypeError) as raised:
        getattr(client, method)("Ada", **{option: 1})
    told, _, there = str(raised.value).partition("; there are ")
    assert told == f"{method}() got an unexpected option {option!r}"
    assert set(others) <= set(there.split(", "))
    assert not {"texts", option} & set(there.split(", "))
    assert seen.texts == []


def test_options_of_many_texts(asked: tuple[Caller, Seen]) -> None:
    client, seen = asked
    with pytest.raises(ValueError, match=r"^on_error must be one of raise, return, not 'retrun'$"):
        client.many(["Ada"], on_error="retrun")
    with pytest.raises(TypeError, match=r"^on_error: expected a string, got bool$"):
        client.many(["Ada"], on_error=True)
    with pytest.raises(
        TypeError, match=r"^extract_many\(\) got an unexpected option 'batchsize'; "
    ):
        client.many(["Ada"], batchsize=3)
    for name in ("batch_size", "concurrency"):
        few: dict[str, Any] = {name: 0}
        with pytest.raises(ValueError, match=f"^{name} must be at least 1, not 0$"):
            client.many(["Ada"], **few)
        word: dict[str, Any] = {name: "3"}
        with pytest.raises(TypeError, match=f"^{name}: expected a whole number, got str$"):
            client.many(["Ada"], **word)
    for texts, got in ((None, "NoneType"), ("Ada", "str"), (b"Ada", "bytes")):
        with pytest.raises(TypeError, match=f"^texts: expected an iterable of texts, got {got}$"):
            client.many(texts)
    assert seen.texts == []


def test_texts(asked: tuple[Caller, Seen]) -> None:
    """What is no text, and an empty one: nothing is sent, also not of the texts before it."""
    client, seen = asked
    client.settings["max_texts"] = 1
    for texts, got in ((None, "NoneType"), (b"Ada", "bytes"), (3, "int")):
        with pytest.raises(TypeError) as raised:
            client.extract(texts)
        assert str(raised.value) == f"texts: expected a string or several of them, got {got}"
    with pytest.raises(TypeError, match=r"^texts\[1\]: expected a string, got bytes$"):
        client.extract(["Ada", b"Bob"])
    for method in ("extract", "predict_tokens", "predict"):
        for empty, index in (("", 0), (["Ada", ""], 1)):
            with pytest.raises(InvalidRequest) as refused:
                getattr(client, method)(empty)
            assert refused.value.message == f"texts[{index}] is empty"
            assert refused.value.reason == "empty_input"
            assert (refused.value.status, refused.value.code) == (None, None)
    with pytest.raises(InvalidRequest, match="lone surrogate"):
        client.extract(["Ada", "\ud800"])
    assert seen.texts == []
    (first, second) = client.many(["Ada", ""], on_error="return")
    assert first == [entity_of("Ada")]
    assert isinstance(second, ItemError)
    assert second.reason == "empty_input"
    assert seen.texts == [["Ada"]]


def test_names_of_models_and_times_of_other_calls(asked: tuple[Caller, Seen]) -> None:
    client, _seen = asked
    with pytest.raises(ValueError, match=r"^name must not be empty$"):
        client.model("")
    with pytest.raises(TypeError, match=r"^name: expected a string, got NoneType$"):
        client.model(None)
    calls: list[tuple[str, tuple[str, ...]]]
    calls = [("models", ()), ("model", ("m",)), ("ready", ()), ("live", ())]
    for method, arguments in calls:
        with pytest.raises(TypeError, match=r"^timeout_s: expected a number, got str$"):
            getattr(client, method)(*arguments, timeout_s="5")
        with pytest.raises(ValueError, match=r"^timeout_s must be more than 0"):
            getattr(client, method)(*arguments, timeout_s=0)
