"""`run`: claim a study, compute what the store lacks of it, leave a whole history behind."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from diffsearch.data.datasets import class_names
from diffsearch.data.datasets import load as load_data
from diffsearch.errors import StoreError
from diffsearch.files import replace_file
from diffsearch.space.axes import member_at, values_of
from diffsearch.space.settings import StudySpec, as_json, canonical
from diffsearch.store import Lease, LeaseHeld, Store
from diffsearch.study import tracking
from diffsearch.study.conductor import Task
from diffsearch.study.history import StudyFolder
from diffsearch.study.observer import Nobody, Observer
from diffsearch.study.session import Session
from diffsearch.study.sweep import settled
from diffsearch.study.tracker import Tracker

TRACKING_PATIENCE_S = 60.0
SYNCED = "mlflow.synced"


@dataclass(frozen=True, slots=True)
class Summary:
    """What a session did."""

    folder: StudyFolder
    interrupted: bool
    trained_epochs: int
    evaluations: int
    runs: int  # of the study, finalists included
    wall_s: float


@contextlib.contextmanager
def claimed(store: Store, name: str, note: Callable[[str], None]) -> Iterator[Lease]:
    """The lease of a study's folder; a second driver is told who holds it.

    Args:
        note: told where it takes a minute to see that a driver on another host is gone.

    Raises:
        StoreError: somebody else runs this study now.
    """
    try:
        lease = Lease.claim_or_watch(store.study(name) / "lease", "driver", note)
    except LeaseHeld as held:
        raise StoreError(f"study '{name}' is being run by {held}. Wait for it, or end it, then run again.") from None
    with lease:
        yield lease


def run_study(
    spec: StudySpec,
    store: Store,
    *,
    command: str,
    address: str | None = None,
    workers: int | None = None,
    tracking_uri: str | None = None,
    observer: Observer | None = None,
    retry_failed: bool = False,
) -> Summary:
    """Finish a study: compute what the store lacks of it, and nothing else.

    Raises:
        StoreError: another driver holds the study, or the store can't be used.
        DataError, MetricError, ConfigError: the study can't begin; nothing was run.
    """
    observer = observer or Nobody()
    with claimed(store, spec.name, observer.note) as lease:
        observer.phase("reading the data set")
        data = load_data(member_at(spec.fixed, "data"))
        if "class" in values_of(spec, "training.conditioning"):
            class_names(data)  # refuses a data set without labels
        spec = settled(spec, len(data.train))
        session = Session(spec, store, lease, data, observer, command, retry_failed)
        uri = tracking.tracking_uri(store, tracking_uri)
        first = session.conductor.next()
        interrupted = False
        if isinstance(first, Task):
            session.conductor.put_back(first)
            interrupted = _execute(session, address, workers, uri)
        session.note_end_of_search()
        if not interrupted:
            session.compute_bounds()
            _complete_view(session, uri)
        return Summary(
            folder=session.folder,
            interrupted=interrupted,
            trained_epochs=session.progress.trained_epochs,
            evaluations=session.progress.evaluations,
            runs=session.ledger.count(session.conductor.requests.asks),
            wall_s=session.elapsed_s,
        )


def _execute(session: Session, address: str | None, workers: int | None, uri: str) -> bool:
    """Let Ray Tune do what is left; True if Ctrl-C ended it."""
    session.observer.phase("measuring what a score can be")
    session.compute_bounds()
    if workers == 0:
        return _execute_here(session, uri)
    session.observer.phase("starting the workers")
    from diffsearch.study import runner

    with runner.cluster(address, workers):
        if address is not None:
            runner.check_nodes()
        share = runner.share(session.spec, session.data)
        tracker = session.begin(share.workers, uri, share.gpu or 1.0)
        patience_s = TRACKING_PATIENCE_S
        try:
            runner.run(
                session.conductor,
                share,
                listen=session.listen,
                beat=session.beat,
                on_interrupt=lambda times: session.observer.interrupted(times, len(session.progress.running)),
                stopping=session.spec.search.stopping,
            )
        except runner.Interrupted:
            patience_s = 2.0
            return True
        finally:
            session.tick()
            tracker.close(patience_s)
    return False


def _execute_here(session: Session, uri: str) -> bool:
    """As `_execute`, without Ray; a Ctrl-C takes hold between two items."""
    from diffsearch.study import inprocess

    tracker = session.begin(1, uri)
    try:
        inprocess.run(session.conductor, session.listen, session.beat)
    except KeyboardInterrupt:
        return True
    finally:
        session.tick()
        tracker.close(TRACKING_PATIENCE_S)
    return False


def _complete_view(session: Session, uri: str) -> None:
    """Give MLflow what it lacks: runs that a killed session left half told, and the study's own end."""
    mark = session.path / SYNCED
    known = [uri, as_json(session.header), len(session.ledger.ended), session.ledger.wall_s]
    stamp = hashlib.sha256(canonical(known).encode()).hexdigest()
    down = session.tracker is not None and session.tracker.is_down
    if down or (mark.exists() and mark.read_text() == stamp):
        return

    def complete(view: tracking.View) -> None:
        view.catch_up()
        view.study("FINISHED")
        replace_file(mark, stamp.encode())

    Tracker(session.folder, uri, session.observer.note).close(TRACKING_PATIENCE_S, complete)
