"""The dense engine: the machine on categorical distributions, differentiable in everything it holds.

It is the definition of the computer inside the model: every word, address and instruction field is a distribution, one
step is a product of factors each linear in one of them, and on one-hot input it equals ``exact``, step by step. Where
``exact`` would stop at a fault, the dense engine goes on with the edge value of the table in ``operations``; ``check``
and ``guard`` do nothing.

Source: arXiv 2407.04899 (the register machine, probabilistic execution, adaptive recurrence); Adaptive Neural
Compilation, arXiv 1605.07969 (fetching by average).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from ...configuration.machine_config import MachineConfig
from .circuits import CIRCUITS, evaluate_circuit
from .exact import validated
from .operations import CODES, JUMPS, OPERATIONS, evaluate, signed
from .state import GradientError, MachineError, check_arguments, code_points

LARGEST_VALUES = 1_024
"""The largest V of a dense machine: its lookup tables have V² entries."""

Arithmetic = Literal["tables", "circuits"]

_STEPS_BETWEEN_LOOKS = {"cpu": 1, "cuda": 16}
"""How often a run asks whether all machines have halted: on a device the host waits for it each time."""

_HALT, _LOAD, _STORE, _CALL, _RETURN = (CODES[name] for name in ("halt", "load", "store", "call", "return"))
_JUMP, _JUMP_IF_ZERO, _JUMP_IF_NOT_ZERO = (CODES[name] for name in ("jump", "jump_if_zero", "jump_if_not_zero"))
_TABULATED = tuple(o.code for o in OPERATIONS if o.semantics is not None or o.name.startswith("index"))
_READS_IMMEDIATE = frozenset(o.code for o in OPERATIONS if "i" in o.operands)
_SAME_FORM = {"index": "add", "less": "less_than"}
"""Operations whose value is another's: an address is a sum modulo V; ``less_immediate`` is ``less_than``."""
_DIRECT = {"move", "constant", "add", "equal", "less_than"}
"""Forms whose value is computed without a lookup table."""


@lru_cache(maxsize=256)
def lookup_table(code: int, values: int) -> Tensor:
    """The word that an operation computes from every pair of words, int64 [V, V], from ``operations``.

    Rows are the word in source a, columns the word in source b or the immediate. Held as indices: as one-hot
    distributions the table would have V³ entries.
    """
    if OPERATIONS[code].semantics is None:
        words = [[(a + signed(b, values)) % values for b in range(values)] for a in range(values)]
    else:
        words = [[evaluate(code, a, b, signed(b, values), values)[0] for b in range(values)] for a in range(values)]
    return torch.tensor(words)


