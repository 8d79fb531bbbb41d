"""Where functions come from: files, modules and function objects, and the names that each of them sees."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from .errors import CompileError

Constant = int | str | bool


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
    """

    path: Path | None
    label: str
    lines: list[str]
    tree: ast.Module
    functions: dict[str, ast.FunctionDef] = field(default_factory=dict)
    constants: dict[str, Constant] = field(default_factory=dict)
    imports: dict[str, tuple[ast.ImportFrom, str]] = field(default_factory=dict)
    given: dict[str, SourceFunction] = field(default_factory=dict)

    def error(self, node: ast.AST | int, construct: str, advice: str) -> CompileError:
        line = node if isinstance(node, int) else getattr(node, "lineno", 0)
        return CompileError(self.label, line, construct, advice)


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
        key = path.resolve()
        if key not in self._files:
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise CompileError(str(path), 0, f"the file cannot be read ({error})", "pass a Python file") from None
            self._files[key] = self.text(text, str(path), path)
        return self._files[key]

    def text(self, text: str, label: str, path: Path | None = None) -> SourceFile:
        """Indexes source text."""
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", 0) or 0
            raise CompileError(label, line, f"not Python: {error}", "mend the syntax first") from None
        source = SourceFile(path, label, text.splitlines(), tree)
        for statement in tree.body:
            _index(source, statement)
        return source

    def find(self, file: SourceFile, name: str) -> SourceFunction | None:
        """The function that a name stands for in a file, followed through its imports."""
        if name in file.given:
            return file.given[name]
        if name in file.functions:
            return SourceFunction(file, file.functions[name])
        if name in file.imports:
            statement, original = file.imports[name]
            other = self._imported(file, statement)
            found = self.find(other, original)
            if found is None and original not in other.constants:
                raise file.error(statement, f"{other.label} has no function {original!r}", "import one that it defines")
            return found
        return self.given.get(name)

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
                        return SourceFunction(file, node)
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
    return [SourceFunction(file, node) for name, node in file.functions.items() if not name.startswith("_")]


def module_path(module: ModuleType) -> Path:
    """The file of a module."""
    if not getattr(module, "__file__", None):
        raise CompileError(module.__name__, 0, "a module without a source file", "pass a module written in Python")
    return Path(str(module.__file__))


def _index(source: SourceFile, statement: ast.stmt) -> None:
    if isinstance(statement, ast.FunctionDef):
        source.functions[statement.name] = statement
    elif isinstance(statement, ast.ImportFrom):
        if statement.module != "__future__" or statement.level:
            for alias in statement.names:
                source.imports[alias.asname or alias.name] = (statement, alias.name)
    elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        if statement.value is not None and len(targets) == 1 and isinstance(targets[0], ast.Name):
            value = fold(statement.value, source.constants)
            if value is not None:
                source.constants[targets[0].id] = value


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
            return left + right
    return None


def _arithmetic(operator: ast.operator, left: int, right: int) -> int | None:
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
