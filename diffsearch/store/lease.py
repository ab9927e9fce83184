"""Who writes in a folder now: a file that names its holder, so that two processes don't do the same work.

A lease saves work; what is right comes from elsewhere (atomic files, first line wins, `check` before each write).

* From a process of this host that is dead it passes at once; while its holder lives, others wait.
* From another host it passes when its heartbeat has stood still for `STALE_S` *as the taker itself saw it*: clocks of
  two hosts are never compared.
* Each taking raises the attempt number; a holder whose number is no longer the file's is refused at its next write.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from diffsearch.errors import StoreError
from diffsearch.files import locked

HEARTBEAT_S = 5.0
STALE_S = 60.0
POLL_S = 0.2


class LeaseHeld(StoreError):
    """Somebody else, alive, holds it."""


class LeaseLost(StoreError):
    """It was taken over while this process thought that it held it; what it was about to write is dropped."""


@dataclass(frozen=True, slots=True)
class Holder:
    """What a lease file says."""

    host: str
    boot_id: str
    pid: int
    pid_started: float  # a pid is used again after a reboot or a wrap; its start time is not
    session: str  # of the driver on whose behalf it is held
    attempt: int
    beat: int  # raised by each heartbeat
    since: float  # Unix time, for people

    def is_here(self) -> bool:
        return self.host == socket.gethostname() and self.boot_id == _boot_id()

    def is_alive(self) -> bool:
        """Only to be asked where `is_here`."""
        try:
            process = psutil.Process(self.pid)
            return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - self.pid_started) < 1
        except psutil.NoSuchProcess:
            return False

    def is_me(self) -> bool:
        return self.is_here() and self.pid == os.getpid()

    def __str__(self) -> str:
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.pid} on {self.host}, since {started}"


class Lease:
    """A held lease. Use it as a context manager; it gives the lease back at the end."""

    def __init__(self, path: Path, holder: Holder) -> None:
        self._path = path
        self._holder = holder
        self._stop = threading.Event()
        self._heart = threading.Thread(target=self._beat, name=f"lease {path.parent.name}", daemon=True)
        self._heart.start()

    @classmethod
    def claim(cls, path: Path, session: str) -> Lease:
        """Take the lease now, or raise LeaseHeld."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with _exclusive(path):
            old = read(path)
            if old is not None and not _may_take(old):
                raise LeaseHeld(str(old))
            me = _me(session, attempt=old.attempt + 1 if old else 1)
            _write(path, me)
        return cls(path, me)

    @classmethod
    def wait_for(cls, path: Path, session: str) -> Lease:
        """Take the lease as soon as it may be taken."""
        seen: tuple[int, int] | None = None  # (attempt, beat) of a holder on another host
        seen_at = time.monotonic()
        while True:
            with contextlib.suppress(LeaseHeld):
                return cls.claim(path, session)
            holder = read(path)
            if holder is not None and not holder.is_here():
                if (holder.attempt, holder.beat) != seen:
                    seen, seen_at = (holder.attempt, holder.beat), time.monotonic()
                elif time.monotonic() - seen_at > STALE_S:
                    release(path, holder)
            time.sleep(POLL_S)

    @classmethod
    def claim_or_watch(cls, path: Path, session: str, note: Callable[[str], None]) -> Lease:
        """As `claim`, but a holder on another host is watched for `STALE_S` first: it may be gone, as after a reboot.

        Args:
            note: told, once, that it is being watched.

        Raises:
            LeaseHeld: somebody lives: a process here, or a heart that was seen to beat.
        """
        watched: Holder | None = None
        began = time.monotonic()
        while True:
            try:
                return cls.claim(path, session)
            except LeaseHeld:
                holder = read(path)
                if holder is not None and holder.is_here():
                    raise
                if holder is not None and watched is None:
                    watched = holder
                    note(f"waiting up to {STALE_S:.0f} s to see whether {holder} is still there")
                elif holder is not None and holder != watched:
                    raise
                elif holder is not None and time.monotonic() - began > STALE_S:
                    release(path, holder)
            time.sleep(POLL_S)

    @property
    def attempt(self) -> int:
        return self._holder.attempt

    def check(self) -> None:
        """Raise LeaseLost unless the file still names this attempt. To be called before each write."""
        current = read(self._path)
        if current is None or (current.attempt, current.pid) != (self._holder.attempt, self._holder.pid):
            raise LeaseLost(f"{self._path.parent}: taken over by {current or 'nobody'}")

    def give_back(self) -> None:
        self._stop.set()
        release(self._path, self._holder)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError), _exclusive(self._path):  # a full disk now may have room at the next beat
                current = read(self._path)
                if current is None or current.attempt != self._holder.attempt or self._stop.is_set():
                    return
                _write(self._path, replace(current, beat=current.beat + 1))


def read(path: Path) -> Holder | None:
    """Who holds it; None for nobody. A file that can't be understood is nobody's: it was torn by a dying process."""
    try:
        plain = json.loads(path.read_bytes())
        return Holder(**plain) if plain.get("pid") else None
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return None
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        return read(path)  # NFS: another host replaced it between our opening and our reading


def release(path: Path, holder: Holder) -> None:
    """Give the lease up on behalf of `holder`, if it still is the holder. The attempt number is kept."""
    with _exclusive(path):
        current = read(path)
        if current is not None and current.attempt == holder.attempt and current.pid == holder.pid:
            _write(path, replace(current, pid_started=-1.0))  # a process that never was: passes at once, on any host


def is_held(path: Path) -> Holder | None:
    """The living holder, or None."""
    holder = read(path)
    return None if holder is None or _may_take(holder) else holder


def _may_take(old: Holder) -> bool:
    if old.pid_started < 0 or old.is_me():
        return True
    return old.is_here() and not old.is_alive()


def _me(session: str, attempt: int) -> Holder:
    pid = os.getpid()
    return Holder(
        host=socket.gethostname(),
        boot_id=_boot_id(),
        pid=pid,
        pid_started=psutil.Process(pid).create_time(),
        session=session,
        attempt=attempt,
        beat=0,
        since=time.time(),
    )


def _boot_id() -> str:
    """What pids count in: this boot, and the namespace of pids, since each container has a process 1 of its own."""
    file, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    boot = file.read_text().strip() if file.exists() else f"{psutil.boot_time():.0f}"
    return f"{boot} {namespace.readlink()}" if namespace.is_symlink() else boot


def _write(path: Path, holder: Holder) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    part.write_text(json.dumps(asdict(holder)))
    part.replace(path)


def _exclusive(path: Path) -> contextlib.AbstractContextManager[None]:
    """Read, decide and write as one step. Held for microseconds, by no child process."""
    return locked(path.with_name(f".{path.name}.lock"))
