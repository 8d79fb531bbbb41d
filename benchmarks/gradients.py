"""Speed, growth and size of the three kinds of gradient through a run: ``dense``, ``adjoint``, ``counterfactual``.

All on one core, in one process, in CPU time: float64, and float32 for the speed of dense. Speeds are medians of repeats;
what must not depend on the machine's load is a ratio of figures measured next to each other. Tables:

- speed: instructions a second, forward and backward, on an insertion sort padded to 60 instructions at V = N = 128;
- counterfactual: all 16 cells × 128 values of the same sort on 16 words;
- growth: the cost of a step of the adjoint with N, P and the number of steps, each as time over the smallest case;
- depth: the greatest entry of the gradient of the initial memory and registers, by kind, fetch and damping, against steps;
- leak: probability that dense loses from the exact run's program counter, against steps and the sharpness of the program's weights.

    python benchmarks/gradients.py [--quick] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from exact_engine import INSERTION_SORT, instruction
from neurallib.configuration.machine_config import MachineConfig
from neurallib.modeling_neurallib.machine.adjoint import (
    LOG_BYTES,
    AdjointMachine,
    GradientError,
    entries_of,
    tangent,
)
from neurallib.modeling_neurallib.machine.counterfactual import run_with_gradient
from neurallib.modeling_neurallib.machine.dense import DenseMachine, SoftProgram

PAPER = MachineConfig(values=128, memory=128, registers=16, call_depth=8, max_steps=2_000_000)
DAMPED = (1.0, 0.1, 0.0)

JUMPS = [instruction(name)[0] for name in ("jump", "jump_if_zero", "jump_if_not_zero")]
# For ever: write the words 9, 8, … 1 to addresses 1…9, and sort them.
LOOPED = np.array(
    [
        instruction("constant", 8, immediate=1),
        instruction("constant", 9, immediate=9),
        instruction("store", a=8, b=9),
        instruction("add_immediate", 8, 8, immediate=1),
        instruction("add_immediate", 9, 9, immediate=-1),
        instruction("jump_if_not_zero", a=9, immediate=2),
        *[(*row[:4], row[4] + 6 * (row[0] in JUMPS)) for row in INSERTION_SORT[:-1].tolist()],
        instruction("jump", immediate=0),
    ],
    dtype=np.int64,
)


def padded(code: np.ndarray, size: int) -> np.ndarray:
    """The program, followed by halts up to ``size`` instructions."""
    return np.vstack([code, np.zeros((size - len(code), 5), np.int64)])


def sort_state(config: MachineConfig, words: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Registers and memory of a sort of random words at address 1."""
    registers, memory = np.zeros(config.registers, np.int64), np.zeros(config.memory, np.int64)
    registers[:2] = 1, words
    memory[1 : 1 + words] = np.random.default_rng(seed).integers(0, min(128, config.values), words)
    return registers, memory


def median_seconds(function: Callable[[], Any], repeats: int = 3) -> float:
    """The median of ``repeats`` calls, after one that compiles."""
    function()
    times = []
    for _ in range(repeats):
        start = time.thread_time()
        function()
        times.append(time.thread_time() - start)
    return statistics.median(times)


class AdjointCase:
    """One machine forward and backward, repeatedly: the gradient of a loss of the final memory, in ``rows`` of it."""

    def __init__(self, code: np.ndarray, config: MachineConfig, words: int, steps: int | None = None, **options: Any):
        self.machine = AdjointMachine(entries_of(code, config), config, **options)
        self.config, self.steps_limit = config, steps
        self.registers, self.memory = sort_state(config, words)
        self.weights = np.random.default_rng(1).normal(size=(words + 2, config.values))

    def __call__(self) -> tuple[int, float]:
        """The steps taken, and the greatest entry of the gradient of the initial memory."""
        run = self.machine.run(0, self.registers, self.memory, self.steps_limit)
        gradient = self.machine.blank(run)
        rows = gradient.memory[: len(self.weights), : self.config.values]
        rows[:] = tangent(self.weights, run.memory[: len(self.weights)])
        self.machine.backward(run, gradient, tensor="memory")
        return run.steps, float(np.abs(gradient.memory).max())


