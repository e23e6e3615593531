import multiprocessing
import os
import signal
import socket
import time

import pytest
from filelock import Timeout

from ddpo_lib.base import locks
from ddpo_lib.base.locks import lease

spawn = multiprocessing.get_context("spawn")
SHORT = 1.5  # seconds


def hold(path, held) -> None:
    locks.LEASE = SHORT
    with lease(path):
        held.set()
        time.sleep(60)


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "LEASE", SHORT)
    return tmp_path / "deep" / "a.lock"


@pytest.fixture
def holder(path):
    """A process that holds the lock."""
    held = spawn.Event()
    process = spawn.Process(target=hold, args=(path, held))
    process.start()
    assert held.wait(60)
    yield process
    process.kill()
    process.join(60)


def test_one_process_holds_it_for_longer_than_the_lease(path, holder):
    with pytest.raises(Timeout):
        lease(path).acquire(timeout=3 * SHORT)


def test_a_killed_process_on_this_machine_holds_it_no_longer(path, holder):
    holder.kill()
    holder.join(60)
    start = time.monotonic()
    with lease(path):
        assert time.monotonic() - start < SHORT


def test_the_lock_of_a_machine_that_died_is_taken_over_after_the_lease(path, holder):
    os.kill(holder.pid, signal.SIGSTOP)  # it renews the lock no more
    record = path.read_bytes()
    assert socket.gethostname().encode() in record
    path.write_bytes(record.replace(socket.gethostname().encode(), b"another-machine"))
    start = time.monotonic()
    with lease(path):
        assert SHORT <= time.monotonic() - start < 4 * SHORT


def test_a_holder_whose_lock_was_taken_ends(path, holder):
    path.unlink()
    holder.join(20)
    assert holder.exitcode == -signal.SIGTERM
