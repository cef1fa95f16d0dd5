"""Run the checks with one of tritonclient's clients: `python -m clients.triton KIND URL GRPC MODEL`.

URL is the daemon's HTTP root, GRPC the port of its gRPC, MODEL the folder of the bundled model's
version. Ends with 1, and the tracebacks, if a check fails.
"""

from __future__ import annotations

import asyncio
import sys
import time
import traceback
from pathlib import Path
from typing import Final

from clients.triton import infer, methods, refusals, streams, waiting
from clients.triton.client import opened
from clients.triton.truth import Truth

CHECKS: Final = (*methods.CHECKS, *infer.CHECKS, *refusals.CHECKS, *waiting.CHECKS)


async def main(kind: str, url: str, grpc_port: str, model: str) -> int:
    """Run every check that the kind of client is for; returns how many failed."""
    truth, failed = Truth(url, Path(model)), 0
    ports = {"http": int(url.rpartition(":")[2]), "grpc": int(grpc_port)}
    async with opened(kind, ports) as client:
        for check in (*CHECKS, *(streams.CHECKS if client.grpc else ())):
            name, began = f"{check.__module__}.{check.__name__}", time.perf_counter()
            try:
                async with asyncio.timeout(60):
                    await check(client, truth)
            except Exception:  # noqa: BLE001  told below; the others are to run, too
                failed += 1
                print(f"FAILED {name}\n{traceback.format_exc()}")
            else:
                print(f"passed {name} in {time.perf_counter() - began:.2f} s")
    return failed


if __name__ == "__main__":
    sys.exit(1 if asyncio.run(main(*sys.argv[1:])) else 0)
