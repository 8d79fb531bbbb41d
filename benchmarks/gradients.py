"""Speed, growth and size of the three kinds of gradient through a run: ``dense``, ``adjoint``, ``counterfactual``.

    python benchmarks/gradients.py [--tables speed dense counterfactual growth depth leak] [--quick] [--json]
        [--output FILE.json] [--plot FILE.png]

All on one core, in one process, in CPU time: float64, and float32 for the speed of dense. Speeds are medians of repeats;
what must not depend on the machine's load is a ratio of figures measured next to each other. Tables:

- speed: instructions a second, forward and backward, on an insertion sort padded to 60 instructions at V = N = 128;
- dense: the same program's cost of a dense step against its floor, the bytes that it must move at the bandwidth of a large
  copy: state and program read and the state written, and for the way back the state and its gradient read, and a
  gradient written. As it is and compiled by ``torch.compile``; on a CUDA device too where there is one, with a proof that the
  host never waits in a step;
- counterfactual: all 16 cells × 128 values of the same sort on 16 words;
- growth: the cost of a step of the adjoint with N, P and the number of steps, each as time over the smallest case;
- depth: the greatest entry of the gradient of the initial memory and registers, by kind, fetch and damping, against steps;
- leak: probability that dense loses from the exact run's program counter, against steps and the sharpness of the program's
  weights, every field a softmax whose right entry leads by so many nats.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

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
from neurallib.modeling_neurallib.machine.dense import DenseMachine, DenseState, SoftProgram

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
    """Adjoint and dense on the same program."""
    code = padded(INSERTION_SORT, 60)
    case = AdjointCase(code, PAPER, 60, damping=0.1)
    steps, _ = case()
    adjoint = median_seconds(case, 9) / steps
    figures = {"adjoint_instructions_per_second": 1 / adjoint, "adjoint_steps": steps, "log_bytes_a_step": LOG_BYTES}
    for batch in (1, 32):
        alone, both = dense_step_seconds(code, batch, 4, 2 if quick else 3)
        figures[f"dense_forward_ms_batch_{batch}"] = alone * 1e3
        figures[f"dense_both_ms_batch_{batch}"] = both * 1e3
        figures[f"adjoint_over_dense_batch_{batch}"] = both / batch / adjoint
    return figures


# Dense against its floor


def seconds_on(device: str, function: Callable[[], Any], repeats: int) -> float:
    """The median of ``repeats`` calls, after one that compiles: processor time, or on a device the time until it is done."""
    if device == "cpu":
        return median_seconds(function, repeats)
    function()
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        function()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def copied_bytes_a_second(device: str) -> float:
    """Bytes read and written a second by a copy far larger than any cache."""
    block = torch.ones(2**26 if device == "cpu" else 2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(block)
    return 2 * len(block) / seconds_on(device, lambda: target.copy_(block), 7)


class DenseCase:
    """Steps of a batch of dense machines on a device, float32; ``step`` maps a state's six tensors to six."""

    STEPS = 4

    def __init__(self, device: str, batch: int, arithmetic: Literal["tables", "circuits"] = "tables"):
        code = padded(INSERTION_SORT, 60)
        program = SoftProgram.from_instructions(code, PAPER, device=device)
        self.machine = DenseMachine(program, PAPER, arithmetic=arithmetic)
        registers, memory = sort_state(PAPER, 16)
        words, banks = (
            self.machine.one_hot_words(np.tile(part, (batch, 1))).float().to(device).requires_grad_()
            for part in (memory, registers)
        )
        self.inputs = (words, banks)
        self.state = self.machine.state_from(words, banks, [0] * batch)
        self.weights = torch.randn(batch, PAPER.memory, PAPER.values, device=device)
        held = sum(rows.numel() for rows in vars(self.state).values()) * 4
        fields = sum(field.numel() for field in vars(program).values()) * 4
        self.bytes_forward, self.bytes_both = 2 * held + fields, 5 * held + 2 * fields

    def step(self, *parts: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(vars(self.machine.step(DenseState(*parts))).values())

    def forward(self, step: Callable[..., tuple[torch.Tensor, ...]]) -> torch.Tensor:
        parts = tuple(vars(self.state).values())
        for _ in range(self.STEPS):
            parts = step(*parts)
        return (parts[0] * self.weights).sum()

    def both(self, step: Callable[..., tuple[torch.Tensor, ...]]) -> Any:
        return torch.autograd.grad(self.forward(step), self.inputs)

    def timed(self, device: str, step: Callable[..., tuple[torch.Tensor, ...]], repeats: int) -> dict[str, float]:
        """Milliseconds a step."""
        with torch.no_grad():
            alone = seconds_on(device, lambda: self.forward(step), repeats)
        whole = seconds_on(device, lambda: self.both(step), repeats)
        return {"forward_ms": alone / self.STEPS * 1e3, "both_ms": whole / self.STEPS * 1e3}


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:300]


