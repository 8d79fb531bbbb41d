"""Tables and circuits, the dense engine's two arithmetic units: cost, gradients, and what a part of a table teaches.

    python benchmarks/circuits.py cost [--values 16 32 64 128 256]
    python benchmarks/circuits.py gradients [--values 16 64]
    python benchmarks/circuits.py generalisation [--values 16] [--seeds 3]     (all three without a word)

- **cost**: microseconds a call of an operation on a batch of soft words, forward and with backward, and the entries
  that each form holds.
- **gradients**: at one-hot operands, how well the gradient tells what changing the first operand to another word would
  do (a table's tells it exactly); and how often gradient descent from a uniform operand finds the word that makes the
  result the wanted one.
- **generalisation**: a soft table and circuits with learned gates are trained on a part of all pairs of operands and
  tested on the rest. The learned circuits are a chain of one cell, (digit, digit, state) → (digit, state), whose truth
  tables are learned: 16 numbers shared by all places, or 16 for each place; and a shift-and-add multiplier of such a
  cell. What no such chain can compute is among the tasks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from neurallib.modeling_neurallib.machine.circuits import CIRCUITS, digits, distribution, evaluate_circuit
from neurallib.modeling_neurallib.machine.dense import lookup_table
from neurallib.modeling_neurallib.machine.operations import CODES
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, one_hot, pad


def by_table(form: str, a: Tensor, b: Tensor) -> Tensor:
    """The value of an operation by its lookup table: the outer product of the operands, scattered along it."""
    table = lookup_table(CODES[form], a.shape[-1]).flatten()
    pairs = (a[:, :, None] * b[:, None]).flatten(1)
    return torch.zeros_like(a).scatter_add(1, table.expand(len(a), -1), pairs)


UNITS: dict[str, Callable[[str, Tensor, Tensor], Tensor]] = {"table": by_table, "circuit": evaluate_circuit}


# Cost


COSTED = ["add", "multiply", "less_than", "shift_left", "divide"]
"""Operations whose cost is measured: one of each kind of circuit."""


def microseconds(run: Callable[[], Any], repeats: int = 7) -> float:
    """Median time of a call; each repeat takes about 20 ms."""
    began = time.perf_counter()
    run()
    count = max(1, int(0.02 / max(time.perf_counter() - began, 1e-6)))
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(count):
            run()
        times.append((time.perf_counter() - began) / count * 1e6)
    return statistics.median(times)


def cost(values: list[int], forms: list[str], batches: list[int]) -> list[dict[str, Any]]:
    rows = []
    for form in forms:
        for v in values:
            for batch in batches:
                row: dict[str, Any] = {"operation": form, "V": v, "batch": batch}
                a, b = (torch.randn(batch, v).softmax(-1).requires_grad_() for _ in range(2))
                weights = torch.randn(batch, v)
                for name, unit in UNITS.items():

                    def both(
                        unit: Any = unit, form: str = form, a: Tensor = a, b: Tensor = b, w: Tensor = weights
                    ) -> None:
                        torch.autograd.grad((unit(form, a, b) * w).sum(), [a, b])

                    with torch.no_grad():
                        row[f"{name} forward"] = microseconds(lambda u=unit, f=form, a=a, b=b: u(f, a, b))  # type: ignore[misc]
                    row[f"{name} both"] = microseconds(both)
                rows.append(row)
                print(
                    f"{form:<12} V {v:>4}  batch {batch:>3}   forward: table {row['table forward']:>9.0f} µs, circuit "
                    f"{row['circuit forward']:>8.0f} µs   with backward: {row['table both']:>9.0f}, "
                    f"{row['circuit both']:>8.0f}",
                    flush=True,
                )
    return rows


# Gradients


def counterfactual_agreement(form: str, values: int, points: int = 64) -> dict[str, float]:
    """At random one-hot operands and a random linear loss: the change that the gradient predicts for every other word of
    the first operand, against the true change. The correlation over them all, and over words at one digit's distance.
    """
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(values, (2, points), generator=generator)
    loss = torch.randn(values, generator=generator, dtype=torch.float64)
    a, b = (one_hot(row, values).double().requires_grad_() for row in words)
    (gradient,) = torch.autograd.grad((evaluate_circuit(form, a, b) * loss).sum(), [a])
    predicted = gradient - gradient.gather(-1, words[0][:, None])
    table = lookup_table(CODES[form], values)
    true = loss[table[:, words[1]].T] - loss[table[words[0], words[1]]][:, None]
    near = digits(one_hot(words[0][:, None] ^ torch.arange(values), values).double()).sum(-1) == 1
    others = torch.arange(values) != words[0][:, None]

    def correlation(mask: Tensor) -> float:
        pair = torch.stack([predicted[mask], true[mask]])
        return float("nan") if (pair.std(-1) == 0).any() else float(torch.corrcoef(pair)[0, 1])

    return {"all words": correlation(others), "one digit away": correlation(near)}


def found_by_descent(form: str, unit: str, values: int, trials: int = 32, steps: int = 300) -> float:
    """How often descent on the first operand's logits finds a word with the wanted result; the second is given."""
    generator = torch.Generator().manual_seed(1)
    table = lookup_table(CODES[form], values)
    secret, given = torch.randint(values, (2, trials), generator=generator)
    wanted = table[secret, given]
    logits = (0.01 * torch.randn(trials, values, generator=generator)).requires_grad_()
    b = one_hot(given, values).float()
    optimiser = torch.optim.Adam([logits], lr=0.1)
    for _ in range(steps):
        result = UNITS[unit](form, logits.softmax(-1), b)
        loss = -result.gather(-1, wanted[:, None]).clamp_min(1e-9).log().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return float((table[logits.argmax(-1), given] == wanted).float().mean())


