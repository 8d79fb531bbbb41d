"""Which gradient is worth having? Three small learning problems, by each estimator of ``CategoricalCall``.

    python benchmarks/which_gradient.py [--problems …] [--estimators …] [--seeds 10] [--seconds 10] [--processes 8]
        [--rate R] [--quick] [--json] [--output FILE.json] [--plot FILE.png]

What is learned is a table of logits; the answer is read as it is, by a fixed head. Nobody says what the table should hold:

- **add**: the words that 16 symbols stand for, from sums (modulo 16) of pairs of them; a quarter of the pairs is held out.
- **sort**: the keys of 8 symbols, from lists of three of them, sorted by key; a quarter of the sets of three is held out.
- **repair**: the four constants of a program of eleven instructions, one of which is wrong (and not said which), from inputs and
  outputs; the outputs of other inputs are held out.

An estimator has solved a problem when 99 % of the held-out answers are right, on the exact engine, with the most probable
words. Each may use the same processor time a run, compiling not counted; its learning rate is the best of four on two seeds
that are not counted, for each problem by itself. Reported over the seeds: how often it solved the problem, and the median
examples and seconds of processor time that it took then.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from exact_engine import instruction
from neurallib.configuration.machine_config import MachineConfig
from neurallib.modeling_neurallib.categorical_reader import CategoricalCall, CategoricalEstimator, ResultHead
from neurallib.modeling_neurallib.machine.adjoint import GradientError
from torch import Tensor
from torch.nn.functional import one_hot

RATES = (0.03, 0.1, 0.3, 1.0)
ESTIMATORS: dict[str, tuple[CategoricalEstimator, int, float]] = {
    "dense": ("dense", 1, 1.0),
    "adjoint": ("adjoint", 4, 1.0),
    "adjoint, damped": ("adjoint", 4, 0.1),
    "counterfactual": ("counterfactual", 4, 1.0),
    "marginal": ("marginal", 64, 1.0),
}
"""Estimators, samples, chosen so that an update of each takes about as long, and damping of the program counter."""
TUNING_SEEDS = (1000, 1001)
SOLVED = 0.99
BATCH = 32


@dataclass
class Problem:
    """Something to learn through a program.

    Attributes:
        call: the program.
        logits: where learning starts, a function of the seed.
        words: logits, inputs [B, …] → the distributions [B, W, V] in the call's arguments.
        inputs, answers: of all examples: int64 [E, …], [E, L].
        held_out: which of them are for testing only, bool [E].
        in_program: the logits are the call's immediates.
    """

    call: CategoricalCall
    logits: Callable[[torch.Generator], Tensor]
    words: Callable[[Tensor, Tensor], Tensor]
    inputs: Tensor
    answers: Tensor
    held_out: Tensor
    in_program: bool = False


def a_quarter(count: int, seed: int) -> Tensor:
    """Which of so many are held out."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return torch.isin(torch.arange(count), order[: count // 4])


ADD = [
    instruction("load", 1, 0, immediate=0),
    instruction("load", 2, 0, immediate=1),
    instruction("add", 3, 1, 2),
    instruction("store", a=0, b=3, immediate=2),
    instruction("halt"),
]


def add(seed: int, values: int = 16) -> Problem:
    config = MachineConfig(values=values, memory=4, registers=6, call_depth=1, max_steps=10)
    meaning = torch.randperm(values, generator=torch.Generator().manual_seed(seed))
    pairs = torch.tensor(list(product(range(values), repeat=2)))
    return Problem(
        CategoricalCall(np.array(ADD), config, [0, 1], [2]),
        lambda generator: torch.randn(values, values, generator=generator) * 0.1,
        lambda logits, inputs: logits[inputs].softmax(-1),
        pairs,
        (meaning[pairs].sum(-1) % values)[:, None],
        a_quarter(len(pairs), seed),
    )