def host_waits() -> dict[str, str]:
    """Whether the host waits for the device in a step, forward and backward: "never", or what made it."""
    found = {}
    for arithmetic in ("tables", "circuits"):
        case = DenseCase("cuda", 2, arithmetic)  # type: ignore[arg-type]
        case.both(case.step)  # lookup tables and constants go to the device once
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            case.both(case.step)
            found[arithmetic] = "never"
        except RuntimeError as error:
            found[arithmetic] = first_line(error)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return found


def graph_milliseconds(case: DenseCase, repeats: int) -> float:
    """Milliseconds a step, forward, where the steps are one CUDA graph."""
    with torch.no_grad():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            case.forward(case.step)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            case.forward(case.step)
        return seconds_on("cuda", graph.replay, repeats) / case.STEPS * 1e3


def dense_cost(quick: bool) -> dict[str, Any]:
    """Milliseconds of a dense step by device and batch, against the floor; compiled, too, or why not."""
    found: dict[str, Any] = {}
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        bandwidth = copied_bytes_a_second(device)
        table: dict[str, Any] = {"gigabytes_a_second": bandwidth / 1e9, "batches": {}}
        repeats = (3 if quick else 5) if device == "cpu" else 20
        for batch in (1, 32) if device == "cpu" else (1, 32, 1024):
            case = DenseCase(device, batch)
            row: dict[str, Any] = {
                "floor_forward_ms": case.bytes_forward / bandwidth * 1e3,
                "floor_both_ms": case.bytes_both / bandwidth * 1e3,
                **case.timed(device, case.step, repeats),
            }
            try:
                torch._dynamo.reset()
                began = time.perf_counter()
                step = torch.compile(case.step, fullgraph=True, dynamic=False)
                pairs = zip(case.both(step), case.both(case.step), strict=True)
                apart = max(float(((new - old).abs() / old.abs().max()).max()) for new, old in pairs)
                row["compiled"] = {**case.timed(device, step, repeats), "relative_difference": apart}
                row["compiled"]["seconds_with_compiling"] = time.perf_counter() - began
            except Exception as error:
                row["compiled"] = first_line(error)
            if device == "cuda":
                try:
                    row["graph_forward_ms"] = graph_milliseconds(case, repeats)
                except Exception as error:
                    row["graph_forward_ms"] = first_line(error)
            table["batches"][batch] = row
        if device == "cuda":
            table["name"] = torch.cuda.get_device_name()
            table["host_waits"] = host_waits()
        found[device] = table
    return found


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
    for steps in (10, 30, 100, 300, 1_000, 3_000, 10_000) + (() if quick else (30_000, 100_000)):
        row: dict[str, Any] = {"steps": steps}
        for kind in ("dense", "adjoint", "counterfactual"):
            for fetch in ("separate", "joint") if kind != "counterfactual" else ("separate",):
                for damping in DAMPED if kind != "counterfactual" else (1.0,):
                    name = kind if kind == "counterfactual" else f"{kind} {fetch} {damping:g}"
                    if kind == "dense" and steps > (100 if quick else 1_000) // (3 if fetch == "joint" else 1):
                        row[name] = "not run"  # it is adjoint's gradient, to 1e-9 (tests/machine/test_adjoint.py)
                        continue
                    words = hot(torch.from_numpy(memory)[None], config.values).double().requires_grad_()
                    try:
                        state, _ = run_with_gradient(
                            program, config, words, banks, [0], kind, max_steps=steps, fetch=fetch, damping=damping,
                            unfinished="state", cells=range(1, 10),
                        )  # fmt: skip
                        gradients = torch.autograd.grad((state.memory * weights).sum(), (words, banks))
                    except GradientError as error:
                        at = int(str(error).split(" at step ")[-1].split()[0])
                        row[name] = f"overflow {steps - at:,} back"
                        continue
                    row[name] = max(
                        float((part - part.gather(-1, at.argmax(-1, keepdim=True))).abs().max())
                        for part, at in zip(gradients, (words, banks), strict=True)
                    )
        rows.append(row)
    return rows


