"""Options of a command made of the daemon's settings: what a setting is, is said where it is defined."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from nerve.config.server import ServerConfig

CommandT = TypeVar("CommandT", bound=Callable[..., None])

OTHER_NAMES: Final = {
    "repository_poll_seconds": "--repository-poll-secs",  # Triton's
    "shutdown_timeout_s": "--exit-timeout-secs",  # Triton's
}
"""Second names of options."""


def with_settings(command: CommandT) -> CommandT:
    """Give `command`, which takes **settings, an option for each setting but the repositories.

    It is called with all of them by name; those that were not given are None or empty.
    """
    signature = inspect.signature(command, eval_str=True)
    own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    parameters = [*own, *_options(ServerConfig)]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


def given(settings: Mapping[str, object]) -> dict[str, object]:
    """Those that were given. Pure."""
    return {name: value for name, value in settings.items() if value not in (None, [])}


def _options(config: type[ServerConfig]) -> Iterable[inspect.Parameter]:
    # Subjects in the order in which they are put together, last first, as pydantic has them.
    for name, field in config.model_fields.items():
        if name != "repositories":
            yield inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=_annotation(name, field, panel=_panel(config, name)),
            )


def _annotation(name: str, field: FieldInfo, *, panel: str) -> Any:  # noqa: ANN401  a form of typing's
    kind = _kind(field.annotation)
    names = [_flag(name), *filter(None, [OTHER_NAMES.get(name)])]
    if kind is bool and field.default:
        names = [f"{names[0]}/{names[0].replace('--', '--no-', 1)}"]
    listed = get_origin(kind) is list
    option = typer.Option(
        *names,
        help=_help(field, listed=listed),
        rich_help_panel=panel,
        show_default=False,
    )
    return Annotated[Union[kind, None], option]  # noqa: UP007  of a variable


def _flag(name: str) -> str:
    return "--" + name.removesuffix("_s").replace("_", "-")


def _kind(annotation: Any) -> Any:  # noqa: ANN401  a form of typing's
    """What the command line is to make of a value; all else that a setting wants is checked later."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0])
    if origin in (Union, types.UnionType):
        return _kind(next(each for each in arguments if each is not type(None)))
    if origin is list:
        return list[_kind(arguments[0])]  # type: ignore[misc]  # of a variable
    return annotation if annotation in (bool, int, float, Path) else str


def _help(field: FieldInfo, *, listed: bool) -> str:
    text = " ".join((field.description or "").split())
    if listed:
        text += " May be repeated."
    default = field.default
    if default in (None, False, []):
        return text
    return f"{text} Default: {'on' if default is True else default}"


def _panel(config: type[ServerConfig], name: str) -> str:
    """The subject of a setting: the first line of the class that has it."""
    owner = next(
        each for each in reversed(config.__mro__) if name in vars(each).get("__annotations__", {})
    )
    return (owner.__doc__ or "").splitlines()[0].removesuffix(".")
