"""Submit texts to be answered later, and print their entities: needs nothing but Python.

python async.py TEXT...; NERVE_URL says where a server is that was started with --async-store. With a
webhook (webhook_endpoint) there is nothing to wait for: the answer is sent there.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.request
from typing import Any, Final

URL: Final = os.environ.get("NERVE_URL", "http://localhost:8080")
ENDED: Final = ("SUCCEEDED", "FAILED", "EXPIRED", "CANCELED", "WEBHOOK_FAILED")


def ask(method: str, path: str, body: object = None) -> Any:  # noqa: ANN401  JSON
    """What the server answers; raises urllib.error.HTTPError."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data=data, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def submit(text: str) -> str:
    """Its id: the server keeps the request from now on."""
    body = {
        "model_input": {"inputs": [text], "aggregation_strategy": "simple"},
        "max_time_in_queue_seconds": 3600,
    }
    return str(ask("POST", "/async_predict", body)["request_id"])


def wait(request_id: str) -> dict[str, Any]:
    """How it ended."""
    pause_s = 0.05
    while True:
        told: dict[str, Any] = ask("GET", f"/async_request/{request_id}")
        if told["status"] in ENDED:
            return told
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 2.0)


def main(texts: list[str]) -> None:
    """Print a line an entity."""
    for request_id in [submit(text) for text in texts]:
        told = wait(request_id)
        if told["status"] != "SUCCEEDED":
            print(f"{request_id} is {told['status']}: {told['errors']}", file=sys.stderr)
            continue
        (entities,) = ask("GET", f"/async_request/{request_id}/result")  # one list a text
        for entity in entities:
            ((label, score),) = entity["results"].items()
            print(label, entity["token"], score)


if __name__ == "__main__":
    main(sys.argv[1:] or ["Ada Lovelace lived in London."])