@dataclass(frozen=True)
class SoftProgram:
    """A program as distributions: each field of each of P instructions, by itself.

    Attributes:
        operation: [P, operations].
        source_a: [P, R].
        source_b: [P, R].
        target: [P, R].
        immediate: [P, max(V, P)]. Operations on words read entry j as the word j mod V, jumps and calls as the code
            address j, and as the address past the end if j ≥ P.
    """

    operation: Tensor
    source_a: Tensor
    source_b: Tensor
    target: Tensor
    immediate: Tensor

    @classmethod
    def from_instructions(
        cls,
        instructions: np.ndarray,
        config: MachineConfig,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> SoftProgram:
        """The one-hot program of instructions [P, 5].

        Raises:
            MachineError: an instruction is out of range.
        """
        code = torch.from_numpy(validated(instructions, config)).to(device)
        jumps = torch.from_numpy(JUMPS).to(device)[code[:, 0]]
        immediate = torch.where(jumps, code[:, 4], code[:, 4] % config.values)
        registers, entries = config.registers, max(config.values, len(code))
        columns = zip(
            (code[:, 0], code[:, 1], code[:, 2], code[:, 3], immediate),
            (len(OPERATIONS), registers, registers, registers, entries),
            strict=True,
        )
        return cls(*(one_hot(column, size).to(dtype) for column, size in columns))

    def __len__(self) -> int:
        return len(self.operation)


def checked_rows(name: str, rows: Tensor) -> Tensor:
    """Distributions [..., K], if that is what they are.

    Raises:
        GradientError: naming the tensor and its first row with a weight that is not finite or is negative, or whose sum
            is not 1 within 1e-4.
    """
    wrong = ~torch.isfinite(rows).all(-1)
    if wrong.any():
        raise GradientError(f"{name} has weights that are not finite, first in row {first_row(wrong)}")
    wrong = (rows < -1e-6).any(-1)
    if wrong.any():
        raise GradientError(
            f"{name} has negative weights, first in row {first_row(wrong)}; its rows must be distributions"
        )
    sums = rows.sum(-1)
    wrong = (sums - 1).abs() > 1e-4
    if wrong.any():
        where = first_row(wrong)
        raise GradientError(f"{name} must have rows that sum to 1, but row {where} sums to {float(sums[where]):.6g}")
    return rows


class _Checked(torch.autograd.Function):
    """Its input; refuses a gradient that is not finite."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, name: str, step: int, last: int) -> Tensor:
        ctx.name, ctx.step, ctx.last = name, step, last
        return rows.view_as(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        if not torch.isfinite(gradients[0]).all():
            raise GradientError(
                f"the gradient of {ctx.name} overflows {gradients[0].dtype} ({torch.finfo(gradients[0].dtype).max:.2g}) at "
                f"step {ctx.step} of at most {ctx.last}; damp the program counter, use float64 or kind='counterfactual'"
            )
        return gradients[0], None, None, None


def looks_between(device: torch.device) -> int:
    """Steps of a run between two looks at its tensors: on a device the host waits for it each time."""
    return _STEPS_BETWEEN_LOOKS.get(device.type, 16)


def checked_gradients(state: DenseState, step: int, limit: int) -> DenseState:
    """The state; in backward a gradient that is not finite is refused there. It stays so from step to step back.

    Raises:
        GradientError: in backward, naming the tensor, the step and the limit.
    """
    parts = vars(state).items()
    return DenseState(
        *(_Checked.apply(rows, name, step, limit) if rows.requires_grad else rows for name, rows in parts)
    )


def first_row(wrong: Tensor) -> tuple[int, ...]:
    """The index of the first that is true."""
    return tuple(torch.nonzero(wrong)[0].tolist())


def check_shapes(
    program: SoftProgram, config: MachineConfig, memory: Tensor, registers: Tensor, entries: Sequence[int]
) -> None:
    """Refuses programs, states and entries that do not belong together.

    Raises:
        GradientError: naming the tensor, and the shape that it should have.
    """
    size = len(program)
    widths = (len(OPERATIONS), *(config.registers,) * 3, max(config.values, size))
    wanted = {field.name: (size, width) for field, width in zip(fields(program), widths, strict=True)}
    given: dict[str, Tensor] = {name: getattr(program, name) for name in wanted}
    wanted["memory"] = (len(entries), config.memory, config.values)  # type: ignore[assignment]
    wanted["registers"] = (len(entries), config.registers, config.values)  # type: ignore[assignment]
    for name, rows in {**given, "memory": memory, "registers": registers}.items():
        if tuple(rows.shape) != wanted[name] or not rows.is_floating_point():
            raise GradientError(
                f"{name} must be floating point of shape {wanted[name]}, found {rows.dtype} {tuple(rows.shape)}"
            )
    for entry in entries:
        if not 0 <= entry < size:
            raise GradientError(f"entry must be a code address 0…{size - 1}, found {entry}")


@dataclass(frozen=True)
class DenseState:
    """B machines. Code addresses are 0…P, the last being the one past the end, where the machine halts.

    Attributes:
        memory: [B, N, V].
        registers: [B, R, V].
        program_counter: [B, P + 1].
        stack: return addresses, [B, D, P + 1].
        depth: how many return addresses are on the stack, [B, D + 1].
        halted: the probability that the machine has halted, [B].
    """

    memory: Tensor
    registers: Tensor
    program_counter: Tensor
    stack: Tensor
    depth: Tensor
    halted: Tensor


def _normalised(rows: Tensor) -> Tensor:
    # Off the simplex mass is squared at every step and drowns the rest; an exact row is left exact. Where 0 is meant
    # rounding may leave −1e-8.
    rows = rows.clamp_min(0)
    return rows / rows.sum(-1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)


def _blend(weight: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """weight · new + (1 − weight) · old, the weight broadcast over the trailing axes."""
    return torch.lerp(old, new, weight.reshape(weight.shape + (1,) * (old.dim() - weight.dim())))


def _up(rows: Tensor) -> Tensor:
    """Every entry moved to the next index; the last stays where it is."""
    return torch.cat([torch.zeros_like(rows[:, :1]), rows[:, :-2], rows[:, -2:].sum(-1, keepdim=True)], dim=1)


def _down(rows: Tensor) -> Tensor:
    """Every entry moved to the index before; the first stays where it is."""
    return torch.cat([rows[:, :2].sum(-1, keepdim=True), rows[:, 2:], torch.zeros_like(rows[:, :1])], dim=1)


class DenseMachine:
    """Steps distributions through a program.

    Args:
        program: the instructions, one-hot or soft; gradients flow into them.
        config: the shape of the machine; V at most ``LARGEST_VALUES``.
        fetch: ``separate`` fetches each field of the instruction by itself, as the paper does; ``joint`` executes every
            instruction whole, P + 1 times the work, and mixes the states that they lead to.
        damping: factor on the gradient of the program counter at every step, 0…1; 1 leaves it as it is.
        arithmetic: values from lookup ``tables`` or from ``circuits`` of soft logic gates; equal on one-hot input.

    Raises:
        MachineError: V is too large, the program is of another shape, or an option is none of these.
    """

    def __init__(
        self,
        program: SoftProgram,
        config: MachineConfig,
        fetch: Literal["separate", "joint"] = "separate",
        damping: float = 1.0,
        arithmetic: Arithmetic = "tables",
    ):
        if config.values > LARGEST_VALUES:
            raise MachineError(
                f"the dense engine holds tables of V² entries and takes V ≤ {LARGEST_VALUES}, found {config.values}; "
                "use a smaller machine or the exact engine"
            )
        if fetch not in ("separate", "joint"):
            raise MachineError(f"fetch must be 'separate' or 'joint', found {fetch!r}")
        if not 0.0 <= damping <= 1.0:
            raise MachineError(f"damping must be between 0 and 1, found {damping}")
        if arithmetic not in ("tables", "circuits"):
            raise MachineError(f"arithmetic must be 'tables' or 'circuits', found {arithmetic!r}")
        self.joint, self.damping, self.circuits = fetch == "joint", damping, arithmetic == "circuits"
        size = len(program)
        wide = (len(OPERATIONS), *(config.registers,) * 3, max(config.values, size))
        for field, width in zip(fields(program), wide, strict=True):
            shape = tuple(getattr(program, field.name).shape)
            if shape != (size, width) or not size:
                raise MachineError(f"{field.name} of the program must have shape {(size, width)}, found {shape}")
        self.config = config
        self.program = program
        # Behind the last instruction stands a halt: what a program counter past the end fetches.
        self._fields = [pad(getattr(program, field.name), (0, 0, 0, 1)) for field in fields(program)]
        for part, entry in zip(self._fields, (_HALT, 0, 0, 0, 0), strict=True):
            part[-1, entry] = 1
        learned = program.operation.requires_grad
        # An operation of weight 0 everywhere adds nothing; it is skipped unless its weight needs a gradient.
        used = (program.operation != 0).any(0).tolist()
        # Operations that compute the same function of the same operands are computed once.
        self._forms: dict[tuple[str, bool], list[int]] = {}
        for code in _TABULATED:
            if learned or used[code]:
                form = OPERATIONS[code].name.removesuffix("_immediate")
                key = _SAME_FORM.get(form, form), code in _READS_IMMEDIATE
                self._forms.setdefault(key, []).append(code)
        # Made here and not in a step, where a compiler would trace each of the V² words.
        found = {form for form, _ in self._forms} - _DIRECT - (CIRCUITS if self.circuits else set())
        device = program.operation.device
        self._tables = {form: lookup_table(CODES[form], config.values).flatten().to(device) for form in found}
        # On a device an index must lie there: one that is made in a step would stop the host in every step.
        self._codes = {
            codes: torch.tensor(codes, device=device)
            for codes in (_TABULATED, *map(tuple, self._forms.values()))
        }

    def step(self, state: DenseState) -> DenseState:
        """One instruction.

        With c the program counter, M memory, R registers, S stack, d depth, h halting probability, and ⟨t⟩(x, y) the
        distribution of t[X, Y] for independent X ~ x, Y ~ y:

        | quantity                      | equation                                                     | shape       |
        |-------------------------------|--------------------------------------------------------------|-------------|
        | fields p, s, u, t, i          | c · field                                                    | [B, ·]      |
        | operands a, b                 | s · R, u · R                                                 | [B, V]      |
        | location l                    | ⟨a + i⟩, the last entry being outside memory                 | [B, N + 1]  |
        | value w (mass: writes)        | Σ_o p_o ⟨o⟩(a, b or i) + p_load (l · M, outside: the word 0) | [B, V]      |
        | R′[r]                         | t_r w + (1 − t_r |w|) R[r]                                   | [B, R, V]   |
        | M′[n]                         | g b + (1 − g) M[n],  g = p_store l_n                         | [B, N, V]   |
        | next n                        | c moved up by one, from the end nowhere                      | [B, P + 1]  |
        | taken j                       | p_jump + p_call + p_jz a₀ + p_jnz (1 − a₀)                   | [B]         |
        | stays k                       | p_halt + p_return d₀                                         | [B]         |
        | c′                            | j i + k c + p_return Σ_{q>0} d_q S[q − 1] + the rest n       | [B, P + 1]  |
        | S′[q]                         | e n + (1 − e) S[q],  e = p_call d_q                          | [B, D, P+1] |
        | d′                            | p_call (d up by one) + p_return (d down by one) + the rest d | [B, D + 1]  |

        All rows are then normalised. What has halted keeps its state: X ← h X + (1 − h) X′, and h ← h + (1 − h) k.
        """
        if self.damping != 1.0:
            c = state.program_counter
            state = replace(state, program_counter=c.detach() + self.damping * (c - c.detach()))
        after = self._after_each(state) if self.joint else self._after(state)
        going = 1 - state.halted
        return DenseState(
            memory=_blend(going, _normalised(after.memory), state.memory),
            registers=_blend(going, _normalised(after.registers), state.registers),
            program_counter=_blend(going, _normalised(after.program_counter), state.program_counter),
            stack=_blend(going, _normalised(after.stack), state.stack),
            depth=_blend(going, _normalised(after.depth), state.depth),
            halted=state.halted + going * after.halted,
        )

    def _after_each(self, state: DenseState) -> DenseState:
        """``_after`` with whole instructions: the mean, under the program counter, of what each of them leads to."""
        counter = state.program_counter
        addresses = counter.shape[1]
        copies = {name: rows.repeat_interleave(addresses, dim=0) for name, rows in vars(state).items()}
        copies["program_counter"] = torch.eye(addresses, dtype=counter.dtype, device=counter.device).repeat(
            len(counter), 1
        )
        after = self._after(DenseState(**copies))
        means = {
            name: torch.einsum("bq,bq...->b...", counter, rows.reshape(len(counter), addresses, *rows.shape[1:]))
            for name, rows in vars(after).items()
        }
        return DenseState(**means)

    def _after(self, state: DenseState) -> DenseState:
        """F(X): the state after one instruction, its rows not normalised; as ``halted`` the probability that it halts."""
        c, d, memory = state.program_counter, state.depth, state.memory
        p, s, u, t, i = (c @ field for field in self._fields)
        immediate, destination = self._as_word(i), self._as_address(i)
        a = torch.einsum("br,brv->bv", s, state.registers)
        b = torch.einsum("br,brv->bv", u, state.registers)

        location = self._location(a, immediate)
        outside = pad(location[:, -1:], (0, a.shape[1] - 1))
        loaded = torch.bmm(location[:, None, :-1], memory)[:, 0] + outside
        value = p[:, _LOAD, None] * loaded
        for (form, reads_immediate), codes in self._forms.items():
            weight = p[:, codes[0]] if len(codes) == 1 else p.index_select(1, self._codes[tuple(codes)]).sum(-1)
            value = value + weight[:, None] * self._value(form, a, immediate if reads_immediate else b)
        written = t * (p[:, _LOAD] + p.index_select(1, self._codes[_TABULATED]).sum(-1))[:, None]
        registers = t[:, :, None] * value[:, None] + (1 - written)[:, :, None] * state.registers
        memory = _blend(p[:, _STORE, None] * location[:, :-1], b[:, None], memory)

        following, zero, empty = _up(c), a[:, 0], d[:, 0]
        taken = p[:, _JUMP] + p[:, _CALL] + p[:, _JUMP_IF_ZERO] * zero + p[:, _JUMP_IF_NOT_ZERO] * (1 - zero)
        stays = p[:, _HALT] + p[:, _RETURN] * empty
        returns = p[:, _RETURN, None] * torch.einsum("bq,bqp->bp", d[:, 1:], state.stack)
        rest = 1 - taken - p[:, _HALT] - p[:, _RETURN]
        counter = taken[:, None] * destination + stays[:, None] * c + returns + rest[:, None] * following
        stack = _blend(p[:, _CALL, None] * d[:, :-1], following[:, None], state.stack)
        call, back = p[:, _CALL, None], p[:, _RETURN, None]
        depth = call * _up(d) + back * _down(d) + (1 - call - back) * d
        return DenseState(memory, registers, counter, stack, depth, halted=stays)

    def run(
        self, state: DenseState, max_steps: int | None = None, halt_threshold: float = 0.99
    ) -> tuple[DenseState, int]:
        """Steps until every machine of the batch has halted with at least this probability; at most ``max_steps``.

        On a device it looks only now and then whether they have, and returns the state that it would have stopped at.

        Returns:
            The last state, and the number of steps taken. Machines below the threshold ran out of steps.

        Raises:
            GradientError: rows of the program, of memory or of registers are no distributions; in backward, a gradient overflows.
        """
        for field in fields(self.program):
            checked_rows(f"{field.name} of the program", getattr(self.program, field.name))
        for name in ("memory", "registers"):
            checked_rows(name, getattr(state, name))
        limit = self.config.max_steps if max_steps is None else max_steps
        between = looks_between(state.halted.device)
        steps = 0
        waiting: list[DenseState] = []  # states not looked at yet
        while True:
            waiting.append(state)
            if len(waiting) == between or steps == limit:
                done = torch.stack([(each.halted >= halt_threshold).all() for each in waiting]).tolist()
                if True in done:
                    first = done.index(True)
                    return waiting[first], steps - (len(waiting) - 1 - first)
                waiting = []
            if steps == limit:
                return state, steps
            state = self.step(checked_gradients(state, steps, limit) if steps % between == 0 else state)
            steps += 1

    def initial_state(self, arguments: Sequence[Sequence[str | Tensor]], entries: Sequence[int]) -> DenseState:
        """The states in which programs start, laid out as in ``state``.

        Args:
            arguments: for each of B machines its arguments; each is a text, or the soft copy that a reader makes of
                one: distributions over the value of each character, [length, V], into which gradients flow.
            entries: for each machine a code address.

        Raises:
            MachineError: an argument or an entry does not fit.
        """
        if len(entries) != len(arguments):
            raise MachineError(
                f"{len(entries)} entries but {len(arguments)} lists of arguments; a call has one of each"
            )
        values, size = self.config.values, len(self.program)
        like = self.program.operation
        memories, registers = [], []
        for entry, texts in zip(entries, arguments, strict=True):
            if not 0 <= entry < size:
                raise MachineError(f"entry must be a code address 0…{size - 1}, found {entry}")
            points = [code_points(text) for text in texts if isinstance(text, str)]
            highest = max((int(p.max(initial=0)) for p in points), default=0)
            check_arguments([len(text) for text in texts], highest, self.config)
            rows = [self.one_hot_words([0]).to(like)]
            first = [0] * self.config.registers
            free = 1
            for position, text in enumerate(texts):
                soft = self.one_hot_words([ord(x) for x in text]).to(like) if isinstance(text, str) else text
                if soft.shape != (len(text), values):
                    raise MachineError(f"a soft argument must have shape [length, {values}], found {list(soft.shape)}")
                rows += [rows[0], soft]
                first[2 * position], first[2 * position + 1] = free + 1, len(text)
                free += 1 + len(text)
            first[-2], first[-1] = free, self.config.memory - 1
            memories.append(torch.cat([*rows, self.one_hot_words([0]).to(like).expand(self.config.memory - free, -1)]))
            registers.append(self.one_hot_words(first).to(like))
        return self.state_from(torch.stack(memories), torch.stack(registers), entries)

    def state_from(self, memory: Tensor, registers: Tensor, entries: Sequence[int]) -> DenseState:
        """Machines about to start at ``entries`` with this memory [B, N, V] and these registers [B, R, V].

        Raises:
            GradientError: a tensor is of another shape, or an entry is no code address.
        """
        check_shapes(self.program, self.config, memory, registers, entries)
        depth, addresses = self.config.call_depth, len(self.program) + 1
        counter = one_hot(torch.tensor(entries, device=memory.device), addresses).to(memory)
        nothing = torch.zeros(len(counter), depth, dtype=torch.long, device=memory.device)
        return DenseState(
            memory=memory,
            registers=registers,
            program_counter=counter,
            stack=one_hot(nothing, addresses).to(memory),
            depth=one_hot(nothing[:, 0], depth + 1).to(memory),
            halted=memory.new_zeros(len(counter)),
        )

    def one_hot_words(self, words: Sequence[int] | np.ndarray) -> Tensor:
        """Words 0…V−1 of any shape [...] as distributions [..., V]."""
        return one_hot(torch.as_tensor(np.asarray(words, np.int64)), self.config.values)

    def result(self, state: DenseState, length: int) -> tuple[Tensor, Tensor]:
        """The text that the machines return, as expected under their state.

        Args:
            state: after a run.
            length: how many characters to read, L.

        Returns:
            The distribution of the text's length, [B, V], and of each of its first L characters, [B, L, V]: the mean of
            memory under the distribution of the address. An address outside memory reads as the word 0.
        """
        start, values = state.registers[:, 0], self.config.values
        outside = values + length - self.config.memory
        nothing = self.one_hot_words([0]).to(state.memory).expand(len(start), outside, -1)
        memory = torch.cat([state.memory, nothing], dim=1)
        characters = [torch.einsum("bn,bnv->bv", start, memory[:, k : k + values]) for k in range(length)]
        empty = memory.new_zeros(len(start), 0, values)
        return state.registers[:, 1], torch.stack(characters, dim=1) if characters else empty

    def _as_word(self, immediate: Tensor) -> Tensor:
        """Entries [B, max(V, P)] read as words mod V, [B, V]."""
        missing = -immediate.shape[1] % self.config.values
        return pad(immediate, (0, missing)).reshape(len(immediate), -1, self.config.values).sum(1)

    def _as_address(self, immediate: Tensor) -> Tensor:
        """Entries [B, max(V, P)] read as code addresses, [B, P + 1]; what lies past the end is its last entry."""
        size = len(self.program)
        return torch.cat([immediate[:, :size], immediate[:, size:].sum(-1, keepdim=True)], dim=1)

    def _value(self, form: str, a: Tensor, b: Tensor) -> Tensor:
        """⟨form⟩(a, b): the distribution [B, V] of a value of independent operands, [B, V] each.

        Where the operation has a form that touches fewer than V² entries, or needs no scatter, that is used; the others
        scatter the outer product along the lookup table.
        """
        if self.circuits and form in CIRCUITS:
            return evaluate_circuit(form, a, b)
        if form == "move":
            return a * b.sum(-1, keepdim=True)
        if form == "constant":
            return b * a.sum(-1, keepdim=True)
        if form == "add":
            doubled = torch.cat([b, b], dim=1)
            return torch.bmm(doubled.unfold(1, b.shape[1], 1)[:, 1:], a.flip(-1)[:, :, None])[:, :, 0]
        if form in ("equal", "less_than"):
            whole = a.sum(-1) * b.sum(-1)
            if form == "equal":
                true = (a * b).sum(-1)
            else:  # in the order of signed integers: the mass of a below each value
                half = a.shape[1] // 2
                ordered = a.roll(half, -1)
                true = ((ordered.cumsum(-1) - ordered) * b.roll(half, -1)).sum(-1)
            return pad(torch.stack([whole - true, true], dim=1), (0, a.shape[1] - 2))
        pairs = (a[:, :, None] * b[:, None]).flatten(1)
        where = self._tables[form].expand(len(pairs), -1)
        return pairs.new_zeros(a.shape).scatter_add(1, where, pairs)

    def _location(self, base: Tensor, offset: Tensor) -> Tensor:
        """The distribution of the address base + offset, [B, N + 1], the last entry being outside memory."""
        words = self.config.memory
        values, half = base.shape[1], base.shape[1] // 2
        # Entry k of the padded row is the offset k − half − values + 1, so window n holds those that lead to n.
        padded = pad(offset.roll(half, -1), (max(0, values - 1 - half), max(0, words - half)))
        windows = padded.unfold(1, values, 1)[:, :words]
        inside = torch.bmm(windows, base.flip(-1)[:, :, None])[:, :, 0]
        outside = base.sum(-1) * offset.sum(-1) - inside.sum(-1)
        return torch.cat([inside, outside[:, None]], dim=1)
