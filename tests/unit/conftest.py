"""Small ONNX graphs, made for a test; and property tests without a clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, settings
from onnx import TensorProto, helper, numpy_helper

from nerve.types import FloatArray
from warm_prover import WarmServer

# A busy machine is no reason to fail.
settings.register_profile("unit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unit")


def _table_graph(path: Path, table: FloatArray, *, states_labels: bool = True) -> Path:
    """Write a graph whose logits are `table[input_ids]`; an id beyond the table makes it fail.

    Args:
        path: where to.
        table: (ids, labels) float32.
        states_labels: whether the graph tells how many labels there are.
    """
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["found"]),
        # how many columns Compress leaves, shape inference cannot tell
        helper.make_node("Identity", ["found"], ["logits"])
        if states_labels
        else helper.make_node("Compress", ["found", "all"], ["logits"], axis=2),
    ]
    every = np.ones(table.shape[1], dtype=np.bool_)
    rows = ["batch", "tokens"]
    graph = helper.make_graph(
        nodes,
        "table",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, rows)
            for name in ("input_ids", "attention_mask")
        ],
        [
            helper.make_tensor_value_info(
                "logits",
                TensorProto.FLOAT,
                [*rows, table.shape[1] if states_labels else "labels"],
            )
        ],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(every, "all")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save_model(model, str(path))
    return path


@pytest.fixture
def table_graph() -> Callable[..., Path]:
    """`_table_graph`."""
    return _table_graph


@pytest.fixture(scope="module")
def warm() -> Iterator[WarmServer]:
    """The fork server that a module's provers share."""
    server = WarmServer()
    yield server
    server.close()