def leak(quick: bool) -> list[dict[str, float]]:
    """The probability that dense does not give to the exact run's program counter, by the gap of logits and the steps."""
    config = MachineConfig(values=32, memory=16, registers=16, call_depth=2)
    exact = SoftProgram.from_instructions(LOOPED, config, dtype=torch.float64)
    registers, memory = sort_state(config, 9)
    memory %= config.values
    steps = (1, 10, 30, 100, 300) + (() if quick else (1_000, 3_000))
    places = AdjointMachine(entries_of(LOOPED, config), config).run(0, registers, memory, steps[-1] + 1).log[:, 0]
    rows = []
    for gap in (6.0, 12.0, 24.0, 48.0) if quick else (6.0, 9.0, 12.0, 18.0, 24.0, 30.0, 36.0, 48.0):
        soft = SoftProgram(*((gap * field).softmax(-1) for field in vars(exact).values()))
        machine = DenseMachine(soft, config)
        words, banks = (machine.one_hot_words(part[None]).double() for part in (memory, registers))
        state = machine.state_from(words, banks, [0])
        row = {"gap": gap}
        with torch.no_grad():
            for step in range(1, steps[-1] + 1):
                state = machine.step(state)
                if step in steps:
                    there = state.program_counter[0, places[step]] * (1 - state.halted[0])
                    row[f"lost at {step}"] = float(1 - there)
        rows.append(row)
    return rows


