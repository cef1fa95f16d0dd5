"""One ONNX session: inputs by name, which output is read, and what is refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from nerve.config.model import ModelConfig
from nerve.config.running import Gpu, GraphLevel, Optimization
from nerve.engine.providers import OnGpu
from nerve.engine.session import LoadStop, Session, gpu_devices
from nerve.errors import ModelLoadFailed
from nerve.types import FloatArray, IntArray

INT64, INT32, FLOAT = TensorProto.INT64, TensorProto.INT32, TensorProto.FLOAT
DIMENSIONS = ["batch", "tokens"]
MODELS = Path(__file__).parents[2] / "models"
IDS: IntArray = np.array([[5, 6, 7], [8, 9, 0]])
MASK: IntArray = np.array([[1, 1, 1], [1, 1, 0]])
TYPES: IntArray = np.array([[0, 1, 1], [0, 0, 0]])
POSITIONS: IntArray = np.array([[0, 1, 2], [0, 1, 2]])
TABLE: FloatArray = np.arange(12, dtype=np.float32).reshape(4, 3)


def opened(
    path: Path,
    *,
    level: GraphLevel = GraphLevel.ALL,
    threads: int = 1,
    external: Mapping[str, Path] | None = None,
    stop: LoadStop | None = None,
) -> Session:
    return Session(
        path,
        gpu=None,
        graph_level=level,
        intra_op_threads=threads,
        external=external or {},
        stop=stop,
    )


def save(
    path: Path,
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    initializers: Sequence[TensorProto] = (),
) -> Path:
    graph = helper.make_graph(nodes, "test", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def tensor(name: str, kind: int, shape: Sequence[str | int]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def echo(
    folder: Path,
    inputs: Sequence[tuple[str, int]],
    *,
    output: str = "logits",
    kind: int = FLOAT,
    label_dimension: str | int | None = None,
) -> Path:
    """A graph whose logits are its inputs: label k of a token is what input k says of it."""
    axis = numpy_helper.from_array(np.array([-1]), "axis")
    nodes = []
    for name, _ in inputs:
        nodes.append(helper.make_node("Cast", [name], [f"{name}_cast"], to=kind))
        nodes.append(helper.make_node("Unsqueeze", [f"{name}_cast", "axis"], [f"{name}_up"]))
    columns = [f"{name}_up" for name, _ in inputs]
    nodes.append(helper.make_node("Concat", columns, [output], axis=-1))
    last = len(inputs) if label_dimension is None else label_dimension
    return save(
        folder / "model.onnx",
        nodes,
        [tensor(name, each, DIMENSIONS) for name, each in inputs],
        [tensor(output, kind, [*DIMENSIONS, last])],
        [axis],
    )


def with_outputs(folder: Path, outputs: Sequence[tuple[str, int]]) -> Path:
    """A graph with outputs of the given names and ranks, each the ids over and over."""
    nodes, values = [], []
    initializers = []
    for name, rank in outputs:
        nodes.append(helper.make_node("Cast", ["input_ids"], [f"{name}_cast"], to=FLOAT))
        if rank == 2:
            nodes.append(helper.make_node("Identity", [f"{name}_cast"], [name]))
        else:
            axes = numpy_helper.from_array(np.arange(2, rank), f"{name}_axes")
            initializers.append(axes)
            nodes.append(helper.make_node("Unsqueeze", [f"{name}_cast", axes.name], [name]))
        values.append(tensor(name, FLOAT, [*DIMENSIONS, *[1] * (rank - 2)]))
    ids = tensor("input_ids", INT64, DIMENSIONS)
    return save(folder / "model.onnx", nodes, [ids], values, initializers)


def with_external_table(folder: Path, location: str) -> Path:
    """A graph whose logits are `TABLE[input_ids]`, the table in a file of its own."""
    table = TensorProto(
        name="table", data_type=FLOAT, dims=TABLE.shape, data_location=TensorProto.EXTERNAL
    )
    table.external_data.add(key="location", value=location)
    table.external_data.add(key="length", value=str(TABLE.nbytes))
    return save(
        folder / "model.onnx",
        [helper.make_node("Gather", ["table", "input_ids"], ["logits"])],
        [tensor("input_ids", INT64, DIMENSIONS)],
        [tensor("logits", FLOAT, [*DIMENSIONS, 3])],
        [table],
    )


@pytest.mark.parametrize("kind", [INT64, INT32, FLOAT, TensorProto.BOOL])
@pytest.mark.parametrize(
    "order",
    [
        ["input_ids", "attention_mask", "token_type_ids"],
        ["token_type_ids", "input_ids", "attention_mask"],
        ["attention_mask", "input_ids"],
        ["position_ids", "attention_mask", "input_ids"],
        ["input_ids"],
    ],
)
def test_inputs_are_bound_by_name_and_cast(tmp_path: Path, order: list[str], kind: int) -> None:
    """Any order and integer type; `kind` is that of all but the ids, which are int64 or int32."""
    inputs = [
        (name, kind if name == "attention_mask" else INT32 if kind == INT32 else INT64)
        for name in order
    ]
    session = opened(echo(tmp_path, inputs))
    assert session.inputs == set(order)
    assert session.labels == len(order)
    given = {
        "input_ids": IDS,
        "attention_mask": MASK,
        "token_type_ids": TYPES,
        "position_ids": POSITIONS,
    }
    logits = session.run(IDS, MASK, TYPES)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, np.stack([given[name] for name in order], axis=-1))


def test_no_type_ids_means_zeros(tmp_path: Path) -> None:
    session = opened(echo(tmp_path, [("input_ids", INT64), ("token_type_ids", INT64)]))
    logits = session.run(IDS, MASK, None)
    np.testing.assert_array_equal(logits[..., 0], IDS)
    np.testing.assert_array_equal(logits[..., 1], np.zeros_like(IDS))


def test_rows_need_not_be_contiguous(tmp_path: Path) -> None:
    """Views of other arrays are taken as what they show."""
    session = opened(echo(tmp_path, [("input_ids", INT64), ("attention_mask", INT64)]))
    logits = session.run(IDS.T.copy().T, MASK[::-1], None)
    np.testing.assert_array_equal(logits, np.stack([IDS, MASK[::-1]], axis=-1))


@pytest.mark.parametrize("level", list(GraphLevel))
def test_every_graph_level_and_several_threads(tmp_path: Path, level: GraphLevel) -> None:
    session = opened(echo(tmp_path, [("input_ids", INT64)]), level=level, threads=2)
    np.testing.assert_array_equal(session.run(IDS, MASK, None)[..., 0], IDS)


def test_several_threads_may_run_at_once(tmp_path: Path) -> None:
    """Each gets the answer to its own rows."""
    session = opened(echo(tmp_path, [("input_ids", INT64), ("attention_mask", INT64)]))
    together = threading.Barrier(4)

    def work(number: int) -> bool:
        together.wait()
        return all(
            np.array_equal(session.run(IDS + each, MASK, None)[..., 0], IDS + each)
            for each in range(100 * number, 100 * number + 20)
        )

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, range(4)))


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_logits_of_another_float_type_are_widened(tmp_path: Path, kind: int) -> None:
    logits = opened(echo(tmp_path, [("input_ids", INT64)], kind=kind)).run(IDS, MASK, None)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits[..., 0], IDS)


def test_an_output_of_another_name_but_rank_3(tmp_path: Path) -> None:
    session = opened(echo(tmp_path, [("input_ids", INT64)], output="scores"))
    np.testing.assert_array_equal(session.run(IDS, MASK, None)[..., 0], IDS)


def test_logits_by_name_among_others_of_rank_3(tmp_path: Path) -> None:
    """An export with hidden states."""
    path = with_outputs(tmp_path, [("hidden", 3), ("logits", 3), ("pooled", 2)])
    np.testing.assert_array_equal(opened(path).run(IDS, MASK, None)[..., 0], IDS)


def test_the_only_output_of_rank_3_among_others(tmp_path: Path) -> None:
    path = with_outputs(tmp_path, [("pooled", 2), ("scores", 3), ("more", 4)])
    np.testing.assert_array_equal(opened(path).run(IDS, MASK, None)[..., 0], IDS)


def test_a_label_count_that_the_graph_does_not_state(tmp_path: Path) -> None:
    """Columns chosen by a mask: shape inference cannot know how many are left."""
    path = tmp_path / "model.onnx"
    save(
        path,
        [
            helper.make_node("Gather", ["table", "input_ids"], ["found"]),
            helper.make_node("Compress", ["found", "which"], ["logits"], axis=2),
        ],
        [tensor("input_ids", INT64, DIMENSIONS)],
        [tensor("logits", FLOAT, [*DIMENSIONS, "labels"])],
        [
            numpy_helper.from_array(TABLE, "table"),
            numpy_helper.from_array(np.array([True, False, True]), "which"),
        ],
    )
    session = opened(path)
    assert session.labels is None
    ids = np.array([[1, 2]])
    np.testing.assert_array_equal(session.run(ids, ids, None), TABLE[ids][..., [0, 2]])


@pytest.mark.parametrize(
    "outputs",
    [
        pytest.param([("a", 3), ("b", 3)], id="two of rank 3, none named logits"),
        pytest.param([("pooled", 2)], id="none of rank 3"),
        pytest.param([("a", 4)], id="rank 4"),
    ],
)
def test_an_output_that_is_not_clear(tmp_path: Path, outputs: list[tuple[str, int]]) -> None:
    """The reason shows what there is."""
    with pytest.raises(ModelLoadFailed, match="expected an output named 'logits'") as caught:
        opened(with_outputs(tmp_path, outputs))
    for name, _ in outputs:
        assert f"{name} [" in str(caught.value)


@pytest.mark.parametrize("rank", [2, 4])
def test_logits_of_another_rank(tmp_path: Path, rank: int) -> None:
    """A text-classification export has rank 2."""
    with pytest.raises(ModelLoadFailed, match=r"expected rank 3 .*token-classification export"):
        opened(with_outputs(tmp_path, [("logits", rank)]))


def test_logits_that_are_no_floats(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadFailed, match=r"tensor\(int64\), expected float32 or float16"):
        opened(echo(tmp_path, [("input_ids", INT64)], kind=INT64))


def test_a_shape_that_only_the_run_shows(tmp_path: Path) -> None:
    """A graph that answers for other rows than it was asked must not hand out their scores."""
    path = save(
        tmp_path / "model.onnx",
        [
            helper.make_node("Gather", ["table", "input_ids"], ["found"]),
            helper.make_node("Compress", ["found", "which"], ["logits"], axis=0),
        ],
        [tensor("input_ids", INT64, DIMENSIONS)],
        [tensor("logits", FLOAT, ["some", "tokens", 3])],
        [
            numpy_helper.from_array(TABLE, "table"),
            numpy_helper.from_array(np.array([True]), "which"),
        ],
    )
    ids = np.array([[1, 2], [3, 0]])
    with pytest.raises(ValueError, match=re.escape("shape (1, 2, 3) for an input of (2, 2)")):
        opened(path).run(ids, ids, None)


def test_no_input_ids(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadFailed, match=r"no input named 'input_ids'.*: ids, attention_mask"):
        opened(echo(tmp_path, [("ids", INT64), ("attention_mask", INT64)]))


def test_an_unknown_input(tmp_path: Path) -> None:
    """Something that this server does not know how to fill must not be left out or guessed."""
    with pytest.raises(ModelLoadFailed, match="wants an input 'pixel_values'"):
        opened(echo(tmp_path, [("input_ids", INT64), ("pixel_values", FLOAT)]))


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.INT8])
def test_an_input_of_another_type(tmp_path: Path, kind: int) -> None:
    with pytest.raises(ModelLoadFailed, match=r"'attention_mask' is tensor.*expected int64"):
        opened(echo(tmp_path, [("input_ids", INT64), ("attention_mask", kind)]))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is an empty file"),
        (b"not a graph", "cannot be loaded: "),
        (b"version https://git-lfs.github.com/spec/v1\n", "is only a Git LFS pointer"),
        (b"\x08\x08", "cannot be loaded: "),
    ],
)
def test_a_broken_file(tmp_path: Path, content: bytes, words: str) -> None:
    """Empty, no graph at all, a pointer that git-lfs left."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelLoadFailed, match=rf"^model\.onnx {words}"):
        opened(path)


