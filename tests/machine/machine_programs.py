"""Programs for the tests of the machine: written ones, a line an instruction, and random, often hostile ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from neurallib.configuration.machine_config import MachineConfig
from neurallib.modeling_neurallib.machine.operations import CODES, OPERATIONS


def assemble(*lines: str) -> np.ndarray:
    """Instructions [P, 5] from lines such as ``add 2 0 1``: the operands in the order of the operation's table row."""
    rows = []
    for line in lines:
        name, *operands = line.split()
        row = dict.fromkeys("abtil", 0)
        row.update(zip(OPERATIONS[CODES[name]].operands, map(int, operands), strict=True))
        rows.append((CODES[name], row["a"], row["b"], row["t"], row["i"] + row["l"]))
    return np.array(rows, np.int64)


# text → text, reversed in place: r0 first, r1 length, r2 last
REVERSE = assemble(
    "index 2 0 1", "add_immediate 2 2 -1", "move 3 0",
    "less_than 4 3 2", "jump_if_zero 4 11",  # 3: while first < last
    "load 5 3 0", "load 6 2 0", "store 3 0 6", "store 2 0 5", "add_immediate 3 3 1", "jump 12",
    "halt",  # 11
    "add_immediate 2 2 -1", "jump 3",
)  # fmt: skip


def words(config: MachineConfig) -> st.SearchStrategy[int]:
    """Words of a machine; those at its edges are likely."""
    edges = {0, 1, 2, config.memory - 1, config.memory % config.values, config.half - 1, config.half, config.values - 1}
    return st.one_of(st.sampled_from(sorted(edges)), st.integers(0, config.values - 1))


@st.composite
def programs(draw: st.DrawFn, config: MachineConfig, longest: int = 24) -> np.ndarray:
    """Random instructions, [P, 5]: wild addresses, endless loops and broken stacks included."""
    size = draw(st.integers(1, longest))
    register = st.integers(0, config.registers - 1)
    rows = []
    for _ in range(size):
        # Without a bias most random programs would end after a few steps.
        code = draw(st.one_of(st.integers(1, len(OPERATIONS) - 1), st.integers(0, len(OPERATIONS) - 1)))
        if "l" in OPERATIONS[code].operands:
            immediate = draw(st.integers(0, size - 1))
        else:
            near = st.integers(max(-3, -config.half), min(3, config.half - 1))
            immediate = draw(st.one_of(near, st.integers(-config.half, config.half - 1)))
        rows.append((code, draw(register), draw(register), draw(register), immediate))
    return np.array(rows, np.int64)


@st.composite
def runs(draw: st.DrawFn, configs: Sequence[MachineConfig], batch: int = 1, longest: int = 24):  # type: ignore[no-untyped-def]
    """(config, instructions, entries, registers [B, R], memory [B, N]), all random."""
    config = draw(st.sampled_from(configs))
    code = draw(programs(config, longest))
    entries = draw(st.lists(st.integers(0, len(code) - 1), min_size=batch, max_size=batch))
    word = words(config)
    registers = draw(
        st.lists(st.lists(word, min_size=config.registers, max_size=config.registers), min_size=batch, max_size=batch)
    )
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    memory = generator.integers(0, config.values, (batch, config.memory))
    return config, code, entries, np.array(registers, np.int64), memory
