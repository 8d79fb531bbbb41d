"""Stage 2: from a checked function to three-address form.

Every word is right on every machine on which the program does not fault. Three rules see to that. Constants outside a
machine's range are loaded by ``constant``, which faults, and only where they are needed. Code points from V/2 on read
as negative, so characters are put in order, or turned into numbers, only after a ``check`` that they are not negative.
Addresses are moved by ``index`` and compared for equality only.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from .errors import CompileError
from .parse import TypedFunction, signature
from .source import LONGEST_TEXT, Constant
from .three_address import Routine
from .types import BOOL, CHAR, INT, NONE, STR, Type

SMALLEST_HALF = 64
"""V/2 of the paper's machine: constants below it can be immediates of comparisons on every machine we care for."""

LARGEST_CONSTANT = 2**31 - 1

_OPERATIONS: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.FloorDiv: "divide",
    ast.Mod: "modulo",
    ast.BitAnd: "and",
    ast.BitOr: "or",
    ast.BitXor: "xor",
    ast.LShift: "shift_left",
    ast.RShift: "shift_right",
}

LITERAL = 'text "'
"""How the labels of routines that build a literal text begin."""

INTEGER_TO_TEXT = "integer_to_text"


@dataclass
class _Loop:
    """Where break and continue of a loop go."""

    after: str
    again: str


def lower(function: TypedFunction, label: str, labels: dict[ast.FunctionDef, str], registers: int) -> Routine:
    """Translates a function.

    Args:
        function: a checked function.
        label: its name in the library.
        labels: a function's syntax node → its name in the library, for every function that it calls.
        registers: R of the machine.
    """
    return _Lowering(function, label, labels, registers).run()


def literal(label: str, registers: int) -> Routine:
    """The routine that builds a literal text; its label holds the text as Python writes it."""
    text = str(ast.literal_eval(label[len(LITERAL) - 1 :]))
    routine = Routine(label, 0, file="runtime", source=f"the text {text!r}")
    heap, stack = registers - 2, registers - 1
    result = routine.register()
    routine.emit("move", result, heap)
    routine.emit("index_immediate", heap, heap, immediate=len(text) + 1)
    routine.emit("guard", a=heap, b=stack)
    _fill(routine, result, text)
    routine.emit("move", 0, result)
    routine.emit("return", reads=(0,))
    return routine


def _fill(routine: Routine, result: int, text: str) -> None:
    word = routine.register()
    routine.emit("constant", word, immediate=len(text))
    routine.emit("store", a=result, immediate=0, b=word)
    word = routine.register()
    for position, character in enumerate(text, 1):
        routine.emit("constant", word, immediate=ord(character))
        routine.emit("store", a=result, immediate=position, b=word)


