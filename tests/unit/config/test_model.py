"""`config.yaml`: every key, good and bad, and the file itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from nerve.config.cache import ResponseCache
from nerve.config.described import descriptions
from nerve.config.model import (
    MAX_CONFIG_BYTES,
    SERVING_KEYS,
    ModelConfig,
    load_model_config,
    load_version_config,
)
from nerve.config.running import Gpu, GpuProvider, Kind, Precision, Scheduler
from nerve.config.transform import MAX_SCRIPT_BYTES, TransformOutput, with_script
from nerve.config.versions import AllVersions, LatestVersions, SpecificVersions
from nerve.errors import ConfigInvalid
from nerve.words import LUA_LIBS, OffsetUnit, Side, Strategy


def sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Pydantic models that a field's annotation holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, Annotated, list):
        for argument in get_args(annotation):
            yield from sections_in(argument)


def keys_of(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted path of every field; `[]` marks a list of sections."""
    for name, field in section.model_fields.items():
        path = f"{prefix}{name}"
        yield path
        mark = "[]" if "list[" in str(field.annotation) else ""
        for inner in sections_in(field.annotation):
            yield from keys_of(inner, f"{path}{mark}.")


def all_sections(section: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield section
    for field in section.model_fields.values():
        for inner in sections_in(field.annotation):
            yield from all_sections(inner)


def document(key: str, value: str) -> str:
    """One-line YAML that sets one dotted key, and what cannot do without."""
    if key == "shadow.fraction":
        return f"{{shadow: {{version: 1, fraction: {value}}}}}"
    if key in ("response_cache.max_bytes", "response_cache.with_transform"):
        return f"{{response_cache: {{enable: true, {key.split('.')[1]}: {value}}}}}"
    for part in reversed(key.split(".")):
        name = part.removesuffix("[]")
        value = f"{{{name}: {value}}}" if name == part else f"{{{name}: [{value}]}}"
    return value


def value_at(config: object, key: str) -> object:
    for part in key.split("."):
        config = getattr(config, part.removesuffix("[]"))
        if part.endswith("[]"):
            assert isinstance(config, list)
            config = config[0]
    return config


def load(tmp_path: Path, text: str | bytes, *, name: str = "ner") -> ModelConfig:
    file = tmp_path / "config.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    (tmp_path / "transform.lua").write_text(SCRIPT)
    return load_model_config(file, name=name)


def faults(tmp_path: Path, text: str | bytes, *, name: str = "ner") -> list[tuple[str, int, str]]:
    """(path, line, message) of each problem."""
    with pytest.raises(ConfigInvalid) as caught:
        load(tmp_path, text, name=name)
    assert caught.value.source == "config.yaml"
    return [(each.path, each.line, each.message) for each in caught.value.problems]


SCRIPT = "function Postprocess(arr) return arr:softmax(3) end\n"
VALID: dict[str, list[tuple[str, object]]] = {
    "name": [("ner", "ner"), ("null", None)],
    "task": [("token-classification", "token-classification")],
    "version_policy": [
        ("{latest: {}}", {"latest": {"num_versions": 1}, "all": None, "specific": None})
    ],
    "version_policy.latest": [("{}", LatestVersions())],
    "version_policy.latest.num_versions": [("1", 1), ("7", 7)],
    "version_policy.all": [("{}", AllVersions())],
    "version_policy.specific": [("{versions: [2]}", SpecificVersions(versions=[2]))],
    "version_policy.specific.versions": [("[1]", [1]), ("[3, 1, 3]", [3, 1, 3])],
    "max_batch_size": [("1", 1), ("4096", 4096)],
    "max_num_tokens": [("8", 8), ("1000000", 1_000_000)],
    "dynamic_batching": [
        (
            "{}",
            {
                "scheduler": Scheduler.COST,
                "max_queue_delay_microseconds": 0,
                "max_queue_size": 2048,
                "max_queue_tokens": 262_144,
                "default_timeout_microseconds": None,
                "default_priority": 5,
                "priority_step_microseconds": 1_000_000,
            },
        )
    ],
    "dynamic_batching.scheduler": [(each.value, each) for each in Scheduler],
    "dynamic_batching.max_queue_delay_microseconds": [("0", 0), ("10000000", 10_000_000)],
    "dynamic_batching.max_queue_size": [("1", 1)],
    "dynamic_batching.max_queue_tokens": [("1", 1)],
    "dynamic_batching.default_timeout_microseconds": [("1", 1), ("60000000", 60_000_000)],
    "dynamic_batching.default_priority": [("1", 1), ("10", 10)],
    "dynamic_batching.priority_step_microseconds": [("0", 0), ("60000000", 60_000_000)],
    "instance_group": [
        ("[{count: 2}]", [{"count": 2, "kind": Kind.AUTO, "gpus": None}]),
        ("{count: 2}", [{"count": 2, "kind": Kind.AUTO, "gpus": None}]),
    ],
    "instance_group[].count": [("1", 1), ("256", 256), ("null", None)],
    "instance_group[].kind": [(each.value, each) for each in Kind],
    "instance_group[].gpus": [("[0]", [0]), ("[3, 1]", [3, 1])],
    "optimization": [
        (
            "{}",
            {
                "graph_level": "all",
                "intra_op_threads": 1,
                "solo_threads": None,
                "precision": None,
                "max_f1_loss": 0.003,
                "batch_invariant": False,
                "gpu": {
                    "provider": "cuda",
                    "io_binding": True,
                    "cuda_graphs": False,
                    "shape_buckets": None,
                },
            },
        )
    ],
    "optimization.graph_level": [(each, each) for each in ("disable", "basic", "extended", "all")],
    "optimization.intra_op_threads": [("1", 1), ("1024", 1024)],
    "optimization.solo_threads": [("1", 1), ("1024", 1024), ("null", None)],
    "optimization.precision": [*[(each.value, each) for each in Precision], ("null", None)],
    "optimization.max_f1_loss": [("0", 0.0), ("0.01", 0.01), ("1", 1.0)],
    "optimization.batch_invariant": [("true", True), ("false", False)],
    "optimization.gpu": [
        ("{cuda_graphs: true, shape_buckets: [8]}", Gpu(cuda_graphs=True, shape_buckets=[8])),
        (
            "{provider: tensorrt, shape_buckets: [8, 16], io_binding: false}",
            Gpu(provider=GpuProvider.TENSORRT, shape_buckets=[8, 16], io_binding=False),
        ),
    ],
    "optimization.gpu.provider": [("cuda", GpuProvider.CUDA)],
    "optimization.gpu.io_binding": [("false", False), ("true", True)],
    "optimization.gpu.cuda_graphs": [("false", False)],
    "optimization.gpu.shape_buckets": [("[1]", [1]), ("[16, 32, 512]", [16, 32, 512])],
    "tokenizer": [
        (
            "{}",
            {
                "max_length": None,
                "truncation_side": None,
                "stride": None,
                "add_special_tokens": True,
            },
        )
    ],
    "tokenizer.max_length": [("3", 3), ("512", 512)],
    "tokenizer.truncation_side": [("left", Side.LEFT), ("right", Side.RIGHT)],
    "tokenizer.stride": [("0", 0), ("64", 64)],
    "tokenizer.add_special_tokens": [("false", False), ("true", True)],
    "labels": [("[O]", ["O"]), ("[O, B-PER, '', 'O']", ["O", "B-PER", "", "O"])],
    "transform": [
        ("'return 1'", {"script": "return 1", "path": None}),
        ("{path: transform.lua}", {"script": SCRIPT, "path": "transform.lua"}),
        ("null", None),
    ],
    "transform.script": [("'return 1'", "return 1")],
    "transform.path": [("transform.lua", "transform.lua"), ("./transform.lua", "./transform.lua")],
    "lua_libs": [
        ("[]", []),
        ("[table, string, math, coroutine, utf8]", [*LUA_LIBS]),
        ("null", None),
    ],
    "validate_transform": [("false", False), ("true", True)],
    "transform_limits": [
        (
            "{}",
            {
                "max_instructions": 100_000_000,
                "timeout_microseconds": 2_000_000,
                "max_memory_bytes": 268_435_456,
            },
        )
    ],
    "transform_limits.max_instructions": [("1000", 1000), ("1000000000000", 10**12)],
    "transform_limits.timeout_microseconds": [("1000", 1000), ("60000000", 60_000_000)],
    "transform_limits.max_memory_bytes": [("1048576", 1 << 20), ("68719476736", 1 << 36)],
    "transform_output": [*[(each.value, each) for each in TransformOutput], ("null", None)],
    "aggregation_strategy": [(each.value, each) for each in Strategy],
    "offset_unit": [(each.value, each) for each in OffsetUnit],
    "response_cache": [
        ("true", ResponseCache(enable=True)),
        ("false", ResponseCache(enable=False)),
        ("{}", {"enable": False, "max_bytes": 64 << 20, "with_transform": False}),
        ("{enable: false, max_bytes: 5}", ResponseCache(enable=False, max_bytes=5)),
    ],
    "response_cache.enable": [("true", True), ("false", False)],
    "response_cache.max_bytes": [("1", 1), ("1099511627776", 1 << 40)],
    "response_cache.with_transform": [("true", True), ("false", False)],
    "model_warmup": [("[]", [])],
    "model_warmup[].name": [("long", "long")],
    "model_warmup[].text": [("Ada", "Ada")],
    "model_warmup[].batch_size": [("1", 1), ("1024", 1024)],
    "model_warmup[].count": [("1", 1), ("1000", 1000)],
    "quality_gate": [("{min_f1: 0.9}", {"min_f1": 0.9}), ("null", None)],
    "quality_gate.min_f1": [("0.875", 0.875), ("0", 0.0), ("1", 1.0)],
    "routing": [("{weights: {1: 1}}", {"weights": {1: 1.0}}), ("null", None)],
    "routing.weights": [
        ("{1: 90, 2: 10}", {1: 90.0, 2: 10.0}),
        ('{"1": 0.5, "20": 0}', {1: 0.5, 20: 0.0}),
    ],
    "shadow": [("{version: 3}", {"version": 3, "fraction": 1.0}), ("null", None)],
    "shadow.version": [("1", 1), ("77", 77)],
    "shadow.fraction": [("0.001", 0.001), ("1", 1.0)],
}
INVALID: dict[str, list[str]] = {
    "name": ["[ner]", "7", "{}"],
    "task": ["text-classification", "null", "3"],
    "version_policy": ["{}", "newest", "[all]", "3", "null", "{all: {}, latest: {}}", "{al: {}}"],
    "version_policy.latest": ["1", "[]", "{versions: [1]}"],
    "version_policy.latest.num_versions": ["0", "-1", "x", "1.5", "null"],
    "version_policy.all": ["true", "[1]", "{x: 1}"],
    "version_policy.specific": ["{}", "[1]"],
    "version_policy.specific.versions": ["[]", "1", "[0]", "[x]", "null"],
    "max_batch_size": ["0", "4097", "x", "1.5", "null", "[1]", ".nan", ".inf"],
    "max_num_tokens": ["7", "x", "null"],
    "dynamic_batching": ["3", "[]", "null", "{max_queue: 3}"],
    "dynamic_batching.max_queue_delay_microseconds": ["-1", "10000001", "1ms", "0.5", "null"],
    "dynamic_batching.scheduler": ["best", "COST", "1", "null"],
    "dynamic_batching.max_queue_size": ["0", "-1", "x", "null"],
    "dynamic_batching.max_queue_tokens": ["0", "1.5", "x", "null"],
    "dynamic_batching.default_timeout_microseconds": ["0", "-1", "0.5", "1s", "true"],
    "dynamic_batching.default_priority": ["0", "11", "5.0", "high", "null"],
    "dynamic_batching.priority_step_microseconds": ["-1", "60000001", "0.5", "x", "null"],
    "instance_group": [
        "[]",
        "3",
        "[3]",
        "null",
        "[{kind: KIND_CPU, gpus: [0]}]",
        "[{gpus: [1, 1]}]",
    ],
    "instance_group[].count": ["0", "257", "x"],
    "instance_group[].kind": ["CPU", "KIND_MODEL", "null", "0"],
    "instance_group[].gpus": ["0", "[-1]", "[x]"],
    "optimization": ["3", "null", "{threads: 3}"],
    "optimization.graph_level": ["max", "2", "null"],
    "optimization.intra_op_threads": ["0", "1025", "x", "null"],
    "optimization.solo_threads": ["0", "1025", "1.5", "x"],
    "optimization.precision": ["int4", "FP16", "16"],
    "optimization.max_f1_loss": ["-0.1", "1.1", "x", "null", ".nan", ".inf"],
    "optimization.batch_invariant": ["maybe", "null", "2"],
    "optimization.gpu": [
        *["3", "null", "[]", "{graphs: true}", "{cuda_graphs: true}", "{provider: tensorrt}"],
        "{cuda_graphs: true, shape_buckets: [8], io_binding: false}",
    ],
    "optimization.gpu.provider": ["CUDA", "rocm", "null"],
    "optimization.gpu.io_binding": ["maybe", "null", "2"],
    "optimization.gpu.cuda_graphs": ["maybe", "null", "2"],
    "optimization.gpu.shape_buckets": ["[]", "16", "[0]", "[32, 16]", "[16, 16]", "[1.5]", "[x]"],
    "tokenizer": ["3", "null", "{max_len: 3}"],
    "tokenizer.max_length": ["2", "0", "x"],
    "tokenizer.truncation_side": ["top", "1"],
    "tokenizer.stride": ["-1", "x"],
    "tokenizer.add_special_tokens": ["maybe", "null", "2"],
    "labels": ["[]", "O", "[1]", "[NO]", "[null]", "{0: O}"],
    "transform": [
        "3",
        "[]",
        "{}",
        "''",
        "{file: transform.lua}",
        "{script: x, path: transform.lua}",
    ],
    "transform.script": ["3", "''", "[x]"],
    "transform.path": [
        "''",
        "3",
        "other.lua",
        "/etc/passwd.lua",
        "../config.lua",
        "config.yaml",
        ".",
    ],
    "lua_libs": ["string", "[io]", "[os]", "[debug]", "[package]", "[strings]", "[1]", "[null]"],
    "validate_transform": ["maybe", "null", "2"],
    "transform_limits": ["3", "null", "{instructions: 1000}"],
    "transform_limits.max_instructions": ["999", "-1", "1.5", "x", "null", "10000000000000"],
    "transform_limits.timeout_microseconds": ["999", "60000001", "1s", "null"],
    "transform_limits.max_memory_bytes": ["1048575", "137438953472", "1GB", "null"],
    "transform_output": ["scores", "LOGITS", "1"],
    "aggregation_strategy": ["best", "FIRST", "1"],
    "offset_unit": ["bytes", "utf8", "1"],
    "response_cache": ["null", "3", "[true]", "'yes'", "{max_bytes: 5}", "{size: 5, enable: true}"],
    "response_cache.enable": ["null", "1", "'yes'", "{}"],
    "response_cache.max_bytes": ["0", "-1", "1.5", "64MB", "null", "1099511627777"],
    "response_cache.with_transform": ["null", "1", "'yes'"],
    "model_warmup": ["null", "3", "[3]"],
    "model_warmup[].name": ["3", "null"],
    "model_warmup[].text": ["3", "null"],
    "model_warmup[].batch_size": ["0", "1025", "x"],
    "model_warmup[].count": ["0", "1001", "x"],
    "quality_gate": ["{}", "0.9", "[]", "{f1: 0.9}"],
    "quality_gate.min_f1": ["-0.1", "1.01", "x", "null", ".nan", ".inf"],
    "routing": ["{}", "3", "[]", "{weight: {1: 1}}"],
    "routing.weights": [
        *["{}", "[1]", "null", "{1: -1}", "{1: .nan}", "{1: .inf}", "{1: x}"],
        *["{0: 1}", "{-1: 1}", "{x: 1}", "{1.5: 1}", "{true: 1}", "{null: 1}", '{"-1": 1}'],
        '{"1.0": 1}',
    ],
    "shadow": ["{}", "3", "[3]", "{version: 1, share: 0.1}"],
    "shadow.version": ["0", "-1", "x", "1.5", '"1"', "null", "true"],
    "shadow.fraction": ["0", "-0.1", "1.1", "x", "null", ".nan"],
}


def test_the_tables_below_hold_every_key() -> None:
    assert set(VALID) == set(keys_of(ModelConfig))
    assert set(INVALID) == set(keys_of(ModelConfig))


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        pytest.param(key, value, expected, id=f"{key}={value}")
        for key, cases in VALID.items()
        for value, expected in cases
    ],
)
def test_a_valid_value(tmp_path: Path, key: str, value: str, expected: object) -> None:
    found = value_at(load(tmp_path, document(key, value)), key)
    if isinstance(found, BaseModel) and isinstance(expected, dict):
        found = found.model_dump()
    elif isinstance(found, list):
        found = [each.model_dump() if isinstance(each, BaseModel) else each for each in found]
    assert found == expected
    assert isinstance(found, (type(expected), Enum))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param(key, value, id=f"{key}={value}")
        for key, values in INVALID.items()
        for value in values
    ],
)
def test_an_invalid_value_is_told_with_path_and_line(tmp_path: Path, key: str, value: str) -> None:
    """The path is the key's, or of something in it; the line is where it stands in the file."""
    found = faults(tmp_path, f"\n# a comment\n{document(key, value)}\n")
    path = key.replace("[]", r"\[0\]").replace(".", r"\.")
    for where, line, message in found:
        assert re.match(rf"{path}($|[.\[])", where)
        assert line == 3
        assert message
        assert message[0].islower()


