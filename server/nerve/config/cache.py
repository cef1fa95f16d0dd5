"""The section of `config.yaml` on answers that are kept."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from nerve.config.running import Section


def cache_shorthand(value: object) -> object:
    """`true` and `false` mean a section that says no more than that."""
    return {"enable": value} if isinstance(value, bool) else value


class ResponseCache(Section):
    """Answers that are kept, a text each, so that the same text is not run twice."""

    enable: Annotated[bool, Field(strict=True)] = False
    """Keep answers until the version is loaded anew; the key is that of Triton's."""
    max_bytes: Annotated[int, Field(strict=True, ge=1, le=1 << 40)] = 64 << 20
    """Most memory that the answers of one loaded version may hold; those that were not asked for
    longest go first."""
    with_transform: Annotated[bool, Field(strict=True)] = False
    """Keep answers of a model with a transform, too. Right only if what its script makes of a text
    depends on nothing but the scores of that text: not on chance, time or other texts."""

    @model_validator(mode="after")
    def _said_to_be_on_or_off(self) -> Self:
        if self.model_fields_set and "enable" not in self.model_fields_set:
            raise ValueError(
                "keeps nothing without enable: true; say enable: true or enable: false"
            )
        return self
