"""Programs that learn: soft weights, started at a compiled program, that follow a gradient through its runs.

Every field of every learned instruction is a distribution x over its alternatives, independent of the others; a program is
a draw of all of them. The loss of a run is

    correctness · error + halting · (not stopped) + efficiency · steps / limit + confidence · error, if stopped

where *stopped* means halted at the wanted address, and *error* is the weight of the judged words that are wrong; with
``counterfactual``, a call that has not returned costs ``halting`` too. Its
expectation is linear in each x, so its minimum is at a corner of the simplices: a program. The weights follow entropic
mirror descent: x is the softmax of accumulated gradients, so an alternative need not be probable to be learned. No
alternative falls below a least probability; so draws differ from the present program in a few fields, and changes that
are good only together are found.

Three gradients, by name:

- ``counterfactual``: exact runs of programs drawn from x, each with every field changed in turn. Unbiased.
- ``adjoint``: exact runs of programs drawn from x, and the derivative of each along its undo log, taken straight through
  the draw. A run has no derivative by its number of steps, so it knows no efficiency.
- ``dense``: the superposition of all programs at once, the paper's and its ancestor's own, by autograd. A program may stop
  a little at every step, so steps are Σ (1 − stopped), and confidence weighs the error at each step by what stops there.

Source: the loss is that of Adaptive Neural Compilation (arXiv 1605.07969); mirror descent is Nemirovski and Yudin's (1983).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, islice

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ...configuration.machine_config import MachineConfig
from .adjoint import SLOTS, alternatives, checked_rows, entries_of, first_right, packed, run_adjoint
from .counterfactual import Kind
from .dense import DenseMachine, SoftProgram
from .exact import ExactMachine, validated
from .operations import OPERATIONS
from .state import MachineError

READS = np.array(
    [[True, *(x in o.operands for x in "abt"), "i" in o.operands or "l" in o.operands] for o in OPERATIONS]
)
"""Which fields an operation reads, bool [operations, 5], columns as ``operations.FIELDS``."""

_JUMPS = np.array(["l" in operation.operands for operation in OPERATIONS])


class LearningError(MachineError):
    """Something that cannot be learned from or with; the message names it and what is expected."""


@dataclass(frozen=True)
class Examples:
    """B runs as they should be. A state is one row of words, the R registers before the N words of memory.

    Attributes:
        entry: the code address at which every run starts.
        stop: the code address at which it should halt.
        start: words at the start, int64 [B, R + N].
        wanted: words at the end, int64 [B, R + N].
        weights: what each wrong word costs, float64 [B, R + N], ≥ 0; 0 where it is not judged.
    """

    entry: int
    stop: int
    start: np.ndarray
    wanted: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, chosen: np.ndarray | slice) -> Examples:
        """Some of the examples, by their indices."""
        return Examples(self.entry, self.stop, self.start[chosen], self.wanted[chosen], self.weights[chosen])

    @classmethod
    def of(
        cls,
        instructions: np.ndarray,
        config: MachineConfig,
        start: np.ndarray,
        judged: np.ndarray,
        entry: int = 0,
        stop: int = 1,
    ) -> Examples:
        """Examples from a program that is right: what its exact runs leave in the judged words.

        If a run changes n judged words, a wrong one costs 1/n, and so does one that should not have been changed.

        Args:
            instructions: int64 [P, 5]; entry, stop: code addresses.
            start: words, int64 [B, R + N]. judged: bool [B, R + N].

        Raises:
            LearningError: shapes disagree, or a run faults or halts elsewhere.
        """
        if start.shape != judged.shape:
            raise LearningError(f"judged must have the shape of start, {start.shape}, found {judged.shape}")
        examples = cls(entry, stop, start, start, judged.astype(float))
        examples.check(config, len(instructions))
        wanted, _, halted = _final(instructions, config, examples, config.max_steps)
        if not halted.all():
            raise LearningError(
                f"the program must halt at address {stop} without a fault on every example, but does not on example "
                f"{int(halted.argmin())}; give a program and inputs that it is right on"
            )
        changed = (judged & (wanted != start)).sum(-1, keepdims=True)
        return cls(entry, stop, start, wanted, judged / np.maximum(changed, 1))

    def check(self, config: MachineConfig, size: int) -> None:
        """Refuses examples that do not belong to a machine of this shape with a program of ``size`` instructions.

        Raises:
            LearningError: naming the array, and what it should be.
        """
        shape = (len(self), config.registers + config.memory)
        if not len(self):
            raise LearningError("there are no examples; give at least one")
        for name in ("start", "wanted", "weights"):
            rows = getattr(self, name)
            if rows.shape != shape:
                raise LearningError(f"{name} of the examples must have shape {shape}, found {rows.shape}")
        for name in ("start", "wanted"):
            rows = getattr(self, name)
            if not np.issubdtype(rows.dtype, np.integer) or rows.min() < 0 or rows.max() >= config.values:
                raise LearningError(f"{name} of the examples must hold integers, words 0…{config.values - 1}")
        if not np.isfinite(self.weights).all() or self.weights.min() < 0:
            raise LearningError("weights of the examples must be finite and not negative")
        for name in ("entry", "stop"):
            if not 0 <= getattr(self, name) < size:
                raise LearningError(f"{name} must be a code address 0…{size - 1}, found {getattr(self, name)}")


@dataclass(frozen=True)
class Objective:
    """What a program is to learn, the weights of the four terms of the loss; each at least 0.

    Attributes:
        correctness: of the error at the end.
        halting: of not stopping where it should, and of each call left open.
        efficiency: of the steps, as a share of the limit.
        confidence: of the error where the program stops.
    """

    correctness: float = 1.0
    halting: float = 1.0
    efficiency: float = 0.0
    confidence: float = 0.0

    def __post_init__(self) -> None:
        for name, weight in vars(self).items():
            if not (np.isfinite(weight) and weight >= 0):
                raise LearningError(f"{name} must be a finite weight of at least 0, found {weight}")


@dataclass(frozen=True)
class Judgement:
    """How a program does on examples, by the exact engine.

    Attributes:
        right: for each example, whether the run stops where it should, without a fault, every judged word right; bool [B].
        steps: instructions of each run, int64 [B].
    """

    right: np.ndarray
    steps: np.ndarray


@dataclass
class Learned:
    """What learning came to.

    Attributes:
        program: the soft weights at the end.
        instructions: the best discretised program on the way, int64 [P, 5]: right on all examples in the fewest steps;
            the program that learning started at, if none was right.
        right: whether it is right on all examples.
        losses: the mean loss at each iteration.
        runs: runs of all kinds that were spent.
    """

    program: SoftProgram
    instructions: np.ndarray
    right: bool
    losses: list[float]
    runs: int


def judge(
    instructions: np.ndarray, config: MachineConfig, examples: Examples, max_steps: int | None = None
) -> Judgement:
    """Runs a program on every example, exactly.

    Raises:
        LearningError, MachineError: the examples or the instructions are out of range.
    """
    examples.check(config, len(instructions))
    words, steps, stopped = _final(instructions, config, examples, max_steps or config.max_steps)
    return Judgement(stopped & ~((words != examples.wanted) & (examples.weights > 0)).any(-1), steps)


def _final(
    instructions: np.ndarray, config: MachineConfig, examples: Examples, limit: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Words at the end, steps, and whether the run stopped where it should without a fault: [B, R + N], [B], [B]."""
    registers, memory = np.split(examples.start, [config.registers], axis=1)
    final = ExactMachine(instructions, config).execute([examples.entry] * len(examples), registers, memory, limit)
    stopped = (final.faults == 0) & (final.program_counters == examples.stop)
    return np.concatenate([final.registers, final.memory], axis=1), final.steps, stopped


