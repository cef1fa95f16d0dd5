"""Call Encoderfile's gRPC service with the generated stub that is on PYTHONPATH.

`encoderfile_caller.py GRPC_PORT URL alone|nerve`: the last imports this server's generated code, too.
"""

from __future__ import annotations

import importlib
import json
import sys
import urllib.request
from typing import Any

import grpc
import numpy as np

TEXTS = ["Zoë met 李明 in Paris.", "Ada Lovelace lived in London.", "Hi"]
SERVICE = "encoderfile.token_classification.TokenClassificationInference"


def over_http(url: str) -> Any:
    """The same question to POST /predict."""
    body = json.dumps({"inputs": TEXTS, "metadata": {"k": "v"}}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/predict", data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def check_predict(stub: Any, pb: Any, url: str) -> None:
    """Every token is what HTTP says."""
    asked = pb.TokenClassificationRequest(inputs=TEXTS, metadata={"k": "v"})
    answer, page = stub.Predict(asked, timeout=30), over_http(url)
    assert (answer.model_id, dict(answer.metadata)) == (page["model_id"], {"k": "v"})
    assert len(answer.results) == len(TEXTS)
    for mine, theirs in zip(answer.results, page["results"], strict=True):
        for token, other in zip(mine.tokens, theirs["tokens"], strict=True):
            info = token.token_info
            known = {"token": info.token, "token_id": info.token_id}
            known |= {"start": info.start, "end": info.end}
            assert known == other["token_info"]
            assert token.label == other["label"]
            assert np.float32(token.score) == np.float32(other["score"])
            expected = np.array(other["scores"], dtype=np.float32)
            assert np.array_equal(np.array(token.scores, dtype=np.float32), expected)


def check_rest(stub: Any, metadata: Any, pb: Any) -> None:
    """Metadata, and a refusal."""
    told = stub.GetModelMetadata(metadata.GetModelMetadataRequest(), timeout=30)
    assert told.model_id == "minilm-ner"
    assert told.model_type == metadata.TOKEN_CLASSIFICATION
    assert dict(told.id2label)[3] == "B-PER"
    try:
        stub.Predict(pb.TokenClassificationRequest(inputs=[""]), timeout=30)
    except grpc.RpcError as error:
        refused = (error.code(), error.details())
    assert refused == (grpc.StatusCode.INVALID_ARGUMENT, "Cannot tokenize empty string")


def main(port: str, url: str, beside: str) -> None:
    """Both calls, by the generated stub."""
    if beside == "nerve":
        from nerve._proto.encoderfile import token_classification_pb2  # noqa: PLC0415

        assert token_classification_pb2.DESCRIPTOR.services_by_name
    pb, rpc, metadata = (
        importlib.import_module(f"proto.{name}")
        for name in ("token_classification_pb2", "token_classification_pb2_grpc", "metadata_pb2")
    )
    service = pb.DESCRIPTOR.services_by_name["TokenClassificationInference"]
    assert service.full_name == SERVICE
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = rpc.TokenClassificationInferenceStub(channel)
        check_predict(stub, pb, url)
        check_rest(stub, metadata, pb)
    print("the same tokens")


if __name__ == "__main__":
    main(*sys.argv[1:])
