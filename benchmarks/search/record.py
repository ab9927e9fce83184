"""`python -m benchmarks.search.record STORE STUDY.yaml OUT.parquet`: a study's complete runs as one table."""

from __future__ import annotations

import sys
from pathlib import Path

from diffsearch.data.datasets import load as load_data
from diffsearch.scoring.metrics import measure
from diffsearch.space.axes import grid_size, member_at
from diffsearch.space.load import load
from diffsearch.space.metric_names import parse
from diffsearch.store import Store
from diffsearch.study.recording import Recording, record

LICENCE = "CC0 1.0 for the measurements; the digits that they were made with are not in the table."


def main(store: Path, study: Path, out: Path) -> Recording:
    """Write what the store has of the study, and print what that is."""
    spec = load(study)
    measures = {metric: measure(parse(metric)) for metric in spec.evaluation.metrics}
    recording = record(spec, Store.open(store), load_data(member_at(spec.fixed, "data")), measures, LICENCE)
    recording.write(out)
    frame = recording.frame
    ends = frame.groupby("run").agg(
        train_s=("train_s", "max"), sampling_s=("sampling_s", "sum"), s=("scoring_s", "sum")
    )
    diverged = frame[frame["outcome"] == "diverged"]["run"].nunique()
    points = frame.groupby([axis.path for axis in spec.axes], dropna=False)["seed"].nunique()
    seeds = ", ".join(
        f"{(points >= n).sum()} of {grid_size(spec)} points with ≥ {n}" for n in range(1, spec.repeats + 1)
    )
    print(f"{out}: {len(frame):,} rows, {len(ends):,} runs ({diverged} diverged), {out.stat().st_size / 1024:,.0f} KiB")
    print(f"seeds: {seeds}")
    print(
        f"worker hours: {ends['train_s'].sum() / 3600:.2f} training, {ends['sampling_s'].sum() / 3600:.2f} sampling, ",
        end="",
    )
    print(f"{ends['s'].sum() / 3600:.2f} scoring")
    return recording


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