def test_a_cache_and_a_transform_must_be_wanted_together(tmp_path: Path) -> None:
    """A script may make a text's answer of something else than that text."""
    ((path, line, message),) = faults(tmp_path, "transform: return 1\nresponse_cache: true\n")
    assert (path, line) == ("response_cache", 2)
    assert "with_transform: true" in message
    both = "transform: return 1\nresponse_cache: {enable: %s, with_transform: %s}\n"
    assert load(tmp_path, both % ("true", "true")).response_cache.enable
    assert not load(tmp_path, both % ("false", "false")).response_cache.enable


@pytest.mark.parametrize(
    ("of_model", "of_version", "expected"),
    [
        ("true", "{max_bytes: 5}", ResponseCache(enable=True, max_bytes=5)),
        ("{enable: true, max_bytes: 5}", "false", ResponseCache(enable=False)),
        ("false", "true", ResponseCache(enable=True)),
    ],
)
def test_a_version_has_a_cache_of_its_own(
    tmp_path: Path, of_model: str, of_version: str, expected: ResponseCache
) -> None:
    (tmp_path / "1").mkdir()
    own = tmp_path / "1" / "config.yaml"
    own.write_text(f"response_cache: {of_version}")
    model = load(tmp_path, f"response_cache: {of_model}")
    assert load_version_config(own, model, number=1).response_cache == expected


