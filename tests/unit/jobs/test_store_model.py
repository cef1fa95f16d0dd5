"""Whatever is done to a store, in whatever order, it is what a plain model of it is."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from job_stores import BROKEN, ENDED, FAILED, HOOK, REFUSED, Place, new
from nerve.jobs.records import JobStore
from postgres_cluster import Cluster
from store_model import Model

T = TypeVar("T")
BOUNDED = settings(
    database=None,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # to make a failure shorter would take minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
MAX_INTERRUPTIONS = 3
OWNERS = st.sampled_from(["a", "b"])
Request = tuple[str, int, str | None, float, float, int]
MODELS = ("ner", "other")
REQUESTS = st.tuples(
    st.sampled_from(MODELS),
    st.integers(0, 2),
    st.sampled_from([None, HOOK]),
    st.sampled_from([6.0, 100.0]),
    st.sampled_from([0.0, 1.0, 2.0]),
    st.integers(0, 9),
)
"""Model, priority, webhook, seconds until it expires, seconds since it was made, bytes."""
ENDS = st.sampled_from(
    ["succeeded", "failed", "retry", "retry uncounted", "by another", "left", "left"]
)
DELIVERIES = st.sampled_from(["taken", "again", "put off", "never", "by another", "left"])
HOUSEKEEPING = ["expire", "sweep", "recover", "recover", "release", "restart", "nothing"]
MOSTLY_NOT = st.sampled_from([False, False, True])
LEFT_OUT = st.sampled_from([(), (), ("ner",), ("other",), MODELS, ("none",)])
OURS = st.sampled_from([frozenset({"a"}), frozenset({"b"}), frozenset({"a", "b"})])
STEPS_S = st.sampled_from([0.0, 1.0, 4.0])


class Machine(RuleBasedStateMachine):
    """The same is done to a store and to the model; time goes on by some of the steps."""

    cluster: Cluster | None = None

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        self.place = Place(
            self.folder / "jobs.db", self.cluster.new_schema() if self.cluster else None
        )
        self.model = Model()
        self.count = 0
        self.store: JobStore = self.place.store()

    def run(self, work: Awaitable[T]) -> T:
        async def waiting() -> T:
            return await work

        return self.runner.run(waiting())

    @property
    def now(self) -> float:
        return self.place.clock.now

    @initialize(some=st.lists(REQUESTS, min_size=5, max_size=9))
    def begin(self, some: list[Request]) -> None:
        self.run(self.store.open())
        self.add(some)

    @rule(some=st.lists(REQUESTS, min_size=1, max_size=5))
    def add(self, some: list[Request]) -> None:
        for model, priority, webhook, lives_s, older_s, size in some:
            self.count += 1
            job = new(
                str(self.count),
                model=model,
                priority=priority,
                webhook=webhook,
                body=b"x" * size,
                expires_at=self.now + lives_s,
                created_at=self.now - older_s,
            )
            self.run(self.store.add(job))
            self.model.add(job)

    @rule(
        owner=OWNERS,
        alone=MOSTLY_NOT,
        without=LEFT_OUT,
        then=st.lists(ENDS, min_size=1, max_size=5),
    )
    def work(self, owner: str, alone: bool, without: tuple[str, ...], then: list[str]) -> None:
        """Claim as many, and do something with each; what is left is the owner's still."""
        now, limit = self.now, len(then)
        got = self.run(self.store.claim(owner, now, 0.0, limit, alone=alone, without=without))
        assert got == self.model.claim(owner, now, limit, alone=alone, without=without)
        for each, end in zip(got, then, strict=False):
            self.end(owner, each.job.request_id, end)

    def end(self, owner: str, request_id: str, end: str) -> None:
        now = self.now
        if end == "left":
            return
        if end.startswith("retry"):
            at, counted = now + 3.0, end != "retry uncounted"
            got = self.run(self.store.retry(owner, request_id, BROKEN, at, counted=counted))
            assert got == self.model.retry(owner, request_id, BROKEN, at, now, counted=counted)
            return
        by, done = ("c" if end == "by another" else owner), FAILED if end == "failed" else ENDED
        got = self.run(self.store.finish(by, request_id, done, now))
        assert got == self.model.finish(by, request_id, done, now)

    @rule(owner=OWNERS, then=st.lists(DELIVERIES, min_size=1, max_size=5))
    def send(self, owner: str, then: list[str]) -> None:
        """Claim as many messages, and do something with each."""
        now = self.now
        messages = self.run(self.store.claim_deliveries(owner, now, 0.0, len(then)))
        assert messages == self.model.claim_deliveries(owner, now, len(then))
        for each, end in zip(messages, then, strict=False):
            by, request_id = ("c" if end == "by another" else owner), each.request_id
            if end in {"taken", "by another"}:
                got = self.run(self.store.delivered(by, request_id, now))
                assert got == self.model.delivered(by, request_id, now)
            elif end != "left":
                at, put_off = None if end == "never" else now + 5.0, end == "put off"
                message = (by, request_id, REFUSED, now, at)
                got = self.run(self.store.undelivered(*message, counted=not put_off))
                assert got == self.model.undelivered(*message, counted=not put_off)

    @rule(which=st.integers(1, 20))
    def cancel(self, which: int) -> None:
        got = self.run(self.store.cancel(str(which), self.now))
        assert got == self.model.cancel(str(which), self.now)

    @rule(owner=OWNERS, ours=OURS, step_s=STEPS_S, what=st.sampled_from(HOUSEKEEPING))
    def keep_house(self, owner: str, ours: frozenset[str], step_s: float, what: str) -> None:
        """Time goes on, and something is done that nobody asked for."""
        self.place.clock.now += step_s
        now = self.now
        if what == "expire":
            assert self.run(self.store.expire(now)) == self.model.expire(now)
        elif what == "sweep":
            assert self.run(self.store.sweep(now - 5.0, 99)) == self.model.sweep(now - 5.0, 99)
        elif what == "recover":
            got = self.run(self.store.recover(ours, now, MAX_INTERRUPTIONS))
            assert got == self.model.recover(ours, now, MAX_INTERRUPTIONS)
        elif what == "release":
            self.run(self.store.release(owner))
            self.model.release(owner, now)
        elif what == "restart":
            self.run(self.store.aclose())
            self.store = self.place.store()
            self.run(self.store.open())

    @invariant()
    def same_sums(self) -> None:
        each = [self.model.counts(model) for model in MODELS]
        assert [self.run(self.store.counts(model)) for model in MODELS] == each
        assert self.run(self.store.counts()) == tuple(map(sum, zip(*each, strict=True)))
        assert self.run(self.store.next_at(self.now)) == self.model.next_at(self.now)

    def teardown(self) -> None:
        for number in range(1, self.count + 1):
            entry = self.model.entries.get(str(number))
            record = self.run(self.store.record(str(number)))
            assert record == (None if entry is None else entry.record())
            result = self.run(self.store.result(str(number)))
            assert result == (None if entry is None else entry.result)
        self.run(self.store.aclose())
        self.runner.close()
        shutil.rmtree(self.folder)


def test_sqlite_does_what_the_model_does() -> None:
    run_state_machine_as_test(
        Machine, settings=settings(BOUNDED, max_examples=15, stateful_step_count=40)
    )


def test_postgres_does_what_the_model_does(cluster: Cluster) -> None:
    class OnPostgres(Machine):
        pass

    OnPostgres.cluster = cluster
    run_state_machine_as_test(
        OnPostgres, settings=settings(BOUNDED, max_examples=3, stateful_step_count=40)
    )
