"""JSON of the server as results. Pure.

Each raises ValueError, KeyError, TypeError or AttributeError for what the server would not say.
"""

from __future__ import annotations

from array import array
from typing import Any, TypeAlias

from nerve_client.results import (
    Entity,
    Limits,
    ModelStatus,
    ModelSummary,
    Statistics,
    Token,
    TokenResult,
    VersionStatus,
)

Json: TypeAlias = Any
"""What json.loads gives; a shape that does not fit raises where it is read."""


def _float32(values: list[float]) -> array[float]:
    """Shortest decimals of float32 values, as those values: equal to what gRPC carries."""
    return array("f", values)


def entities(body: Json) -> list[list[Entity]]:
    """Of predict_tokens, where every span has one label."""
    found = []
    for text in body:
        entities = []
        for span in text:
            ((label, score),) = span["results"].items()
            (score,) = _float32([score])
            entities.append(Entity(span["token"], label, span["start"], span["end"], score))
        found.append(entities)
    return found


def token_results(body: Json) -> list[list[TokenResult]]:
    """Of predict_tokens."""
    return [
        [
            TokenResult(
                span["token"],
                span["token_id"],
                span["start"],
                span["end"],
                dict(zip(span["results"], _float32(list(span["results"].values())), strict=True)),
            )
            for span in text
        ]
        for text in body
    ]


def tokens(body: Json) -> list[list[Token]]:
    """Of predict."""
    return [
        [
            Token(
                token["token_info"]["token"],
                token["token_info"]["token_id"],
                token["token_info"]["start"],
                token["token_info"]["end"],
                tuple(_float32(token["scores"])),
                token["label"],
                _float32([token["score"]])[0],
            )
            for token in text["tokens"]
        ]
        for text in body["results"]
    ]


def models(body: Json) -> list[ModelSummary]:
    """Of the list of models."""
    return [
        ModelSummary(
            each["name"],
            each["state"],
            each["reason"],
            tuple(each["versions"]),
            each["default"],
        )
        for each in body["models"]
    ]


def model(body: Json) -> ModelStatus:
    """Of a model."""
    return ModelStatus(
        body["name"],
        body["task"],
        body["state"],
        body["reason"],
        body["default"],
        tuple(body["labels"] or ()),
        _limits(body["limits"]),
        body["config_override"],
        tuple(
            VersionStatus(
                each["version"],
                each["state"],
                each["reason"],
                each["device"],
                tuple(each["labels"] or ()),
                _limits(each["limits"]),
                _statistics(each["statistics"]),
            )
            for each in body["versions"]
        ),
    )


def _limits(body: Json) -> Limits | None:
    if body is None:
        return None
    return Limits(**{name: body[name] for name in Limits.__dataclass_fields__})


def _statistics(body: Json) -> Statistics | None:
    if body is None:
        return None
    return Statistics(**{name: body[name] for name in Statistics.__dataclass_fields__})