# Sorts three records (key, item) at addresses 0…5 by their keys: neighbours at the places 0, 1 and 0 are exchanged if need be.
# r1 the address of the first of two records, r2 and r3 their keys, then their items, r4 a condition
SORT_RECORDS = [
    instruction("call", immediate=6),
    instruction("constant", 1, immediate=2),
    instruction("call", immediate=6),
    instruction("constant", 1, immediate=0),
    instruction("call", immediate=6),
    instruction("halt"),
    instruction("load", 2, 1, immediate=0),  # 6
    instruction("load", 3, 1, immediate=2),
    instruction("less_than", 4, 3, 2),
    instruction("jump_if_zero", a=4, immediate=16),
    instruction("store", a=1, b=3, immediate=0),
    instruction("store", a=1, b=2, immediate=2),
    instruction("load", 2, 1, immediate=1),
    instruction("load", 3, 1, immediate=3),
    instruction("store", a=1, b=3, immediate=1),
    instruction("store", a=1, b=2, immediate=3),
    instruction("return"),  # 16
]


def sort(seed: int, symbols: int = 8, values: int = 16) -> Problem:
    config = MachineConfig(values=values, memory=8, registers=6, call_depth=2, max_steps=48)
    order = torch.randperm(symbols, generator=torch.Generator().manual_seed(seed))
    lists = torch.tensor(list(permutations(range(symbols), 3)))
    sets, which = lists.sort(-1).values.unique(dim=0, return_inverse=True)

    def words(logits: Tensor, inputs: Tensor) -> Tensor:
        keys = torch.nn.functional.pad(logits[inputs].softmax(-1), (0, values - logits.shape[-1]))
        return torch.stack([keys, one_hot(inputs, values).to(keys)], dim=2).flatten(1, 2)

    return Problem(
        CategoricalCall(np.array(SORT_RECORDS), config, range(6), [1, 3, 5]),
        lambda generator: torch.randn(symbols, symbols, generator=generator) * 0.1,
        words,
        lists,
        lists.gather(-1, order[lists].argsort(-1)),
        a_quarter(len(sets), seed)[which],
    )


# Of x and z: p ← 4 x + 3, q ← 2 z + 5, and p ← p − q if x < z; the results are p and q.
CONSTANTS = {2: 4, 3: 3, 5: 2, 6: 5}
"""Code address → the right immediate."""
FORMULA = [
    instruction("load", 1, 0, immediate=0),
    instruction("load", 2, 0, immediate=1),
    instruction("multiply_immediate", 3, 1, immediate=CONSTANTS[2]),
    instruction("add_immediate", 3, 3, immediate=CONSTANTS[3]),
    instruction("less_than", 4, 1, 2),
    instruction("multiply_immediate", 5, 2, immediate=CONSTANTS[5]),
    instruction("add_immediate", 5, 5, immediate=CONSTANTS[6]),
    instruction("jump_if_zero", a=4, immediate=9),
    instruction("subtract", 3, 3, 5),
    instruction("store", a=0, b=3, immediate=2),
    instruction("store", a=0, b=5, immediate=3),
]


def repair(seed: int, values: int = 32) -> Problem:
    config = MachineConfig(values=values, memory=4, registers=6, call_depth=1, max_steps=16)
    true = torch.tensor(list(CONSTANTS.values()))
    call = CategoricalCall(np.array(FORMULA), config, [0, 1], [2, 3], immediates=list(CONSTANTS))
    pairs = torch.tensor(list(product(range(values), repeat=2)))
    generator = torch.Generator().manual_seed(seed)
    wrong = int(torch.randint(len(true), (), generator=generator))
    corrupted = true.clone()
    corrupted[wrong] = (true[wrong] + torch.randint(1, values, (), generator=generator)) % values
    half = float(np.log(values - 1))  # the logit that leaves half of the probability with what the program says
    return Problem(
        call,
        lambda _: one_hot(corrupted, values) * half,
        lambda _, inputs: one_hot(inputs, values).float(),
        pairs,
        call.answers(pairs, 2, true),
        a_quarter(len(pairs), seed),
        in_program=True,
    )


