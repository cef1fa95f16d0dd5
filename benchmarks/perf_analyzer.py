"""perf_analyzer, Triton's own load generator: where it comes from, how to run it, what it reports.

`python perf_analyzer.py` fetches it into the environment that Python runs from (`make test` and
`make bench` do): the program lies in an older wheel of tritonclient and is linked to a library of
NVIDIA's and to Debian's libb64-0d, of which the last must be installed.
"""

from __future__ import annotations

import asyncio
import csv
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

WHEELS: Final = ("tritonclient==2.51.0", "nvidia-cuda-runtime-cu12")
"""The later ones of tritonclient are without the program."""
FILES: Final = ("/data/bin/perf_analyzer", "/lib/libcudart.so.12")
FOLDER: Final = Path(sys.prefix) / "perf_analyzer"
LIMIT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Report:
    """What perf_analyzer tells of one concurrency; times are microseconds, those of the server and
    of the way there are means of a request."""

    concurrency: int
    inferences_per_s: float
    p50_us: float
    p90_us: float
    p95_us: float
    p99_us: float
    server_queue_us: float
    server_compute_input_us: float
    server_compute_infer_us: float
    server_compute_output_us: float
    network_us: float
    """Between client and server, both ways, and what is left over."""
    server_inferences: int
    server_executions: int
    server_requests: int
    printed: str
    """All that it wrote to its standard output."""

    @property
    def mean_batch(self) -> float:
        """Items a run of the model, by the server's own count."""
        return self.server_inferences / max(self.server_executions, 1)


class PerfAnalyzerError(Exception):
    """It ended with an error; the text is what it wrote."""


@dataclass(frozen=True, slots=True)
class PerfAnalyzer:
    """The program; the library that came with it lies beside it."""

    program: Path

    @property
    def environment(self) -> dict[str, str]:
        """Of its processes."""
        return _environment(self.program)

    async def run(
        self,
        model: str,
        *,
        url: str,
        protocol: str = "http",
        flags: Sequence[str] = (),
        limit_s: float = LIMIT_S,
    ) -> list[Report]:
        """Measure a model; one report a concurrency.

        Args:
            url: host:port of the protocol.
            protocol: "http" or "grpc".
            flags: further arguments, `--concurrency-range` for instance.
            limit_s: longest time.
        Raises:
            PerfAnalyzerError: it failed, or took longer.
        """
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "report.csv"
            command = [str(self.program), "-m", model, "-u", url, "-i", protocol]
            process = await asyncio.create_subprocess_exec(
                *command, *flags, "-f", str(file),
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
                env=self.environment,
            )  # fmt: skip
            try:
                async with asyncio.timeout(limit_s):
                    printed = (await process.communicate())[0].decode(errors="replace")
            except TimeoutError:
                raise PerfAnalyzerError(f"no report within {limit_s:g} s") from None
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            if process.returncode != 0 or not file.exists():
                said = printed.partition("\nUsage:")[0]
                raise PerfAnalyzerError(f"ended with {process.returncode}:\n{said}")
            return parse(file.read_text(encoding="utf-8"), printed)


def find() -> PerfAnalyzer | None:
    """The program, if it is there and can run."""
    return None if why_not() else PerfAnalyzer(FOLDER / "perf_analyzer")


def why_not() -> str:
    """What is missing and how to get it; empty if nothing is."""
    program = FOLDER / "perf_analyzer"
    if not program.exists():
        return f"perf_analyzer is not there; get it by: {Path(sys.executable).name} {__file__}"
    tried = subprocess.run(
        [program, "--version"],
        capture_output=True,
        text=True,
        check=False,
        env=_environment(program),
    )
    if tried.returncode == 0:
        return ""
    if "libb64.so" in tried.stderr:
        return "perf_analyzer needs libb64.so.0d; get it by: apt-get install libb64-0d"
    return f"perf_analyzer does not run: {tried.stderr.strip()}"


def _environment(program: Path) -> dict[str, str]:
    libraries = [str(program.parent), os.environ.get("LD_LIBRARY_PATH", "")]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(filter(None, libraries))}


def parse(table: str, printed: str) -> list[Report]:
    """Reports from the CSV file and the standard output of a run. Pure."""
    counts = {
        int(concurrency): text
        for concurrency, text in re.findall(
            r"^Request concurrency: (\d+)\n(.*?)(?=^Request concurrency|^Inferences/Second|\Z)",
            printed,
            flags=re.MULTILINE | re.DOTALL,
        )
    }
    return [_report(row, counts, printed) for row in csv.DictReader(table.splitlines())]


def _report(row: dict[str, str], counts: dict[int, str], printed: str) -> Report:
    concurrency = int(row["Concurrency"])
    said = counts.get(concurrency, "")

    def counted(what: str) -> int:
        found = re.search(rf"  {what}: (\d+)", said.partition("Server:")[2])
        return int(found[1]) if found else 0

    def number(column: str) -> float:
        return float(row.get(column) or 0.0)

    return Report(
        concurrency=concurrency,
        inferences_per_s=number("Inferences/Second"),
        p50_us=number("p50 latency"),
        p90_us=number("p90 latency"),
        p95_us=number("p95 latency"),
        p99_us=number("p99 latency"),
        server_queue_us=number("Server Queue"),
        server_compute_input_us=number("Server Compute Input"),
        server_compute_infer_us=number("Server Compute Infer"),
        server_compute_output_us=number("Server Compute Output"),
        network_us=number("Network+Server Send/Recv"),
        server_inferences=counted("Inference count"),
        server_executions=counted("Execution count"),
        server_requests=counted("Successful request count"),
        printed=printed,
    )


def fetch() -> None:
    """Put the program and its library into `FOLDER`."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        print("perf_analyzer runs on Linux on x86-64 only; what needs it is skipped")
        return
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", "--dest", folder, *WHEELS], check=True)
        FOLDER.mkdir(parents=True, exist_ok=True)
        for wheel in sorted(Path(folder).glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if name.endswith(FILES):
                        _unpack(archive, name)
    print(why_not() or f"perf_analyzer is in {FOLDER}")


def _unpack(archive: zipfile.ZipFile, name: str) -> None:
    target = FOLDER / Path(name).name
    with archive.open(name) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file)
    target.chmod(0o755)


if __name__ == "__main__":
    fetch()