def discretised(program: SoftProgram, config: MachineConfig, origin: np.ndarray | None = None) -> np.ndarray:
    """The instructions that a soft program gives the greatest weight to, field by field: int64 [P, 5].

    An operation that jumps takes the best code address 0…P − 1, another the best word. A field that its operation does not
    read is the one of ``origin``, or 0.

    Raises:
        GradientError: rows are not finite, or no distributions.
    """
    columns = [checked_rows(f"{name} of the program", rows).detach().cpu() for name, rows in vars(program).items()]
    size, values = len(program), config.values
    code = torch.stack([rows.argmax(-1) for rows in columns], dim=1).numpy()
    immediate = columns[4]
    words = torch.nn.functional.pad(immediate, (0, -immediate.shape[1] % values)).reshape(size, -1, values).sum(1)
    best = words.argmax(-1).numpy()
    code[:, 4] = np.where(
        _JUMPS[code[:, 0]], immediate[:, :size].argmax(-1).numpy(), best - values * (best >= config.half)
    )
    return np.where(READS[code[:, 0]], code, 0 if origin is None else origin)


class _Weights:
    """The weights that learn: accumulated gradients, and the distributions that they make.

    Attributes:
        rows: which instructions learn, bool [P].
        columns: for each field the distributions, float64 [P, K]; rows that do not learn are one-hot.
    """

    def __init__(self, origin: np.ndarray, rows: np.ndarray, config: MachineConfig, spread: float, free: bool):
        self.rows = rows
        self.exact = [
            field.numpy() for field in vars(SoftProgram.from_instructions(origin, config, torch.float64)).values()
        ]
        read = READS[origin[:, 0]]
        share = spread / max(1, int(read[rows].sum()))
        # The logit, relative to the greatest, at which all other alternatives of a field together have ``share``.
        self.least = [float(np.log(share / (1 - share) / (exact.shape[1] - 1))) for exact in self.exact]
        self.logits = [(1 - exact) * least for exact, least in zip(self.exact, self.least, strict=True)]
        for column, logits in enumerate(self.logits if free else ()):
            logits[~read[:, column]] = 0
        self._distribute()

    def follow(self, gradients: Gradients, rate: float) -> None:
        """One step of mirror descent."""
        for logits, gradient, least in zip(self.logits, gradients, self.least, strict=True):
            logits -= rate * gradient
            logits -= logits.max(-1, keepdims=True)
            np.maximum(logits, least, out=logits)
        self._distribute()

    def program(self) -> SoftProgram:
        return SoftProgram(*map(torch.from_numpy, self.columns))

    def _distribute(self) -> None:
        self.columns = []
        for logits, exact in zip(self.logits, self.exact, strict=True):
            soft = np.exp(logits)
            self.columns.append(np.where(self.rows[:, None], soft / soft.sum(-1, keepdims=True), exact))


