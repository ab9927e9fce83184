"""Leases: who may take one, and when."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from diffsearch.store import Lease, LeaseHeld, LeaseLost
from diffsearch.store import lease as leases


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lease"


def in_another_process(path, until=None):
    """Claim the lease in a process that then dies without a word, or waits for its pipe to close."""
    ready, say_ready = os.pipe()
    child = os.fork()
    if child == 0:
        Lease.claim(path, "another")
        os.write(say_ready, b"!")
        if until is not None:
            os.close(until[1])
            os.read(until[0], 1)
        os._exit(9)
    os.read(ready, 1)
    os.close(ready), os.close(say_ready)
    return child


def foreign(path, **changes):
    """A lease file as a process on another host leaves it."""
    with Lease.claim(path, "x"):
        held = json.loads(path.read_text())
    path.write_text(json.dumps({**held, "host": "elsewhere", "boot_id": "b", "pid": 7, "pid_started": 1.0, **changes}))


def wait_until(condition, deadline_s=20.0):
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        threading.Event().wait(0.005)


def test_nobody_holds_a_new_lease_and_each_taking_raises_the_attempt(path):
    assert leases.read(path) is None and leases.is_held(path) is None
    for attempt in (1, 2, 3):
        with Lease.claim(path, "me") as lease:
            assert lease.attempt == attempt
            lease.check()
            assert leases.read(path).pid == os.getpid()
    assert leases.is_held(path) is None


def test_a_living_process_keeps_it_and_a_dead_one_loses_it_at_once(path):
    until = os.pipe()
    child = in_another_process(path, until)
    with pytest.raises(LeaseHeld, match=rf"process {child} on "):
        Lease.claim(path, "me")
    assert leases.is_held(path).pid == child
    os.close(until[1])
    os.waitpid(child, 0)
    began = time.monotonic()
    with Lease.wait_for(path, "me") as lease:
        assert lease.attempt == 2 and time.monotonic() - began < leases.POLL_S + 1


def test_a_zombie_is_dead(path):
    child = in_another_process(path)
    wait_until(lambda: leases.is_held(path) is None)  # it has ended, and nobody has waited for it yet
    Lease.claim(path, "me").give_back()
    os.waitpid(child, 0)


def test_a_pid_that_is_used_again_is_not_the_holder(path):
    with Lease.claim(path, "me"):
        held = json.loads(path.read_text())
    path.write_text(json.dumps({**held, "pid": 1, "pid_started": 5.0}))  # process 1 began later than that
    Lease.claim(path, "me").give_back()


def test_a_boot_later_nobody_holds_it_here(path, monkeypatch):
    """After a reboot the boot id differs: the holder is judged as one of another host, by its heartbeat."""
    foreign(path, host=leases.socket.gethostname())
    monkeypatch.setattr(leases, "STALE_S", 0.05)
    monkeypatch.setattr(leases, "POLL_S", 0.01)
    Lease.wait_for(path, "me").give_back()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="namespaces of pids are Linux's")
def test_a_process_of_another_container_is_judged_by_its_heartbeat(path):
    """It may have this host's name and boot id, as under Ray; its pid means nothing here."""
    with Lease.claim(path, "x"):
        held = leases.read(path)
    there = held.boot_id.replace(str(Path("/proc/self/ns/pid").readlink()), "pid:[1]")
    foreign(path, host=held.host, boot_id=there, pid=os.getpid())
    with pytest.raises(LeaseHeld):
        Lease.claim(path, "me")
    dead_here = path.with_name("another")
    foreign(dead_here, host=held.host, boot_id=held.boot_id)
    Lease.claim(dead_here, "me").give_back()


def test_a_heartbeat_from_another_host_keeps_it(path, monkeypatch):
    """Staleness counts from beats that the taker itself saw: while they rise it waits, however old they claim to be."""
    foreign(path, since=0.0)
    with pytest.raises(LeaseHeld, match="on elsewhere, since 1970"):
        Lease.claim(path, "me")
    monkeypatch.setattr(leases, "STALE_S", 1.0)
    monkeypatch.setattr(leases, "POLL_S", 0.01)
    taken = []
    waiter = threading.Thread(target=lambda: taken.append(Lease.wait_for(path, "me")), daemon=True)
    waiter.start()
    began, beat = time.monotonic(), 0
    while time.monotonic() - began < 1.5:  # half as long again as makes one stale
        beat += 1
        held = json.loads(path.read_text())
        assert held["host"] == "elsewhere"
        leases._write(path, leases.Holder(**{**held, "beat": beat}))
        threading.Event().wait(0.05)
    assert not taken
    waiter.join(20)  # no beat any more
    assert taken[0].attempt == leases.read(path).attempt == 2
    taken[0].give_back()


