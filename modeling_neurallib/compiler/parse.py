"""Stage 1: from a function's syntax tree to a checked one, in which every expression has a type.

Types are written on parameters and results only. Those of local variables are inferred: each assignment joins the type
of its value into the variable's, and the whole function is walked again until nothing changes. The lattice is finite
and joins only climb, so this ends. A last, strict walk refuses what is still unknown.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, field

from .errors import CompileError
from .source import Constant, SourceFunction, Sources, fold
from .types import BOOL, CHAR, INT, NONE, STR, UNKNOWN, Type, annotated, join, list_of

MAXIMUM_FUNCTION_PARAMETERS = 7
"""Values that fit in the registers that pass arguments."""

LARGEST_UNROLLED_POWER = 16

_ADVICE: dict[str, tuple[str, str]] = {
    "Lambda": ("a lambda", "write a function with `def`"),
    "ListComp": ("a list comprehension", "write a for loop that appends"),
    "SetComp": ("a set", "use a list"),
    "DictComp": ("a dictionary", "use two lists, or a list of lists"),
    "GeneratorExp": ("a generator", "write a for loop"),
    "Dict": ("a dictionary", "use two lists, or a list of lists"),
    "Set": ("a set", "use a list"),
    "Tuple": ("a tuple", "use a list, or a swap `a, b = b, a`"),
    "Await": ("await", "the machine runs one thing at a time; call the function"),
    "Yield": ("yield", "return a list"),
    "YieldFrom": ("yield", "return a list"),
    "NamedExpr": ("an assignment inside an expression", "assign in a statement of its own"),
    "Starred": ("a starred expression", "write the values out"),
    "Attribute": ("an attribute", "the language has no objects; only .append, .pop and .join are known"),
    "ClassDef": ("a class", "use functions and lists"),
    "FunctionDef": ("a function inside a function", "define it at the top of the file"),
    "AsyncFunctionDef": ("an async function", "use `def`"),
    "Try": ("try", "the language has no exceptions; test the condition with `if` first"),
    "TryStar": ("try", "the language has no exceptions; test the condition with `if` first"),
    "Raise": ("raise", "the language has no exceptions; return a text that says what is wrong"),
    "Assert": ("assert", "test with `if` and return a text that says what is wrong"),
    "With": ("with", "the language has no files or locks"),
    "AsyncWith": ("async with", "the language has no files or locks"),
    "AsyncFor": ("async for", "use `for`"),
    "Global": ("global", "pass the value as a parameter and return it"),
    "Nonlocal": ("nonlocal", "pass the value as a parameter and return it"),
    "Delete": ("del", "use .pop() to remove the last element"),
    "Import": ("an import inside a function", "import at the top, from a file beside this one"),
    "ImportFrom": ("an import inside a function", "import at the top, from a file beside this one"),
    "Match": ("match", "use if/elif/else"),
    "TypeAlias": ("a type alias", "write the type itself"),
}

_CALL_ADVICE: dict[str, str] = {
    "print": "return the text instead",
    "input": "take it as a parameter",
    "sorted": "write the sort: that is what the machine is for",
    "sum": "write a loop that adds",
    "enumerate": "write `for i in range(len(xs))`",
    "zip": "write `for i in range(len(xs))`",
    "map": "write a for loop",
    "filter": "write a for loop",
    "reversed": "write `for i in range(len(xs) - 1, -1, -1)`",
    "list": "write [] and append",
    "divmod": "use // and %",
    "pow": "write a loop",
    "round": "the language has integers only",
    "float": "the language has integers only",
    "range": "use it in `for … in range(…)` only",
    "any": "write a loop",
    "all": "write a loop",
    "isinstance": "types are known when the function is compiled",
}

BuiltIn = Callable[["Checker", ast.Call], Type]


@dataclass
class Signature:
    """Names and types of a function's parameters, and the type of its result."""

    parameters: list[tuple[str, Type]]
    returns: Type


@dataclass
class TypedFunction:
    """A checked function.

    Attributes:
        origin: where it comes from.
        signature: its parameters and result.
        variables: type of every local variable, parameters included.
        types: type of every expression that is evaluated.
        constants: value of every expression that is known already.
        callees: call expression → the function that it calls.
        ranges: loop over the built-in ``range`` → its arguments.
    """

    origin: SourceFunction
    signature: Signature
    variables: dict[str, Type]
    types: dict[ast.expr, Type] = field(default_factory=dict)
    constants: dict[ast.expr, Constant] = field(default_factory=dict)
    callees: dict[ast.Call, SourceFunction] = field(default_factory=dict)
    ranges: dict[ast.For, list[ast.expr]] = field(default_factory=dict)