def learn(
    instructions: np.ndarray,
    config: MachineConfig,
    examples: Examples,
    objective: Objective,
    *,
    rows: np.ndarray | None = None,
    kind: Kind = "counterfactual",
    iterations: int = 200,
    batch: int = 8,
    rate: float = 5.0,
    spread: float = 0.3,
    restart: int = 100,
    free: bool = True,
    max_steps: int | None = None,
    budget: int | None = None,
    first: bool = False,
    seed: int = 0,
) -> Learned:
    """Learns a program from examples, starting at these instructions.

    Args:
        instructions: int64 [P, 5].
        rows: which instructions may change, bool [P]; all by default. They may jump only to each other.
        kind: of gradient.
        iterations: steps of mirror descent, at most.
        batch: examples for each, drawn at random; each meets a program of its own draw.
        rate: of mirror descent: an alternative whose loss is greater by 1 loses a factor exp(rate) at a step.
        spread: in how many fields a draw differs from the present program, about, by chance alone; below the number of
            fields that the instructions read.
        restart: after so many iterations the weights begin anew at the best program so far: they can lose their way in
            programs that are all equally wrong, where no single field helps.
        free: fields that their operation does not read start uniform; otherwise near what they hold, like the others. Adaptation
            is better free. What repair needs may still be there, where an operation is wrong that does not read it.
        max_steps: of every run while it learns; the machine's own by default.
        budget: runs that may be spent; learning ends when they are.
        first: end as soon as the discretised program is right on all examples.
        seed: of all draws.

    Raises:
        LearningError: an argument is out of range, or the kind cannot follow the objective.
        GradientError, MachineError: the instructions or a gradient are not what they should be.
    """
    origin = validated(instructions, config)
    examples.check(config, len(origin))
    learned = np.ones(len(origin), bool) if rows is None else np.asarray(rows, bool)
    if learned.shape != (len(origin),) or not learned.any():
        raise LearningError(f"rows must be bool of shape {(len(origin),)}, one of them true, found {learned.shape}")
    fields = int(READS[origin[:, 0]][learned].sum())
    for name, number, most in (
        ("rate", rate, np.inf), ("batch", batch, np.inf), ("iterations", iterations, np.inf),
        ("restart", restart, np.inf), ("spread", spread, fields),
    ):  # fmt: skip
        if not 0 < number < most:
            raise LearningError(f"{name} must be greater than 0 and less than {most}, found {number}")
    if kind not in _GRADIENTS:
        raise LearningError(f"kind must be one of {', '.join(_GRADIENTS)}, found {kind!r}")
    if kind == "adjoint" and objective.efficiency:
        raise LearningError(
            "the adjoint has no derivative by the number of steps; use kind='counterfactual' or 'dense'"
        )
    limit = max_steps or config.max_steps
    weights = _Weights(origin, learned, config, spread, free)
    random = np.random.default_rng(seed)
    best, fewest = origin, np.inf
    present = np.zeros(0)
    losses: list[float] = []
    runs = 0
    for iteration in range(iterations + 1):
        candidate = discretised(weights.program(), config, origin)
        if not np.array_equal(candidate, present):
            present = candidate
            found = judge(candidate, config, examples, limit)
            runs += len(examples)
            inside = learned[candidate[learned & _JUMPS[candidate[:, 0]], 4]].all()
            if inside and found.right.all() and found.steps.mean() < fewest:
                best, fewest = candidate, float(found.steps.mean())
        spent = budget is not None and runs >= budget
        if iteration == iterations or spent or (first and fewest < np.inf):
            break
        if iteration and iteration % restart == 0:
            weights = _Weights(best, learned, config, spread, free)
        chosen = examples[random.integers(len(examples), size=batch)]
        gradients, loss, used = _GRADIENTS[kind](weights, config, chosen, objective, limit, random)
        losses.append(loss)
        runs += used
        weights.follow(gradients, rate)
    return Learned(weights.program(), best, fewest < np.inf, losses, runs)


