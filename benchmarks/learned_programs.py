"""Programs that learn: adaptation to a biased distribution of inputs, and repair of corrupted programs.

    python benchmarks/learned_programs.py [--seeds 10] [--processes 6] [--output FILE] [--quick]
        [--only adaptation|repair] [--tasks TASK …] [--json]

**Adaptation.** The compiled function of a task (``parity/functions.py``) learns on inputs of a biased distribution: correctness,
halting, efficiency and confidence. What it comes to is discretised, put back into its library and run by the exact
engine, from text to text. A success: fewer steps on 200 new biased inputs, and every answer CPython's. Beside it how many
of 200 inputs of the general distribution it still answers as CPython does, which says what the bias was used for;
the same learning on the general distribution, judged on the same biased inputs, which says what needs no bias; and random
search for programs of fewer steps with the same budget of runs, which says what needs no gradient.

**Repair.** One to four fields of a compiled function are replaced at random, so that it is wrong; it is to be found again
from 32 examples. A success: right on 200 new ones. *walk* goes from program to program along the counterfactual gradient,
*counterfactual* follows it in soft weights. Random and exhaustive search have the same budget of runs, and give a
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
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from neurallib.modeling_neurallib.machine.adjoint import entries_of
from neurallib.modeling_neurallib.machine.learning import Learned, Objective, judge, learn
from neurallib.modeling_neurallib.machine.operations import READS
from neurallib.modeling_neurallib.machine.program_search import search, single_edits, walk
from neurallib.modeling_neurallib.machine.state import MachineError
from parity import functions, tasks

Draw = Callable[[Random], list[Any]]

ADAPTATION = Objective(correctness=1, halting=1, efficiency=1, confidence=1)
REPAIR = Objective(correctness=1, halting=1)
NEW = 200
"""Inputs on which what was learned is tested."""
GIVEN = 4_096
"""Inputs on which adaptation learns: a program that saves steps and is wrong on one in a thousand is soon found."""


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
    Case("access", lambda r: searched_place(r), "the place is 3", lambda r: [numbers(r, 6), 3]),
    Case("bubble_sort", lambda r: [some(r)], "sorted already", lambda r: [sorted(some(r))]),
    Case("bubble_sort", lambda r: [some(r)], "three numbers", lambda r: [numbers(r, 3)]),
    Case("increment", lambda r: [some(r)], "one number", lambda r: [numbers(r, 1)]),
    Case(
        "linear_search",
        lambda r: [some(r), r.randint(-9, 9)],
        "the number is there",
        lambda r: searched(r, numbers(r, 5)),
    ),
    Case("list_k", lambda r: listed(r, r.randint(2, 5)), "the second link", lambda r: listed(r, 5, 2)),
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
    Case("reverse", lambda r: [some(r)], "two or three numbers", lambda r: [numbers(r, r.randint(2, 3))]),
    Case("swap", lambda r: swapped(r), "places 1 and 3", lambda r: [numbers(r, 5), 1, 3]),
    Case("walk_search_tree", lambda r: tasks._walk(r, 9, 9), "the right child", lambda r: right_child(r)),
)
TASKS = tuple(dict.fromkeys(case.task for case in CASES))


def searched_place(random: Random) -> list[Any]:
    values = some(random)
    return [values, random.randrange(len(values))]


def swapped(random: Random) -> list[Any]:
    values = some(random)
    return [values, random.randrange(len(values)), random.randrange(len(values))]


def right_child(random: Random) -> list[Any]:
    value = random.randint(-8, 8)
    return [[value, -1, 3, random.randint(value, 9), -1, -1], [1]]


def answered(library: Any, task: str, inputs: list[list[Any]]) -> tuple[int, float]:
    """How many inputs a library answers as CPython does, from text to text, and the mean steps, reading and printing included."""
    runs = library.run_batch(
        [(task, [tasks.printed(each) for each in arguments]) for arguments in inputs], max_steps=10**6
    )
    right = sum(run.text == tasks.under_cpython(task, arguments) for run, arguments in zip(runs, inputs, strict=True))
    return right, statistics.mean(run.steps for run in runs)


def adapted(case: Case, control: bool, seed: int, iterations: int) -> dict[str, Any]:
    """One function, learned on the biased distribution of a case, and by search beside it; or on the general distribution."""
    function = functions.function(case.task)
    code, config = function.instructions, functions.CONFIG
    draw = case.general if control else case.biased
    given = functions.examples(case.task, draw, GIVEN, f"{case.task} {seed}")
    limit = int(judge(code, config, given).steps.max() * 1.25) + 4
    began = time.process_time()
    found = learn(
        code, config, given, ADAPTATION, rows=function.rows, iterations=iterations, max_steps=limit, seed=seed
    )
    row = {"seed": seed, **judged(case, seed, found), "seconds": time.process_time() - began}
    if not control:
        began = time.process_time()
        found = search(code, config, given, found.runs, rows=function.rows, fewest=True, max_steps=limit, seed=seed)
        row["search"] = {**judged(case, seed, found), "seconds": time.process_time() - began}
    return row


def judged(case: Case, seed: int, found: Learned) -> dict[str, Any]:
    """What was learned, on new inputs of the biased distribution: steps of the function, and answers from text to text."""
    function = functions.function(case.task)
    new = functions.examples(case.task, case.biased, NEW, f"{case.task} {seed} new")
    before, after = (
        float(judge(program, functions.CONFIG, new).steps.mean())
        for program in (function.instructions, found.instructions)
    )
    random = Random(f"{case.task} {seed} text")
    biased, general = ([drawn(random) for _ in range(NEW)] for drawn in (case.biased, case.general))
    library, right, answered_general, whole = function.learned(found), 0, 0, None
    if library is not None:
        right, whole = answered(library, case.task, biased)
        answered_general, _ = answered(library, case.task, general)
    success = right == NEW and after < before
    return {
        "before": before,
        "after": after,
        "whole_before": answered(function.library, case.task, biased)[1],
        "whole_after": whole,
        "right": right,
        "general": answered_general,
        "success": success,
        "saved": 1 - after / before if success else 0.0,
        "changes": [] if library is None else [f"{each.before} → {each.after}" for each in library.changes()],
        "runs": found.runs,
    }


def adaptation(
    chosen: list[Case], seeds: int, iterations: int, pool: Executor, done: Callable[[list[dict[str, Any]]], None]
) -> list[dict[str, Any]]:
    """The table, a row for each case; ``done`` is given its rows as they come."""
    waiting = [
        [
            [pool.submit(_job, CASES.index(case), control, seed, iterations) for seed in range(seeds)]
            for control in (0, 1)
        ]
        for case in chosen
    ]
    table: list[dict[str, Any]] = []
    for case, futures in zip(chosen, waiting, strict=True):
        runs, controls = ([future.result() for future in each] for each in futures)
        good = [run for run in runs if run["success"]]
        row = {
            "task": case.task,
            "bias": case.bias,
            "instructions": len(functions.function(case.task).instructions) - functions.STUB,
            "success": len(good),
            "of": seeds,
            "before": statistics.mean(run["before"] for run in runs),
            "after": statistics.mean(run["after"] for run in good) if good else None,
            "best": min((run["after"] for run in good), default=None),
            "saved": statistics.mean(run["saved"] for run in runs),
            "saved_without_bias": statistics.mean(run["saved"] for run in controls),
            "saved_by_search": statistics.mean(run["search"]["saved"] for run in runs),
            "general": statistics.mean(run["general"] for run in good) / NEW if good else None,
            "runs": runs,
            "control": controls,
        }
        table.append(row)
        done(table)
    return table


def _job(case: int, control: int, seed: int, iterations: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    return adapted(CASES[case], bool(control), seed, iterations)


def shown_adaptation(row: dict[str, Any]) -> str:
    steps = " ".join("      –" if row[key] is None else f"{row[key]:7.1f}" for key in ("before", "after", "best"))
    general = "–" if row["general"] is None else f"{row['general']:.0%}"
    return (
        f"{row['task']:<17} {row['bias']:<21} {row['instructions']:>3} {row['success']:>5}/{row['of']:<3} {steps} "
        f"{row['saved']:>6.0%} {row['saved_without_bias']:>8.0%} {row['saved_by_search']:>7.0%} {general:>8}"
    )


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


METHODS = ("walk", "counterfactual", "random search", "exhaustive search", "adjoint", "dense")


def repaired(task: str, count: int, seed: int, budget: int, methods: tuple[str, ...]) -> dict[str, Any]:
    """One corrupted function, repaired by every method."""
    torch.set_num_threads(1)
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
        if method == "walk":
            found = walk(wrong, config, given, REPAIR, budget, rows=function.rows, max_steps=limit, seed=seed)
        elif method.endswith("search"):
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
        seconds = time.process_time() - began
        right = found.right and judge_right(found.instructions, new)
        row[method] = {"success": right, "fits": found.right, "runs": found.runs, "seconds": seconds}
    return row


def judge_right(instructions: np.ndarray, examples: Any) -> bool:
    try:
        return bool(judge(instructions, functions.CONFIG, examples).right.all())
    except MachineError:
        return False


def repair(
    chosen: list[str],
    seeds: int,
    budget: int,
    methods: tuple[str, ...],
    pool: Executor,
    done: Callable[[list[dict[str, Any]]], None],
) -> list[dict[str, Any]]:
    """All repairs; ``done`` is given them when those of so many fields are complete."""
    waiting = [
        [pool.submit(repaired, task, count, seed, budget, methods) for task in chosen for seed in range(seeds)]
        for count in (1, 2, 3, 4)
    ]
    table: list[dict[str, Any]] = []
    for futures in waiting:
        table += [future.result() for future in futures]
        done(table)
    return table


def shown_repair(rows: list[dict[str, Any]], methods: tuple[str, ...]) -> str:
    """The lines of one number of corrupted fields."""
    lines = []
    for method in methods:
        found = [row[method] for row in rows]
        right, fits = (sum(each[key] for each in found) for key in ("success", "fits"))
        lines.append(
            f"{rows[0]['count']:>16}  {method:<18} {right:>4}/{len(found):<4} {fits:>6} "
            f"{statistics.median(each['runs'] for each in found):>12,.0f} "
            f"{statistics.mean(each['seconds'] for each in found):>8.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="of each task; for repair half as many")
    parser.add_argument("--iterations", type=int, default=500, help="of adaptation")
    parser.add_argument("--budget", type=int, default=3_000_000, help="runs for each repair")
    parser.add_argument("--only", choices=("adaptation", "repair"))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS, metavar="TASK")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS[:4], metavar="METHOD")
    parser.add_argument("--processes", type=int, default=1, help="at a time")
    parser.add_argument("--output", help="a file for the figures as JSON, written anew after each row")
    parser.add_argument("--quick", action="store_true", help="two seeds, a tenth of the iterations and of the budget")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    share = 10 if options.quick else 1
    seeds, methods = 2 if options.quick else options.seeds, tuple(options.methods)
    iterations, budget = options.iterations // share, options.budget // share
    figures: dict[str, Any] = {"seeds": seeds, "iterations": iterations, "budget": budget}

    def show(text: str) -> None:
        if not options.json:
            print(text, flush=True)

    def keep(name: str, table: list[dict[str, Any]], text: str) -> None:
        figures[name] = table
        show(text)
        if options.output:
            Path(options.output).write_text(json.dumps(figures, ensure_ascii=False) + "\n")

    with ProcessPoolExecutor(options.processes) as pool:
        pool.submit(repaired, "loopy_add", 1, 0, 1_000, methods).result()  # so that what is compiled is found compiled
        if options.only != "repair":
            show(
                f"adaptation, {iterations} iterations on {GIVEN:,} examples, {seeds} seeds; steps of the mean "
                "and the best success;\nsaved: of all seeds, a failure saves nothing; right: of general inputs\n"
                "task              inputs                  P  success  before   after    best  saved  no bias  search    right"
            )
            chosen = [case for case in CASES if case.task in options.tasks]
            adaptation(
                chosen, seeds, iterations, pool,
                lambda table: keep("adaptation", table, shown_adaptation(table[-1])),
            )  # fmt: skip
        if options.only != "adaptation":
            show(
                f"repair of {', '.join(options.tasks)}, {max(1, seeds // 2)} seeds each, {budget:,} runs;\n"
                "right on new inputs, right on the examples, median runs and mean seconds of CPU of all\n"
                "fields corrupted  method               success   fits         runs  seconds"
            )
            repair(
                list(options.tasks), max(1, seeds // 2), budget, methods, pool,
                lambda table: keep(
                    "repair", table, shown_repair([row for row in table if row["count"] == table[-1]["count"]], methods)
                ),
            )  # fmt: skip
    if options.json:
        print(json.dumps(figures, ensure_ascii=False))


if __name__ == "__main__":
    main()
