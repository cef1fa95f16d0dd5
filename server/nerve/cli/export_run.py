"""`nerve export` at work: checks before, optimum-cli, and a look at what it wrote."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nerve.cli.terminal import plain, print_lines
from nerve.importing.export_folder import is_file, is_folder, read_export
from nerve.importing.plan import ImportFailed, folder_name
from nerve.repository.files import told

PROGRAM: Final = "optimum-cli"
INSTALL: Final = "pip install 'optimum-onnx[onnxruntime]'"


def export_model(model: str, output: Path | None, options: Sequence[str], *, force: bool) -> None:
    """Have a model exported.

    Args:
        model: of the hub, or a folder.
        output: the folder to write; None: named after the model, here.
        options: of the exporter's, besides.
        force: write into a folder that is not empty.
    Raises:
        ImportFailed: it cannot be, or what was written is no model.
    """
    target = output or Path(_folder_of(model))
    _check_target(target, force=force)
    arguments = ["export", "onnx", "--model", model, *options, str(target)]
    program = find_program()
    if program is None:
        raise ImportFailed(
            f"{PROGRAM} is not installed; install it, beside Nerve or in an environment of its "
            f"own:\n  {INSTALL}\nthen run this again, or\n  {shlex.join([PROGRAM, *arguments])}"
        )
    print_lines([plain(shlex.join([PROGRAM, *arguments]))])
    _run([program, *arguments])
    _look(target)


def find_program() -> str | None:
    """Where optimum-cli is: on PATH, or beside this Python, whose environment may not be active."""
    beside = str(Path(sys.executable).parent)
    return shutil.which(PROGRAM) or shutil.which(PROGRAM, path=beside)


def _check_target(target: Path, *, force: bool) -> None:
    """Whether a folder can be written there. Raises ImportFailed."""
    try:
        is_full = any(target.iterdir())
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        if is_file(target):
            raise ImportFailed(f"{target} is a file, expected a folder to write") from None
        raise ImportFailed(f"{target} cannot be written: {told(error)}") from error
    if is_full and not force:
        raise ImportFailed(f"{target} is not empty; name another folder, or add --force")


def _folder_of(model: str) -> str:
    """`dslim/bert-base-NER` -> `bert-base-NER`; of a folder, a name that is not its own."""
    name = folder_name(Path(model).name)
    if not name:
        raise ImportFailed(f"no folder name can be made of {model!r}; name one as OUTPUT")
    return f"{name}-onnx" if is_folder(Path(model)) else name


def _run(command: list[str]) -> None:
    """Run a program on our own terminal. Raises ImportFailed unless it succeeds."""
    try:
        # The command is ours but for the model's name, which is one argument; there is no shell.
        status = subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode  # noqa: S603
    except OSError as error:
        raise ImportFailed(f"{command[0]} cannot be started: {error.strerror}") from error
    if status < 0:
        known = {each.value: each.name for each in signal.Signals}  # few of the real-time ones
        raise ImportFailed(f"{PROGRAM} was ended by {known.get(-status, f'signal {-status}')}")
    if status:
        raise ImportFailed(f"{PROGRAM} failed with status {status}; its reason stands above")


def _look(target: Path) -> None:
    """Whether the result is one that a server can load, and what to type next."""
    found = read_export(target)
    if found.problems:
        raise ImportFailed(
            f"{PROGRAM} has ended well, but {target} cannot be served: {'; '.join(found.problems)}"
        )
    size_bytes = sum(path.stat().st_size for path in found.files.values())
    names = ", ".join(sorted(found.files))
    print_lines(
        [
            plain(f"✓ {target}{os.sep}: {names}: {size_bytes / 1e6:.1f} MB"),
            "next:",
            f"  nerve import {shlex.quote(str(target))}",
            "  nerve serve model_repository",
        ]
    )