# ---------------------------------------------------------------------------------------------------------------------
# Gradients of the mean loss by every field, each row up to a constant
# ---------------------------------------------------------------------------------------------------------------------

Gradients = list[np.ndarray]
"""For each field, float64 [P, K]."""


def _drawn(weights: _Weights, random: np.random.Generator) -> np.ndarray:
    """A program, as indices into its distributions, int64 [P, 5]."""
    at = [(x.cumsum(-1) <= random.random((len(x), 1)) * (1 - 1e-12)).sum(-1) for x in weights.columns]
    return np.stack(at, axis=1).clip(max=np.array([x.shape[1] - 1 for x in weights.columns]))


def _counterfactual(
    weights: _Weights,
    config: MachineConfig,
    examples: Examples,
    objective: Objective,
    limit: int,
    random: np.random.Generator,
) -> tuple[Gradients, float, int]:
    size, split = len(weights.rows), config.registers
    widths = np.array([x.shape[1] for x in weights.columns], np.int64)
    starts = np.where(weights.rows, (np.cumsum(weights.rows) - 1) * widths.sum(), -1)
    fixed = np.full(config.memory, -1, np.int64)
    counter = np.full(size + 1, objective.halting)
    counter[examples.stop] = 0.0
    losses = np.zeros(int(weights.rows.sum()) * int(widths.sum()))
    total, base, runs = np.zeros_like(losses), 0.0, 0
    # An exact run stops once, at its end: there confidence and correctness weigh the same error.
    costs = np.repeat(
        (objective.correctness + objective.confidence) * examples.weights[:, :, None], config.values, axis=2
    )
    np.put_along_axis(costs, examples.wanted[:, :, None], 0.0, axis=2)
    first = int(weights.rows.argmax())
    for start, cost in zip(examples.start, costs, strict=True):
        code = _drawn(weights, random)
        _, used = alternatives(
            packed(code, config.values), SLOTS, examples.entry, start[:split].astype(np.int64),
            start[split:].astype(np.int32), config.call_depth, limit, config.values, fixed, fixed[:split], starts, widths,
            cost[:split], cost[split:], counter, 0.0, objective.efficiency / limit, objective.halting,
            losses, np.zeros((0, 0), np.int64),
            np.array([-1, 0], np.int64), True,
        )  # fmt: skip
        total += losses
        base += losses[code[first, 0]]
        runs += used
    gradients = [np.zeros_like(x) for x in weights.columns]
    rows = np.split(total.reshape(-1, int(widths.sum())) / len(examples), np.cumsum(widths)[:-1], axis=1)
    for gradient, part in zip(gradients, rows, strict=True):
        gradient[weights.rows] = part
    return gradients, base / len(examples), runs