def plotted(figures: dict[str, Any], path: str) -> None:
    """The size of the gradients and the leak, against steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 5))
    rows = figures.get("depth", [])
    for name in [name for name in (rows[0] if rows else {}) if name != "steps"]:
        points = [(row["steps"], row[name]) for row in rows if not isinstance(row[name], str)]
        style = "-" if "separate" in name else "--" if "joint" in name else "-."
        left.plot(*zip(*points, strict=True), style, marker="." if "dense" in name else "o", label=name)
        if len(points) < len(rows) and str(rows[len(points)][name]).startswith("overflow"):
            left.plot(*points[-1], "rx", markersize=12)
    left.set(
        xscale="log", yscale="log", xlabel="steps", ylabel="greatest entry of the gradient (red cross: then overflow)"
    )
    for row in figures.get("leak", []):
        points = [(int(name.split()[-1]), max(lost, 1e-17)) for name, lost in row.items() if name != "gap"]
        right.plot(*zip(*points, strict=True), marker="o", label=f"gap {row['gap']:g}")
    right.set(xscale="log", yscale="log", xlabel="steps", ylabel="probability lost by the program counter")
    for axis in (left, right):
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


TABLES: dict[str, Callable[[bool], Any]] = {
    "speed": speed,
    "dense": dense_cost,
    "counterfactual": lambda quick: counterfactual_sort(3 if quick else 9),
    "growth": growth,
    "depth": depth,
    "leak": leak,
}


def show_speed(fast: dict[str, float]) -> None:
    print("insertion sort of 60 words, 60 instructions, V = N = 128, one core")
    print(
        f"  adjoint, forward and backward: {fast['adjoint_instructions_per_second'] / 1e6:.2f} million instructions/s"
    )
    for batch in (1, 32):
        print(
            f"  dense, batch {batch:2}: {fast[f'dense_forward_ms_batch_{batch}']:.2f} ms a step forward, "
            f"{fast[f'dense_both_ms_batch_{batch}']:.2f} ms with backward; "
            f"adjoint is {fast[f'adjoint_over_dense_batch_{batch}']:,.0f} times"
        )
    print(f"  log: {LOG_BYTES} bytes a step")


def show_dense(found: dict[str, Any]) -> None:
    for device, table in found.items():
        print(
            f"a dense step, V = N = 128, 60 instructions, {table.get('name', device)}: milliseconds, and times the floor at "
            f"{table['gigabytes_a_second']:.1f} GB/s"
        )
        for batch, row in table["batches"].items():
            for kind, times in (("as it is", row), ("compiled", row["compiled"])):
                if isinstance(times, str):
                    print(f"  batch {batch:4}  {kind}: fails, {times}")
                    continue
                print(
                    f"  batch {batch:4}  {kind}: forward {times['forward_ms']:.3f} ms, "
                    f"{times['forward_ms'] / row['floor_forward_ms']:.0f} times; with backward {times['both_ms']:.3f} ms, "
                    f"{times['both_ms'] / row['floor_both_ms']:.0f} times"
                    + (f"; gradients differ by {times['relative_difference']:.0e}" if kind == "compiled" else "")
                )
            if "graph_forward_ms" in row:
                graph = row["graph_forward_ms"]
                print(
                    f"  batch {batch:4}  one CUDA graph: forward {graph if isinstance(graph, str) else f'{graph:.3f} ms'}"
                )
        if "host_waits" in table:
            print(f"  the host waits in a step: {table['host_waits']}")


def show(name: str, found: Any) -> None:
    if name == "speed":
        show_speed(found)
    elif name == "dense":
        show_dense(found)
    elif name == "counterfactual":
        print(
            f"counterfactual gradient of a 16-word insertion sort, 16 × 128 values: {found['milliseconds']:.1f} ms, "
            f"{found['instructions']:,} instructions"
        )
    elif name == "growth":
        print("adjoint, microseconds a step, and times the smallest case")
        for axis, table in found.items():
            for size, seconds in table:
                print(f"  {axis:>5} = {size:9,}: {seconds * 1e6:8.3f} µs {seconds / table[0][1]:8.2f} times")
    elif name == "depth":
        print("greatest entry of the gradient of memory and registers, by kind, fetch and damping")
        for row in found:
            print(f"  {row['steps']:,} steps")
            for kind, value in row.items():
                if kind != "steps":
                    print(f"    {kind:24} {value if isinstance(value, str) else format(value, '.3g')}")
    else:
        print("probability lost by dense, fields softened to a gap of logits")
        for row in found:
            print("  " + "   ".join(f"{kind} {value:.2g}" for kind, value in row.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--quick", action="store_true", help="fewer steps and repeats")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--output", help="a file for the figures as JSON")
    parser.add_argument("--plot", help="a picture file for depth and leak; needs matplotlib")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = {}
    for name in options.tables:
        figures[name] = TABLES[name](options.quick)
        if not options.json:
            show(name, figures[name])
            sys.stdout.flush()
    if options.json:
        print(json.dumps(figures))
    if options.output:
        Path(options.output).write_text(json.dumps(figures) + "\n")
    if options.plot:
        plotted(figures, options.plot)


if __name__ == "__main__":
    main()