def signature(function: SourceFunction) -> Signature:
    """Reads the annotations.

    Raises:
        CompileError: one is missing or names no type of the language, or the parameters are not plain.
    """
    node, error = function.node, function.file.error
    arguments = node.args
    if arguments.vararg or arguments.kwarg or arguments.kwonlyargs or arguments.defaults or arguments.posonlyargs:
        raise error(node, "a parameter with a default, a star or a slash", "write plain parameters")
    if node.decorator_list:
        raise error(node.decorator_list[0], "a decorator", "compile the plain function")
    if len(arguments.args) > MAXIMUM_FUNCTION_PARAMETERS:
        raise error(node, f"{len(arguments.args)} parameters", f"use at most {MAXIMUM_FUNCTION_PARAMETERS}, or a list")
    parameters = []
    for argument in arguments.args:
        kind = annotated(argument.annotation)
        if kind is None:
            raise error(
                argument,
                f"parameter {argument.arg!r} of {node.name} has no type of the language",
                "annotate it with int, bool, str or list[…] of these",
            )
        parameters.append((argument.arg, kind))
    if isinstance(node.returns, ast.Constant) and node.returns.value is None:
        return Signature(parameters, NONE)
    returns = annotated(node.returns)
    if returns is None:
        raise error(
            node,
            f"the result of {node.name} has no type of the language",
            "annotate it with int, bool, str, list[…] of these, or None",
        )
    return Signature(parameters, returns)


def parse(function: SourceFunction, sources: Sources) -> TypedFunction:
    """Checks a function and gives every expression a type.

    Raises:
        CompileError: the function is outside the language.
    """
    return Checker(function, sources).run()