def test_no_file_means_defaults() -> None:
    assert load_model_config(None, name="ner") == ModelConfig()


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n"])
def test_an_empty_file_means_defaults(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text) == ModelConfig()


def test_all_problems_at_once(tmp_path: Path) -> None:
    """Sorted by line, across sections, an unknown key with the nearest name."""
    text = """
    max_batchsize: 4
    max_num_tokens: 1
    dynamic_batching:
      max_queue_delay_microseconds: -1
      max_queue: 3
    instance_group:
    - count: 0
    - kind: KIND_CPU
      gpus: [0]
    tokenizer: {stride: x}
    version_policy: {latest: {}, all: {}}
    """
    assert faults(tmp_path, text) == [
        ("max_batchsize", 2, "unknown key; did you mean 'max_batch_size'?"),
        ("max_num_tokens", 3, "input should be greater than or equal to 8, got 1"),
        (
            "dynamic_batching.max_queue_delay_microseconds",
            5,
            "input should be greater than or equal to 0, got -1",
        ),
        (
            "dynamic_batching.max_queue",
            6,
            "unknown key; did you mean 'max_queue_delay_microseconds'?",
        ),
        ("instance_group[0].count", 8, "input should be greater than or equal to 1, got 0"),
        ("instance_group[1]", 9, "gpus is given, but kind is KIND_CPU"),
        (
            "tokenizer.stride",
            11,
            "input should be a valid integer, got 'x'",
        ),
        (
            "version_policy",
            12,
            "exactly one of latest, all, specific is needed, got latest and all",
        ),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", {"all": {}}),
        ("latest", {"latest": {"num_versions": 1}}),
        ("{latest: {num_versions: 3}}", {"latest": {"num_versions": 3}}),
        ("{specific: {versions: [1, 3]}}", {"specific": {"versions": [1, 3]}}),
    ],
)
def test_version_policy(tmp_path: Path, text: str, expected: dict[str, object]) -> None:
    """`all` and `latest` alone are short for an empty mapping."""
    policy = load(tmp_path, f"version_policy: {text}").version_policy
    assert policy.model_dump(exclude_none=True) == expected


