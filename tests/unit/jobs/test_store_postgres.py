"""A store that servers share: whose a request is, and a database that comes and goes."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psycopg
import pytest
import uvloop

from job_stores import ENDED, HOOK, LEASE_S, Place, claimed, new, sent
from nerve.config.server import ServerConfig
from nerve.errors import StoreFailed, StoreUnavailable
from nerve.jobs.postgres_sql import MIGRATIONS
from nerve.jobs.records import Counts, JobStore
from nerve.jobs.stores import new_job_store
from postgres_cluster import PASSWORD, Cluster

PATIENCE_S = 60.0


@asynccontextmanager
async def servers(url: str, count: int) -> AsyncIterator[list[JobStore]]:
    """Stores in the same tables, which they all make sure of at the same time."""
    stores = [Place(Path(), url).store() for _ in range(count)]
    async with AsyncExitStack() as stack:
        for each in stores:
            stack.push_async_callback(each.aclose)
        await asyncio.gather(*(each.open() for each in stores))
        yield stores


async def test_a_request_is_claimed_once(cluster: Cluster) -> None:
    """However many servers ask at the same moment; nothing is left."""
    async with servers(cluster.new_schema(), 3) as stores:
        for first in range(0, 60, 20):
            await asyncio.gather(
                *(stores[0].add(new(str(first + each), webhook=HOOK)) for each in range(20))
            )
        taken = await asyncio.gather(
            *(claimed(store, f"owner {number}", limit=5)
              for _ in range(6) for number, store in enumerate(stores))
        )  # fmt: skip
        assert all(store.shared for store in stores)
        ids = [request_id for some in taken for request_id in some]
        assert len(ids) == len(set(ids))
        rest = await claimed(stores[0], "owner 0")  # what another had locked just then
        assert {*ids, *rest} == {str(each) for each in range(60)}
        assert await stores[1].counts() == Counts(0, 60, 60, 960)


async def test_a_message_is_claimed_once(cluster: Cluster) -> None:
    async with servers(cluster.new_schema(), 2) as stores:
        for number in range(20):
            await stores[0].add(new(str(number), webhook=HOOK))
        for request_id in await claimed(stores[0]):
            await stores[0].finish("a", request_id, ENDED, 115.0)
        taken = await asyncio.gather(
            *(sent(store, f"owner {number}", limit=3)
              for _ in range(4) for number, store in enumerate(stores))
        )  # fmt: skip
        ids = [request_id for some in taken for request_id in some]
        assert len(ids) == len(set(ids))


async def test_a_lease_keeps_others_away_until_it_ends(cluster: Cluster) -> None:
    """By the database's clock: what servers think of the time is of no matter."""
    async with servers(cluster.new_schema(), 2) as (store, other):
        await store.add(new("1"))
        assert await claimed(store, "a", lease_s=0.0) == ["1"]
        await store.renew("a", 110.0, LEASE_S)
        assert await other.recover(frozenset({"b"}), 1e9, 3) == (0, 0)
        await store.renew("b", 110.0, 0.0)
        assert await other.recover(frozenset({"b"}), 1e9, 3) == (0, 0)
        await store.renew("a", 110.0, 0.0)
        assert await other.recover(frozenset({"b"}), 120.0, 3) == (1, 0)
        assert await claimed(other, "b") == ["1"]
        assert not await store.finish("a", "1", ENDED, 130.0)
        await store.release("a")
        assert await other.finish("b", "1", ENDED, 130.0)


