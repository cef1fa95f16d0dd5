"""The texts that the benchmarks send, and how each becomes a request."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "texts"
SEED: Final = 20


def load_texts() -> list[str]:
    """Every sentence of texts/*.txt, in the same shuffled order each time."""
    texts = [
        line
        for file in sorted(FOLDER.glob("*.txt"))
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    random.Random(SEED).shuffle(texts)
    return texts


def write_bodies(texts: list[str], file: Path) -> None:
    """A body of POST predict_tokens a line, one text each."""
    bodies = [json.dumps({"inputs": text}) for text in texts]
    file.write_text("\n".join(bodies) + "\n", encoding="utf-8")
