"""What could go from a store: what no study there asks for. Nothing that somebody holds a lease on is touched."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffsearch.cli.places import SHORT_KEY, folders
from diffsearch.store import Lease, LeaseHeld, RunFolder, Store
from diffsearch.store import lease as leases

PART_AGE_S = 600.0  # a half-written file younger than this may be in the making on another host
EPOCH = re.compile(r"epoch-(\d+)\.safetensors")


@dataclass(frozen=True)
class Rubbish:
    """Something that could go."""

    path: Path
    bytes: int
    words: str
    run: str | None  # key of the run that it belongs to


@dataclass(frozen=True)
class Found:
    """What `gc` has to say."""

    rubbish: tuple[Rubbish, ...]
    left_alone: tuple[str, ...]  # sentences on what is in use


@dataclass
class _Wanted:
    """What the studies of a store ask of one run."""

    every_epoch: bool = False
    milestones: frozenset[int] = frozenset()
    last_only: frozenset[int] = frozenset()  # milestones of studies that keep only the last


def collect(store: Store) -> Found:
    """Look at every run; deletes nothing.

    A run is asked for by any form of a study's file, also one that it had earlier. While a study is being run, it may
    ask for any run at any time: then no whole run could go.
    """
    wanted, left_alone = _wanted(store), list[str]()
    running = [folder.name for folder in folders(store) if leases.is_held(folder.path / "lease")]
    if running:
        left_alone.append(f"whole runs, since {', '.join(running)} is being run and may ask for them")
    rubbish: list[Rubbish] = []
    for path in sorted((store.root / "runs").iterdir()):
        run = RunFolder(path.name, path)
        if leases.is_held(path / "lease"):
            left_alone.append(f"run {run.key[:SHORT_KEY]}, which is being worked on")
        elif run.key not in wanted:
            if not running:
                rubbish.append(
                    Rubbish(path, _size(path), f"run {run.key[:SHORT_KEY]}, which no study asks for", run.key)
                )
        else:
            rubbish += _checkpoints(run, wanted[run.key])
            rubbish += _parts(path, run.key)
    for other in (store.root, store.references, *(folder.path for folder in folders(store))):
        rubbish += _parts(other, None)
    return Found(tuple(rubbish), tuple(left_alone))


def remove(store: Store, found: Found) -> tuple[int, int]:
    """Delete it, each run's under its lease. Returns bytes freed, and how many things came into use meanwhile."""
    freed = refused = 0
    for each in found.rubbish:
        try:
            if each.run is None:
                _delete(each.path)
            else:
                folder = store.run(each.run).path
                with Lease.claim(folder / "lease", "gc"):
                    for path in [each.path] if each.path != folder else _but_the_lease(folder):
                        _delete(path)
                if each.path == folder:
                    _delete(folder)
            freed += each.bytes
        except LeaseHeld:
            refused += 1
    return freed, refused


def _but_the_lease(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name not in ("lease", ".lease.lock")]


def _wanted(store: Store) -> dict[str, _Wanted]:
    wanted: dict[str, _Wanted] = {}
    for folder in folders(store):
        keep = _keep(folder.header.text)
        if keep == "last" and folder.header.screen is not None:
            keep = "milestones"  # what is scored in full isn't known before the search is over; then the study lets go
        for asked in folder.ledger.asked:
            each = wanted.setdefault(asked.run_key, _Wanted())
            each.every_epoch |= keep == "all"
            if keep == "last" and folder.ledger.end_of(asked) is not None:
                each.last_only |= set(asked.milestones)
            else:
                each.milestones |= set(asked.milestones)
    return wanted


def _keep(text: str) -> str:
    """The study file's `keep:`; every checkpoint where the file can't be read."""
    import yaml

    try:
        plain: Any = yaml.safe_load(text)
    except yaml.YAMLError:
        return "all"
    return str(plain.get("keep") or "milestones") if isinstance(plain, dict) else "all"


def _checkpoints(run: RunFolder, wanted: _Wanted) -> Iterator[Rubbish]:
    if wanted.every_epoch:
        return
    files = {int(match[1]): path for path in run.path.iterdir() if (match := EPOCH.fullmatch(path.name))}
    last = max((epoch for epoch in files if epoch in wanted.last_only), default=None)
    for epoch, path in sorted(files.items()):
        if epoch in wanted.milestones or epoch == last:
            continue
        why = "no study keeps it" if epoch in wanted.last_only else "no study asks for that epoch"
        yield Rubbish(path, _size(path), f"run {run.key[:SHORT_KEY]}, checkpoint of epoch {epoch}: {why}", run.key)


def _parts(folder: Path, run: str | None) -> Iterator[Rubbish]:
    """Files that a killed process left half-written."""
    if not folder.is_dir():
        return
    for path in sorted(folder.glob(".*.part")):
        if time.time() - path.stat().st_mtime > PART_AGE_S:
            yield Rubbish(path, _size(path), f"{path.relative_to(folder.parent)}, half-written", run)


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
