"""Equal contents, equal fingerprints; what a version lacks; and what is remembered of files."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from nerve.repository.fingerprint import Digests, Inspected, inspect_version, stamp
from nerve.repository.layout import read_models, scan
from nerve.types import VersionFiles

SECOND_NS = 1_000_000_000


class Clock:
    """Wall-clock time that is `ahead_s` before the real one: files look that much older."""

    def __init__(self, ahead_s: float = 0) -> None:
        self.ahead_s = ahead_s

    def __call__(self) -> int:
        return time.time_ns() + round(self.ahead_s * SECOND_NS)


class Counting(Digests):
    """Counts the files that are really read, and calls `meanwhile` while it does."""

    def __init__(self, clock: Clock, meanwhile: Callable[[], object] = list) -> None:
        super().__init__(clock_ns=clock)
        self.read, self._meanwhile = 0, meanwhile

    def _read(self, known, path, read):  # type: ignore[no-untyped-def]
        def counted(file):  # type: ignore[no-untyped-def]
            self.read += 1
            self._meanwhile()
            return read(file)

        return super()._read(known, path, counted)


@pytest.fixture
def repository(tmp_path: Path, tiny_models: Path) -> Path:
    """One model, with external data, a golden file and a config of the version's own."""
    folder = tmp_path / "repository" / "m" / "1"
    shutil.copytree(tiny_models / "bert", folder)
    model = onnx.load(folder / "model.onnx")
    (folder / "model.onnx").unlink()
    onnx.save_model(
        model,
        str(folder / "model.onnx"),
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=0,
    )
    (folder / "golden.jsonl").write_text("{}\n")
    (folder / "config.yaml").write_text("version_policy: {all: {}}\n")
    return tmp_path / "repository"


def only(repository: Path) -> VersionFiles:
    (model,) = read_models(scan(repository))
    (version,) = model.versions.values()
    return version


def inspect(repository: Path, digests: Digests | None = None) -> Inspected:
    return inspect_version(only(repository), digests or Digests())


def test_a_whole_version(repository: Path) -> None:
    folder = (repository / "m" / "1").resolve()
    found = inspect(repository)
    graph, data = folder / "model.onnx", folder / "model.onnx_data"
    assert found.files == replace(
        only(repository),
        external={"model.onnx_data": data},
        digests={path: hashlib.sha256(path.read_bytes()).hexdigest() for path in (graph, data)},
    )
    assert found.files.problem == ""
    assert len(found.fingerprint) == 64
    names = {Path(path).name for path, _ in found.stamp}
    assert names == {path.name for path in folder.iterdir()}
    assert found.stamp == stamp(folder / name for name in names)


def test_equal_contents_have_equal_fingerprints(repository: Path, tmp_path: Path) -> None:
    """Whatever the folder is called, whenever the files were written, wherever they lie."""
    before = inspect(repository)
    for path in (repository / "m" / "1").iterdir():
        os.utime(path, (1, 1))
    touched = inspect(repository)
    shutil.copytree(repository / "m" / "1", tmp_path / "copy" / "other" / "7")
    copied = inspect(tmp_path / "copy")
    shared = tmp_path / "copy" / "other"
    shutil.move(shared / "7" / "tokenizer.json", shared / "tokenizer.json")
    (shared / "7" / "model.onnx").rename(shared / "7" / "renamed.onnx")
    assert {each.fingerprint for each in (touched, copied, inspect(tmp_path / "copy"))} == {
        before.fingerprint
    }
    assert touched.stamp != before.stamp


def test_a_config_counts_by_what_it_says(repository: Path) -> None:
    """Its bytes only show in the stamp: a comment in it is no other model."""
    digests = Digests(clock_ns=Clock(ahead_s=60))
    before = inspect(repository, digests)
    with (repository / "m" / "1" / "config.yaml").open("a") as file:
        file.write("# a comment\n")
    after = inspect(repository, digests)
    assert after.fingerprint == before.fingerprint
    assert after.stamp != before.stamp


@pytest.mark.parametrize(
    "name", ["model.onnx_data", "tokenizer.json", "config.json", "golden.jsonl"]
)
def test_every_file_counts(repository: Path, name: str) -> None:
    """Also where size and modification time stay the same."""
    path = repository / "m" / "1" / name
    digests = Digests(clock_ns=Clock(ahead_s=60))
    before = inspect(repository, digests)
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = inspect(repository, digests)
    assert after.fingerprint != before.fingerprint
    assert after.stamp != before.stamp
    if name not in {"model.onnx_data"}:
        path.unlink()
        assert inspect(repository).fingerprint not in {before.fingerprint, after.fingerprint}