def gradients(values: list[int], forms: list[str]) -> list[dict[str, Any]]:
    rows = []
    for v in values:
        for form in forms:
            row = {
                "operation": form, "V": v,
                **counterfactual_agreement(form, v),
                **{f"found by descent, {unit}": found_by_descent(form, unit, v) for unit in UNITS},
            }  # fmt: skip
            rows.append(row)
            print(
                f"{form:<12} V {v:>4}  gradient against the true change: all words {row['all words']:>5.2f}, one digit away "
                f"{row['one digit away']:>5.2f}   found by descent: table {row['found by descent, table']:.0%}, circuit "
                f"{row['found by descent, circuit']:.0%}",
                flush=True,
            )
    return rows


# Generalisation


class LearnedChain(nn.Module):
    """One cell after the other, the lowest digits first: (a, b, state) → (digit, state), two truth tables of 8 entries.

    Args:
        width: digits of a word.
        shared: the same cell at every place, or each its own.
    """

    def __init__(self, width: int, shared: bool) -> None:
        super().__init__()
        self.gates = nn.Parameter(torch.randn(1 if shared else width, 8, 2))
        self.first = nn.Parameter(torch.zeros(()))

    def cells(self, a: Tensor, b: Tensor) -> Tensor:
        """The digits [B, n] of the result, of the digits [B, n] of two words."""
        state, gates, result = self.first.sigmoid().expand(len(a)), self.gates.sigmoid(), []
        for place, (x, y) in enumerate(zip(a.unbind(-1), b.unbind(-1), strict=True)):
            entries = distribution(torch.stack([x, y, state], dim=-1))
            digit, state = (entries @ gates[place % len(gates)]).unbind(-1)
            result.append(digit)
        return torch.stack(result, dim=-1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.cells(a, b)


class LearnedMultiplier(LearnedChain):
    """Shift and add with a learned adder: for each digit of b the chain takes the sum so far and a, shifted, if it is 1."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        total = torch.zeros_like(a)
        for place, bit in enumerate(b.unbind(-1)):
            total = self.cells(total, pad(a * bit[:, None], (place, 0))[:, : a.shape[1]])
        return total


class Network(nn.Module):
    """What has no structure of its own: digits → 64 → 64 → digits."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 * width, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, width)
        )

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.layers(torch.cat([a, b], dim=-1)).sigmoid()


