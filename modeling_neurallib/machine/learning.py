"""Programs that learn: soft weights, started at a compiled program, that follow a gradient through its runs.

Every field of every learned instruction is a distribution x over its alternatives, independent of the others; a program is
a draw of all of them. The loss of a run is

    correctness · error + halting · (not stopped) + efficiency · steps / limit + confidence · error, if stopped

where *stopped* means halted at the wanted address, and *error* is the weight of the judged words that are wrong; with
``counterfactual``, a call that has not returned costs ``halting`` too. Its
expectation is linear in each x, so its minimum is at a corner of the simplices: a program. The weights follow entropic
mirror descent: x is the softmax of accumulated gradients, so an alternative need not be probable to be learned. A common
temperature of all that is not the present program keeps the mean number of fields in which a draw differs from it. So draws
differ mostly in what the gradient has found to do no harm, and seldom in what does: the simplex has no corner at which one
change alone helps when two are good only together.

At every draw the gradient also names the changes of one field that promise the least loss there. The steepest of them are
**proposals**: each is run exactly on all examples, up to the first that it is wrong on, and one that is right in the fewest
steps so far is where the weights begin anew. So is, after some iterations that found none, a draw that is right in as many
steps: the best program *drifts*. No program is taken on the word of a gradient.

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

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ...configuration.machine_config import MachineConfig
from .adjoint import SLOTS, alternatives, checked_rows, first_right, packed, run_adjoint
from .counterfactual import Kind
from .dense import DenseMachine, SoftProgram, checked_gradients
from .exact import ExactMachine, validated
from .operations import FIELDS, JUMPS, OPERATIONS, READS
from .state import GradientError, MachineError


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
        program: the soft weights at the end, around ``instructions`` if these are right.
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
        JUMPS[code[:, 0]], immediate[:, :size].argmax(-1).numpy(), best - values * (best >= config.half)
    )
    return np.where(READS[code[:, 0]], code, 0 if origin is None else origin)


_MARGIN = 3.0
"""By how much the logit of what a field holds is greater than the others', at the start."""
_DEEPEST = 6.0
"""By how much it is greater at most: what does harm is still drawn, e³ times as seldom as what does none."""