def test_a_half_copied_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes((MODELS / "bert" / "model.onnx").read_bytes()[:100_000])
    with pytest.raises(ModelLoadFailed, match=r"^model\.onnx cannot be loaded: "):
        opened(path)


@pytest.mark.parametrize("way", ["absolute", "relative", "link"])
def test_a_reason_does_not_show_where_the_server_keeps_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Clients see it. Nothing else of the runtime's sentence is lost, by whatever path."""
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    with_external_table(tmp_path / "1", "gone.bin")
    (tmp_path / "2" / "model.onnx").symlink_to(Path("..") / "1" / "model.onnx")
    monkeypatch.chdir(tmp_path / "1")
    path = {
        "absolute": tmp_path / "1" / "model.onnx",
        "relative": Path("model.onnx"),
        "link": tmp_path / "2" / "model.onnx",
    }[way]
    with pytest.raises(ModelLoadFailed, match=r"gone\.bin") as caught:
        opened(path)
    assert str(tmp_path) not in str(caught.value)


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadFailed, match=r"^model\.onnx cannot be read: "):
        opened(tmp_path / "model.onnx")


@pytest.mark.parametrize("location", ["model.onnx.data", "weights/table.bin"])
def test_external_data_beside_the_model(tmp_path: Path, location: str) -> None:
    data = tmp_path / location
    data.parent.mkdir(exist_ok=True)
    data.write_bytes(TABLE.tobytes())
    ids = np.array([[1, 3]])
    found = opened(with_external_table(tmp_path, location)).run(ids, ids, None)
    np.testing.assert_array_equal(found, TABLE[ids])


