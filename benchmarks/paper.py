"""The paper's three experiments, first edition, on a small Llama trained from scratch, one core a run.

    python benchmarks/paper.py arithmetic [--values 32] [--learners …] [--seeds 5] [--seconds 30] [--processes 8]
    python benchmarks/paper.py sorting    [--numbers 16] …
    python benchmarks/paper.py recursion  [--depths 2 4 6 8] …
    … [--rates 1e-3 2e-3 4e-3] [--start copying|random] [--quick] [--output FILE.json] [--plot FILE.png]

- **arithmetic**: ``a + b =``, ``a - b =``, ``a * b =`` in words modulo V, with tables and with circuits.
- **sorting**: lists in ascending or descending order, trained on 1 to 8 numbers, tested on up to 64.
- **recursion**: ``n , k =`` → F(n) + k modulo V by recursive Fibonacci, n up to a depth.

A fifth of all examples is held out, by a hash of what they ask, and every test is on these. Errors of the learners with the
computer are split: the program selected wrongly; otherwise an argument read wrongly (a list as a multiset, and its length);
otherwise executed wrongly, the head included.

Every learner has the same backbone, start, data and processor time (``small_llama.py``, which also says what the learners
are). Several ``--rates``: each learner's is the one that did best on two seeds that are not counted, on the first of the
tasks, with half of the time. Figures are means over seeds and, in brackets, the worst and the best seed.

Source: arXiv 2407.04899, experiments.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from exact_engine import INSERTION_SORT, instruction
from neurallib.configuration.machine_config import MachineConfig
from neurallib.modeling_neurallib.categorical_reader import Arithmetic, CategoricalCall
from neurallib.modeling_neurallib.machine.operations import CODES
from small_llama import BASELINES, CONTROLS, ESTIMATORS, Batch, Start, Task, held_out, test, train
from torch import Tensor

_ADDRESSED = [CODES[name] for name in ("jump", "jump_if_zero", "jump_if_not_zero", "call")]


def moved(code: Sequence[Sequence[int]], places: int) -> list[tuple[int, ...]]:
    """Instructions to be put so many addresses further on."""
    return [(*row[:4], row[4] + places * (row[0] in _ADDRESSED)) for row in code]


def drawn(candidates: Tensor, count: int, wanted: bool, key: Tensor) -> Tensor:
    """The first ``count`` of the candidates that are held out, or are not."""
    chosen = candidates[held_out(key) == wanted][:count]
    if len(chosen) < count:
        raise ValueError(f"{len(candidates)} candidates gave {len(chosen)} examples, {count} were wanted")
    return chosen


class Arithmetic3:
    """``a ∘ b =`` for +, −, × modulo V. Words: the operation, a, b."""

    # r1 operation, r2 and r3 operands, r4 condition and result
    CODE = (
        instruction("load", 1, 0, immediate=0),
        instruction("load", 2, 0, immediate=1),
        instruction("load", 3, 0, immediate=2),
        instruction("jump_if_zero", a=1, immediate=9),
        instruction("equal_immediate", 4, 1, immediate=1),
        instruction("jump_if_not_zero", a=4, immediate=11),
        instruction("multiply", 4, 2, 3),
        instruction("store", a=0, b=4, immediate=3),  # 7
        instruction("halt"),
        instruction("add", 4, 2, 3),  # 9
        instruction("jump", immediate=7),
        instruction("subtract", 4, 2, 3),  # 11
        instruction("jump", immediate=7),
    )

    def __init__(self, values: int):
        self.values, self.vocabulary = values, values + 4
        self.alternatives, self.selects, self.sizes = [3, values, values], 1, [1]
        self.tokens: list[int | None] = [None, 0, 0]

    def call(self, arithmetic: Arithmetic, size: int | None) -> CategoricalCall:
        config = MachineConfig(values=self.values, memory=4, registers=6, call_depth=1, max_steps=12)
        return CategoricalCall(np.array(self.CODE), config, range(3), [3], arithmetic=arithmetic)

    def batch(self, count: int, size: int, held_out: bool, generator: torch.Generator) -> Batch:
        wide = torch.randint(self.values, (16 * count, 3), generator=generator)
        wide[:, 0] %= 3
        words = drawn(wide, count, held_out, wide)
        sign = self.values + words[:, :1]
        equals = torch.full_like(sign, self.values + 3)
        calls = torch.cat([sign, words[:, 1:]], dim=1)
        return Batch(
            torch.cat([words[:, 1:2], sign, words[:, 2:], equals], dim=1), self.execute(calls, 1), words, calls
        )

    def execute(self, calls: Tensor, length: int) -> Tensor:
        sign, a, b = calls.unbind(1)
        outcomes = torch.stack([a + b, a - b, a * b], dim=1) % self.values
        operation = sign - self.values
        good = (operation >= 0) & (operation < 3) & (a < self.values) & (b < self.values)
        answers = outcomes.gather(1, operation.clamp(0, 2)[:, None])
        return torch.where(good[:, None], answers, -1)

    def same_reading(self, words: Tensor, true: Tensor) -> Tensor:
        return (words == true).all(-1)


def descending(code: np.ndarray) -> list[list[int]]:
    """The insertion sort with its one comparison the other way round: ``key < neighbour`` → ``neighbour < key``."""
    rows = code.tolist()
    at = rows.index(list(instruction("less_than", 7, 4, 6)))
    rows[at] = list(instruction("less_than", 7, 6, 4))
    return rows


class Sorting:
    """``< x1 … xn =`` ascending, ``>`` descending. Words: the direction, n, the numbers. Answers: n and the sorted numbers."""

    LONGEST = 64
    CODE = (
        instruction("load", 8, 0, immediate=0),
        instruction("load", 1, 0, immediate=1),
        instruction("constant", 0, immediate=2),
        instruction("jump_if_not_zero", a=8, immediate=4 + len(INSERTION_SORT)),
        *moved(INSERTION_SORT.tolist(), 4),
        *moved(descending(INSERTION_SORT), 4 + len(INSERTION_SORT)),
    )

    def __init__(self, numbers: int, values: int = 128, largest: int = 8):
        self.numbers, self.values, self.vocabulary = numbers, values, values + 3
        self.alternatives = [2, self.LONGEST + 1, *[numbers] * self.LONGEST]
        self.tokens: list[int | None] = [None, None, *[0] * self.LONGEST]
        self.selects, self.sizes = 1, list(range(1, largest + 1))

    def call(self, arithmetic: Arithmetic, size: int | None) -> CategoricalCall:
        words = 2 + (self.LONGEST if size is None else size)
        steps = 20 + 20 * words + 4 * words * words
        # A length of 64 is a positive integer on V = 256 only; the program is the same.
        values = self.values if size else 2 * self.values
        config = MachineConfig(values=values, memory=words, registers=12, call_depth=1, max_steps=steps)
        return CategoricalCall(np.array(self.CODE), config, range(words), range(1, words), arithmetic=arithmetic)

    def batch(self, count: int, size: int, held_out: bool, generator: torch.Generator) -> Batch:
        wide = torch.randint(self.numbers, (16 * count, 1 + size), generator=generator)
        wide[:, 0] %= 2
        chosen = drawn(wide, count, held_out, torch.cat([wide[:, :1], wide[:, 1:].sort(-1).values], dim=1))
        direction = self.values + chosen[:, :1]
        many, equals = torch.full_like(direction, size), torch.full_like(direction, self.values + 2)
        calls = torch.cat([direction, many, chosen[:, 1:]], dim=1)
        words = torch.cat([chosen[:, :1], many, chosen[:, 1:]], dim=1)
        return Batch(torch.cat([direction, chosen[:, 1:], equals], dim=1), self.execute(calls, 1 + size), words, calls)

    def execute(self, calls: Tensor, length: int) -> Tensor:
        answers = torch.full((len(calls), length), -1)
        for row, (direction, many, *numbers) in zip(answers, calls.tolist(), strict=True):
            if 0 <= direction - self.values < 2 and many == len(numbers) and max(numbers) < self.values:
                row[:] = torch.tensor([many, *sorted(numbers, reverse=direction > self.values)])
        return answers

    def same_reading(self, words: Tensor, true: Tensor) -> Tensor:
        many = true.shape[1] - 1
        same = words[:, 1 : 1 + many].sort(-1).values == true[:, 1:].sort(-1).values
        return (words[:, 0] == true[:, 0]) & same.all(-1)


class Recursion:
    """``n , k =`` → F(n) + k modulo V, by recursive Fibonacci. Words: n, k."""

    # r1 n, r2 the stack pointer, r3 the result, r4 a condition
    CODE = (
        instruction("load", 1, 0, immediate=0),
        instruction("constant", 2, immediate=3),
        instruction("call", immediate=7),
        instruction("load", 5, 0, immediate=1),
        instruction("add", 3, 3, 5),
        instruction("store", a=0, b=3, immediate=2),
        instruction("halt"),
        instruction("less_immediate", 4, 1, immediate=2),  # 7: r3 ← F(r1)
        instruction("jump_if_zero", a=4, immediate=11),
        instruction("move", 3, 1),
        instruction("return"),
        instruction("store", a=2, b=1, immediate=0),  # 11
        instruction("add_immediate", 2, 2, immediate=1),
        instruction("add_immediate", 1, 1, immediate=-1),
        instruction("call", immediate=7),
        instruction("load", 1, 2, immediate=-1),
        instruction("store", a=2, b=3, immediate=-1),
        instruction("add_immediate", 1, 1, immediate=-2),
        instruction("call", immediate=7),
        instruction("add_immediate", 2, 2, immediate=-1),
        instruction("load", 4, 2, immediate=0),
        instruction("add", 3, 3, 4),
        instruction("return"),
    )

    def __init__(self, depth: int, values: int):
        self.depth, self.values, self.vocabulary = depth, values, values + 2
        self.alternatives, self.selects, self.sizes = [depth + 1, values], 0, [1]
        self.tokens: list[int | None] = [0, 0]
        fibonacci, calls = [0, 1], [1, 1]
        for _ in range(depth):
            fibonacci.append(sum(fibonacci[-2:]))
            calls.append(1 + sum(calls[-2:]))
        self.fibonacci = torch.tensor(fibonacci[: depth + 1]) % values
        self.steps = 8 + 16 * calls[depth]

    def call(self, arithmetic: Arithmetic, size: int | None) -> CategoricalCall:
        config = MachineConfig(
            values=self.values, memory=4 + self.depth, registers=6, call_depth=2 + self.depth, max_steps=self.steps
        )
        return CategoricalCall(np.array(self.CODE), config, range(2), [2], arithmetic=arithmetic)

    def batch(self, count: int, size: int, held_out: bool, generator: torch.Generator) -> Batch:
        wide = torch.randint(self.values * (self.depth + 1), (32 * count, 1), generator=generator)
        wide = torch.cat([wide % (self.depth + 1), wide // (self.depth + 1)], dim=1)
        words = drawn(wide, count, held_out, wide)
        comma = torch.full_like(words[:, :1], self.values)
        prompts = torch.cat([words[:, :1], comma, words[:, 1:], comma + 1], dim=1)
        return Batch(prompts, self.execute(words, 1), words, words)

    def execute(self, calls: Tensor, length: int) -> Tensor:
        n, k = calls.unbind(1)
        good = (n <= self.depth) & (k < self.values)
        return torch.where(good, (self.fibonacci[n.clamp(max=self.depth)] + k) % self.values, -1)[:, None]

    def same_reading(self, words: Tensor, true: Tensor) -> Tensor:
        return (words == true).all(-1)


TUNING_SEEDS = (1000, 1001)


@dataclass(frozen=True)
class Job:
    """One training run and its tests; ``experiment`` and ``argument`` make the task."""

    experiment: str
    argument: int
    learner: str
    seed: int
    rate: float
    seconds: float
    start: Start
    sizes: tuple[int, ...]
    count: int

    @property
    def name(self) -> str:
        return {
            "arithmetic": f"V = {self.argument}",
            "sorting": f"{self.argument} numbers",
            "recursion": f"depth {self.argument}",
        }[self.experiment]


def task_of(job: Job, values: int) -> Task:
    if job.experiment == "arithmetic":
        return Arithmetic3(job.argument)
    return Sorting(job.argument) if job.experiment == "sorting" else Recursion(job.argument, values)


def perform(job: Job, values: int) -> dict[str, Any]:
    """Trains and tests: the run, and for each size the accuracy and the kinds of error."""
    torch.set_num_threads(1)
    task = task_of(job, values)
    model, run = train(task, job.learner, job.seed, job.seconds, rate=job.rate, start=job.start)
    return {**run, "found": {size: test(model, task, size, job.count) for size in job.sizes}}


def performed(jobs: Sequence[Job], values: int, processes: int, said: str) -> list[dict[str, Any]]:
    """All jobs, on so many processes; progress goes to standard error."""
    results: list[dict[str, Any]] = []
    with ProcessPoolExecutor(min(processes, len(jobs))) as pool:
        for result in pool.map(perform, jobs, [values] * len(jobs)):
            results.append(result)
            print(f"\r{said}: {len(results)} of {len(jobs)} runs", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return results


def score(result: dict[str, Any]) -> float:
    """How well a run did, over all sizes that were tested."""
    return statistics.mean(each["accuracy"] for each in result["found"].values())


def best_rates(jobs: Sequence[Job], rates: Sequence[float], values: int, processes: int) -> dict[str, float]:
    """Of each learner the rate that does best on the tuning seeds, on the first of its tasks, with half of the time."""
    first = list({job.learner: job for job in reversed(jobs)}.values())
    trials = [
        replace(job, seed=seed, rate=rate, seconds=job.seconds / 2)
        for job in first
        for rate in rates
        for seed in TUNING_SEEDS
    ]
    scores: dict[tuple[str, float], float] = {}
    for job, result in zip(trials, performed(trials, values, processes, "rates"), strict=True):
        scores[job.learner, job.rate] = scores.get((job.learner, job.rate), 0.0) + score(result)
    return {job.learner: max(rates, key=lambda rate, job=job: scores[job.learner, rate]) for job in first}  # type: ignore[misc]


def spread(found: list[float]) -> dict[str, float]:
    return {"mean": statistics.mean(found), "worst": min(found), "best": max(found)}


def summary(jobs: list[Job], results: list[dict[str, Any]]) -> dict[str, Any]:
    """One learner on one task, all seeds: by size, accuracy and the mean shares of the kinds of error."""
    by_size = {size: [result["found"][size] for result in results] for size in jobs[0].sizes}
    return {
        "task": jobs[0].name,
        "argument": jobs[0].argument,
        "learner": jobs[0].learner,
        "rate": jobs[0].rate,
        "examples": statistics.mean(result["examples"] for result in results),
        "overflows": sum(result["overflows"] for result in results),
        "accuracy": {size: spread([each["accuracy"] for each in found]) for size, found in by_size.items()},
        "errors": {
            size: {
                name: statistics.mean(each[name] for each in found)
                for name in ("selecting", "reading", "executing")
                if name in found[0]
            }
            for size, found in by_size.items()
        },
    }


def shown(row: dict[str, Any]) -> str:
    cells = [
        f"{'' if len(row['accuracy']) == 1 else f'{size}: '}{each['mean']:.1%} ({each['worst']:.0%}–{each['best']:.0%})"
        + "".join(f" {kind} {share:.0%}" for kind, share in row["errors"][size].items())
        for size, each in row["accuracy"].items()
    ]
    overflow = f", {row['overflows']} overflows" if row["overflows"] else ""
    return (
        f"{row['task']:<10} {row['learner']:<16} rate {row['rate']:g} {row['examples']:>9,.0f} examples{overflow}   "
        + "   ".join(cells)
    )


def plotted(rows: list[dict[str, Any]], experiment: str, path: str) -> None:
    """Accuracy against the length, the depth or V, a line for each learner, from its worst to its best seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for learner in dict.fromkeys(row["learner"] for row in rows):
        points = [
            (size if experiment == "sorting" else row["argument"], each)
            for row in rows
            if row["learner"] == learner
            for size, each in row["accuracy"].items()
        ]
        places = [place for place, _ in points]
        (line,) = axes.plot(places, [each["mean"] for _, each in points], marker="o", label=learner)
        axes.fill_between(
            places, [each["worst"] for _, each in points], [each["best"] for _, each in points],
            color=line.get_color(), alpha=0.15,
        )  # fmt: skip
    if experiment == "sorting":
        axes.set_xscale("log", base=2)
        axes.axvline(8, color="grey", linestyle=":")
    axes.set(
        xlabel={"arithmetic": "V", "sorting": "numbers in the list (trained on 1 to 8)", "recursion": "depth"}[
            experiment
        ],
        ylabel="whole answers right, held out",
        ylim=(0, 1.02),
    )
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=["arithmetic", "sorting", "recursion"])
    learners = [*ESTIMATORS, *CONTROLS, *BASELINES]
    parser.add_argument("--learners", nargs="+", choices=learners)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=30.0, help="processor time of one run")
    parser.add_argument("--processes", type=int, default=1, help="runs at a time")
    parser.add_argument("--rates", type=float, nargs="+", default=[2e-3], help="learning rates to choose from")
    parser.add_argument("--start", choices=["copying", "random"], default="copying", help="how the backbone starts")
    parser.add_argument("--values", type=int, default=32, help="V, of arithmetic and recursion (sorting: 128)")
    parser.add_argument("--numbers", type=int, default=16, help="how many different numbers there are to sort")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1, 2, 3, 4, 6, 8, 12, 16, 32, 64])
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 4, 6, 8])
    parser.add_argument("--count", type=int, default=200, help="held-out examples of each test")
    parser.add_argument("--quick", action="store_true", help="two seeds of three seconds, 50 examples a test")
    parser.add_argument("--output", help="a file for the figures as JSON")
    parser.add_argument("--plot", help="a picture file; needs matplotlib")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.seconds, options.count = 2, 3.0, 50
    arguments = {"arithmetic": [options.values], "sorting": [options.numbers], "recursion": options.depths}
    left_out = {"arithmetic": (), "sorting": ("dense, circuits", "enumerated"), "recursion": ("dense, circuits",)}
    chosen = options.learners or [name for name in learners if name not in left_out[options.experiment]]
    sizes = tuple(options.lengths) if options.experiment == "sorting" else (1,)
    jobs = [
        Job(
            options.experiment, argument, learner, seed, options.rates[0], options.seconds, options.start, sizes,
            options.count,
        )
        for argument in arguments[options.experiment]
        for learner in chosen
        for seed in range(options.seeds)
    ]  # fmt: skip
    if len(options.rates) > 1:
        rates = best_rates(jobs, options.rates, options.values, options.processes)
        jobs = [replace(job, rate=rates[job.learner]) for job in jobs]
    results = performed(jobs, options.values, options.processes, options.experiment)
    rows = [
        summary(jobs[at : at + options.seeds], results[at : at + options.seeds])
        for at in range(0, len(jobs), options.seeds)
    ]
    report = json.dumps({"settings": vars(options), "rows": rows})
    print(report if options.json else "\n".join(map(shown, rows)))
    if options.output:
        Path(options.output).write_text(report + "\n")
    if options.plot:
        plotted(rows, options.experiment, options.plot)


if __name__ == "__main__":
    main()
