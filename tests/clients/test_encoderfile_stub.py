"""A stub generated from protos with Encoderfile's file names and numbers, as its users have one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import pytest_asyncio

from clients.separate import run, run_python
from support import Daemon

CALLER = Path(__file__).parent / "encoderfile_caller.py"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to import `proto.token_classification_pb2_grpc` from."""
    out = tmp_path_factory.mktemp("stub")
    protos = Path(__file__).parent / "encoderfile_protos"
    await run_python(
        "grpc_tools.protoc", f"-I{protos}", f"--python_out={out}", f"--grpc_python_out={out}",
        *sorted(str(file.relative_to(protos)) for file in protos.rglob("*.proto")),
    )  # fmt: skip
    return out


@pytest.mark.parametrize("beside", ["alone", "nerve"])
async def test_stub(stub: Path, bundled_daemon: Daemon, beside: str) -> None:
    """It works in a process of its own, and in one that has this server's own generated code."""
    env = {"PYTHONPATH": str(stub)}
    port, url = str(bundled_daemon.ports["grpc"]), bundled_daemon.url
    printed = await run(sys.executable, str(CALLER), port, url, beside, env=env)
    assert printed.splitlines()[-1] == "the same tokens"