def test_external_data_of_onnx_s_own_making(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As exporters write it; the server may run in any other folder."""
    source = onnx.load(str(MODELS / "distilbert" / "model.onnx"))
    (tmp_path / "version").mkdir()
    path = tmp_path / "version" / "model.onnx"
    onnx.save_model(source, str(path), save_as_external_data=True, location="w.bin")
    assert (tmp_path / "version" / "w.bin").stat().st_size > path.stat().st_size / 2
    monkeypatch.chdir(tmp_path)
    ids = np.array([[2, 40, 41, 3]])
    mask = np.ones_like(ids)
    whole = opened(MODELS / "distilbert" / "model.onnx").run(ids, mask, None)
    for each in (path, Path("version/model.onnx")):
        np.testing.assert_array_equal(opened(each).run(ids, mask, None), whole)


def test_external_data_beside_a_linked_model(tmp_path: Path) -> None:
    """A version made of links to another version's files."""
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    (tmp_path / "1" / "table.bin").write_bytes(TABLE.tobytes())
    with_external_table(tmp_path / "1", "table.bin")
    for name in ("model.onnx", "table.bin"):
        (tmp_path / "2" / name).symlink_to(Path("..") / "1" / name)
    ids = np.array([[1, 3]])
    found = opened(tmp_path / "2" / "model.onnx").run(ids, ids, None)
    np.testing.assert_array_equal(found, TABLE[ids])


def truncate(file: Path) -> None:
    with file.open("r+b") as opened_file:
        opened_file.truncate(0)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda file: file.write_bytes(b"\x01" * TABLE.nbytes), id="written over"),
        pytest.param(truncate, id="truncated"),
        pytest.param(lambda file: file.unlink(), id="deleted"),
    ],
)
@pytest.mark.parametrize("location", ["table.bin", "weights/table.bin"])
def test_external_data_that_is_given_is_not_looked_at_again(
    tmp_path: Path, location: str, spoil: Callable[[Path], object]
) -> None:
    """Mapped, it would change the answers of a loaded model, or kill the process by SIGBUS."""
    data = tmp_path / location
    data.parent.mkdir(exist_ok=True)
    data.write_bytes(TABLE.tobytes())
    session = opened(with_external_table(tmp_path, location), external={location: data})
    assert str(data) not in Path("/proc/self/maps").read_text(encoding="utf-8")
    spoil(data)
    ids = np.array([[1, 3]])
    np.testing.assert_array_equal(session.run(ids, ids, None), TABLE[ids])


