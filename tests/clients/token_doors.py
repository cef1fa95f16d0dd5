"""Every way to ask the daemon for tokens and logits, each a function from texts to the same values."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from nerve_client import Client

from clients.door_values import Texts, Token, Tokens, javascript_client, parts, post, scores_of
from grpc_calls import calling
from nerve._proto.encoderfile import token_classification_pb2 as encoderfile
from nerve._proto.nerve.v1 import nerve_pb2 as nerve
from support import Daemon

ENCODERFILE: Final = "encoderfile.token_classification.TokenClassificationInference"


def _characters(text: str, offset: int) -> int:
    """Code points before an offset in UTF-8 bytes."""
    return len(text.encode()[:offset].decode())


async def predict(daemon: Daemon, texts: Texts) -> Tokens:
    found: Tokens = []
    for part in parts(texts):
        answer = await post(daemon, "/predict", {"inputs": part})
        for text, each in zip(part, answer["results"], strict=True):
            found.append(
                [
                    Token(
                        token["token_info"]["token_id"],
                        _characters(text, token["token_info"]["start"]),
                        _characters(text, token["token_info"]["end"]),
                        token["label"],
                        scores_of(token["scores"]),
                    )
                    for token in each["tokens"]
                ]
            )
    return found


async def encoderfile_grpc(daemon: Daemon, texts: Texts) -> Tokens:
    found: Tokens = []
    async with calling(daemon.ports["grpc"], ENCODERFILE) as caller:
        for part in parts(texts):
            request = encoderfile.TokenClassificationRequest(inputs=part)
            kind = encoderfile.TokenClassificationResponse
            answer = await caller.call("Predict", request, kind)
            for text, each in zip(part, answer.results, strict=True):
                found.append(
                    [
                        Token(
                            token.token_info.token_id,
                            _characters(text, token.token_info.start),
                            _characters(text, token.token_info.end),
                            token.label,
                            scores_of(token.scores),
                        )
                        for token in each.tokens
                    ]
                )
    return found


def _tokens(found: Sequence[Any]) -> list[Token]:
    return [Token(t.token_id, t.start, t.end, t.label, scores_of(t.scores)) for t in found]


async def nerve_predict(daemon: Daemon, texts: Texts) -> Tokens:
    found: Tokens = []
    async with calling(daemon.ports["grpc"]) as caller:
        for part in parts(texts):
            request = nerve.PredictRequest(texts=part)
            answer = await caller.call("Predict", request, nerve.PredictResponse)
            found += [_tokens(each.tokens) for each in answer.results]
    return found


async def python_predict(daemon: Daemon, texts: Texts) -> Tokens:
    """Half over HTTP, half over gRPC."""

    def both() -> Tokens:
        half = len(texts) // 2
        with Client(daemon.url) as client:
            first = client.predict(list(texts[:half]))
        with Client(f"grpc://127.0.0.1:{daemon.ports['grpc']}") as client:
            return [_tokens(each) for each in [*first, *client.predict(list(texts[half:]))]]

    return await asyncio.to_thread(both)


async def javascript_predict(daemon: Daemon, texts: Texts) -> Tokens:
    answer = await javascript_client(daemon, "predict", texts)
    return [
        [
            Token(t["tokenId"], t["start"], t["end"], t["label"], scores_of(t["scores"]))
            for t in each
        ]
        for each in answer
    ]


TOKEN_DOORS: Final[Mapping[str, Callable[[Daemon, Texts], Awaitable[Tokens]]]] = {
    door.__name__: door
    for door in (predict, encoderfile_grpc, nerve_predict, python_predict, javascript_predict)
}
