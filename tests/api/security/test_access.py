"""Who may ask what: every route and method of every protocol, on an app in this process."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2

from api.security.conftest import SCOPES, secret, sent
from grpc_calls import BOUND_S, Caller, calling, refusal, trailers
from nerve._proto.inference import inference_pb2 as v2
from nerve.frontend.grpc.reflection import pool_of
from nerve.frontend.http.application import PREFIXES

if TYPE_CHECKING:
    from api.conftest import Client, Server

MODEL = "/v1/models/{model}"
VERSION = "/v1/models/{model}/versions/{version}"
V2 = "/v2/models/{model}"
V2_VERSION = "/v2/models/{model}/versions/{version}"
PLACES: Final = ("", MODEL, VERSION)
HTTP: Final[dict[str, list[str]]] = {
    "open": [
        "GET /livez", "GET /readyz", "GET /health", f"GET {MODEL}/health", f"GET {VERSION}/health",
        "GET /ping", "GET /v2/health/live", "GET /v2/health/ready", f"GET {V2}/ready",
        f"GET {V2_VERSION}/ready", "OPTIONS /mcp", "GET /playground/{file}",
    ],
    "read": [
        "GET /v1/models", f"GET {MODEL}", "GET /metrics", "GET /openapi.json", "GET /docs",
        "GET /docs/{asset}", "GET /v1/server", "GET /v1/metrics",
        *(f"GET {place}/{end}" for place in PLACES for end in ("model", "info")),
        "GET /v2", "GET /v2/models/stats",
        *(f"GET {place}{end}" for place in (V2, V2_VERSION) for end in ("", "/config", "/stats")),
        "POST /v2/repository/index", "POST /v2/repository/{repository}/index", "GET /v2/logging",
        "GET /async_queue_status", f"GET /async{MODEL}/async_queue_status",
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
        *(
            f"POST {place}"
            for place in (
                "/async_predict", *(f"/async{each}/predict_tokens" for each in PLACES),
            )
        ),
        *(f"{method} /async_request/{{request_id}}" for method in ("GET", "DELETE")),
        "GET /async_request/{request_id}/result",
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
PREFIXED: Final = tuple(each for each in PREFIXES if each)


def test_every_route_is_in_the_table(keyed: Server) -> None:
    """A new one has to be put somewhere."""
    served = set()
    for route in keyed.app.http_app.router.routes():
        assert route.resource is not None
        path = route.resource.canonical
        if route.method != "HEAD" and not path.startswith(PREFIXED):
            served.add(f"{route.method} {path}")
    served.discard("* /")  # there for browsers only: test_playground.py
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
        call = caller.stream("ServerReflectionInfo", sent=[("x-api-key", secret("read"))])
        await call.write(asked.SerializeToString())
        answer = reflection_pb2.ServerReflectionResponse.FromString(await call.read())
        call.cancel()
    names = [each.name for each in answer.list_services_response.service]
    pool = pool_of(names)
    served = {
        f"{name}/{method.name}" for name in names for method in pool.FindServiceByName(name).methods
    }
    served.discard("grpc.health.v1.Health/List")  # of newer descriptions, and UNIMPLEMENTED
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
            metadata = [("authorization", f"Bearer {secret(key)}")]
            await caller.call(
                "LogSettings", v2.LogSettingsRequest(), v2.LogSettingsResponse, sent=metadata
            )
        error = await refusal(
            caller.start(
                "LogSettings", change, sent=[("authorization", f"Bearer {secret('read')}")]
            )
        )
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        admin = [("authorization", f"Bearer {secret('admin')}")]
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