def test_external_data_that_is_given_may_lie_anywhere(tmp_path: Path) -> None:
    """Whoever gives it has looked at where it is; beside the model is nothing."""
    (tmp_path / "model").mkdir()
    data = tmp_path / "elsewhere.bin"
    data.write_bytes(TABLE.tobytes())
    path = with_external_table(tmp_path / "model", "table.bin")
    ids = np.array([[1, 3]])
    found = opened(path, external={"table.bin": data, "./table.bin": data}).run(ids, ids, None)
    np.testing.assert_array_equal(found, TABLE[ids])


@pytest.mark.parametrize("size", [0, 10])
def test_external_data_that_is_given_and_too_short(tmp_path: Path, size: int) -> None:
    data = tmp_path / "table.bin"
    data.write_bytes(TABLE.tobytes()[:size])
    with pytest.raises(ModelLoadFailed, match=r"cannot be loaded: .*out of bounds"):
        opened(with_external_table(tmp_path, "table.bin"), external={"table.bin": data})


def test_external_data_that_is_given_and_gone(tmp_path: Path) -> None:
    path = with_external_table(tmp_path, "table.bin")
    with pytest.raises(ModelLoadFailed, match=r"^table\.bin cannot be read: "):
        opened(path, external={"table.bin": tmp_path / "table.bin"})


