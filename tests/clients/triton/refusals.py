"""Requests that must be refused, each with its status; and one after all that is answered."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from clients.triton.client import Client
from clients.triton.methods import ABSENT, OTHER, RAW
from clients.triton.truth import MODEL, TEXTS, Truth, read, same

INVALID: Final[dict[str, Any]] = {"http": 400, "grpc": "INVALID_ARGUMENT"}


async def check_names(client: Client, _: Truth) -> None:
    texts = client.texts("a")
    await client.refused("infer", "nope", texts, **ABSENT, says="nope")
    await client.refused("infer", MODEL, texts, "9", **ABSENT, says="9")
    await client.refused("infer", MODEL, texts, "x", http=404, grpc="INVALID_ARGUMENT")
    await client.refused("infer", OTHER, texts, http=503, grpc="UNAVAILABLE", says=OTHER)


async def check_inputs_and_outputs(client: Client, _: Truth) -> None:
    text, ids = client.texts("a")[0], np.ones((1, 4), dtype=np.int64)
    refused: list[tuple[str, list[Any], str]] = [
        (MODEL, [], ""),
        (MODEL, [client.tensor("NOPE", np.array([["a"]], dtype=object))], "NOPE"),
        (MODEL, [text, client.tensor("NOPE", ids)], "NOPE"),
        (MODEL, [text, text], "TEXT"),
        (MODEL, [client.tensor("TEXT", ids)], "INT64"),
        (RAW, [client.tensor("input_ids", ids.astype(np.int32))], "INT32"),
        (RAW, [client.tensor("attention_mask", ids)], "input_ids"),
        (RAW, [client.tensor("input_ids", ids), text], "TEXT"),
    ]
    for model, inputs, says in refused:
        await client.refused("infer", model, inputs, **INVALID, says=says)
    for name in ("NOPE", "logits"):
        outputs = [client.wanted(name)]
        await client.refused("infer", MODEL, [text], outputs=outputs, **INVALID, says=name)
    twice = [client.wanted("ENTITIES")] * 2
    await client.refused("infer", MODEL, [text], outputs=twice, **INVALID, says="ENTITIES")


async def check_shapes(client: Client, _: Truth) -> None:
    def shaped(name: str, values: np.ndarray[Any, Any], shape: list[int]) -> Any:
        tensor = client.tensor(name, values)
        tensor.set_shape(shape)
        return tensor

    two = np.array([["a"], ["b"]], dtype=object)
    for shape in ([3, 1], [1, 1], [1, 2], [2, 1, 1], [], [0, 1], [2**62, 4]):
        await client.refused("infer", MODEL, [shaped("TEXT", two, shape)], **INVALID)
    ids = np.ones((2, 4), dtype=np.int64)
    for shape in ([2, 5], [8], [2, 4, 1], [0, 4], [2, 0], [2**62, 4]):
        await client.refused("infer", RAW, [shaped("input_ids", ids, shape)], **INVALID)
    inputs = [client.tensor("input_ids", ids), client.tensor("attention_mask", ids[:1])]
    await client.refused("infer", RAW, inputs, **INVALID)
    long = np.ones((1, 5000), dtype=np.int64)
    await client.refused("infer", RAW, [client.tensor("input_ids", long)], **INVALID, says="5000")


async def check_batch(client: Client, _: Truth) -> None:
    told = await client.told("get_model_config", MODEL)
    size = int((told["config"] if client.grpc else told)["max_batch_size"])
    texts = client.texts(*["a"] * (size + 1))
    await client.refused("infer", MODEL, texts, **INVALID, says=str(size))


async def check_texts(client: Client, _: Truth) -> None:
    """Bytes that are no UTF-8 are told by their place; the whole request is refused."""
    await client.refused("infer", MODEL, client.texts(b"ok", b"\xff\xfe"), **INVALID, says="1")
    if not client.grpc:  # numbers where strings belong
        tensor = client.tensor("TEXT", np.array([["a"]], dtype=object), binary=False)
        tensor._data = [1]  # the client itself would not write it
        await client.refused("infer", MODEL, [tensor], **INVALID)


async def check_framing(client: Client, _: Truth) -> None:
    """A length before a text that runs past the end, and bytes that are left over."""
    for raw in (b"\x09\x00\x00\x00abc", b"\x01\x00\x00\x00abc", b"\x01\x00"):
        tensor = client.texts("a")[0]
        if client.grpc:
            tensor._raw_content = raw
        else:
            tensor._raw_data = raw
            tensor._parameters["binary_data_size"] = len(raw)
        await client.refused("infer", MODEL, [tensor], **INVALID)


async def check_parameters(client: Client, _: Truth) -> None:
    wrong: list[tuple[str, Any]] = [
        ("nope", 1),
        ("threshold", "high"),
        ("threshold", True),
        ("aggregation", "MAX"),
        ("aggregation", 1),
        ("labels", 3),
        ("offset_unit", "words"),
        ("truncate", "yes"),
        ("truncation_side", "middle"),
    ]
    for name, value in wrong:
        await client.refused(
            "infer", MODEL, client.texts("a"), parameters={name: value}, **INVALID, says=name
        )


async def check_still_there(client: Client, truth: Truth) -> None:
    """After all that, an ordinary request is answered."""
    result = await client.call("infer", MODEL, client.texts(TEXTS[0]))
    same(read(result)[0], truth.entities(TEXTS[0]))


CHECKS = (
    check_names,
    check_inputs_and_outputs,
    check_shapes,
    check_batch,
    check_texts,
    check_framing,
    check_parameters,
    check_still_there,
)