PROBLEMS: dict[str, Callable[[int], Problem]] = {"add": add, "sort": sort, "repair": repair}


def accuracy(problem: Problem, logits: Tensor, head: ResultHead) -> float:
    """The share of held-out answers that are right, every word taken at its most probable."""
    inputs, length = problem.inputs[problem.held_out], problem.answers.shape[1]
    with torch.no_grad():
        words = problem.words(logits, inputs).argmax(-1)
        results = problem.call.answers(words, length, logits.argmax(-1) if problem.in_program else None)
    return float((results == problem.answers[problem.held_out]).all(-1).float().mean())


@dataclass
class Trial:
    """One run of learning: examples seen and processor seconds until it was solved, or until the end."""

    seed: int
    solved: bool
    accuracy: float
    examples: int
    seconds: float
    overflows: int


def learn(problem: Problem, seed: int, estimator: str, rate: float, seconds: float) -> Trial:
    """Descends until the held-out answers are right or the time is used up; looks after every 20 updates."""
    kind, samples, damping = ESTIMATORS[estimator]
    generator = torch.Generator().manual_seed(seed)
    logits = problem.logits(generator).clone().requires_grad_()
    optimiser = torch.optim.Adam([logits], lr=rate)
    values, length = problem.call.config.values, problem.answers.shape[1]
    head = ResultHead(values, values, range(values)).requires_grad_(False)
    training = (~problem.held_out).nonzero()[:, 0]

    def descend(chosen: Tensor, generator: torch.Generator) -> bool:
        """Leaves the gradient in the logits; False if it overflows."""
        immediates = logits.softmax(-1) if problem.in_program else None
        results = problem.call(
            problem.words(logits, problem.inputs[chosen]), length, kind, samples=samples, generator=generator,
            immediates=immediates, damping=damping,
        )  # fmt: skip
        optimiser.zero_grad()
        try:
            (-results.log_likelihood(head, problem.answers[chosen]).mean()).backward()
        except GradientError:
            return False
        return bool(torch.isfinite(torch.nn.utils.clip_grad_norm_([logits], 1.0)))

    descend(training[:1], torch.Generator())  # compiles
    updates, overflows, used, right = 0, 0, 0.0, accuracy(problem, logits, head)
    while right < SOLVED and used < seconds:
        began = time.thread_time()
        for _ in range(20):
            chosen = training[torch.randint(len(training), (BATCH,), generator=generator)]
            if descend(chosen, generator):
                optimiser.step()
                updates += 1
            else:
                overflows += 1
            if used + time.thread_time() - began > seconds:
                break
        used += time.thread_time() - began
        right = accuracy(problem, logits, head)
    return Trial(seed, right >= SOLVED, round(right, 4), updates * BATCH, round(used, 2), overflows)


Row = tuple[str, str]
"""A problem and an estimator."""


def trial(row: Row, seed: int, rate: float, seconds: float) -> Trial:
    torch.set_num_threads(1)
    problem, estimator = row
    return learn(PROBLEMS[problem](seed), seed, estimator, rate, seconds)


def tuned(rows: list[Row], seconds: float, pool: Executor) -> dict[Row, float]:
    """Of each the learning rate that solves the most on the tuning seeds, then is the most accurate, then quick."""
    runs = {
        (row, rate): [pool.submit(trial, row, seed, rate, seconds) for seed in TUNING_SEEDS]
        for row in rows
        for rate in RATES
    }

    def score(row: Row, rate: float) -> tuple[float, ...]:
        trials = [run.result() for run in runs[row, rate]]
        return (
            sum(trial.solved for trial in trials),
            sum(trial.accuracy for trial in trials),
            -sum(trial.seconds for trial in trials),
        )

    return {row: max(RATES, key=lambda rate, row=row: score(row, rate)) for row in rows}  # type: ignore[misc]


