"""YAML text -> checked pydantic model, or all of its problems with path, line and nearest name."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from nerve.errors import ConfigInvalid, Problem

ModelT = TypeVar("ModelT", bound=BaseModel)
Path = tuple[int | str, ...]
MAX_PROBLEMS: Final = 20
"""A file with more is no config at all; looking for the nearest name of each key takes its time."""
_MAPPING_EXPECTED: Final = ("model_type", "model_attributes_type", "dict_type", "mapping_type")

if yaml.__with_libyaml__:
    from yaml._yaml import CParser

    class _QuickLoader(Composer, CParser, SafeConstructor, Resolver):
        """SafeLoader with libyaml's parser, which is four times as fast.

        Not CSafeLoader: that puts nodes together in C, where lists within lists, a hundred thousand
        deep, overflow the stack and end the process. Here they are a RecursionError.
        """

        def __init__(self, text: str) -> None:
            CParser.__init__(self, text)
            Composer.__init__(self)
            SafeConstructor.__init__(self)
            Resolver.__init__(self)

    _loader: Callable[[str], _QuickLoader | yaml.SafeLoader] = _QuickLoader
else:  # pragma: no cover  where PyYAML was built without it
    _loader = yaml.SafeLoader


def parse_yaml(text: str, *, source: str) -> tuple[dict[str, object], dict[Path, int]]:
    """Read a YAML mapping.

    Returns:
        The mapping (empty for an empty file) and the 1-based line of every path in it.
    Raises:
        ConfigInvalid: a syntax error, a repeated key, or a top level that is no mapping.
    """
    lines: dict[Path, int] = {}
    value: object = None
    try:
        loader = _loader(text)
        node = loader.get_single_node()
        found = _walk(node, (), lines, set()) if node is not None else iter(())
        refused = list(itertools.islice(found, MAX_PROBLEMS))
        if not refused:
            value = None if node is None else loader.construct_document(node)
    except Exception as error:  # boundary: PyYAML lets KeyError and others out on odd scalars
        mark = getattr(error, "problem_mark", None)
        detail = getattr(error, "problem", None) or str(error)
        # libyaml has the end of a last line on the next one.
        line = min(mark.line, text.count("\n")) + 1 if mark else 0
        raise ConfigInvalid(source, [Problem("", f"not valid YAML: {detail}", line)]) from error
    if refused:
        raise ConfigInvalid(source, refused)
    if value is None:
        value = {}
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise ConfigInvalid(source, [Problem("", f"expected a mapping of keys, got a {kind}", 1)])
    return value, lines


def _walk(
    node: yaml.Node, path: Path, lines: dict[Path, int], walked: set[int]
) -> Iterator[Problem]:
    """Record the line of every path, and yield keys that cannot be taken.

    A key that stands twice (YAML would drop the first), and merge keys, with which a small file
    can say more than fits into memory.
    """
    lines[path] = node.start_mark.line + 1
    if id(node) in walked:  # an alias: walked where it is defined, and it may contain itself
        return
    walked.add(id(node))
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, child in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):  # its text may be larger than all memory
                yield Problem(_dotted(path), "not valid YAML: a key must be a plain word", line)
                continue
            name = str(key.value)
            if key.tag == "tag:yaml.org,2002:merge":
                yield Problem(_dotted((*path, name)), "merge keys are not supported", line)
            elif name in seen:
                yield Problem(_dotted((*path, name)), "this key stands twice", line)
            else:
                seen.add(name)
                yield from _walk(child, (*path, name), lines, walked)
            lines[(*path, name)] = line
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield from _walk(child, (*path, index), lines, walked)


def validate(
    model: type[ModelT],
    value: Mapping[str, object],
    *,
    source: str,
    lines: Mapping[Path, int] | None = None,
) -> ModelT:
    """Check `value` against `model`.

    Raises:
        ConfigInvalid: with every problem, an unknown key with the nearest valid name. Values are told
            unless `model` is configured with `hide_input_in_errors`.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = lines or {}
        problems = []
        hidden = model.model_config.get("hide_input_in_errors", False)
        details = error.errors(include_url=False, include_input=not hidden)
        for detail in details[:MAX_PROBLEMS]:
            path = tuple(detail["loc"])
            known = next((found[path[:n]] for n in range(len(path), 0, -1) if path[:n] in found), 0)
            problems.append(Problem(_dotted(path), _sentence(model, path, detail), known))
        problems.sort(key=lambda each: each.line)
        if more := len(details) - MAX_PROBLEMS:
            problems += [Problem("", f"and {more} more")] if more > 0 else []
        raise ConfigInvalid(source, problems) from None


def _dotted(path: Path) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _sentence(model: type[BaseModel], path: Path, detail: ErrorDetails) -> str:
    if detail["type"] == "extra_forbidden":
        parent = _resolve(model, path[:-1])
        names = sorted(parent.model_fields) if parent else []
        key = str(path[-1])
        near = [name for name in names if name.startswith(key)]
        near += difflib.get_close_matches(key, names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(names)}"
        return f"unknown key; {hint}"
    if detail["type"] == "value_error":
        return detail["msg"].removeprefix("Value error, ")
    message = detail["msg"][:1].lower() + detail["msg"][1:]
    given = detail.get("input", ())
    if detail["type"] in _MAPPING_EXPECTED:  # pydantic would name the class
        message = "expected a mapping"
    # A list or mapping may hold itself many times over: its repr would not fit into memory.
    if detail["type"] == "missing" or not isinstance(given, str | int | float | bool | None):
        return message
    return f"{message}, got {given!r:.80}"


def _resolve(model: type[BaseModel], path: Path) -> type[BaseModel] | None:
    """The pydantic model at a path of another one, or None."""
    current: type[BaseModel] | None = model
    for part in path:
        if current is None:
            return None
        if isinstance(part, int):
            continue
        info = current.model_fields.get(part)
        current = next(_models_in(info.annotation), None) if info else None
    return current


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:  # noqa: ANN401  an annotation is any object
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, Annotated, list, tuple, Sequence):
        for argument in get_args(annotation):
            yield from _models_in(argument)
