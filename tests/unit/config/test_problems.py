"""YAML to checked models: every problem at once, with path, line and nearest name."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from nerve.config.model import ModelConfig
from nerve.config.problems import parse_yaml, validate
from nerve.errors import ConfigInvalid


class Wheel(BaseModel):
    """A part."""

    model_config = ConfigDict(extra="forbid")

    size: Annotated[int, Field(ge=1)] = 1
    spokes: int = 3


class Cart(BaseModel):
    """A whole."""

    model_config = ConfigDict(extra="forbid")

    name: str = ""
    wheels: list[Wheel] | None = None
    spare: Wheel = Wheel()


def fault(text: str) -> ConfigInvalid | None:
    """What is wrong with a cart's YAML, if anything."""
    try:
        value, lines = parse_yaml(text, source="cart.yaml")
        validate(Cart, value, source="cart.yaml", lines=lines)
    except ConfigInvalid as error:
        return error
    return None


def problems(text: str) -> list[tuple[str, int, str]]:
    """(path, line, message) of each problem of a cart's YAML."""
    error = fault(text)
    assert error is not None
    assert error.source == "cart.yaml"
    return [(each.path, each.line, each.message) for each in error.problems]


def places(text: str) -> list[tuple[str, int]]:
    return [(path, line) for path, line, _ in problems(text)]


def test_lines_of_every_path() -> None:
    """Lines are those of the keys, counted from 1; items have that of their first character."""
    value, lines = parse_yaml("a: 1\nb:\n  c: [x,\n    y]\n  d:\n    e: 2\n", source="f")
    assert value == {"a": 1, "b": {"c": ["x", "y"], "d": {"e": 2}}}
    assert lines == {
        (): 1,
        ("a",): 1,
        ("b",): 2,
        ("b", "c"): 3,
        ("b", "c", 0): 3,
        ("b", "c", 1): 4,
        ("b", "d"): 5,
        ("b", "d", "e"): 6,
    }


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "---\n", "~", "null", "{}"])
def test_an_empty_file_is_an_empty_mapping(text: str) -> None:
    assert parse_yaml(text, source="f")[0] == {}


@pytest.mark.parametrize("text", ["[1, 2]", "hello", "3", "!!set {a}", "- a: 1"])
def test_a_top_level_that_is_no_mapping(text: str) -> None:
    ((path, line, message),) = problems(text)
    assert (path, line) == ("", 1)
    assert message.startswith("expected a mapping of keys, got a")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("name: x\nwheels: [1,\n", 3, id="cut off"),
        pytest.param("name: x\n  spare: y\n", 2, id="indented"),
        pytest.param("name: x\nspare:\n\t- y\n", 3, id="tab"),
        pytest.param("name: *nobody\n", 1, id="unknown alias"),
        pytest.param("a: 1\n---\nb: 2\n", 2, id="two documents"),
        pytest.param("a: 1\nb: !!python/object:os.system ls\n", 2, id="foreign tag"),
        pytest.param("a: 1\n? [x]\n: 2\n", 2, id="a list as key"),
        pytest.param("a: 1\n? {x: 1}\n: 2\n", 2, id="a mapping as key"),
    ],
)
def test_syntax_errors_have_a_line(text: str, line: int) -> None:
    ((path, found, message),) = problems(text)
    assert (path, found) == ("", line)
    assert message.startswith("not valid YAML: ")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("name: 2020-13-45", id="no such month"),
        pytest.param("name: " + "9" * 5000, id="huge number"),
        pytest.param("name: !!int x", id="tagged int"),
        pytest.param("name: !!float x", id="tagged float"),
        pytest.param("name: !!bool x", id="tagged bool"),
        pytest.param("name: !!timestamp x", id="tagged timestamp"),
        pytest.param("name: !!binary x", id="tagged binary"),
        pytest.param("name: !!omap x", id="tagged omap"),
        pytest.param("\x00", id="NUL"),
        pytest.param("name: \x01", id="control character"),
        pytest.param("[" * 1500, id="deep list"),
        pytest.param("{a: " * 1500, id="deep mapping"),
    ],
)
def test_values_that_yaml_cannot_make_are_problems(text: str) -> None:
    """PyYAML answers some of these with errors that are none of its own."""
    with pytest.raises(ConfigInvalid, match=r"^f: .*not valid YAML"):
        parse_yaml(text, source="f")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a: 1\nb: 2\na: 3\n", [("a", 3)], id="top"),
        pytest.param("s:\n  x: 1\n  x: 2\n", [("s.x", 3)], id="nested"),
        pytest.param("l:\n- x: 1\n  x: 2\n", [("l[0].x", 3)], id="in a list"),
        pytest.param("a: 1\na: 2\na: 3\n", [("a", 2), ("a", 3)], id="three times"),
        pytest.param("{a: 1, a: 1}", [("a", 1)], id="flow"),
        pytest.param("a: 1\n'a': 2\n", [("a", 2)], id="quoted"),
        pytest.param("x: &x {a: 1, a: 2}\ny: *x\n", [("x.a", 1)], id="aliased, told once"),
        pytest.param("a: {b: 1, b: 2}\na: 3\n", [("a.b", 1), ("a", 2)], id="in several places"),
    ],
)
def test_repeated_keys(text: str, expected: list[tuple[str, int]]) -> None:
    """YAML would drop the first one silently."""
    found = problems(text)
    assert [(path, line) for path, line, _ in found] == expected
    assert {message for _, _, message in found} == {"this key stands twice"}


