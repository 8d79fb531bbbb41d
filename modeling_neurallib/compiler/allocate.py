"""Stage 3: registers. Graph colouring with spills, and the frame of every call.

Of R registers the last two are the heap and the stack pointer. Of the other n, the lower half (up to seven) pass
arguments and do not survive a call; the upper half do, because a function that uses one saves it first. So a value that
lives across a call takes an upper register or a slot of the frame, and recursion needs nothing else::

    address    sp         sp + 1 … sp + spills      … sp + size
    word       (free)     spilled variables         saved registers      ← the caller's frame
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from .errors import CompileError
from .optimise import successors
from .three_address import BRANCHES, VIRTUAL, Instruction, Routine


def argument_registers(registers: int) -> int:
    """How many registers pass arguments, and are not preserved by calls."""
    return min(7, (registers - 2) // 2)


def allocate(routine: Routine, registers: int) -> None:
    """Gives every virtual register of a routine a machine register, in place.

    Raises:
        CompileError: a variable can be read before it has a value, or the registers do not suffice.
    """
    _refuse_unassigned(routine)
    slots: dict[int, int] = {}
    spilled: set[int] = set()
    while True:
        colours, failed = _Colouring(routine, registers, spilled).run()
        if not failed:
            break
        if spilled.issuperset(failed):  # what spilling left of them lives for one instruction
            line = next(each.line for each in routine.code if failed[0] in (each.target, each.a, each.b))
            raise CompileError(
                routine.file,
                line or routine.line,
                f"{routine.name} needs more than {registers} registers",
                "compile for a machine with more of them, or use fewer parameters",
            )
        for register in failed:
            slots[register] = len(slots) + 1
        spilled |= _spill(routine, failed, slots, registers - 1)
    for instruction in routine.code:
        instruction.target = colours.get(instruction.target, instruction.target)
        instruction.a = colours.get(instruction.a, instruction.a)
        instruction.b = colours.get(instruction.b, instruction.b)
    preserved = range(argument_registers(registers), registers - 2)
    saved = sorted({each.defines() for each in routine.code} & set(preserved))
    _frame(routine, len(slots), saved, registers)
    routine.code = [each for each in routine.code if each.operation != "move" or each.target != each.a]


def liveness(code: list[Instruction], clobbered: int) -> list[int]:
    """For each instruction the registers that are read later, as a set of bits.

    Args:
        code: a routine's instructions.
        clobbered: bits of the registers that a call does not preserve.
    """
    following = successors(code)
    uses = [sum(1 << register for register in set(each.uses())) for each in code]
    kills = [
        clobbered if each.operation == "call" else (1 << each.defines() if each.defines() >= 0 else 0) for each in code
    ]
    live_in, live_out = [0] * (len(code) + 1), [0] * len(code)
    changed = True
    while changed:
        changed = False
        for position in range(len(code) - 1, -1, -1):
            out = 0
            for after in following[position]:
                out |= live_in[after]
            live_out[position] = out
            into = uses[position] | (out & ~kills[position])
            if into != live_in[position]:
                live_in[position] = into
                changed = True
    return live_out


def _bits(word: int) -> list[int]:
    found = []
    while word:
        low = word & -word
        found.append(low.bit_length() - 1)
        word ^= low
    return found


def _refuse_unassigned(routine: Routine) -> None:
    code = routine.code
    if not code:
        return
    out = liveness(code, 0)
    first = code[0]
    entry = sum(1 << register for register in set(first.uses())) | (
        out[0] & ~(1 << first.defines() if first.defines() >= 0 else 0)
    )
    for register in _bits(entry):
        if register >= VIRTUAL:
            name = routine.variables.get(register, "a value")
            line = next((each.line for each in code if register in each.uses()), routine.line)
            raise CompileError(
                routine.file,
                line,
                f"{name!r} may be read before it has a value",
                "give it one at the beginning of the function",
            )


class _Colouring:
    """One attempt to colour the interference graph of a routine."""

    def __init__(self, routine: Routine, registers: int, spilled: set[int]) -> None:
        self.code, self.spilled = routine.code, spilled
        self.fragile = argument_registers(registers)
        self.colours = registers - 2
        self.neighbours: dict[int, set[int]] = {}
        self.partners: dict[int, list[int]] = {}
        self.cost: dict[int, float] = {}
        self._build()

    def _build(self) -> None:
        clobbered = (1 << self.fragile) - 1
        out = liveness(self.code, clobbered)
        depth = _depths(self.code)
        for position, instruction in enumerate(self.code):
            weight = 10.0 ** min(depth[position], 6)
            for register in instruction.uses():
                self._node(register, weight)
            defined = instruction.defines()
            if defined >= 0:
                self._node(defined, weight)
            copied = instruction.a if instruction.operation == "move" else -1
            if copied >= 0 and self._free(copied) and self._free(defined):
                self.partners.setdefault(copied, []).append(defined)
                self.partners.setdefault(defined, []).append(copied)
            written = [defined] if defined >= 0 else []
            if instruction.operation == "call":
                written = list(range(self.fragile))
            alive = _bits(out[position])
            for register in written:
                for other in alive:
                    if other not in (register, copied):
                        self._edge(register, other)

    def _free(self, register: int) -> bool:
        return register >= VIRTUAL or register < self.colours

    def _node(self, register: int, weight: float) -> None:
        if register >= VIRTUAL:
            self.neighbours.setdefault(register, set())
            self.cost[register] = self.cost.get(register, 0.0) + weight

    def _edge(self, one: int, other: int) -> None:
        if one == other or not (self._free(one) and self._free(other)):
            return
        for first, second in ((one, other), (other, one)):
            if first >= VIRTUAL:
                self.neighbours.setdefault(first, set()).add(second)

    def run(self) -> tuple[dict[int, int], list[int]]:
        """Virtual register → machine register, and the registers for which there was none."""
        remaining = {node: set(near) for node, near in self.neighbours.items()}
        order = []
        easiest = [(len(near), node) for node, near in remaining.items()]
        heapify(easiest)
        while remaining:
            degree, chosen = easiest[0]
            if chosen not in remaining or len(remaining[chosen]) != degree:
                heappop(easiest)  # it has gone, or has lost neighbours since and stands here once more
                continue
            if degree >= self.colours:
                chosen = min(
                    remaining,
                    key=lambda node: (
                        node in self.spilled,
                        self.cost.get(node, 0.0) / (1 + len(remaining[node])),
                        node,
                    ),
                )
            order.append(chosen)
            for other in remaining.pop(chosen):
                if other in remaining:
                    remaining[other].discard(chosen)
                    heappush(easiest, (len(remaining[other]), other))
        colours: dict[int, int] = {}
        failed = []
        used: set[int] = set()
        for node in reversed(order):
            taken = {colours.get(other, other) for other in self.neighbours[node]}
            free = [colour for colour in range(self.colours) if colour not in taken]
            if not free:
                failed.append(node)
                continue
            wanted = [colours.get(other, other) for other in self.partners.get(node, [])]
            chosen = next((colour for colour in wanted if colour in free), -1)
            if chosen < 0:
                avoid = {
                    other
                    for near in self.neighbours[node]
                    for other in self.partners.get(near, [])
                    if other < self.fragile
                }
                chosen = min(free, key=lambda colour: (colour >= self.fragile and colour not in used, colour in avoid))
            colours[node] = chosen
            used.add(chosen)
        return colours, failed


def _depths(code: list[Instruction]) -> list[int]:
    """How many loops each instruction lies in, taking every backward jump for one."""
    places = {each.label: position for position, each in enumerate(code) if each.operation == "label"}
    change = [0] * (len(code) + 1)
    starts: dict[int, int] = {}
    for position, instruction in enumerate(code):
        if (instruction.operation == "jump" or instruction.operation in BRANCHES) and (
            places[instruction.label] <= position
        ):
            starts[places[instruction.label]] = position
    for start, end in starts.items():
        change[start] += 1
        change[end + 1] -= 1
    depths, depth = [], 0
    for position in range(len(code)):
        depth += change[position]
        depths.append(depth)
    return depths


def _spill(routine: Routine, failed: list[int], slots: dict[int, int], stack: int) -> set[int]:
    """Keeps registers in the frame: a load before each use, a store after each write. Returns the new registers."""
    spilled, code, fresh = set(failed), [], set()
    for instruction in routine.code:
        replaced: dict[int, int] = {}
        operation = instruction.operation
        for register in {instruction.a, instruction.b, instruction.target} & spilled:
            replaced[register] = routine.register()
            fresh.add(replaced[register])
        used = set(instruction.uses())
        for register, stand_in in replaced.items():
            if register in used:
                code.append(Instruction("load", stand_in, stack, immediate=slots[register], line=instruction.line))
        instruction.a = replaced.get(instruction.a, instruction.a)
        instruction.b = replaced.get(instruction.b, instruction.b)
        written = instruction.target
        instruction.target = replaced.get(instruction.target, instruction.target)
        code.append(instruction)
        if written in replaced and operation != "label":
            code.append(
                Instruction(
                    "store",
                    a=stack,
                    immediate=slots[written],
                    b=replaced[written],
                    line=instruction.line,
                )
            )
    routine.code = code
    return fresh


def _frame(routine: Routine, spills: int, saved: list[int], registers: int) -> None:
    """Makes room on the stack at the start, and gives it back before every return."""
    heap, stack = registers - 2, registers - 1
    size = spills + len(saved)
    if not size:
        return
    line = routine.code[0].line if routine.code else routine.line
    opening = [
        Instruction("index_immediate", stack, stack, immediate=-size, line=line),
        Instruction("guard", a=heap, b=stack, line=line),
    ]
    opening += [
        Instruction("store", a=stack, immediate=spills + position, b=register, line=line)
        for position, register in enumerate(saved, 1)
    ]
    code = opening
    for instruction in routine.code:
        if instruction.operation == "return":
            code += [
                Instruction("load", register, stack, immediate=spills + position, line=instruction.line)
                for position, register in enumerate(saved, 1)
            ]
            code.append(Instruction("index_immediate", stack, stack, immediate=size, line=instruction.line))
        code.append(instruction)
    routine.code = code
