"""Ask for entities with Baseten's client: pip install baseten-performance-client.

python baseten.py TEXT...; NERVE_URL says where the server is.
"""

from __future__ import annotations

import os
import sys

from baseten_performance_client import PerformanceClient


def main(texts: list[str]) -> None:
    """Print a line an entity; each text is a request of its own, as many at once as the client likes."""
    url = os.environ.get("NERVE_URL", "http://localhost:8080")
    client = PerformanceClient(base_url=url, api_key="unused")
    payloads = [{"inputs": [[text]], "aggregation_strategy": "simple"} for text in texts]
    response = client.batch_post(url_path="/predict_tokens", payloads=payloads)
    for body in response.data:
        (entities,) = body  # one list a text, and each payload has one
        for entity in entities:
            ((label, score),) = entity["results"].items()
            print(label, entity["token"], score)


if __name__ == "__main__":
    main(sys.argv[1:] or ["Ada Lovelace lived in London."])
