"""Counterfactual gradients, and the one interface to every kind of gradient through a run.

When the cells of a machine are independent random words, the expected loss is linear in each cell's distribution, and its
derivative for "cell i holds v" is the expected loss of the runs in which it does. So the gradient is made of exact runs,
one an alternative, shared up to the step where the changed cell is first read. It is the gradient of the expectation
itself, with no mean-field error, and cannot grow with depth: no entry exceeds the greatest difference of two losses.
The mathematics is in GRADIENTS.md, beside this file.

``run_with_gradient`` runs machines with any kind of gradient, ``expected_loss`` takes a loss of whole final states.

Source: the gradient of a multilinear extension (Owen, 1972); with sampled inputs it is the estimator that sums over one
variable exactly (local expectation gradients, arXiv 1503.01494).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from dataclasses import fields as fields_of
from itertools import repeat
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ...configuration.machine_config import MachineConfig
from .adjoint import (
    SLOTS,
    Fetch,
    GradientError,
    alternatives,
    as_gradient,
    check_shapes,
    checked_rows,
    execute,
    keep_final,
    packed,
    run_adjoint,
    unfinished_error,
)
from .dense import Arithmetic, DenseMachine, DenseState, SoftProgram, checked_gradients, looks_between
from .operations import OPERATIONS
from .state import MachineError

LARGEST_VALUES = 65_536
"""The largest V of counterfactual gradients."""

LARGEST_TABLE = 2**28
"""Entries of the largest table of alternatives or of their final states."""

Kind = Literal["dense", "adjoint", "counterfactual"]

_FIELDS = tuple(item.name for item in fields_of(SoftProgram))

# ---------------------------------------------------------------------------------------------------------------------
# Samples, and all alternatives of each
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class Report:
    """What a run with gradients did; filled in as it goes.

    Attributes:
        kind: of the gradient.
        steps: of each machine, int64 [B]; with ``counterfactual`` of each sample, [B, samples].
        halted: which of them halted by themselves, bool, likewise.
        samples: runs a machine's outputs are the mean of; 1 where they are exact.
        variance: by input ("memory", "registers", or a field of the program), the variance of each entry of its sampled
            gradient, shaped like the input; zeros where the gradient is exact. Empty before backward, and for the kinds
            that do not sample. With one sample of a soft input it is not a number that can be known, and is NaN.
        executed: instructions executed in forward and backward together, by the kinds that run exactly.
    """

    kind: Kind
    steps: np.ndarray
    halted: np.ndarray
    samples: int = 1
    variance: dict[str, Tensor] = field(default_factory=dict)
    executed: int = 0


@dataclass(frozen=True)
class Outcomes:
    """Final states of K runs, for a loss to judge.

    Attributes:
        memory, registers: words, int64 [K, N] and [K, R].
        program_counters: int64 [K].
        depths: of the stack, int64 [K].
        steps: int64 [K].
        halted: bool [K].
        machine: the machine of the batch, 0…B−1, that all K runs are of.
    """

    memory: Tensor
    registers: Tensor
    program_counters: Tensor
    depths: Tensor
    steps: Tensor
    halted: Tensor
    machine: int


Loss = Callable[[Outcomes], Tensor]
"""Final states of K runs → the loss of each, [K]."""


def _outcomes(finals: np.ndarray, machine: int, registers: int) -> Outcomes:
    rows = torch.from_numpy(finals)
    split = 4 + registers
    return Outcomes(rows[:, split:], rows[:, 4:split], rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3] != 0, machine)


class _Sampled:
    """B machines, each as independent random inputs: samples of them, their runs and their alternatives."""

    def __init__(
        self,
        program: SoftProgram,
        config: MachineConfig,
        memory: Tensor,
        registers: Tensor,
        entries: Sequence[int],
        samples: int,
        generator: torch.Generator | None,
        limit: int,
        unfinished: str,
        portable: bool | None,
        device: str | None = None,
    ):
        if config.values > LARGEST_VALUES:
            raise MachineError(
                f"counterfactual gradients take V ≤ {LARGEST_VALUES}, found {config.values}; use a smaller machine"
            )
        if samples < 1:
            raise GradientError(f"samples must be at least 1, found {samples}")
        self.config, self.entries, self.limit, self.unfinished = config, list(entries), limit, unfinished
        self.kernel = getattr(alternatives, "py_func", alternatives) if portable else alternatives
        self.execute = getattr(execute, "py_func", execute) if portable else execute
        self.size = len(program)
        inputs = {"memory": memory, "registers": registers, **vars(program)}
        soft = False
        drawn: dict[str, np.ndarray] = {}
        for name, rows in inputs.items():
            checked_rows(name if name in ("memory", "registers") else f"{name} of the program", rows)
            soft = soft or bool((rows.amax(-1) < 1 - 1e-6).any())
        self.soft, self.samples = soft, samples if soft else 1
        batch = len(self.entries)
        for name, rows in inputs.items():
            whole = rows.detach().to("cpu", torch.float64)
            if whole.dim() == 2:  # a program is drawn anew for each machine
                whole = whole.expand(batch, -1, -1)
            drawn[name] = self._draw(whole, generator)
        self.memory, self.registers = drawn["memory"].astype(np.int32), drawn["registers"]
        self.rows = np.stack([drawn[name] for name in _FIELDS], axis=-1)  # [B, samples, P, 5]
        self.on_device: Any = None  # all samples of all machines, machine by machine
        if device is not None:
            from .cuda import SampleRuns, device_of

            code = self.rows.reshape(-1, self.size, len(_FIELDS))
            starts = np.repeat(np.array(self.entries, np.int64), self.samples).tolist()
            words = self.memory.reshape(-1, config.memory)
            self.on_device = SampleRuns(
                code, starts, self.registers.reshape(-1, config.registers), words, config, limit, device_of(device)
            )

    def _draw(self, rows: Tensor, generator: torch.Generator | None) -> np.ndarray:
        """Indices [B, samples, rows] drawn from distributions [B, rows, K]."""
        if self.samples == 1 and not bool((rows.amax(-1) < 1 - 1e-6).any()):
            return rows.argmax(-1)[:, None].numpy()
        total = rows.clamp_min(0).cumsum(-1)
        shape = (rows.shape[0], rows.shape[1], self.samples)
        at = torch.rand(shape, generator=generator, dtype=torch.float64) * total[..., -1:]
        drawn = torch.searchsorted(total, at, right=True).clamp_max(rows.shape[-1] - 1)
        return np.ascontiguousarray(drawn.transpose(1, 2).numpy())

    def run(self, report: Report) -> np.ndarray:
        """Final states of every sample, int64 [B, samples, 4 + R + N].

        Raises:
            GradientError: a run has not halted at the limit, unless that was allowed.
        """
        batch, config = len(self.entries), self.config
        finals = np.empty((batch, self.samples, 4 + config.registers + config.memory), np.int64)
        if self.on_device is not None:
            finals[:] = self.on_device.finals().reshape(finals.shape)
            stopped = np.flatnonzero((finals[:, :, 3] == 0).any(1))
            if len(stopped) and self.unfinished == "error":
                raise unfinished_error("counterfactual", int(stopped[0]), self.limit)
        for k, entry in enumerate(self.entries if self.on_device is None else ()):
            for sample in range(self.samples):
                r, m = self.registers[k, sample].copy(), self.memory[k, sample].copy()
                stack, cursor = np.zeros(config.call_depth, np.int32), np.array([entry, 0, 0, 0, 0], np.int64)
                code = packed(self.rows[k, sample], config.values)
                self.execute(code, r, m, stack, cursor, self.limit, config.values, np.empty((0, 2), np.int32))
                if not cursor[3] and self.unfinished == "error":
                    raise unfinished_error("counterfactual", k, self.limit)
                keep_final(r, m, cursor, finals[k, sample])
        report.steps, report.halted = finals[:, :, 2].copy(), finals[:, :, 3] != 0
        report.samples = self.samples
        report.executed += int(report.steps.sum())
        return finals

    def _table(
        self, machine: int, needed: dict[str, np.ndarray], whole: bool
    ) -> tuple[dict[str, np.ndarray], np.ndarray, int]:
        """Where in a table of losses the alternatives of each cell begin, how many a field has, and all there are.

        Args:
            machine: that an error names.
            needed: as ``alternatives``.
            whole: whether final states are kept as well.

        Raises:
            GradientError: the table would be too large.
        """
        config, size = self.config, self.size
        widths = np.array([len(OPERATIONS), *(config.registers,) * 3, max(config.values, size)], np.int64)
        total = 0
        starts: dict[str, np.ndarray] = {}
        for name, count, width in (
            ("memory", config.memory, config.values),
            ("registers", config.registers, config.values),
            ("program", size, int(widths.sum())),
        ):
            wanted = needed.get(name, np.zeros(count, bool))
            starts[name] = np.where(wanted, total + (np.cumsum(wanted) - 1) * width, -1)
            total += int(wanted.sum()) * width
        columns = 4 + config.registers + config.memory
        if total * (columns if whole else 1) > LARGEST_TABLE:
            raise GradientError(
                f"the alternatives of machine {machine} need a table of {total} losses"
                + (f" and final states of {columns} words" if whole else "")
                + f", the limit is {LARGEST_TABLE} entries; choose fewer cells of memory (cells=…)"
            )
        return starts, widths, total

    def _ready(
        self, needed: dict[str, np.ndarray], weights: tuple[np.ndarray, ...] | None, whole: bool
    ) -> Iterator[Any]:
        """The alternatives of sample after sample, run on the device; None for each where there is none."""
        if self.on_device is None:
            return repeat(None)
        from .cuda import Weights

        starts, widths, total = self._table(0, needed, whole)
        on_device = None
        if weights is not None:
            on_device = Weights(*(torch.from_numpy(np.ascontiguousarray(x)).to(self.on_device.device) for x in weights))
        owners = np.repeat(np.arange(len(self.entries)), self.samples)
        return self.on_device.alternatives(starts, widths, total, owners, on_device)

    def alternatives(
        self,
        machine: int,
        sample: int,
        needed: dict[str, np.ndarray],
        weights: tuple[np.ndarray, np.ndarray, np.ndarray, float, float, float] | None,
        loss: Loss | None,
        report: Report,
        ready: Any = None,
    ) -> dict[str, np.ndarray]:
        """The loss of every alternative in one sample, relative to the sample's own, by input: [rows, K] each.

        Args:
            machine, sample: which.
            needed: by input, the rows whose alternatives are wanted, bool [rows]; a program is wanted as a whole.
            weights: what rows of registers and memory, the program counter, halting, steps and open calls contribute.
            loss: instead, of whole final states.
            report: its ``executed`` is added to.
            ready: the alternatives, where they have been run on a CUDA device.

        Raises:
            GradientError: the table would be too large, or an alternative has not halted at the limit.
        """
        config, size, code = self.config, self.size, self.rows[machine, sample]
        starts, widths, total = self._table(machine, needed, loss is not None)
        if ready is None:
            columns = 4 + config.registers + config.memory
            losses = np.zeros(total)
            finals = np.zeros((total, columns) if loss is not None else (0, 0), np.int64)
            unfinished = np.array([-1, 0], np.int64)
            if weights is None:
                weights = np.zeros((0, 0)), np.zeros((0, 0)), np.zeros(size + 1), 0.0, 0.0, 0.0
            executed, _ = self.kernel(
                packed(code, config.values), SLOTS, self.entries[machine], self.registers[machine, sample],
                self.memory[machine, sample], config.call_depth, self.limit, config.values, starts["memory"],
                starts["registers"], starts["program"], widths, *weights, losses, finals, unfinished,
            )  # fmt: skip
        else:
            losses, finals, unfinished, executed = ready.losses, ready.finals, ready.unfinished, ready.executed
        report.executed += executed
        if unfinished[1] and self.unfinished == "error":
            raise GradientError(
                f"{unfinished[1]} alternatives of machine {machine} have not halted at step {self.limit}, the limit "
                f"max_steps, first {self._describe(int(unfinished[0]), starts, widths)}; raise it, or pass "
                "unfinished='state' to take the state at the limit"
            )
        if loss is not None:
            losses = _judged(loss, finals, machine, config.registers)
        found: dict[str, np.ndarray] = {}
        for name, words in (("memory", self.memory[machine, sample]), ("registers", self.registers[machine, sample])):
            if name in needed:
                table = np.zeros((len(words), config.values))
                chosen = starts[name] >= 0
                first = int(starts[name][chosen][0]) if chosen.any() else 0
                rows = losses[first : first + int(chosen.sum()) * config.values].reshape(-1, config.values)
                table[chosen] = rows - np.take_along_axis(rows, words[chosen].astype(np.int64)[:, None], 1)
                found[name] = table
        if "program" in needed:
            rows = losses[int(starts["program"][0]) :].reshape(size, -1)
            ends = np.cumsum(widths)
            for column, name in enumerate(_FIELDS):
                part = rows[:, ends[column] - widths[column] : ends[column]]
                found[name] = part - np.take_along_axis(part, code[:, column, None], 1)
        return found

    def gradients(
        self,
        needed: dict[str, np.ndarray],
        weights: tuple[np.ndarray, ...] | None,
        loss: Loss | None,
        scales: np.ndarray,
        report: Report,
    ) -> dict[str, np.ndarray]:
        """The mean over samples of all alternatives' losses, each machine's times its scale; and its variance, reported.

        Args:
            needed, loss: as ``alternatives``.
            weights: for each machine those of ``alternatives``: [B, R, V], [B, N, V], [B, P + 1], [B].
            scales: float64 [B].
        """
        means: dict[str, np.ndarray] = {}
        spreads: dict[str, np.ndarray] = {}
        batch = len(self.entries)
        ready = self._ready(needed, weights, loss is not None)
        for machine in range(batch):
            own = None
            if weights is not None:
                own = (
                    weights[0][machine],
                    weights[1][machine],
                    weights[2][machine],
                    float(weights[3][machine]),
                    0.0,
                    0.0,
                )
            sums: dict[str, np.ndarray] = {}
            squares: dict[str, np.ndarray] = {}
            for sample in range(self.samples):
                for name, table in self.alternatives(machine, sample, needed, own, loss, report, next(ready)).items():
                    table *= scales[machine]
                    sums[name] = sums.get(name, 0.0) + table
                    squares[name] = squares.get(name, 0.0) + table * table
            for name, total in sums.items():
                mean = total / self.samples
                if self.samples > 1:
                    spread = (squares[name] / self.samples - mean * mean).clip(0) / (self.samples - 1)
                else:
                    spread = np.full_like(mean, np.nan if self.soft else 0.0)
                if name in ("memory", "registers"):
                    means.setdefault(name, np.zeros((batch, *mean.shape)))[machine] = mean
                    spreads.setdefault(name, np.zeros((batch, *mean.shape)))[machine] = spread
                else:
                    means[name] = means.get(name, 0.0) + mean
                    spreads[name] = spreads.get(name, 0.0) + spread
        report.variance = {name: torch.from_numpy(spread) for name, spread in spreads.items()}
        return means

    def _describe(self, at: int, starts: dict[str, np.ndarray], widths: np.ndarray) -> str:
        for name, width in (("memory", self.config.values), ("registers", self.config.values)):
            inside = (starts[name] >= 0) & (starts[name] <= at) & (at < starts[name] + width)
            if inside.any():
                cell = int(inside.argmax())
                return f"{name}[{cell}] = {at - int(starts[name][cell])}"
        where = int(((starts["program"] >= 0) & (starts["program"] <= at)).sum()) - 1
        offset = at - int(starts["program"][where])
        column = int((np.cumsum(widths) <= offset).sum())
        return f"{_FIELDS[column]} of instruction {where} = {offset - int(widths[:column].sum())}"


def _judged(loss: Loss, finals: np.ndarray, machine: int, registers: int) -> np.ndarray:
    with torch.no_grad():
        found = loss(_outcomes(finals, machine, registers))
    if tuple(found.shape) != (len(finals),):
        raise GradientError(f"the loss must return one value a run, shape {(len(finals),)}, found {tuple(found.shape)}")
    if not torch.isfinite(found).all():
        raise GradientError(f"the loss of machine {machine} is not finite for some final state")
    return found.to("cpu", torch.float64).numpy()


def _needed(
    wants: Sequence[bool], config: MachineConfig, size: int, cells: Sequence[int] | None
) -> dict[str, np.ndarray]:
    """Which rows of which inputs need a gradient; ``wants`` is for memory, registers and the five fields."""
    needed: dict[str, np.ndarray] = {}
    if wants[0]:
        needed["memory"] = np.ones(config.memory, bool)
        if cells is not None:
            needed["memory"][:] = False
            needed["memory"][list(cells)] = True
    if wants[1]:
        needed["registers"] = np.ones(config.registers, bool)
    if any(wants[2:]):
        needed["program"] = np.ones(size, bool)
    return needed


def _as_gradients(means: dict[str, np.ndarray], wants: Sequence[bool], inputs: Sequence[Tensor]) -> list[Tensor | None]:
    names = ("memory", "registers", *_FIELDS)
    return [
        as_gradient(name, means[name], like) if wanted else None
        for name, wanted, like in zip(names, wants, inputs, strict=True)
    ]


class _CounterfactualRun(torch.autograd.Function):
    """(memory, registers, five fields) → memory, registers, program counter and halting as means over the samples."""

    @staticmethod
    def forward(
        ctx: Any, sampled: _Sampled, cells: Sequence[int] | None, report: Report, *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.sampled, ctx.cells, ctx.report = sampled, cells, report
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)
        like, config, split = inputs[0], sampled.config, 4 + sampled.config.registers
        finals = torch.from_numpy(sampled.run(report))

        def mean(words: Tensor, width: int) -> Tensor:
            """The share of samples with each word: [B, samples, …] → [B, …, width]."""
            shares = torch.zeros(len(words), *words.shape[2:], width, dtype=torch.float64)
            for sample in words.unbind(1):
                shares += one_hot(sample, width)
            return (shares / words.shape[1]).to(like)

        outputs = (
            mean(finals[:, :, split:], config.values),
            mean(finals[:, :, 4:split], config.values),
            mean(finals[:, :, 0], sampled.size + 1),
            mean(finals[:, :, 1], config.call_depth + 1),
            (finals[:, :, 3] != 0).double().mean(1).to(like),
        )
        ctx.mark_non_differentiable(outputs[3])
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        sampled, inputs, wants = ctx.sampled, ctx.saved_tensors, ctx.needs_input_grad[3:]
        config, batch = sampled.config, len(sampled.entries)
        shapes = ((config.memory, config.values), (config.registers, config.values), (sampled.size + 1,))
        arrays = []
        for name, gradient, shape in zip(
            ("memory", "registers", "program_counter", "", "halted"), gradients, (*shapes, (), ()), strict=True
        ):
            array = np.zeros((batch, *shape)) if gradient is None else gradient.to("cpu", torch.float64).numpy()
            if not np.isfinite(array).all():
                assert gradient is not None
                raise GradientError(
                    f"the gradient of the final {name} overflows {gradient.dtype} ({torch.finfo(gradient.dtype).max:.2g}) "
                    "after the last step, before the first one back: the loss itself is too steep"
                )
            arrays.append(np.ascontiguousarray(array))
        weights = arrays[1], arrays[0], arrays[2], arrays[4]
        needed = _needed(wants, config, sampled.size, ctx.cells)
        means = sampled.gradients(needed, weights, None, np.ones(batch), ctx.report)
        return None, None, None, *_as_gradients(means, wants, inputs)


class _ExpectedLoss(torch.autograd.Function):
    """(memory, registers, five fields) → the mean loss of the samples, [B]."""

    @staticmethod
    def forward(
        ctx: Any, sampled: _Sampled, loss: Loss, cells: Sequence[int] | None, report: Report, *inputs: Tensor
    ) -> Tensor:
        ctx.sampled, ctx.loss, ctx.cells, ctx.report = sampled, loss, cells, report
        ctx.save_for_backward(*inputs)
        finals, registers = sampled.run(report), sampled.config.registers
        judged = [_judged(loss, rows, machine, registers).mean() for machine, rows in enumerate(finals)]
        return torch.tensor(judged).to(inputs[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        sampled, wants = ctx.sampled, ctx.needs_input_grad[4:]
        needed = _needed(wants, sampled.config, sampled.size, ctx.cells)
        scales = gradients[0].to("cpu", torch.float64).numpy()
        means = sampled.gradients(needed, None, ctx.loss, scales, ctx.report)
        return None, None, None, None, *_as_gradients(means, wants, ctx.saved_tensors)


def expected_loss(
    program: SoftProgram,
    config: MachineConfig,
    memory: Tensor,
    registers: Tensor,
    entries: Sequence[int],
    loss: Loss,
    *,
    samples: int = 16,
    generator: torch.Generator | None = None,
    max_steps: int | None = None,
    unfinished: Literal["error", "state"] = "error",
    cells: Sequence[int] | None = None,
    portable: bool | None = None,
    device: str | None = None,
) -> tuple[Tensor, Report]:
    """The expected loss of B machines whose cells and fields are independent, with counterfactual gradients.

    Exact where every input is one-hot. Elsewhere a mean over samples, unbiased in value and gradient, the variance of
    every entry of the gradient reported.

    Args:
        program, memory, registers: distributions; soft ones are sampled. A soft program is drawn once for each run.
        config: the shape of the machine.
        entries: B code addresses.
        loss: of final states, any function; called in backward with the final states of all alternatives.
        samples: runs for each machine with a soft input.
        generator: of the samples.
        max_steps: a bound for each run, instead of the machine's own.
        unfinished: what a run is that has not halted by then: an ``error``, or the ``state`` that it has reached.
        cells: addresses of the memory cells that are differentiated, all by default.
        portable: True to run without numba, slowly.
        device: a CUDA device to run all machines, samples and alternatives on, side by side; None for the CPU. The
            gradients are the same to the last bit. What the alternatives of a run share is executed by each of them there.

    Returns:
        The losses [B], and a report that backward completes.

    Raises:
        GradientError: shapes disagree, rows are no distributions, a run or, in backward, an alternative has not halted, a
            loss is not finite, the table of alternatives is too large.
    """
    check_shapes(program, config, memory, registers, entries)
    limit = config.max_steps if max_steps is None else max_steps
    sampled = _Sampled(
        program, config, memory, registers, entries, samples, generator, limit, unfinished, portable, device
    )  # fmt: skip
    report = Report("counterfactual", np.zeros(0, np.int64), np.zeros(0, bool))
    inputs = (memory, registers, *vars(program).values())
    return _ExpectedLoss.apply(sampled, loss, cells, report, *inputs), report


# ---------------------------------------------------------------------------------------------------------------------
# One interface to all kinds
# ---------------------------------------------------------------------------------------------------------------------


def _run_dense(
    machine: DenseMachine,
    state: DenseState,
    limit: int,
    halt_threshold: float,
    unfinished: str,
) -> tuple[DenseState, np.ndarray]:
    """``DenseMachine.run``, each machine by itself: what has halted is left alone while others go on."""
    between = looks_between(state.halted.device)
    running = state.halted < halt_threshold
    steps = torch.zeros_like(running, dtype=torch.int64)
    for step in range(limit):
        before = state
        if step % between == 0:
            if not bool(running.any()):
                break
            before = checked_gradients(state, step, limit)
        state = machine.step(before)
        if between > 1 or not bool(running.all()):
            parts = []
            for new, old in zip(vars(state).values(), vars(before).values(), strict=True):
                parts.append(torch.where(running.reshape(-1, *(1,) * (new.dim() - 1)), new, old))
            state = DenseState(*parts)
        steps = steps + running
        running = state.halted < halt_threshold
    if unfinished == "error" and bool(running.any()):
        raise unfinished_error("dense", int(running.nonzero()[0, 0]), limit)
    return state, steps.cpu().numpy()


def run_with_gradient(
    program: SoftProgram,
    config: MachineConfig,
    memory: Tensor,
    registers: Tensor,
    entries: Sequence[int],
    kind: Kind = "dense",
    *,
    max_steps: int | None = None,
    fetch: Fetch = "separate",
    damping: float = 1.0,
    unfinished: Literal["error", "state"] = "error",
    halt_threshold: float = 0.99,
    samples: int = 16,
    generator: torch.Generator | None = None,
    cells: Sequence[int] | None = None,
    portable: bool | None = None,
    device: str | None = None,
    arithmetic: Arithmetic = "tables",
) -> tuple[DenseState, Report]:
    """Runs B machines; gradients of the chosen kind flow from the final states into memory, registers and program.

    | kind             | input            | the gradient                                             | grows with depth |
    |------------------|------------------|----------------------------------------------------------|------------------|
    | `dense`          | any              | of the superposition, by autograd                        | yes              |
    | `adjoint`        | one-hot          | the same, along an undo log                              | yes, the same    |
    | `counterfactual` | one-hot, or soft | of the expectation over independent inputs; if soft, from samples | no      |

    Each machine stops at its own halt. Gradients of ``adjoint`` and ``counterfactual`` are 0 at the word that an input
    holds (in a sample), those of ``dense`` are not: on the tangent of the simplex they are the same.

    Args:
        program: instructions, [P, …]; one-hot for ``adjoint``.
        config: the shape of the machine.
        memory, registers: distributions [B, N, V] and [B, R, V].
        entries: B code addresses.
        kind: of gradient.
        max_steps: a bound for each run, instead of the machine's own.
        fetch, damping: of the program counter, as ``AdjointMachine``; for ``dense`` and ``adjoint``.
        unfinished: what a run is that has not halted at ``max_steps``: an ``error``, or the ``state`` that it has reached.
        halt_threshold: the probability at which a machine of ``dense`` counts as halted.
        samples, generator, cells: as ``expected_loss``; for ``counterfactual``.
        portable: True to run ``adjoint`` and ``counterfactual`` without numba.
        device: a CUDA device to run all machines of ``adjoint`` and ``counterfactual`` on, side by side; None for the CPU.
            It does not depend on where the tensors are. ``dense`` runs where they are.
        arithmetic: of ``dense``: lookup tables or circuits of soft gates.

    Returns:
        The final states as distributions. With ``counterfactual`` and soft inputs they are means over samples, a loss
        linear in them has unbiased gradients, and stack and depth carry none (the stack is left at address 0).
        A report: steps, variance.

    Raises:
        GradientError: shapes disagree; rows are no distributions, or soft where one-hot ones are needed; a run has not
            halted; in backward, a gradient is not finite or an alternative has not halted.
        MachineError: the machine is too large for this kind.
    """
    limit = config.max_steps if max_steps is None else max_steps
    if unfinished not in ("error", "state"):
        raise GradientError(f"unfinished must be 'error' or 'state', found {unfinished!r}")
    check_shapes(program, config, memory, registers, entries)
    if kind == "adjoint":
        state, steps = run_adjoint(
            program, config, memory, registers, entries, max_steps=limit, fetch=fetch, damping=damping,
            unfinished=unfinished, portable=portable, device=device,
        )  # fmt: skip
        report = Report(kind, steps, state.halted.detach().cpu().numpy() > 0, executed=int(steps.sum()))
        return state, report
    if kind == "counterfactual":
        sampled = _Sampled(
            program, config, memory, registers, entries, samples, generator, limit, unfinished, portable, device
        )  # fmt: skip
        report = Report(kind, np.zeros(0, np.int64), np.zeros(0, bool))
        inputs = (memory, registers, *vars(program).values())
        words, banks, counter, depth, halted = _CounterfactualRun.apply(sampled, cells, report, *inputs)
        stack = torch.zeros(len(words), config.call_depth, sampled.size + 1).to(words)
        stack[..., 0] = 1
        return DenseState(words, banks, counter, stack, depth, halted), report
    if kind != "dense":
        raise GradientError(f"kind must be 'dense', 'adjoint' or 'counterfactual', found {kind!r}")
    for name, rows in {"memory": memory, "registers": registers, **vars(program)}.items():
        checked_rows(name if name in ("memory", "registers") else f"{name} of the program", rows)
    machine = DenseMachine(program, config, fetch=fetch, damping=damping, arithmetic=arithmetic)
    start = machine.state_from(memory, registers, entries)
    state, steps = _run_dense(machine, start, limit, halt_threshold, unfinished)
    return state, Report(kind, steps, state.halted.detach().cpu().numpy() >= halt_threshold)
