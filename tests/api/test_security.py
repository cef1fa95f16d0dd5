"""Keys, origins and headers: every route and method of every protocol, on an app in this process."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc
import nerve_client
import pytest
import yaml
from grpc_reflection.v1alpha import reflection_pb2
from typer.testing import CliRunner

from api.conftest import Repository, in_thread, settings
from grpc_calls import BOUND_S, LISTENING, Caller, calling, port_of, refusal, trailers
from nerve._proto.inference import inference_pb2 as v2
from nerve._proto.nerve.v1 import nerve_pb2 as pb
from nerve.cli import app as command
from nerve.cli.client import Client as HttpClient
from nerve.errors import InvalidField
from nerve.frontend.grpc.reflection import pool_of
from nerve.frontend.http.application import PREFIXES

if TYPE_CHECKING:
    from api.conftest import Answer, Client, Serve, Server

SCOPES: Final = ("read", "predict", "admin")
MODEL = "/v1/models/{model}"
VERSION = "/v1/models/{model}/versions/{version}"
V2 = "/v2/models/{model}"
V2_VERSION = "/v2/models/{model}/versions/{version}"
PLACES: Final = ("", MODEL, VERSION)
HTTP: Final[dict[str, list[str]]] = {
    "open": [
        "GET /livez", "GET /readyz", "GET /health", f"GET {MODEL}/health", f"GET {VERSION}/health",
        "GET /ping", "GET /v2/health/live", "GET /v2/health/ready", f"GET {V2}/ready",
        f"GET {V2_VERSION}/ready", "OPTIONS /mcp",
    ],
    "read": [
        "GET /v1/models", f"GET {MODEL}", "GET /metrics", "GET /openapi.json", "GET /docs",
        "GET /docs/{asset}",
        *(f"GET {place}/{end}" for place in PLACES for end in ("model", "info")),
        "GET /v2", "GET /v2/models/stats",
        *(f"GET {place}{end}" for place in (V2, V2_VERSION) for end in ("", "/config", "/stats")),
        "POST /v2/repository/index", "POST /v2/repository/{repository}/index", "GET /v2/logging",
        "GET /v2/trace/setting", f"GET {V2}/trace/setting",
    ],
    "predict": [
        *(
            f"POST {place}/{end}"
            for place in PLACES
            for end in ("predict", "predict_tokens", "tokenize", "decode")
        ),
        *(
            f"POST {place}/{end}"
            for place in (V2, V2_VERSION)
            for end in ("infer", "generate", "generate_stream")
        ),
        *(
            f"{each}"
            for kind in ("system", "cuda")
            for base in (f"/v2/{kind}sharedmemory",)
            for each in (
                f"GET {base}/status", f"POST {base}/unregister",
                f"GET {base}/region/{{region}}/status", f"POST {base}/region/{{region}}/unregister",
                f"POST {base}/region/{{region}}/register",
            )
        ),
        "POST /mcp", "GET /mcp", "DELETE /mcp",
    ],
    "admin": [
        "POST /v2/logging", "POST /v2/trace/setting", f"POST {V2}/trace/setting",
        "POST /v2/repository/models/{model}/load", "POST /v2/repository/models/{model}/unload",
        "POST /v2/repository/{repository}/models/{model}/load",
        "POST /v2/repository/{repository}/models/{model}/unload",
    ],
}  # fmt: skip
"""What each route takes. A new one is not there: see that it belongs where it was put."""
INFERENCE = "inference.GRPCInferenceService"
ENCODERFILE = "encoderfile.token_classification.TokenClassificationInference"
GRPC: Final[dict[str, list[str]]] = {
    "open": [
        "grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch", f"{INFERENCE}/ServerLive",
        f"{INFERENCE}/ServerReady", f"{INFERENCE}/ModelReady",
    ],
    "read": [
        f"{ENCODERFILE}/GetModelMetadata", "nerve.v1.Nerve/ListModels", "nerve.v1.Nerve/GetModel",
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        *(
            f"{INFERENCE}/{name}"
            for name in (
                "ServerMetadata", "ModelMetadata", "ModelConfig", "ModelStatistics",
                "RepositoryIndex", "TraceSetting", "LogSettings",
            )
        ),
    ],
    "predict": [
        f"{ENCODERFILE}/Predict",
        *(
            f"nerve.v1.Nerve/{name}"
            for name in ("Extract", "ExtractStream", "PredictTokens", "Predict")
        ),
        f"{INFERENCE}/ModelInfer", f"{INFERENCE}/ModelStreamInfer",
        *(
            f"{INFERENCE}/{kind}SharedMemory{verb}"
            for kind in ("System", "Cuda")
            for verb in ("Status", "Register", "Unregister")
        ),
    ],
    "admin": [f"{INFERENCE}/RepositoryModelLoad", f"{INFERENCE}/RepositoryModelUnload"],
}  # fmt: skip
STREAMS: Final = ("Watch", "Stream", "ReflectionInfo", "StreamInfer")
SITE: Final = "https://app.example"
PREFIXED: Final = tuple(each for each in PREFIXES if each)


def digest(name: str) -> str:
    return hashlib.sha256(f"{name}-secret".encode()).hexdigest()


def sent(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}-secret"}


def entry(name: str, *scopes: str, **more: object) -> dict[str, object]:
    return {"name": name, "sha256": digest(name), "scopes": [*scopes], **more}


ENTRIES: Final = [
    *(entry(scope, scope) for scope in SCOPES),
    entry("seldom", "predict", "read", rate_limit={"requests_per_second": 0.02, "burst": 2}),
    entry("rarely", "predict", rate_limit={"requests_per_second": 0.02, "burst": 2}),
    entry("former", "admin", expires="2020-01-01"),
]


def write_keys(folder: Path) -> Path:
    path = folder / "keys.yaml"
    path.write_text(yaml.safe_dump({"keys": ENTRIES}))
    return path


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Iterator[Server]:
    """A server that wants keys, and lets pages of one web site read its answers."""
    folder = tmp_path_factory.mktemp("keyed")
    repository = Repository(folder / "models", tiny_models)
    repository.add("bert")
    config = settings(
        repository.path,
        api_keys_file=write_keys(folder),
        cors_allowed_origins=[SITE],
        enable_mcp=True,
        **LISTENING,
    )
    with in_thread(config) as server:
        yield server


@pytest.fixture
async def http(keyed: Server) -> AsyncIterator[Client]:
    async with keyed.client() as client:
        yield client


@pytest.fixture
def grpc_port(keyed: Server) -> int:
    return port_of(keyed.announced)


# --- who may ask what


def test_every_route_is_in_the_table(keyed: Server) -> None:
    """A new one has to be put somewhere."""
    served = set()
    for route in keyed.app.http_app.router.routes():
        assert route.resource is not None
        path = route.resource.canonical
        if route.method != "HEAD" and not path.startswith(PREFIXED):
            served.add(f"{route.method} {path}")
    assert served == {each for row in HTTP.values() for each in row}


@pytest.mark.parametrize("access", sorted(HTTP))
async def test_what_a_route_takes(http: Client, access: str) -> None:
    """No key 401, a key without the scope 403; with it the request goes on, whatever comes of it."""
    wrong = []
    for route in HTTP[access]:
        method, _, template = route.partition(" ")
        path = re.sub("{model}", "bert", template).replace("{version}", "1")
        path = re.sub("{.*?}", "x", path)
        for key in ("", *SCOPES):
            answer = await http.send(method, path, headers=sent(key) if key else {})
            good = access == "open" or key in (access, "admin")
            wanted = None if good else 403 if key in SCOPES else 401
            if answer.status != wanted if wanted else answer.status in (401, 403):
                wrong.append((route, key, answer.status))
    assert wrong == []


async def test_what_is_not_there_takes_any_key(http: Client) -> None:
    """Below a prefix, too, and for methods that are not there."""
    for method, path in (("GET", "/nowhere"), ("GET", "/v2/nowhere"), ("DELETE", "/predict")):
        assert (await http.send(method, path)).status == 401
        for key in SCOPES:
            assert (await http.send(method, path, headers=sent(key))).status in (404, 405)
    path = f"{PREFIXES[1]}/v1/models"
    assert (await http.get(path)).status == 401
    assert (await http.send("GET", path, headers=sent("read"))).status == 200


async def test_every_method_is_in_the_table(grpc_port: int) -> None:
    """Of the services that the server itself lists."""
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    async with calling(grpc_port, "grpc.reflection.v1.ServerReflection") as caller:
        call = caller.stream("ServerReflectionInfo", sent=[("x-api-key", "read-secret")])
        await call.write(asked.SerializeToString())
        answer = reflection_pb2.ServerReflectionResponse.FromString(await call.read())
        call.cancel()
    names = [each.name for each in answer.list_services_response.service]
    pool = pool_of(names)
    served = {
        f"{name}/{method.name}" for name in names for method in pool.FindServiceByName(name).methods
    }
    served.remove("grpc.health.v1.Health/List")  # of its description, and UNIMPLEMENTED
    assert served == {each for row in GRPC.values() for each in row}


@pytest.mark.parametrize("access", sorted(GRPC))
async def test_what_a_method_takes(grpc_port: int, access: str) -> None:
    """Nothing is sent, so that what is let in fails for another reason."""
    refused = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
    wrong = []
    for path in GRPC[access]:
        service, _, method = path.rpartition("/")
        async with calling(grpc_port, service) as caller:
            for key in ("", *SCOPES):
                metadata = [(name.lower(), value) for name, value in sent(key).items() if key]
                code = await _code(caller, method, metadata)
                good = access == "open" or key in (access, "admin")
                wanted = None if good else refused[key in SCOPES]
                if code is not wanted if wanted else code in refused:
                    wrong.append((path, key, code))
    assert wrong == []


async def _code(caller: Caller, method: str, metadata: list[tuple[str, str]]) -> Any:
    """What a call ends with, None where it is answered; of a stream the first answer counts."""
    if not method.endswith(STREAMS):
        call = caller.start(method, b"", sent=metadata, timeout=20)
        try:
            await call
        except grpc.aio.AioRpcError as error:
            return error.code()
        return None
    call = caller.stream(method, sent=metadata)
    try:
        if method == "Watch":
            await call.write(b"")
        else:
            await call.done_writing()
        await call.read()
        if method != "Watch":
            code = await call.code()
            return None if code is grpc.StatusCode.OK else code
    except grpc.aio.AioRpcError as error:
        return error.code()
    finally:
        call.cancel()
    return None


async def test_changing_settings_over_grpc_takes_admin(grpc_port: int) -> None:
    """One method reads and changes; what it takes hangs on the message."""
    change = v2.LogSettingsRequest()
    change.settings["log_verbose_level"].uint32_param = 0
    async with calling(grpc_port, INFERENCE) as caller:
        for key in ("read", "admin"):
            metadata = [("authorization", f"Bearer {key}-secret")]
            await caller.call(
                "LogSettings", v2.LogSettingsRequest(), v2.LogSettingsResponse, sent=metadata
            )
        error = await refusal(
            caller.start("LogSettings", change, sent=[("authorization", "Bearer read-secret")])
        )
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        admin = [("authorization", "Bearer admin-secret")]
        await caller.call("LogSettings", change, v2.LogSettingsResponse, sent=admin)


async def test_nothing_of_a_stranger_is_read(grpc_port: int, keyed: Server) -> None:
    """A call without a key ends before its message has come; so does a request before its body."""
    async with calling(grpc_port) as caller:
        channel: Any = caller.channel
        stub = channel.stream_unary("/nerve.v1.Nerve/Extract")
        error = await refusal(stub(timeout=BOUND_S))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert trailers(error)["x-nerve-reason"] == "unauthenticated"
        call = channel.stream_stream("/nerve.v1.Nerve/ExtractStream")(timeout=BOUND_S)
        assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
    async with keyed.wire() as wire:
        head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        await wire.send(f"{head}Content-Length: 1000000\r\n\r\n".encode())
        answer = await wire.answer()
        assert answer.status == 401
        assert answer.headers["Connection"] == "close"


# --- how a key is sent, and what is said without


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer predict-secret"},
        {"Authorization": "Api-Key predict-secret"},
        {"X-API-Key": "predict-secret"},
        {"Api-Key": "predict-secret"},
    ],
    ids=lambda headers: " ".join(headers.values()).split()[0] + "".join(headers),
)
async def test_where_a_key_may_be(http: Client, grpc_port: int, headers: dict[str, str]) -> None:
    answer = await http.post("/predict", {"inputs": ["London"]}, headers=headers)
    assert answer.status == 200
    async with calling(grpc_port) as caller:
        metadata = [(name.lower(), value) for name, value in headers.items()]
        request = pb.ExtractRequest(texts=["London"])
        assert await caller.call("Extract", request, pb.ExtractResponse, sent=metadata)


async def test_the_first_authorization_counts(keyed: Server) -> None:
    """Baseten's client puts headers of the user's behind its own."""
    for first, status in (("read", 200), ("nobody", 401)):
        async with keyed.wire() as wire:
            lines = [f"Authorization: Bearer {key}-secret" for key in (first, "predict")]
            head = "\r\n".join(["GET /v1/models HTTP/1.1", "Host: x", *lines, "", ""])
            await wire.send(head.encode())
            assert (await wire.answer()).status == status


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/predict", None),
        ("/predict_tokens", {"error", "error_type"}),
        ("/tokenize", {"error", "error_type"}),
        ("/v2/models/bert/infer", {"error"}),
        ("/v1/models", {"error", "reason"}),
        ("/mcp", {"jsonrpc", "id", "error"}),
    ],
)
async def test_refusals_are_of_the_dialect(http: Client, path: str, shape: set[str] | None) -> None:
    """401 with the header that RFC 9110 wants; 403 without; neither tells a key."""
    method = "GET" if path == "/v1/models" else "POST"
    answer = await http.send(method, path, headers={"Authorization": "Bearer hunter2-secret"})
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="nerve"'
    assert answer.headers["x-nerve-reason"] == "unauthenticated"
    assert "hunter2" not in answer.text
    assert "API key" in answer.text
    if shape is not None:
        assert set(answer.json()) == shape
    other = "predict" if method == "GET" else "read"
    answer = await http.send(method, path, headers=sent(other))
    assert answer.status == 403
    assert "WWW-Authenticate" not in answer.headers
    assert answer.headers["x-nerve-reason"] == "access_denied"


async def test_a_key_that_has_expired(http: Client) -> None:
    answer = await http.send("GET", "/v1/models", headers=sent("former"))
    assert answer.status == 401
    assert "'former' has expired" in answer.text


async def test_refusals_are_counted_by_reason(http: Client) -> None:
    async def count(status: str) -> float:
        page = (await http.send("GET", "/metrics", headers=sent("read"))).text
        pattern = rf'nerve_requests_total{{dialect="native",status="{status}"}} (\S+)'
        return sum(map(float, re.findall(pattern, page)))

    before = await count("401")
    await http.get("/v1/models")
    assert await count("401") == before + 1


# --- how often


async def test_a_rate_is_kept(http: Client, grpc_port: int) -> None:
    """429 and when to come back, in each protocol's words; others are not affected."""
    for _ in range(2):
        assert (await http.send("GET", "/v1/models", headers=sent("seldom"))).status == 200
    assert (await http.send("GET", "/livez", headers=sent("seldom"))).status == 200
    answer = await http.post("/predict_tokens", {"inputs": "a"}, headers=sent("seldom"))
    assert answer.status == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 50
    assert answer.headers["x-nerve-reason"] == "rate_limited"
    async with calling(grpc_port) as caller:
        request = pb.ExtractRequest(texts=["a"])
        metadata = [("x-api-key", "seldom-secret")]
        error = await refusal(caller.start("Extract", request, sent=metadata))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert int(trailers(error)["grpc-retry-pushback-ms"]) >= 1000
    assert (await http.send("GET", "/v1/models", headers=sent("read"))).status == 200


