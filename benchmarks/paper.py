"""The paper's three experiments, first edition, on a small Llama trained from scratch on one core.

    python benchmarks/paper.py arithmetic [--values 32] [--learners …] [--seeds 5] [--seconds 30] [--quick] [--json]
    python benchmarks/paper.py sorting    [--numbers 16] …
    python benchmarks/paper.py recursion  [--depths 2 4 6 8] …

- **arithmetic**: ``a + b =``, ``a - b =``, ``a * b =`` in words modulo V, with tables and with circuits.
- **sorting**: lists in ascending or descending order, trained on 1 to 8 numbers, tested on up to 64.
- **recursion**: ``n , k =`` → F(n) + k modulo V by recursive Fibonacci, n up to a depth.

A fifth of all examples is held out, by a hash of what they ask, and every test is on these. Errors of the learners with the
computer are split: the program selected wrongly; otherwise an argument read wrongly (a list as a multiset, and its length);
otherwise executed wrongly, the head included.

Every learner has the same backbone, data and processor time (``small_llama.py``). Figures are means over seeds and, in
brackets, the worst and the best seed.

Source: arXiv 2407.04899, experiments.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from exact_engine import INSERTION_SORT, instruction
from neurallib.configuration.machine_config import MachineConfig
from neurallib.modeling_neurallib.categorical_reader import Arithmetic, CategoricalCall
from neurallib.modeling_neurallib.machine.operations import CODES
from small_llama import BASELINES, ESTIMATORS, Batch, Task, held_out, test, train
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


def spread(found: list[float]) -> dict[str, float]:
    return {"mean": statistics.mean(found), "worst": min(found), "best": max(found)}


def study(task: Task, learner: str, seeds: int, seconds: float, sizes: list[int], count: int) -> dict[str, Any]:
    """One learner on one task: by test size, accuracy over the seeds and mean shares of the kinds of error."""
    by_size: dict[int, list[dict[str, Any]]] = {size: [] for size in sizes}
    runs = []
    for seed in range(seeds):
        model, run = train(task, learner, seed, seconds)
        runs.append(run)
        for size in sizes:
            by_size[size].append(test(model, task, size, count))
    errors = [name for name in ("selecting", "reading", "executing") if name in by_size[sizes[0]][0]]
    return {
        "learner": learner,
        "examples": statistics.mean(run["examples"] for run in runs),
        "overflows": sum(run["overflows"] for run in runs),
        "accuracy": {size: spread([each["accuracy"] for each in found]) for size, found in by_size.items()},
        "errors": {
            size: {name: statistics.mean(each[name] for each in found) for name in errors}
            for size, found in by_size.items()
        },
    }  # fmt: skip


def shown(name: str, row: dict[str, Any]) -> str:
    cells = [
        f"{'' if len(row['accuracy']) == 1 else f'{size}: '}{each['mean']:.1%} ({each['worst']:.0%}–{each['best']:.0%})"
        + "".join(f" {kind} {share:.0%}" for kind, share in row["errors"][size].items())
        for size, each in row["accuracy"].items()
    ]
    overflow = f", {row['overflows']} overflows" if row["overflows"] else ""
    return f"{name:<10} {row['learner']:<16} {row['examples']:>9,.0f} examples{overflow}   " + "   ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=["arithmetic", "sorting", "recursion"])
    learners = [*ESTIMATORS, *BASELINES]
    parser.add_argument("--learners", nargs="+", choices=learners)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=30.0, help="processor time of one run")
    parser.add_argument("--values", type=int, default=32, help="V, of arithmetic and recursion (sorting: 128)")
    parser.add_argument("--numbers", type=int, default=16, help="how many different numbers there are to sort")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1, 2, 3, 4, 6, 8, 12, 16, 32, 64])
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 4, 6, 8])
    parser.add_argument("--count", type=int, default=200, help="held-out examples of each test")
    parser.add_argument("--quick", action="store_true", help="two seeds of three seconds, 50 examples a test")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.quick:
        options.seeds, options.seconds, options.count = 2, 3.0, 50
    tasks: dict[str, Task]
    if options.experiment == "arithmetic":
        tasks = {f"V = {options.values}": Arithmetic3(options.values)}
    elif options.experiment == "sorting":
        tasks = {"sorting": Sorting(options.numbers)}
    else:
        tasks = {f"depth {depth}": Recursion(depth, options.values) for depth in options.depths}
    sizes = options.lengths if options.experiment == "sorting" else [1]
    only_arithmetic = "dense, circuits"
    chosen = options.learners or [
        name for name in learners if name != only_arithmetic or options.experiment == "arithmetic"
    ]
    rows = []
    for name, task in tasks.items():
        for learner in chosen:
            row = {"task": name, **study(task, learner, options.seeds, options.seconds, sizes, options.count)}
            rows.append(row)
            if not options.json:
                print(shown(name, row), flush=True)
    if options.json:
        print(json.dumps({"settings": vars(options), "rows": rows}))


if __name__ == "__main__":
    main()
