"""`python -m benchmarks search-quality TABLE`: which search finds how much for what, as docs/search_quality.md."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.search import figures
from benchmarks.search.answer import Answer, times_to
from benchmarks.search.reuse import Count, counts
from benchmarks.search.searches import GP, Bench, Search, every, scaled
from diffsearch.files import replace_file
from diffsearch.space.metric_names import parse
from diffsearch.study.replay import Replays, study
from diffsearch.study.traces import at, band

PAGE = Path(__file__).with_name("page.md")
WORKERS = (1, 10, 100, 1000)
FEW = 10  # replays of each search on each number of workers
SHARES = (0.2, 0.5, 1.0, 2.0, 5.0)  # of sequential's compute
FIFTH, FEWER_EPOCHS = 1 / 5, 4.8  # targets: of sequential's compute; by reuse (Li et al. 2020, Hippo, for one study)


def write(
    bench: Bench,
    document: Path,
    searches: Sequence[Search],
    workers: Sequence[int],
    reuse: Sequence[Count],
    note: Callable[[str], object],
) -> None:
    """Replay what isn't kept yet, draw, and write the document with its figures under `pictures/` beside it."""
    spec = study(bench.recording)
    sign = 1.0 if parse(spec.evaluation.objective).direction == "min" else -1.0
    alone = bench.traces(Search("sequential", "none", "none"), note)
    targets = [trace[-1].best for trace in alone.traces]
    answers = [Answer.of(bench.traces(search, note), targets, sign) for search in searches]
    kept = [answer for answer in answers if answer.traces.search.reuse == "keys"]
    quickest = min(kept, key=_quickness)
    spread = min((answer for answer in kept if answer.traces.search.algorithm != "gp"), key=_quickness)
    compared = list(dict.fromkeys([Search("sequential", "none"), Search("grid", "asha"), spread.traces.search]))
    few = replace(bench, seeds=min(FEW, bench.seeds))
    scaling = {search: [few.traces(each, note) for each in scaled(search, workers)] for search in compared}
    middles = {
        search: [float(np.median(times_to(each, targets[: few.seeds], sign, "simulated_s"))) for each in all_traces]
        for search, all_traces in scaling.items()
    }
    pictures = document.parent / "pictures"
    replace_file(pictures / "search_quality.png", figures.best_so_far(answers, spec.evaluation.objective))
    replace_file(pictures / "search_scaling.png", figures.scaling(middles, workers))
    own = Answer.of(alone, targets, sign)
    share = quickest.to_target_s / own.worker_s
    text = PAGE.read_text().format(
        space=_space(bench),
        direction=f"{spec.evaluation.objective}, {'lower' if sign > 0 else 'higher'} is better",
        seeds=bench.seeds,
        pictures=pictures.name,
        searches=_searches(answers, own),
        shares=_after(answers, own),
        quickest=quickest.traces.search.label,
        quickest_time=_duration(quickest.to_target_s),
        sequential_time=_duration(own.worker_s),
        quickest_share=_share(share),
        compute_verdict=_verdict(share <= FIFTH),
        shipped_factor=f"{reuse[0].factor:.2f}×",
        reuse_verdict=_verdict(reuse[0].factor >= FEWER_EPOCHS),
        reuse=_reuse(reuse),
        scaling=_scaling(middles, workers),
        few=few.seeds,
        gp=GP,
    )
    replace_file(document, text.encode())


def _quickness(answer: Answer) -> tuple[float, float]:
    return answer.to_target_s, answer.worker_s


# --- tables ---------------------------------------------------------------------------------------------------------


def _space(bench: Bench) -> str:
    spec, seeds = study(bench.recording), bench.recording.frame["seed"].nunique()
    points = Replays(bench.recording, spec).points
    return f"{points:,} points; recorded training seeds: {seeds}; epochs {', '.join(map(str, spec.milestones))}"


def _searches(answers: Sequence[Answer], own: Answer) -> str:
    head = ["search", "reuse", "trials", "best at the end", "worth", "workers' time", "to the target"]
    head += ["of sequential's", "reached by", "a replay takes"]
    rows = []
    for answer in answers:
        search, (iqm, low, high) = answer.traces.search, answer.final
        rows.append(
            [
                search.label,
                "by key" if search.reuse == "keys" else "alone",
                "all" if search.trials is None else f"{search.trials:,}",
                f"{iqm:.4g} [{low:.4g}, {high:.4g}]",
                f"{answer.worth:.4g}",
                _duration(answer.worker_s),
                _duration(answer.to_target_s),
                _share(answer.to_target_s / own.worker_s),
                f"{answer.share:.0%}",
                f"{answer.traces.seconds:.1f} s",
            ]
        )
    return _table(head, rows)


def _after(answers: Sequence[Answer], own: Answer) -> str:
    """A row a search by key: the interquartile mean of its best score after so much of sequential's compute."""
    head = ["search", *(f"{share:g} × sequential's" for share in SHARES)]
    rows = []
    for answer in answers:
        if answer.traces.search.reuse == "keys":
            found = band(at(answer.traces.traces, np.array(SHARES) * own.worker_s))
            cells = zip(found.iqm, found.low, found.high, strict=True)
            rows.append(
                [answer.traces.search.label, *(f"{iqm:.3g} [{low:.3g}, {high:.3g}]" for iqm, low, high in cells)]
            )
    return _table(head, rows)


def _reuse(found: Sequence[Count]) -> str:
    head = ["study", "epochs, each row alone", "executed", "fewer by"]
    return _table(head, [[c.what, f"{c.alone:,}", f"{c.executed:,}", f"{c.factor:.2f}×"] for c in found])


def _scaling(middles: Mapping[Search, Sequence[float]], workers: Sequence[int]) -> str:
    rows = [[search.label, *map(_duration, times)] for search, times in middles.items()]
    return _table(["workers", *(f"{count:,}" for count in workers)], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "not by half"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _share(share: float) -> str:
    return f"{share:.2g}" if math.isfinite(share) else "–"


def _verdict(met: bool) -> str:
    return "Met." if met else "Not met."


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks search-quality", description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--trials", type=int, default=150, help="of random and TPE")
    parser.add_argument("--gp-trials", type=int, default=30, help="of the Gaussian process, whose proposals cost most")
    parser.add_argument("--cache", type=Path, default=Path(".search-quality"), help="where traces are kept")
    parser.add_argument("--out", type=Path, default=Path("docs/search_quality.md"))
    given = parser.parse_args(arguments)
    bench = Bench(given.table, given.cache, given.seeds, given.jobs)
    searches = every(given.trials, given.gp_trials)
    write(bench, given.out, searches, WORKERS, counts(), lambda text: print(text, file=sys.stderr, flush=True))
    print(given.out)
