"""The command: many runs, or one of them told."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.runs import Failure, Run


def run_many(first: int, count: int, fine: bool) -> list[tuple[int, str]]:
    """Run ``count`` seeds; return those that failed, and how."""
    failed = []
    for seed in range(first, first + count):
        try:
            Run(seed, fine=fine).go()
        except Failure as failure:
            failed.append((seed, str(failure)))
    return failed


def replay(seed: int, fine: bool) -> int:
    """Run one seed and tell all that happens."""
    try:
        Run(seed, print, fine=fine).go()
    except Failure as failure:
        print(f"\n{failure}")
        return 1
    print(f"\nseed {seed}: nothing wrong")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="how many runs")
    parser.add_argument("--seed", type=int, default=1, help="the first run's seed")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes")
    parser.add_argument("--replay", type=int, metavar="SEED", help="tell one run step by step")
    parser.add_argument("--show", type=int, default=5, help="how many failures to show in full")
    parser.add_argument("--fine", action="store_true", help="threads take turns at every line")
    options = parser.parse_args(argv)
    if options.replay is not None:
        return replay(options.replay, options.fine)
    begun = time.perf_counter()
    starts = range(options.seed, options.seed + options.runs, 250)
    sizes = [min(250, options.seed + options.runs - start) for start in starts]
    fine = [options.fine] * len(starts)
    failed: list[tuple[int, str]] = []
    if options.jobs == 1:
        results = map(run_many, starts, sizes, fine)
        failed = [each for result in results for each in result]
    else:
        with ProcessPoolExecutor(options.jobs) as pool:
            failed = [each for result in pool.map(run_many, starts, sizes, fine) for each in result]
    seconds = time.perf_counter() - begun
    for _, text in failed[: options.show]:
        print(text)
    print(
        f"{options.runs} runs from seed {options.seed} in {seconds:.1f} s "
        f"({seconds / options.runs * 1000:.2f} ms each): {len(failed)} failed"
    )
    if failed:
        print("failed:", *(seed for seed, _ in failed[:100]))
        how = " --fine" if options.fine else ""
        print(f"show one with: python -m tests.simulation{how} --replay {failed[0][0]}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
