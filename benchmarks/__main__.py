"""`python -m benchmarks [overhead|throughput|scoring|plan|honesty|search.reuse ...]`: print each as a markdown table.

`python -m benchmarks search-quality TABLE` writes docs/search_quality.md from a recorded table.
"""

from __future__ import annotations

import importlib
import os
import sys

os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")

NAMES = ("overhead", "throughput", "scoring", "plan", "honesty", "search.reuse")


def main() -> None:
    if sys.argv[1:2] == ["search-quality"]:
        from benchmarks.search.quality import main as search_quality

        search_quality(sys.argv[2:])
        return
    from diffsearch.study.facts import environment

    wanted = sys.argv[1:] or list(NAMES)
    facts = environment()
    print(f"{facts['device']} · torch {facts['torch']} · ray {facts['ray']} · mlflow {facts['mlflow']}\n")
    for name in wanted:
        module = importlib.import_module(f"benchmarks.{name}")
        print(f"### {name}\n\n{(module.__doc__ or '').splitlines()[0]}\n\n| what | measured |\n|---|---|")
        for what, measured in module.rows():
            print(f"| {what} | {measured} |", flush=True)
        print()


if __name__ == "__main__":
    main()
