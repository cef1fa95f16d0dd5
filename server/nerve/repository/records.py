"""What is known of models: their versions, states, reasons, and the loaded copies with their users.

Holds facts and small rules about them; loading and waiting live in `manager`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from nerve.config.model import ModelConfig
from nerve.repository.lifecycle import Event, State, advance
from nerve.repository.wanted import Wanted
from nerve.types import ServedModel

RETRY_FIRST_S: Final = 15.0
RETRY_LONGEST_S: Final = 900.0
MAX_REASON: Final = 2000
NOT_LOADED: Final = "not loaded: it is loaded when the repository API is asked to"
NO_FOLDER: Final = "named in config.yaml, but there is no such folder"
FOLDER_GONE: Final = (
    "its folder is gone; it serves on because no other version is ready "
    "(remove the model's folder to unload it)"
)


def cut(reason: str) -> str:
    """A reason goes into logs, indexes and answers: no longer than somebody will read."""
    return reason if len(reason) <= MAX_REASON else f"{reason[: MAX_REASON - 1]}…"


def backoff_s(attempts: int) -> float:
    """Seconds from the last of so many failures with the same bytes to the next try.

    Most never get better by themselves; memory that was short, or a busy device, does.
    """
    return min(RETRY_FIRST_S * 2.0 ** min(attempts - 1, 10), RETRY_LONGEST_S)


@dataclass(slots=True, eq=False)
class Copy:
    """A loaded model and its users. A reload makes another one; this goes when nobody has it.

    `config` is what it was loaded with: that of the disk may have changed since.
    """

    served: ServedModel
    identity: str
    config: ModelConfig = field(default_factory=ModelConfig)
    leases: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def give_back(self) -> None:
        """A user has finished."""
        self.leases -= 1
        if self.leases == 0:
            self.idle.set()

    async def wait_idle(self) -> None:
        """Return when nobody uses it; the caller has made sure that nobody new can."""
        self.idle.clear()
        if self.leases:
            await self.idle.wait()


@dataclass(frozen=True, slots=True)
class Failure:
    """A load that failed: of what, how often in a row, and when to try again (monotonic s)."""

    identity: str
    attempts: int
    retry_at: float


@dataclass(slots=True, eq=False)
class Version:
    """One version: its state, why it is in it (or why it is not newer), and the copy that serves."""

    number: int
    state: State = State.UNAVAILABLE
    reason: str = ""
    copy: Copy | None = None
    failure: Failure | None = None
    loading: str = ""
    """Identity of what is being loaded right now."""
    leaving: set[asyncio.Task[None]] = field(default_factory=set)
    """One for each copy that waits for its last user."""

    def advance(self, event: Event, reason: str = "") -> None:
        """Move on, or raise IllegalTransition."""
        self.state, self.reason = advance(self.state, event), cut(reason)

    @property
    def served(self) -> ServedModel | None:
        """The model that answers; None unless READY."""
        return self.copy.served if self.copy else None


@dataclass(slots=True, eq=False)
class Model:
    """A model folder. `reason` is why all of it cannot be used as it is on the disk.

    `asked` tells whether it is to be loaded at all; `tried` whether that has been done once.
    `coming` is what was asked for last, which may wait for its turn; None if that was to leave.
    """

    name: str
    wanted: Wanted
    serving: ModelConfig = field(default_factory=ModelConfig)
    """Whose routing and shadow are in force: that of `wanted`, once its versions are there."""
    versions: dict[int, Version] = field(default_factory=dict)
    reason: str = ""
    asked: bool = False
    tried: bool = False
    coming: Wanted | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    loads: dict[int, asyncio.Task[None]] = field(default_factory=dict)

    def ready(self) -> list[int]:
        """Versions that answer, ascending."""
        return sorted(number for number, each in self.versions.items() if each.state is State.READY)

    @property
    def in_use(self) -> bool:
        """Whether anything of it is loaded, or on its way in or out."""
        return any(each.copy or each.loading or each.leaving for each in self.versions.values())

    @property
    def shadow(self) -> int | None:
        """The version that only gets copies of requests."""
        return self.serving.shadow.version if self.serving.shadow else None

    @property
    def leading(self) -> tuple[State, str]:
        """State of the version that speaks for the model (READY before the others), and a reason:
        why there is none, or what is wrong beside the one that answers."""
        rows = [self.versions[number] for number in sorted(self.versions, reverse=True)]
        reasons = [f"version {each.number}: {each.reason}" for each in rows if self._tells(each)]
        if any(each.state is State.READY for each in rows):
            return State.READY, "; ".join([self.reason, *reasons]).removeprefix("; ").rstrip("; ")
        if self.reason:
            return State.UNAVAILABLE, self.reason
        if not rows:
            if self.tried:
                return State.UNAVAILABLE, ""
            return (State.LOADING, "") if self.asked else (State.UNAVAILABLE, NOT_LOADED)
        best = next((each for each in rows if each.state is State.LOADING), rows[0])
        return best.state, best.reason

    @staticmethod
    def _tells(version: Version) -> bool:
        return bool(version.reason) and version.reason != "unloaded"

    @property
    def stale(self) -> bool:
        """Whether something on the disk that should serve does not."""
        rows = self.versions.values()
        wrong = any(self._tells(each) or each.failure for each in rows)
        return self.asked and (wrong or bool(self.reason))


@dataclass(frozen=True, slots=True)
class IndexRow:
    """A line of the index; `version` 0 stands for a model without a usable version."""

    name: str
    version: int
    state: State
    reason: str