async def test_each_message_of_a_stream_counts(grpc_port: int) -> None:
    request = pb.ExtractStreamRequest(items=[pb.ExtractItem(text="a")])
    async with calling(grpc_port) as caller:
        call = caller.stream("ExtractStream", sent=[("x-api-key", "rarely-secret")])
        for _ in range(2):
            await call.write(request.SerializeToString())
            assert await call.read()
        await call.write(request.SerializeToString())
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


# --- what browsers are told


async def preflight(http: Client, path: str, origin: str) -> Answer:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    return await http.send("OPTIONS", path, headers=headers)


async def test_pages_that_may_ask(http: Client) -> None:
    """The browser's own question needs no key; answers, and refusals, can be read."""
    for path in ("/predict", "/v2/models/bert/infer", "/nowhere"):
        answer = await preflight(http, path, SITE)
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Origin"] == SITE
        assert answer.headers["Access-Control-Allow-Headers"] == "authorization,content-type"
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
        assert "Access-Control-Allow-Credentials" not in answer.headers
    for key, status in (("predict", 200), ("nobody", 401)):
        headers = {"Origin": SITE, **sent(key)}
        answer = await http.post("/predict", {"inputs": ["a"]}, headers=headers)
        assert answer.status == status
        assert answer.headers["Access-Control-Allow-Origin"] == SITE
        assert "Origin" in answer.headers.getall("Vary")
        exposed = answer.headers["Access-Control-Expose-Headers"].lower().split(", ")
        assert {"x-nerve-model", "retry-after", "x-request-id"} <= set(exposed)