def study(rows: list[Row], seeds: int, seconds: float, rate: float | None, pool: Executor) -> list[dict[str, Any]]:
    rates = tuned(rows, seconds, pool) if rate is None else dict.fromkeys(rows, rate)
    runs = {row: [pool.submit(trial, row, seed, rates[row], seconds) for seed in range(seeds)] for row in rows}
    return [summary(row, rates[row], [run.result() for run in runs[row]]) for row in rows]


def summary(row: Row, rate: float, trials: list[Trial]) -> dict[str, Any]:
    solved = [trial for trial in trials if trial.solved]
    return {
        "problem": row[0],
        "estimator": row[1],
        "rate": rate,
        "samples": ESTIMATORS[row[1]][1],
        "success": len(solved) / len(trials),
        "median_examples": statistics.median(trial.examples for trial in solved) if solved else None,
        "median_seconds": statistics.median(trial.seconds for trial in solved) if solved else None,
        "mean_accuracy": statistics.mean(trial.accuracy for trial in trials),
        "overflows": sum(trial.overflows for trial in trials),
        "trials": [asdict(trial) for trial in trials],
    }


def shown(row: dict[str, Any]) -> str:
    need = "never solved"
    if row["success"]:
        need = f"{row['median_examples']:>8,.0f} examples {row['median_seconds']:>6.2f} s"
    overflows = f"   {row['overflows']} overflows" if row["overflows"] else ""
    return (
        f"{row['problem']:<7} {row['estimator']:<15} solved {row['success']:>4.0%}   accuracy {row['mean_accuracy']:>6.1%}   "
        f"{need:<26}   rate {row['rate']:g}{overflows}"
    )


def plotted(rows: list[dict[str, Any]], seconds: float, path: str) -> None:
    """The share of seeds that have solved each problem against processor time, a line for each estimator."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    problems = list(dict.fromkeys(row["problem"] for row in rows))
    figure, axes = pyplot.subplots(1, len(problems), figsize=(4 * len(problems), 3.5), sharey=True, squeeze=False)
    for axis, problem in zip(axes[0], problems, strict=True):
        for row in rows:
            if row["problem"] == problem:
                times = sorted(trial["seconds"] for trial in row["trials"] if trial["solved"])
                shares = [k / len(row["trials"]) for k in range(len(times) + 1)]
                axis.step([0, *times, seconds], [*shares, shares[-1]], where="post", label=row["estimator"])
        axis.set(title=problem, xlabel="processor seconds", ylim=(-0.02, 1.02))
    axes[0][0].set_ylabel("share of seeds that have solved it")
    axes[0][-1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--estimators", nargs="+", choices=list(ESTIMATORS), default=list(ESTIMATORS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=10.0, help="processor time of one run")
    parser.add_argument("--rate", type=float, help="the learning rate of all, instead of the best of four for each")
    parser.add_argument("--processes", type=int, default=1, help="runs at a time")
    parser.add_argument("--output", help="a file for the figures as JSON")
    parser.add_argument("--plot", help="a picture file; needs matplotlib")
    parser.add_argument("--quick", action="store_true", help="two seeds of two seconds, nothing tuned")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    seeds, seconds, rate = (2, 2.0, RATES[1]) if options.quick else (options.seeds, options.seconds, options.rate)
    chosen = [(problem, estimator) for problem in options.problems for estimator in options.estimators]
    with ProcessPoolExecutor(options.processes) as pool:
        rows = study(chosen, seeds, seconds, rate, pool)
    report = json.dumps({"seeds": seeds, "seconds": seconds, "batch": BATCH, "rates": RATES, "rows": rows})
    print(report if options.json else "\n".join(map(shown, rows)))
    if options.output:
        Path(options.output).write_text(report + "\n")
    if options.plot:
        plotted(rows, seconds, options.plot)


if __name__ == "__main__":
    main()
