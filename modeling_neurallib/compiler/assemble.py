"""Stage 4: from a routine in machine registers to rows of instructions; and the stub at which a program starts."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..machine.operations import CODES
from .three_address import BRANCHES, OPERANDS, TERMINATORS, Instruction, Routine


@dataclass
class Assembled:
    """A routine's instructions, with jumps relative to its start and calls by name.

    Attributes:
        rows: operation, source_a, source_b, target, immediate of each instruction.
        lines: the source line of each.
        calls: position of a call → name of the routine that it calls.
        jumps: positions whose immediate is an address inside the routine.
    """

    routine: Routine
    rows: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    calls: dict[int, str] = field(default_factory=dict)
    jumps: list[int] = field(default_factory=list)


def assemble(routine: Routine) -> Assembled:
    """Encodes a routine whose registers are allocated."""
    code = _straighten(routine.code)
    places: dict[str, int] = {}
    count = 0
    for instruction in code:
        if instruction.operation == "label":
            places[instruction.label] = count
        else:
            count += 1
    built = Assembled(routine)
    for instruction in code:
        operation = instruction.operation
        if operation == "label":
            continue
        operands = OPERANDS[operation]
        immediate = instruction.immediate if "i" in operands else 0
        if operation == "call":
            built.calls[len(built.rows)] = instruction.label
        elif "l" in operands:
            immediate = places[instruction.label]
            built.jumps.append(len(built.rows))
        built.rows.append(
            (
                CODES[operation],
                instruction.a if "a" in operands else 0,
                instruction.b if "b" in operands else 0,
                instruction.target if "t" in operands else 0,
                immediate,
            )
        )
        built.lines.append(instruction.line)
    return built


def entry(program: str, function: str, parameters: int) -> Routine:
    """Where a run starts: gives every text its length in the word before it, calls the function, returns its text."""
    stub = Routine(f"entry of {program}", 0, file="entry", source=f"the entry of {program}")
    for position in range(parameters):
        address, length = 2 * position, 2 * position + 1
        stub.emit("store", a=address, immediate=-1, b=length)
        stub.emit("index_immediate", position, address, immediate=-1)
    stub.emit("call", label=function)
    stub.emit("load", 1, 0, immediate=0)
    stub.emit("index_immediate", 0, 0, immediate=1)
    stub.emit("halt")
    return stub


def _straighten(code: list[Instruction]) -> list[Instruction]:
    """Jumps to jumps go to where those lead, jumps to the next instruction go, and so does what cannot be reached."""
    while True:
        leads = _targets(code)
        for instruction in code:
            if instruction.operation == "jump" or instruction.operation in BRANCHES:
                seen = set()
                while instruction.label in leads and instruction.label not in seen:
                    seen.add(instruction.label)
                    instruction.label = leads[instruction.label]
        kept: list[Instruction] = []
        dead = False
        wanted = {each.label for each in code if each.operation == "jump" or each.operation in BRANCHES}
        for position, instruction in enumerate(code):
            if instruction.operation == "label":
                if instruction.label not in wanted:
                    continue
                dead = False
            if dead or (instruction.operation == "jump" and _falls_to(code, position + 1, instruction.label)):
                continue
            kept.append(instruction)
            dead = instruction.operation in TERMINATORS
        kept = _invert(kept)
        if len(kept) == len(code):
            return kept
        code = kept


def _invert(code: list[Instruction]) -> list[Instruction]:
    """``if a go to x; go to y; x:`` becomes ``unless a go to y; x:``."""
    kept: list[Instruction] = []
    position = 0
    while position < len(code):
        instruction = code[position]
        if (
            instruction.operation in BRANCHES
            and position + 1 < len(code)
            and code[position + 1].operation == "jump"
            and _falls_to(code, position + 2, instruction.label)
        ):
            instruction.operation = BRANCHES[1 - BRANCHES.index(instruction.operation)]
            instruction.label = code[position + 1].label
            position += 1
        kept.append(instruction)
        position += 1
    return kept


def _targets(code: list[Instruction]) -> dict[str, str]:
    """Label → where the jump that stands right after it goes."""
    leads = {}
    for position, instruction in enumerate(code):
        if instruction.operation == "label":
            following = position
            while following < len(code) and code[following].operation == "label":
                following += 1
            if following < len(code) and code[following].operation == "jump":
                leads[instruction.label] = code[following].label
    return leads


def _falls_to(code: list[Instruction], position: int, label: str) -> bool:
    while position < len(code) and code[position].operation == "label":
        if code[position].label == label:
            return True
        position += 1
    return False
