"""Limits."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nerve.config.settings.kinds import Settings

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class LimitSettings(Settings):
    """Limits."""

    request_timeout_s: Seconds = 60.0
    """Longest time from a request's arrival to its answer."""
    head_timeout_s: Seconds = 10.0
    """Longest time that an HTTP client may take to send the head of a request, the first one counted
    from when it connected."""
    body_timeout_s: Seconds = 30.0
    """Longest time that a client may take to send a request's body."""
    write_timeout_s: Seconds = 60.0
    """Longest time that a client may take to read an answer that is ready."""
    keepalive_timeout_s: Seconds = 75.0
    """How long an HTTP connection is kept between two requests."""
    max_connections: Annotated[int, Field(ge=1)] = 4096
    """Most HTTP connections. One more takes the place of the one that has been idle for longest; if
    there is none, it is refused."""
    grpc_max_connections: Annotated[int, Field(ge=1, le=2**31 - 1)] = 1024
    """Most gRPC connections, of which a client needs one for all its calls; more are closed at once.
    No more than a quarter of the files that the process may open, so that HTTP has some."""
    max_requests_in_flight: Annotated[int, Field(ge=1)] = 1024
    """Most requests that are worked on at the same time, over all protocols; more are refused before
    they are read. Probes and requests that only look do not count."""
    max_bytes_in_flight: Annotated[int, Field(ge=1024)] = 256 * 2**20
    """Most bytes of requests' bodies that are in memory at the same time, over all protocols; a
    request that is alone may have more. A gRPC message counts when it is there as a whole."""
    max_header_bytes: Annotated[int, Field(ge=1024, le=2**20)] = 16_384
    """Largest head of an HTTP request, and largest metadata of a gRPC call."""
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
    shutdown_delay_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """How long everything is still answered after SIGTERM, but for readiness, so that load balancers
    look elsewhere first."""
    shutdown_timeout_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30.0
    """Longest time that requests in flight are waited for after that."""
