from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance import rows, store
from appliance.store import Statement, Store
from images.errors import Busy, GildError
from netboot.node import Node, State
from netboot.order import Order
from netboot.profile import Profile
from netboot.report import Disk, Facts


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "gild.db", tmp_path / "lock")
    yield opened
    opened.close()


def put(number: int) -> Statement:
    return rows.lease_row(
        f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}", f"10.1.{number >> 8}.{number & 255}", 1.0
    )


def count(journal: Store) -> int:
    return int(journal.read("SELECT count(*) FROM leases")[0][0])


def test_a_callback_comes_after_the_commit_and_on_the_loop(journal: Store) -> None:
    async def story() -> None:
        done = asyncio.get_running_loop().create_future()

        def then(error: GildError | None) -> None:
            assert threading.current_thread() is threading.main_thread()
            done.set_result((error, count(journal)))

        journal.submit([put(1)], then)
        assert await asyncio.wait_for(done, 10) == (None, 1)

    asyncio.run(story())


def test_a_thousand_machines_cost_a_handful_of_commits(journal: Store) -> None:
    order: list[int] = []
    held = threading.Event()
    real = journal._transaction
    journal._transaction = lambda statements: (held.wait(10), real(statements))[1]  # type: ignore[method-assign]
    for number in range(1000):
        journal.submit([put(number)], lambda error, number=number: order.append(number))  # type: ignore[misc]
    held.set()
    journal.flush()
    assert count(journal) == 1000 and journal.commits <= 3
    assert order == list(range(1000))


def test_a_bad_batch_costs_nothing_but_itself(journal: Store) -> None:
    errors: list[GildError | None] = []
    held = threading.Event()
    real = journal._transaction
    journal._transaction = lambda statements: (held.wait(10), real(statements))[1]  # type: ignore[method-assign]
    journal.submit([put(1)], errors.append)
    journal.submit([put(2), ("INSERT INTO nowhere VALUES (1)", ())], errors.append)
    journal.submit([put(3)], errors.append)
    held.set()
    journal.flush()
    assert [bool(error) for error in errors] == [False, True, False]
    assert count(journal) == 2


def test_a_write_that_fails_says_so_and_the_next_one_works(journal: Store) -> None:
    with pytest.raises(GildError, match="cannot write the journal"):
        journal.write([("INSERT INTO nowhere VALUES (1)", ())])
    assert "nowhere" in journal.problem
    journal.write([put(1)])
    assert journal.problem == "" and count(journal) == 1


def test_a_journal_that_cannot_keep_up_refuses(journal: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_QUEUED", -1)
    errors: list[GildError | None] = []
    journal.submit([put(1)], errors.append)
    journal.deliver()
    assert errors and "keep up" in str(errors[0])


def test_a_second_server_is_refused_by_name(tmp_path: Path, journal: Store) -> None:
    with pytest.raises(Busy, match=f"process {os.getpid()} serves"):
        Store(tmp_path / "gild.db", tmp_path / "lock")
    journal.close()
    Store(tmp_path / "gild.db", tmp_path / "lock").close()


def test_a_full_disk_is_told_and_outlived(tmp_path: Path, journal: Store) -> None:
    pages = journal._connection.execute("PRAGMA page_count").fetchone()[0]
    journal._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(GildError, match="the disk is full"):
        journal.write([put(number) for number in range(2000)])
    assert count(journal) == 0 and "full" in journal.problem
    journal._connection.execute("PRAGMA max_page_count = 1000000")
    journal.write([put(number) for number in range(2000)])
    assert count(journal) == 2000


WRITER = """
import sys
from pathlib import Path
from appliance import rows
from appliance.store import Store
state = Path(sys.argv[1])
journal = Store(state / "gild.db", state / "lock")
for number in range(100000):
    journal.submit([rows.lease_row(f"m{number}", "10.1.0.1", 1.0)], lambda error, number=number: print(number))
    journal.flush()
    sys.stdout.flush()
"""


@pytest.mark.parametrize("after", [1, 20, 200])
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, after: int) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    said = [int(writer.stdout.readline()) for _ in range(after)]
    writer.send_signal(signal.SIGKILL)
    said += [int(line) for line in writer.stdout.read().split("\n") if line]
    writer.wait()
    journal = Store(tmp_path / "gild.db", tmp_path / "lock")
    kept = {row[0] for row in journal.read("SELECT mac FROM leases")}
    journal.close()
    assert {f"m{number}" for number in said} <= kept


def test_everything_comes_back_as_it_was(journal: Store) -> None:
    facts = Facts(vendor="Ünïcode", disks=(Disk("/dev/sda", 1 << 40, bus="sata"),))
    node = Node(3, State.INSTALLING, 5.5, "n3", ("52:54:00:00:00:01",), phase="writing", done=1 << 45, facts=facts)
    order = Order(9, 3, "c:1", "d" * 64, 1.0, 2.0, tokens=("a", "b"), home_secret="s")
    profile = Profile("compute", "c", cmdline="quiet")
    journal.write([rows.node_row(node), rows.facts_row(3, facts), rows.order_row(order), rows.profile_row(profile),
                   rows.host_keys_row(3, '{"a": "b"}'), put(7)])  # fmt: skip
    assert rows.load_nodes(journal) == [node]
    assert rows.load_orders(journal) == [order]
    assert rows.load_profiles(journal) == [profile]
    assert rows.load_host_keys(journal, 3) == '{"a": "b"}' and rows.load_host_keys(journal, 4) == ""
    assert rows.load_leases(journal) == [("52:54:00:00:00:07", "10.1.0.7", 1.0)]
    journal.write(rows.node_gone(3))
    assert rows.load_nodes(journal) == [] and rows.load_orders(journal) == []


def test_only_the_last_order_of_a_node_is_loaded(journal: Store) -> None:
    journal.write([rows.order_row(Order(number, 3, f"c:{number}", "d", 1.0, 2.0)) for number in (1, 2, 3)])
    assert [order.id for order in rows.load_orders(journal)] == [3]


def test_a_timeline_is_cut_progress_first(journal: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "EVENTS_KEPT", 10)
    levels = ["info", "progress", "log", "bad"] * 5
    journal.write([rows.event_row(n, 1, 0.0, level, "x") for n, level in enumerate(levels)])
    journal.write([rows.event_row(100, 2, 0.0, "progress", "another node's")])
    journal.write([rows.prune_events(1)])
    left = journal.read("SELECT level, count(*) FROM events WHERE node_id = 1 GROUP BY level ORDER BY level")
    assert left == [("bad", 5), ("info", 5)]
    assert journal.read("SELECT count(*) FROM events") == [(11,)]
    journal.write([rows.prune_events(1)])
    assert journal.read("SELECT count(*) FROM events") == [(11,)]


def test_a_row_that_cannot_be_read_is_told_and_not_skipped(journal: Store) -> None:
    journal.write([("INSERT INTO nodes VALUES (1, '', '', '', '{\"id\": \"x\"}')", ())])
    with pytest.raises(GildError, match="holds a node that cannot be read"):
        rows.load_nodes(journal)