def _states(examples: Examples, config: MachineConfig) -> tuple[Tensor, Tensor]:
    """Memory [B, N, V] and registers [B, R, V] at the start."""
    words = one_hot(torch.from_numpy(examples.start), config.values).double()
    return words[:, config.registers :], words[:, : config.registers]


def _expected_errors(memory: Tensor, registers: Tensor, examples: Examples) -> Tensor:
    """The expected error of soft states, [B]."""
    words = torch.cat([registers, memory], dim=1)
    right = words.gather(-1, torch.from_numpy(examples.wanted)[..., None])[..., 0]
    return ((1 - right) * torch.from_numpy(examples.weights)).sum(-1)


def _adjoint(
    weights: _Weights,
    config: MachineConfig,
    examples: Examples,
    objective: Objective,
    limit: int,
    random: np.random.Generator,
) -> tuple[Gradients, float, int]:
    gradients = [np.zeros_like(x) for x in weights.columns]
    total = 0.0
    for number in range(len(examples)):
        example, code = examples[number : number + 1], torch.from_numpy(_drawn(weights, random))
        hard = [one_hot(code[:, k], x.shape[1]).double().requires_grad_() for k, x in enumerate(weights.columns)]
        state, _ = run_adjoint(
            SoftProgram(*hard), config, *_states(example, config), [example.entry], max_steps=limit, fetch="joint",
            damping=0.5, unfinished="state",
        )  # fmt: skip
        error = _expected_errors(state.memory, state.registers, example).sum()
        stopped = (state.halted * state.program_counter[:, example.stop]).sum()
        loss = (objective.correctness + objective.confidence) * error + objective.halting * (1 - stopped)
        for gradient, part in zip(gradients, torch.autograd.grad(loss, hard), strict=True):
            gradient += part.numpy() / len(examples)
        total += float(loss.detach())
    return gradients, total / len(examples), len(examples)


def _dense(
    weights: _Weights,
    config: MachineConfig,
    examples: Examples,
    objective: Objective,
    limit: int,
    random: np.random.Generator,
) -> tuple[Gradients, float, int]:
    soft = [torch.from_numpy(x).requires_grad_() for x in weights.columns]
    machine = DenseMachine(SoftProgram(*soft), config)
    state = machine.state_from(*_states(examples, config), [examples.entry] * len(examples))
    loss = stopped = torch.zeros(len(examples), dtype=torch.float64)
    for _ in range(limit):
        state = machine.step(state)
        before, stopped = stopped, state.halted * state.program_counter[:, examples.stop]
        error = _expected_errors(state.memory, state.registers, examples)
        loss = loss + objective.confidence * (stopped - before) * error + objective.efficiency * (1 - stopped) / limit
        if float(state.halted.detach().min()) > 0.999:
            break
    loss = (loss + objective.correctness * error + objective.halting * (1 - stopped)).mean()
    return [part.numpy() for part in torch.autograd.grad(loss, soft)], float(loss.detach()), len(examples)


_GRADIENTS = {"counterfactual": _counterfactual, "adjoint": _adjoint, "dense": _dense}


# ---------------------------------------------------------------------------------------------------------------------
# Search, the baseline: the same alternatives without a gradient
# ---------------------------------------------------------------------------------------------------------------------

_CHUNK = 4_096


