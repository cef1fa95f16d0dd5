"""Who may ask, and what is hidden on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from nerve.config.settings.kinds import Settings, origin


class SecuritySettings(Settings):
    """Security."""

    cert_file: Path | None = None
    """Certificate of the server with its chain, PEM, for HTTP and gRPC; a changed file is taken up
    without a restart. By default there is no TLS."""
    key_file: Path | None = None
    """Its private key, PEM, not encrypted."""
    client_ca_file: Path | None = None
    """Certificates of the authorities, PEM, one of which every client's certificate must come from. By
    default clients need none."""
    hsts_max_age_s: Annotated[int, Field(ge=1)] | None = None
    """How long browsers are to ask this host, on all of its ports, by https only. By default they are
    not told."""
    api_keys_file: Path | None = None
    """YAML or .json file with the API keys that are taken; a changed file is taken up without a
    restart. By default whoever can connect may ask."""
    cors_allowed_origins: list[Annotated[str, AfterValidator(origin)]] = []  # noqa: RUF012  pydantic copies it
    """Web pages that may ask this server, as scheme://host[:port]; "*" is any. In
    NERVE_CORS_ALLOWED_ORIGINS separated by commas."""

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            here, there = "cert_file", "key_file"
            if self.cert_file is None:
                here, there = there, here
            raise ValueError(f"{here} is nothing without {there}: TLS needs both")
        for name in ("client_ca_file", "hsts_max_age_s"):
            if getattr(self, name) is not None and self.cert_file is None:
                raise ValueError(f"{name} is for TLS, which needs cert_file and key_file")
        return self