async def test_pages_that_may_not(http: Client) -> None:
    """They get no header, but those who keep answers learn that it hangs on who asks."""
    answer = await preflight(http, "/predict", "https://evil.example")
    assert answer.status == 401
    for headers in ({"Origin": "https://evil.example"}, {}):
        answer = await http.post("/predict", {"inputs": ["a"]}, headers=headers | sent("predict"))
        assert answer.status == 200
        assert not [name for name in answer.headers if name.startswith("Access-Control")]
        assert answer.headers["Vary"] == "Origin"


async def test_mcp_has_its_own_list(http: Client) -> None:
    answer = await preflight(http, "/mcp", SITE)
    assert answer.status == 403


async def test_a_tool_call_with_a_key(http: Client) -> None:
    message = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    headers = {"Accept": "application/json, text/event-stream", **sent("predict")}
    answer = await http.post("/mcp", message, headers=headers)
    assert answer.status != 401, answer.text


async def test_every_answer_has_headers(http: Client, keyed: Server) -> None:
    for path in ("/livez", "/nowhere", "/docs", "/docs/swagger-ui.css"):
        answer = await http.send("GET", path, headers=sent("read"))
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Server"] == "nerve"
        cached = "max-age=86400" if path.endswith(".css") else "no-store"
        assert answer.headers["Cache-Control"] == cached
        assert "Strict-Transport-Security" not in answer.headers
    headers = {"Content-Type": "application/json", **sent("predict")}
    answer = await http.post(
        "/v2/models/bert/generate_stream", {"text_input": "London"}, headers=headers
    )
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_the_page_runs_only_its_own_script(http: Client) -> None:
    answer = await http.send("GET", "/docs", headers=sent("read"))
    (script,) = re.findall("<script>(.*?)</script>", answer.text)
    told = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = answer.headers["Content-Security-Policy"]
    assert f"'sha256-{told}'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "default-src 'none'" in policy