def test_the_default_policy_is_the_latest_version() -> None:
    assert ModelConfig().version_policy.latest == LatestVersions(num_versions=1)


def test_a_name_that_is_not_the_folder_s(tmp_path: Path) -> None:
    assert load(tmp_path, "name: ner").name == "ner"
    ((path, line, message),) = faults(tmp_path, "max_batch_size: 2\nname: other\n")
    assert (path, line) == ("name", 2)
    assert "'other'" in message
    assert "'ner'" in message


def test_a_wrong_name_is_told_with_the_other_problems(tmp_path: Path) -> None:
    """Nobody should have to start the server twice to learn of two problems."""
    found = faults(tmp_path, "name: other\nmax_batch_size: 0\n")
    assert [(path, line) for path, line, _ in found] == [("name", 1), ("max_batch_size", 2)]


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    """Notepad writes one."""
    assert load(tmp_path, b"\xef\xbb\xbfmax_batch_size: 3\n").max_batch_size == 3


@pytest.mark.parametrize(
    "content", [b"name: \xff\n", "name: é\n".encode("latin-1"), "name: x\n".encode("utf-16")]
)
def test_a_file_that_is_not_utf_8(tmp_path: Path, content: bytes) -> None:
    ((_, _, message),) = faults(tmp_path, content)
    assert message.startswith("is not UTF-8")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    """One byte over the limit is too much, before anything of it is parsed."""
    ((_, _, message),) = faults(tmp_path, b"#" * (MAX_CONFIG_BYTES + 1))
    assert message == f"is over {MAX_CONFIG_BYTES} bytes"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """Gone after the scan, or no file at all."""
    for path in (tmp_path / "config.yaml", tmp_path):
        with pytest.raises(ConfigInvalid, match="cannot be read"):
            load_model_config(path, name="ner")


