#!/bin/sh
# Ask for entities by curl, through each door of HTTP. An answer a line.
# NERVE_URL: where the server is; MODEL: a model's name, for the protocols that name one.
set -eu
url=${NERVE_URL:-http://localhost:8080}
model=${MODEL:-minilm-ner}

# As Baseten's BEI: entities.
curl -sS --fail-with-body -w '\n' "$url/predict_tokens" -H 'Content-Type: application/json' \
  -d '{"inputs": ["Ada Lovelace lived in London."], "aggregation_strategy": "simple"}'

# As Encoderfile: every token, with the logits of all labels.
curl -sS --fail-with-body -w '\n' "$url/predict" -H 'Content-Type: application/json' \
  -d '{"inputs": ["Ada Lovelace lived in London."]}'

# The Open Inference Protocol: one JSON document a text, in `data`.
curl -sS --fail-with-body -w '\n' "$url/v2/models/$model/infer" -H 'Content-Type: application/json' \
  -d '{"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1, 1],
                   "data": ["Ada Lovelace lived in London."]}],
       "parameters": {"threshold": 0.5, "labels": "PER,LOC"}}'

# The same with the text itself as the body, from a file for instance. The answer is binary: JSON
# that describes it, four bytes of length, then the document, which is all that is printed here.
printf 'Ada Lovelace lived in London.' |
  curl -sS --fail-with-body --data-binary @- "$url/v2/models/$model/infer" -o - \
    -H 'Inference-Header-Content-Length: 0' -H 'Content-Type: application/octet-stream' |
  grep -ao '\[{"text".*'

# And the same as flat JSON.
curl -sS --fail-with-body -w '\n' "$url/v2/models/$model/generate" -H 'Content-Type: application/json' \
  -d '{"TEXT": "Ada Lovelace lived in London.", "parameters": {"aggregation": "simple"}}'
