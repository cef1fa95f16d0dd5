"""Writing a planned model folder into a repository, so that it is there as a whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

from nerve.errors import RepositoryInvalid
from nerve.importing.config_text import config_text
from nerve.importing.plan import ImportFailed, ImportPlan, name_fault
from nerve.importing.staging import staging_folder
from nerve.repository.files import told
from nerve.repository.layout import CONFIG_FILES, read_models, scan, version_number

_REPLACED: Final = ".nerve-replaced-"


def install(
    plan: ImportPlan,
    repository: Path,
    *,
    replace: bool,
    check: Callable[[Path], None] | None = None,
) -> Path:
    """Write a model folder beside its place, look at it, and rename it into its place.

    Files are copied, not linked: a linked file would change with its source while it is served,
    past the checks that a change goes through.

    Args:
        plan: what to write.
        repository: a folder of models; it is made if there is none.
        replace: whether a model of that name that is there already may go.
        check: is given the folder before it takes its place; what it raises ends the import.
    Returns:
        The model's folder, `repository/plan.name`.
    Raises:
        ImportFailed: a model of that name is there, or something cannot be read or written.
            Then, as when this is interrupted, nothing of it is left.
    """
    if fault := name_fault(plan.name):
        raise ImportFailed(fault)
    place = repository / plan.name
    check_place(place, replace=replace)
    try:
        made = _made(repository)
    except OSError as error:
        raise ImportFailed(f"{repository} cannot be made: {told(error)}") from error
    try:
        with _staged(plan, repository) as folder:
            if check is not None:
                check(folder)
            check_place(place, replace=replace)  # somebody may have been quicker
            _swap_in(folder, place)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise ImportFailed(f"{place} cannot be written: {where}{told(error)}") from error
    finally:
        _unmake(made)
    return place


def check_place(place: Path, *, replace: bool) -> None:
    """Whether a model can be put at `place`, the folder of its name in a repository.

    Raises:
        ImportFailed: there is one already, or the repository is no folder of models.
    """
    repository = place.parent
    try:
        is_folder = repository.is_dir()
    except OSError as error:  # its name is too long, or what it lies in may not be read
        raise ImportFailed(f"{repository} cannot be a folder of models: {told(error)}") from error
    if is_folder:
        if _is_model(repository):
            above = Path(os.path.abspath(repository)).parent  # noqa: PTH100  not where a link leads
            shown = above if repository.is_absolute() else Path(os.path.relpath(above))
            raise ImportFailed(
                f"{repository} is itself a model's folder; name the folder above it with "
                f"--repository, as in --repository {shown}"
            )
    elif os.path.lexists(repository):
        raise ImportFailed(f"{repository} is a file, expected a folder of models")
    if not os.path.lexists(place):
        return
    if not replace:
        raise ImportFailed(
            f"{place} is there already; add --replace to put the new model in its place, or "
            "--name NAME to give it another name"
        )
    if place.is_symlink() or not place.is_dir():
        raise ImportFailed(f"{place} is no folder of its own; remove it first")


def _is_model(folder: Path) -> bool:
    """Whether a folder is one of a model, even one that has nothing but versions."""
    try:
        listing = scan(folder)
    except RepositoryInvalid as error:
        raise ImportFailed(str(error)) from error
    if any(model.path == listing.path for model in read_models(listing)):
        return True
    return any(
        version_number(name) and any(file.endswith(".onnx") for file in version.files)
        for name, version in listing.folders.items()
    )


@contextmanager
def _staged(plan: ImportPlan, repository: Path) -> Iterator[Path]:
    """The written folder, in one of its own that is removed in the end, with what is left in it."""
    with staging_folder(repository) as aside:
        folder = aside / plan.name
        folder.mkdir()
        for place, source in plan.files.items():
            _copy(source, _below(folder, place))
        for place, text in plan.texts.items():
            _write(text, _below(folder, place))
        if plan.config or plan.head:
            _write(config_text(plan.config, plan.head), folder / CONFIG_FILES[0])
        yield folder


def _below(folder: Path, place: str) -> Path:
    parts = PurePosixPath(place)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise ImportFailed(f"{place!r} is no place in a model's folder")
    path = folder / parts
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _copy(source: Path, path: Path) -> None:
    try:
        shutil.copyfile(source, path)
    except shutil.SpecialFileError as error:
        raise ImportFailed(f"{source} is a pipe, expected a file") from error
    # Not the source's own mode: a server that runs as another user must be able to read it.
    _flush(path)


def _write(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
    _flush(path)


def _flush(path: Path) -> None:
    """Onto the disk: after a power cut the renamed folder must not hold empty files."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _swap_in(folder: Path, place: Path) -> None:
    """Rename the folder into its place. What was there is put aside until the new one stands."""
    if not place.exists():
        folder.rename(place)
        return
    aside = Path(tempfile.mkdtemp(prefix=_REPLACED, dir=place.parent))
    before = aside / place.name
    try:
        place.rename(before)
        folder.rename(place)
    finally:
        if before.exists() and not place.exists():
            before.rename(place)
        shutil.rmtree(aside, ignore_errors=True)


def _made(repository: Path) -> list[Path]:
    """Make the folder and those above it; those that were not there, the deepest first."""
    missing = [each for each in (repository, *repository.parents) if not each.exists()]
    repository.mkdir(parents=True, exist_ok=True)
    return missing


def _unmake(made: list[Path]) -> None:
    """Remove folders that were made for nothing."""
    for folder in made:
        try:
            folder.rmdir()
        except OSError:  # the model is in it
            return
