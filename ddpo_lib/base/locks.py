"""A lock that processes on several machines can hold on any shared file system, and that outlives none of them."""

import logging
import os
import signal
from pathlib import Path

from filelock import LeaseCompromise, SoftFileLease

log = logging.getLogger(__name__)

LEASE = 120.0  # seconds without a sign of life after which a lock is taken from a process on another machine


def lease(path: Path) -> SoftFileLease:
    """A lock to hold with `with`. A process that waits takes it over if the holder dies, also with its machine.

    It is a file that the holder renews, so it needs no locks of the file system, which NFS and Lustre may lack. A dead
    holder on the same machine is noticed at once, one on another machine after `LEASE` seconds. A holder that was
    stopped for so long, and whose lock was taken, ends: two processes must not write to one folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return SoftFileLease(path, lease_duration=LEASE, poll_interval=0.1, on_compromise=_end)


def _end(loss: LeaseCompromise) -> None:
    log.error("%s: another process took this lock over (%s), so this one ends", loss.lock_file, loss.reason)
    os.kill(os.getpid(), signal.SIGTERM)