def test_config_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ModelConfig().max_batch_size = 3  # type: ignore[misc]


def test_every_field_is_described() -> None:
    """Documentation and JSON Schema are made of these."""
    for section in set(all_sections(ModelConfig)):
        assert section.__doc__, section
        assert set(section.model_fields) <= set(descriptions(section)), section


@pytest.mark.parametrize("value", ["yes", '"16"', "16.0"])
def test_a_count_is_a_whole_number_and_nothing_else(tmp_path: Path, value: str) -> None:
    """YAML's `yes` is true, which would count as 1."""
    file = tmp_path / "config.yaml"
    file.write_text(f"max_batch_size: {value}\n")
    with pytest.raises(ConfigInvalid, match="max_batch_size: input should be a valid integer"):
        load_model_config(file, name="m")


def test_weights_that_are_all_zero(tmp_path: Path) -> None:
    """Nobody would answer."""
    ((path, line, message),) = faults(tmp_path, "\nrouting: {weights: {1: 0, 2: 0.0}}\n")
    assert (path, line, message) == ("routing", 2, "at least one weight must be over 0")


# --- a version's own config ---


def version_config(tmp_path: Path, text: str, model: ModelConfig | None = None) -> ModelConfig:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    return load_version_config(file, model or ModelConfig(), number=7)