class Checker:
    """One function being checked."""

    def __init__(self, function: SourceFunction, sources: Sources) -> None:
        self.function, self.sources = function, sources
        found = signature(function)
        self.parameters = dict(found.parameters)
        self.result = TypedFunction(function, found, dict(found.parameters))
        self.changed, self.strict, self.loops = False, False, 0
        self.locals = {
            node.id
            for node in ast.walk(function.node)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        } | set(self.parameters)
        self.known = self._constants()

    def run(self) -> TypedFunction:
        self.changed = True
        while self.changed:
            self._walk()
        self.strict = True
        self._walk()
        return self.result

    def error(self, node: ast.AST, construct: str, advice: str) -> CompileError:
        return self.function.file.error(node, construct, advice)

    def refuse(self, node: ast.AST) -> CompileError:
        kind = type(node).__name__
        construct, advice = _ADVICE.get(kind, (f"the construct {kind}", "it is not in the language; see the README"))
        return self.error(node, construct, advice)

    def _walk(self) -> None:
        self.changed = False
        self.result.types, self.result.constants, self.result.callees, self.result.ranges = {}, {}, {}, {}
        self.block(self.function.node.body)

    # Statements

    def block(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            method = getattr(self, f"statement_{type(statement).__name__}", None)
            if method is None:
                raise self.refuse(statement)
            method(statement)

    def statement_Pass(self, node: ast.Pass) -> None:
        pass

    def statement_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return
        if not isinstance(node.value, ast.Call):
            if type(node.value).__name__ in _ADVICE:
                raise self.refuse(node.value)
            raise self.error(node, "an expression whose value is not used", "assign it, or remove it")
        self.expression(node.value)

    def statement_Assign(self, node: ast.Assign) -> None:
        if len(node.targets) != 1:
            raise self.error(node, "a chained assignment", "write one assignment a line")
        target = node.targets[0]
        if isinstance(target, (ast.Tuple, ast.List)):
            if not isinstance(node.value, (ast.Tuple, ast.List)) or len(node.value.elts) != len(target.elts):
                raise self.error(node, "an unpacking", "write as many values on the right: `a, b = b, a`")
            for one, value in zip(target.elts, node.value.elts, strict=True):
                self.assign(one, value)
        else:
            self.assign(target, node.value)

    def statement_AnnAssign(self, node: ast.AnnAssign) -> None:
        kind = annotated(node.annotation)
        if kind is None or not isinstance(node.target, ast.Name):
            raise self.error(node, "an annotation outside the language", "use int, bool, str or list[…] of these")
        self.variable(node.target.id, kind, node)
        if node.value is not None:
            self.assign(node.target, node.value)

    def statement_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            kind = self.name_type(node.target.id, node.target)
        else:
            target = self._as_load(node.target)
            kind = self.expression(target)
            if self.result.types[target.value].kind in ("str", "char"):
                raise self.error(node, "an assignment to a part of a text", "texts never change; build a new one")
        if kind.kind == "list":
            raise self.error(node, "an augmented assignment to a list", "use .append in a loop")
        result = self.operate(node, node.op, kind, self.expression(node.value), None, node.value)
        if isinstance(node.target, ast.Name):
            self.variable(node.target.id, result, node)
        elif join(kind, result) != kind:
            raise self.error(node, f"{result} stored where {kind} is expected", "convert it first")

    def _as_load(self, target: ast.expr) -> ast.Subscript:
        if not isinstance(target, ast.Subscript):
            raise self.refuse(target)
        return target

    def assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self.variable(target.id, self.expression(value, self.result.variables.get(target.id)), target)
            self.accept(value, self.result.variables[target.id])
        elif isinstance(target, ast.Subscript):
            container = self.expression(target.value)
            if container.kind == "str":
                raise self.error(
                    target, "an assignment to a character of a text", "texts never change; build a new one"
                )
            if isinstance(target.slice, ast.Slice):
                raise self.error(target, "an assignment to a slice", "assign the elements in a loop")
            if container.kind not in ("list", "unknown"):
                raise self.error(target, f"an element of {container}", "only lists have elements")
            self.require(target.slice, INT)
            self.result.types[target] = self.element(target.value, container, value)
        else:
            raise self.refuse(target)

    def element(self, holder: ast.expr, container: Type, value: ast.expr) -> Type:
        """Stores a value as an element of a list, widening the list's type where it is a variable's."""
        kind = self.expression(value, container.element)
        if isinstance(holder, ast.Name) and holder.id not in self.parameters:
            self.variable(holder.id, list_of(kind), value)
            container = self.result.variables[holder.id]
        if container.element is not None:
            self.accept(value, container.element)
            return container.element
        return UNKNOWN

    def statement_Return(self, node: ast.Return) -> None:
        expected = self.result.signature.returns
        if node.value is None or (isinstance(node.value, ast.Constant) and node.value.value is None):
            if expected != NONE:
                raise self.error(node, "a return without a value", f"return {expected}, as the annotation says")
        elif expected == NONE:
            raise self.error(node, "a value returned from a procedure", "annotate its type instead of None")
        else:
            self.require(node.value, expected)

    def statement_If(self, node: ast.If) -> None:
        self.condition(node.test)
        self.block(node.body)
        self.block(node.orelse)

    def statement_While(self, node: ast.While) -> None:
        if node.orelse:
            raise self.error(node.orelse[0], "an else after a loop", "use a bool variable and an if")
        self.condition(node.test)
        self._loop_body(node.body)

    def statement_For(self, node: ast.For) -> None:
        if node.orelse:
            raise self.error(node.orelse[0], "an else after a loop", "use a bool variable and an if")
        if not isinstance(node.target, ast.Name):
            raise self.error(node.target, "a loop over several variables", "use one loop variable")
        bounds = self._range_arguments(node.iter)
        if bounds is not None:
            self.result.ranges[node] = bounds
            if not 1 <= len(bounds) <= 3:
                raise self.error(node.iter, f"range with {len(bounds)} arguments", "give it one to three")
            for bound in bounds:
                self.require(bound, INT)
            if len(bounds) == 3 and not self.result.constants.get(bounds[2]):
                raise self.error(bounds[2], "a range whose step is not a constant", "use a while loop")
            kind = INT
        else:
            iterated = self.expression(node.iter)
            if iterated.kind in ("str", "char"):
                kind = CHAR
            elif iterated.kind in ("list", "unknown"):
                kind = iterated.element or UNKNOWN
            else:
                raise self.error(node.iter, f"a loop over {iterated}", "loop over range(…), a text or a list")
        self.variable(node.target.id, kind, node.target)
        if bounds is None and kind.kind == "list":
            self.accept(node.iter, list_of(self.result.variables[node.target.id]))
        self._loop_body(node.body)

    def _range_arguments(self, node: ast.expr) -> list[ast.expr] | None:
        """The arguments of the built-in ``range``, or None if this is something else."""
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id != "range":
            return None
        taken = "range" in self.locals or "range" in self.known or node.keywords
        return None if taken or self.sources.find(self.function.file, "range") is not None else node.args

    def _loop_body(self, body: list[ast.stmt]) -> None:
        self.loops += 1
        self.block(body)
        self.loops -= 1

    def statement_Break(self, node: ast.Break) -> None:
        if not self.loops:
            raise self.error(node, "break outside a loop", "remove it")

    def statement_Continue(self, node: ast.Continue) -> None:
        if not self.loops:
            raise self.error(node, "continue outside a loop", "remove it")

    # Types

    def variable(self, name: str, kind: Type, node: ast.AST) -> None:
        """Joins a type into a variable's."""
        if kind == NONE:
            raise self.error(node, "the result of a procedure, which returns nothing", "give it a result")
        before = self.result.variables.get(name, UNKNOWN)
        after = join(before, kind)
        if after is None or (name in self.parameters and after != before):
            raise self.error(
                node,
                f"variable {name!r} is {before} and is given {kind}",
                "use a second variable, or convert the value",
            )
        if after != before:
            self.changed = True
        self.result.variables[name] = after
        if self.strict and not after.known:
            self.result.variables[name] = list_of(INT) if after.kind == "list" else after

    def accept(self, node: ast.expr, expected: Type) -> None:
        """Checks that a value can stand where ``expected`` is wanted, widening a list variable's type if need be."""
        kind = self.result.types.get(node, UNKNOWN)
        if kind == expected or not kind.known or not expected.known or (kind == CHAR and expected == STR):
            return
        if kind.kind == "list" and join(kind, expected) == expected:
            if isinstance(node, ast.Name) and node.id not in self.parameters:
                self.variable(node.id, expected, node)
                self.result.types[node] = expected
                return
            parts: list[ast.expr] = []
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
                parts = [node.value]
            elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
                parts = [node.left, node.right]
            elif isinstance(node, ast.IfExp):
                parts = [node.body, node.orelse]
            for part in parts:
                self.accept(part, expected)
            if parts or isinstance(node, (ast.List, ast.BinOp)):
                self.expression(node, expected)
                if self.result.types[node] == expected:
                    return
        if not self.strict and kind.kind == expected.kind == "list":
            return
        found = "a list of single characters" if str(kind) == str(expected) else str(kind)
        raise self.error(node, f"{found} where {expected} is expected", _conversion(kind, expected))

    def require(self, node: ast.expr, expected: Type) -> None:
        self.expression(node, expected)
        self.accept(node, expected)

    def condition(self, node: ast.expr) -> None:
        if self.expression(node) == NONE:
            raise self.error(node, "the result of a procedure as a condition", "let it return a bool")

    def integer(self, node: ast.expr) -> None:
        """A number operand: an int, or a bool counted as 0 or 1."""
        kind = self.expression(node, INT)
        if kind not in (INT, BOOL, UNKNOWN):
            raise self.error(node, f"{kind} where int is expected", _conversion(kind, INT))

    # Expressions

    def expression(self, node: ast.expr, expected: Type | None = None) -> Type:
        """Finds and records the type of an expression. ``expected`` only guides list displays and ``[]``."""
        value = fold(node, self.known)
        if value is not None:
            kind = BOOL if isinstance(value, bool) else INT if isinstance(value, int) else STR
            if isinstance(value, str) and len(value) == 1:
                kind = CHAR
            self.result.constants[node] = value
            return self._record(node, kind)
        method = getattr(self, f"expression_{type(node).__name__}", None)
        if method is None:
            raise self.refuse(node)
        return self._record(node, method(node, expected))

    def _record(self, node: ast.expr, kind: Type) -> Type:
        if self.strict and not kind.known:
            if kind.kind == "list":
                kind = list_of(INT)
            else:
                raise self.error(node, "a value whose type cannot be told", "assign the variable on every way to here")
        self.result.types[node] = kind
        return kind

    def _constants(self) -> dict[str, Constant]:
        """The constants of the file, and of those that it imports from, that the function names."""
        file, known = self.function.file, {}
        for node in ast.walk(self.function.node):
            if isinstance(node, ast.Name) and node.id not in self.locals and node.id not in file.functions:
                value = self.sources.constant(file, node.id)
                if value is not None:
                    known[node.id] = value
        return known

    def name_type(self, name: str, node: ast.AST) -> Type:
        if name not in self.locals:
            if self.sources.find(self.function.file, name) is not None:
                raise self.error(node, f"the function {name!r} as a value", "call it")
            raise self.error(node, f"the name {name!r} is not known here", "define it, or make it a parameter")
        return self.result.variables.get(name, UNKNOWN)

    def expression_Name(self, node: ast.Name, expected: Type | None) -> Type:
        return self.name_type(node.id, node)

    def expression_Constant(self, node: ast.Constant, expected: Type | None) -> Type:
        if node.value is None:
            raise self.error(node, "None", "use a value that says so, such as -1 or an empty text")
        if isinstance(node.value, float):
            raise self.error(node, f"the float {node.value}", "use integers; fractions as two of them")
        raise self.error(node, f"a constant of type {type(node.value).__name__}", "use int, bool or str")

    def expression_UnaryOp(self, node: ast.UnaryOp, expected: Type | None) -> Type:
        if isinstance(node.op, ast.Not):
            self.condition(node.operand)
            return BOOL
        self.integer(node.operand)
        return INT

    def expression_BinOp(self, node: ast.BinOp, expected: Type | None) -> Type:
        if isinstance(node.op, ast.Mult) and isinstance(node.left, ast.List):
            return self._repeat(node, node.left, node.right, expected)
        if isinstance(node.op, ast.Mult) and isinstance(node.right, ast.List):
            return self._repeat(node, node.right, node.left, expected)
        hint = expected if isinstance(node.op, ast.Add) and expected is not None and expected.kind == "list" else None
        left, right = self.expression(node.left, hint), self.expression(node.right, hint)
        return self.operate(node, node.op, left, right, node.left, node.right)

    def _repeat(self, node: ast.BinOp, display: ast.List, count: ast.expr, expected: Type | None) -> Type:
        self.integer(count)
        if len(display.elts) != 1:
            raise self.error(node, "a list of other than one element, repeated", "write [x] * n")
        return self.expression(display, expected)

    def operate(
        self,
        node: ast.AST,
        operator: ast.operator,
        left: Type,
        right: Type,
        first: ast.expr | None,
        second: ast.expr,
    ) -> Type:
        """The type of ``left operator right``."""
        if UNKNOWN in (left, right):
            return join(left, right) or UNKNOWN
        texts = ("str", "char")
        if isinstance(operator, ast.Add):
            if left.kind in texts and right.kind in texts:
                return STR
            if left.kind == right.kind == "list":
                both = join(left, right)
                if both is not None and first is not None:
                    self.accept(first, both)
                    self.accept(second, both)
                    return both
        if isinstance(operator, ast.Div):
            raise self.error(node, "the operator /", "use // and %: the language has integers only")
        if isinstance(operator, ast.MatMult):
            raise self.error(node, "the operator @", "write the loops")
        for kind in (left, right):
            if kind not in (INT, BOOL):
                other = " and ".join(str(each) for each in (left, right))
                raise self.error(
                    node, f"{type(operator).__name__} of {other}", "use numbers with numbers and texts with texts"
                )
        if isinstance(operator, ast.Pow):
            exponent = self.result.constants.get(second)
            if not isinstance(exponent, int) or not 0 <= exponent <= LARGEST_UNROLLED_POWER:
                raise self.error(
                    node,
                    "a power whose exponent is not a small constant",
                    f"use an exponent from 0 to {LARGEST_UNROLLED_POWER}, or write a loop that multiplies",
                )
        if isinstance(operator, (ast.BitAnd, ast.BitOr, ast.BitXor)) and left == right == BOOL:
            return BOOL
        return INT

    def expression_BoolOp(self, node: ast.BoolOp, expected: Type | None) -> Type:
        for value in node.values:
            if self.expression(value) not in (BOOL, UNKNOWN):
                raise self.error(
                    value,
                    f"and/or of {self.result.types[value]}",
                    "compare first, so that both sides are bool: `x != 0 and …`",
                )
        return BOOL

    def expression_Compare(self, node: ast.Compare, expected: Type | None) -> Type:
        operands = [node.left, *node.comparators]
        if len(node.ops) > 1 and any(isinstance(operator, (ast.In, ast.NotIn)) for operator in node.ops):
            raise self.error(node, "`in` within a chain of comparisons", "write the comparisons out, with `and` between them")
        kinds = [self.expression(operand) for operand in operands]
        for position, operator in enumerate(node.ops):
            self._comparable(node, operator, operands[position + 1], kinds[position], kinds[position + 1])
        return BOOL

    def _comparable(self, node: ast.Compare, operator: ast.cmpop, second: ast.expr, left: Type, right: Type) -> None:
        if isinstance(operator, (ast.Is, ast.IsNot)):
            raise self.error(node, "is", "compare with ==")
        if UNKNOWN in (left, right):
            return
        texts, numbers = ("str", "char"), ("int", "bool")
        if isinstance(operator, (ast.In, ast.NotIn)):
            if right.kind in texts:
                if left.kind != "char":
                    raise self.error(node, f"`in` of {left} and str", "only a single character can be looked for")
            elif right.element is None or right.element.kind not in (*numbers, "char") or right.element != left:
                raise self.error(node, f"`in` of {left} and {right}", "write a loop that compares")
            return
        if not ((left.kind in texts and right.kind in texts) or (left.kind in numbers and right.kind in numbers)):
            raise self.error(node, f"a comparison of {left} and {right}", "compare numbers or texts; lists in a loop")

    def expression_IfExp(self, node: ast.IfExp, expected: Type | None) -> Type:
        self.condition(node.test)
        kind = join(self.expression(node.body, expected), self.expression(node.orelse, expected))
        if kind is None:
            raise self.error(node, "an if expression of two types", "use one type on both sides")
        self.accept(node.body, kind)
        self.accept(node.orelse, kind)
        return kind

    def expression_List(self, node: ast.List, expected: Type | None) -> Type:
        element = expected.element if expected is not None and expected.element is not None else UNKNOWN
        for value in node.elts:
            kind = join(element, self.expression(value, element if element.known else None))
            if kind is None or kind == NONE:
                raise self.error(value, "a list of elements of several types", "use one type")
            element = kind
        for value in node.elts:
            self.accept(value, element)
        return list_of(element)

    def expression_Subscript(self, node: ast.Subscript, expected: Type | None) -> Type:
        sliced = isinstance(node.slice, ast.Slice)
        container = self.expression(node.value, expected if sliced else None)
        if container.kind not in ("str", "char", "list", "unknown"):
            raise self.error(node, f"an element of {container}", "only texts and lists have elements")
        if isinstance(node.slice, ast.Slice):
            if node.slice.step is not None:
                raise self.error(node, "a slice with a step", "write a loop")
            for bound in (node.slice.lower, node.slice.upper):
                if bound is not None:
                    self.integer(bound)
            return STR if container.kind == "char" else container
        self.integer(node.slice)
        if container.kind in ("str", "char"):
            return CHAR
        return container.element or UNKNOWN

    def expression_JoinedStr(self, node: ast.JoinedStr, expected: Type | None) -> Type:
        for value in node.values:
            if isinstance(value, ast.FormattedValue):
                if value.conversion != -1 or value.format_spec is not None:
                    raise self.error(node, "a format in an f-string", "convert the value by a function of your own")
                self._printable(value.value)
        return STR

    def _printable(self, node: ast.expr) -> None:
        kind = self.expression(node)
        if kind not in (INT, STR, CHAR, UNKNOWN):
            raise self.error(node, f"the text of {kind}", 'write it out, such as "yes" if x else "no"')

    def expression_Call(self, node: ast.Call, expected: Type | None) -> Type:
        if node.keywords:
            raise self.error(node, "a keyword argument", "pass arguments by position")
        if isinstance(node.func, ast.Attribute):
            return self._method(node, node.func)
        if not isinstance(node.func, ast.Name):
            raise self.error(node, "a call of something that is not a name", "call a function by its name")
        name = node.func.id
        if name in self.locals or name in self.known:
            raise self.error(node, f"a call of the variable {name!r}", "call a function by its name")
        callee = self.sources.find(self.function.file, name)
        if callee is None:
            if name in _BUILT_INS:
                return _BUILT_INS[name](self, node)
            raise self.error(node, f"a call of {name!r}", _CALL_ADVICE.get(name, "define it in this file"))
        found = signature(callee)
        if len(found.parameters) != len(node.args):
            raise self.error(
                node, f"{name} called with {len(node.args)} arguments", f"it takes {len(found.parameters)}"
            )
        for argument, (_, kind) in zip(node.args, found.parameters, strict=True):
            self.require(argument, kind)
        self.result.callees[node] = callee
        return found.returns

    def _method(self, node: ast.Call, function: ast.Attribute) -> Type:
        receiver = self.expression(function.value)
        name, count = function.attr, len(node.args)
        if name == "append" and count == 1 and receiver.kind in ("list", "unknown"):
            self.element(function.value, receiver, node.args[0])
            return NONE
        if name == "pop" and count == 0 and receiver.kind in ("list", "unknown"):
            return receiver.element or UNKNOWN
        if name == "join" and count == 1 and receiver.kind in ("str", "char", "unknown"):
            joined = self.expression(node.args[0])
            if joined.kind == "list" and joined.element in (CHAR, STR, UNKNOWN):
                return STR
            if joined.kind in ("unknown", "str", "char"):
                if joined.kind == "unknown":
                    return STR
                raise self.error(node, "join of a text", "join a list[str]")
            raise self.error(node, f"join of {joined}", "join a list[str]; turn numbers into text with str first")
        raise self.error(
            node, f"the method .{name} of {receiver}", "only .append(x), .pop() and text.join(list) are known"
        )

    def arguments(self, node: ast.Call, count: int) -> None:
        if len(node.args) != count:
            raise self.error(node, f"a call with {len(node.args)} arguments", f"it takes {count}")


def _conversion(kind: Type, expected: Type) -> str:
    if expected == STR and kind == INT:
        return "write str(…)"
    if expected == INT and kind == BOOL:
        return "write int(…)"
    if expected == BOOL and kind == INT:
        return "write `… != 0`"
    return "use a value of that type"


def _length(checker: Checker, node: ast.Call) -> Type:
    checker.arguments(node, 1)
    kind = checker.expression(node.args[0])
    if kind.kind not in ("str", "char", "list", "unknown"):
        raise checker.error(node, f"the length of {kind}", "only texts and lists have a length")
    return INT


def _code_point(checker: Checker, node: ast.Call) -> Type:
    checker.arguments(node, 1)
    kind = checker.expression(node.args[0])
    if kind not in (CHAR, UNKNOWN):
        raise checker.error(node, f"ord of {kind}", "give it one character, such as text[i]")
    return INT


def _character(checker: Checker, node: ast.Call) -> Type:
    checker.arguments(node, 1)
    checker.integer(node.args[0])
    return CHAR


def _to_text(checker: Checker, node: ast.Call) -> Type:
    checker.arguments(node, 1)
    checker._printable(node.args[0])
    return CHAR if checker.result.types[node.args[0]] == CHAR else STR


def _to_integer(checker: Checker, node: ast.Call) -> Type:
    checker.arguments(node, 1)
    kind = checker.expression(node.args[0])
    if kind not in (INT, BOOL, UNKNOWN):
        raise checker.error(node, f"int of {kind}", "read the digits in a loop: value = value * 10 + ord(c) - 48")
    return INT


def _to_bool(checker: Checker, node: ast.Call) -> Type:
    checker.arguments(node, 1)
    checker.condition(node.args[0])
    return BOOL


def _extreme(checker: Checker, node: ast.Call) -> Type:
    if len(node.args) < 2:
        raise checker.error(node, "min or max of a list", "write a loop, or give it two numbers or more")
    for argument in node.args:
        checker.require(argument, INT)
    return INT


def _absolute(checker: Checker, node: ast.Call) -> Type:
    checker.arguments(node, 1)
    checker.integer(node.args[0])
    return INT


_BUILT_INS: dict[str, BuiltIn] = {
    "len": _length,
    "ord": _code_point,
    "chr": _character,
    "str": _to_text,
    "int": _to_integer,
    "bool": _to_bool,
    "min": _extreme,
    "max": _extreme,
    "abs": _absolute,
}
