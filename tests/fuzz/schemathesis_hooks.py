"""What Schemathesis cannot know of this server. It loads this file alone, without the tests' modules."""

from __future__ import annotations

import os
import re
from typing import Any

import schemathesis
from schemathesis.core.failures import Failure, ServerError
from schemathesis.openapi.checks import JsonSchemaError

STAYS = frozenset(os.environ["FUZZED_MODELS"].split(","))
"""Models that are not unloaded: the other operations ask for them."""
CONTROL = re.compile(r"/v2/repository/models/{model}/(?:un)?load")
TIME_LIMITS = ("request-timeout-ms", "request-deadline-ms")
EVENTS = "text/event-stream"


@schemathesis.hook
def filter_case(_context: Any, case: Any) -> bool:
    """Leave the models alone that answer."""
    model = (case.path_parameters or {}).get("model")
    return not CONTROL.fullmatch(case.operation.path) or model not in STAYS


@schemathesis.hook
def filter_failure(_context: Any, failure: Failure, case: Any, response: Any) -> bool:
    """Whether it is one. These are none, each for its reason; all else that is 5xx is."""
    if isinstance(failure, JsonSchemaError):
        # OpenAPI 3.1 describes the whole stream, a string; Schemathesis checks each event.
        return not response.headers.get("content-type", [""])[0].startswith(EVENTS)
    if not isinstance(failure, ServerError):
        return True
    documented = str(response.status_code) in case.operation.definition.raw["responses"]
    if response.status_code == 503:
        return not documented
    if response.status_code == 501:  # the protocol has it, and the document says that we have not
        return not documented
    if response.status_code == 504:  # the caller set the limit that passed
        return not (documented and any(name in (case.headers or {}) for name in TIME_LIMITS))
    return True
