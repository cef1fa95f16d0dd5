"""A changed config.yaml: what was meant is in it, and what its author wrote is still there."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from nerve.cli.config_file import CannotWrite, as_yaml, changed, write, write_changes
from nerve.cli.in_process import Source, find_source
from nerve.config.model import ModelConfig, load_model_config

Edits = dict[tuple[str | int, ...], int | str | None]
BATCH: Edits = {("max_batch_size",): 64}
THREADS: Edits = {("optimization", "intra_op_threads"): 2}
COUNT: Edits = {("instance_group", 0, "count"): 4}

WRITTEN = """\
# yaml-language-server: $schema=config.schema.json
name: 'bert'   # as the folder

version_policy: {latest: {num_versions: 2}}
max_batch_size: 16  # measured in May
optimization:
  # threads are for lone requests
  graph_level: basic
instance_group:
- kind: KIND_CPU  # no GPU here
  count: 1
labels: [O, B-PER, "I-PER"]
# the end
"""


def differing(before: str, after: str) -> list[tuple[str, str]]:
    pairs = zip(before.splitlines(), after.splitlines(), strict=True)
    return [(one, other) for one, other in pairs if one != other]


def test_only_the_line_changes_comments_stay() -> None:
    assert differing(WRITTEN, changed(WRITTEN, BATCH | COUNT)) == [
        ("max_batch_size: 16  # measured in May", "max_batch_size: 64  # measured in May"),
        ("  count: 1", "  count: 4"),
    ]


def test_new_keys_go_below_their_own() -> None:
    lines = changed(WRITTEN, THREADS).splitlines()
    place = lines.index("  intra_op_threads: 2")
    assert lines[place - 1] == "  graph_level: basic"
    assert "\n".join(lines[:place] + lines[place + 1 :]) + "\n" == WRITTEN


@pytest.mark.parametrize(
    "text",
    [
        WRITTEN,
        "instance_group:\n    - count: 1\n      kind: KIND_CPU\n",
        "instance_group:\n  - count: 1\n",
        "optimization:\n    solo_threads: 3\n",
        "",
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_indents_are_the_author_s(text: str, newline: str, mark: str) -> None:
    given = mark + text.replace("\n", newline)
    found = changed(given, BATCH | COUNT)
    assert found.startswith(mark)
    if text:
        assert found.count("\n") == found.count(newline)
        assert "\r\r" not in found
    for line in text.splitlines():
        if "count" not in line and "max_batch" not in line:
            assert line in found.removeprefix(mark).splitlines()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing yet\n",
        "# nothing yet",
        "instance_group: {kind: KIND_CPU}\n",
        "instance_group: [{kind: KIND_CPU}]\n",
        "optimization:\nmax_batch_size: 8\n",
        "{max_batch_size: 8}",
        "labels: [O,\n    B-X]   # odd\n",
        '{"optimization": {"intra_op_threads": 1}}',
        "dynamic_batching: {scheduler: fifo}\ntokenizer:\n  add_special_tokens: yes\n",
    ],
)
def test_what_is_read_afterwards_is_what_was_meant(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text.replace("optimization:\nmax", "optimization: {}\nmax"))
    before = load_model_config(path, name="x").model_dump()
    path.write_text(changed(path.read_text(), BATCH | THREADS | COUNT))
    after = load_model_config(path, name="x").model_dump()
    before["max_batch_size"], before["optimization"]["intra_op_threads"] = 64, 2
    before["instance_group"][0]["count"] = 4
    assert after == before
    assert ("# nothing yet" in path.read_text()) == ("# nothing" in text)


def test_a_key_can_go() -> None:
    assert changed("optimization:\n  precision: int8\n  solo_threads: 2\n", {
        ("optimization", "precision"): None
    }) == "optimization:\n  solo_threads: 2\n"  # fmt: skip


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "optimization: 7\n", "just words"])
def test_what_is_no_config_is_not_changed(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        changed(text, THREADS)


def test_yaml_to_add() -> None:
    assert as_yaml(COUNT | BATCH | {("optimization", "precision"): "int8"}) == (
        "instance_group:\n  - count: 4\nmax_batch_size: 64\noptimization:\n  precision: int8\n"
    )
    assert as_yaml({}) == ""


def test_a_file_is_replaced_with_its_mode_and_links(tmp_path: Path) -> None:
    target = tmp_path / "real.yaml"
    target.write_text("old")
    target.chmod(0o640)
    link = tmp_path / "config.yaml"
    link.symlink_to(target.name)
    write(link, "new")
    assert (link.is_symlink(), target.read_text()) == (True, "new")
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    write(tmp_path / "other.yaml", "x")
    assert stat.S_IMODE((tmp_path / "other.yaml").stat().st_mode) == 0o644
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "config.yaml",
        "other.yaml",
        "real.yaml",
    ]


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match=r"is left as it is: No such file or directory"):
        write(tmp_path / "gone" / "config.yaml", "x")


@pytest.fixture
def source(tiny_repository: Path) -> Source:
    return find_source(tiny_repository)


def tuned(source: Source) -> ModelConfig:
    return source.config.model_copy(update={"max_batch_size": 64})


def test_a_model_without_a_file_gets_one(source: Source) -> None:
    assert not source.config_file.exists()
    write_changes(source, BATCH, tuned(source))
    assert source.config_file.read_text() == "max_batch_size: 64\n"
    assert find_source(source.folder).config.max_batch_size == 64


def test_somebody_else_s_change_is_not_overwritten(source: Source) -> None:
    source.config_file.write_text("max_batch_size: 8\n")
    with pytest.raises(CannotWrite, match="changed it meanwhile"):
        write_changes(source, BATCH, tuned(source))
    source.config_file.write_text("max_batch_size: [")
    with pytest.raises(CannotWrite):
        write_changes(source, BATCH, tuned(source))
    assert source.config_file.read_text() == "max_batch_size: ["


def test_a_version_s_own_file_that_says_otherwise(source: Source, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("max_batch_size: 8\n")
    hiding = replace(source, files=replace(source.files, config=own))
    with pytest.raises(CannotWrite, match=r"own\.yaml says otherwise; add this by hand"):
        write_changes(hiding, BATCH, tuned(source))
    assert not source.config_file.exists()