def test_contents_that_change_places_are_another_version(repository: Path) -> None:
    before = inspect(repository).fingerprint
    folder = repository / "m" / "1"
    (folder / "config.json").rename(folder / "x")
    (folder / "tokenizer_config.json").rename(folder / "config.json")
    (folder / "x").rename(folder / "tokenizer_config.json")
    assert inspect(repository).fingerprint != before


def damage_missing(folder: Path) -> None:
    (folder / "model.onnx_data").unlink()


def damage_short(folder: Path) -> None:
    os.truncate(folder / "model.onnx_data", 1000)


def damage_lfs(folder: Path) -> None:
    (folder / "model.onnx_data").write_text("version https://git-lfs.github.com/spec/v1\n")


def damage_folder(folder: Path) -> None:
    damage_missing(folder)
    (folder / "model.onnx_data").mkdir()


def damage_pipe(folder: Path) -> None:
    damage_missing(folder)
    os.mkfifo(folder / "model.onnx_data")


def damage_loop(folder: Path) -> None:
    damage_missing(folder)
    (folder / "model.onnx_data").symlink_to("model.onnx_data")


def damage_link(folder: Path) -> None:
    shutil.move(folder / "model.onnx_data", folder.parent / "elsewhere")
    (folder / "model.onnx_data").symlink_to("../elsewhere")


def damage_graph(folder: Path) -> None:
    os.truncate(folder / "model.onnx", 5000)


def damage_empty(folder: Path) -> None:
    os.truncate(folder / "model.onnx", 0)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (
            damage_missing,
            "waits for model.onnx_data, which model.onnx names: it is not there (yet)",
        ),
        (
            damage_short,
            "model.onnx_data, which model.onnx names, has 1000 of the {size} bytes that it needs: "
            "it is incomplete",
        ),
        (
            damage_lfs,
            "model.onnx_data, which model.onnx names, is only a Git LFS pointer; "
            "run `git lfs pull`",
        ),
        (
            damage_folder,
            "model.onnx_data, which model.onnx names, cannot be read: Is a directory",
        ),
        (
            damage_pipe,
            "model.onnx_data, which model.onnx names, cannot be read: it is no regular file",
        ),
        (
            damage_link,
            "model.onnx_data, which model.onnx names, is a link that leads out of its folder; "
            "copy the file",
        ),
        (damage_graph, "model.onnx ends in the middle of a field: it is incomplete"),
        (damage_empty, "model.onnx is an empty file"),
    ],
)
def test_problems(repository: Path, damage: Callable[[Path], None], problem: str) -> None:
    """Told, never raised; and gone when the file is whole again, with the old fingerprint."""
    folder = repository / "m" / "1"
    shutil.copytree(folder, repository.parent / "whole")
    before = inspect(repository)
    size = (folder / "model.onnx_data").stat().st_size
    damage(folder)
    found = inspect(repository)
    assert found.files.problem == problem.format(size=size)
    assert found.fingerprint != before.fingerprint
    assert inspect(repository).fingerprint == found.fingerprint
    shutil.rmtree(folder)
    shutil.copytree(repository.parent / "whole", folder)
    assert inspect(repository).fingerprint == before.fingerprint


def test_a_loop_of_links(repository: Path) -> None:
    damage_loop(repository / "m" / "1")
    assert inspect(repository).files.problem.startswith("model.onnx_data, which model.onnx names, ")


def test_the_missing_file_is_in_the_stamp(repository: Path) -> None:
    """So its arrival is seen without reading anything."""
    data = repository / "m" / "1" / "model.onnx_data"
    content = data.read_bytes()
    data.unlink()
    found = inspect(repository)
    assert dict(found.stamp)[str(data.resolve())] == "missing"
    data.write_bytes(content)
    assert stamp(Path(path) for path, _ in found.stamp) != found.stamp


