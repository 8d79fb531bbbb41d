"""The form between the syntax tree and the machine: the machine's own instructions with any number of registers.

Registers 0…R−1 are the machine's, numbers from ``VIRTUAL`` on are virtual. Jumps and calls name labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..machine.operations import OPERATIONS

VIRTUAL = 1_000
OPERANDS: dict[str, str] = {operation.name: operation.operands for operation in OPERATIONS} | {"label": ""}
TERMINATORS = ("jump", "return", "halt")
BRANCHES = ("jump_if_zero", "jump_if_not_zero")
EFFECTS = ("store", "check", "guard", "call", *TERMINATORS, *BRANCHES, "label")
"""Operations that do something besides writing their target, so that they stay even if nothing reads it."""


@dataclass(slots=True)
class Instruction:
    """One instruction, or the pseudo-operation ``label``, which marks a place.

    Attributes:
        target, a, b: registers, −1 where the operation has none.
        label: name of the place that it marks, jumps to or calls.
        reads: machine registers that a call passes arguments in, or that a return returns.
        line: source line, 0 for none.
        space: what a load or a store touches: ``text`` (never changes), ``header`` or ``elements`` of a list; or
            ``needed`` for an instruction that stays although nobody reads it, because it may fault.
    """

    operation: str
    target: int = -1
    a: int = -1
    b: int = -1
    immediate: int = 0
    label: str = ""
    reads: tuple[int, ...] = ()
    line: int = 0
    space: str = ""

    def uses(self) -> list[int]:
        operands = OPERANDS[self.operation]
        found = list(self.reads)
        if "a" in operands:
            found.append(self.a)
        if "b" in operands:
            found.append(self.b)
        return found

    def defines(self) -> int:
        return self.target if "t" in OPERANDS[self.operation] else -1


@dataclass
class Routine:
    """One function in three-address form.

    Attributes:
        name: its label, unique in the library.
        parameters: how many words it is given, in machine registers 0, 1, ….
        code: its instructions; the first parameters are moved out of the machine registers at the start.
        variables: virtual register → the name of the source variable that it holds.
        file, line, source: where it was written, for errors and the disassembler.
    """

    name: str
    parameters: int
    code: list[Instruction] = field(default_factory=list)
    variables: dict[int, str] = field(default_factory=dict)
    next_register: int = VIRTUAL
    next_label: int = 0
    line: int = 0
    source: str = ""
    file: str = ""
    current_line: int = 0

    def register(self) -> int:
        self.next_register += 1
        return self.next_register - 1

    def new_label(self) -> str:
        self.next_label += 1
        return f"{self.name}.{self.next_label}"

    def emit(
        self,
        operation: str,
        target: int = -1,
        a: int = -1,
        b: int = -1,
        immediate: int = 0,
        label: str = "",
        reads: tuple[int, ...] = (),
        space: str = "",
    ) -> Instruction:
        instruction = Instruction(operation, target, a, b, immediate, label, reads, self.current_line, space)
        self.code.append(instruction)
        return instruction

    def place(self, label: str) -> None:
        self.emit("label", label=label)

    def calls(self) -> set[str]:
        return {instruction.label for instruction in self.code if instruction.operation == "call"}
