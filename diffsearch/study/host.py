"""What a driver asks of the machine that it runs on: out-of-memory kills, left-over folders, Ctrl-C."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

TEMP = "/tmp"  # Ray's socket paths must stay short


def memory_mb() -> float:
    """Memory of this machine, or of the control group that this process lives in where that is less."""
    total = psutil.virtual_memory().total
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
            total = min(total, int(Path(name).read_text()))
    return total / 2**20


def oom_kills() -> int:
    """Processes of this machine's control group that the kernel ended for want of memory."""
    for name in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        with contextlib.suppress(OSError):
            found = re.search(r"^oom_kill (\d+)", Path(name).read_text(), re.MULTILINE)
            if found:
                return int(found.group(1))
    return 0


def reap_folders() -> None:
    """Remove the temporary folders of drivers that were killed."""
    for folder in Path(TEMP).glob("ds[0-9]*-*"):
        pid = re.match(r"ds(\d+)-", folder.name)
        if pid and not psutil.pid_exists(int(pid.group(1))):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def on_sigint(handler: Callable[[int, types.FrameType | None], None]) -> Iterator[None]:
    """Handle Ctrl-C so, for the while of a block; only a main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
