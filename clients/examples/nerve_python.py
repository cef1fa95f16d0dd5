"""Ask for entities with this project's own client: pip install 'nerve-client[grpc]'.

python nerve_python.py TEXT...; NERVE_URL says where the server is, http://… or grpc://….
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from nerve_client import Client, ItemError


def main(texts: Iterator[str]) -> None:
    """Print a line an entity; texts go in batches, again if the server is full."""
    with Client(os.environ.get("NERVE_URL", "http://localhost:8080")) as client:
        for found in client.extract_many(texts, threshold=0.5, on_error="return"):
            if isinstance(found, ItemError):  # of this text only
                print("failed:", found)
                continue
            for entity in found:
                print(entity.label, entity.text, entity.score)


if __name__ == "__main__":
    main(iter(sys.argv[1:] or ["Ada Lovelace lived in London."]))
