"""The process that converts one graph: `python -m nerve.engine.precision`, see `nerve.conversion`.

It reads one JSON object from standard input, writes the graph to the file that this names, and
one JSON object to standard output. It ends when standard input does, so that nothing is left when
the daemon is killed.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from pathlib import Path
from typing import Final

import orjson
from pydantic import BaseModel

from nerve.config.running import Precision
from nerve.engine.memory import limit_memory
from nerve.engine.precision.convert import convert_model
from nerve.engine.precision.graph import ConversionError, read

_NICE: Final = 5
"""Serving comes first."""


class Order(BaseModel):
    """What to convert: files, their SHA-256 where it is known, and where the result goes to."""

    graph: Path
    external: dict[str, Path]
    digests: dict[Path, str]
    precision: Precision
    target: Path
    memory_bytes: int | None


class Told(BaseModel):
    """What became of it: the SHA-256 of the result, or that the graph may stay, or why there is none."""

    digest: str = ""
    unchanged: bool = False
    failed: str = ""
    out_of_memory: bool = False


def carry_out(order: Order) -> Told:
    """Convert, and tell."""
    try:
        if order.memory_bytes is not None:
            limit_memory(order.memory_bytes)
        # No name for what is read: it takes as much memory as the graph, and is not needed any more.
        model = read(
            _read(order.graph, order),
            {name: _read(path, order) for name, path in order.external.items()},
        )
        content = convert_model(model, order.precision)
        if content is None:
            return Told(unchanged=True)
        with order.target.open("wb") as file:
            file.write(content)
        return Told(digest=hashlib.sha256(content).hexdigest())
    except ConversionError as error:
        return Told(failed=str(error))
    except OSError as error:
        return Told(failed=error.strerror or str(error))
    except MemoryError:
        return Told(failed="there is not enough memory for it", out_of_memory=True)
    except Exception as error:  # noqa: BLE001  boundary: a graph that we do not understand is not served
        return Told(failed=f"{type(error).__name__}: {error}")


def _read(path: Path, order: Order) -> bytes:
    content = path.read_bytes()
    known = order.digests.get(path)
    if known is not None and hashlib.sha256(content).hexdigest() != known:
        raise ConversionError("its files have changed meanwhile")
    return content


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def main() -> None:
    """Do what standard input says."""
    if hasattr(os, "nice"):
        os.nice(_NICE)
    order = Order(**orjson.loads(sys.stdin.buffer.readline()))
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    told = carry_out(order)
    sys.stdout.buffer.write(orjson.dumps(told.model_dump()))
    sys.stdout.flush()
    os._exit(0)  # without waiting for the thread, or freeing what was a graph


if __name__ == "__main__":
    main()
