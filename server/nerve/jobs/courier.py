"""Sends the messages to webhooks that the store has, at least once each."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Final, NamedTuple

from nerve.errors import StoreFailed
from nerve.jobs.addresses import place
from nerve.jobs.message import REQUEST_ID_HEADER, SIGNATURE_HEADER, message_of
from nerve.jobs.pace import LONGEST_LOOK_S, Pace, doubled
from nerve.jobs.patience import Claims, Patience
from nerve.jobs.records import Delivery, JobError, JobStore
from nerve.jobs.signing import Secrets
from nerve.jobs.turns import Turn, Turns
from nerve.jobs.webhook import NotTaken, Webhooks
from nerve.metrics.jobs import JobMetrics
from nerve.offload import INLINE_BYTES, offload

log = logging.getLogger(__name__)

WEBHOOK_FAILED: Final = "WEBHOOK_FAILED"
WINDOW: Final = 4
"""So many times as many messages as connections are held, those to be sent included."""
MAX_HELD_BYTES: Final = 64 * 2**20
"""No more are taken while as much is held."""
SMALL_BYTES: Final = 1024
"""Messages count as such in the guess of how large the next ones are."""
CLAIM: Final = 16
"""Most messages that are taken at once: how large they are is seen only then."""


class Message(NamedTuple):
    """Ready to be sent."""

    body: bytes
    headers: Mapping[str, str]


class Courier:
    """Claims, sends, notes what became of it. `start`, then `aclose`."""

    def __init__(
        self,
        store: JobStore,
        webhooks: Webhooks,
        secrets: Secrets | None,
        metrics: JobMetrics,
        *,
        owner: str,
        attempts: int,
        connections: int,
        pace: Pace,
    ) -> None:
        self._store, self._webhooks, self._secrets = store, webhooks, secrets
        self._metrics, self._owner, self._pace = metrics, owner, pace
        self._attempts, self._connections = attempts, connections
        self._turns = Turns(connections, pace)
        self._sending: dict[asyncio.Task[None], int] = {}
        self._waiting = self._held_bytes = 0
        self._largest, self._claimed_at = float(SMALL_BYTES), 0.0
        self._woken = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._patience = Patience(pace)
        self._claims = Claims(store, owner)

    def start(self) -> None:
        """Begin to send."""
        self._loop = asyncio.create_task(self._run(), name="webhook courier")

    @property
    def busy(self) -> bool:
        """Whether it has claimed anything."""
        return bool(self._waiting or self._sending)

    def wake(self) -> None:
        """There may be something to send."""
        self._woken.set()

    async def aclose(self, timeout_s: float) -> None:
        """Wait so long for what is being sent; the rest stays claimed."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        sending = list(self._sending)
        if sending:
            await asyncio.wait(sending, timeout=timeout_s)
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
        await self._webhooks.aclose()

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                more = await self._turn()
                self._patience.ok()
            except StoreFailed as error:
                await self._patience.failed("messages to webhooks", error)
                continue
            except Exception:  # boundary: whatever it is, messages have to go out
                log.exception("the courier of webhooks stumbled")
                await asyncio.sleep(self._pace.store_max_s)
                continue
            if not more:
                await self._sleep()

    async def _turn(self) -> bool:
        """Send what may be sent. Whether there may be more at once."""
        now = time.monotonic()
        late: list[Delivery] = []
        while len(self._sending) < self._connections and (found := self._turns.next_waiting(now)):
            turn, delivery = found
            self._waiting -= 1
            self._held_bytes -= _bytes(delivery)
            if not self._take(delivery, turn):
                late.append(delivery)
        limit = self._room()
        claimed = await self._claim(limit) if limit > 0 else []
        for delivery in claimed:
            turn = self._turns.turn(place(delivery.webhook), time.monotonic())
            if not self._take(delivery, turn):
                late.append(delivery)
        await asyncio.gather(*map(self._postpone, late))
        self._turns.forget_idle(time.monotonic())
        return 0 < limit == len(claimed)

    async def _claim(self, limit: int) -> list[Delivery]:
        self._claimed_at = at = time.time()
        claimed = await self._claims.take(
            lambda: self._store.claim_deliveries(self._owner, at, self._pace.lease_s, limit),
            holding=self.busy,
        )
        if claimed:
            self._largest = max(SMALL_BYTES, self._largest / 2, *map(_bytes, claimed))
        return claimed

    def _room(self) -> int:
        """How many messages may be taken."""
        if len(self._sending) >= self._connections:
            return 0
        held = self._waiting + len(self._sending)
        by_bytes = int((MAX_HELD_BYTES - self._held_bytes) / self._largest)
        if self._held_bytes < MAX_HELD_BYTES:
            by_bytes = max(by_bytes, 1)
        return min(WINDOW * self._connections - held, by_bytes, CLAIM)

    def _take(self, delivery: Delivery, turn: Turn) -> bool:
        """Send it, or keep it until there is room. False: it is to be put off."""
        if turn is Turn.POSTPONE:
            return False
        where = place(delivery.webhook)
        self._held_bytes += _bytes(delivery)
        if turn is Turn.WAIT or len(self._sending) >= self._connections:
            self._waiting += 1
            self._turns.wait(where, delivery)
            return True
        self._turns.began(where, delivery.request_id, time.monotonic())
        task = asyncio.create_task(self._deliver(where, delivery), name="webhook")
        self._sending[task] = _bytes(delivery)
        task.add_done_callback(self._sent)
        return True

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._held_bytes -= self._sending.pop(task)
        self.wake()

    async def _postpone(self, delivery: Delivery) -> None:
        """Have it wait in the store, as its receiver is slow and others are not to wait for that.

        That is no try. One that has been put off for too long is given up: its receiver was slow, or
        hung, all that time.
        """
        now = time.time()
        over = now > delivery.finished_at + self._pace.given_up_s
        fault = "the webhook's server has been too slow for all that is sent to it"
        wait_s = self._turns.postponed_s(place(delivery.webhook), time.monotonic())
        again_at = None if over else now + wait_s
        await self._patience.until_written(
            lambda: self._undelivered(delivery, fault, now, again_at, counted=False)
        )
        self._metrics.delivery("failed" if over else "postponed")

    async def _deliver(self, where: str, delivery: Delivery) -> None:
        """Send it, and note what became of it; a store that fails is asked again and again."""
        try:
            fault = await self._send(delivery)
        finally:
            self._turns.ended(where, delivery.request_id, time.monotonic())
        if fault is None:
            await self._taken(where, delivery.request_id)
        else:
            await self._failed(where, delivery, str(fault), again=fault.again)

    async def _send(self, delivery: Delivery) -> NotTaken | None:
        """None: it was taken."""
        inline = _bytes(delivery) <= INLINE_BYTES
        try:
            message = await offload(lambda: self._message(delivery), inline=inline)
            await self._webhooks.post(delivery.webhook, *message)
        except NotTaken as fault:
            return fault
        except Exception:  # boundary: one that cannot be sent must not come back for ever
            log.exception("the answer of request %s could not be sent", delivery.request_id)
            return NotTaken("the server could not send it", again=True)
        return None

    def _message(self, delivery: Delivery) -> Message:
        body = message_of(delivery)
        headers = {
            "Content-Type": "application/json",
            REQUEST_ID_HEADER: delivery.request_id,
        }
        if self._secrets is not None:
            headers[SIGNATURE_HEADER] = self._secrets.sign(body)
        return Message(body, headers)

    async def _taken(self, where: str, request_id: str) -> None:
        ours = await self._patience.until_written(
            lambda: self._store.delivered(self._owner, request_id, time.time())
        )
        self._metrics.delivery("succeeded" if ours else "lost")
        log.debug("the webhook at %s took the answer of request %s", where, request_id)

    async def _failed(self, where: str, delivery: Delivery, fault: str, *, again: bool) -> None:
        request_id, tried = delivery.request_id, delivery.deliveries + 1
        again = again and tried < self._attempts
        now = time.time()
        wait_s = doubled(self._pace.webhook_s, tried, self._pace.webhook_max_s)
        ours = await self._patience.until_written(
            lambda: self._undelivered(delivery, fault, now, now + wait_s if again else None)
        )
        self._metrics.delivery(("retried" if again else "failed") if ours else "lost")
        level = logging.DEBUG if again else logging.INFO
        log.log(
            level,
            "the webhook at %s did not take the answer of request %s, try %s of %s: %s",
            where,
            request_id,
            tried,
            self._attempts,
            fault,
        )

    async def _undelivered(
        self,
        delivery: Delivery,
        fault: str,
        now: float,
        again_at: float | None,
        *,
        counted: bool = True,
    ) -> bool:
        error = JobError(WEBHOOK_FAILED, fault)
        return await self._store.undelivered(
            self._owner, delivery.request_id, error, now, again_at, counted=counted
        )

    async def _sleep(self) -> None:
        """Until somebody wakes us, or it is time to look."""
        wait_s = self._pace.poll_s if self._store.shared or self._waiting else LONGEST_LOOK_S
        if self._room() > 0:
            wait_s = await self._patience.until_next(self._store, self._claimed_at, wait_s)
        try:
            async with asyncio.timeout(wait_s):
                await self._woken.wait()
        except TimeoutError:
            pass


def _bytes(delivery: Delivery) -> int:
    return len(delivery.result or b"")
