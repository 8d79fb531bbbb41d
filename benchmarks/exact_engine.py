"""Speed of the exact engine: an insertion sort of 64 words, in instructions a second.

The native path (numba) sorts a batch of independent machines on one core, the portable path one machine. Each figure is
the median of five runs, after one that compiles. Conversion of the states in and out of the engine is included.

    python benchmarks/exact_engine.py [--batch 4096] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np
from neurallib.configuration.machine_config import MachineConfig
from neurallib.modeling_neurallib.machine.exact import ExactMachine
from neurallib.modeling_neurallib.machine.operations import CODES

WORDS = 64
CONFIG = MachineConfig(values=2**31, memory=128, call_depth=64)


def instruction(name: str, target: int = 0, a: int = 0, b: int = 0, immediate: int = 0) -> tuple[int, ...]:
    """One row of the program, with the operands in the disassembler's order."""
    return CODES[name], a, b, target, immediate


# r0 the address of the words, r1 their number; r2 i, r3 j, r4 key, r5 the address of word j, r6 its left neighbour,
# r7 a condition
INSERTION_SORT = np.array(
    [
        instruction("constant", 2, immediate=1),
        instruction("less_than", 7, 2, 1),  # 1: while i < n
        instruction("jump_if_zero", a=7, immediate=17),
        instruction("index", 5, 0, 2),
        instruction("load", 4, 5),
        instruction("move", 3, 2),
        instruction("jump_if_zero", a=3, immediate=14),  # 6: while j > 0 and word[j − 1] > key
        instruction("load", 6, 5, immediate=-1),
        instruction("less_than", 7, 4, 6),
        instruction("jump_if_zero", a=7, immediate=14),
        instruction("store", a=5, b=6),
        instruction("add_immediate", 5, 5, immediate=-1),
        instruction("add_immediate", 3, 3, immediate=-1),
        instruction("jump", immediate=6),
        instruction("store", a=5, b=4),  # 14: the place of the key
        instruction("add_immediate", 2, 2, immediate=1),
        instruction("jump", immediate=1),
        instruction("halt"),  # 17
    ],
    dtype=np.int64,
)


def instructions_per_second(portable: bool, batch: int, repeats: int = 5) -> float:
    """Median over ``repeats``; every run sorts ``batch`` lists and is checked against numpy's sort."""
    machine = ExactMachine(INSERTION_SORT, CONFIG, portable=portable)
    generator = np.random.default_rng(0)
    registers = np.zeros((batch, CONFIG.registers), np.int64)
    registers[:, 0], registers[:, 1] = 1, WORDS
    memory = np.zeros((batch, CONFIG.memory), np.int64)
    memory[:, 1 : 1 + WORDS] = generator.integers(0, 10_000, (batch, WORDS))
    rates = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        final = machine.execute([0] * batch, registers, memory)
        rates.append(int(final.steps.sum()) / (time.perf_counter() - start))
        if not np.array_equal(final.memory[:, 1 : 1 + WORDS], np.sort(memory[:, 1 : 1 + WORDS], axis=1)):
            raise SystemExit("the exact engine did not sort")
    return statistics.median(rates[1:])


def microseconds_per_short_run(portable: bool, batch: int = 1_000, repeats: int = 5) -> float:
    """What a call costs beside its instructions: ``run_batch`` on the largest memory, programs of a single step."""
    machine = ExactMachine(np.array([instruction("halt")]), MachineConfig(), portable=portable)
    calls = [("123", "45")] * batch
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        machine.run_batch([0] * batch, calls)
        times.append((time.perf_counter() - start) / batch * 1e6)
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--batch", type=int, default=4_096, help="machines in the batch of the native path")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    figures = {
        "native_instructions_per_second": instructions_per_second(False, options.batch),
        "native_batch": options.batch,
        "portable_instructions_per_second": instructions_per_second(True, 1),
        "native_microseconds_per_short_run": microseconds_per_short_run(False),
        "portable_microseconds_per_short_run": microseconds_per_short_run(True),
    }
    if options.json:
        print(json.dumps(figures))
        return
    print(f"insertion sort of {WORDS} words, median of 5")
    print(f"  native, batch {options.batch:,}: {figures['native_instructions_per_second'] / 1e6:8.1f} million a second")
    print(f"  portable, batch 1:   {figures['portable_instructions_per_second'] / 1e6:8.1f} million a second")
    print(f"one short run in a batch of 1,000, N = {MachineConfig().memory:,}")
    print(f"  native:   {figures['native_microseconds_per_short_run']:6.1f} µs")
    print(f"  portable: {figures['portable_microseconds_per_short_run']:6.1f} µs")


if __name__ == "__main__":
    main()
