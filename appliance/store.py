"""The journal: one SQLite file, one thread that writes it. What the head knows lives in memory; this survives it.

Whatever has gathered while the last commit was on its way to the disk goes into the next one, so a thousand machines
that ask at once cost a handful of disk flushes. `then` callbacks run on the event loop after the commit: an address
is acknowledged, an order shown, only when it is on the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.schema import open_database, trouble
from images.errors import Busy, GildError

log = logging.getLogger("gild.store")

Statement = tuple[str, tuple[Any, ...]]
Then = Callable[[GildError | None], None]
MAX_WAIT = 30.0  # seconds a blocking write may take before it counts as failed
MAX_QUEUED = 20_000  # batches not yet on the disk; past it new ones fail at once rather than fill the memory


@dataclass
class _Batch:
    statements: list[Statement]
    then: Then | None
    done: threading.Event | None = None
    error: GildError | None = None


class Store:
    """Opened by the one serving process. `problem` says why the last write failed, or is empty."""

    def __init__(self, database: Path, lock: Path) -> None:
        """Take the lock, check and open the database, start the writer. Raises Busy if another process serves this
        state directory, and what schema.open_database raises."""
        self.problem = ""
        self.commits = 0
        self._path = database
        self._lock = _take_lock(lock)
        try:
            self._connection = open_database(database)
            self._reader = sqlite3.connect(f"file:{database}?mode=ro", uri=True, check_same_thread=False)
        except BaseException:
            os.close(self._lock)
            raise
        self._queue: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._finished: deque[_Batch] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._write_all, name="gild-journal", daemon=True)
        self._thread.start()

    def submit(self, statements: Iterable[Statement], then: Then | None = None) -> None:
        """Write soon, in order, each batch whole or not at all. `then(error)` is called on the event loop after the
        commit, with None or the reason it failed."""
        batch = _Batch(list(statements), then)
        with contextlib.suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()
        if self._queue.qsize() > MAX_QUEUED:
            batch.error = GildError("the journal does not keep up with its disk")
            self._finished.append(batch)
            self._wake()
            return
        self._queue.put(batch)

    def write(self, statements: Iterable[Statement]) -> None:
        """Write and wait until it is on the disk: for what must not be shown before. Raises NoSpace or
        DatabaseInvalid, and then nothing is written."""
        batch = _Batch(list(statements), None, threading.Event())
        assert batch.done is not None
        self._queue.put(batch)
        if not batch.done.wait(MAX_WAIT):
            raise self._silent()
        self.deliver()
        if batch.error:
            raise batch.error

    async def written(self, statements: Iterable[Statement]) -> None:
        """Like `write`, while the event loop goes on: what many machines wait for at once shares a commit."""
        done: asyncio.Future[GildError | None] = asyncio.get_running_loop().create_future()

        def then(error: GildError | None) -> None:
            if not done.done():
                done.set_result(error)

        self.submit(statements, then)
        try:
            error = await asyncio.wait_for(done, MAX_WAIT)
        except TimeoutError:
            raise self._silent() from None
        if error:
            raise error

    def _silent(self) -> GildError:
        return GildError(f"the disk under {self._path} does not answer", "look at the head node's disk")

    def flush(self) -> None:
        """Wait until everything submitted so far is written, or has failed; run its callbacks."""
        with contextlib.suppress(GildError):
            self.write([])

    def deliver(self) -> None:
        """Run the callbacks of finished batches. The event loop does this by itself."""
        while self._finished:
            batch = self._finished.popleft()
            if batch.then:
                batch.then(batch.error)

    def read(self, sql: str, arguments: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Rows of a SELECT, as last committed. Raises DatabaseInvalid."""
        try:
            return self._reader.execute(sql, arguments).fetchall()
        except sqlite3.Error as error:
            raise trouble(error, f"cannot read the database {self._path}") from None

    def close(self) -> None:
        """Write what is left, close the file, give the lock back. Harmless twice."""
        if self._lock < 0:
            return
        self._queue.put(None)
        self._thread.join(MAX_WAIT)
        self.deliver()
        self._reader.close()
        self._connection.close()
        os.close(self._lock)
        self._lock = -1

    def _write_all(self) -> None:
        running = True
        while running:
            batches: list[_Batch] = []
            first = self._queue.get()
            while True:
                if first is None:
                    running = False
                    break
                batches.append(first)
                try:
                    first = self._queue.get_nowait()
                except queue.Empty:
                    break
            if batches:
                self._commit(batches)
                self._finished.extend(batches)
                self._wake()
                for batch in batches:
                    if batch.done:
                        batch.done.set()

    def _commit(self, batches: list[_Batch]) -> None:
        error = self._transaction([statement for batch in batches for statement in batch.statements])
        if error is None:
            return
        if len(batches) == 1:
            batches[0].error = error
            return
        # One of them may be at fault alone: each for itself, so that a bad one costs nothing but itself.
        for batch in batches:
            batch.error = self._transaction(batch.statements)

    def _transaction(self, statements: list[Statement]) -> GildError | None:
        if not statements:
            return None
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for sql, arguments in statements:
                self._connection.execute(sql, arguments)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            failure = trouble(error, "cannot write the journal")
            if self.problem != failure.message:
                log.error("%s", failure)
            self.problem = failure.message
            return failure
        self.commits += 1
        if self.problem:
            log.warning("the journal can be written again")
            self.problem = ""
        return None

    def _wake(self) -> None:
        loop = self._loop
        if loop is not None and any(batch.then for batch in self._finished):
            # The loop is gone while the process ends; what was submitted is written all the same.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self.deliver)


def _take_lock(path: Path) -> int:
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise trouble(error, f"cannot open {path}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise Busy(
            f"process {holder} serves {path.parent} already", "stop it, or serve another --state directory"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock
