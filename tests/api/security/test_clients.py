"""Our own clients, with a key and without."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import nerve_client
import pytest
from typer.testing import CliRunner

from api.security.conftest import secret
from nerve.cli import app as command
from nerve.cli.client import Client as HttpClient
from nerve.cli.https import Identity
from nerve.errors import InvalidField

if TYPE_CHECKING:
    from api.conftest import Server


@pytest.mark.parametrize("given", ["option", "variable"])
async def test_the_command_line(keyed: Server, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`nerve models` and `nerve bench`, with a key and without."""

    async def nerve(*arguments: str, key: str = "") -> tuple[int, str]:
        """Exit status and what is said."""
        told = [*arguments, "--url", keyed.url]
        if given == "variable":
            monkeypatch.setenv("NERVE_API_KEY", secret(key) if key else "")
        elif key:
            told += ["--api-key", secret(key)]
        result = await asyncio.to_thread(CliRunner().invoke, command, told)
        return result.exit_code, f"{result.output}{result.exception}"

    status, said = await nerve("models", "list", key="read")
    assert (status, "bert" in said) == (0, True), said
    status, said = await nerve("models", "list")
    assert (status, "no API key" in said) == (1, True), said
    bench = ("bench", "bert", "-c", "1", "-n", "1", "--warm-up", "0")
    status, said = await nerve(*bench, key="admin")
    assert status == 0, said


def test_a_key_that_cannot_be_sent() -> None:
    with pytest.raises(InvalidField) as caught:
        HttpClient("http://127.0.0.1:1", timeout_s=1, identity=Identity(api_key="hunter2\n"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
async def test_the_python_client(keyed: Server, grpc_port: int, scheme: str) -> None:
    port = keyed.port if scheme == "http" else grpc_port
    url = f"{scheme}://127.0.0.1:{port}"
    async with nerve_client.AsyncClient(url, api_key=secret("predict")) as client:
        assert (await client.extract("London")).model == "bert"
    async with nerve_client.AsyncClient(url) as client:
        with pytest.raises(nerve_client.AccessDenied, match="no API key"):
            await client.extract("London")
    with (
        nerve_client.Client(url, api_key=secret("nobody")) as plain,
        pytest.raises(nerve_client.AccessDenied, match="is not known"),
    ):
        await asyncio.to_thread(plain.extract, "London")
    for wrong, headers in (("a b", {}), ("a", {"Authorization": "x"})):
        with pytest.raises(ValueError, match="api_key"):
            nerve_client.Client(url, api_key=wrong, headers=headers)
