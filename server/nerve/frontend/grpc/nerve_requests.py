"""What messages of nerve.v1 ask for: their fields as the service's requests. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from nerve._proto.nerve.v1 import nerve_pb2 as pb
from nerve.errors import EmptyInput, InvalidField, NerveError, TextTooLong, TooManyInputs
from nerve.frontend.grpc.metadata import texts_of
from nerve.service.filtering import SpanFilter
from nerve.service.inference import SpanRequest
from nerve.types import CutOptions
from nerve.words import OffsetUnit, Side, Strategy

ValueT = TypeVar("ValueT")

_STRATEGIES: Final = {pb.Aggregation.Value(f"AGGREGATION_{each.name}"): each for each in Strategy}
_UNITS: Final = {pb.OffsetUnit.Value(f"OFFSET_UNIT_{each.name}"): each for each in OffsetUnit}
_SIDES: Final = {pb.TruncationSide.Value(f"TRUNCATION_SIDE_{each.name}"): each for each in Side}
_THEIR_FIELD: Final = "inputs"  # as the service calls texts


MOST_LABELS: Final = 1024


def _labels(labels: Sequence[str], field: str) -> frozenset[str]:
    if len(labels) > MOST_LABELS:
        raise InvalidField(field, f"expected at most {MOST_LABELS} of them, got {len(labels)}")
    return frozenset(labels)


def extract_request(texts: Sequence[str], options: pb.ExtractOptions) -> SpanRequest:
    """Entities of `texts`.

    Raises:
        InvalidField: an option is out of its range.
    """
    threshold = options.threshold if options.HasField("threshold") else None
    if threshold is not None and not 0 <= threshold <= 1:
        raise InvalidField("options.threshold", f"expected a score from 0 to 1, got {threshold:g}")
    return SpanRequest(
        texts,
        default_strategy=Strategy.SIMPLE,
        strategy=_named(options.aggregation, _STRATEGIES, "options.aggregation"),
        offset_unit=unit_of(options.offset_unit, "options.offset_unit"),
        cut=CutOptions(
            truncate=not options.HasField("truncate") or options.truncate,
            side=_named(options.truncation_side, _SIDES, "options.truncation_side"),
        ),
        only=SpanFilter(threshold, _labels(options.labels, "options.labels") or None),
    )


def predict_tokens_request(request: pb.PredictTokensRequest, max_texts: int) -> SpanRequest:
    """Tokens or entities, as predict_tokens has them.

    Raises:
        TooManyInputs; as `extract_request`.
    """
    ignored = frozenset({"O"})
    if request.HasField("ignore_labels"):
        ignored = _labels(request.ignore_labels.labels, "ignore_labels")
    return SpanRequest(
        texts_of(request.texts, max_texts),
        default_strategy=Strategy.NONE,
        strategy=_named(request.aggregation, _STRATEGIES, "aggregation"),
        ignore_labels=ignored,
        raw_scores=request.raw_scores,
        offset_unit=unit_of(request.offset_unit, "offset_unit"),
        cut=CutOptions(
            truncate=not request.HasField("truncate") or request.truncate,
            side=_named(request.truncation_side, _SIDES, "truncation_side"),
        ),
    )


def unit_of(number: int, field: str) -> OffsetUnit | None:
    """The unit that a number of the enum means, None for "not said". Raises InvalidField."""
    return _named(number, _UNITS, field)


def wording(error: NerveError) -> str:
    """An error's sentence, with the names of this service's fields."""
    if isinstance(error, EmptyInput | TooManyInputs | TextTooLong):
        return str(error).replace(_THEIR_FIELD, "texts", 1)
    return str(error)


def _named(number: int, known: Mapping[int, ValueT], field: str) -> ValueT | None:
    """What a number of an enum means; proto3 lets clients send any."""
    if number == 0:
        return None
    if number not in known:
        raise InvalidField(field, f"expected a number from 0 to {max(known)}, got {number}")
    return known[number]
