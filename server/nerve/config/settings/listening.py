"""Where the server listens."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from nerve.config.settings.kinds import Port, Settings


class ListenSettings(Settings):
    """Where the server listens."""

    http_hostname: str = "0.0.0.0"  # noqa: S104  the contract's default; a server is there to be reached
    """Address that HTTP listens on."""
    http_port: Port = 8080
    """Port of HTTP; 0 lets the kernel pick one, which is then announced."""
    disable_http: bool = False
    """Do not listen for HTTP."""
    disable_playground: bool = False
    """Do not offer the playground, a page for people that browsers get at / on HTTP's port."""
    grpc_hostname: str = "[::]"
    """Address that gRPC listens on."""
    grpc_port: Port = 50051
    """Port of gRPC; 0 lets the kernel pick one, which is then announced."""
    disable_grpc: bool = False
    """Do not listen for gRPC."""
    grpc_keepalive_s: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 60.0
    """Time without a sign of life after which a gRPC client is pinged; one that does not answer within
    20 s is given up."""
    grpc_min_ping_interval_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10.0
    """Clients may ping as often as this without calls; the connection of one that does so more often
    is closed."""
    grpc_max_connection_idle_s: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 300.0
    """Time without a call after which a gRPC connection is closed; its client makes a new one for its
    next call."""
    grpc_max_connection_age_s: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None
    """Age at which a gRPC connection is closed so that its client looks for a server anew; calls in
    flight get request_timeout_s to end. By default never."""

    @model_validator(mode="after")
    def _something_listens(self) -> Self:
        if self.disable_http and self.disable_grpc:
            raise ValueError("Cannot disable both gRPC and HTTP")
        return self
