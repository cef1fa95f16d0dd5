"""Works on queued requests: claims them, makes an attempt at each, notes what became of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from nerve.errors import DeadlineExceeded, NerveError, StoreFailed
from nerve.jobs.codes import PREDICT_ERROR, verdict
from nerve.jobs.pace import LONGEST_LOOK_S, Pace, doubled
from nerve.jobs.patience import Claims, Patience
from nerve.jobs.pressure import Pressure, Room, room
from nerve.jobs.records import ClaimedJob, Done, JobError, JobStore, Status
from nerve.metrics.jobs import JobMetrics

log = logging.getLogger(__name__)

MAX_RESULT_BYTES: Final = 64 * 2**20
"""Larger results are not kept."""


class Answered(NamedTuple):
    """What an attempt brought: the version that answered, and JSON."""

    version: str
    body: bytes


Work = Callable[[ClaimedJob, float], Awaitable[Answered]]
"""Makes one attempt, until a deadline in monotonic seconds. Raises NerveError."""


class Runner:
    """Has as many requests in progress as may be. `start`, then `drain` and `aclose`.

    No model has all places: what only waits for its model holds up nothing but its like.
    Those whose server went away more than once run alone: whatever it was, it must not take their
    neighbours down with it again.
    """

    def __init__(
        self,
        store: JobStore,
        work: Work,
        metrics: JobMetrics,
        *,
        owner: str,
        limit: int,
        timeout_s: float,
        ended: Callable[[], None],
        pace: Pace,
        max_result_bytes: int = MAX_RESULT_BYTES,
    ) -> None:
        """`ended` is called when a request has ended."""
        self._store, self._work, self._metrics, self._owner = store, work, metrics, owner
        self._limit, self._timeout_s, self._ended, self._pace = limit, timeout_s, ended, pace
        self._max_result_bytes = max_result_bytes
        self._running: dict[asyncio.Task[None], str] = {}
        self._suspect: ClaimedJob | None = None
        self._told_alone: set[str] = set()
        """Requests of which the log tells by now that they run alone; each may make many attempts."""
        self._look_for_suspects_at = self._claimed_at = self._rested_at = 0.0
        self._passed_over = False
        """Whether the last turn did not look for those that must run alone; one may have come due."""
        self._woken = asyncio.Event()
        self._draining = False
        self._loop: asyncio.Task[None] | None = None
        self._patience, self._pressure = Patience(pace), Pressure(pace)
        self._claims = Claims(store, owner)

    def start(self) -> None:
        """Begin."""
        self._loop = asyncio.create_task(self._run(), name="async requests")

    @property
    def busy(self) -> bool:
        """Whether it has claimed anything."""
        return bool(self._running or self._suspect)

    def wake(self) -> None:
        """There may be something to do."""
        self._woken.set()

    def look_for_suspects(self) -> None:
        """Some may have to run alone."""
        self._look_for_suspects_at = 0.0

    def drain(self) -> None:
        """Begin nothing more."""
        self._draining = True
        self.wake()

    async def aclose(self, timeout_s: float) -> None:
        """Wait so long for what is in progress; the rest stays claimed."""
        self.drain()
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        running = list(self._running)
        if running:
            await asyncio.wait(running, timeout=timeout_s)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                more = await self._turn()
                self._patience.ok()
            except StoreFailed as error:
                await self._patience.failed("async requests", error)
                continue
            except Exception:  # boundary: the queue has to move on
                log.exception("the runner of async requests stumbled")
                await asyncio.sleep(self._pace.store_max_s)
                continue
            if not more:
                await self._sleep()

    async def _turn(self) -> bool:
        """Begin what may be begun. Whether there may be more at once."""
        now = time.monotonic()
        # Of this turn: what has rested enough while it went on was left out by it all the same.
        resting, self._rested_at = self._pressure.resting(now), self._pressure.rested_at(now)
        self._passed_over = False
        if self._draining:
            return False
        # Of both claims: what comes due between them is left to whoever asks what comes next.
        self._claimed_at = time.time()
        looks = self._suspect is None and now >= self._look_for_suspects_at
        if looks:
            self._look_for_suspects_at = now + self._pace.poll_s
            self._suspect = next(iter(await self._claim(Room(1, resting), alone=True)), None)
        if self._suspect is not None:
            if not self._running:
                suspect, self._suspect = self._suspect, None
                await self._alone(suspect)
                return True
            return False
        self._passed_over = not looks
        free = self._limit - len(self._running)
        if free <= 0:
            return False
        may = room(Counter(self._running.values()), free, resting)
        claimed = await self._claim(may)
        for each in claimed:
            self._begin(each)
        return len(claimed) == may.limit  # else, when one of them ends, there is room for more

    async def _claim(self, may: Room, *, alone: bool = False) -> list[ClaimedJob]:
        return await self._claims.take(
            lambda: self._store.claim(
                self._owner,
                self._claimed_at,
                self._pace.lease_s,
                may.limit,
                alone=alone,
                without=may.without,
            ),
            holding=self.busy,
        )

    def _begin(self, claimed: ClaimedJob) -> asyncio.Task[None]:
        task = asyncio.create_task(self._attempt(claimed), name="async request")
        self._running[task] = claimed.job.model
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self.wake()

    async def _alone(self, claimed: ClaimedJob) -> None:
        request_id = claimed.job.request_id
        if request_id not in self._told_alone:
            self._told_alone.add(request_id)
            log.warning(
                "request %s runs alone: its server went away %s times while it was in progress",
                request_id,
                claimed.interruptions,
            )
        await asyncio.wait({self._begin(claimed)})
        self.look_for_suspects()

    async def _attempt(self, claimed: ClaimedJob) -> None:
        """Make it, and note what became of it. Never raises but when cancelled."""
        began = time.time()
        try:
            async with asyncio.timeout(self._timeout_s):
                answered = await self._work(claimed, time.monotonic() + self._timeout_s)
        except TimeoutError:
            await self._failed(claimed, DeadlineExceeded(), began)
        except Exception as error:  # noqa: BLE001  boundary: it must not stop the queue
            await self._failed(claimed, error, began)
        else:
            self._pressure.room(claimed.job.model, time.monotonic())
            self._waited(claimed, began)
            await self._answered(claimed, answered)

    async def _answered(self, claimed: ClaimedJob, answered: Answered) -> None:
        if len(answered.body) > self._max_result_bytes:
            fault = (
                f"the result has {len(answered.body)} bytes, at most {self._max_result_bytes} are "
                "kept: send fewer or shorter texts in a request"
            )
            error = JobError(PREDICT_ERROR, fault)
            await self._end(claimed, Done(Status.FAILED, answered.version, None, (error,)))
            return
        done = Done(Status.SUCCEEDED, answered.version, answered.body, ())
        await self._end(claimed, done)

    async def _failed(self, claimed: ClaimedJob, error: Exception, began: float) -> None:
        job, found, now = claimed.job, verdict(error), time.time()
        if not isinstance(error, NerveError):
            log.error("attempt at request %s failed", job.request_id, exc_info=error)
        # What is no attempt must come to an end, too: it may wait for as long as for its first one.
        counts = found.counts or now >= job.expires_at
        if counts:
            self._pressure.room(claimed.job.model, time.monotonic())
            self._waited(claimed, began)
        told = JobError(found.code, _told(error))
        if not found.again or (counts and claimed.attempts >= job.max_attempts):
            await self._end(claimed, Done(Status.FAILED, job.version or "", None, (told,)))
            return
        if counts:
            wait_s = doubled(job.initial_delay_s, claimed.attempts, job.max_delay_s)
        else:
            wait_s = self._pressure.full(job.model, time.monotonic())
        ours = await self._patience.until_written(
            lambda: self._store.retry(
                self._owner, job.request_id, told, now + wait_s, counted=counts
            )
        )
        self._metrics.attempt(("retried" if counts else "postponed") if ours else "lost")
        log.debug("request %s is tried again in %.3g s: %s", job.request_id, wait_s, found.code)

    async def _end(self, claimed: ClaimedJob, done: Done) -> None:
        job = claimed.job
        ours = await self._patience.until_written(
            lambda: self._store.finish(self._owner, job.request_id, done, time.time())
        )
        self._told_alone.discard(job.request_id)
        if not ours:  # it was too long without a word from us
            self._metrics.attempt("lost")
            log.warning("request %s is another server's by now", job.request_id)
            return
        self._metrics.attempt("succeeded" if done.status is Status.SUCCEEDED else "failed")
        self._metrics.finished(done.status)
        if done.errors:
            log.info(
                "request %s failed at attempt %s: %s",
                job.request_id,
                claimed.attempts,
                done.errors[-1].code,
            )
        else:
            log.debug("request %s succeeded at attempt %s", job.request_id, claimed.attempts)
        self._ended()

    def _waited(self, claimed: ClaimedJob, began: float) -> None:
        """Note the time to its first attempt, if this is it."""
        if claimed.attempts == 1 and not claimed.interruptions:
            self._metrics.waited(began - claimed.job.created_at)

    async def _sleep(self) -> None:
        """Until somebody wakes us, or it is time to look."""
        longest_s = self._pace.poll_s if self._store.shared else LONGEST_LOOK_S
        until = self._rested_at
        if self._passed_over:
            until = min(until, self._look_for_suspects_at)
        wait_s = max(0.0, min(longest_s, until - time.monotonic()))
        full = self._suspect is not None or len(self._running) >= self._limit
        if not (full or self._draining):
            wait_s = await self._patience.until_next(self._store, self._claimed_at, wait_s)
        try:
            async with asyncio.timeout(wait_s):
                await self._woken.wait()
        except TimeoutError:
            self.look_for_suspects()  # it may be the time of one of them


def _told(error: Exception) -> str:
    """For the client; what is no error of ours may say anything."""
    if isinstance(error, NerveError):
        return str(error)
    return "an unexpected error, which is in the server's log"
