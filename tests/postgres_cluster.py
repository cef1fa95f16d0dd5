"""A PostgreSQL server of the tests' own, reached by a socket in a folder of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

import psycopg

from clients.separate import cannot

USER: Final = "nerve"
PASSWORD: Final = "p w:ä/@1"
"""With what has to be written in another way in a URL."""
PATIENCE_S: Final = 60.0
_SETTINGS: Final = """
listen_addresses = ''
unix_socket_directories = '{folder}'
fsync = off
full_page_writes = off
shared_buffers = 16MB
max_connections = 60
log_min_messages = fatal
"""


class Cluster:
    """Its folder, and the process while it runs."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self._folder = programs, folder
        # it will not be root
        self._user = "postgres" if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self._schemas = 0

    def make(self) -> None:
        """Lay out its files."""
        secret = self._folder / "password"
        secret.write_text(PASSWORD)
        if self._user:
            for path in (self._folder, secret):
                shutil.chown(path, self._user)
        data = self._folder / "data"
        subprocess.run(
            [self._programs / "initdb", "-D", data, "-U", USER, "-A", "scram-sha-256",
             f"--pwfile={secret}", "-E", "UTF8", "--no-locale", "--no-sync", "--no-instructions"],
            check=True, stdout=subprocess.DEVNULL, user=self._user, group=self._user,
            extra_groups=[] if self._user else None, timeout=2 * PATIENCE_S,
        )  # fmt: skip
        with (data / "postgresql.conf").open("a") as settings:
            settings.write(_SETTINGS.format(folder=self._folder))

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self._process = subprocess.Popen(
            [self._programs / "postgres", "-D", self._folder / "data"],
            user=self._user, group=self._user, extra_groups=[] if self._user else None,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                psycopg.connect(self.url()).close()
            except psycopg.OperationalError:
                assert self._process.poll() is None, "PostgreSQL has ended"
                assert time.monotonic() < until, "PostgreSQL does not answer"
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """End it at once; connections break."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(PATIENCE_S)
            self._process = None

    def url(self, schema: str = "public", *, password: str = PASSWORD) -> str:
        """Where it is; tables are in `schema`."""
        login = f"{USER}:{quote(password, safe='')}"
        place = f"host={quote(str(self._folder), safe='')}&options=-csearch_path%3D{schema}"
        return f"postgresql://{login}@/postgres?{place}"

    @property
    def socket(self) -> Path:
        """Where it takes connections."""
        return self._folder / ".s.PGSQL.5432"

    def at(self, url: str, folder: Path) -> str:
        """That URL by a socket in another folder."""
        return url.replace(quote(str(self._folder), safe=""), quote(str(folder), safe=""))

    def new_schema(self) -> str:
        """The URL of a place without tables."""
        self._schemas += 1
        name = f"s{self._schemas}"
        with psycopg.connect(self.url(), autocommit=True) as db:
            db.execute(f"CREATE SCHEMA {name}".encode())
        return self.url(name)


def programs() -> Path:
    """The folder of the newest PostgreSQL's programs; without any, the test cannot be done."""
    found = shutil.which("postgres")
    if found and shutil.which("initdb", path=str(Path(found).resolve().parent)):
        return Path(found).resolve().parent
    debian = list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not debian or (os.geteuid() == 0 and not _is_user("postgres")):
        cannot("PostgreSQL is not installed (Debian's package postgresql)")
    return max(debian, key=lambda each: float(each.parts[-3])).parent


def _is_user(name: str) -> bool:
    try:
        return bool(pwd.getpwnam(name))
    except KeyError:
        return False


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A server until the block ends. Its folder is not pytest's, which only root may enter."""
    found = programs()
    folder = Path(tempfile.mkdtemp(prefix="nerve-postgres-"))
    cluster = Cluster(found, folder)
    try:
        cluster.make()
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder)
