"""Programs that learn: adaptation to a biased distribution of inputs, and repair of corrupted programs.

    python benchmarks/learned_programs.py [--seeds 10] [--quick] [--only adaptation|repair] [--tasks TASK …] [--json]

**Adaptation.** The compiled function of a task (``parity/functions.py``) learns on inputs of a biased distribution: correctness,
halting, efficiency and confidence. What it comes to is discretised, put back into its library and run by the exact
engine, from text to text. A success: fewer steps on 200 new biased inputs, and every answer CPython's. Beside it how many
of 200 inputs of the general distribution it still answers as CPython does, which says what the bias was used for, and
the same learning on the general distribution, which says what needs no bias.

**Repair.** One to four fields of a compiled function are replaced at random, so that it is wrong; it is to be found again
from 32 examples. A success: right on 200 new ones. Random and exhaustive search have the same budget of runs, and give a
program up at the first example that it is wrong on. The adjoint and dense take fewer runs but more time; they have the
iterations given.

Every task and seed has the same settings.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch
from neurallib.modeling_neurallib.machine.adjoint import entries_of
from neurallib.modeling_neurallib.machine.learning import READS, Learned, Objective, judge, learn, search, single_edits
from neurallib.modeling_neurallib.machine.state import MachineError
from parity import functions, tasks

Draw = Callable[[Random], list[Any]]

ADAPTATION = Objective(correctness=1, halting=1, efficiency=1, confidence=1)
REPAIR = Objective(correctness=1, halting=1)
NEW = 200
"""Inputs on which what was learned is tested."""


def numbers(random: Random, size: int) -> list[int]:
    return [random.randint(-9, 9) for _ in range(size)]


def some(random: Random) -> list[int]:
    return numbers(random, random.randint(2, 6))


def searched(random: Random, values: list[int]) -> list[Any]:
    return [values, random.choice(values)]


def listed(random: Random, links: int, place: int | None = None) -> list[Any]:
    """A linked list of so many cells, its head, and a place in it."""
    cells, order = tasks._cells(random, 2 * links, 9)
    return [cells, order[0], random.randrange(links) if place is None else place]


def found_in(random: Random, links: int) -> list[Any]:
    cells, order = tasks._cells(random, 2 * links, 9)
    return [cells, order[0], cells[random.choice(order) + 1]]


@dataclass(frozen=True)
class Case:
    """A task, its general distribution of inputs, and a biased one in words and as a function."""

    task: str
    general: Draw
    bias: str
    biased: Draw


CASES = (
    Case("access", lambda r: searched_place(r), "the place is always 3", lambda r: [numbers(r, 6), 3]),
    Case("bubble_sort", lambda r: [some(r)], "three numbers", lambda r: [numbers(r, 3)]),
    Case("increment", lambda r: [some(r)], "four numbers", lambda r: [numbers(r, 4)]),
    Case(
        "linear_search",
        lambda r: [some(r), r.randint(-9, 9)],
        "the number is there",
        lambda r: searched(r, numbers(r, 5)),
    ),
    Case("list_k", lambda r: listed(r, r.randint(2, 5)), "always the second link", lambda r: listed(r, 5, 2)),
    Case(
        "list_search",
        lambda r: [*listed(r, r.randint(2, 5))[:2], r.randint(-9, 9)],
        "the number is there",
        lambda r: found_in(r, 4),
    ),
    Case(
        "loopy_add",
        lambda r: [r.randint(-9, 9), r.randint(-3, 12)],
        "4 to 12 is added",
        lambda r: [r.randint(-9, 9), r.randint(4, 12)],
    ),
    Case("reverse", lambda r: [some(r)], "four numbers", lambda r: [numbers(r, 4)]),
    Case("swap", lambda r: swapped(r), "places 1 and 3", lambda r: [numbers(r, 5), 1, 3]),
    Case("walk_search_tree", lambda r: tasks._walk(r, 9, 9), "the right child", lambda r: right_child(r)),
)


def searched_place(random: Random) -> list[Any]:
    values = some(random)
    return [values, random.randrange(len(values))]


def swapped(random: Random) -> list[Any]:
    values = some(random)
    return [values, random.randrange(len(values)), random.randrange(len(values))]


def right_child(random: Random) -> list[Any]:
    value = random.randint(-8, 8)
    return [[value, -1, 3, random.randint(value, 9), -1, -1], [1]]


def answered(library: Any, task: str, inputs: list[list[Any]]) -> int:
    """How many inputs a library answers as CPython does, from text to text."""
    runs = library.run_batch(
        [(task, [tasks.printed(each) for each in arguments]) for arguments in inputs], max_steps=10**6
    )
    return sum(run.text == tasks.under_cpython(task, arguments) for run, arguments in zip(runs, inputs, strict=True))


def adapted(case: Case, draw: Draw, seed: int, iterations: int) -> dict[str, Any]:
    """One function, learned on one distribution."""
    function = functions.function(case.task)
    code, config = function.instructions, functions.CONFIG
    given = functions.examples(case.task, draw, 64, f"{case.task} {seed}")
    new = functions.examples(case.task, draw, NEW, f"{case.task} {seed} new")
    limit = int(judge(code, config, given).steps.max() * 1.25) + 4
    began = time.process_time()
    found = learn(
        code, config, given, ADAPTATION, rows=function.rows, iterations=iterations, max_steps=limit, seed=seed
    )
    seconds = time.process_time() - began
    library = function.learned(found)
    random = Random(f"{case.task} {seed} text")
    before, after = (float(judge(program, config, new).steps.mean()) for program in (code, found.instructions))
    right = 0 if library is None else answered(library, case.task, [draw(random) for _ in range(NEW)])
    general = 0 if library is None else answered(library, case.task, [case.general(random) for _ in range(NEW)])
    return {
        "seed": seed,
        "before": before,
        "after": after,
        "right": right,
        "general": general,
        "success": right == NEW and after < before,
        "changed": int((found.instructions != code).any(1).sum()),
        "runs": found.runs,
        "seconds": seconds,
    }


def adaptation(chosen: list[Case], seeds: int, iterations: int, show: bool) -> list[dict[str, Any]]:
    table = []
    if show:
        print(
            f"adaptation, {iterations} iterations, {seeds} seeds; steps are of the best and the median success\n"
            "task               inputs                   P  success   before     best   median  general   no bias"
        )
    for case in chosen:
        runs = [adapted(case, case.biased, seed, iterations) for seed in range(seeds)]
        control = [adapted(case, case.general, seed, iterations) for seed in range(max(1, seeds // 5))]
        good = [run for run in runs if run["success"]]
        saved = [1 - run["after"] / run["before"] if run["success"] else 0.0 for run in control]
        row = {
            "task": case.task,
            "bias": case.bias,
            "instructions": len(functions.function(case.task).instructions) - functions.STUB,
            "success": len(good),
            "of": seeds,
            "before": statistics.mean(run["before"] for run in runs),
            "best": min((run["after"] for run in good), default=None),
            "median": statistics.median(run["after"] for run in good) if good else None,
            "general": statistics.mean(run["general"] for run in good) / NEW if good else None,
            "saved_without_bias": statistics.mean(saved),
            "runs": runs,
            "control": control,
        }
        table.append(row)
        if show:
            figures = " ".join("       –" if row[k] is None else f"{row[k]:8.1f}" for k in ("before", "best", "median"))
            general = "–" if row["general"] is None else f"{row['general']:.0%}"
            print(
                f"{case.task:<18} {case.bias:<22} {row['instructions']:>3}  {row['success']:>4}/{seeds:<3} {figures} "
                f"{general:>8} {row['saved_without_bias']:>9.0%}",
                flush=True,
            )
    return table


def corrupted(code: np.ndarray, rows: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """The program with ``count`` fields, that are read, replaced at random."""
    config, entries = functions.CONFIG, entries_of(code, functions.CONFIG)
    while True:
        edits = random.permutation(single_edits(entries, config, rows))
        used: set[tuple[int, int]] = set()
        wrong = code.copy()
        for row, column, entry in edits:
            jumps = column == 4 and functions._JUMPS[code[row, 0]]
            if (row, column) in used or not READS[code[row, 0], column] or (jumps and entry >= len(code)):
                continue
            word = column == 4 and not jumps and entry >= config.half
            wrong[row, column] = entry - config.values if word else entry
            used.add((int(row), int(column)))
            if len(used) == count:
                break
        # An operation that now jumps may have found a word in place of an address.
        jumps = functions._JUMPS[wrong[:, 0]]
        if ((wrong[jumps, 4] >= 0) & (wrong[jumps, 4] < len(code))).all():
            return wrong


METHODS = ("counterfactual", "random search", "exhaustive search", "adjoint", "dense")


def repaired(task: str, count: int, seed: int, budget: int, methods: tuple[str, ...]) -> dict[str, Any]:
    """One corrupted function, repaired by every method."""
    case = next(each for each in CASES if each.task == task)
    function, config = functions.function(task), functions.CONFIG
    given = functions.examples(task, case.general, 32, f"{task} {seed} repair")
    new = functions.examples(task, case.general, NEW, f"{task} {seed} repaired")
    random = np.random.default_rng([seed, count, len(task)])
    wrong = function.instructions
    while judge_right(wrong, given):
        wrong = corrupted(function.instructions, function.rows, count, random)
    limit = int(judge(function.instructions, config, given).steps.max() * 1.5) + 4
    row: dict[str, Any] = {"task": task, "count": count, "seed": seed}
    for method in methods:
        began = time.process_time()
        found: Learned
        if method.endswith("search"):
            exhaustive = method == "exhaustive search"
            found = search(
                wrong, config, given, budget, rows=function.rows, exhaustive=exhaustive, max_steps=limit, seed=seed
            )
        else:
            iterations = {"counterfactual": 10**6, "adjoint": 300, "dense": 20}[method]
            found = learn(
                wrong, config, given, REPAIR, rows=function.rows, kind=method, iterations=iterations, rate=1.0,
                free=False, max_steps=limit, budget=budget, first=True, seed=seed,
            )  # fmt: skip
        right = found.right and judge_right(found.instructions, new)
        seconds = time.process_time() - began
        row[method] = {"success": right, "fits": found.right, "runs": found.runs, "seconds": seconds}
    return row


def judge_right(instructions: np.ndarray, examples: Any) -> bool:
    try:
        return bool(judge(instructions, functions.CONFIG, examples).right.all())
    except MachineError:
        return False


REPAIRED = ("access", "increment", "linear_search", "loopy_add", "swap")


def repair(seeds: int, budget: int, methods: tuple[str, ...], show: bool) -> list[dict[str, Any]]:
    table = []
    if show:
        print(
            f"repair of {', '.join(REPAIRED)}, {seeds} seeds each, {budget:,} runs; successes, median runs and seconds of "
            "CPU of all\nfields corrupted  method              success        runs   seconds"
        )
    for count in (1, 2, 3, 4):
        rows = [repaired(task, count, seed, budget, methods) for task in REPAIRED for seed in range(seeds)]
        table += rows
        for method in methods if show else ():
            found = [row[method] for row in rows]
            print(
                f"{count:>16}  {method:<18} {sum(each['success'] for each in found):>4}/{len(found):<4}"
                f"{statistics.median(each['runs'] for each in found):>12,.0f} "
                f"{statistics.mean(each['seconds'] for each in found):>9.2f}",
                flush=True,
            )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="of each task; for repair a fifth")
    parser.add_argument("--iterations", type=int, default=200, help="of adaptation")
    parser.add_argument("--budget", type=int, default=300_000, help="runs for each repair")
    parser.add_argument("--only", choices=("adaptation", "repair"))
    parser.add_argument("--tasks", nargs="+", choices=[case.task for case in CASES], metavar="TASK")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS[:3], metavar="METHOD")
    parser.add_argument("--quick", action="store_true", help="two seeds, a quarter of the iterations and of the budget")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds, share = (2, 4) if options.quick else (options.seeds, 1)
    figures: dict[str, Any] = {}
    if options.only != "repair":
        chosen = [case for case in CASES if not options.tasks or case.task in options.tasks]
        figures["adaptation"] = adaptation(chosen, seeds, options.iterations // share, not options.json)
    if options.only != "adaptation":
        figures["repair"] = repair(
            max(1, seeds // 5), options.budget // share, tuple(options.methods), not options.json
        )
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
