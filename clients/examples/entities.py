"""Ask a Nerve server for the entities of texts; needs nothing but Python.

python entities.py [--url http://localhost:8080] [--model NAME] TEXT...; NERVE_URL is the default
of --url.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote, urlsplit


def entities(url: str, texts: list[str], model: str | None = None) -> list[list[dict[str, Any]]]:
    """Entities of each text, as POST /predict_tokens answers them.

    Raises:
        urllib.error.HTTPError: with a JSON body that says what is wrong.
        OSError, http.client.HTTPException, ValueError: no server, or none of HTTP and JSON.
    """
    path = f"/v1/models/{quote(model, safe='')}/predict_tokens" if model else "/predict_tokens"
    body = json.dumps({"inputs": texts, "aggregation_strategy": "simple"}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url.rstrip("/") + path, data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: list[list[dict[str, Any]]] = json.load(answer)
    return found


def is_address(url: str) -> bool:
    """Whether a server can be there."""
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port
        return False


def fault(error: urllib.error.HTTPError) -> str:
    """What the server says is wrong."""
    try:
        return f"{error.code}: {json.load(error)['error']}"
    except (ValueError, KeyError, TypeError):
        return f"{error.code}: nothing is served at {error.url}"


def main() -> None:
    """Print a line an entity."""
    parser = argparse.ArgumentParser(description="Print the entities of texts.")
    default = os.environ.get("NERVE_URL", "http://localhost:8080")
    parser.add_argument("--url", default=default)
    parser.add_argument("--model")
    parser.add_argument("texts", nargs="+", metavar="TEXT")
    asked = parser.parse_args()
    if not is_address(asked.url):
        sys.exit(f"--url: expected http://host:port, got {asked.url!r}")
    try:
        answer = entities(asked.url, asked.texts, asked.model)
    except urllib.error.HTTPError as error:
        sys.exit(fault(error))
    except urllib.error.URLError as error:
        sys.exit(f"no server at {asked.url}: {error.reason}")
    except (OSError, http.client.HTTPException, ValueError) as error:
        sys.exit(f"what listens at {asked.url} is no Nerve over HTTP: {type(error).__name__}")
    for text, found in zip(asked.texts, answer, strict=True):
        print(text)
        for entity in found:
            ((label, score),) = entity["results"].items()
            print(
                f"  {label:5} {entity['token']}  ({score:.3f}, {entity['start']}-{entity['end']})"
            )


if __name__ == "__main__":
    main()
