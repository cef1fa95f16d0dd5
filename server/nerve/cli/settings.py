"""Options of a command made of the daemon's settings: what a setting is, is said where it is defined."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from typer.core import TyperCommand, TyperOption

from nerve.config.described import descriptions
from nerve.config.server import ServerConfig

CommandT = TypeVar("CommandT", bound=Callable[..., None])

OTHER_NAMES: Final = {
    "repository_poll_seconds": "--repository-poll-secs",  # Triton's
    "shutdown_timeout_s": "--exit-timeout-secs",  # Triton's
}
"""Second names of options."""
_AGAIN: Final = "_again"
"""Ends the name of a parameter that is a setting's second option, which no table of the help shows: it
would leave no room for the others at 80 columns."""


def with_settings(command: CommandT) -> CommandT:
    """Give `command`, which takes **settings, an option for each setting but the repositories.

    It is called with all of them by name, second options too; those that were not given are None or
    empty. `given` makes settings of them. Register it with `cls=SettingsCommand`, which knows the help.
    """
    signature = inspect.signature(command, eval_str=True)
    own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    parameters = [*own, *_options(ServerConfig)]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


class SettingsCommand(TyperCommand):
    """A command with settings, whose help is put together when it is asked for."""

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401  click's
        """See click's."""
        self._describe()
        super().format_help(ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:  # noqa: ANN401  click's
        """See click's."""
        self._describe()
        return super().shell_complete(ctx, incomplete)

    def _describe(self) -> None:
        fields, about = ServerConfig.model_fields, descriptions(ServerConfig)
        for option in self.params:
            name = option.name or ""
            if isinstance(option, TyperOption) and name in fields and name != "repositories":
                field = fields[name]
                option.help = _help(field, about.get(name, ""), other=_other(name, field))


def given(settings: Mapping[str, object]) -> dict[str, object]:
    """Those that were given; the items of a list may also be separated by commas. Pure."""
    found: dict[str, object] = {}
    for name, value in settings.items():
        if value in (None, []):
            continue
        if isinstance(value, list) and name != "repositories":
            value = [item.strip() for each in value for item in str(each).split(",")]  # noqa: PLW2901
        found[name.removesuffix(_AGAIN)] = value
    return found


def _options(config: type[ServerConfig]) -> Iterable[inspect.Parameter]:
    # Subjects in the order in which they are put together, last first, as pydantic has them.
    for name, field in config.model_fields.items():
        if name == "repositories":
            continue
        kind = _kind(field.annotation)
        panel = _panel(config, name)
        option = typer.Option(_flag(name), rich_help_panel=panel, show_default=False)
        yield _parameter(name, kind, option)
        if other := _other(name, field):
            # With nothing before the slash it is the option that turns a setting off.
            second = typer.Option(f" /{other}" if kind is bool else other, hidden=True)
            yield _parameter(name + _AGAIN, kind, second)


def _parameter(name: str, kind: Any, option: Any) -> inspect.Parameter:  # noqa: ANN401  forms of typing's and typer's
    annotation = Annotated[Union[kind, None], option]  # noqa: UP007  of a variable
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def _other(name: str, field: FieldInfo) -> str:
    """The second option of a setting, "" if it has none."""
    if field.default is True:
        return _flag(name).replace("--", "--no-", 1)
    return OTHER_NAMES.get(name, "")


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


def _words(annotation: Any) -> Iterable[str]:  # noqa: ANN401  a form of typing's
    """Those that a value may be, if there are only some."""
    if get_origin(annotation) is Literal:
        yield from map(str, get_args(annotation))
    elif isinstance(annotation, type) and issubclass(annotation, StrEnum):
        yield from annotation
    else:
        for argument in get_args(annotation):
            yield from _words(argument)


def _help(field: FieldInfo, about: str, *, other: str) -> str:
    text = " ".join(about.split())
    if get_origin(_kind(field.annotation)) is list:
        text += " May be repeated, or its items separated by commas."
    elif words := ", ".join(_words(field.annotation)):
        text += f" One of: {words}."
    default = field.default
    if default is True:
        return f"{text} Default: on; {other} turns it off."
    if other:
        text += f" Also {other}."
    return text if default in (None, False, []) else f"{text} Default: {default}"


def _panel(config: type[ServerConfig], name: str) -> str:
    """The subject of a setting: the first line of the class that has it."""
    owner = next(
        each for each in reversed(config.__mro__) if name in vars(each).get("__annotations__", {})
    )
    return (owner.__doc__ or "").splitlines()[0].removesuffix(".")