def test_a_driver_on_another_host_is_watched_and_replaced_if_it_is_gone(path, monkeypatch):
    """After a reboot, or in a new container, the study must go on: nobody else would ever free its lease."""
    foreign(path)
    monkeypatch.setattr(leases, "STALE_S", 0.05)
    monkeypatch.setattr(leases, "POLL_S", 0.01)
    notes = []
    with Lease.claim_or_watch(path, "driver", notes.append) as lease:
        assert lease.attempt == 2
    assert len(notes) == 1 and "process 7 on elsewhere" in notes[0]


def test_a_driver_on_another_host_is_left_alone_if_its_heart_beats(path, monkeypatch):
    foreign(path)
    monkeypatch.setattr(leases, "POLL_S", 0.01)

    def beat(_note):
        held = json.loads(path.read_text())
        path.write_text(json.dumps({**held, "beat": held["beat"] + 1}))

    with pytest.raises(LeaseHeld, match="on elsewhere"):
        Lease.claim_or_watch(path, "driver", beat)


def test_a_driver_that_lives_here_is_not_waited_for(path):
    until = os.pipe()
    child = in_another_process(path, until)
    with pytest.raises(LeaseHeld, match=f"process {child} on "):
        Lease.claim_or_watch(path, "driver", pytest.fail)
    os.close(until[1])
    os.waitpid(child, 0)


def test_a_holder_beats(path, monkeypatch):
    monkeypatch.setattr(leases, "HEARTBEAT_S", 0.01)
    with Lease.claim(path, "me") as lease:
        wait_until(lambda: leases.read(path).beat >= 3)
        lease.check()


def test_a_lease_that_was_taken_is_refused_and_beats_no_more(path, monkeypatch):
    monkeypatch.setattr(leases, "HEARTBEAT_S", 0.01)
    first = Lease.claim(path, "a")
    second = Lease.claim(path, "b")
    with pytest.raises(LeaseLost, match="taken over by process"):
        first.check()
    wait_until(lambda: not first._heart.is_alive())
    second.check()
    first.give_back()  # gives up nothing that isn't its own
    second.check()
    second.give_back()


def test_a_lease_whose_file_is_gone_is_lost(path):
    lease = Lease.claim(path, "me")
    path.unlink()
    with pytest.raises(LeaseLost, match="nobody"):
        lease.check()
    lease.give_back()


def test_a_lease_that_another_host_replaces_while_it_is_read_is_read_again(path, monkeypatch):
    """NFS says so with ESTALE."""
    Lease.claim(path, "me").give_back()
    read, faults = Path.read_bytes, [errno.ESTALE, errno.ESTALE]

    def read_bytes(self):
        if faults:
            raise OSError(faults.pop(), "as NFS says it")
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert leases.read(path).attempt == 1 and not faults
    faults.append(errno.EIO)
    with pytest.raises(OSError, match="as NFS says it"):
        leases.read(path)


def test_a_file_system_without_locks_does_for_a_lease(path, monkeypatch):
    def flock(_file, _how):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with Lease.claim(path, "me") as lease:
        lease.check()
    assert leases.read(path).attempt == 1 and leases.is_held(path) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"pid": 1}', "null"])
def test_a_torn_lease_file_is_nobodys(path, content):
    path.write_text(content)
    assert leases.read(path) is None
    Lease.claim(path, "me").give_back()


def test_of_many_that_want_it_one_has_it_at_a_time(path, monkeypatch):
    """Eight processes raise a counter that has no lock of its own."""
    monkeypatch.setattr(leases, "POLL_S", 0.001)
    counter = path.with_name("counter")
    counter.write_text("0")
    children = []
    for _ in range(8):
        child = os.fork()
        if child == 0:
            for _ in range(5):
                with Lease.wait_for(path, "x"):
                    counter.write_text(str(int(counter.read_text()) + 1))
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    assert counter.read_text() == "40" and leases.read(path).attempt == 40
