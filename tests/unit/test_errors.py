"""The tree of errors: reasons, sentences, pickling, and the drawing on top of the file."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from nerve import errors
from nerve.errors import Cause, ConfigInvalid, NerveError, Problem


def tree(root: type[NerveError]) -> list[type[NerveError]]:
    return [root, *(each for child in root.__subclasses__() for each in tree(child))]


ERRORS = [each for each in tree(NerveError) if each.__module__.startswith("nerve.")]
OWN = [each for each in ERRORS if each.__module__ == errors.__name__]


def example(kind: type[NerveError]) -> NerveError:
    """An error of this kind, with facts made from the annotations of its constructor."""
    if kind.__init__ is Exception.__init__:
        return kind()
    values = {
        "str": "käse",
        "int": 7,
        "float": 2.5,
        "Sequence[str]": ["a", "b"],
        "Sequence[int]": [1, 3],
        "Sequence[Cause]": [Cause(2, "is wrong"), Cause(0, "is odd")],
        "Sequence[Problem]": [Problem("a.b", "is wrong", 3), Problem("", "is odd")],
    }
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    missing = {each.annotation for each in parameters if each.annotation not in values}
    assert not missing, f"{kind.__name__} takes {missing}: add an example to the table"
    return kind(*(values[each.annotation] for each in parameters))


every_kind = pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.__name__)


def test_the_tree_has_not_lost_its_leaves() -> None:
    assert len(OWN) > 20
    assert {"QueueFull", "ModelNotReady", "TextTooLong"} <= {each.__name__ for each in OWN}


def test_every_class_of_the_module_is_in_the_tree() -> None:
    """No error that a boundary would not catch."""
    found = [
        value
        for value in vars(errors).values()
        if isinstance(value, type)
        and issubclass(value, BaseException)
        and value.__module__ == errors.__name__
    ]
    assert set(found) == set(OWN)


def test_the_drawing_shows_every_class_under_its_parent() -> None:
    """The docstring of the module is the map that people read."""
    assert errors.__doc__ is not None
    drawn: dict[str, set[str]] = {}
    branch = ""
    for line in errors.__doc__.splitlines():
        if match := re.match(r"[│ ]*[├└]── (\w+)", line):
            branch = match[1]
        if branch:
            drawn.setdefault(branch, set()).update(re.findall(r"\b[A-Z]\w*[a-z]\w*\b", line))
    for kind in OWN:
        parent = kind.__base__
        assert parent is not None
        if kind is NerveError:
            assert "NerveError" in errors.__doc__
        elif parent is NerveError:
            assert kind.__name__ in drawn
        else:
            assert kind.__name__ in drawn[parent.__name__]


@every_kind
def test_a_reason_of_its_own(kind: type[NerveError]) -> None:
    """Stable, readable by machines, and of nobody else."""
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", kind.reason)
    assert "reason" in vars(kind)
    assert [other for other in ERRORS if other.reason == kind.reason] == [kind]


@every_kind
def test_a_docstring(kind: type[NerveError]) -> None:
    assert kind.__doc__


@every_kind
def test_a_sentence_and_its_way_through_a_pipe(kind: type[NerveError]) -> None:
    """Facts survive pickling (the engine may run in a process of its own), the sentence too."""
    error = example(kind)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert repr(again) == repr(error)
    if "__str__" in vars(kind):
        assert str(error)
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "kind",
    [each for each in OWN if "__init__" in vars(each)],
    ids=lambda kind: kind.__name__,
)
def test_a_sentence_tells_the_facts(kind: type[NerveError]) -> None:
    """Everything that an error carries stands in its sentence."""
    error = example(kind)
    sentence = str(error)
    for name, value in vars(error).items():
        facts = value if isinstance(value, tuple) else (value,)
        for fact in facts:
            shown = fact.message if isinstance(fact, Problem) else f"{fact}"
            assert shown in sentence, f"{kind.__name__}.{name} is not in {sentence!r}"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (errors.ModelNotFound("x", []), "model 'x' is not in the repository; it holds: none"),
        (
            errors.VersionNotFound("x", "9", []),
            "model 'x' has no version '9'; served versions: none",
        ),
        (
            errors.NoDefaultModel([]),
            "no model is ready to answer; GET /v1/models tells why",
        ),
        (errors.ModelNotReady("x", "", "LOADING", ""), "model 'x' is LOADING"),
        (errors.ModelNotReady("x", "2", "READY", "y"), "model 'x' version 2 is READY: y"),
        (errors.InvalidField("", "is wrong"), "is wrong"),
        (
            errors.UnsupportedMediaType(""),
            "got no Content-Type, expected Content-Type: application/json",
        ),
        (
            ConfigInvalid("f", [Problem("a", "x", 2), Problem("", "y"), Problem("b", "z")]),
            "f: line 2: a: x; y; b: z",
        ),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, NerveError) else "",
)
def test_sentences_without_some_of_the_facts(error: NerveError, sentence: str) -> None:
    assert str(error) == sentence


@pytest.mark.parametrize("given", ["9" * 5000, "é" * 5000])
def test_a_long_name_of_a_client_s_making_is_not_repeated_whole(given: str) -> None:
    """A sentence goes into logs and answers; real names are shorter than what is shown."""
    for error in (
        errors.ModelNotFound(given, ["a"]),
        errors.VersionNotFound("a", given, [1]),
        errors.ModelNotReady("a", given, "LOADING", ""),
    ):
        assert given[:20] in str(error)
        assert len(str(error)) < 200