def dense_step_seconds(code: np.ndarray, batch: int, steps: int, repeats: int) -> tuple[float, float]:
    """Seconds a step, forward alone and with backward, for the whole batch."""
    machine = DenseMachine(SoftProgram.from_instructions(code, PAPER), PAPER)
    registers, memory = sort_state(PAPER, 16)
    words = machine.one_hot_words(np.tile(memory, (batch, 1))).float().requires_grad_()
    banks = machine.one_hot_words(np.tile(registers, (batch, 1))).float().requires_grad_()
    weights = torch.randn(batch, PAPER.memory, PAPER.values)

    def forward() -> torch.Tensor:
        state = machine.state_from(words, banks, [0] * batch)
        for _ in range(steps):
            state = machine.step(state)
        return (state.memory * weights).sum()

    with torch.no_grad():
        alone = median_seconds(forward, repeats) / steps
    both = median_seconds(lambda: torch.autograd.grad(forward(), (words, banks)), repeats) / steps
    return alone, both


def speed(quick: bool) -> dict[str, float]:
    """Adjoint and dense on the same program, and the floor of a dense step: its state read and written once."""
    code = padded(INSERTION_SORT, 60)
    case = AdjointCase(code, PAPER, 60, damping=0.1)
    steps, _ = case()
    adjoint = median_seconds(case, 9) / steps
    repeats = 2 if quick else 3
    figures = {"adjoint_instructions_per_second": 1 / adjoint, "adjoint_steps": steps, "log_bytes_a_step": LOG_BYTES}
    for batch in (1, 32):
        alone, both = dense_step_seconds(code, batch, 4, repeats)
        block = torch.zeros(batch, PAPER.memory, PAPER.values)
        target = torch.empty_like(block)
        copied = median_seconds(lambda block=block, target=target: [target.copy_(block) for _ in range(50)], 5) / 50
        figures[f"dense_forward_ms_batch_{batch}"] = alone * 1e3
        figures[f"dense_both_ms_batch_{batch}"] = both * 1e3
        figures[f"dense_floor_ms_batch_{batch}"] = copied * 1e3
        figures[f"adjoint_over_dense_batch_{batch}"] = both / batch / adjoint
    return figures


def counterfactual_sort(repeats: int) -> dict[str, float]:
    """Forward and backward of a 16-word insertion sort, all cells and all 128 values."""
    config = MachineConfig(values=128, memory=32, registers=16, call_depth=8, max_steps=5_000)
    program = SoftProgram.from_instructions(INSERTION_SORT, config, dtype=torch.float64)
    registers, memory = sort_state(config, 16)
    hot = torch.nn.functional.one_hot
    words = hot(torch.from_numpy(memory)[None], 128).double().requires_grad_()
    banks = hot(torch.from_numpy(registers)[None], 128).double()
    weights = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 32, 128)))
    executed = 0

    def both() -> None:
        nonlocal executed
        state, report = run_with_gradient(
            program, config, words, banks, [0], "counterfactual", cells=range(1, 17)
        )  # fmt: skip
        torch.autograd.grad((state.memory * weights).sum(), words)
        executed = report.executed

    seconds = median_seconds(both, repeats)
    return {"milliseconds": seconds * 1e3, "instructions": executed, "instructions_per_second": executed / seconds}


def growth(quick: bool) -> dict[str, list[tuple[int, float]]]:
    """Seconds a step of the adjoint, against N, P and steps."""
    tables: dict[str, list[tuple[int, float]]] = {"N": [], "P": [], "steps": []}
    for memory in (128, 512, 2048, 4096):
        config = MachineConfig(values=4096, memory=memory, registers=16, call_depth=8)
        case = AdjointCase(padded(INSERTION_SORT, 20), config, 24, damping=0.1)
        tables["N"].append((memory, median_seconds(case, 3) / case()[0]))
    for size in (20, 60, 200, 600, 2000):
        case = AdjointCase(padded(INSERTION_SORT, size), PAPER, 32, damping=0.1)
        tables["P"].append((size, median_seconds(case, 3) / case()[0]))
    for steps in (1_000, 10_000, 100_000) if quick else (1_000, 10_000, 100_000, 1_000_000):
        case = AdjointCase(LOOPED, PAPER, 9, steps, damping=0.0)
        tables["steps"].append((steps, median_seconds(case, 3) / steps))
    return tables


