"""A bert-base token classifier with random weights: real work for the runtime, meaningless tags.

Made on the spot in a folder that git ignores; the tokenizer is that of the bundled model, so
texts have the token counts of a real one.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError:
    sys.exit("this benchmark makes a model: pip install onnx (it is in the extra `test`)")

BUNDLED: Final = Path(__file__).parents[1] / "model_repository" / "minilm-ner" / "1"
CACHE: Final = Path(__file__).parent / ".cache"
SIDE_FILES: Final = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
BASE: Final = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
OPSET: Final = 17
IR_VERSION: Final = 8


def bert_base() -> Path:
    """The export folder of the model; made now if it is not there."""
    folder = CACHE / "bert-base"
    if not (folder / "model.onnx").is_file():
        unfinished = CACHE / "bert-base.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        write_bert(unfinished, BASE)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    return folder


def write_bert(folder: Path, size: dict[str, int]) -> None:
    """Write an export folder.

    Args:
        folder: an empty one.
        size: the keys of BERT's config.json that say how large it is.
    """
    config = json.loads((BUNDLED / "config.json").read_text(encoding="utf-8")) | size
    for name in SIDE_FILES:
        shutil.copyfile(BUNDLED / name, folder / name)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    onnx.save_model(Graph().bert(config), folder / "model.onnx")


class Graph:
    """Nodes and weights of a graph as they are put together; values are known by name."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(1)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def bert(self, config: dict[str, Any]) -> onnx.ModelProto:
        """The whole classifier, as an export has it; `config` as in config.json."""
        hidden, layers = config["hidden_size"], config["num_hidden_layers"]
        labels = len(config["id2label"])
        out = self._embeddings(config, hidden)
        bias = self._attention_bias()
        for _ in range(layers):
            attended = self._attention(out, bias, hidden, config["num_attention_heads"])
            attended = self._linear(attended, hidden, hidden, scale=0.5 * layers**-0.5)
            out = self._norm(self._op("Add", attended, out), hidden)
            inner = self._gelu(self._linear(out, hidden, config["intermediate_size"]))
            inner = self._linear(
                inner, config["intermediate_size"], hidden, scale=0.5 * layers**-0.5
            )
            out = self._norm(self._op("Add", inner, out), hidden)
        self._linear(out, hidden, labels, scale=2.0)
        self._nodes[-1].output[0] = "logits"
        shape = ["batch_size", "sequence_length"]
        inputs = ("input_ids", "attention_mask", "token_type_ids")
        graph = helper.make_graph(
            self._nodes,
            "main_graph",
            [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in inputs],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [*shape, labels])],
            initializer=self._weights,
        )
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)

    def _op(self, kind: str, *inputs: str, **attributes: Any) -> str:  # noqa: ANN401  onnx knows
        name = f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def _const(self, value: object, kind: type[np.generic] = np.int64) -> str:
        name = f"const_{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.array(value, dtype=kind), name))
        return name

    def _float(self, value: float) -> str:
        return self._const(value, np.float32)

    def _weight(self, *shape: int, scale: float, base: float = 0.0) -> str:
        values = self._random.standard_normal(shape, dtype=np.float32) * np.float32(scale)
        name = f"weight_{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(values + np.float32(base), name))
        return name

    def _linear(self, x: str, wide: int, out: int, *, scale: float = 1.0) -> str:
        product = self._op("MatMul", x, self._weight(wide, out, scale=scale * wide**-0.5))
        return self._op("Add", self._weight(out, scale=0.02), product)

    def _norm(self, x: str, hidden: int) -> str:
        gain, shift = self._weight(hidden, scale=0.02, base=1.0), self._weight(hidden, scale=0.02)
        return self._op("LayerNormalization", x, gain, shift, axis=-1, epsilon=1e-12)

    def _gelu(self, x: str) -> str:
        erf = self._op("Erf", self._op("Div", x, self._float(2**0.5)))
        product = self._op("Mul", x, self._op("Add", erf, self._float(1.0)))
        return self._op("Mul", product, self._float(0.5))

    def _embeddings(self, config: dict[str, Any], hidden: int) -> str:
        longest = config["max_position_embeddings"]
        words = self._weight(config["vocab_size"], hidden, scale=1.0)
        kinds = self._weight(config["type_vocab_size"], hidden, scale=0.02)
        positions = self._weight(longest, hidden, scale=0.3)
        length = self._op("Gather", self._op("Shape", "input_ids"), self._const([1]), axis=0)
        where = self._op(
            "Slice", self._const([list(range(longest))]), self._const([0]), length, self._const([1])
        )
        word, kind = (
            self._op("Gather", words, "input_ids"),
            self._op("Gather", kinds, "token_type_ids"),
        )
        summed = self._op("Add", self._op("Add", word, kind), self._op("Gather", positions, where))
        return self._norm(summed, hidden)

    def _attention_bias(self) -> str:
        """0 where attended, a large negative number where not: (batch, 1, 1, tokens)."""
        mask = self._op("Unsqueeze", "attention_mask", self._const([1, 2]))
        mask = self._op("Cast", mask, to=TensorProto.FLOAT)
        lowest = self._float(float(np.finfo(np.float32).min))
        return self._op("Mul", self._op("Sub", self._float(1.0), mask), lowest)

    def _attention(self, x: str, bias: str, hidden: int, heads: int) -> str:
        split = self._const([0, 0, heads, hidden // heads])
        query, key, value = (
            self._op("Reshape", self._linear(x, hidden, hidden), split) for _ in range(3)
        )
        query, value = (self._op("Transpose", each, perm=[0, 2, 1, 3]) for each in (query, value))
        key = self._op("Transpose", key, perm=[0, 2, 3, 1])
        scores = self._op("MatMul", query, key)
        scores = self._op("Div", scores, self._float((hidden // heads) ** 0.5))
        shares = self._op("Softmax", self._op("Add", scores, bias), axis=-1)
        joined = self._op("Transpose", self._op("MatMul", shares, value), perm=[0, 2, 1, 3])
        return self._op("Reshape", joined, self._const([0, 0, hidden]))