async def test_the_document_tells_of_keys(http: Client) -> None:
    document = (await http.send("GET", "/openapi.json", headers=sent("read"))).json()
    assert document["components"]["securitySchemes"] == {
        "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    predict = document["paths"]["/predict"]["post"]
    assert predict["security"] == [{"bearer": ["predict"]}, {"header": ["predict"]}]
    assert {"401", "403", "429"} <= set(predict["responses"])
    assert document["paths"]["/livez"]["get"]["security"] == []


# --- without keys


@pytest.mark.parametrize("allowed", [False, True])
async def test_a_form_of_another_site_changes_nothing(
    repository: Repository, serve: Serve, allowed: bool
) -> None:
    """Such a request needs no preflight. Ours, and programs, may load models where that is on."""
    repository.add("bert")
    origins = ["https://evil.example"] if allowed else []
    http = await serve(repository.path, allow_model_control=True, cors_allowed_origins=origins)
    path = "/v2/repository/models/bert/load"
    own = f"http://127.0.0.1:{http.server.port}"
    for headers, status in (
        ({}, 200),
        ({"Origin": own}, 200),
        ({"Origin": "https://evil.example"}, 200 if allowed else 403),
        ({"Origin": "null"}, 403),
    ):
        answer = await http.send(
            "POST", path, data=b"{}", headers=headers, content_type="text/plain"
        )
        assert answer.status == status, (headers, answer.text)
        if status == 403:
            assert answer.headers["x-nerve-reason"] == "foreign_origin"
    answer = await http.post("/predict", {"inputs": ["a"]}, headers={"Origin": "https://a.example"})
    assert answer.status == 200


async def test_by_default_no_page_may_ask(http_open: Client) -> None:
    answer = await preflight(http_open, "/predict", SITE)
    assert answer.status == 405
    assert not [name for name in answer.headers if name.startswith("Access-Control")]
    answer = await http_open.post("/predict", {"inputs": ["a"]}, headers={"Origin": SITE})
    assert answer.status == 200
    assert "Vary" not in answer.headers
    assert not [name for name in answer.headers if name.startswith("Access-Control")]
    document = (await http_open.get("/openapi.json")).json()
    assert "securitySchemes" not in document["components"]


async def test_log_settings_are_not_for_everybody(http_open: Client) -> None:
    before = (await http_open.get("/v2/logging")).json()
    answer = await http_open.post("/v2/logging", {"log_error": False})
    assert answer.status == 409
    assert answer.headers["x-nerve-reason"] == "log_control_disabled"
    assert (await http_open.get("/v2/logging")).json() == before
    assert (await http_open.post("/v2/logging", before)).status == 200  # it is so already


@pytest.fixture
async def http_open(repository: Repository, serve: Serve) -> Client:
    repository.add("bert")
    return await serve(repository.path)


# --- our own clients


@pytest.mark.parametrize("given", ["option", "variable"])
async def test_the_command_line(keyed: Server, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`nerve models` and `nerve bench`, with a key and without."""

    async def nerve(*arguments: str, key: str = "") -> tuple[int, str]:
        """Exit status and what is said."""
        told = [*arguments, "--url", keyed.url]
        if given == "variable":
            monkeypatch.setenv("NERVE_API_KEY", f"{key}-secret" if key else "")
        elif key:
            told += ["--api-key", f"{key}-secret"]
        result = await asyncio.to_thread(CliRunner().invoke, command, told)
        return result.exit_code, f"{result.output}{result.exception}"

    status, said = await nerve("models", "list", key="read")
    assert (status, "bert" in said) == (0, True), said
    status, said = await nerve("models", "list")
    assert (status, "no API key" in said) == (1, True), said
    bench = ("bench", "bert", "-c", "1", "-n", "1", "--warm-up", "0")
    status, said = await nerve(*bench, key="admin")
    assert status == 0, said


def test_a_key_that_cannot_be_sent() -> None:
    with pytest.raises(InvalidField) as caught:
        HttpClient("http://127.0.0.1:1", timeout_s=1, api_key="hunter2\n")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
async def test_the_python_client(keyed: Server, grpc_port: int, scheme: str) -> None:
    port = keyed.port if scheme == "http" else grpc_port
    url = f"{scheme}://127.0.0.1:{port}"
    async with nerve_client.AsyncClient(url, api_key="predict-secret") as client:
        assert (await client.extract("London")).model == "bert"
    async with nerve_client.AsyncClient(url) as client:
        with pytest.raises(nerve_client.AccessDenied, match="no API key"):
            await client.extract("London")
    with (
        nerve_client.Client(url, api_key="nobody-secret") as plain,
        pytest.raises(nerve_client.AccessDenied, match="is not known"),
    ):
        await asyncio.to_thread(plain.extract, "London")
    for wrong, headers in (("a b", {}), ("a", {"Authorization": "x"})):
        with pytest.raises(ValueError, match="api_key"):
            nerve_client.Client(url, api_key=wrong, headers=headers)


# --- a file that changes


async def test_keys_come_and_go(
    repository: Repository, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is taken away is refused, a new one taken; a file with a fault changes nothing."""
    monkeypatch.setattr("nerve.security.security.LOOK_S", 0.05)
    repository.add("bert")
    file = write_keys(tmp_path)
    http = await serve(repository.path, api_keys_file=file)

    async def status(key: str) -> int:
        return (await http.send("GET", "/v1/models", headers=sent(key))).status

    def reloads(outcome: str) -> float | None:
        labels = {"kind": "api_keys", "outcome": outcome}
        return http.server.app.registry.get_sample_value("nerve_credential_reloads_total", labels)

    async def told(outcome: str) -> bool:
        return reloads(outcome) == 1

    assert (await status("read"), await status("newer")) == (200, 401)
    file.write_text("keys: [{name: newer}]")
    await http.until(lambda: told("failed"))
    assert (await status("read"), await status("newer")) == (200, 401)
    file.write_text(yaml.safe_dump({"keys": [entry("newer", "read")]}))
    await http.until(lambda: told("loaded"))
    assert (await status("read"), await status("newer")) == (401, 200)
    file.unlink()
    await http.until(lambda: _is(reloads("failed"), 2))
    assert await status("newer") == 200


async def _is(value: float | None, wanted: float) -> bool:
    return value == wanted
