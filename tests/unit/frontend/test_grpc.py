"""What gRPC's front end decides without a call."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from google.protobuf import descriptor_pool
from hypothesis import given
from hypothesis import strategies as st

from nerve._proto.nerve.v1 import nerve_pb2
from nerve.config.server import ServerConfig
from nerve.errors import EmptyInput
from nerve.exchange import Access, Exchanges
from nerve.frontend.admission import Admission
from nerve.frontend.grpc.calls import Shell, clipped, unary
from nerve.frontend.grpc.metadata import Context, texts_in
from nerve.frontend.grpc.nerve_bulk import weight
from nerve.frontend.grpc.reading import Reader
from nerve.frontend.grpc.reflection import NAMES, pool_of
from nerve.frontend.grpc.server import options
from nerve.frontend.guard import Anyone
from nerve.frontend.status import TABLE


@given(st.text(alphabet=st.characters(exclude_categories=[]), max_size=3000))
def test_every_text_fits_in_headers(text: str) -> None:
    """Also one with half a surrogate pair, and one that grows when it is written."""
    shown = clipped(text)
    assert len(quote(shown)) < 6200
    assert shown.removesuffix("…") in text.encode("utf-8", "replace").decode()


def test_long_texts_are_cut_between_characters() -> None:
    assert clipped("ü" * 1024) == "ü" * 1024
    assert clipped("ü" * 1025) == "ü" * 1024 + "…"
    assert clipped("xü" * 1024) == "xü" * 682 + "x" + "…"


def test_ages_are_only_limited_on_request() -> None:
    """Times are whole milliseconds; a call in flight gets the time that any call has."""
    assert not [key for key, _ in options(ServerConfig()) if "age" in key.split("_")]
    config = ServerConfig(grpc_max_connection_age_s=1.5, request_timeout_s=7, grpc_keepalive_s=1e9)
    given = dict(options(config))
    assert given["grpc.max_connection_age_ms"] == 1500
    assert given["grpc.max_connection_age_grace_ms"] == 7000
    assert given["grpc.keepalive_time_ms"] == 2**31 - 1
    assert given["grpc.max_receive_message_length"] == 64 * 1024 * 1024


def test_reflection_leaves_the_shared_pool_alone() -> None:
    """A client of the same services may live in the process: nothing of ours goes where it looks."""
    service = nerve_pb2.DESCRIPTOR.services_by_name["Nerve"].full_name
    pool = pool_of([service, *NAMES])
    assert pool.FindServiceByName(service).methods_by_name["Extract"]
    for name in (service, NAMES[1]):
        with pytest.raises(KeyError):
            descriptor_pool.Default().FindServiceByName(name)
    with pytest.raises(KeyError):
        pool_of(["nerve.v1.Nothing"])


def test_the_documented_codes_are_the_table_s(root: Path) -> None:
    """docs/grpc.md lists reasons under the code that the one table gives them."""
    text = (root / "docs" / "grpc.md").read_text(encoding="utf-8").split("## Errors")[1]
    rows = re.findall(r"^\| ([A-Z_]+) \| (.+) \|$", text, re.MULTILINE)
    assert len(rows) >= 7
    known = {kind.reason: row.grpc for kind, row in TABLE.items()}
    for code, cell in rows:
        for reason in re.findall(r"`(\w+)`", cell):
            assert known[reason] == code, reason


class Aborted(Exception):
    """What grpc ends a call with, and keeps."""


class Call:
    """As much of grpc's context as a refusal needs."""

    def time_remaining(self) -> float | None:
        return None

    async def abort(self, *_: object) -> None:
        raise Aborted

    def set_trailing_metadata(self, _pairs: object) -> None:
        pass

    def invocation_metadata(self) -> None:
        return None

    def peer(self) -> str:
        return "nobody"

    def __init__(self, request: nerve_pb2.ExtractRequest) -> None:
        self._sent = [request.SerializeToString()]

    async def read(self) -> bytes:
        return self._sent.pop()


async def test_a_refused_call_lets_go_of_its_request() -> None:
    """grpc keeps the error of a call, with the frames of its traceback and what these hold."""
    request = nerve_pb2.ExtractRequest(texts=["x" * 10_000, ""])

    async def refuse(asked: nerve_pb2.ExtractRequest, _context: Context, size: int) -> bytes:
        texts = list(asked.texts)
        assert size > 10_000
        raise EmptyInput(f"texts[{texts.index('')}]")

    admission = Admission(Anyone(), max_requests=1, max_bytes=1)
    shell = Shell("test", Exchanges([admission]), admission)
    bind = unary(nerve_pb2.ExtractRequest, refuse, shell=shell, access=Access.PREDICT)
    handler: Any = bind("/test", Reader(admission, timeout_s=1))
    with pytest.raises(Aborted) as caught:
        await handler.stream_unary(None, Call(request))
    error: BaseException | None = caught.value
    while error is not None:
        for frame, _ in list(traceback.walk_tb(error.__traceback__))[1:]:  # but this one
            assert not [name for name, each in frame.f_locals.items() if holds(each)]
        error = error.__context__


def holds(value: object) -> bool:
    if isinstance(value, list):
        return any(map(holds, value))
    return isinstance(value, str | bytes | nerve_pb2.ExtractRequest) and "x" * 100 in str(value)


def test_what_a_message_of_a_stream_weighs() -> None:
    """By its items, and by its bytes: ids may be long, too."""
    items = [nerve_pb2.ExtractItem(text="a")] * 3
    assert weight(nerve_pb2.ExtractStreamRequest(), 2) == 1
    assert weight(nerve_pb2.ExtractStreamRequest(items=items), 30) == 3
    assert weight(nerve_pb2.ExtractStreamRequest(items=items), 10 * 2**20) == 160


class WithMetadata:
    """As much of grpc's context as its metadata."""

    def __init__(self, *pairs: tuple[str, str | bytes]) -> None:
        self._pairs = pairs

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return self._pairs


def test_no_key_is_overlooked() -> None:
    """Of all other names the last value counts."""
    context: Any = WithMetadata(
        ("x-api-key", "a"), ("authorization", "Bearer a"), ("model-name", "x"), ("api-key", "c"),
        ("authorization", "Bearer b"), ("x-api-key", "a"), ("model-name", "y"), ("x-bin", b"1"),
    )  # fmt: skip
    assert texts_in(context) == {
        "x-api-key": "a\na",
        "authorization": "Bearer a\nBearer b",
        "api-key": "c",
        "model-name": "y",
    }