@pytest.mark.parametrize(
    ("location", "problem"),
    [
        ("/etc/passwd", "/etc/passwd, which model.onnx names, is an absolute path; "),
        ("C:\\data", "C:\\data, which model.onnx names, is an absolute path; "),
        ("../data", "../data, which model.onnx names, is outside of its folder"),
        ("a/../../data", "a/../../data, which model.onnx names, is outside of its folder"),
        ("..", ".., which model.onnx names, is outside of its folder"),
        (".", "., which model.onnx names, cannot be read: Is a directory"),
        ("x" * 300, "'" + "x" * 100 + "…', which model.onnx names, cannot be read: "),
        ("a/b", "waits for a/b, which model.onnx names: it is not there (yet)"),
        ("a/../data", ""),
        ("./data", ""),
        ("sub folder/däta", ""),
    ],
)
def test_places_of_external_data(tmp_path: Path, location: str, problem: str) -> None:
    folder = tmp_path / "m" / "1"
    (folder / "sub folder").mkdir(parents=True)
    (tmp_path / "m" / "a").mkdir()
    (folder / "a").mkdir()
    for name in ("data", "../data", "sub folder/däta"):
        (folder / name).write_bytes(b"12345678")
    write_graph(folder / "model.onnx", location)
    found = inspect(tmp_path)
    assert found.files.problem.startswith(problem)
    assert bool(found.files.problem) == bool(problem)


def write_graph(path: Path, *locations: str) -> None:
    model = onnx.ModelProto(ir_version=8, opset_import=[onnx.OperatorSetIdProto(version=17)])
    for location in locations:
        tensor = model.graph.initializer.add(name="w", data_type=1, dims=[2], data_location=1)
        tensor.external_data.add(key="location", value=location)
        tensor.external_data.add(key="length", value="8")
    path.write_bytes(model.SerializeToString())


