#!/bin/sh
# Ask for entities by grpcurl, through each gRPC service. The server tells its services itself
# (reflection), so no .proto file is needed.
# NERVE_GRPC: where the server is; MODEL: a model's name.
set -eu
server=${NERVE_GRPC:-localhost:50051}
model=${MODEL:-minilm-ner}

grpcurl -plaintext "$server" list

# This server's own service.
grpcurl -plaintext -d '{"texts": ["Ada Lovelace lived in London."]}' \
  "$server" nerve.v1.Nerve/Extract

# Many texts in one stream; an item that fails leaves the others alone.
grpcurl -plaintext -d '
  {"items": [{"id": "a", "text": "Ada Lovelace lived in London."}, {"id": "b", "text": ""}]}
  {"items": [{"id": "c", "text": "Marie Curie lived in Paris."}]}' \
  "$server" nerve.v1.Nerve/ExtractStream

# Encoderfile's service; metadata names the model where there are several.
grpcurl -plaintext -H "model-name: $model" -d '{"inputs": ["Ada Lovelace lived in London."]}' \
  "$server" encoderfile.token_classification.TokenClassificationInference/Predict

# The Open Inference Protocol. JSON holds bytes as base64: `QWRh…` is the text; in the answer, four
# bytes of length come before the document.
grpcurl -plaintext -d '{"model_name": "'"$model"'", "inputs": [{"name": "TEXT", "datatype": "BYTES",
    "shape": [1, 1], "contents": {"bytes_contents": ["QWRhIExvdmVsYWNlIGxpdmVkIGluIExvbmRvbi4="]}}]}' \
  "$server" inference.GRPCInferenceService/ModelInfer

# Health, of the server and of a model.
grpcurl -plaintext "$server" grpc.health.v1.Health/Check
grpcurl -plaintext -d '{"service": "'"$model"'"}' "$server" grpc.health.v1.Health/Check
