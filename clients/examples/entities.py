"""Ask a Nerve server for the entities of texts; needs nothing but Python.

python entities.py [--url http://localhost:8080] [--model NAME] TEXT...
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote


def entities(url: str, texts: list[str], model: str | None = None) -> list[list[dict[str, Any]]]:
    """Entities of each text, as POST /predict_tokens answers them.

    Raises:
        urllib.error.HTTPError: with a JSON body that says what is wrong.
    """
    path = f"/v1/models/{quote(model, safe='')}/predict_tokens" if model else "/predict_tokens"
    body = json.dumps({"inputs": texts, "aggregation_strategy": "max"}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url.rstrip("/") + path, data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: list[list[dict[str, Any]]] = json.load(answer)
    return found


def main() -> None:
    """Print a line an entity."""
    parser = argparse.ArgumentParser(description="Print the entities of texts.")
    parser.add_argument("--url", default="http://localhost:8080")
    parser.add_argument("--model")
    parser.add_argument("texts", nargs="+", metavar="TEXT")
    asked = parser.parse_args()
    try:
        answer = entities(asked.url, asked.texts, asked.model)
    except urllib.error.HTTPError as error:
        sys.exit(f"{error.code}: {json.load(error)['error']}")
    except urllib.error.URLError as error:
        sys.exit(f"no server at {asked.url}: {error.reason}")
    for text, found in zip(asked.texts, answer, strict=True):
        print(text)
        for entity in found:
            ((label, score),) = entity["results"].items()
            print(
                f"  {label:5} {entity['token']}  ({score:.3f}, {entity['start']}-{entity['end']})"
            )


if __name__ == "__main__":
    main()
