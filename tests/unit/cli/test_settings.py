"""Options of `nerve serve` that are made of the settings."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from nerve.cli.settings import OTHER_NAMES, SettingsCommand, given, with_settings
from nerve.config.server import ServerConfig

FLAGS = sorted(
    "--" + name.removesuffix("_s").replace("_", "-")
    for name in ServerConfig.model_fields
    if name != "repositories"
)


def serve(*arguments: str, columns: int = 80) -> tuple[str, dict[str, Any]]:
    """What a command with all settings prints, and what it makes of its arguments."""
    app, found = typer.Typer(), {}

    @app.command(cls=SettingsCommand)
    @with_settings
    def command(**settings: object) -> None:
        found.update(given(settings))

    result = CliRunner().invoke(app, arguments, env={"COLUMNS": str(columns)})
    assert result.exit_code == 0, result.output
    return result.output, found


@pytest.fixture(scope="module")
def told() -> str:
    return serve("--help")[0]


@pytest.mark.parametrize("flag", [*FLAGS, *sorted(OTHER_NAMES.values()), "--no-prove-models"])
def test_every_flag_stands_whole_at_80_columns(told: str, flag: str) -> None:
    """A table cuts what it has no room for."""
    assert flag in {word.strip(".,;│") for word in told.split()}


def test_words_to_choose_from_are_told(told: str) -> None:
    lines = " ".join(told.replace("│", " ").split())
    for words in (
        "debug, info, warning, error",
        "console, json",
        "grpc, http/protobuf",
        "codepoint, byte, utf16",
        "watch, poll, explicit, none",
    ):
        assert f"One of: {words}." in lines


@pytest.mark.parametrize(
    ("arguments", "made"),
    [
        ((), {}),
        (("--prove-models",), {"prove_models": True}),
        (("--no-prove-models",), {"prove_models": False}),
        (("--repository-poll-secs", "3"), {"repository_poll_seconds": 3.0}),
        (("--repository-poll-seconds", "3"), {"repository_poll_seconds": 3.0}),
        (("--exit-timeout-secs", "3"), {"shutdown_timeout_s": 3.0}),
        (
            ("--cors-allowed-origins", "http://a,http://b", "--cors-allowed-origins", "http://c"),
            {"cors_allowed_origins": ["http://a", "http://b", "http://c"]},
        ),
        (("--load-model", "a, b"), {"load_model": ["a", "b"]}),
        (("--metrics-compat", "none"), {"metrics_compat": ["none"]}),
    ],
)
def test_what_is_made_of_flags(arguments: tuple[str, ...], made: dict[str, object]) -> None:
    assert serve(*arguments)[1] == made
