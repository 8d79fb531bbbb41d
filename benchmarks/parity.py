"""The fourteen tasks of Adaptive Neural Compilation (arXiv 1605.07969): equal to CPython on which engines, and how fast.

    python benchmarks/parity.py [--rounds 3] [--tasks TASK …] [--no-dense] [--json]

On ``exact``, native and portable, at 1,000 words of data, ten times that paper's largest memory, V = 2**31; forward on
``adjoint`` at 1,000 words on V = N = 32,768 and on 3 to 4 words, there like ``dense`` (tables and circuits) on V = N = 128.
CPython is the oracle of every run; the time is the median of the rounds, each on another random input. Steps are those of
the last.

Backward on ``adjoint`` at the sizes whose memory has a gradient of at most 2 GiB, on the smallest V = N that holds the run:
of the last character of the result, by the text at the start. Whole, and damped by 0, blind to control flow: either the
greatest entry is shown, or after how many steps back it overflows, which must be said by a ``GradientError``.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import torch
from neurallib.modeling_neurallib.machine.state import GradientError
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


def pulled_back(task: tasks.Task, arguments: list[Any], damping: float) -> dict[str, Any]:
    """How far the adjoint's gradient comes, seconds forward and backward together, and the machine's size."""
    config = tasks.smallest(task.name, arguments)
    found: dict[str, Any] = {"size": task.backward, "values": config.values}
    began = time.perf_counter()
    try:
        gradient, steps = tasks.gradient(task.name, arguments, config, damping)
        found |= {"steps": steps, "greatest": float(np.abs(gradient).max())}
    except GradientError as error:
        said = re.search(r"at step \d+ of (\d+), (\d+) steps back", str(error))
        if said is None:
            raise
        found |= {"steps": int(said[1]), "overflows after": int(said[2])}
    return found | {"seconds": time.perf_counter() - began}


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
        middle = [task.draw(random, task.tenfold, 99) for _ in range(options.rounds)]
        backward = task.draw(random, task.backward, 9)
        row: dict[str, Any] = {
            "task": task.name,
            "size": task.tenfold,
            "instructions": len(tasks.library_of(task.name).instructions),
            "native": measured(lambda a, name=task.name: tasks.exact(name, a, False), large, task.name),
            "portable": measured(lambda a, name=task.name: tasks.exact(name, a, True), large, task.name),
            "adjoint at size": measured(
                lambda a, name=task.name: tasks.adjoint(name, a, tasks.TENFOLD), middle, task.name
            ),
            "adjoint, backward": pulled_back(task, backward, 1.0),
            "adjoint, backward, blind": pulled_back(task, backward, 0.0),
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
                print(f"{'task':<18} {'size':>5} {'instructions':>13}  {'engine':<24} {'equal':>7} {'steps':>12} {'seconds':>11}")
            head = f"{task.name:<18} {{:>5,}} {row['instructions']:>13}  {{:<24}}"
            at_size = ("native", "portable", "adjoint at size")
            for engine in (*at_size, "adjoint", "dense, tables", "dense, circuits"):
                if engine in row:
                    found, size = row[engine], task.tenfold if engine in at_size else task.small
                    line = f" {found['equal']:>3}/{found['of']:<3} {found['steps']:>12,} {found['seconds']:>11.4f}"
                    print(head.format(size, engine) + line, flush=True)
            for engine in ("adjoint, backward", "adjoint, backward, blind"):
                found = row[engine]
                line = f" {'':>7} {found['steps']:>12,} {found['seconds']:>11.4f}  V = N = {found['values']:,}: "
                if "greatest" in found:
                    line += f"at most {found['greatest']:.3g}"
                else:
                    line += f"overflows after {found['overflows after']:,} steps back, reported"
                print(head.format(found["size"], engine) + line, flush=True)
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