def tables_to_learn(values: int) -> dict[str, Tensor]:
    """Results [V, V] to be learned. The last three are no chain's: they show what the structure costs."""
    a, b = torch.arange(values)[:, None], torch.arange(values)[None]
    tables = {form: lookup_table(CODES[form], values) for form in ("add", "subtract", "xor", "multiply", "max")}
    tables[f"(a + b) mod {values - 3}"] = (a + b) % (values - 3)
    generator = torch.Generator().manual_seed(0)
    tables["a random table"] = torch.randint(values, (values, values), generator=generator)
    return tables


LEARNERS = ("soft table", "chain, one cell", "chain, own cells", "shift and add", "network")


def trained(learner: str, table: Tensor, seen: Tensor, seed: int, steps: int) -> tuple[float, float]:
    """Trains on the pairs that are seen, bool [V²]. Returns the share of right words among these, and among the rest."""
    values, width = len(table), len(table).bit_length() - 1
    torch.manual_seed(seed)
    a, b = torch.arange(values).repeat_interleave(values), torch.arange(values).repeat(values)
    wanted = table.flatten()
    bits = digits(one_hot(torch.arange(values), values).float())
    if learner == "soft table":
        # Every pair has its own logits, so that training is what one step says: those not seen stay uniform, and the
        # word that argmax takes for them is drawn.
        logits = torch.rand(values * values, values) * 1e-3
        logits[seen, wanted[seen]] += 1
        right = logits.argmax(-1) == wanted
    else:
        model: nn.Module = {
            "chain, one cell": lambda: LearnedChain(width, True),
            "chain, own cells": lambda: LearnedChain(width, False),
            "shift and add": lambda: LearnedMultiplier(width, True),
            "network": lambda: Network(width),
        }[learner]()
        optimiser = torch.optim.Adam(model.parameters(), lr=0.01 if learner == "network" else 0.1)
        for _ in range(steps):
            loss = binary_cross_entropy(model(bits[a[seen]], bits[b[seen]]).clamp(1e-6, 1 - 1e-6), bits[wanted[seen]])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            right = ((model(bits[a], bits[b]) > 0.5) == (bits[wanted] > 0.5)).all(-1)
    return float(right[seen].float().mean()), float(right[~seen].float().mean())


def generalisation(values: int, parts: list[float], seeds: int, steps: int) -> list[dict[str, Any]]:
    rows = []
    print(f"V = {values}: right among the pairs not seen (seen), the seed of {seeds} that fits the seen pairs best")
    for name, table in tables_to_learn(values).items():
        for part in parts:
            row: dict[str, Any] = {"table": name, "V": values, "part": part}
            for learner in LEARNERS:
                if learner == "shift and add" and name != "multiply":
                    continue
                found = []
                for seed in range(seeds):
                    order = torch.randperm(values * values, generator=torch.Generator().manual_seed(100 + seed))
                    seen = torch.zeros(values * values, dtype=torch.bool)
                    seen[order[: max(1, round(part * values * values))]] = True
                    found.append(trained(learner, table, seen, seed, steps))
                row[learner] = {"seen": max(found)[0], "rest": max(found, key=lambda each: each[0])[1],
                                "rest, every seed": [round(rest, 3) for _, rest in found]}  # fmt: skip
            rows.append(row)
            columns = "  ".join(
                f"{each} {row[each]['rest']:.0%} ({row[each]['seen']:.0%})" for each in LEARNERS if each in row
            )
            print(f"{name:<16} {part:>4.0%}  {columns}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="cost, gradients, generalisation; all by default")
    parser.add_argument("--values", type=int, nargs="+")
    parser.add_argument("--forms", nargs="+", choices=sorted(CIRCUITS), metavar="OPERATION")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--parts", type=float, nargs="+", default=[0.05, 0.25, 0.75])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--output", help="a file for the figures as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {}
    wanted = options.what or ["cost", "gradients", "generalisation"]
    if "cost" in wanted:
        report["cost"] = cost(options.values or [16, 32, 64, 128, 256], options.forms or COSTED, options.batch)
    if "gradients" in wanted:
        report["gradients"] = gradients(options.values or [16, 64], options.forms or sorted(CIRCUITS))
    if "generalisation" in wanted:
        report["generalisation"] = [
            row
            for v in options.values or [16]
            for row in generalisation(v, options.parts, options.seeds, options.steps)
        ]
    if options.output:
        Path(options.output).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