def version_faults(tmp_path: Path, text: str, model: ModelConfig | None = None) -> list[str]:
    with pytest.raises(ConfigInvalid) as caught:
        version_config(tmp_path, text, model)
    assert caught.value.source == "7/config.yaml"
    return [str(each) for each in caught.value.problems]


def test_a_version_s_config_is_laid_over_the_model_s(tmp_path: Path) -> None:
    """Mapping by mapping; lists and values are replaced. The model's own keys stay."""
    model = load(
        tmp_path,
        "version_policy: all\nmax_batch_size: 4\nlabels: [O, B-PER]\n"
        "tokenizer: {max_length: 64, stride: 8}\ninstance_group: [{count: 2}, {count: 3}]\n",
    )
    own = version_config(
        tmp_path, "labels: [O]\ntokenizer: {stride: 16}\ninstance_group: {count: 1}\n", model
    )
    assert own.labels == ["O"]
    assert (own.tokenizer.max_length, own.tokenizer.stride) == (64, 16)
    assert [group.count for group in own.instance_group] == [1]
    assert (own.max_batch_size, own.version_policy) == (4, model.version_policy)


@pytest.mark.parametrize("text", ["", "# nothing\n", "max_batch_size: 32\n"])
def test_a_version_s_config_that_changes_nothing(tmp_path: Path, text: str) -> None:
    assert version_config(tmp_path, text) == ModelConfig()


