"""clients/python on the real daemon: sync and async, HTTP and gRPC, the same answers."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import http.client
import io
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import nerve_client
import pytest
from nerve_client import (
    AsyncClient,
    Client,
    Entity,
    InvalidRequest,
    ItemError,
    ModelNotFound,
    NerveError,
    Overloaded,
    Retry,
    Unsupported,
)

from clients.python_support import KINDS, Caller, in_thread
from support import Daemon

PATIENCE_S = 60.0
TEXT = "Zoë 😀 met Ada Lovelace in London."
TEXTS = [TEXT, "Angela Merkel was born in Hamburg.", "Nothing here."]
LONG = "Angela Merkel lives in Berlin. " * 200
MODEL = "minilm-ner"


def url(daemon: Daemon, kind: str) -> str:
    grpc = f"grpc://127.0.0.1:{daemon.ports['grpc']}"
    return grpc if kind.startswith("grpc") else daemon.url


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, bundled_daemon: Daemon) -> Caller:
    """Each of the four."""
    return Caller(request.param, url(bundled_daemon, request.param))


def posted(daemon: Daemon, path: str, body: dict[str, Any]) -> Any:
    """The server's own answer."""
    request = urllib.request.Request(
        daemon.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_extract(client: Caller, bundled_daemon: Daemon) -> None:
    """What predict_tokens says in `simple`, with places that Python's slices understand."""
    answer = client.extract(TEXTS)
    raw = posted(
        bundled_daemon, "/predict_tokens", {"inputs": TEXTS, "aggregation_strategy": "simple"}
    )
    assert [
        [(e.text, e.label, e.start, e.end, pytest.approx(e.score, rel=1e-6)) for e in text]
        for text in answer
    ] == [
        [(e["token"], *e["results"], e["start"], e["end"], *e["results"].values()) for e in text]
        for text in raw
    ]
    assert [e.label for e in answer[1]] == ["PER", "LOC"]
    assert all(TEXT[e.start : e.end] == e.text for e in answer[0])
    assert (answer.model, answer.version, answer.truncated_texts) == (MODEL, "1", 0)
    alone = client.extract(TEXT)
    assert [(e.text, e.label, e.start) for e in alone] == [
        (e.text, e.label, e.start) for e in answer[0]
    ]
    assert (alone.model, alone.version, alone.truncated_texts) == (MODEL, "1", 0)


def test_same_answers_everywhere(bundled_daemon: Daemon) -> None:
    """All four give equal values, to the last bit of each score."""
    options: list[tuple[str, dict[str, Any]]] = [
        ("extract", {"aggregation": "max", "offset_unit": "utf16", "priority": 1}),
        ("extract", {"labels": ["PER"], "threshold": 0.5, "timeout_s": 30}),
        ("extract", {"model": MODEL, "version": 1, "aggregation": "none"}),
        ("predict_tokens", {}),
        ("predict_tokens", {"ignore_labels": [], "raw_scores": True, "aggregation": "none"}),
        ("predict_tokens", {"aggregation": "first", "offset_unit": "byte"}),
        ("predict", {}),
        ("predict", {"model": MODEL, "version": "1", "offset_unit": "byte"}),
    ]
    for method, given in options:
        answers = [
            getattr(Caller(kind, url(bundled_daemon, kind)), method)(TEXT, **given)
            for kind in KINDS
        ]
        assert answers[0], (method, given)
        assert all(answer == answers[0] for answer in answers), (method, given)
        assert {answer.version for answer in answers} == {"1"}


def test_options_have_their_effect(client: Caller) -> None:
    found = client.extract(TEXTS)
    people = client.extract(TEXTS, labels=["PER"])
    assert people == [[e for e in text if e.label == "PER"] for text in found]
    least = sorted(e.score for text in found for e in text)[1]
    sure = client.extract(TEXTS, threshold=least)
    assert sum(map(len, sure)) == sum(map(len, found)) - 1
    place = {
        unit: next(e for e in client.extract(TEXT, offset_unit=unit) if e.text == "London").start
        for unit in ("codepoint", "byte", "utf16")
    }
    start = TEXT.index("London")
    assert place["codepoint"] == start
    assert place["byte"] == len(TEXT[:start].encode())
    assert place["utf16"] == len(TEXT[:start].encode("utf-16-le")) // 2


def test_tokens_with_logits(client: Caller, bundled_daemon: Daemon) -> None:
    """Columns of `scores` are those of the model's labels."""
    labels = client.model(MODEL).labels
    tokens = client.predict(TEXT)
    raw = posted(bundled_daemon, "/predict", {"inputs": [TEXT]})["results"][0]["tokens"]
    assert [t.token for t in tokens] == [t["token_info"]["token"] for t in raw]
    for token, other in zip(tokens, raw, strict=True):
        assert token.scores == pytest.approx(other["scores"], rel=1e-6)
        assert token.label == labels[token.scores.index(max(token.scores))]
        assert token.score == max(token.scores)


def test_more_texts_than_a_request_holds(client: Caller) -> None:
    """300 texts are three requests, in order; cut texts are counted over all of them."""
    texts = [f"{number} in Berlin" for number in range(298)]
    answer = client.extract([LONG, *texts, LONG])
    assert len(answer) == 300
    assert answer.truncated_texts == 2
    assert [e.text for e in answer[0]][:2] == ["Angela Merkel", "Berlin"]
    assert client.extract(texts[200:203]) == [
        [dataclasses.replace(e, score=pytest.approx(e.score, abs=0.05)) for e in text]
        for text in answer[201:204]
    ]
    assert client.extract([]) == []


def test_texts_that_are_too_long(client: Caller) -> None:
    cut = client.extract(LONG, truncation_side="left")
    assert cut.truncated_texts == 1
    assert cut[-1].end > len(LONG) - 10
    assert client.extract(LONG)[0].start == 0
    with pytest.raises(InvalidRequest, match=r"less than|takes") as refused:
        client.extract(LONG, truncate=False)
    assert refused.value.status == 413 or refused.value.code == "INVALID_ARGUMENT"


def test_large_texts_go_apart(client: Caller) -> None:
    """Five texts of 400 kB are more than a body may hold."""
    answer = client.extract(["Angela Merkel lives in Berlin. " * 13_000] * 5)
    assert (len(answer), answer.truncated_texts) == (5, 5)


def test_models_and_probes(client: Caller) -> None:
    (summary,) = client.models()
    assert (summary.name, summary.state, summary.versions, summary.default) == (
        MODEL, "READY", ("1",), True,
    )  # fmt: skip
    status = client.model(MODEL)
    assert (status.name, status.task, status.state) == (MODEL, "token-classification", "READY")
    assert status.labels[0] == "O"
    assert status.limits is not None
    assert (status.limits.max_tokens, status.limits.stride) == (512, None)
    (version,) = status.versions
    assert (version.version, version.device, version.labels) == ("1", "cpu", status.labels)
    assert version.statistics is not None
    client.extract(TEXT)
    assert client.model(MODEL).versions[0].statistics.rows > version.statistics.rows
    assert client.ready() is True
    assert client.live() is True


def test_errors_have_types(client: Caller) -> None:
    """Refused once: no pause was made."""
    grpc = client.kind.startswith("grpc")
    with pytest.raises(ModelNotFound, match=r"'a/b é' is not in") as unknown:
        client.extract(TEXT, model="a/b é")
    assert (unknown.value.status, unknown.value.code) == (
        (None, "NOT_FOUND") if grpc else (404, None)
    )
    assert unknown.value.reason == "model_not_found"
    with pytest.raises(ModelNotFound, match="version"):
        client.predict(TEXT, model=MODEL, version=7)
    with pytest.raises(ModelNotFound):
        client.model("nobody")
    with pytest.raises(InvalidRequest, match="empty") as empty:
        client.predict_tokens(["a", ""])
    assert (empty.value.message, empty.value.reason) == ("texts[1] is empty", "empty_input")
    with pytest.raises(InvalidRequest, match="lone surrogate"):
        client.extract("a\ud800")
    assert client.slept == []


def test_wrong_arguments_are_told_at_once(client: Caller) -> None:
    for options in ({"aggregation": "best"}, {"threshold": 2}, {"priority": 0}, {"timeout_s": 0},
                    {"version": 1}, {"offset_unit": "word"}):  # fmt: skip
        with pytest.raises(ValueError, match=next(iter(options))):
            client.extract(TEXT, **options)
    for texts in (3, [b"bytes"], [TEXT, None]):
        with pytest.raises(TypeError):
            client.extract(texts)
    with pytest.raises(TypeError):
        client.extract(TEXT, labels="PER")
    with pytest.raises(TypeError):
        client.many(TEXT)
    with pytest.raises(TypeError, match="unexpected"):
        client.extract(TEXT, model_name="x")


@pytest.mark.parametrize("kind", ["http", "http-async"])
def test_a_path_where_nothing_is_served(kind: str, bundled_daemon: Daemon) -> None:
    """The URL is to blame, and is named; a model that is not there is another matter."""
    base = f"{bundled_daemon.url}/nope"
    client = Caller(kind, base.replace("://", "://user:secret@"))
    for method, arguments, path in (
        ("extract", (TEXT,), "/predict_tokens"),
        ("predict", (TEXT,), "/predict"),
        ("models", (), "/v1/models"),
        ("model", (MODEL,), f"/v1/models/{MODEL}"),
        ("live", (), "/livez"),
    ):
        with pytest.raises(Unsupported) as raised:
            getattr(client, method)(*arguments)
        assert raised.value.message == f"nothing is served at {base}{path}"
        assert (raised.value.status, raised.value.reason) == (404, "not_served")
    with pytest.raises(Unsupported, match="nothing is served at"):
        client.many([TEXT], on_error="return")


def test_many_texts(client: Caller) -> None:
    """Per-item errors in their places; everything else as `extract` has it."""
    texts = [f"Angela Merkel met {name} in Berlin." for name in ("Bob", "Ann", "Eve")]
    expected, texts = [*client.extract(texts)] * 24, texts * 24
    texts[7], texts[40], texts[71] = "", LONG, "\udc00"
    results = client.many(
        iter(texts), batch_size=16, concurrency=3, on_error="return", truncate=False
    )
    assert len(results) == 72
    failed = {index for index, result in enumerate(results) if isinstance(result, ItemError)}
    assert failed == {7, 40, 71}
    for index in sorted(failed):
        error = results[index]
        assert isinstance(error, ItemError)
        assert error.index == index
        assert isinstance(error.error, InvalidRequest)
    for index in sorted(set(range(72)) - failed):
        assert [(e.text, e.label, e.start) for e in results[index]] == [  # type: ignore[union-attr]
            (e.text, e.label, e.start) for e in expected[index]
        ]


@pytest.mark.parametrize("kind", ["http", "http-async"])
def test_a_text_that_no_body_holds(kind: str, bundled_daemon: Daemon) -> None:
    """6 MB are refused while they are sent, alone or among others."""
    client = Caller(kind, url(bundled_daemon, kind))
    huge = "Angela Merkel lives in Berlin. " * 200_000
    with pytest.raises(InvalidRequest):
        client.extract(huge)
    results = client.many(["Angela Merkel", huge, "Berlin"], on_error="return")
    assert isinstance(results[1], ItemError)
    assert isinstance(results[1].error, InvalidRequest)
    assert [result[0].text for result in results[::2]] == ["Angela Merkel", "Berlin"]  # type: ignore[index]


def test_many_texts_raising(client: Caller) -> None:
    found: list[Any] = []
    with pytest.raises(ItemError, match="item 5: ") as failed:
        client.many_into(found, ["Angela Merkel"] * 5 + [LONG, "x"], truncate=False)
    assert isinstance(failed.value.__cause__, InvalidRequest)
    assert len(found) == 5
    with pytest.raises(ModelNotFound):
        client.many(["Angela Merkel"], model="nobody", on_error="return")


def test_many_texts_of_an_async_iterable(bundled_daemon: Daemon) -> None:
    async def texts() -> AsyncIterator[str]:
        for number in range(70):
            yield f"Angela Merkel, {number}"

    for kind in ("http-async", "grpc-async"):
        results = Caller(kind, url(bundled_daemon, kind)).many(texts())
        assert [result[0].text for result in results] == ["Angela Merkel"] * 70  # type: ignore[index]


def test_a_closed_client_says_so(bundled_daemon: Daemon) -> None:
    for kind in ("http", "grpc"):
        client = Client(url(bundled_daemon, kind))
        assert client.extract(TEXT)
        client.close()
        with pytest.raises(RuntimeError, match="closed"):
            client.extract(TEXT)
        with pytest.raises(RuntimeError, match="closed"):
            client.extract_many([TEXT])


def test_one_client_for_many_threads(bundled_daemon: Daemon) -> None:
    for kind in ("http", "grpc"):
        with Client(url(bundled_daemon, kind)) as client, ThreadPoolExecutor(8) as pool:
            texts = [f"{TEXTS[1]} {number}" for number in range(64)]
            answers = list(pool.map(client.extract, texts))
        assert all(answer[0].text == "Angela Merkel" for answer in answers)


async def test_one_async_client_for_many_tasks(bundled_daemon: Daemon) -> None:
    for kind in ("http", "grpc"):
        async with AsyncClient(url(bundled_daemon, kind)) as client:
            answers = await asyncio.gather(*(client.extract(TEXTS[1]) for _ in range(64)))
        assert all(answer[0].text == "Angela Merkel" for answer in answers)


def test_below_a_prefix(bundled_daemon: Daemon) -> None:
    """As hosted deployments have it."""
    answer = Caller("http", f"{bundled_daemon.url}/production/sync/").extract(TEXT)
    assert answer.model == MODEL


PROGRAM = """
import asyncio
from typing import assert_type
from nerve_client import Answer, AsyncClient, Client, Entity, ItemError, Token, TokenResult

client = Client("grpc://localhost")
assert_type(client.extract("a", labels=["PER"], threshold=0.5), Answer[Entity])
assert_type(client.extract(["a"], aggregation="max"), Answer[list[Entity]])
assert_type(client.predict("a"), Answer[Token])
assert_type(client.predict_tokens(("a", "b")), Answer[list[TokenResult]])
for entity in client.extract("Ada"):
    print(entity.text, entity.score + 1)
for found in client.extract_many(str(i) for i in range(9)):
    assert_type(found, list[Entity])
for result in client.extract_many(["a"], on_error="return"):
    assert_type(result, list[Entity] | ItemError)
client.extract("a", aggregation="{aggregation}")

async def main() -> None:
    async with AsyncClient() as client:
        assert_type(await client.extract("a"), Answer[Entity])
        async for found in client.extract_many(["a"]):
            assert_type(found, list[Entity])

asyncio.run(main())
"""


def test_types_reach_users(tmp_path: Path, root: Path) -> None:
    """A user's program is checked against the package's types, and a wrong option is found."""
    assert (Path(nerve_client.__file__).parent / "py.typed").exists()
    (tmp_path / "right.py").write_text(PROGRAM.replace("{aggregation}", "first"))
    (tmp_path / "wrong.py").write_text(PROGRAM.replace("{aggregation}", "best"))
    cache = root / ".mypy_cache" / "user"
    command = ["-m", "mypy", "--strict", "--config-file", "", "--cache-dir", str(cache)]
    checked = subprocess.run(
        [sys.executable, *command, "right.py", "wrong.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    errors = [line for line in checked.stdout.splitlines() if ": error:" in line]
    assert len(errors) == 1, checked.stdout + checked.stderr
    line = PROGRAM.splitlines().index('client.extract("a", aggregation="{aggregation}")') + 1
    assert errors[0].startswith(f"wrong.py:{line}: error: No overload variant of "), errors


def test_readme(root: Path, bundled_daemon: Daemon) -> None:
    """Every example runs, and prints what stands below it."""
    text = (root / "clients" / "python" / "README.md").read_text()
    examples = re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", text, re.DOTALL)
    assert len(examples) >= 3
    for code, expected in examples:
        for old, new in (
            ("http://localhost:8080", bundled_daemon.url),
            ("grpc://localhost:50051", url(bundled_daemon, "grpc")),
        ):
            code = code.replace(old, new)  # noqa: PLW2901
        printed = io.StringIO()
        program = compile(code, "README.md", "exec")
        with contextlib.redirect_stdout(printed):
            in_thread(partial(exec, program, {"__name__": "__main__"}))
        assert printed.getvalue() == expected, code


def test_http_needs_no_grpc() -> None:
    """Without the extra, HTTP works and gRPC says what to install; neither needs the server."""
    program = """
import sys
sys.modules.update(dict.fromkeys(["grpc", "grpc_health", "google", "nerve"]))  # cannot be imported
from nerve_client import AsyncClient, Client
Client("http://h"), AsyncClient("http://h")
for kind in (Client, AsyncClient):
    try:
        kind("grpc://h")
    except ImportError as error:
        print(error)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.count("pip install 'nerve-client[grpc]'") == 2


def test_errors_never_show_texts(client: Caller) -> None:
    secret = "Geheimnis"
    error: NerveError
    with pytest.raises(NerveError) as refused:
        client.extract([secret, ""])
    (error,) = [
        each
        for each in client.many([f"{secret} " * 2000], truncate=False, on_error="return")
        if isinstance(each, ItemError)
    ]
    assert secret not in f"{refused.value!r}{error!r}"


def test_entities_are_values() -> None:
    entity = Entity("Ada", "PER", 0, 3, 0.5)
    assert {entity: 1}[Entity("Ada", "PER", 0, 3, 0.5)] == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        entity.label = "LOC"  # type: ignore[misc]


@contextlib.contextmanager
def first_in_line(daemon: Daemon, model: str) -> Iterator[None]:
    """A text waits in the model's queue meanwhile, as long as it may there; then its caller leaves."""
    with Client(daemon.url) as watcher:

        def wait_for(rows: int) -> None:
            until = time.monotonic() + PATIENCE_S
            while (told := watcher.model(model).versions[0].statistics) is None or (
                told.queued_rows != rows
            ):
                assert time.monotonic() < until, f"{rows} never waited, but {told}"
                time.sleep(0.01)

        caller = http.client.HTTPConnection("127.0.0.1", daemon.ports["http"])
        try:
            caller.request("POST", f"/v1/models/{model}/predict_tokens", b'{"inputs": "Ada"}')
            wait_for(1)
            yield
        finally:
            caller.close()
            wait_for(0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_queue(kind: str, controlled_daemon: Daemon) -> None:
    """The real server's refusal: what it is, and after how long to come back."""
    client = Caller(kind, url(controlled_daemon, kind), {"retry": Retry(attempts=2)})
    with first_in_line(controlled_daemon, "patient"):
        with pytest.raises(Overloaded) as refused:
            client.extract("Bob", model="patient", timeout_s=30)
        many = client.many(["Bob", "Eve"], model="patient", batch_size=1, on_error="return")
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s >= 1
    assert client.slept
    assert client.slept[0] >= refused.value.retry_after_s
    for each in many:
        assert isinstance(each, ItemError)
        assert isinstance(each.error, Overloaded)
