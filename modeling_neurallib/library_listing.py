"""A library's code as people read it: instructions beside their source lines, and what learning changed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .library_code import HAS_ADDRESS, reachable
from .library_errors import one_line
from .library_records import Change, LibraryData, ListedLine, Origin
from .machine.operations import OPERATIONS


def disassembly(functions: Iterable[list[ListedLine]]) -> str:
    """A listing as text, each group of instructions under the source line that it was compiled from."""
    blocks = []
    for lines in functions:
        out = []
        for listed in lines:
            out.append(f"    # {listed.line:>4} {listed.source}" if listed.line else listed.source)
            out += [f"  {instruction}" for instruction in listed.instructions]
        blocks.append("\n".join(out))
    return "\n\n".join(blocks) + "\n"


def listed_functions(library: LibraryData, entry: int | None = None) -> list[list[ListedLine]]:
    """For each function its source lines in order, with their instructions.

    Args:
        entry: an address, for the functions that a run from there can reach; None for the whole library.
    """
    count = len(library.instructions)
    shown = np.ones(count, bool) if entry is None else reachable(library.instructions, entry)
    starts = sorted({0, *library.origins})
    ranges = zip(starts, [*starts[1:], count], strict=True)
    return [_listed(library, start, end) for start, end in ranges if shown[start:end].any()]


def _listed(library: LibraryData, start: int, end: int) -> list[ListedLine]:
    origin = library.origins.get(start, Origin(f"code at {start}", "", 0, ""))
    source = origin.source.splitlines()
    first = origin.line or 1
    where = f"   ({Path(origin.file).name}, line {origin.line})" if origin.line else ""
    code = library.instructions[start:end].tolist()
    labels = sorted({row[4] for row in code if HAS_ADDRESS[row[0]] and start < row[4] < end})
    names = {address: f".{number}" for number, address in enumerate(labels, 1)} | {start: ".0"}
    lines: list[tuple[int, str, list[str]]] = [(0, f"{origin.name}:{where}", [])]
    for address, row in enumerate(code, start):
        line = int(library.lines[address])
        if line and line != lines[-1][0] and 0 <= line - first < len(source):
            lines.append((line, source[line - first], []))
        if address in names and address != start:
            lines[-1][2].append(names[address])
        lines[-1][2].append(f"{address:>6}  {mnemonic(library, row, names)}")
    return [ListedLine(line, one_line(text), tuple(instructions)) for line, text, instructions in lines]


def mnemonic(library: LibraryData, row: list[int], labels: dict[int, str]) -> str:
    """An instruction as text; ``labels`` are names of code addresses."""
    operation = OPERATIONS[row[0]]
    words = []
    for operand in operation.operands:
        if operand == "t":
            words.append(_register(library, row[3]))
        elif operand == "a":
            words.append(_register(library, row[1]))
        elif operand == "b":
            words.append(_register(library, row[2]))
        elif operand == "i":
            words.append(str(row[4]))
        else:
            name = library.origins[row[4]].name if row[4] in library.origins else labels.get(row[4], str(row[4]))
            words.append(one_line(name if operation.name == "call" else labels.get(row[4], name)))
    text = f"{operation.name:<17} {' '.join(words)}".rstrip()
    return f"{text:<46}; {_comment(library, row, operation.name)}".rstrip("; ") if words else text


def _register(library: LibraryData, number: int) -> str:
    return {library.registers - 2: "hp", library.registers - 1: "sp"}.get(number, f"r{number}")


def _comment(library: LibraryData, row: list[int], name: str) -> str:
    """The instruction in the notation of the operation table."""
    t, a, b, i = _register(library, row[3]), _register(library, row[1]), _register(library, row[2]), row[4]
    if name == "load":
        return f"{t} ← memory[{a} {'-' if i < 0 else '+'} {abs(i)}]"
    if name == "store":
        return f"memory[{a} {'-' if i < 0 else '+'} {abs(i)}] ← {b}"
    if name == "constant":
        return f"{t} ← {i}" + (f"  {chr(i)!r}" if 33 <= i < 127 else "")
    if name == "equal_immediate" and 33 <= i < 127:
        return f"{t} ← {a} = {i}  {chr(i)!r}"
    signs = {
        "add": "+",
        "subtract": "-",
        "multiply": "·",
        "divide": "//",
        "modulo": "%",
        "equal": "=",
        "less_than": "<",
        "index": "+",
        "add_immediate": "+",
        "multiply_immediate": "·",
        "equal_immediate": "=",
        "less_immediate": "<",
        "index_immediate": "+",
    }
    if name == "move":
        return f"{t} ← {a}"
    if name in signs:
        return f"{t} ← {a} {signs[name]} {i if name.endswith('immediate') else b}"
    return ""


def learned_changes(library: LibraryData) -> list[Change]:
    """What learning changed against the origin, instruction by instruction; empty if nothing."""
    if library.learned is None:
        return []
    found, starts = [], sorted(library.origins)
    for position, address in enumerate(library.learned.rows.tolist()):
        before, after = library.learned.origin[address].tolist(), library.instructions[address].tolist()
        was, now = (one_line(mnemonic(library, row, {})) for row in (before, after))
        if was != now:  # or only fields that are not read differ
            place = bisect_right(starts, address) - 1
            name = library.origins[starts[place]].name if place >= 0 else ""
            found.append(Change(address, one_line(name), was, now, library.learned.probability(position, after)))
    return found
