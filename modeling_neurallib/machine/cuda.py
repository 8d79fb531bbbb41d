"""Batches of machines on a CUDA device: the exact engine's third path, and what the gradients need of it.

A run is one launch of a kernel of ``triton_kernels``, however many steps it takes; thousands of machines run side by
side. Results are the CPU's, bit for bit. A single machine is faster on the CPU: a lane of the device is slower than a core.

Triton comes with PyTorch for CUDA. With ``TRITON_INTERPRET=1`` in the environment and no device, the same kernels run on
the CPU in Triton's interpreter, for tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...configuration.machine_config import MachineConfig
from .operations import Fault
from .state import FinalStates, MachineError
from .triton_kernels import INTERPRETED, packed, run_machines, triton

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
    run_machines[(-(-batch // BLOCK),)](
        code, nothing if program is None else program, size, nothing if patch_at is None else patch_at,
        nothing if patch_word is None else patch_word, registers, memory, stack, ran.counters, ran.depths, ran.deepest,
        ran.halted, ran.steps, ran.faults, nothing if ran.log is None else ran.log,
        nothing if log_starts is None else log_starts, *(ran.first or (nothing,) * 3), batch, config.memory,
        config.call_depth, config.bits, TOTAL=total, PROGRAMS=program is not None,
        LOG=log_starts is not None, FIRST=first, BETWEEN=BETWEEN, BLOCK=BLOCK, num_warps=max(1, BLOCK // 32),
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
