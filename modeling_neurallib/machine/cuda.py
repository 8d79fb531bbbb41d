"""Batches of machines on a CUDA device: the exact engine's third path, and what the gradients need of it.

A run is one launch of a kernel of ``triton_kernels``, however many steps it takes; thousands of machines run side by
side. Results are the CPU's, bit for bit. A single machine is faster on the CPU: a lane of the device is slower than a core.

Triton comes with PyTorch for CUDA. With ``TRITON_INTERPRET=1`` in the environment and no device, the same kernels run on
the CPU in Triton's interpreter, for tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...configuration.machine_config import MachineConfig
from .operations import JUMPS, OPERATIONS, READS, Fault
from .state import FinalStates, MachineError
from .triton_kernels import INTERPRETED, NUMBERS, packed, pull_back, run_machines, score_machines, triton

BLOCK = 32
"""Machines in one program of the grid, a lane each: one warp, so that no warp waits for another."""

BETWEEN = 8
"""Steps between two looks whether any machine of a block is still running."""

LARGEST_BATCH = 2**32
"""Bytes of state on the device at once; larger batches run in parts."""


def unavailable() -> str | None:
    """Why nothing can run on a CUDA device here, or None if it can."""
    if triton is None:
        return "Triton is not installed; it comes with PyTorch for CUDA"
    if not torch.cuda.is_available() and not INTERPRETED:
        return "PyTorch finds no CUDA device"
    return None


def device_of(device: str | torch.device) -> torch.device:
    """The device on which the kernels run; the CPU where Triton's interpreter stands in for it.

    Raises:
        MachineError: it is no CUDA device, or there is none.
    """
    chosen = torch.device(device)
    if chosen.type != "cuda":
        raise MachineError(f"device must be a CUDA device such as 'cuda', or None for the CPU, found {str(device)!r}")
    reason = unavailable()
    if reason is not None:
        raise MachineError(f"device {str(device)!r} cannot be used: {reason}; leave device at None to run on the CPU")
    return chosen if torch.cuda.is_available() else torch.device("cpu")


def _on(device: torch.device) -> AbstractContextManager[object]:
    """Triton launches on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


# ---------------------------------------------------------------------------------------------------------------------
# One launch
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class Ran:
    """A batch of machines on the device after its run.

    Attributes:
        registers, memory, stack: two's complement int32 [R, B] and [N, B]; return addresses int32 [D, B].
        counters, depths, deepest, halted, faults: int32 [B].
        steps: int64 [B].
        log: with a log, int64 [its last start], as ``run_machines`` of ``triton_kernels`` writes it.
        first: where first touches are asked for, int64 [R, B], [N, B], [P, B].
    """

    registers: Tensor
    memory: Tensor
    stack: Tensor
    counters: Tensor
    depths: Tensor
    deepest: Tensor
    halted: Tensor
    faults: Tensor
    steps: Tensor
    log: Tensor | None = None
    first: tuple[Tensor, Tensor, Tensor] | None = None