class Relay:
    """Stands between a server and the database; can swallow the answer to a claim."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self._here, self._there = folder / ".s.PGSQL.5432", cluster.socket
        self.swallow = False
        self._serving: set[asyncio.Task[None] | None] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        server = await asyncio.start_unix_server(self._serve, self._here)
        try:
            yield
        finally:
            server.close()
            await asyncio.gather(*filter(None, self._serving))

    async def _serve(self, up: asyncio.StreamReader, up_to: asyncio.StreamWriter) -> None:
        self._serving.add(asyncio.current_task())
        down, down_to = await asyncio.open_unix_connection(self._there)
        back = asyncio.create_task(self._pass(down, up_to))
        while asked := await up.read(2**16):
            if swallowed := self.swallow and b"claim_id" in asked:
                self.swallow = False
                back.cancel()
                await asyncio.wait({back})
            down_to.write(asked)
            if swallowed:
                await down.readuntil(b"UPDATE")  # it was done
                break
        back.cancel()
        await asyncio.wait({back})
        for each in (up_to, down_to):
            each.close()

    async def _pass(self, source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        while got := await source.read(2**16):
            to.write(got)
        to.close()


async def test_a_claim_that_was_not_heard_of_is_not_kept_for_ever(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Its owner works on nothing of it, so it does not renew it, and finds it as others do."""
    url = cluster.new_schema()
    relay = Relay(tmp_path, cluster)
    async with relay.running(), servers(cluster.at(url, tmp_path), 1) as (store,):
        await store.add(new("lost"))
        relay.swallow = True
        with pytest.raises(StoreFailed):
            await claimed(store, "a", lease_s=0.0)
        assert await store.counts() == Counts(0, 1, 1, 16)
        await store.add(new("heard of"))
        assert await claimed(store, "a") == ["heard of"]
        await store.renew("a", 120.0, LEASE_S)
        assert await store.recover(frozenset({"a"}), 120.0, 3) == (1, 0)
        assert await claimed(store, "a") == ["lost"]


async def test_it_goes_on_when_the_database_is_back(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests that were accepted are there, and none of the errors tells the password."""
    caplog.set_level(logging.DEBUG)
    async with servers(cluster.new_schema(), 1) as (store,):
        await asyncio.gather(*(store.add(new(str(number))) for number in range(9)))
        cluster.stop()
        with pytest.raises(StoreFailed) as failed:
            await store.add(new("lost"))
        cluster.start()
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    await store.add(new("next"))
                    break
                except StoreFailed as error:
                    failed.value.args += error.args
        assert (await store.counts()).queued == 10
    assert PASSWORD not in caplog.text
    assert PASSWORD not in str(failed.value.args)


async def test_connections_that_ended_meanwhile_fail_nothing(cluster: Cluster) -> None:
    """They were idle; it is seen before they are used."""
    url = cluster.new_schema()
    async with servers(url, 1) as (store,):
        await asyncio.gather(*(store.add(new(str(number))) for number in range(9)))
        with psycopg.connect(url, autocommit=True) as db:
            ended = db.execute(
                "SELECT count(pg_terminate_backend(pid, 60000)) FROM pg_stat_activity "
                "WHERE application_name = 'nerve'"
            ).fetchone()
        assert ended is not None
        assert ended[0] > 0
        for number in range(9):
            await store.add(new(f"after {number}"))


async def test_a_database_that_cannot_be_used(cluster: Cluster, tmp_path: Path) -> None:
    """Each tells which and why, without the password."""
    for url, why in [
        (cluster.url(password="s3cret-wrong"), "password authentication failed"),
        (cluster.at(cluster.url(), tmp_path), "No such file or directory"),
        ("postgresql://me:s3cret%zz@localhost/x", "it is no URL of a PostgreSQL database"),
    ]:
        with pytest.raises(StoreUnavailable) as error:
            await Place(tmp_path, url).store().open()
        assert why in str(error.value)
        assert str(error.value).startswith("--async-store postgresql://")
        assert PASSWORD not in str(error.value)
        assert "s3cret" not in str(error.value)


async def test_a_newer_server_s_tables_are_left_alone(cluster: Cluster) -> None:
    url = cluster.new_schema()
    async with servers(url, 1):
        pass
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("UPDATE nerve_schema SET version = version + 1")
    with pytest.raises(StoreUnavailable, match=f"their schema is {len(MIGRATIONS) + 1}"):
        await Place(Path(), url).store().open()


def test_it_runs_on_the_servers_event_loop(cluster: Cluster) -> None:
    async def main() -> None:
        store = new_job_store(ServerConfig(async_store=cluster.new_schema()))
        await store.open()
        await asyncio.gather(*(store.add(new(str(number))) for number in range(20)))
        assert len(await claimed(store)) == 20
        await store.aclose()

    uvloop.run(main())


def test_without_its_driver_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nerve.jobs.postgres_store", "nerve.jobs.postgres"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    config = ServerConfig(async_store="postgresql://me:s3cret@db/x")
    with pytest.raises(StoreUnavailable, match=r"pip install 'nerve-server\[postgres\]'") as error:
        new_job_store(config)
    assert "s3cret" not in str(error.value)