class _Lowering:
    def __init__(self, function: TypedFunction, label: str, labels: dict[ast.FunctionDef, str], registers: int) -> None:
        self.function, self.labels = function, labels
        self.heap, self.stack = registers - 2, registers - 1
        node = function.origin.node
        self.routine = Routine(
            label,
            len(function.signature.parameters),
            line=node.lineno,
            source=function.origin.source,
            file=function.origin.file.label,
        )
        self.emit, self.place = self.routine.emit, self.routine.place
        self.loops: list[_Loop] = []
        self.movable: set[int] = set()
        self.variables = {name: self.routine.register() for name in function.variables}
        self.routine.variables = {register: name for name, register in self.variables.items()}

    def run(self) -> Routine:
        node = self.function.origin.node
        self.routine.current_line = node.lineno
        for position, (name, _) in enumerate(self.function.signature.parameters):
            self.emit("move", self.variables[name], position)
        body = len(self.routine.code)
        self.block(node.body)
        self.give_back(body)
        self.routine.current_line = node.end_lineno or node.lineno
        if self.function.signature.returns == NONE:
            self.emit("return")
        else:
            self.emit("label", label=f"{self.routine.name}.end")
        return self.routine

    def give_back(self, body: int) -> None:
        """Frees what the function allocated when it returns, where nothing of it can be reached any more.

        That is so if it returns a number or a truth value and was given no list that it could have put something into.
        """
        found = self.function.signature
        if found.returns not in (INT, BOOL) or any(kind.kind == "list" for _, kind in found.parameters):
            return
        code = self.routine.code
        if not any(each.operation == "call" or each.target == self.heap for each in code[body:]):
            return
        mark = self.fresh()
        rest, code[body:] = code[body:], []
        self.routine.current_line = self.function.origin.node.lineno
        self.emit("move", mark, self.heap)
        for instruction in rest:
            if instruction.operation == "return":
                self.routine.current_line = instruction.line
                self.emit("move", self.heap, mark)
            code.append(instruction)

    def fresh(self) -> int:
        return self.routine.register()

    def type_of(self, node: ast.expr) -> Type:
        return self.function.types[node]

    # Statements

    def block(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            self.routine.current_line = statement.lineno
            getattr(self, f"statement_{type(statement).__name__}")(statement)

    def statement_Pass(self, node: ast.Pass) -> None:
        pass

    def statement_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            self.value(node.value)

    def statement_Assign(self, node: ast.Assign) -> None:
        target = node.targets[0]
        if isinstance(target, (ast.Tuple, ast.List)) and isinstance(node.value, (ast.Tuple, ast.List)):
            pairs = list(zip(target.elts, node.value.elts, strict=True))
            values = []
            for one, value in pairs:
                register = self.converted(value, self.target_type(one))
                if register in self.routine.variables:
                    copy = self.fresh()
                    self.emit("move", copy, register)
                    register = copy
                values.append(register)
            for (one, _), register in zip(pairs, values, strict=True):
                self.store(one, register)
        else:
            self.assign(target, node.value)

    def target_type(self, target: ast.expr) -> Type:
        if isinstance(target, ast.Name):
            return self.function.variables[target.id]
        return self.type_of(target)

    def assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self.converted(value, self.target_type(target), self.variables[target.id])
        else:
            self.store(target, self.converted(value, self.target_type(target)))

    def store(self, target: ast.expr, register: int) -> None:
        if isinstance(target, ast.Name):
            self.emit("move", self.variables[target.id], register)
        elif isinstance(target, ast.Subscript):
            address, offset, _ = self.element_address(target)
            self.emit("store", a=address, immediate=offset, b=register, space="elements")

    def statement_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.assign(node.target, node.value)

    def statement_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            register = self.variables[node.target.id]
            kind = self.function.variables[node.target.id]
            self.operate(node.op, register, kind, None, node.value, register)
            return
        assert isinstance(node.target, ast.Subscript)
        address, offset, found = self.element_address(node.target)
        kind = self.type_of(node.target)
        before = self.fresh()
        self.emit("load", before, address, immediate=offset, space="elements")
        after = self.operate(node.op, before, kind, None, node.value)
        if _calls(node.value):
            address, offset, _ = self.element_address(node.target, found)  # the call may have moved the elements
        self.emit("store", a=address, immediate=offset, b=after, space="elements")

    def statement_Return(self, node: ast.Return) -> None:
        returns = self.function.signature.returns
        if returns == NONE or node.value is None:
            self.emit("return")
            return
        self.emit("move", 0, self.converted(node.value, returns))
        self.emit("return", reads=(0,))

    def statement_If(self, node: ast.If) -> None:
        if self.function.constants.get(node.test) is not None:
            self.block(node.body if self.function.constants[node.test] else node.orelse)
            return
        otherwise, after = self.routine.new_label(), self.routine.new_label()
        self.branch(node.test, otherwise, when=False)
        self.block(node.body)
        if node.orelse:
            self.emit("jump", label=after)
            self.place(otherwise)
            self.block(node.orelse)
            self.place(after)
        else:
            self.place(otherwise)

    def statement_While(self, node: ast.While) -> None:
        start, test, after = (self.routine.new_label() for _ in range(3))
        before = len(self.routine.code)
        constant = self.function.constants.get(node.test)
        if constant is None:
            self.emit("jump", label=test)
        elif not constant:
            return
        self.place(start)
        self.body(node.body, _Loop(after, test))
        self.place(test)
        self.routine.current_line = node.lineno
        if constant is None:
            self.branch(node.test, start, when=True)
        else:
            self.emit("jump", label=start)
        self.place(after)
        self.hoist(before)

    def body(self, statements: list[ast.stmt], loop: _Loop) -> None:
        self.loops.append(loop)
        self.block(statements)
        self.loops.pop()

    def statement_For(self, node: ast.For) -> None:
        assert isinstance(node.target, ast.Name)
        bounds = self.function.ranges.get(node)
        variable, kind = self.variables[node.target.id], self.function.variables[node.target.id]
        if bounds is not None:
            self._for_range(node, bounds, variable)
        elif self.type_of(node.iter).kind == "list":
            self._for_list(node, variable, kind)
        else:
            self._for_text(node, variable, kind)

    def _for_range(self, node: ast.For, bounds: list[ast.expr], variable: int) -> None:
        counter = self.fresh()
        step = 1
        if len(bounds) == 3:
            step = int(self.function.constants[bounds[2]])
            if abs(step) > LARGEST_CONSTANT:
                raise self.too_large(bounds[2], step)
        if len(bounds) == 1:
            self.emit("constant", counter, immediate=0)
        else:
            start_value = self.value(bounds[0], counter)
            if start_value != counter:
                self.emit("move", counter, start_value)
        stop_node = bounds[0] if len(bounds) == 1 else bounds[1]
        fixed = self._constant_word(stop_node)
        stop = -1
        if fixed is None:
            stop = self.fresh()
            found = self.value(stop_node, stop)
            if found != stop:
                self.emit("move", stop, found)
        start, again, test, after = (self.routine.new_label() for _ in range(4))
        before = len(self.routine.code)
        self.emit("jump", label=test)
        self.place(start)
        self.emit("move", variable, counter)
        self.body(node.body, _Loop(after, again))
        self.place(again)
        self.routine.current_line = node.lineno
        self.emit("add_immediate", counter, counter, immediate=step)
        self.place(test)
        going = self.fresh()
        negate = False
        if step > 0:
            if fixed is None:
                self.emit("less_than", going, counter, stop)
            else:
                self.emit("less_immediate", going, counter, immediate=fixed)
        elif fixed is None:
            self.emit("less_than", going, stop, counter)
        else:
            self.emit("less_immediate", going, counter, immediate=fixed + 1)
            negate = True
        self.emit("jump_if_zero" if negate else "jump_if_not_zero", a=going, label=start)
        self.place(after)
        self.hoist(before)

    def _for_list(self, node: ast.For, variable: int, kind: Type) -> None:
        found = self.value(node.iter)
        items, position = self.fresh(), self.fresh()
        self.emit("move", items, found)
        self.emit("constant", position, immediate=0)
        start, again, test, after = (self.routine.new_label() for _ in range(4))
        before = len(self.routine.code)
        self.emit("jump", label=test)
        self.place(start)
        data, address = self.fresh(), self.fresh()
        self.emit("load", data, items, immediate=2, space="header")
        self.emit("index", address, data, position)
        boxed = self.type_of(node.iter).element == CHAR and kind == STR
        element = self.fresh() if boxed else variable
        self.emit("load", element, address, immediate=0, space="elements")
        if boxed:
            self.box(element, variable)
        self.body(node.body, _Loop(after, again))
        self.place(again)
        self.routine.current_line = node.lineno
        self.emit("add_immediate", position, position, immediate=1)
        self.place(test)
        length, going = self.fresh(), self.fresh()
        self.emit("load", length, items, immediate=0, space="header")
        self.emit("less_than", going, position, length)
        self.emit("jump_if_not_zero", a=going, label=start)
        self.place(after)
        self.hoist(before)

    def _for_text(self, node: ast.For, variable: int, kind: Type) -> None:
        found = self.converted(node.iter, STR)
        address, end, length = self.fresh(), self.fresh(), self.fresh()
        self.emit("load", length, found, immediate=0, space="text")
        self.emit("index", end, found, length)
        self.emit("move", address, found)
        start, again, after = (self.routine.new_label() for _ in range(3))
        before = len(self.routine.code)
        self.emit("jump", label=again)
        self.place(start)
        self.emit("index_immediate", address, address, immediate=1)
        character = variable if kind == CHAR else self.fresh()
        self.emit("load", character, address, immediate=0, space="text")
        if kind != CHAR:
            self.box(character, variable)
        self.body(node.body, _Loop(after, again))
        self.place(again)
        self.routine.current_line = node.lineno
        done = self.fresh()
        self.emit("equal", done, address, end)
        self.emit("jump_if_zero", a=done, label=start)
        self.place(after)
        self.hoist(before)

    def statement_Break(self, node: ast.Break) -> None:
        self.emit("jump", label=self.loops[-1].after)

    def statement_Continue(self, node: ast.Continue) -> None:
        self.emit("jump", label=self.loops[-1].again)

    def hoist(self, before: int) -> None:
        """Moves the loop's integer constants to before it; at most four, so that registers suffice for the rest."""
        code = self.routine.code
        moved = [each for each in code[before:] if each.operation == "constant" and each.target in self.movable][:4]
        if moved:
            chosen = {id(each) for each in moved}
            rest = [each for each in code[before:] if id(each) not in chosen]
            code[before:] = moved + rest

    # Conditions

    def branch(self, node: ast.expr, label: str, when: bool) -> None:
        """Goes to ``label`` if the truth of ``node`` is ``when``, and on to the next instruction otherwise."""
        constant = self.function.constants.get(node)
        if constant is not None:
            if bool(constant) == when:
                self.emit("jump", label=label)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            self.branch(node.operand, label, not when)
        elif isinstance(node, ast.BoolOp):
            if isinstance(node.op, ast.Or) == when:
                for value in node.values:
                    self.branch(value, label, when)
            else:
                after = self.routine.new_label()
                for value in node.values[:-1]:
                    self.branch(value, after, not when)
                self.branch(node.values[-1], label, when)
                self.place(after)
        elif isinstance(node, ast.Compare):
            self._branch_compare(node, label, when)
        else:
            kind = self.type_of(node)
            register = self.value(node)
            if kind.kind in ("str", "list"):
                length = self.fresh()
                self.emit("load", length, register, immediate=0, space="text" if kind == STR else "header")
                register = length
            if kind == CHAR:
                if when:
                    self.emit("jump", label=label)
                return
            self.emit("jump_if_not_zero" if when else "jump_if_zero", a=register, label=label)

    def _branch_compare(self, node: ast.Compare, label: str, when: bool) -> None:
        operands = [node.left, *node.comparators]
        if len(node.ops) == 1 and isinstance(node.ops[0], (ast.In, ast.NotIn)):
            wanted = when == isinstance(node.ops[0], ast.In)
            self._branch_in(operands[0], operands[1], label, wanted)
            return
        between = self._between_constants(node, operands)
        if len(node.ops) == 1:
            register, truth = self.compare(node.ops[0], operands[0], operands[1])
            self.emit("jump_if_not_zero" if truth == when else "jump_if_zero", a=register, label=label)
            return
        after = self.routine.new_label()
        as_text = STR in [self.type_of(operand) for operand in operands]
        held: int | None = None
        if _calls(operands[1]) and self.function.constants.get(operands[0]) is None:
            held = self._operand(operands[0], as_text)
        for position, operator in enumerate(node.ops):
            last = position == len(node.ops) - 1
            right, following = operands[position + 1], None
            if not last and self.function.constants.get(right) is None:
                following = self._operand(right, as_text)
            register, truth = self.compare(
                operator, operands[position], right, held, following, ordered=between, as_text=as_text
            )
            if last:
                self.emit("jump_if_not_zero" if truth == when else "jump_if_zero", a=register, label=label)
            else:
                stop = after if when else label
                self.emit("jump_if_zero" if truth else "jump_if_not_zero", a=register, label=stop)
            held = following
        self.place(after)

    def _operand(self, node: ast.expr, as_text: bool) -> int:
        return self.converted(node, STR) if as_text else self.value(node)

    def _between_constants(self, node: ast.Compare, operands: list[ast.expr]) -> bool:
        """Whether this is ``"0" <= c <= "9"``, whose outcome is right for code points that read as negative, too."""
        constants = [self.function.constants.get(operand) for operand in operands]
        if len(operands) != 3 or self.type_of(operands[1]) != CHAR or constants[1] is not None:
            return False
        if not all(isinstance(operator, (ast.Lt, ast.LtE)) for operator in node.ops):
            return False
        if not all(isinstance(each, str) and len(each) == 1 for each in (constants[0], constants[2])):
            return False
        if ord(str(constants[2])) >= SMALLEST_HALF:
            self.emit("constant", self.fresh(), immediate=ord(str(constants[2]))).space = "needed"
        return True

    def _branch_in(self, item: ast.expr, container: ast.expr, label: str, when: bool) -> None:
        members = self.function.constants.get(container)
        word = self.value(item)
        if isinstance(members, str):
            found = self.routine.new_label()
            for position, member in enumerate(members):
                same = self._equals_character(word, member)
                if when:
                    self.emit("jump_if_not_zero", a=same, label=label)
                elif position < len(members) - 1:
                    self.emit("jump_if_not_zero", a=same, label=found)
                else:
                    self.emit("jump_if_zero", a=same, label=label)
            if not members and not when:
                self.emit("jump", label=label)
            self.place(found)
            return
        if self.type_of(container).kind == "list":
            result = self.call("list_contains", [self.value(container), word])
        else:
            result = self.call("text_contains", [self.converted(container, STR), word])
        self.emit("jump_if_not_zero" if when else "jump_if_zero", a=result, label=label)

    def _equals_character(self, word: int, character: str, into: int | None = None) -> int:
        same = into or self.fresh()
        if ord(character) < SMALLEST_HALF:
            self.emit("equal_immediate", same, word, immediate=ord(character))
        else:
            other = self.fresh()
            self.emit("constant", other, immediate=ord(character))
            self.emit("equal", same, word, other)
        return same

    def compare(
        self,
        operator: ast.cmpop,
        left: ast.expr,
        right: ast.expr,
        left_word: int | None = None,
        right_word: int | None = None,
        ordered: bool = False,
        into: int | None = None,
        as_text: bool = False,
    ) -> tuple[int, bool]:
        """A register and whether the comparison is true where it is not zero.

        ``ordered``: code points can be compared as they are. ``left_word``, ``right_word``: operands already evaluated.
        ``as_text``: characters are compared as texts, which they were made into.
        """
        kinds = {self.type_of(left), self.type_of(right)}
        equality = isinstance(operator, (ast.Eq, ast.NotEq))
        truth = not isinstance(operator, (ast.NotEq, ast.GtE, ast.LtE))
        if as_text or STR in kinds:
            return self._compare_texts(operator, left, right, left_word, right_word, into), truth
        constant, other, word = self._constant_word(right), left, left_word
        swapped = False
        if constant is None:
            constant, other, word, swapped = self._constant_word(left), right, right_word, True
        target = into or self.fresh()
        if constant is None or (not equality and kinds == {CHAR} and constant >= SMALLEST_HALF and ordered):
            first = left_word if left_word is not None else self.value(left)
            second = right_word if right_word is not None else self.value(right)
            if not equality and kinds == {CHAR} and not ordered:
                self.not_negative(first)
                self.not_negative(second)
            if equality:
                self.emit("equal", target, first, second)
            elif isinstance(operator, (ast.Lt, ast.GtE)):
                self.emit("less_than", target, first, second)
            else:
                self.emit("less_than", target, second, first)
            return target, truth
        register = word if word is not None else self.value(other)
        if equality:
            if kinds == {CHAR}:
                self._equals_character(register, chr(constant), target)
            elif constant == 0 and into is None:
                return register, not truth
            else:
                self.emit("equal_immediate", target, register, immediate=constant)
            return target, truth
        if kinds == {CHAR} and not ordered:
            self.not_negative(register)
        # x < c and x >= c compare with c, x <= c and x > c with c + 1; c on the left turns the sign around.
        less = isinstance(operator, (ast.Gt, ast.LtE) if swapped else (ast.Lt, ast.GtE))
        self.emit("less_immediate", target, register, immediate=constant if less else constant + 1)
        return target, isinstance(operator, (ast.Gt, ast.GtE) if swapped else (ast.Lt, ast.LtE))

    def _constant_word(self, node: ast.expr) -> int | None:
        constant = self.function.constants.get(node)
        if constant is None or (isinstance(constant, int) and abs(constant) >= LARGEST_CONSTANT):
            return None
        return ord(constant) if isinstance(constant, str) else int(constant)

    def _compare_texts(
        self,
        operator: ast.cmpop,
        left: ast.expr,
        right: ast.expr,
        left_word: int | None,
        right_word: int | None,
        into: int | None,
    ) -> int:
        if isinstance(operator, (ast.Eq, ast.NotEq)):
            for one, other, word in ((left, right, left_word), (right, left, right_word)):
                constant = self.function.constants.get(other)
                if isinstance(constant, str) and len(constant) <= 1:
                    return self._equals_short(word if word is not None else self.converted(one, STR), constant)
        first = left_word if left_word is not None else self.converted(left, STR)
        second = right_word if right_word is not None else self.converted(right, STR)
        if isinstance(operator, (ast.Eq, ast.NotEq)):
            return self.call("text_equal", [first, second])
        if isinstance(operator, (ast.Gt, ast.LtE)):
            first, second = second, first
        return self.call("text_less", [first, second])

    def _equals_short(self, text: int, constant: str) -> int:
        """Whether a text is empty, or this one character."""
        length, same = self.fresh(), self.fresh()
        self.emit("load", length, text, immediate=0, space="text")
        self.emit("equal_immediate", same, length, immediate=len(constant))
        if not constant:
            return same
        result, after = self.fresh(), self.routine.new_label()
        self.emit("move", result, same)
        self.emit("jump_if_zero", a=result, label=after)
        character = self.fresh()
        self.emit("load", character, text, immediate=1, space="text")
        self._equals_character(character, constant, result)
        self.place(after)
        return result

    def not_negative(self, register: int) -> None:
        """Faults if a code point reads as a negative integer, which it does on a machine too small for it."""
        following = self.fresh()
        self.emit("add_immediate", following, register, immediate=1)
        self.emit("check", a=register, b=following)

    def code_point(self, register: int) -> None:
        """Faults unless an integer is a code point, 0…0x10FFFF; on a machine with smaller integers it can be no larger."""
        high = self.fresh()
        self.emit("shift_right", high, register, self.number(16))
        self.emit("check", a=high, b=self.number(0x11))

    # Values

    def converted(self, node: ast.expr, kind: Type, into: int | None = None) -> int:
        """The value of an expression as ``kind``: a character becomes a text where a text is needed."""
        constant = self.function.constants.get(node)
        if kind == STR and isinstance(constant, str):
            return self.literal(constant, into)
        if kind == STR and self.type_of(node) == CHAR:
            return self.box(self.value(node), into)
        register = self.value(node, into)
        if into is not None and register != into:
            self.emit("move", into, register)
            return into
        return register

    def value(self, node: ast.expr, into: int | None = None) -> int:
        """The register that holds an expression's value; ``into`` if that is given and the value is computed anew."""
        constant = self.function.constants.get(node)
        if constant is not None:
            if isinstance(constant, str) and len(constant) != 1:
                return self.literal(constant, into)
            number = ord(constant) if isinstance(constant, str) else int(constant)
            if abs(number) > LARGEST_CONSTANT:
                raise self.too_large(node, number)
            return self.number(number, into, movable=not isinstance(constant, str))
        result: int = getattr(self, f"value_{type(node).__name__}")(node, into)
        return result

    def too_large(self, node: ast.expr, number: int) -> CompileError:
        shown = f"the constant {number}" if number.bit_length() <= 128 else f"a constant of {number.bit_length()} bits"
        return self.function.origin.file.error(
            node, shown, "no machine has integers so large; keep long numbers as text"
        )

    def number(self, number: int, into: int | None = None, movable: bool = True) -> int:
        target = into or self.fresh()
        if into is None and movable:
            self.movable.add(target)
        self.emit("constant", target, immediate=number)
        return target

    def literal(self, text: str, into: int | None = None) -> int:
        if len(text) > LONGEST_TEXT:
            raise self.function.origin.file.error(
                self.routine.current_line,
                f"a text of {len(text)} characters",
                f"keep it to {LONGEST_TEXT}, or pass it as an argument",
            )
        if len(text) > 2:
            return self.call(LITERAL[:-1] + _quoted(text), [], into)
        result = self.allocate(len(text) + 1)
        _fill(self.routine, result, text)
        return self._into(result, into)

    def box(self, character: int, into: int | None = None) -> int:
        result, one = self.allocate(2), self.number(1)
        self.emit("store", a=result, immediate=0, b=one)
        self.emit("store", a=result, immediate=1, b=character)
        return self._into(result, into)

    def _into(self, register: int, into: int | None) -> int:
        if into is None:
            return register
        self.emit("move", into, register)
        return into

    def allocate(self, words: int) -> int:
        result = self.fresh()
        self.emit("move", result, self.heap)
        self.emit("index_immediate", self.heap, self.heap, immediate=words)
        self.emit("guard", a=self.heap, b=self.stack)
        return result

    def call(self, label: str, arguments: list[int], into: int | None = None) -> int:
        for position, argument in enumerate(arguments):
            self.emit("move", position, argument)
        self.emit("call", label=label, reads=tuple(range(len(arguments))))
        result = into or self.fresh()
        self.emit("move", result, 0)
        return result

    def value_Name(self, node: ast.Name, into: int | None) -> int:
        return self.variables[node.id]

    def value_UnaryOp(self, node: ast.UnaryOp, into: int | None) -> int:
        if isinstance(node.op, ast.Not):
            return self.truth(node, into)
        operand = self.value(node.operand)
        if isinstance(node.op, ast.UAdd):
            return operand
        target = into or self.fresh()
        if isinstance(node.op, ast.USub):
            self.emit("multiply_immediate", target, operand, immediate=-1)
        else:
            self.emit("subtract", target, self.number(-1), operand)
        return target

    def value_BinOp(self, node: ast.BinOp, into: int | None) -> int:
        kind = self.type_of(node)
        if kind.kind == "list" and isinstance(node.op, ast.Mult):
            display, count = (node.left, node.right) if isinstance(node.left, ast.List) else (node.right, node.left)
            assert isinstance(display, ast.List)
            assert kind.element is not None
            if isinstance(node.left, ast.List):
                word = self.converted(display.elts[0], kind.element)
                times = self.value(count)
            else:
                times = self.value(count)
                word = self.converted(display.elts[0], kind.element)
            return self.call("list_repeat", [word, times], into)
        if isinstance(node.op, ast.Add) and kind == STR:
            first = self.converted(node.left, STR)
            return self.call("text_concatenate", [first, self.converted(node.right, STR)], into)
        if kind.kind == "list":
            first = self.value(node.left)
            return self.call("list_concatenate", [first, self.value(node.right)], into)
        constant = self.function.constants.get(node.left)
        if constant is not None and isinstance(node.op, (ast.Add, ast.Mult)):
            return self.operate(node.op, self.value(node.right), INT, None, node.left, into)
        return self.operate(node.op, self.value(node.left), kind, node.left, node.right, into)

    def operate(
        self,
        operator: ast.operator,
        left: int,
        kind: Type,
        first: ast.expr | None,
        second: ast.expr,
        into: int | None = None,
    ) -> int:
        """``left operator second`` for numbers and texts; a constant second operand becomes an immediate."""
        if kind.kind in ("str", "char"):
            if kind == CHAR:
                left = self.box(left)
            return self.call("text_concatenate", [left, self.converted(second, STR)], into)
        constant = self.function.constants.get(second)
        if constant is not None:
            number = int(constant)
            if isinstance(operator, ast.Pow):
                return self._power(left, number, into)
            immediate = {ast.Add: ("add_immediate", number), ast.Sub: ("add_immediate", -number)}.get(
                type(operator), ("multiply_immediate", number) if isinstance(operator, ast.Mult) else None
            )
            if immediate is not None and abs(number) <= LARGEST_CONSTANT:
                target = into or self.fresh()
                self.emit(immediate[0], target, left, immediate=immediate[1])
                return target
        right = self.value(second)
        target = into or self.fresh()
        emitted = self.emit(_OPERATIONS[type(operator)], target, left, right)
        if _may_raise(operator, constant):
            emitted.space = "needed"
        return target

    def _power(self, base: int, exponent: int, into: int | None) -> int:
        if exponent == 0:
            return self.number(1, into)
        result, square = -1, base
        while True:
            if exponent & 1:
                if result < 0:
                    result = square
                else:
                    product = self.fresh()
                    self.emit("multiply", product, result, square)
                    result = product
            exponent >>= 1
            if not exponent:
                break
            product = self.fresh()
            self.emit("multiply", product, square, square)
            square = product
        return self._into(result, into)

    def value_BoolOp(self, node: ast.BoolOp, into: int | None) -> int:
        return self.truth(node, into)

    def value_Compare(self, node: ast.Compare, into: int | None) -> int:
        if len(node.ops) == 1 and not isinstance(node.ops[0], (ast.In, ast.NotIn)):
            register, truth = self.compare(node.ops[0], node.left, node.comparators[0], into=self.fresh())
            target = into or self.fresh()
            if truth:
                self.emit("move", target, register)
            else:
                self.emit("equal_immediate", target, register, immediate=0)
            return target
        return self.truth(node, into)

    def truth(self, node: ast.expr, into: int | None) -> int:
        """0 or 1 for a condition."""
        target = into or self.fresh()
        false, after = self.routine.new_label(), self.routine.new_label()
        self.branch(node, false, when=False)
        self.emit("constant", target, immediate=1)
        self.emit("jump", label=after)
        self.place(false)
        self.emit("constant", target, immediate=0)
        self.place(after)
        return target

    def value_IfExp(self, node: ast.IfExp, into: int | None) -> int:
        kind = self.type_of(node)
        target = into or self.fresh()
        otherwise, after = self.routine.new_label(), self.routine.new_label()
        self.branch(node.test, otherwise, when=False)
        self.converted(node.body, kind, target)
        self.emit("jump", label=after)
        self.place(otherwise)
        self.converted(node.orelse, kind, target)
        self.place(after)
        return target

    def value_List(self, node: ast.List, into: int | None) -> int:
        kind = self.type_of(node).element
        assert kind is not None
        count = len(node.elts)
        result, size, data = self.allocate(count + 3), self.number(count), self.fresh()
        self.emit("store", a=result, immediate=0, b=size, space="header")
        self.emit("store", a=result, immediate=1, b=size, space="header")
        self.emit("index_immediate", data, result, immediate=3)
        self.emit("store", a=result, immediate=2, b=data, space="header")
        for position, element in enumerate(node.elts):
            self.emit("store", a=result, immediate=3 + position, b=self.converted(element, kind), space="elements")
        return self._into(result, into)

    def value_Subscript(self, node: ast.Subscript, into: int | None) -> int:
        container = self.type_of(node.value)
        if isinstance(node.slice, ast.Slice):
            return self._slice(node, container, into)
        if container.kind == "list":
            address, offset, _ = self.element_address(node)
            target = into or self.fresh()
            self.emit("load", target, address, immediate=offset, space="elements")
            return target
        text = self.converted(node.value, STR)
        length = self.fresh()
        position, constant = self._position(node, text, length, "text")
        target = into or self.fresh()
        if constant is not None:
            self.emit("load", target, text, immediate=1 + constant, space="text")
        else:
            address = self.fresh()
            self.emit("index", address, text, position)
            self.emit("load", target, address, immediate=1, space="text")
        return target

    def _position(
        self, node: ast.Subscript, holder: int, length: int, space: str, word: int | None = None
    ) -> tuple[int, int | None]:
        """A checked position in a text or list: its register, and its value where that is a constant ≥ 0.

        ``word``: the position, where it is evaluated already.
        """
        constant = self.function.constants.get(node.slice)
        if constant is not None and abs(int(constant)) >= LARGEST_CONSTANT:
            raise self.too_large(node, int(constant))
        if constant is not None and int(constant) < 0:
            position = self.fresh()
            self.emit("load", length, holder, immediate=0, space=space)
            self.emit("add_immediate", position, length, immediate=int(constant))
            self.emit("check", a=position, b=length)
            return position, None
        position = self.value(node.slice) if word is None else word
        self.emit("load", length, holder, immediate=0, space=space)
        self.emit("check", a=position, b=length)
        return position, None if constant is None else int(constant)

    def element_address(
        self, node: ast.Subscript, found: tuple[int, int] | None = None
    ) -> tuple[int, int, tuple[int, int]]:
        """Address and offset of a list's element, after the check of its bounds; and the list and the position.

        ``found``: the list and the position, where they are evaluated already.
        """
        holder = self.value(node.value) if found is None else found[0]
        length, data = self.fresh(), self.fresh()
        position, constant = self._position(node, holder, length, "header", None if found is None else found[1])
        self.emit("load", data, holder, immediate=2, space="header")
        if constant is not None:
            return data, constant, (holder, position)
        address = self.fresh()
        self.emit("index", address, data, position)
        return address, 0, (holder, position)

    def _slice(self, node: ast.Subscript, container: Type, into: int | None) -> int:
        assert isinstance(node.slice, ast.Slice)
        is_list = container.kind == "list"
        holder = self.value(node.value) if is_list else self.converted(node.value, STR)
        start = self.number(0) if node.slice.lower is None else self.value(node.slice.lower)
        if node.slice.upper is None:
            stop = self.fresh()
            self.emit("load", stop, holder, immediate=0, space="header" if is_list else "text")
        else:
            stop = self.value(node.slice.upper)
        return self.call("list_slice" if is_list else "text_slice", [holder, start, stop], into)

    def value_JoinedStr(self, node: ast.JoinedStr, into: int | None) -> int:
        result: int | None = None
        for value in node.values:
            if isinstance(value, ast.FormattedValue):
                piece = self.printed(value.value)
            else:
                assert isinstance(value, ast.Constant)
                piece = self.literal(str(value.value))
            result = piece if result is None else self.call("text_concatenate", [result, piece])
        if result is None:
            result = self.literal("")
        return self._into(result, into)

    def printed(self, node: ast.expr) -> int:
        if self.type_of(node) == INT:
            return self.call(INTEGER_TO_TEXT, [self.value(node)])
        return self.converted(node, STR)

    def value_Call(self, node: ast.Call, into: int | None) -> int:
        callee = self.function.callees.get(node)
        if callee is not None:
            kinds = [kind for _, kind in self._signature_of(node)]
            words = [self.converted(each, kind) for each, kind in zip(node.args, kinds, strict=True)]
            return self.call(self.labels[callee.node], words, into)
        if isinstance(node.func, ast.Attribute):
            return self._method(node, node.func, into)
        assert isinstance(node.func, ast.Name)
        built_in: int = getattr(self, f"built_in_{node.func.id}")(node, into)
        return built_in

    def _signature_of(self, node: ast.Call) -> list[tuple[str, Type]]:
        return signature(self.function.callees[node]).parameters

    def _method(self, node: ast.Call, function: ast.Attribute, into: int | None) -> int:
        if function.attr == "join":
            separator = self.function.constants.get(function.value)
            characters = self.type_of(node.args[0]).element == CHAR
            if characters and separator == "":
                return self.call("text_of_characters", [self.value(node.args[0])], into)
            first = self.converted(function.value, STR)
            label = "text_join_characters" if characters else "text_join"
            return self.call(label, [first, self.value(node.args[0])], into)
        holder = self.value(function.value)
        if function.attr == "pop":
            length, last, data, address = (self.fresh() for _ in range(4))
            self.emit("load", length, holder, immediate=0, space="header")
            self.emit("add_immediate", last, length, immediate=-1)
            self.emit("check", a=last, b=length)
            self.emit("store", a=holder, immediate=0, b=last, space="header")
            self.emit("load", data, holder, immediate=2, space="header")
            self.emit("index", address, data, last)
            target = into or self.fresh()
            self.emit("load", target, address, immediate=0, space="elements")
            return target
        kind = self.type_of(function.value).element
        assert kind is not None
        word = self.converted(node.args[0], kind)
        length, capacity, space, data, address, longer = (self.fresh() for _ in range(6))
        ready = self.routine.new_label()
        self.emit("load", length, holder, immediate=0, space="header")
        self.emit("load", capacity, holder, immediate=1, space="header")
        self.emit("equal", space, length, capacity)
        self.emit("jump_if_zero", a=space, label=ready)
        self.emit("move", 0, holder)
        self.emit("call", label="list_grow", reads=(0,))
        self.place(ready)
        self.emit("load", data, holder, immediate=2, space="header")
        self.emit("index", address, data, length)
        self.emit("store", a=address, immediate=0, b=word, space="elements")
        self.emit("add_immediate", longer, length, immediate=1)
        self.emit("store", a=holder, immediate=0, b=longer, space="header")
        return longer

    def built_in_len(self, node: ast.Call, into: int | None) -> int:
        kind = self.type_of(node.args[0])
        if kind == CHAR:
            self.value(node.args[0])
            return self.number(1, into)
        holder = self.value(node.args[0])
        target = into or self.fresh()
        self.emit("load", target, holder, immediate=0, space="text" if kind == STR else "header")
        return target

    def built_in_ord(self, node: ast.Call, into: int | None) -> int:
        register = self.value(node.args[0])
        if self.function.constants.get(node.args[0]) is None:
            self.not_negative(register)
        return register

    def built_in_chr(self, node: ast.Call, into: int | None) -> int:
        register = self.value(node.args[0])
        self.code_point(register)
        return register

    def built_in_str(self, node: ast.Call, into: int | None) -> int:
        kind = self.type_of(node.args[0])
        if kind == CHAR:
            return self.value(node.args[0], into)
        return self._into(self.printed(node.args[0]), into)

    def built_in_int(self, node: ast.Call, into: int | None) -> int:
        return self.value(node.args[0], into)

    def built_in_bool(self, node: ast.Call, into: int | None) -> int:
        if self.type_of(node.args[0]) == BOOL:
            return self.value(node.args[0], into)
        return self.truth(node.args[0], into)

    def built_in_abs(self, node: ast.Call, into: int | None) -> int:
        register = self.value(node.args[0])
        negative, target = self.fresh(), into or self.fresh()
        self.emit("multiply_immediate", negative, register, immediate=-1)
        self.emit("max", target, register, negative)
        return target

    def _fold(self, operation: str, node: ast.Call, into: int | None) -> int:
        result = self.value(node.args[0])
        for position, argument in enumerate(node.args[1:], 2):
            target = (into if position == len(node.args) else None) or self.fresh()
            self.emit(operation, target, result, self.value(argument))
            result = target
        return result

    def built_in_min(self, node: ast.Call, into: int | None) -> int:
        return self._fold("min", node, into)

    def built_in_max(self, node: ast.Call, into: int | None) -> int:
        return self._fold("max", node, into)


def _may_raise(operator: ast.operator, right: Constant | None) -> bool:
    """Whether an operation with this constant on the right, or an unknown number, can raise an exception in Python."""
    if isinstance(operator, (ast.FloorDiv, ast.Mod)):
        return not right
    return isinstance(operator, (ast.LShift, ast.RShift)) and (right is None or int(right) < 0)


def _calls(node: ast.expr) -> bool:
    """Whether an expression calls anything, and so may change a list."""
    return any(isinstance(each, ast.Call) for each in ast.walk(node))


def _quoted(text: str) -> str:
    """A text between double quotes, as Python writes it."""
    return '"' + repr('"' + text)[2:-1].replace('"', '\\"') + '"'
