"""Where nobody can listen: each listener says why, and which flag chooses another place."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from api.conftest import settings
from nerve.app import App
from nerve.errors import AddressUnavailable
from nerve.frontend.addresses import refusal

NOWHERE = "203.0.113.7"
"""Of documentation (RFC 5737): no machine has it."""


@pytest.mark.parametrize("listener", ["http", "grpc", "metrics"])
async def test_an_address_of_another_machine(
    listener: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Told once, in our own words: grpc has lines of its own for it."""
    given: dict[str, object] = {"grpc_port": 0, "disable_grpc": listener != "grpc"}
    given |= {"metrics_port": 0} if listener == "metrics" else {}
    given[f"{listener}_hostname"] = NOWHERE
    app = App(settings(tmp_path, **given), announce=lambda _line: None)
    try:
        with pytest.raises(AddressUnavailable) as caught:
            await app.start()
    finally:
        await app.stop()
    assert str(caught.value) == (
        f"cannot listen on {NOWHERE}:0: no such address on this machine; choose another with "
        f"--{listener}-hostname"
    )
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (socket.gaierror(socket.EAI_NONAME, "unknown"), "no address has that name (unknown); "),
        (OSError(errno.EADDRINUSE, ""), "the port is in use; choose another with --a-port"),
        (OSError(errno.EACCES, ""), "this user may not listen on that port; "),
        (OSError(errno.ENOBUFS, "no room"), "no room"),
    ],
)
def test_reasons(error: OSError, told: str) -> None:
    assert refusal(error, "--a").startswith(told)
