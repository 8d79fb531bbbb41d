"""Instructions a second of the exact engine, counterfactual gradients and adjoints, on a CUDA device and on one core.

Every figure comes after a check that the device finds what the CPU finds: bit for bit, adjoints to 1e-9. Programs are
those of exact_engine.py and gradients.py: insertion sorts. Times are wall times, medians of three after one that compiles.

- exact: sorts of 64 words. ``kernel`` has the states on the device already, ``whole`` takes them from numpy and back.
- counterfactual: forward and backward of sorts of 16 words, all their cells and all 128 values; instructions executed.
- adjoint: sorts of 60 words by 60 instructions, V = N = 128, forward and backward; results come back to the CPU.

    python benchmarks/cuda_engines.py [--sweep] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any
from unittest import mock

import numpy as np
import torch
from exact_engine import INSERTION_SORT
from neurallib.configuration.machine_config import MachineConfig
from neurallib.modeling_neurallib.machine import cuda
from neurallib.modeling_neurallib.machine.adjoint import AdjointMachine, entries_of, tangent
from neurallib.modeling_neurallib.machine.counterfactual import run_with_gradient
from neurallib.modeling_neurallib.machine.dense import SoftProgram
from neurallib.modeling_neurallib.machine.exact import ExactMachine
from neurallib.modeling_neurallib.machine.triton_kernels import INTERPRETED, packed

ON_DEVICE = torch.cuda.is_available()
# In Triton's interpreter, which is slow, only to see that this script runs.
BATCHES = (4_096, 32_768, 262_144) if ON_DEVICE else (4,)
COUNTERFACTUAL_BATCHES = (1, 16, 128) if ON_DEVICE else (1,)
ADJOINT_BATCHES = (32, 512, 4_096) if ON_DEVICE else (2,)
EXACT_WORDS, COUNTERFACTUAL_WORDS, ADJOINT_WORDS = (64, 16, 60) if ON_DEVICE else (4, 2, 3)
VALUES = 128 if ON_DEVICE else 8
BASE = MachineConfig(values=128, memory=128, registers=16, call_depth=8, max_steps=2_000_000)


def seconds(function: Callable[[], Any], repeats: int = 3) -> float:
    """The median of ``repeats`` calls, after one that compiles."""
    times = []
    for _ in range(repeats + 1 if ON_DEVICE else 1):
        start = time.perf_counter()
        function()
        if ON_DEVICE:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:] or times)


def sorts(config: MachineConfig, batch: int, words: int) -> tuple[np.ndarray, np.ndarray]:
    """Registers and memories of sorts of random words at address 1."""
    registers, memory = np.zeros((batch, config.registers), np.int64), np.zeros((batch, config.memory), np.int64)
    registers[:, :2] = 1, words
    memory[:, 1 : 1 + words] = np.random.default_rng(0).integers(0, min(10_000, config.values), (batch, words))
    return registers, memory


def check(name: str, same: bool) -> None:
    if not same:
        raise SystemExit(f"{name}: the device does not find what the CPU finds")


def exact(device: torch.device) -> list[dict[str, Any]]:
    config = MachineConfig(values=2**31, memory=128, call_depth=64)
    here, there = ExactMachine(INSERTION_SORT, config), ExactMachine(INSERTION_SORT, config, device="cuda")
    registers, memory = sorts(config, BATCHES[0], EXACT_WORDS)
    entries = [0] * BATCHES[0]
    expected, found = here.execute(entries, registers, memory), there.execute(entries, registers, memory)
    check("exact", all(np.array_equal(getattr(found, name), value) for name, value in vars(expected).items()))
    rows = [
        {
            "engine": "exact, one core", "batch": BATCHES[0],
            "rate": int(expected.steps.sum()) / seconds(lambda: here.execute(entries, registers, memory)),
        }
    ]  # fmt: skip
    for batch in BATCHES:
        registers, memory = sorts(config, batch, EXACT_WORDS)
        rows.append({"engine": "exact, kernel", "batch": batch, "rate": kernel_rate(config, registers, memory, device)})
        steps = 0

        def whole(batch: int = batch, registers: np.ndarray = registers, memory: np.ndarray = memory) -> None:
            nonlocal steps
            steps = int(there.execute([0] * batch, registers, memory).steps.sum())

        took = seconds(whole, 1)
        rows.append({"engine": "exact, whole", "batch": batch, "rate": steps / took})
    return rows


def kernel_rate(config: MachineConfig, registers: np.ndarray, memory: np.ndarray, device: torch.device) -> float:
    """Instructions a second of the kernel alone; the states lie on the device, and are copied there before each run."""
    code = torch.from_numpy(packed(INSERTION_SORT[None])).to(device)
    entries = torch.zeros(len(registers), dtype=torch.int32, device=device)
    banks, memories = cuda.to_lanes(registers, config, device), cuda.to_lanes(memory, config, device)
    steps = 0
    times = []
    for _ in range(4 if ON_DEVICE else 1):
        starts = banks.clone(), memories.clone()
        if ON_DEVICE:
            torch.cuda.synchronize()
        start = time.perf_counter()
        ran = cuda.run(code, entries, *starts, config, config.max_steps)
        steps = int(ran.steps.sum())  # waits
        times.append(time.perf_counter() - start)
    return steps / statistics.median(times[1:] or times)


def sweep(device: torch.device) -> list[dict[str, Any]]:
    """The exact kernel and the adjoint's by the sizes of their blocks."""
    rows = []
    config = MachineConfig(values=2**31, memory=128, call_depth=64)
    for batch in BATCHES[1:]:
        registers, memory = sorts(config, batch, EXACT_WORDS)
        for block, between in product((32, 64, 128, 256), (1, 4, 8, 32)):
            with mock.patch.multiple(cuda, BLOCK=block, BETWEEN=between):
                rate = kernel_rate(config, registers, memory, device)
            name = f"exact, kernel, BLOCK {block}, BETWEEN {between}"
            rows.append({"engine": name, "batch": batch, "rate": rate})
    for lanes, warps in ((32, 1), (64, 1), (128, 1), (64, 2), (128, 2), (128, 4)):
        with mock.patch.multiple(cuda, BACK_LANES=lanes, BACK_WARPS=warps):
            rate = adjoint_rate(ADJOINT_BATCHES[-1], device)
        name = f"adjoint, BACK_LANES {lanes}, BACK_WARPS {warps}"
        rows.append({"engine": name, "batch": ADJOINT_BATCHES[-1], "rate": rate})
    return rows