class _Weights:
    """The weights that learn: accumulated gradients, and the distributions that they make.

    Attributes:
        rows: which instructions learn, bool [P].
        columns: for each field the distributions, float64 [P, K]; rows that do not learn are one-hot.
    """

    def __init__(self, origin: np.ndarray, rows: np.ndarray, config: MachineConfig, spread: float, free: bool):
        self.rows = rows
        code, widths = entries(origin, config), widths_of(config, len(origin))
        self.exact = [np.eye(width)[code[:, column]] for column, width in enumerate(widths)]
        read = READS[origin[:, 0]]
        self.spread = spread
        self.held = rows[:, None] & (read if free else np.ones_like(read))
        self.logits = [(exact - 1) * _MARGIN for exact in self.exact]
        for column, logits in enumerate(self.logits if free else ()):
            logits[~read[:, column]] = 0
        self._distribute()

    def follow(self, gradients: Gradients, rate: float) -> None:
        """One step of mirror descent.

        Raises:
            GradientError: a gradient, times the rate, is not finite.
        """
        for name, logits, gradient in zip(FIELDS, self.logits, gradients, strict=True):
            with np.errstate(over="ignore", invalid="ignore"):  # reported here
                logits[self.rows] -= rate * gradient[self.rows]
            wrong = ~np.isfinite(logits).all(-1)
            if wrong.any():
                raise GradientError(
                    f"the gradient of {name} of the program overflows float64 (1.8e308) at instruction {int(wrong.argmax())}, "
                    f"times the rate {rate}; give the objective smaller weights, or use kind='counterfactual'"
                )
            logits -= logits.max(-1, keepdims=True)
            np.maximum(logits, -_DEEPEST, out=logits)
        self._distribute()

    def program(self) -> SoftProgram:
        return SoftProgram(*map(torch.from_numpy, self.columns))

    def _distribute(self) -> None:
        """Softmax, with all but the greatest weight of each field that is held divided by exp(c), c ≥ 0, so that a draw differs
        in ``spread`` of these fields on average, or fewer."""
        weights = [np.exp(logits) for logits in self.logits]
        others = np.stack([each.sum(-1) - 1 for each in weights], axis=1)[self.held]
        low, high = 0.0, 50.0
        for _ in range(40):
            middle = (low + high) / 2
            scaled = others * np.exp(-middle)
            low, high = (middle, high) if (scaled / (1 + scaled)).sum() > self.spread else (low, middle)
        self.columns = []
        for column, (each, exact) in enumerate(zip(weights, self.exact, strict=True)):
            least = np.where(self.held[:, column, None] & (each < 1), np.exp(-high), 1.0)
            soft = each * least
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
    spread: float = 1.0,
    proposals: int = 64,
    drift: int = 5,
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
        spread: in how many fields that it reads a draw differs from the present program on average, at most; below their number.
        proposals: how many of the steepest changes are tried exactly at each draw, at most; 0 leaves all to mirror descent.
        drift: after so many iterations without a better program, a draw that is right on all examples in as many steps takes
            the best one's place: changes that save nothing by themselves make room for others that do.
        restart: after so many iterations without a better program the weights begin anew at the best: they can lose their
            way in programs that are all equally wrong, where no single field helps.
        free: fields that their operation does not read start uniform; otherwise near what they hold, like the others. Adaptation
            is better free. What repair needs may still be there, where an operation is wrong that does not read it.
        max_steps: of every run while it learns; the machine's own by default.
        budget: runs that may be spent; learning ends when they are. (Undoing what the best program does not need is not counted.)
        first: end as soon as the discretised program is right on all examples.
        seed: of all draws.

    Raises:
        LearningError: an argument is out of range, or the kind cannot follow the objective.
        GradientError, MachineError: the instructions or a gradient are not what they should be.
    """
    origin = started(instructions, config)
    examples.check(config, len(origin))
    learned = np.ones(len(origin), bool) if rows is None else np.asarray(rows, bool)
    if learned.shape != (len(origin),) or not learned.any():
        raise LearningError(f"rows must be bool of shape {(len(origin),)}, one of them true, found {learned.shape}")
    fields = int(READS[origin[:, 0]][learned].sum())
    for name, number, most in (
        ("rate", rate, np.inf), ("batch", batch, np.inf), ("iterations", iterations, np.inf),
        ("restart", restart, np.inf), ("drift", drift, np.inf), ("spread", spread, fields),
    ):  # fmt: skip
        if not 0 < number < most:
            raise LearningError(f"{name} must be greater than 0 and less than {most}, found {number}")
    if proposals < 0:
        raise LearningError(f"proposals must be at least 0, found {proposals}")
    if kind not in _GRADIENTS:
        raise LearningError(f"kind must be one of {', '.join(_GRADIENTS)}, found {kind!r}")
    if kind == "adjoint" and objective.efficiency:
        raise LearningError(
            "the adjoint has no derivative by the number of steps; use kind='counterfactual' or 'dense'"
        )
    limit = max_steps or config.max_steps
    trial = Trial(origin, learned, config, examples, limit)
    weights = _Weights(origin, learned, config, spread, free)
    random = np.random.default_rng(seed)
    present = np.zeros(0)
    losses: list[float] = []
    begun = moved = 0
    for iteration in range(iterations + 1):
        candidate = discretised(weights.program(), config, origin)
        if not np.array_equal(candidate, present):
            present = candidate
            if not trial.judge(candidate) and trial.right:
                begun, weights = iteration, _Weights(trial.best, learned, config, spread, free)
        spent = budget is not None and trial.runs >= budget
        if iteration == iterations or spent or (first and trial.right):
            break
        if iteration - begun == restart:
            begun, weights = iteration, _Weights(trial.best, learned, config, spread, free)
        chosen = random.integers(len(examples), size=batch)
        # What a run in fewer steps than the best program's costs less than; any right run, while there is none.
        saved = objective.efficiency / limit * (trial.steps[chosen] - 0.5 * trial.right) + 1e-9
        gradients, loss, used, found = _GRADIENTS[kind](
            weights, config, examples[chosen], objective, limit, random, saved, proposals
        )
        losses.append(loss)
        trial.runs += used
        weights.follow(gradients, rate)
        best = trial.best
        for code, edits in found:
            trial.propose(code, edits, None if budget is None else budget - trial.runs)
        if trial.best is best and trial.right and iteration - moved >= drift:
            for code, _ in found:
                trial.drift(code)
        if trial.best is not best:
            begun = moved = iteration + 1
            weights = _Weights(trial.best, learned, config, spread, free)
    if trial.right:
        trial.tidy()
    if trial.right and not np.array_equal(discretised(weights.program(), config, origin), trial.best):
        weights = _Weights(trial.best, learned, config, spread, free)
    return Learned(weights.program(), trial.best, trial.right, losses, trial.runs)


def started(instructions: np.ndarray, config: MachineConfig) -> np.ndarray:
    """The instructions, int64 [P, 5], checked: with immediates that are not read as they are, for what learns to read them.

    Raises:
        MachineError: an instruction is out of range.
    """
    code = validated(instructions, config)
    code[:, 4] = np.where(READS[code[:, 0], 4], code[:, 4], np.asarray(instructions)[:, 4])
    return code


def entries(instructions: np.ndarray, config: MachineConfig) -> np.ndarray:
    """Instructions that are in range as indices into their distributions, int64 [P, 5], those that are not read too."""
    code = instructions.copy()
    code[:, 4] = np.where(JUMPS[code[:, 0]], code[:, 4], code[:, 4] % config.values)
    return code


def as_instructions(code: np.ndarray, config: MachineConfig, origin: np.ndarray | None = None) -> np.ndarray | None:
    """Instructions of fields given as indices, those that are not read as in ``origin`` or 0; None if one jumps past the end."""
    jumps = JUMPS[code[:, 0]]
    if (code[jumps, 4] >= len(code)).any():
        return None
    words = code[:, 4] % config.values
    immediate = np.where(jumps, code[:, 4], words - config.values * (words >= config.half))
    return np.where(READS[code[:, 0]], np.column_stack([code[:, :4], immediate]), 0 if origin is None else origin)


_NO_EDIT = np.full((1, 1, 3), -1)


class Trial:
    """The best program so far, and what it cost to find.

    Attributes:
        best: int64 [P, 5]; the one that learning started at, while none is right.
        right: whether it is right on all examples.
        steps: of its run on each example, int64 [B].
        runs: that were spent.
        limit: at which a run is stopped, in steps.
    """

    def __init__(self, origin: np.ndarray, rows: np.ndarray, config: MachineConfig, examples: Examples, limit: int):
        self.best, self.right, self.steps, self.runs = origin, False, np.full(len(examples), limit), 0
        self._origin, self._rows, self._config, self._examples, self.limit = origin, rows, config, examples, limit
        self._registers = np.ascontiguousarray(examples.start[:, : config.registers], np.int64)
        self._memory = np.ascontiguousarray(examples.start[:, config.registers :], np.int32)

    def judge(self, program: np.ndarray) -> bool:
        """Whether a program is right on all examples; it is kept if it is the best so far."""
        jumps = self._rows & JUMPS[program[:, 0]]
        if not self._rows[program[jumps, 4]].all():
            return False
        found = judge(program, self._config, self._examples, self.limit)
        self.runs += len(self._examples)
        right = bool(found.right.all())
        if right and (not self.right or found.steps.sum() < self.steps.sum()):
            self.best, self.right, self.steps = program, True, found.steps
        return right

    def drift(self, code: np.ndarray) -> None:
        """Keeps a program in place of the best if it is right in as many steps, or fewer.

        Args:
            code: fields as indices into their distributions, int64 [P, 5].
        """
        program = as_instructions(code, self._config, self._origin)
        if program is None or np.array_equal(program, self.best) or not list(self.all_right(code, _NO_EDIT)):
            return
        jumps = self._rows & JUMPS[program[:, 0]]
        if self._rows[program[jumps, 4]].all():
            found = judge(program, self._config, self._examples, self.limit)
            self.runs += len(self._examples)
            if found.right.all() and found.steps.sum() <= self.steps.sum():
                self.best, self.steps = program, found.steps

    def tidy(self) -> None:
        """Undoes what the best program does not need, instruction by instruction: as long as it stays right in no more steps."""
        changed = True
        while changed:
            changed = False
            for row in np.flatnonzero((self.best != self._origin).any(1)):
                program = self.best.copy()
                program[row] = self._origin[row]
                found = judge(program, self._config, self._examples, self.limit)
                self.runs += len(self._examples)
                if found.right.all() and found.steps.sum() <= self.steps.sum():
                    self.best, self.steps, changed = program, found.steps, True

    def propose(self, code: np.ndarray, edits: np.ndarray, budget: int | None = None) -> None:
        """Tries changes of a program one after the other: each on one example after the other, up to the first that it is wrong on.

        Args:
            code: fields as indices into their distributions, int64 [P, 5].
            edits: int64 [K, 3]: row, column, index of what is there instead.
            budget: runs that may be spent.
        """
        for found in self.all_right(code, edits[:, None], budget):
            row, column, entry = edits[found]
            changed = code.copy()
            changed[row, column] = entry
            program = as_instructions(changed, self._config, self._origin)
            if program is not None:
                self.judge(program)

    def all_right(
        self, code: np.ndarray, edits: np.ndarray, budget: int | None = None, example: int | None = None, limit: int = 0
    ) -> Iterator[int]:
        """The indices of those sets of changes, int64 [K, n, 3], row −1 for none, that are right on all examples, or on one of
        them within ``limit`` steps."""
        slots = edits.copy()
        operations = (edits[:, :, 1] == 0) & (edits[:, :, 0] >= 0)
        slots[operations, 2] = SLOTS[edits[operations, 2]]
        some = slice(None) if example is None else slice(example, example + 1)
        end = None if budget is None else self.runs + budget
        begin, program = 0, packed(code, self._config.values)
        while begin < len(slots) and (end is None or self.runs < end):
            found, used = first_right(
                program, slots[begin:], self._examples.entry, self._examples.stop, self._registers[some],
                self._memory[some], self._examples.wanted[some], self._examples.weights[some], self._config.call_depth,
                limit or self.limit, self._config.values, 2**62 if end is None else end - self.runs,
            )  # fmt: skip
            self.runs += used
            if found < 0:
                return
            begin += found + 1
            yield begin - 1


# ---------------------------------------------------------------------------------------------------------------------
# Gradients of the mean loss by every field, each row up to a constant
# ---------------------------------------------------------------------------------------------------------------------

Gradients = list[np.ndarray]
"""For each field, float64 [P, K]."""

Proposals = list[tuple[np.ndarray, np.ndarray]]
"""Programs as indices into their distributions, int64 [P, 5], and changes of one field of each, the steepest first, int64 [K, 3]:
row, column, index of what is there instead."""


def _steepest(losses: np.ndarray, rows: np.ndarray, widths: np.ndarray, below: float, most: int) -> np.ndarray:
    """The alternatives of least loss, int64 [K, 3], among those of a loss below this.

    Args:
        losses: of the alternatives of each learned row, field by field, [rows, Σ widths].
    """
    found = np.flatnonzero(losses < below)
    found = found[np.argsort(losses.ravel()[found], kind="stable")[:most]]
    row, at = np.divmod(found, int(widths.sum()))
    ends = np.cumsum(widths)
    column = np.searchsorted(ends, at, side="right")
    return np.column_stack([np.flatnonzero(rows)[row], column, at - (ends - widths)[column]])


def _drawn(weights: _Weights, random: np.random.Generator) -> np.ndarray:
    """A program, as indices into its distributions, int64 [P, 5]."""
    at = [(x.cumsum(-1) <= random.random((len(x), 1)) * (1 - 1e-12)).sum(-1) for x in weights.columns]
    return np.stack(at, axis=1).clip(max=np.array([x.shape[1] - 1 for x in weights.columns]))


def widths_of(config: MachineConfig, size: int) -> np.ndarray:
    """How many alternatives each field of one of P instructions has, int64 [5]."""
    return np.array([len(OPERATIONS), *[config.registers] * 3, max(config.values, size)], np.int64)


def losses_of_alternatives(
    code: np.ndarray,
    rows: np.ndarray,
    config: MachineConfig,
    examples: Examples,
    number: int,
    objective: Objective,
    limit: int,
) -> tuple[np.ndarray, int]:
    """The counterfactual gradient at a program: the loss on one example of every program that differs from it in one field.

    Args:
        code: fields as indices into their distributions, int64 [P, 5].
        rows: the instructions whose alternatives are wanted, bool [P].
        number: of the example.

    Returns:
        The losses, float64 [rows · Σ widths], instruction by instruction, field by field; and how many runs that took.
    """
    widths, split = widths_of(config, len(code)), config.registers
    starts = np.where(rows, (np.cumsum(rows) - 1) * widths.sum(), -1)
    fixed = np.full(config.memory, -1, np.int64)
    counter = np.full(len(rows) + 1, objective.halting)
    counter[examples.stop] = 0.0
    # An exact run stops once, at its end: there confidence and correctness weigh the same error.
    wrong = (objective.correctness + objective.confidence) * examples.weights[number]
    cost = np.repeat(wrong[:, None], config.values, axis=1)
    cost[np.arange(len(cost)), examples.wanted[number]] = 0.0
    losses = np.zeros(int(rows.sum()) * int(widths.sum()))
    start = examples.start[number]
    _, runs = alternatives(
        packed(code, config.values), SLOTS, examples.entry, start[:split].astype(np.int64),
        start[split:].astype(np.int32), config.call_depth, limit, config.values, fixed, fixed[:split], starts, widths,
        cost[:split], cost[split:], counter, 0.0, objective.efficiency / limit, objective.halting,
        losses, np.zeros((0, 0), np.int64), np.array([-1, 0], np.int64), True,
    )  # fmt: skip
    return losses, runs


def _counterfactual(
    weights: _Weights,
    config: MachineConfig,
    examples: Examples,
    objective: Objective,
    limit: int,
    random: np.random.Generator,
    saved: np.ndarray,
    most: int,
) -> tuple[Gradients, float, int, Proposals]:
    widths = np.array([x.shape[1] for x in weights.columns], np.int64)
    total, base, runs = np.zeros(int(weights.rows.sum()) * int(widths.sum())), 0.0, 0
    first, found = int(weights.rows.argmax()), []
    for number, below in enumerate(saved):
        code = _drawn(weights, random)
        losses, used = losses_of_alternatives(code, weights.rows, config, examples, number, objective, limit)
        total += losses
        base += losses[code[first, 0]]
        runs += used
        found.append((code, _steepest(losses, weights.rows, widths, below, most)))
    gradients = [np.zeros_like(x) for x in weights.columns]
    rows = np.split(total.reshape(-1, int(widths.sum())) / len(examples), np.cumsum(widths)[:-1], axis=1)
    for gradient, part in zip(gradients, rows, strict=True):
        gradient[weights.rows] = part
    return gradients, base / len(examples), runs, found


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
    saved: np.ndarray,
    most: int,
) -> tuple[Gradients, float, int, Proposals]:
    gradients, found = [np.zeros_like(x) for x in weights.columns], []
    total, widths = 0.0, np.array([x.shape[1] for x in weights.columns])
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
        parts = [part.numpy() for part in torch.autograd.grad(loss, hard)]
        for gradient, part in zip(gradients, parts, strict=True):
            gradient += part / len(examples)
        total += float(loss.detach())
        promised = np.concatenate(parts, axis=1)[weights.rows]  # relative to what each field holds
        found.append((code.numpy(), _steepest(promised, weights.rows, widths, 0.0, most)))
    return gradients, total / len(examples), len(examples), found


def _dense(
    weights: _Weights,
    config: MachineConfig,
    examples: Examples,
    objective: Objective,
    limit: int,
    random: np.random.Generator,
    saved: np.ndarray,
    most: int,
) -> tuple[Gradients, float, int, Proposals]:
    soft = [torch.from_numpy(x).requires_grad_() for x in weights.columns]
    machine = DenseMachine(SoftProgram(*soft), config)
    state = machine.state_from(*_states(examples, config), [examples.entry] * len(examples))
    loss = stopped = torch.zeros(len(examples), dtype=torch.float64)
    for step in range(limit):
        state = machine.step(checked_gradients(state, step, limit))
        before, stopped = stopped, state.halted * state.program_counter[:, examples.stop]
        error = _expected_errors(state.memory, state.registers, examples)
        loss = loss + objective.confidence * (stopped - before) * error + objective.efficiency * (1 - stopped) / limit
        if float(state.halted.detach().min()) > 0.999:
            break
    loss = (loss + objective.correctness * error + objective.halting * (1 - stopped)).mean()
    gradients = [part.numpy() for part in torch.autograd.grad(loss, soft)]
    code = np.stack([x.argmax(-1) for x in weights.columns], axis=1)
    promised = [each - np.take_along_axis(each, code[:, k, None], 1) for k, each in enumerate(gradients)]
    widths = np.array([x.shape[1] for x in weights.columns])
    steepest = _steepest(np.concatenate(promised, axis=1)[weights.rows], weights.rows, widths, 0.0, most)
    return gradients, float(loss.detach()), len(examples), [(code, steepest)]


_GRADIENTS = {"counterfactual": _counterfactual, "adjoint": _adjoint, "dense": _dense}
