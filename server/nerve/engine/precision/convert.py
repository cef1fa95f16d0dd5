"""One graph into another of the wanted precision: bytes in, bytes out. For a throw-away process."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from onnx import ModelProto, TensorProto

from nerve.config.running import Precision
from nerve.engine.precision.floats import narrow, widen
from nerve.engine.precision.graph import ConversionError, read, write
from nerve.engine.precision.int8 import quantize

_NOT_ON_ITS_OWN: Final = (
    "there is nothing to convert: it has no matrix product with constant float weights. Is it "
    "quantised already? Convert the float export"
)


def convert(graph: bytes, external: Mapping[str, bytes], precision: Precision) -> bytes | None:
    """As `convert_model`, of a graph and its data as `read` takes them."""
    return convert_model(read(graph, external), precision)


def convert_model(model: ModelProto, precision: Precision) -> bytes | None:
    """The content of the .onnx file of a graph in that precision; None if it has it already.

    Args:
        model: from `read`; it is changed.
        precision: the one that is wanted.
    Raises:
        ConversionError: it cannot be had.
    """
    widened = widen(model)
    if precision is Precision.FP32:
        return write(model) if widened else None
    if precision is Precision.INT8:
        done = quantize(model, unsigned_weights=not adds_exactly())
    else:
        kind = TensorProto.FLOAT16 if precision is Precision.FP16 else TensorProto.BFLOAT16
        done = narrow(model, kind)
    if not done:
        raise ConversionError(_NOT_ON_ITS_OWN)
    return write(model)


def adds_exactly() -> bool:
    """Whether this processor multiplies uint8 by int8 without overflow.

    x86 ones before VNNI add two such products in 16 bits and saturate. ONNX Runtime takes a wider,
    slower way for uint8 times uint8 there.
    """
    if platform.machine().lower() not in {"x86_64", "amd64", "i386", "i686", "x86"}:
        return True
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            flags = next((line for line in lines if line.startswith("flags")), "")
    except OSError:  # not Linux: unknown
        return False
    return bool({"avx512_vnni", "avx_vnni"}.intersection(flags.split()))