class CounterfactualSorts:
    """A batch of sorts, forward and backward, repeatedly."""

    def __init__(self, batch: int):
        self.config = MachineConfig(values=VALUES, memory=min(32, VALUES), registers=16, call_depth=8, max_steps=5_000)
        self.program = SoftProgram.from_instructions(INSERTION_SORT, self.config, dtype=torch.float64)
        registers, memory = sorts(self.config, batch, COUNTERFACTUAL_WORDS)
        hot = torch.nn.functional.one_hot
        self.words = hot(torch.from_numpy(memory), VALUES).double().requires_grad_()
        self.banks = hot(torch.from_numpy(registers), VALUES).double()
        self.weights = torch.from_numpy(np.random.default_rng(1).normal(size=(1, self.config.memory, VALUES)))
        self.gradient, self.executed = self.weights, 0

    def __call__(self, device: str | None) -> None:
        state, report = run_with_gradient(
            self.program, self.config, self.words, self.banks, [0] * len(self.words), "counterfactual",
            cells=range(1, 1 + COUNTERFACTUAL_WORDS), device=device,
        )  # fmt: skip
        (self.gradient,) = torch.autograd.grad((state.memory * self.weights).sum(), self.words)
        self.executed = report.executed


def counterfactual() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for batch in COUNTERFACTUAL_BATCHES:
        case = CounterfactualSorts(batch)
        case("cuda")
        found = case.gradient
        for name, device in (("one core", None), ("device", "cuda")):
            if device is None and batch > 16:
                continue
            took = seconds(partial(case, device))
            if device is None:
                check("counterfactual", torch.equal(case.gradient, found))
            rate = case.executed / took
            rows.append({"engine": f"counterfactual, {name}", "batch": batch, "rate": rate, "seconds": took})
    return rows


