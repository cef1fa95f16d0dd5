"""Log and trace settings, and shared memory, which is not there: the same over HTTP and gRPC.

Settings are plain values by name; gRPC wraps each of them, see the functions at the end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final, NoReturn

from nerve.errors import InvalidField, LogControlDisabled, Unsupported, kind_of, shown
from nerve.frontend.v2.metadata import Json
from nerve.frontend.v2.views import resolve
from nerve.logs import Logs, LogSettings
from nerve.service.control import ControlService

log = logging.getLogger(__name__)

MAX_VERBOSE: Final = 2**32 - 1
_FORMATS: Final = ("default", "ISO8601")
_SWITCHES: Final = ("log_info", "log_warning", "log_error")
_LOG_SETTINGS: Final = ("log_file", *_SWITCHES, "log_verbose_level", "log_format")
Trace = Mapping[str, str | tuple[str, ...]]
_NO_TRACE: Final[Trace] = {
    "trace_level": ("OFF",),
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_file": "",
    "trace_mode": "triton",
}


def trace_settings(share: float | None) -> Trace:
    """What is in force for every model, if that share of requests is traced. Pure."""
    if not share:  # None, too
        return _NO_TRACE
    levels, rate = ("TIMESTAMPS",), str(round(1 / share))
    return {
        **_NO_TRACE,
        "trace_level": levels,
        "trace_rate": rate,
        "trace_mode": "opentelemetry",
    }


class Settings:
    """What clients may see and change of the running process.

    `logs` is the process's; `control` knows the models; `traced` tells the share of requests whose
    traces are sent to a collector, None for none; with `changes_logs`, clients that come through
    the guard may say what is logged.
    """

    def __init__(
        self,
        logs: Logs,
        control: ControlService,
        *,
        traced: Callable[[], float | None] = lambda: None,
        changes_logs: bool = False,
    ) -> None:
        self._logs, self._control, self._changes_logs = logs, control, changes_logs
        self._traced = traced

    @property
    def _trace(self) -> Trace:
        return trace_settings(self._traced())

    def logging(self) -> Json:
        """All log settings by name."""
        settings = self._logs.settings
        return {
            "log_file": "",
            "log_info": settings.info,
            "log_warning": settings.warning,
            "log_error": settings.error,
            "log_verbose_level": settings.verbose_level,
            "log_format": _FORMATS[settings.iso8601],
        }

    def change_logging(self, asked: Mapping[str, object]) -> Json:
        """Change the log settings that are named, and tell all of them.

        Raises:
            InvalidField: a name or a value is wrong; nothing was changed.
            Unsupported: log_file would be another one; likewise.
            LogControlDisabled: clients are not to change them.
        """
        _check_logging(asked)
        wanted = {**self.logging(), **asked}
        changed = LogSettings(
            info=bool(wanted["log_info"]),
            warning=bool(wanted["log_warning"]),
            error=bool(wanted["log_error"]),
            verbose_level=int(str(wanted["log_verbose_level"])),
            iso8601=wanted["log_format"] == "ISO8601",
        )
        if changed != self._logs.settings:
            if not self._changes_logs:
                raise LogControlDisabled
            self._logs.change(changed)
            log.info("log settings were changed by a client: %s", changed)
        return self.logging()

    def trace(self, model: str = "") -> Json:
        """All trace settings by name, of the server or of one model.

        Raises:
            ModelNotFound.
        """
        if model:
            self._control.model(resolve(model, self._control.knows).model)
        return {key: _listed(value) for key, value in self._trace.items()}

    def change_trace(self, asked: Mapping[str, object], model: str = "") -> Json:
        """Take what is there already, and tell all settings.

        Args:
            asked: values by name: text, a number, a list of texts, or, back to the default, None
                or []. Names that are not known are ignored.
            model: whose, or "" for the server's.
        Raises:
            ModelNotFound, InvalidField; Unsupported: another value is asked for.
        """
        settings = self.trace(model)
        for name, value in asked.items():
            if name in self._trace and value is not None and value != []:
                _check_trace(name, value, self._trace[name])
        return settings


def _check_logging(asked: Mapping[str, object]) -> None:
    for name, value in asked.items():
        if name not in _LOG_SETTINGS:
            known = ", ".join(_LOG_SETTINGS)
            raise InvalidField(f"{name:.60}", f"unknown log setting; known: {known}")
        if name in _SWITCHES:
            if not isinstance(value, bool):
                raise InvalidField(name, f"expected a boolean, got {kind_of(value)}")
        elif name == "log_verbose_level":
            if isinstance(value, bool) or not isinstance(value, int):
                raise InvalidField(name, f"expected a whole number, got {kind_of(value)}")
            if not 0 <= value <= MAX_VERBOSE:
                raise InvalidField(name, f"expected 0 to {MAX_VERBOSE}, got {value}")
        elif not isinstance(value, str):
            raise InvalidField(name, f"expected a string, got {kind_of(value)}")
        elif name == "log_format" and value not in _FORMATS:
            raise InvalidField(name, f"expected {' or '.join(_FORMATS)}, got {shown(value, 60)}")
    if asked.get("log_file"):
        raise Unsupported("log_file", "lines go to stderr, where they can be redirected")


def _check_trace(name: str, value: object, there: str | tuple[str, ...]) -> None:
    """Raises Unsupported, InvalidField unless `value` is what is in force, `there`."""
    told = value if isinstance(value, list) else [value]
    if any(isinstance(each, bool) or not isinstance(each, str | int) for each in told):
        raise InvalidField(name, f"expected text or a list of texts, got {kind_of(value)}")
    if [str(each) for each in told] != ([there] if isinstance(there, str) else [*there]):
        shown = ", ".join(map(str, told))
        fixed = "tracing is set where the server is started (enable_otel); only " + (
            there if isinstance(there, str) else ", ".join(there)
        )
        raise Unsupported(f"{name} {shown:.60}", f"{fixed} is taken")


def _listed(value: str | tuple[str, ...]) -> str | list[str]:
    return value if isinstance(value, str) else [*value]


def shared_memory_status() -> list[Json]:
    """Regions that are registered: none, ever."""
    return []


def refuse_shared_memory(kind: str) -> NoReturn:
    """Of a register call; `kind` is system or CUDA. To unregister needs no call: nothing is there.

    Raises:
        Unsupported.
    """
    raise Unsupported(f"{kind} shared memory", "send tensors in the request")


def logging_message(settings: Json) -> Json:
    """Log settings as the JSON of LogSettingsResponse. Pure."""
    kinds = {bool: "bool_param", int: "uint32_param", str: "string_param"}
    return {"settings": {name: {kinds[type(each)]: each} for name, each in settings.items()}}


def trace_message(settings: Json) -> Json:
    """Trace settings as the JSON of TraceSettingResponse, where all are lists. Pure."""
    return {
        "settings": {
            name: {"value": each if isinstance(each, list) else [each]}
            for name, each in settings.items()
        }
    }
