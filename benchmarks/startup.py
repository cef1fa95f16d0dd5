"""Time from process start to the first answer of the daemon with the bundled model.

    python benchmarks/startup.py [--runs 5]

Starts `python -m nerve serve` on ports of the kernel's choice, asks POST /predict_tokens until
it answers, and prints the seconds of each run and their median, with and without gRPC.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

REPOSITORY = Path(__file__).parents[1] / "model_repository"
TARGET_S = 2.0


def first_answer_s(*flags: str) -> float:
    """Seconds from the start of the process to its first answer over HTTP."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "nerve", "serve", "--http-hostname", "127.0.0.1"]
    command += ["--http-port", "0", "--grpc-port", "0", *flags, str(REPOSITORY)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:
        try:
            assert daemon.stdout is not None
            port = int(daemon.stdout.readline().rsplit(":", 1)[1])
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/predict_tokens",
                data=json.dumps({"inputs": "Ada Lovelace was born in London"}).encode(),
            )
            while True:
                try:
                    with urllib.request.urlopen(request, timeout=10) as answer:
                        assert json.load(answer)
                        return time.perf_counter() - began
                except urllib.error.HTTPError as error:
                    assert error.code == 503, error  # still loading
                    if time.perf_counter() - began > 60:
                        raise
                    time.sleep(0.005)
        finally:
            daemon.terminate()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    for name, flags in (("HTTP and gRPC", ()), ("HTTP only", ("--disable-grpc",))):
        seconds = [first_answer_s(*flags) for _ in range(runs)]
        median = statistics.median(seconds)
        verdict = "under" if median < TARGET_S else "OVER"
        each = " ".join(f"{value:.2f}" for value in seconds)
        print(f"{name:14}  median {median:.2f} s ({verdict} {TARGET_S:g} s)  runs: {each}")


if __name__ == "__main__":
    main()
