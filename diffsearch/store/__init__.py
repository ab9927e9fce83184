"""The store: keys, run folders, leases. The only truth; MLflow and reports are views of it."""

from diffsearch.store.keys import evaluation_key, run_key
from diffsearch.store.lease import Lease, LeaseHeld, LeaseLost
from diffsearch.store.runs import RunFolder, RunRecords, RunStore, Store

__all__ = [
    "Lease",
    "LeaseHeld",
    "LeaseLost",
    "RunFolder",
    "RunRecords",
    "RunStore",
    "Store",
    "evaluation_key",
    "run_key",
]
