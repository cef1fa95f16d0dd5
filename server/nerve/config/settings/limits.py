"""Limits."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nerve.config.settings.kinds import Settings


class LimitSettings(Settings):
    """Limits."""

    request_timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0
    """Longest time from a request's arrival to its answer."""
    body_timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    """Longest time that a client may take to send a request's body."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = 2_097_152
    """Largest request body, after decompression; on predict_tokens, tokenize and decode 2,000,000 if
    that is less. In requests for inference by the Open Inference Protocol, the largest JSON."""
    max_infer_bytes: Annotated[int, Field(ge=1024, le=2**31 - 1)] = 64 * 2**20
    """Largest request of the Open Inference Protocol, over HTTP after decompression, and largest gRPC
    message."""
    max_inputs: Annotated[int, Field(ge=1)] = 1024
    """Most texts in one request on Encoderfile's routes and over gRPC."""
    max_client_batch_size: Annotated[int, Field(ge=1)] = 128
    """Most texts in one request on predict_tokens and tokenize."""
    shutdown_timeout_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30.0
    """Longest time that requests in flight are waited for on SIGTERM."""
