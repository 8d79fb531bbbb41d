"""Where functions come from: files, modules and function objects, and the names that each of them sees."""

from __future__ import annotations

import ast
import builtins
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

from .errors import TOO_DEEP, CompileError

Constant = int | str | bool

LONGEST_TEXT = 10_000
"""Characters of the longest text that a source may hold: each becomes two instructions."""

LARGEST_FOLDED_BITS = 4_096
"""Bits of the largest integer that is computed while compiling."""


@dataclass
class SourceFunction:
    """One function's syntax tree and the file in which its names are looked up."""

    file: SourceFile
    node: ast.FunctionDef

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def source(self) -> str:
        return "\n".join(self.file.lines[self.node.lineno - 1 : self.node.end_lineno])


@dataclass
class SourceFile:
    """A source file: its functions, constants, and the functions that it imports from files beside it.

    Attributes:
        path: where it lies; None for source text without a file.
        label: how errors name it.
        given: functions of other files that it sees under these names.
        unclear: names that it binds to anything else, and the lines; ``*`` for an import of whatever there is.
    """

    path: Path | None
    label: str
    lines: list[str]
    tree: ast.Module
    functions: dict[str, ast.FunctionDef] = field(default_factory=dict)
    constants: dict[str, Constant] = field(default_factory=dict)
    imports: dict[str, tuple[ast.ImportFrom, str]] = field(default_factory=dict)
    given: dict[str, SourceFunction] = field(default_factory=dict)
    unclear: dict[str, int] = field(default_factory=dict)

    def error(self, node: ast.AST | int, construct: str, advice: str) -> CompileError:
        line = node if isinstance(node, int) else getattr(node, "lineno", 0)
        return CompileError(self.label, line, construct, advice)

    def refuse_unclear(self, name: str, key: str = "") -> None:
        """Refuses the use of a name whose meaning is known only by running the file."""
        line = self.unclear.get(key or name)
        if line is not None:
            raise self.error(
                line,
                f"the name {name!r} is or may be bound here to something else than a constant or a function",
                "bind it by a plain assignment of an int, bool or str, by `def`, or by an import of this name",
            )

    def forget(self, name: str) -> None:
        """Drops what a name was bound to."""
        self.functions.pop(name, None)
        self.constants.pop(name, None)
        self.imports.pop(name, None)
        self.unclear.pop(name, None)


class Sources:
    """Source files, each read once.

    Attributes:
        given: functions that every file sees besides its own: those that are compiled together.
    """

    def __init__(self) -> None:
        self._files: dict[Path, SourceFile] = {}
        self.given: dict[str, SourceFunction] = {}

    def file(self, path: Path) -> SourceFile:
        """Reads and indexes a file.

        Raises:
            CompileError: it cannot be read, is not Python, or holds a statement outside the language.
        """
        try:
            key = path.resolve()
            text = "" if key in self._files else path.read_text(encoding="utf-8")
        except (OSError, ValueError, RuntimeError) as error:  # also a NUL in the name, or links in a circle
            raise CompileError(str(path), 0, f"the file cannot be read ({error})", "pass a Python file") from None
        if key not in self._files:
            self._files[key] = self.text(text, str(path), path)
        return self._files[key]

    def text(self, text: str, label: str, path: Path | None = None) -> SourceFile:
        """Indexes source text."""
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", 0) or 0
            raise CompileError(label, line, f"not Python: {error}", "mend the syntax first") from None
        except (RecursionError, MemoryError):
            raise CompileError(label, 0, *TOO_DEEP) from None
        source = SourceFile(path, label, text.splitlines(), tree)
        shared = {name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names}
        for statement in tree.body:
            try:
                _index(source, statement, shared)
            except RecursionError:
                raise source.error(statement, *TOO_DEEP) from None
        return source

    def find(self, file: SourceFile, name: str) -> SourceFunction | None:
        """The function that a name stands for in a file, followed through its imports.

        Raises:
            CompileError: that is known only by running the file.
        """
        if name in file.given:
            return file.given[name]
        file.refuse_unclear(name)
        if name in file.functions:
            return SourceFunction(file, file.functions[name])
        if name in file.imports:
            statement, original = file.imports[name]
            other = self._imported(file, statement)
            found = self.find(other, original)
            if found is None and original not in other.constants:
                raise file.error(statement, f"{other.label} has no function {original!r}", "import one that it defines")
            return found
        if name in file.constants:
            return None
        file.refuse_unclear(name, "*")
        return None if hasattr(builtins, name) else self.given.get(name)

    def constant(self, file: SourceFile, name: str) -> Constant | None:
        """The constant that a name stands for in a file, followed through its imports."""
        if name in file.constants:
            return file.constants[name]
        if name in file.imports:
            statement, original = file.imports[name]
            return self.constant(self._imported(file, statement), original)
        return None

    def of(self, function: Callable) -> SourceFunction:
        """The source of a function object.

        Raises:
            CompileError: its source cannot be found.
        """
        code, name = getattr(function, "__code__", None), getattr(function, "__name__", str(function))
        path = None if code is None else Path(code.co_filename)
        if code is not None and path is not None and path.is_file():
            file = self.file(path)
            for node in ast.walk(file.tree):
                if isinstance(node, ast.FunctionDef) and node.name == name:
                    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                    if first == code.co_firstlineno:
                        return SourceFunction(_inside(file, code.co_freevars), node)
        try:
            file = self.text(inspect.cleandoc("\n" + inspect.getsource(function)), f"<{name}>")
            return SourceFunction(file, file.functions[name])
        except (OSError, TypeError, KeyError):
            raise CompileError(
                f"<{name}>", 0, "the source of this function cannot be found", "define it with `def` in a file"
            ) from None

    def _imported(self, file: SourceFile, statement: ast.ImportFrom) -> SourceFile:
        if file.path is None or statement.level != 1 or not statement.module or "." in statement.module:
            raise file.error(
                statement, "an import from elsewhere", "import from a file beside it: `from .name import function`"
            )
        path = file.path.parent / f"{statement.module}.py"
        if not path.is_file():
            raise file.error(statement, f"no file {path.name} beside it", "import from a file that is there")
        return self.file(path)