def adjoint_program() -> np.ndarray:
    return entries_of(np.vstack([INSERTION_SORT, np.zeros((60 - len(INSERTION_SORT), 5), np.int64)]), BASE)


def adjoint_runs(batch: int, device: torch.device) -> cuda.AdjointRuns:
    registers, memory = sorts(BASE, batch, ADJOINT_WORDS)
    return cuda.AdjointRuns(adjoint_program(), [0] * batch, registers, memory, BASE, BASE.max_steps, device)


def adjoint_weights() -> np.ndarray:
    weights = np.zeros((BASE.memory, BASE.values))
    weights[: ADJOINT_WORDS + 2] = np.random.default_rng(1).normal(size=(ADJOINT_WORDS + 2, BASE.values))
    return weights


def adjoint_rate(batch: int, device: torch.device) -> float:
    """Instructions a second, forward and backward, with everything else about it: conversions, results to the CPU."""
    rows = torch.from_numpy(adjoint_weights()).to(device).expand(batch, -1, -1)
    steps = 0

    def both() -> None:
        nonlocal steps
        ran = adjoint_runs(batch, device)
        ran.backward([rows, *[None] * 5], False, False, 0.1)
        steps = int(ran.steps.sum())

    took = seconds(both, 2)
    return steps / took


def adjoint(device: torch.device) -> list[dict[str, Any]]:
    machine = AdjointMachine(adjoint_program(), BASE, damping=0.1)
    registers, memory = sorts(BASE, ADJOINT_BATCHES[0], ADJOINT_WORDS)
    weights = adjoint_weights()
    few = 4 if ON_DEVICE else 2
    pulled = []

    def here() -> int:
        pulled.clear()
        steps = 0
        for k in range(few):
            run = machine.run(0, registers[k], memory[k])
            gradient = machine.blank(run)
            gradient.memory[:, : BASE.values] = tangent(weights, run.memory)
            machine.backward(run, gradient)
            pulled.append(gradient.memory[:, : BASE.values])
            steps += run.steps
        return steps

    steps = here()
    rows_there = torch.from_numpy(weights).to(device).expand(ADJOINT_BATCHES[0], -1, -1)
    found = adjoint_runs(ADJOINT_BATCHES[0], device).backward([rows_there, *[None] * 5], False, False, 0.1)
    wanted = np.stack(pulled)
    error = np.abs(found.memory[:few] - wanted).max() / max(1.0, np.abs(wanted).max())
    check("adjoint", bool(error <= 1e-9))
    rows: list[dict[str, Any]] = [{"engine": "adjoint, one core", "batch": few, "rate": steps / seconds(here)}]
    for batch in ADJOINT_BATCHES:
        rows.append({"engine": "adjoint, device", "batch": batch, "rate": adjoint_rate(batch, device)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sweep", action="store_true", help="the kernels by the sizes of their blocks, instead")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    reason = cuda.unavailable()
    if reason is not None:
        print(json.dumps({"unavailable": reason}) if options.json else f"no CUDA device: {reason}")
        return
    torch.set_num_threads(1)
    device = cuda.device_of("cuda")
    name = torch.cuda.get_device_name() if ON_DEVICE else "Triton's interpreter" if INTERPRETED else "none"
    start = time.perf_counter()
    if not options.json:
        print(f"instructions a second, one core against {name}, torch {torch.__version__}")
    rows: list[dict[str, Any]] = []
    for part in [lambda: sweep(device)] if options.sweep else [
        lambda: exact(device), counterfactual, lambda: adjoint(device)
    ]:  # fmt: skip
        found = part()
        rows += found
        for row in () if options.json else found:
            took = f"   {row['seconds'] * 1e3:10.2f} ms" if "seconds" in row else ""
            print(f"  {row['engine']:48} batch {row['batch']:7,}: {row['rate'] / 1e6:12.1f} million{took}", flush=True)
    total = time.perf_counter() - start
    if options.json:
        print(json.dumps({"device": name, "rows": rows, "seconds": total}))
    else:
        print(f"the device found what the CPU found; {total:.1f} s")


if __name__ == "__main__":
    main()
