"""Whether a planned model's configs would be taken, before anything of it is written."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import Final

from nerve.config.model import load_model_config, load_version_config
from nerve.importing.config_text import config_text
from nerve.importing.model_folder import SCRIPTS, own_config
from nerve.importing.plan import ImportFailed, ImportPlan
from nerve.repository.files import told
from nerve.repository.layout import CONFIG_FILES, version_number

_ENDINGS: Final = (SCRIPTS, ".yaml", ".yml")


def check_config(plan: ImportPlan) -> None:
    """Read the configs as a load does, without the model.

    Raises:
        ConfigInvalid: with every problem of a config.
        ImportFailed: a file of the plan cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="nerve-import-") as name:
        home = Path(name)
        try:
            _write(plan, home)
        except OSError as error:
            raise ImportFailed(f"{error.filename}: {told(error)}") from error
        config = load_model_config(own_config(home), name=plan.name)
        for folder in sorted(home.iterdir()):
            number = version_number(folder.name)
            if number and (own := own_config(folder)) is not None:
                load_version_config(own, config, number=number)


def _write(plan: ImportPlan, home: Path) -> None:
    """The configs and the scripts that they name, in their places."""
    content = dict(plan.texts)
    if plan.config or plan.head:
        content[CONFIG_FILES[0]] = config_text(plan.config, plan.head)
    for place in filter(_matters, (*plan.files, *content)):
        path = home / PurePosixPath(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        if place in content:
            path.write_text(content[place], encoding="utf-8", newline="\n")
        else:
            shutil.copyfile(plan.files[place], path)


def _matters(place: str) -> bool:
    return place.endswith(_ENDINGS)