def test_many_missing_files_make_a_short_problem(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    write_graph(tmp_path / "m" / "model.onnx", *(f"data{n}" for n in range(200)))
    problem = inspect(tmp_path).files.problem
    assert problem.count("waits for") == 3
    assert problem.endswith("; and 197 more")


def test_data_behind_the_links_of_a_kubernetes_volume(repository: Path) -> None:
    """Every file is a link by way of `..data`; the data lies beside the file of the graph."""
    folder = repository / "m" / "1"
    before = inspect(repository).fingerprint
    (folder / "..2024").mkdir()
    for path in [each for each in folder.iterdir() if each.is_file()]:
        path.rename(folder / "..2024" / path.name)
        path.symlink_to(Path("..data") / path.name)
    (folder / "..data").symlink_to("..2024")
    found = inspect(repository)
    assert found.files.problem == ""
    assert found.fingerprint == before


def test_data_behind_the_links_of_a_hub_cache(repository: Path) -> None:
    """Graph and data are links into one folder of blobs."""
    folder, blobs = repository / "m" / "1", repository / "m" / "blobs"
    blobs.mkdir()
    for number, name in enumerate(("model.onnx", "model.onnx_data")):
        (folder / name).rename(blobs / str(number))
        (folder / name).symlink_to(f"../blobs/{number}")
    assert inspect(repository).files.problem == ""


def test_files_that_vanish_after_the_listing(repository: Path) -> None:
    files = only(repository)
    (repository / "m" / "1" / "tokenizer.json").unlink()
    found = inspect_version(files, Digests())
    assert found.files.problem == "tokenizer.json cannot be read: No such file or directory"
    shutil.rmtree(repository)
    found = inspect_version(files, Digests())
    assert found.files.problem == "model.onnx cannot be read: No such file or directory"
    assert {told for _, told in found.stamp} == {"missing"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_that_may_not_be_read(repository: Path) -> None:
    path = repository / "m" / "1" / "tokenizer.json"
    path.chmod(0)
    assert inspect(repository).files.problem == "tokenizer.json cannot be read: Permission denied"


def test_a_version_with_a_problem_stays_so(tmp_path: Path) -> None:
    files = VersionFiles(1, None, {}, "it is no good")
    found = inspect_version(files, Digests())
    assert found.files == files
    assert found.fingerprint != inspect_version(replace(files, problem="x"), Digests()).fingerprint


def test_checksums(repository: Path) -> None:
    """Right ones change nothing; a wrong one is a problem."""
    folder = repository / "m" / "1"
    before = inspect(repository)
    names = sorted(path.name for path in folder.iterdir())
    listing = [
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names
    ]
    (folder / "SHA256SUMS").write_text("".join(listing))
    found = inspect(repository)
    assert (found.files.problem, found.fingerprint) == ("", before.fingerprint)
    assert found.stamp != before.stamp
    (folder / "tokenizer.json").write_text("{}")
    assert inspect(repository).files.problem.startswith("SHA256SUMS says ")


def test_unchanged_files_are_not_read_again(repository: Path) -> None:
    """Once they are old enough; then not even when they are asked for by the thousand."""
    digests = Counting(Clock(ahead_s=60))
    first = inspect(repository, digests)
    count = digests.read
    assert inspect(repository, digests) == first
    assert digests.read == count
    os.utime(repository / "m" / "1" / "config.json")
    assert inspect(repository, digests).fingerprint == first.fingerprint
    assert digests.read == count + 1
    digests.forget([])
    inspect(repository, digests)
    assert digests.read == 2 * count + 1
    digests.forget(Path(path) for path, _ in first.stamp)
    inspect(repository, digests)
    assert digests.read == 2 * count + 1


@pytest.mark.parametrize(
    ("ahead_s", "modified_ago_s", "remembered"),
    [
        pytest.param(0, 0, False, id="just written"),
        pytest.param(1.5, 0, False, id="written in the same tick of a coarse clock"),
        pytest.param(60, 60, True, id="old"),
        pytest.param(60, 1, False, id="modified just now, as somebody says"),
        pytest.param(60, -3600, True, id="modified in the future, as somebody says"),
        pytest.param(-3600, 86_400, False, id="the file system's clock is ahead"),
    ],
)
def test_young_files_are_read_again(
    tmp_path: Path, ahead_s: float, modified_ago_s: float, remembered: bool
) -> None:
    """A second edit of the same size could leave all times as they are."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    clock = Clock(ahead_s)
    modified = clock() - round(modified_ago_s * SECOND_NS)
    os.utime(path, ns=(modified, modified))
    digests = Counting(clock)
    expected = hashlib.sha256(b"content").hexdigest()
    assert [digests.digest(path), digests.digest(path)] == [expected, expected]
    assert digests.read == (1 if remembered else 2)


def test_a_young_file_is_remembered_once_it_is_old(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    digests = Counting(clock := Clock())
    digests.digest(path)
    clock.ahead_s = 60
    digests.digest(path)
    digests.digest(path)
    assert digests.read == 2


def test_a_file_that_is_written_while_it_is_read(tmp_path: Path) -> None:
    """Its digest is of no use, and is not kept."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    times = iter(range(9))
    digests = Counting(Clock(ahead_s=60), lambda: os.utime(path, (1, next(times))))
    digests.digest(path)
    digests.digest(path)
    assert digests.read == 2


def test_digests_of_what_cannot_be_read(tmp_path: Path) -> None:
    for name in (tmp_path, tmp_path / "none", tmp_path / "none" / "x"):
        with pytest.raises(OSError, match=r"directory"):
            Digests().digest(name)


def test_digests_of_large_files(tmp_path: Path) -> None:
    """More than one chunk, and a last one that is not full."""
    content = os.urandom(1 << 16) * 40 + b"end"
    (tmp_path / "file").write_bytes(content)
    (tmp_path / "empty").touch()
    assert Digests().digest(tmp_path / "file") == hashlib.sha256(content).hexdigest()
    assert Digests().digest(tmp_path / "empty") == hashlib.sha256().hexdigest()


def test_stamps(tmp_path: Path) -> None:
    """Of links what they lead to; in an order of their own; each path once."""
    one, two, link = tmp_path / "one", tmp_path / "two", tmp_path / "link"
    one.touch()
    two.touch()
    link.symlink_to("one")
    before = stamp([two, link, one, one])
    assert [path for path, _ in before] == sorted(map(str, (one, two, link)))
    assert before == stamp([one, two, link])
    assert hash(before)
    (tmp_path / "turned").symlink_to("two")
    (tmp_path / "turned").rename(link)
    assert stamp([one, two, link]) != before
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    told = [told for _, told in stamp([loop, tmp_path / "none", one / "x", Path("a\0b")])]
    assert sorted(map(str, told)) == [
        "missing",
        "missing",
        "unreadable: Too many levels of symbolic links",
        "unreadable: embedded null byte",
    ]
