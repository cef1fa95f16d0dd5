"""Schemathesis on the daemon's own OpenAPI document: good and bad data for every operation.

FUZZ_EXAMPLES=100 adds that many random requests to each operation, and looks at those of versions
as hard as at the others.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any, Final

from fuzz.http_cases import SERVING
from fuzz.serving import Fuzzed, fuzzed

HERE: Final = Path(__file__).parent
EXAMPLES: Final = os.environ.get("FUZZ_EXAMPLES")
PHASES: Final = "examples,coverage,fuzzing" if EXAMPLES else "examples,coverage"
"""The document's own examples, the bounds of what schemas allow and forbid, random data. Not "stateful":
the document has no links between operations."""
CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)
QUICKLY: Final = """
[[operations]]
# The same handlers and schemas as at the root, which are looked at; of V2, as without a version.
include-operation-id-regex = "(predict(_tokens)?|tokenize|decode|infer|generate.*)_of_(model|version)"
phases.coverage.enabled = false
"""
MAIN: Final = "import sys; from schemathesis.cli import schemathesis; sys.exit(schemathesis())"


async def schemathesis(daemon: Fuzzed, folder: Path) -> tuple[dict[str, Any], str]:
    """Run it; its report as JSON, and as people read it."""
    config, report = folder / "schemathesis.toml", folder / "report.json"
    told = (HERE / "schemathesis.toml").read_text(encoding="utf-8")
    config.write_text(told + ("" if EXAMPLES else QUICKLY), encoding="utf-8")
    url = f"http://127.0.0.1:{daemon.http_port}"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        MAIN,
        "--config-file",
        str(config),
        "run",
        f"{url}/openapi.json",
        "--url",
        url,
        "--phases",
        PHASES,
        "--checks",
        ",".join(CHECKS),
        "--max-examples",
        EXAMPLES or "1",
        "--continue-on-failure",
        "--no-color",
        "--request-timeout",
        "20",
        "--report-json-path",
        str(report),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ
        | {
            "FUZZED_MODELS": ",".join(SERVING),
            "SCHEMATHESIS_HOOKS": str(HERE / "schemathesis_hooks.py"),
        },
    )
    shown = (await process.communicate())[0].decode()
    assert process.returncode in (0, 1), shown
    return json.loads(report.read_text()), shown


async def test_every_operation_answers_as_documented(tmp_path: Path) -> None:
    """No answer that the document does not tell of, no 5xx but 503, nothing unhandled in the log."""
    async with fuzzed(tmp_path, "--async-store", str(tmp_path / "jobs.db")) as daemon:
        report, shown = await schemathesis(daemon, tmp_path)
        assert daemon.wild_lines() == []
    assert not report["failures"], shown
    assert not report["errors"], shown
    assert report["complete"], shown
    assert report["operations"]["tested"] == report["operations"]["total"] > 60
    assert report["test_cases"]["generated"] > 1000