def test_external_data_that_the_graph_does_not_name(tmp_path: Path) -> None:
    (tmp_path / "more.bin").write_bytes(b"x")
    path = echo(tmp_path, [("input_ids", INT64)])
    session = opened(path, external={"more.bin": tmp_path / "more.bin"})
    np.testing.assert_array_equal(session.run(IDS, MASK, None)[..., 0], IDS)


def test_a_load_that_is_not_wanted_any_more(tmp_path: Path) -> None:
    """Set before, it breaks off every load; else it changes nothing."""
    path = echo(tmp_path, [("input_ids", INT64)])
    stop = LoadStop()
    session = opened(path, stop=stop)
    stop.set()
    np.testing.assert_array_equal(session.run(IDS, MASK, None)[..., 0], IDS)
    with pytest.raises(ModelLoadFailed, match=r"cannot be loaded: .*CANCEL"):
        opened(path, stop=stop)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads in /proc")
def test_the_runtime_does_not_report_home() -> None:
    """From 1.29 on it would, by a thread that its import starts, unless told not to before."""
    code = (
        "import os\n"
        "os.environ['OPENBLAS_NUM_THREADS'] = '1'\n"
        "from nerve.engine.session import require_runtime\n"
        "require_runtime()\n"
        "print(len(os.listdir('/proc/self/task')), os.environ['ORT_DISABLE_TELEMETRY'])\n"
    )
    environment = {key: each for key, each in os.environ.items() if not key.startswith("ORT_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1 1\n"


def test_missing_external_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadFailed, match=r"cannot be loaded: .*gone\.bin"):
        opened(with_external_table(tmp_path, "gone.bin"))


def test_external_data_that_is_too_short(tmp_path: Path) -> None:
    """A copy in progress."""
    (tmp_path / "table.bin").write_bytes(TABLE.tobytes()[:10])
    with pytest.raises(ModelLoadFailed, match="cannot be loaded"):
        opened(with_external_table(tmp_path, "table.bin"))


@pytest.mark.parametrize("way", ["parent", "through a folder", "absolute", "link"])
def test_external_data_elsewhere_is_not_read(tmp_path: Path, way: str) -> None:
    """A model must not be able to read the files of its host."""
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    outside = tmp_path / "outside.bin"
    outside.write_bytes(TABLE.tobytes())
    (folder / "link.bin").symlink_to(outside)
    location = {
        "parent": "../outside.bin",
        "through a folder": "sub/../../outside.bin",
        "absolute": str(outside),
        "link": "link.bin",
    }[way]
    with pytest.raises(ModelLoadFailed, match="cannot be loaded"):
        opened(with_external_table(folder, location))


def on_a_gpu(path: Path, number: int, **gpu: object) -> Session:
    config = ModelConfig(optimization=Optimization(gpu=Gpu.model_validate(gpu)))
    return Session(
        path, gpu=number, graph_level=GraphLevel.ALL, intra_op_threads=1, use=OnGpu.of(config)
    )


@pytest.mark.parametrize(
    ("gpu", "words"),
    [
        ({}, "CUDA cannot be used on GPU 0: "),
        ({"cuda_graphs": True, "shape_buckets": [16]}, "CUDA cannot be used on GPU 0: "),
        ({"provider": "tensorrt", "shape_buckets": [16]}, "TensorRT cannot be used on GPU 0: "),
    ],
)
@pytest.mark.skipif(bool(gpu_devices()), reason="this machine has a GPU")
@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_a_gpu_that_is_not_there_is_a_reason_not_a_fallback(
    tmp_path: Path, gpu: dict[str, object], words: str
) -> None:
    """The runtime itself would only log that it runs on the CPU."""
    with pytest.raises(ModelLoadFailed, match=f"^{words}"):
        on_a_gpu(echo(tmp_path, [("input_ids", INT64)]), 0, **gpu)


def test_a_tensorrt_engine_is_only_built_for_a_graph_that_is_ours(tmp_path: Path) -> None:
    """That takes minutes, and fails for other reasons where there is no GPU."""
    with pytest.raises(ModelLoadFailed, match="wants an input 'pixel_values'"):
        on_a_gpu(
            echo(tmp_path, [("input_ids", INT64), ("pixel_values", FLOAT)]),
            0,
            provider="tensorrt",
            shape_buckets=[16],
        )


@pytest.mark.skipif(not gpu_devices(), reason="needs a GPU")
@pytest.mark.parametrize(
    "gpu",
    [
        pytest.param({"io_binding": False}, id="plain"),
        pytest.param({}, id="bound"),
        pytest.param({"cuda_graphs": True, "shape_buckets": [16]}, id="captured"),
    ],
)
@pytest.mark.parametrize("family", ["bert", "deberta-v2", "distilbert", "roberta", "xlm-roberta"])
def test_a_gpu_computes_what_the_cpu_does(family: str, gpu: dict[str, object]) -> None:
    """Each shape thrice, so that a captured graph is replayed with other rows."""
    file = MODELS / family / "model.onnx"
    on_cpu, session = opened(file), on_a_gpu(file, gpu_devices()[0], **gpu)
    assert session.device == "gpu"
    random = np.random.default_rng(1)
    for shape in [(1, 5), (3, 16), (2, 9)] * 3:
        ids = random.integers(5, 60, shape)
        mask = np.ones_like(ids)
        expected = on_cpu.run(ids, mask, None)
        np.testing.assert_allclose(session.run(ids, mask, None), expected, atol=1e-2)


def test_device_and_runtime(tmp_path: Path) -> None:
    assert opened(echo(tmp_path, [("input_ids", INT64)])).device == "cpu"
