"""Between stages 2 and 3: what was computed already is not computed again, and what nobody reads is not computed.

Within a basic block only, by value numbering: registers that are known to hold the same word share one, a load is
remembered until something may have changed the word (texts never change; a store to an element leaves the header of a
list alone), and a check or guard that has passed is not repeated. Then instructions without effect or reader go.
"""

from __future__ import annotations

from .errors import CompileError
from .three_address import BRANCHES, EFFECTS, OPERANDS, TERMINATORS, VIRTUAL, Instruction, Routine


def optimise(routine: Routine) -> None:
    """Improves a routine in place.

    Raises:
        CompileError: its end can be reached although it must return a value.
    """
    routine.code = reachable(routine)
    code: list[Instruction] = []
    block = _Block(routine)
    for instruction in routine.code:
        if instruction.operation == "label":
            block = _Block(routine)
        replaced = block.visit(instruction)
        if replaced is not None:
            code.append(replaced)
        if instruction.operation in TERMINATORS:
            block = _Block(routine)
    routine.code = code
    _remove_unread(routine)


def successors(code: list[Instruction]) -> list[list[int]]:
    """For each instruction the positions that can follow it."""
    places = {each.label: position for position, each in enumerate(code) if each.operation == "label"}
    following = []
    for position, instruction in enumerate(code):
        after = []
        if instruction.operation not in TERMINATORS and position + 1 < len(code):
            after.append(position + 1)
        if instruction.operation == "jump" or instruction.operation in BRANCHES:
            after.append(places[instruction.label])
        following.append(after)
    return following


def reachable(routine: Routine) -> list[Instruction]:
    """The instructions that can be reached from the first."""
    code = routine.code
    following = successors(code)
    seen, waiting = {0}, [0]
    while waiting:
        for position in following[waiting.pop()]:
            if position not in seen:
                seen.add(position)
                waiting.append(position)
    if len(code) - 1 in seen and code[-1].operation not in TERMINATORS:
        raise CompileError(
            routine.file, routine.line, f"{routine.name} can end without a return", "return a value on every way"
        )
    return [code[position] for position in sorted(seen)]


class _Block:
    """What is known inside one basic block. A register's value is named by the register and its version."""

    def __init__(self, routine: Routine) -> None:
        self.routine = routine
        self.version: dict[int, int] = {}
        self.copy_of: dict[int, tuple[int, int]] = {}
        self.known: dict[tuple, tuple[int, int]] = {}
        self.memory = {"header": 0, "elements": 0}

    def current(self, register: int) -> tuple[int, int]:
        return register, self.version.get(register, 0)

    def source(self, register: int) -> int:
        """The oldest register that still holds the same word."""
        found = self.copy_of.get(register)
        return found[0] if found is not None and self.current(found[0]) == found else register

    def visit(self, instruction: Instruction) -> Instruction | None:
        operation, operands = instruction.operation, OPERANDS[instruction.operation]
        if "a" in operands:
            instruction.a = self.source(instruction.a)
        if "b" in operands:
            instruction.b = self.source(instruction.b)
        if operation not in ("move", "store", "call") and min(instruction.uses(), default=VIRTUAL) < VIRTUAL:
            # A machine register (the heap pointer, an argument) is changed by calls: nothing is remembered of it.
            if "t" in operands:
                self.define(instruction.target)
            return instruction
        if operation == "store":
            for space in [instruction.space] if instruction.space in self.memory else list(self.memory):
                self.memory[space] += 1
            return instruction
        if operation == "call":
            self.memory = {space: count + 1 for space, count in self.memory.items()}
            self.known = {key: value for key, value in self.known.items() if key[0] != "guard"}
            return instruction
        if operation in ("check", "guard"):
            key = self.key(instruction)
            if key in self.known:
                return None
            self.known[key] = (-1, 0)
            return instruction
        if "t" not in operands:
            return instruction
        target = instruction.target
        if operation == "move":
            if instruction.a == target:
                return None
            self.define(target)
            if instruction.a >= VIRTUAL and target >= VIRTUAL:
                self.copy_of[target] = self.current(instruction.a)
            return instruction
        key = self.key(instruction)
        found = self.known.get(key)
        if found is not None and self.current(found[0]) == found and operation != "constant":
            if found[0] == target:
                return None
            self.define(target)
            self.copy_of[target] = found
            return Instruction("move", target, found[0], line=instruction.line)
        self.define(target)
        if target >= VIRTUAL and target not in (instruction.a, instruction.b):
            self.known[key] = self.current(target)
        return instruction

    def define(self, register: int) -> None:
        self.version[register] = self.version.get(register, 0) + 1
        self.copy_of.pop(register, None)

    def key(self, instruction: Instruction) -> tuple:
        operands = OPERANDS[instruction.operation]
        unstable = instruction.operation == "load" and instruction.space != "text"
        return (
            instruction.operation,
            self.current(instruction.a) if "a" in operands else None,
            self.current(instruction.b) if "b" in operands else None,
            instruction.immediate,
            self.memory.get(instruction.space, sum(self.memory.values())) if unstable else None,
            instruction.space,
        )


def _remove_unread(routine: Routine) -> None:
    """Removes instructions without effect whose target nobody reads, until there are none."""
    while True:
        read: dict[int, int] = {}
        for instruction in routine.code:
            for register in instruction.uses():
                if register != instruction.defines():
                    read[register] = read.get(register, 0) + 1
        kept = [
            each
            for each in routine.code
            if each.operation in EFFECTS or each.space == "needed" or each.target < VIRTUAL or read.get(each.target, 0)
        ]
        if len(kept) == len(routine.code):
            return
        routine.code = kept