def search(
    instructions: np.ndarray,
    config: MachineConfig,
    examples: Examples,
    budget: int,
    *,
    rows: np.ndarray | None = None,
    exhaustive: bool = False,
    most: int = 4,
    max_steps: int | None = None,
    seed: int = 0,
) -> Learned:
    """Looks for a program that is right on all examples among those that differ from this one in a few fields.

    A program is given up at the first example that it is wrong on, and only fields that are read are changed.

    Args:
        rows, max_steps, seed: as ``learn``.
        budget: runs that may be spent.
        exhaustive: all programs that differ in one field, then all in two, …, in a random order of the fields; otherwise
            programs that differ in 1…``most`` fields, drawn at random.
    """
    origin = validated(instructions, config)
    examples.check(config, len(origin))
    learned = np.ones(len(origin), bool) if rows is None else np.asarray(rows, bool)
    limit, code, split = max_steps or config.max_steps, entries_of(origin, config), config.registers
    registers = np.ascontiguousarray(examples.start[:, :split], np.int64)
    memory = np.ascontiguousarray(examples.start[:, split:], np.int32)
    runs = 0
    for edits in _edits(code, config, learned, most, exhaustive, np.random.default_rng(seed)):
        slots = edits.copy()
        operations = (edits[:, :, 1] == 0) & (edits[:, :, 0] >= 0)
        slots[operations, 2] = SLOTS[edits[operations, 2]]
        begin = 0
        while begin < len(edits) and runs < budget:
            found, used = first_right(
                packed(code, config.values), slots[begin:], examples.entry, examples.stop, registers, memory,
                examples.wanted, examples.weights, config.call_depth, limit, config.values, budget - runs,
            )  # fmt: skip
            runs += used
            if found < 0:
                break
            begin += found + 1
            changed = code.copy()
            for row, column, entry in edits[begin - 1]:
                if row >= 0:
                    changed[row, column] = entry
            program = _as_instructions(changed, config)
            # The search does not look for overflow; the exact engine does.
            if program is not None and judge(program, config, examples, limit).right.all():
                return Learned(SoftProgram.from_instructions(program, config), program, True, [], runs)
        if runs >= budget:
            break
    return Learned(SoftProgram.from_instructions(origin, config), origin, False, [], runs)


def _as_instructions(code: np.ndarray, config: MachineConfig) -> np.ndarray | None:
    """Instructions of fields given as indices; None if one jumps past the end."""
    jumps = _JUMPS[code[:, 0]]
    if (code[jumps, 4] >= len(code)).any():
        return None
    words = code[:, 4] % config.values
    immediate = np.where(jumps, code[:, 4], words - config.values * (words >= config.half))
    return np.where(READS[code[:, 0]], np.column_stack([code[:, :4], immediate]), 0)


def single_edits(code: np.ndarray, config: MachineConfig, rows: np.ndarray) -> np.ndarray:
    """Every change of one field of these instructions, int64 [edits, 3]: row, column, index of the alternative.

    Args:
        code: fields as indices into their distributions, int64 [P, 5].
    """
    found = []
    for row in np.flatnonzero(rows):
        for column, width in enumerate((len(OPERATIONS), *(config.registers,) * 3, max(config.values, len(code)))):
            others = np.delete(np.arange(width), code[row, column])
            found.append(np.column_stack([np.full((len(others), 2), (row, column)), others]))
    return np.concatenate(found)


def _edits(
    code: np.ndarray, config: MachineConfig, rows: np.ndarray, most: int, exhaustive: bool, random: np.random.Generator
) -> Iterator[np.ndarray]:
    """Sets of changes, int64 [chunk, n, 3], without end if they are drawn at random."""
    singles = random.permutation(single_edits(code, config, rows))
    if not exhaustive:
        while True:
            sets = singles[random.integers(len(singles), size=(_CHUNK, most))]
            sets[np.arange(most) >= random.integers(1, most + 1, size=(_CHUNK, 1)), 0] = -1
            yield _sensible(sets, code)
    for count in range(1, most + 1):
        chosen = combinations(range(len(singles)), count)
        while chunk := list(islice(chosen, _CHUNK)):
            yield _sensible(singles[np.array(chunk)], code)


def _sensible(sets: np.ndarray, code: np.ndarray) -> np.ndarray:
    """Those sets that change no field twice, and only fields that are read once they are made."""
    keep = np.ones(len(sets), bool)
    for k in range(sets.shape[1]):
        row, column = sets[:, k, 0], sets[:, k, 1]
        operation = code[row, 0]
        for other in range(sets.shape[1]):
            same = (sets[:, other, 0] == row) & (row >= 0)
            keep &= ~(same & (sets[:, other, 1] == column)) if other != k else True
            operation = np.where(same & (sets[:, other, 1] == 0), sets[:, other, 2], operation)
        keep &= (row < 0) | READS[operation, column]
    return np.ascontiguousarray(sets[keep])