@pytest.mark.parametrize("key", sorted(SERVING_KEYS))
def test_what_says_which_versions_serve_is_the_model_s_business(tmp_path: Path, key: str) -> None:
    """A version cannot decide on the others."""
    values = {"routing": "{weights: {1: 1}}", "shadow": "{version: 1}", "version_policy": "all"}
    (fault,) = version_faults(tmp_path, f"\n{key}: {values.get(key, 'token-classification')}\n")
    assert fault == (f"line 2: {key}: belongs into the model's config.yaml, not into a version's")


def test_all_problems_of_a_version_s_config_at_once(tmp_path: Path) -> None:
    found = version_faults(tmp_path, "max_batch: 3\nshadow: {version: 2}\nlabels: []\n")
    assert [each.split(":")[0:2] for each in found] == [
        ["line 1", " max_batch"],
        ["line 2", " shadow"],
        ["line 3", " labels"],
    ]


def test_a_version_s_config_is_checked_together_with_the_model_s(tmp_path: Path) -> None:
    """What each of them says is fine, and both together is not."""
    model = load(tmp_path, "quality_gate: {min_f1: 0.5}\n")
    assert version_config(tmp_path, "quality_gate: null\n", model).quality_gate is None
    assert version_faults(tmp_path, "quality_gate: 0.5\n", model)


