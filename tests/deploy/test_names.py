"""What deploy/ names is there: settings, flags, metrics."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest
from typer.main import get_command

from deploy.tools import DEPLOY
from nerve.cli import app
from nerve.config.server import ServerConfig

TEXTS: Final = sorted(
    path for path in DEPLOY.rglob("*") if path.is_file() and path.suffix not in (".json", ".pyc")
)
OTHERS: Final = {"NERVE_CONFIG", "NERVE_URL"}
COMPOSE: Final = {"NERVE_MODELS", "NERVE_ADDRESS"}
"""What compose.yaml itself is told."""


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_every_variable_is_a_setting(path: Path) -> None:
    known = {f"NERVE_{name.upper()}" for name in ServerConfig.model_fields} | OTHERS
    if path.name in ("compose.yaml", "README.md"):
        known |= COMPOSE
    assert set(re.findall(r"\bNERVE_[A-Z][A-Z_]*[A-Z]\b", path.read_text())) <= known


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_every_flag_of_ours_is_there(path: Path) -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for command, rest in re.findall(r"\bnerve (serve|validate)\b([^\n`|&;]*)", path.read_text()):
        flags = {flag for option in commands[command].params for flag in option.opts}
        assert set(re.findall(r"(?<!\S)--[a-z-]+", rest)) <= flags


def test_metrics_of_the_autoscaler_are_there(root: Path) -> None:
    adapter = (DEPLOY / "helm" / "prometheus-adapter.yaml").read_text()
    names = set(re.findall(r"\bnerve_\w+", adapter))
    code = "".join(
        path.read_text() for path in (root / "server" / "nerve" / "metrics").glob("*.py")
    )
    assert names
    assert {name for name in names if f'"{name}"' not in code} == set()
