"""Ask for entities with Triton's HTTP client: pip install 'tritonclient[http]'.

python tritonclient_http.py TEXT...; NERVE_URL says where the server is, MODEL which model.
"""

from __future__ import annotations

import json
import os
import sys

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput


def main(texts: list[str]) -> None:
    """Print a line an entity; a request has as many texts as the model takes at once."""
    address = os.environ.get("NERVE_URL", "http://localhost:8080").removeprefix("http://")
    model = os.environ.get("MODEL", "minilm-ner")
    with InferenceServerClient(address) as client:
        most = client.get_model_config(model)["max_batch_size"]
        for first in range(0, len(texts), most):
            part = texts[first : first + most]
            tensor = InferInput("TEXT", [len(part), 1], "BYTES")
            tensor.set_data_from_numpy(np.array([[text] for text in part], dtype=object))
            options = {"aggregation": "simple", "threshold": 0.5}
            result = client.infer(model, [tensor], parameters=options)
            for (document,) in result.as_numpy("ENTITIES"):
                for entity in json.loads(document):
                    print(entity["label"], entity["text"], entity["score"])


if __name__ == "__main__":
    main(sys.argv[1:] or ["Ada Lovelace lived in London."])