def test_a_version_s_config_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"^7/config\.yaml: cannot be read: No such file"):
        load_version_config(tmp_path / "config.yaml", ModelConfig(), number=7)
    (tmp_path / "config.yaml").write_text("a: &a [*a]\n")
    with pytest.raises(ConfigInvalid, match=r"^7/config\.yaml: "):
        load_version_config(tmp_path / "config.yaml", ModelConfig(), number=7)


# --- a transform in a file ---


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff", "t.lua is not UTF-8"),
        (b" \n", "t.lua is empty"),
        (b"-" * (MAX_SCRIPT_BYTES + 1), f"t.lua is over {MAX_SCRIPT_BYTES} bytes"),
        (None, "t.lua is not in the folder of config.yaml"),
    ],
)
def test_a_script_that_cannot_be_used(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "t.lua").write_bytes(content)
    assert faults(tmp_path, "max_batch_size: 2\ntransform: {path: t.lua}") == [
        ("transform.path", 2, message)
    ]


def test_a_script_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "marked.lua").write_bytes(b"\xef\xbb\xbfreturn 1")
    value = with_script({"transform": {"path": "marked.lua"}}, tmp_path)
    assert value["transform"] == {"path": "marked.lua", "script": "return 1"}


def test_a_script_that_is_a_link_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.lua").write_text("x")
    folder = tmp_path / "ner"
    folder.mkdir()
    (folder / "t.lua").symlink_to(tmp_path / "secret.lua")
    ((_, _, message),) = faults(folder, "transform: {path: t.lua}")
    assert "leads out of the model's folder" in message


def test_a_version_s_transform_takes_the_place_of_the_model_s(tmp_path: Path) -> None:
    model = load(tmp_path, "transform: {path: transform.lua}\nlua_libs: []")
    own = tmp_path / "2" / "config.yaml"
    own.parent.mkdir()
    (own.parent / "own.lua").write_text(" return 2 \n")
    texts = []
    for text in ("transform: {path: own.lua}", "transform: return 3", "transform: null", "{}"):
        own.write_text(text)
        config = load_version_config(own, model, number=2)
        assert config.lua_libs == []
        texts.append(config.transform and config.transform.text)
    assert texts == ["return 2", "return 3", None, SCRIPT.strip()]


def test_an_override_s_script_lies_in_the_model_s_folder(tmp_path: Path) -> None:
    (tmp_path / "t.lua").write_text("return 4")
    override = {"transform": {"path": "t.lua"}}
    unread = load_model_config(None, name="ner", override=override)
    assert unread.transform is not None
    assert unread.transform.text == ""
    config = load_model_config(None, name="ner", override=override, folder=tmp_path)
    assert config.transform is not None
    assert config.transform.text == "return 4"


# --- an override ---


def test_an_override_is_taken_in_place_of_the_file(tmp_path: Path) -> None:
    """Which is not even read."""
    override = {"max_batch_size": 2, "name": "ner"}
    config = load_model_config(tmp_path / "config.yaml", name="ner", override=override)
    assert config == ModelConfig(max_batch_size=2, name="ner")
    assert load_model_config(None, name="ner", override={}) == ModelConfig()


def test_all_problems_of_an_override_at_once() -> None:
    """It has no lines."""
    override = {"max_batch": 2, "name": "other", "version_policy": "newest"}
    with pytest.raises(ConfigInvalid) as caught:
        load_model_config(None, name="ner", override=override)
    assert caught.value.source == "config override"
    assert {each.path for each in caught.value.problems} == {"max_batch", "name", "version_policy"}
    assert {each.line for each in caught.value.problems} == {0}