def test_equal_keys_in_different_mappings_are_fine() -> None:
    value, _ = parse_yaml("a: {x: 1}\nb: {x: 2}\nl: [{x: 3}, {x: 4}]\n", source="f")
    assert value == {"a": {"x": 1}, "b": {"x": 2}, "l": [{"x": 3}, {"x": 4}]}


def test_every_problem_at_once_in_the_order_of_lines() -> None:
    text = "wheels:\n- size: 0\n- spoke: 1\n- size: x\n  spokes: y\nname: [1]\nspare: {size: -3}\n"
    assert places(text) == [
        ("wheels[0].size", 2),
        ("wheels[1].spoke", 3),
        ("wheels[2].size", 4),
        ("wheels[2].spokes", 5),
        ("name", 6),
        ("spare.size", 7),
    ]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        pytest.param("nam: x", "did you mean 'name'?", id="prefix"),
        pytest.param("nmae: x", "did you mean 'name'?", id="typo"),
        pytest.param("Wheels: []", "did you mean 'wheels'?", id="case"),
        pytest.param("spare: {spoeks: 1}", "did you mean 'spokes'?", id="nested"),
        pytest.param("wheels: [{siez: 1}]", "did you mean 'size'?", id="in a list, optional"),
        pytest.param("qqq: 1", "valid keys: name, spare, wheels", id="nothing near"),
        pytest.param("spare: {qqq: 1}", "valid keys: size, spokes", id="nothing near, nested"),
    ],
)
def test_an_unknown_key_gets_the_nearest_name(text: str, hint: str) -> None:
    ((_, _, message),) = problems(text)
    assert message == f"unknown key; {hint}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spare: {size: 0}", "input should be greater than or equal to 1, got 0"),
        ("name: [1]", "input should be a valid string"),
        ("spare: 3", "expected a mapping, got 3"),
    ],
)
def test_messages_show_small_values(text: str, message: str) -> None:
    assert problems(text)[0][2] == message


def test_a_long_value_is_not_repeated_whole() -> None:
    assert len(problems(f"spare: {{size: {'x' * 10_000}}}")[0][2]) < 300


def test_a_problem_without_a_file_has_no_line() -> None:
    """Flags and variables."""
    with pytest.raises(ConfigInvalid) as caught:
        validate(Cart, {"nam": 1}, source="settings")
    assert str(caught.value) == "settings: nam: unknown key; did you mean 'name'?"


def test_the_sentence_names_file_line_and_path() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse_yaml("a: 1\na: 2\n", source="cart.yaml")
    assert str(caught.value) == "cart.yaml: line 2: a: this key stands twice"


@pytest.mark.parametrize(
    "text",
    [
        "name: &a [*a]",
        "name: &a {b: *a}",
        "&a {name: *a}",
        "wheels: &a [*a]",
        "spare: &a {size: *a}",
        "&a {b: *a, c: *a}",
        "wheels: &a [{spokes: *a}]",
    ],
)
def test_a_value_that_contains_itself(text: str) -> None:
    """Aliases can make circles; they are problems like any other."""
    assert problems(text)


def test_aliases_are_values_like_others() -> None:
    value, _ = parse_yaml("a: &x {size: 2}\nb: *x\n", source="f")
    assert value == {"a": {"size": 2}, "b": {"size": 2}}


def test_merge_keys_are_refused() -> None:
    """A small file of them can say more than fits into memory."""
    ((path, line, message),) = problems("a: &x {size: 2}\nc: {<<: *x}\n")
    assert (path, line) == ("c.<<", 2)
    assert message == "merge keys are not supported"


LAUGHS = "\n".join(
    ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40))]
)
"""9 ** 39 items once written out."""