def exported(file: SourceFile) -> list[SourceFunction]:
    """The programs of a file: its own functions whose names do not begin with an underscore."""
    for statement in file.tree.body:
        if isinstance(statement, ast.FunctionDef) and not statement.name.startswith("_"):
            file.refuse_unclear(statement.name)
    return [SourceFunction(file, node) for name, node in file.functions.items() if not name.startswith("_")]


def module_path(module: ModuleType) -> Path:
    """The file of a module."""
    if not getattr(module, "__file__", None):
        raise CompileError(module.__name__, 0, "a module without a source file", "pass a module written in Python")
    return Path(str(module.__file__))


def _inside(file: SourceFile, hidden: tuple[str, ...]) -> SourceFile:
    """A file as it is seen by a function inside a function, whose variables hide names of the file."""
    if not hidden:
        return file
    inner = replace(
        file,
        functions=dict(file.functions),
        constants=dict(file.constants),
        imports=dict(file.imports),
        unclear=dict(file.unclear),
    )
    for name in hidden:
        inner.forget(name)
    return inner


def _index(source: SourceFile, statement: ast.stmt, shared: set[str]) -> None:
    """Notes what a statement binds. Functions run after the whole file, so the last binding of a name counts.

    Args:
        shared: names that functions declare global, so that a call may bind them anew.
    """
    value = None
    if isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value is not None:
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        if len(targets) == 1 and isinstance(targets[0], ast.Name):
            value = fold(statement.value, source.constants)
    for name in list(_bound(statement)):
        if name == "*":
            for known in [*source.functions, *source.constants, *source.imports]:
                source.forget(known)
                source.unclear[known] = statement.lineno
        source.forget(name)
        if name in shared:
            source.unclear[name] = statement.lineno
        elif isinstance(statement, ast.FunctionDef) and name == statement.name:
            source.functions[name] = statement
        elif isinstance(statement, ast.ImportFrom) and name != "*":
            originals = {each.asname or each.name: each.name for each in statement.names}
            source.imports[name] = (statement, originals[name])
        elif value is not None:
            source.constants[name] = value
        else:
            source.unclear[name] = statement.lineno


def _bound(node: ast.AST) -> Iterator[str]:
    """The names of the file that a statement binds or deletes, wherever in it; ``*`` for those of an unnamed import."""
    children = list(ast.iter_child_nodes(node))
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
        children = [child for child in children if not isinstance(child, ast.stmt)]
    elif isinstance(node, ast.Lambda):
        children = [node.args]
    elif isinstance(node, ast.comprehension):
        children = [node.iter, *node.ifs]
    elif (isinstance(node, ast.AnnAssign) and node.value is None) or (
        isinstance(node, ast.ImportFrom) and node.module == "__future__"
    ):
        children = []
    elif isinstance(node, ast.alias):
        yield node.asname or node.name.partition(".")[0]
    elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name is not None:
        yield node.name
    elif isinstance(node, ast.MatchMapping) and node.rest is not None:
        yield node.rest
    for child in children:
        yield from _bound(child)


def fold(node: ast.expr, constants: dict[str, Constant]) -> Constant | None:
    """The value of a constant expression, or None if it is not one."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, str)):
        return node.value
    if isinstance(node, ast.Name):
        return constants.get(node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        operand = fold(node.operand, constants)
        return -operand if isinstance(operand, int) else None
    if isinstance(node, ast.BinOp):
        left, right = fold(node.left, constants), fold(node.right, constants)
        if type(left) is int and type(right) is int:
            return _arithmetic(node.op, left, right)
        if isinstance(left, str) and isinstance(right, str) and isinstance(node.op, ast.Add):
            return left + right if len(left) + len(right) <= LONGEST_TEXT else None
    return None


def _arithmetic(operator: ast.operator, left: int, right: int) -> int | None:
    bits = left.bit_length() + right.bit_length()
    if isinstance(operator, ast.Pow):
        bits = left.bit_length() * right
    if bits > LARGEST_FOLDED_BITS:
        return None
    if isinstance(operator, ast.Add):
        return left + right
    if isinstance(operator, ast.Sub):
        return left - right
    if isinstance(operator, ast.Mult):
        return left * right
    if isinstance(operator, ast.FloorDiv):
        return left // right if right else None
    if isinstance(operator, ast.Mod):
        return left % right if right else None
    if isinstance(operator, ast.Pow):
        return left**right if 0 <= right <= 64 else None
    if isinstance(operator, ast.LShift):
        return left << right if 0 <= right <= 64 else None
    return None