def depth(quick: bool) -> list[dict[str, Any]]:
    """The greatest entry of the gradient after so many steps of sorting without end; text where it overflows."""
    rows = []
    config = MachineConfig(values=32, memory=16, registers=16, call_depth=2)
    registers, memory = sort_state(config, 9)
    memory %= config.values
    memory[1:10] = np.random.default_rng(0).permutation(9) + 1
    hot = torch.nn.functional.one_hot
    banks = hot(torch.from_numpy(registers)[None], config.values).double().requires_grad_()
    weights = torch.from_numpy(np.random.default_rng(1).normal(size=(1, config.memory, config.values)))
    program = SoftProgram.from_instructions(LOOPED, config, dtype=torch.float64)
    for steps in (10, 30, 100, 300, 1_000, 3_000, 10_000) + (() if quick else (100_000,)):
        row: dict[str, Any] = {"steps": steps}
        for kind in ("dense", "adjoint", "counterfactual"):
            for fetch in ("separate", "joint") if kind != "counterfactual" else ("separate",):
                for damping in DAMPED if kind != "counterfactual" else (1.0,):
                    name = kind if kind == "counterfactual" else f"{kind} {fetch} {damping:g}"
                    if kind == "dense" and steps > (100 if quick else 300) // (3 if fetch == "joint" else 1):
                        continue
                    words = hot(torch.from_numpy(memory)[None], config.values).double().requires_grad_()
                    try:
                        state, _ = run_with_gradient(
                            program, config, words, banks, [0], kind, max_steps=steps, fetch=fetch, damping=damping,
                            unfinished="state", cells=range(1, 10),
                        )  # fmt: skip
                        gradients = torch.autograd.grad((state.memory * weights).sum(), (words, banks))
                    except GradientError as error:
                        at = str(error).split(" at step ")[-1].split()[0].rstrip(";")
                        row[name] = f"overflow at {at}"
                        continue
                    row[name] = max(
                        float((part - part.gather(-1, at.argmax(-1, keepdim=True))).abs().max())
                        for part, at in zip(gradients, (words, banks), strict=True)
                    )
        rows.append(row)
    return rows


def leak() -> list[dict[str, float]]:
    """The probability that dense gives to the exact run's program counter, where every field is a softmax of ±gap/2."""
    config = MachineConfig(values=32, memory=16, registers=16, call_depth=2)
    exact = SoftProgram.from_instructions(LOOPED, config, dtype=torch.float64)
    registers, memory = sort_state(config, 9)
    memory %= config.values
    rows = []
    for gap in (6.0, 12.0, 24.0, 48.0):
        soft = SoftProgram(*((gap * field).softmax(-1) for field in vars(exact).values()))
        machines = DenseMachine(exact, config), DenseMachine(soft, config)
        words, banks = (machines[0].one_hot_words(part[None]).double() for part in (memory, registers))
        states = [machine.state_from(words, banks, [0]) for machine in machines]
        row = {"gap": gap}
        for step in range(1, 301):
            states = [machine.step(state) for machine, state in zip(machines, states, strict=True)]
            if step in (1, 10, 30, 100, 300):
                same = (states[0].program_counter * states[1].program_counter).sum()
                row[f"lost at {step}"] = float(1 - same * (1 - states[1].halted[0]))
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer steps and repeats")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = {
        "speed": speed(options.quick),
        "counterfactual": counterfactual_sort(3 if options.quick else 9),
        "growth": growth(options.quick),
        "depth": depth(options.quick),
        "leak": leak(),
    }
    if options.json:
        print(json.dumps(figures))
        return
    fast, sort = figures["speed"], figures["counterfactual"]
    print("insertion sort of 60 words, 60 instructions, V = N = 128, one core")
    print(
        f"  adjoint, forward and backward: {fast['adjoint_instructions_per_second'] / 1e6:.2f} million instructions/s"
    )
    for batch in (1, 32):
        print(
            f"  dense, batch {batch:2}: {fast[f'dense_forward_ms_batch_{batch}']:.2f} ms a step forward, "
            f"{fast[f'dense_both_ms_batch_{batch}']:.2f} ms with backward (a copy of the memory: "
            f"{fast[f'dense_floor_ms_batch_{batch}']:.3f} ms); adjoint is {fast[f'adjoint_over_dense_batch_{batch}']:,.0f} times"
        )
    print(f"  log: {LOG_BYTES} bytes a step")
    print(
        f"counterfactual gradient of a 16-word insertion sort, 16 × 128 values: {sort['milliseconds']:.1f} ms, "
        f"{sort['instructions']:,} instructions"
    )
    print("adjoint, microseconds a step, and times the smallest case")
    for name, table in figures["growth"].items():
        for size, seconds in table:
            print(f"  {name:>5} = {size:9,}: {seconds * 1e6:8.3f} µs {seconds / table[0][1]:8.2f} times")
    print("greatest entry of the gradient of memory and registers, by kind, fetch and damping")
    for row in figures["depth"]:
        print(f"  {row['steps']:,} steps")
        for name, value in row.items():
            if name != "steps":
                print(f"    {name:24} {value if isinstance(value, str) else format(value, '.3g')}")
    print("probability lost by dense, fields softened to a gap of logits")
    for lost in figures["leak"]:
        print("  " + "   ".join(f"{name} {value:.2g}" for name, value in lost.items()))


if __name__ == "__main__":
    main()