def run(
    code: Tensor,
    entries: Tensor,
    registers: Tensor,
    memory: Tensor,
    config: MachineConfig,
    limit: int,
    *,
    total: bool = False,
    program: Tensor | None = None,
    patch_at: Tensor | None = None,
    patch_word: Tensor | None = None,
    log_starts: Tensor | None = None,
    first: bool = False,
) -> Ran:
    """Runs B machines to their ends, in one launch, from states that are already on the device.

    Args:
        code: ``packed`` programs, int64 [programs, P + 1].
        entries: int32 [B].
        registers, memory: two's complement int32 [R, B] and [N, B]; changed in place.
        config: the shape of the machine.
        limit: steps.
        total: with the edge values of faults, as the dense engine.
        program, patch_at, patch_word: which program each machine runs, int64 [B], and the one word of it that is another
            one for this machine; all or none of them.
        log_starts: int64 [B + 1], where each machine's log begins; nothing is logged by default.
        first: whether to find out when each cell was first touched.
    """
    batch, device = len(entries), registers.device

    def column() -> Tensor:
        return torch.zeros(batch, dtype=torch.int32, device=device)

    stack = torch.zeros(config.call_depth, batch, dtype=torch.int32, device=device)
    ran = Ran(
        registers, memory, stack, entries.to(torch.int32).clone(), column(), column(), column(), column(),
        torch.full((batch,), min(limit, 2**62), dtype=torch.int64, device=device),
    )  # fmt: skip
    size = code.shape[1] - 1
    if log_starts is not None:
        ran.log = torch.empty(int(log_starts[-1]), dtype=torch.int64, device=device)
    if first:
        ran.first = (
            torch.full(registers.shape, -1, dtype=torch.int64, device=device),
            torch.full(memory.shape, -1, dtype=torch.int64, device=device),
            torch.full((size, batch), -1, dtype=torch.int64, device=device),
        )
    if batch == 0:
        return ran
    nothing = ran.steps  # where a kernel takes an array that it will not touch
    with _on(device):
        run_machines[(-(-batch // BLOCK),)](
            code, nothing if program is None else program, size, nothing if patch_at is None else patch_at,
            nothing if patch_word is None else patch_word, registers, memory, stack, ran.counters, ran.depths, ran.deepest,
            ran.halted, ran.steps, ran.faults, nothing if ran.log is None else ran.log,
            nothing if log_starts is None else log_starts, *(ran.first or (nothing,) * 3), batch, config.memory,
            config.call_depth, config.bits, TOTAL=total, PROGRAMS=program is not None,
            LOG=log_starts is not None, FIRST=first, BETWEEN=BETWEEN,
            NARROW=config.bits < 32, BLOCK=BLOCK, num_warps=max(1, BLOCK // 32),
        )  # fmt: skip
    return ran


def parts(batch: int, bytes_each: int) -> Iterator[slice]:
    """Consecutive parts of a batch, none larger than ``LARGEST_BATCH``."""
    most = max(1, LARGEST_BATCH // max(1, bytes_each))
    for start in range(0, batch, most):
        yield slice(start, min(batch, start + most))


def _state_bytes(config: MachineConfig) -> int:
    return 4 * (config.memory + config.registers + config.call_depth + 16)


def to_lanes(words: np.ndarray, config: MachineConfig, device: torch.device) -> Tensor:
    """Words 0…V−1, or their two's complement, [B, K], as two's complement int32 [K, B] on the device."""
    half = config.half
    rows = torch.from_numpy(np.ascontiguousarray(words)).to(device).T.to(torch.int64)
    return torch.where(rows >= half, rows - config.values, rows).to(torch.int32).contiguous()


def from_lanes(words: Tensor, config: MachineConfig) -> np.ndarray:
    """The inverse of ``to_lanes``: words 0…V−1, int64 [B, K], on the CPU."""
    return (words.T.to(torch.int64) & (config.values - 1)).contiguous().cpu().numpy()


# ---------------------------------------------------------------------------------------------------------------------
# The exact engine's path
# ---------------------------------------------------------------------------------------------------------------------


def execute(
    code: np.ndarray,
    config: MachineConfig,
    entries: Sequence[int],
    registers: np.ndarray,
    memory: np.ndarray,
    limit: int,
    device: torch.device,
) -> FinalStates:
    """``ExactMachine.execute``: the same arguments and results, checked by the caller."""
    words = torch.from_numpy(packed(code)[None]).to(device)
    batch = len(entries)
    final = FinalStates(
        np.empty((batch, config.registers), np.int64), np.empty((batch, config.memory), np.int64),
        *(np.empty(batch, np.int64) for _ in range(3)),
    )  # fmt: skip
    starts = torch.from_numpy(np.array(entries, np.int32))
    for part in parts(batch, _state_bytes(config) + 12 * config.memory):
        banks, memories = to_lanes(registers[part], config, device), to_lanes(memory[part], config, device)
        ran = run(words, starts[part].to(device), banks, memories, config, limit)
        final.registers[part], final.memory[part] = from_lanes(ran.registers, config), from_lanes(ran.memory, config)
        final.program_counters[part], final.steps[part] = ran.counters.cpu().numpy(), ran.steps.cpu().numpy()
        final.faults[part] = ran.faults.cpu().numpy()
    return final


def run_texts(
    code: np.ndarray,
    config: MachineConfig,
    entries: Sequence[int],
    registers: np.ndarray,
    image: np.ndarray,
    bounds: np.ndarray,
    limit: int,
    device: torch.device,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """``ExactMachine.run_batch`` between its texts.

    Args:
        registers: two's complement, int64 [B, R].
        image, bounds: run k finds ``image[bounds[k]:bounds[k + 1]]`` in memory from address 1 on; uint32, int64 [B + 1].

    Returns:
        The characters of all results, uint32; run k's are those from bounds[k] to bounds[k + 1], int64 [B + 1]; steps and
        faults, int64 [B].
    """
    words = torch.from_numpy(packed(code)[None]).to(device)
    starts = torch.from_numpy(np.array(entries, np.int32))
    nothing = np.zeros(0, np.int64)
    texts, lengths, steps, faults = [nothing.astype(np.uint32)], [np.zeros(1, np.int64)], [nothing], [nothing]
    for part in parts(len(entries), _state_bytes(config)):
        first, last = int(bounds[part.start]), int(bounds[part.stop])
        sizes = torch.from_numpy(np.diff(bounds[part.start : part.stop + 1])).to(device)
        points = torch.from_numpy(image[first:last].astype(np.int64)).to(device)
        memory = torch.zeros(config.memory, len(sizes), dtype=torch.int32, device=device)
        machine, offset = _ragged(sizes)
        signed = torch.where(points >= config.half, points - config.values, points)
        memory[offset + 1, machine] = signed.to(torch.int32)
        banks = to_lanes(registers[part], config, device)
        ran = run(words, starts[part].to(device), banks, memory, config, limit)

        # The result: registers[0] its address, registers[1] its length, as ``state.result`` reads it.
        mask = config.values - 1
        where, length = banks[0].to(torch.int64) & mask, banks[1].to(torch.int64)
        found = ran.faults.to(torch.int64)
        unreadable = (found == 0) & ((length < 0) | (where + length > config.memory))
        found[unreadable] = int(Fault.wild_access)
        length = torch.where(found == 0, length, 0)
        machine, offset = _ragged(length)
        characters = memory[where[machine] + offset, machine].to(torch.int64) & mask
        wrong = machine[(characters >= 0x110000) | ((characters >= 0xD800) & (characters < 0xE000))]
        found[wrong], length[wrong] = int(Fault.wild_access), 0
        texts.append(characters[found[machine] == 0].cpu().numpy().astype(np.uint32))
        lengths.append(length.cpu().numpy())
        steps.append(ran.steps.cpu().numpy())
        faults.append(found.cpu().numpy())
    return np.concatenate(texts), np.cumsum(np.concatenate(lengths)), np.concatenate(steps), np.concatenate(faults)


def _ragged(sizes: Tensor) -> tuple[Tensor, Tensor]:
    """For lists of these sizes, laid end to end: of each item, its list and its place in it."""
    which = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)
    begins = torch.cumsum(sizes, 0) - sizes
    return which, torch.arange(len(which), device=sizes.device) - begins[which]


# ---------------------------------------------------------------------------------------------------------------------
# Runs as the dense engine would on one-hot input, for the gradients
# ---------------------------------------------------------------------------------------------------------------------

# Whether an alternative to a field of an instruction can change anything, [operations, 5]: total machines pass every guard.
_USES = READS & ~np.outer([o.kind == "guard" for o in OPERATIONS], [False, True, True, False, False])


def total_code(rows: np.ndarray, config: MachineConfig, size: int) -> np.ndarray:
    """Instructions [..., 5] with each immediate an index 0…max(V, P) − 1, as ``packed`` takes them."""
    code = np.array(rows, np.int64)
    words = (code[..., 4] % config.values + config.half) % config.values - config.half
    code[..., 4] = np.where(JUMPS[code[..., 0]], np.minimum(code[..., 4], size), words)
    return code


@dataclass
class Weights:
    """The loss of each machine as a sum over what the rows of its final state hold, float64 on the device: registers
    [B, R, V], memory [B, N, V], program counter [B, P + 1], having halted [B]."""

    registers: Tensor
    memory: Tensor
    counter: Tensor
    halted: Tensor

    def scores(self, ran: Ran, owners: Tensor, config: MachineConfig) -> Tensor:
        """The loss of each run, of the machine that owns it: float64 [runs]."""
        scores = torch.zeros(len(owners), dtype=torch.float64, device=owners.device)
        if len(owners):
            with _on(owners.device):
                score_machines[(-(-len(owners) // BLOCK),)](
                    ran.registers, ran.memory, ran.counters, ran.halted, owners, self.registers, self.memory, self.counter,
                    self.halted, scores, len(owners), config.registers, config.memory, config.bits,
                    self.counter.shape[1] - 1, BLOCK=BLOCK, num_warps=max(1, BLOCK // 32),
                )  # fmt: skip
        return scores


@dataclass
class Alternatives:
    """All alternatives of one run, as ``adjoint.alternatives`` gives them: its last three arguments and what it returns."""

    losses: np.ndarray
    finals: np.ndarray
    unfinished: np.ndarray
    executed: int


class SampleRuns:
    """K runs of one machine shape, each with a program and a state of its own, and their alternatives, on the device.

    Args:
        rows: instructions with immediates as indices, int64 [K, P, 5].
        entries: K code addresses.
        registers, memory: words, integers [K, R] and [K, N].
        config: the shape of the machine.
        limit: steps.
        device: from ``device_of``.
    """

    def __init__(
        self,
        rows: np.ndarray,
        entries: Sequence[int],
        registers: np.ndarray,
        memory: np.ndarray,
        config: MachineConfig,
        limit: int,
        device: torch.device,
    ):
        self.config, self.limit, self.device, self.rows = config, limit, device, rows
        self.size = rows.shape[1]
        self.words, self.banks = memory, registers
        self.one_program = bool((rows == rows[:1]).all())
        different = rows[:1] if self.one_program else rows
        self.code = torch.from_numpy(packed(total_code(different, config, self.size))).to(device)
        self.entries = torch.from_numpy(np.array(entries, np.int32)).to(device)
        self.registers, self.memory = to_lanes(registers, config, device), to_lanes(memory, config, device)

    def _run(self, runs: Tensor, first: bool = False, changes: _Changes | None = None) -> Ran:
        """These runs anew, each with one change."""
        registers, memory = self.registers[:, runs].contiguous(), self.memory[:, runs].contiguous()
        program = patch_at = patch_word = None
        if not self.one_program or (changes is not None and bool((changes.table == 2).any())):
            program = torch.zeros_like(runs) if self.one_program else runs
            patch_at, patch_word = torch.full_like(runs, -1), torch.zeros_like(runs)
        if changes is not None:
            table, cell, word = (
                torch.from_numpy(x).to(self.device) for x in (changes.table, changes.cell, changes.word)
            )
            for number, lanes in ((0, memory), (1, registers)):
                chosen = (table == number).nonzero()[:, 0]
                lanes[cell[chosen], chosen] = word[chosen].to(torch.int32)
            if patch_at is not None:
                patch_at, patch_word = torch.where(table == 2, cell, -1), word
        return run(
            self.code, self.entries[runs], registers, memory, self.config, self.limit, total=True, first=first,
            program=program, patch_at=patch_at, patch_word=patch_word,
        )  # fmt: skip

    def finals(self) -> np.ndarray:
        """Their final states, int64 [K, 4 + R + N]: counter, depth, steps, halted, registers, memory."""
        found = np.zeros((len(self.rows), 4 + self.config.registers + self.config.memory), np.int64)
        for part in parts(len(self.rows), 3 * _state_bytes(self.config)):
            found[part] = self._rows_of(self._run(torch.arange(part.start, part.stop, device=self.device)))
        return found

    def _rows_of(self, ran: Ran) -> np.ndarray:
        heads = torch.stack([ran.counters.to(torch.int64), ran.depths.to(torch.int64), ran.steps, ran.halted], 1)
        rows = from_lanes(ran.registers, self.config), from_lanes(ran.memory, self.config)
        return np.concatenate([heads.cpu().numpy(), *rows], axis=1)

    def alternatives(
        self,
        starts: dict[str, np.ndarray],
        widths: np.ndarray,
        total: int,
        owners: np.ndarray,
        weights: Weights | None,
    ) -> Iterator[Alternatives]:
        """The alternatives of one run after another, as ``adjoint.alternatives`` defines them.

        Args:
            starts: by "memory", "registers" and "program", where in ``losses`` those of each cell begin, −1 for fixed ones.
            widths: alternatives of each field, int64 [5].
            total: losses of one run.
            owners: the machine that each run is of, int64 [K].
            weights: of the machines; None to have final states instead.
        """
        columns = 4 + self.config.registers + self.config.memory
        bytes_each = 8 * (total * (columns if weights is None else 1) + 4 * columns)
        for part in parts(len(self.rows), bytes_each):
            yield from self._alternatives_of(part, starts, widths, total, owners, weights)

    def _alternatives_of(
        self,
        part: slice,
        starts: dict[str, np.ndarray],
        widths: np.ndarray,
        total: int,
        owners: np.ndarray,
        weights: Weights | None,
    ) -> Iterator[Alternatives]:
        config, count = self.config, part.stop - part.start
        base = self._run(torch.arange(part.start, part.stop, device=self.device), first=True)
        assert base.first is not None
        touched = [rows.T.cpu().numpy() for rows in base.first]  # registers, memory, code
        own = self._rows_of(base)
        owner = torch.from_numpy(owners[part]).to(self.device)
        scores = np.zeros(count) if weights is None else weights.scores(base, owner, config).cpu().numpy()
        every = self._changes(part, touched, starts, widths)
        which = every.run

        losses = np.repeat(scores[:, None], total, axis=1)
        finals = np.zeros((count, 0, 0), np.int64)
        if weights is None:
            finals = np.repeat(own[:, None], total, axis=1)
        executed, halted = np.zeros(len(which), np.int64), np.zeros(len(which), bool)
        for some in parts(len(which), 2 * _state_bytes(config)):
            runs = torch.from_numpy(which[some] + part.start).to(self.device)
            ran = self._run(runs, changes=_Changes(*(column[some] for column in vars(every).values())))
            executed[some], halted[some] = ran.steps.cpu().numpy(), ran.halted.cpu().numpy() != 0
            if weights is None:
                finals[which[some], every.at[some]] = self._rows_of(ran)
            else:
                judged = weights.scores(ran, torch.from_numpy(owners[part][which[some]]).to(self.device), config)
                losses[which[some], every.at[some]] = judged.cpu().numpy()

        # A cell that was never read nor written ends as it began.
        for number, (name, words) in enumerate((("registers", self.banks), ("memory", self.words))):
            offset = 4 if name == "registers" else 4 + config.registers
            table = None
            if weights is not None:
                table = (weights.registers if name == "registers" else weights.memory).cpu().numpy()
            for k, cell in np.argwhere((touched[number] == -1) & (starts[name] >= 0)):
                first = starts[name][cell]
                if table is None:
                    finals[k, first : first + config.values, offset + cell] = np.arange(config.values)
                else:
                    rows = table[owners[part.start + k], cell]
                    losses[k, first : first + config.values] = scores[k] + rows - rows[words[part.start + k, cell]]
        total_steps = own[:, 2] + np.bincount(which, executed, count).astype(np.int64)
        stopped = np.bincount(which[~halted], minlength=count)
        for k in range(count):
            unfinished = np.array([-1, stopped[k]])
            if stopped[k]:
                those = np.flatnonzero(~halted & (which == k))
                unfinished[0] = every.at[those[every.order[those].argmin()]]
            yield Alternatives(losses[k], finals[k], unfinished, int(total_steps[k]))

    def _changes(
        self, part: slice, touched: Sequence[np.ndarray], starts: dict[str, np.ndarray], widths: np.ndarray
    ) -> _Changes:
        """The changes of some runs that can make a difference, those of a cell in the order of its words."""
        values, half = self.config.values, self.config.half
        others = np.arange(values - 1)
        found = []
        for table, (name, first, held) in enumerate(
            (("memory", touched[1], self.words), ("registers", touched[0], self.banks))
        ):
            which, cell = np.nonzero((first >= 0) & (starts[name] >= 0))
            word = others + (others >= held[part][which, cell][:, None])  # all but the one that it holds
            met = first[which, cell]
            order = 8 * met + 2 if name == "memory" else 8 * (met >> 1) + (met & 1)
            columns = which, np.full(len(which), table), cell, np.where(word >= half, word - values, word)
            at = starts[name][cell][:, None] + word
            found.append([np.broadcast_to(x.T, at.T.shape).T.ravel() for x in (*columns, at, order)])
        before = np.concatenate([[0], np.cumsum(widths)])
        fields: dict[tuple[int, int, int], tuple[np.ndarray, np.ndarray]] = {}
        for k, cell in np.argwhere((touched[2] >= 0) & (starts["program"] >= 0)):
            program = 0 if self.one_program else part.start + k
            row = self.rows[program, cell]
            for field in np.flatnonzero(_USES[row[0]]):
                key = int(program), int(cell), int(field)
                if key not in fields:
                    fields[key] = self._other_instructions(row, int(field), int(widths[field]))
                choice, words = fields[key]
                met = np.full(len(choice), 8 * touched[2][k, cell] + 3 + field)
                at = starts["program"][cell] + before[field] + choice
                found.append([np.full_like(at, k), np.full_like(at, 2), np.full_like(at, cell), words, at, met])
        return _Changes(*(np.concatenate(column).astype(np.int64) for column in zip(*found, strict=True)))

    def _other_instructions(self, row: np.ndarray, field: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """What else a field of an instruction can hold, but for operations that are the same; and the instructions then."""
        changed = np.repeat(row[None], width, axis=0)
        changed[:, field] = np.arange(width)
        words = packed(total_code(changed, self.config, self.size))[:-1]
        meanings = changed[:, field] if field else NUMBERS[:-1]
        choice = np.flatnonzero(meanings != meanings[row[field]])
        return choice, words[choice]


@dataclass
class _Changes:
    """One change a run: of which run, of memory (table 0), registers (1) or the program (2), which cell, the new two's
    complement word or instruction, where in the losses of its run it belongs, and a number that is smaller for what its
    run meets earlier; int64 [changes] each."""

    run: np.ndarray
    table: np.ndarray
    cell: np.ndarray
    word: np.ndarray
    at: np.ndarray
    order: np.ndarray


# ---------------------------------------------------------------------------------------------------------------------
# Adjoints
# ---------------------------------------------------------------------------------------------------------------------

BACK_LANES = 128
"""Words, registers or code addresses that a program of ``pull_back`` takes at once."""

BACK_WARPS = 1
"""Warps of a program of ``pull_back``, which is a machine."""


@dataclass
class Pulled:
    """Gradients of the first states of B runs: memory [B, N, V], registers [B, R, V]; the fields' gradients, summed over
    the runs, or None; which runs have only finite entries, bool [B]."""

    memory: np.ndarray
    registers: np.ndarray
    fields: list[np.ndarray] | None
    finite: np.ndarray


class AdjointRuns:
    """B machines of one program, run on the device as the dense engine would, and their gradients pulled back there.

    Args:
        rows: instructions with immediates as indices, int64 [P, 5].
        entries: B code addresses.
        registers, memory: words, integers [B, R] and [B, N].
        config: the shape of the machine.
        limit: steps.
        device: from ``device_of``.
    """

    def __init__(
        self,
        rows: np.ndarray,
        entries: Sequence[int],
        registers: np.ndarray,
        memory: np.ndarray,
        config: MachineConfig,
        limit: int,
        device: torch.device,
    ):
        self.config, self.limit, self.device = config, limit, device
        self.entries, self.registers, self.memory = np.array(entries, np.int32), registers, memory
        self.size, batch = len(rows), len(entries)
        self.code = torch.from_numpy(packed(total_code(rows, config, self.size)[None])).to(device)
        self.lanes = 1 << (len(OPERATIONS) - 1).bit_length()
        table = np.zeros((6, self.size + 1), np.int32)  # the last column is the halt past the end
        table[0, :-1], table[1:5, :-1], table[5, :-1] = NUMBERS[rows[:, 0]], rows[:, 1:].T, rows[:, 0]
        numbers = np.zeros(self.lanes, np.int32)
        numbers[: len(OPERATIONS)] = NUMBERS[:-1]
        self.rows = torch.from_numpy(np.concatenate([table.ravel(), numbers])).to(device)
        self.counters, self.depths, self.deepest = (np.zeros(batch, np.int64) for _ in range(3))
        self.steps, self.halted = np.zeros(batch, np.int64), np.zeros(batch, bool)
        self.final_registers, self.final_memory = np.zeros_like(registers), np.zeros_like(memory)
        self.final_stack = np.zeros((batch, config.call_depth), np.int64)
        for part in parts(batch, 3 * _state_bytes(config)):
            ran = self._run(part)
            self.counters[part], self.depths[part] = ran.counters.cpu().numpy(), ran.depths.cpu().numpy()
            self.deepest[part], self.steps[part] = ran.deepest.cpu().numpy(), ran.steps.cpu().numpy()
            self.halted[part] = ran.halted.cpu().numpy() != 0
            self.final_registers[part] = from_lanes(ran.registers, config)
            self.final_memory[part] = from_lanes(ran.memory, config)
            self.final_stack[part] = ran.stack.T.cpu().numpy()

    def _run(self, part: slice, log_starts: Tensor | None = None) -> Ran:
        return run(
            self.code, torch.from_numpy(self.entries[part]).to(self.device),
            to_lanes(self.registers[part], self.config, self.device),
            to_lanes(self.memory[part], self.config, self.device), self.config, self.limit, total=True,
            log_starts=log_starts,
        )  # fmt: skip

    def backward(self, gradients: Sequence[Tensor | None], program: bool, joint: bool, damping: float) -> Pulled:
        """Runs them again, with a log, and pulls the gradients of their final states back along it.

        Args:
            gradients: of memory, registers, program counter, stack, depth and halting, [B, …], as of a ``DenseState``.
            program: whether the gradients of the program's fields are wanted.
            joint, damping: as ``AdjointMachine``.
        """
        config, size, batch = self.config, self.size, len(self.entries)
        whole = gradients[3] is not None or gradients[4] is not None
        entries = max(config.values, size)
        widths = (self.lanes, *(config.registers,) * 3, entries) if program else ()
        # A call in place of a return leaves the stack two deeper than the run has it, and stays two deeper.
        levels = config.call_depth if whole else min(config.call_depth, int(self.deepest.max(initial=0)) + 2)
        words = (config.memory + config.registers + 2) * config.values + (levels + 3) * (size + 2) + size * sum(widths)
        longest = int(self.steps.max(initial=0))
        found = Pulled(
            np.zeros((batch, config.memory, config.values)), np.zeros((batch, config.registers, config.values)),
            [np.zeros((size, width)) for width in widths] if program else None, np.ones(batch, bool),
        )  # fmt: skip
        for part in parts(batch, 16 * words + 8 * longest + 6 * _state_bytes(config)):
            found.finite[part] = self._pull(part, gradients, levels, widths, joint, damping, found)
        if found.fields is not None:
            found.fields[0] = found.fields[0][:, : len(OPERATIONS)]
        return found

    def _pull(
        self,
        part: slice,
        gradients: Sequence[Tensor | None],
        levels: int,
        widths: Sequence[int],
        joint: bool,
        damping: float,
        found: Pulled,
    ) -> np.ndarray:
        config, device, size, count = self.config, self.device, self.size, part.stop - part.start
        starts = torch.from_numpy(np.cumsum(np.concatenate([[0], self.steps[part]]))).to(device)
        ran = self._run(part, starts)
        assert ran.log is not None
        registers, memory = (
            (x.T & (config.values - 1)).to(torch.int32).contiguous() for x in (ran.registers, ran.memory)
        )
        stack = ran.stack.T.contiguous()

        def blank(*shape: int) -> Tensor:
            return torch.zeros(count, *shape, dtype=torch.float64, device=device)

        def tangent(number: int, held: Tensor) -> Tensor | float:
            rows = gradients[number]
            if rows is None:
                return 0.0
            rows = rows[part].detach().to(device, torch.float64)
            return rows - rows.gather(-1, held.to(torch.int64)[..., None])

        g_registers, g_memory = blank(config.registers, config.values), blank(config.memory, config.values)
        g_counter, g_stack, g_depth = blank(2, size + 1), blank(levels, size + 1), blank(2, levels + 1)
        g_memory += tangent(0, memory)
        g_registers += tangent(1, registers)
        g_counter[:, 0] += tangent(2, ran.counters)
        g_stack += tangent(3, stack)
        g_depth[:, 0] += tangent(4, ran.depths)
        g_halted = blank()
        if gradients[5] is not None:
            g_halted += gradients[5][part].detach().to(device, torch.float64)
        fields = [blank(size, width) for width in widths]
        nothing = [g_halted] * 5  # in place of fields
        with _on(device):
            pull_back[(count,)](
                self.rows, ran.log, starts, ran.steps, ran.depths, ran.halted, registers, memory, stack, g_registers, g_memory,
                g_counter, g_stack, g_depth, g_halted, *(fields or nothing), blank(2 * config.values + self.lanes),
                torch.full((1,), damping, dtype=torch.float64, device=device), size, config.registers, config.memory, levels,
                config.call_depth, config.bits, max(config.values, size), FIELDS=bool(fields), JOINT=joint,
                OPERATIONS=self.lanes, REGISTERS=1 << (config.registers - 1).bit_length(), BLOCK=BACK_LANES,
                num_warps=BACK_WARPS,
            )  # fmt: skip
        found.memory[part], found.registers[part] = g_memory.cpu().numpy(), g_registers.cpu().numpy()
        for total, more in zip(found.fields or (), fields, strict=True):
            total += more.sum(0).cpu().numpy()
        finite = torch.isfinite(g_halted)
        for rows in (g_memory, g_registers, g_counter, g_stack, g_depth, *fields):
            finite &= torch.isfinite(rows).flatten(1).all(1)
        return finite.cpu().numpy()