def test_a_billion_laughs_do_not_hang() -> None:
    """Aliases are walked and checked once each; nothing writes them out."""
    found = problems(f"{LAUGHS}\nname: *a39\nwheels: *a39\nspare: {{size: *a39}}\n")
    assert ("name", 41) in [(path, line) for path, line, _ in found]
    assert all(len(message) < 300 for _, _, message in found)


def test_a_billion_laughs_by_merge_keys_do_not_hang() -> None:
    """`<<` copies what it merges, so the same trick fills the memory; run where it cannot hurt."""
    lines = ["a0: &a0 {k: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 14)]
    program = """if True:
        import resource, sys
        from nerve.config.problems import parse_yaml
        from nerve.errors import ConfigInvalid
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        resource.setrlimit(resource.RLIMIT_CPU, (4, 4))
        try:
            parse_yaml(sys.stdin.read(), source="f")
        except ConfigInvalid:
            pass
        print("answered")
    """
    ended = subprocess.run(
        [sys.executable, "-c", program],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout == "answered\n", ended.stderr[-500:]


_tokens = ["a", "name", "wheels", "size", ": ", ":\n", "\n", "  ", "- ", "[", "]", "{", "}", ", "]
_tokens += ["&x ", "*x", "<<: ", "!!int ", "!!bool ", "!!set ", "!!null ", "!!str ", "'", '"', "# "]
_tokens += [
    "? ",
    "| ",
    "> ",
    "1",
    "1.5",
    ".nan",
    "2020-01-01",
    "2020-99-01",
    "0x",
    "1:60",
    "~",
    "é",
]
_tokens += ["yes", "---\n", "...\n", "%YAML 1.1\n", "\t", "\r", "\ufeff", "\\ud800", "\x00", "😀"]


@settings(max_examples=400)
@given(st.lists(st.sampled_from(_tokens), max_size=14).map("".join))
@example("1: 2")
@example("? \n: 3")
@example("2020-01-01: 3")
@example('"\\ud800": 3')
def test_no_text_raises_anything_else(text: str) -> None:
    """Whatever stands in a file, it is a config or a ConfigInvalid whose sentence can be told."""
    error = fault(text)
    if error is not None:
        assert error.problems
        assert str(error).startswith("cart.yaml: ")
        count = text.count("\n") + text.count("\r") + 2
        assert all(0 <= each.line <= count for each in error.problems)


@pytest.mark.parametrize(
    "text",
    [
        # ten lists in each of ten levels: a text of ten billion items
        "a0: &a0 [x]\n"
        + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
        + "? *a9\n: x\n",
        "a0: &a0 [x]\n"
        + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
        + "labels: !!pairs [z: *a9]\n",
    ],
    ids=["as a key", "as a pair"],
)
def test_a_bomb_is_told_without_being_written_out(text: str) -> None:
    """Neither its size nor its time: the message must not repeat what an alias stands for."""

    def load() -> None:
        value, lines = parse_yaml(text, source="config.yaml")
        validate(ModelConfig, value, source="config.yaml", lines=lines)

    with pytest.raises(ConfigInvalid) as caught:
        load()
    assert len(str(caught.value)) < 20_000


@pytest.mark.parametrize("text", ["[", "{a: ", "- "])
def test_depths_do_not_end_the_process(text: str) -> None:
    """A loader in C overflows its stack here."""
    with pytest.raises(ConfigInvalid, match="not valid YAML"):
        parse_yaml(text * 200_000 + "x", source="config.yaml")


def test_values_of_a_model_that_hides_them_are_not_told() -> None:
    class Hidden(Cart):
        model_config = ConfigDict(hide_input_in_errors=True)

    value, lines = parse_yaml("name: [hunter2]\nspare: hunter2\nwheels: [{size: 0}]", source="f")
    with pytest.raises(ConfigInvalid) as caught:
        validate(Hidden, value, source="f", lines=lines)
    assert "hunter2" not in str(caught.value)
    assert [(each.path, each.line, each.message) for each in caught.value.problems] == [
        ("name", 1, "input should be a valid string"),
        ("spare", 2, "expected a mapping"),
        ("wheels[0].size", 3, "input should be greater than or equal to 1"),
    ]


def test_a_file_of_nothing_but_faults_is_cut_short() -> None:
    value, lines = parse_yaml("".join(f"k{n}: 1\n" for n in range(500)), source="config.yaml")
    with pytest.raises(ConfigInvalid) as caught:
        validate(ModelConfig, value, source="config.yaml", lines=lines)
    assert len(caught.value.problems) == 21
    assert caught.value.problems[-1].message == "and 480 more"
