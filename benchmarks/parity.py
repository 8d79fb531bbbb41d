"""The fourteen tasks of Adaptive Neural Compilation (arXiv 1605.07969): equal to CPython on which engines, and how fast.

    python benchmarks/parity.py [--rounds 3] [--tasks TASK …] [--no-dense] [--json]

On ``exact``, native and portable, at 1,000 words of data, ten times that paper's largest memory, V = 2**31; on ``dense``
(tables and circuits) and ``adjoint``, forward, on machines of V = N = 128. CPython is the oracle of every run; the time
is the median of the rounds, each on another random input. Steps are those of the last.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from random import Random
from typing import Any

import torch
from parity import tasks


def measured(run: Callable[[Any], Any], inputs: list[list[Any]], task: str, warm: bool = True) -> dict[str, Any]:
    """Seconds, steps, and whether all results are CPython's. With ``warm`` the first input is run once before, to compile."""
    if warm:
        run(inputs[0])
    seconds, equal = [], 0
    for arguments in inputs:
        began = time.perf_counter()
        found = run(arguments)
        seconds.append(time.perf_counter() - began)
        equal += found.text == tasks.under_cpython(task, arguments)
    return {"equal": equal, "of": len(inputs), "seconds": statistics.median(seconds), "steps": found.steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tasks", nargs="+", choices=[task.name for task in tasks.TASKS], metavar="TASK")
    parser.add_argument("--no-dense", action="store_true", help="leave out the dense engine, the slowest")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for task in tasks.TASKS:
        if options.tasks and task.name not in options.tasks:
            continue
        random = Random(f"{task.name} {options.seed}")
        large = [task.draw(random, task.tenfold, 10**6) for _ in range(options.rounds)]
        small = [task.draw(random, task.small, 9) for _ in range(options.rounds)]
        row: dict[str, Any] = {
            "task": task.name,
            "size": task.tenfold,
            "instructions": len(tasks.library_of(task.name).instructions),
            "native": measured(lambda a, name=task.name: tasks.exact(name, a, False), large, task.name),
            "portable": measured(lambda a, name=task.name: tasks.exact(name, a, True), large, task.name),
            "small size": task.small,
            "adjoint": measured(lambda a, name=task.name: tasks.adjoint(name, a), small, task.name),
        }
        if not options.no_dense:
            for unit in ("tables", "circuits"):
                row[f"dense, {unit}"] = measured(
                    lambda a, name=task.name, unit=unit: tasks.dense(name, a, arithmetic=unit),
                    small[:1],
                    task.name,
                    warm=False,
                )
        rows.append(row)
        if not options.json:
            if len(rows) == 1:
                print("task                size  instructions  engine            equal       steps     seconds")
            for engine in ("native", "portable", "adjoint", "dense, tables", "dense, circuits"):
                if engine in row:
                    found, size = row[engine], task.tenfold if engine in ("native", "portable") else task.small
                    print(
                        f"{task.name:<18} {size:>5,} {row['instructions']:>13}  {engine:<16} {found['equal']:>3}/{found['of']:<3}"
                        f"{found['steps']:>12,} {found['seconds']:>11.4f}",
                        flush=True,
                    )
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
