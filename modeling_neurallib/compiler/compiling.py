"""The compiler in one function: parse → lower → optimise → allocate → assemble → link."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from ...configuration.machine_config import LEAST_REGISTERS, MOST_REGISTERS
from ..library import NeuralLibrary
from ..library_errors import LibraryError
from ..library_records import Parameter
from ..library_validation import MAXIMUM_NAME, MAXIMUM_TEXT
from ..machine.state import MAXIMUM_ARGUMENTS
from .allocate import allocate
from .assemble import Assembled, assemble, entry
from .errors import TOO_DEEP, CompileError
from .link import ProgramParts, link
from .lower import INTEGER_TO_TEXT, LITERAL, literal, lower
from .optimise import optimise
from .parse import Signature, parse, signature
from .runtime import assembly, routine
from .source import SourceFunction, Sources, exported, module_path
from .three_address import Routine
from .types import BOOL, INT, STR, Type, list_of

REGISTERS = 16
"""Registers of the machine that programs are compiled for."""

_TEXT_FORMS = Path(__file__).parent.parent / "programs" / "_text.py"
"""Restricted Python that reads and prints the arguments and results of programs whose types are not ``str``."""

_READERS: dict[Type, tuple[str, str, str]] = {
    INT: ("is_integer", "integer", "not a number"),
    BOOL: ("is_truth", "truth", "not yes or no"),
    list_of(INT): ("is_integer_list", "integer_list", "not a number"),
}
_PRINTERS: dict[Type, str] = {INT: INTEGER_TO_TEXT, BOOL: "truth_to_text", list_of(INT): "integer_list_to_text"}

Compilable = Sequence[Callable] | Callable | ModuleType | str | Path


def compile_library(what: Compilable, name: str | None = None, registers: int = REGISTERS) -> NeuralLibrary:
    """Compiles Python functions into a library.

    Args:
        what: functions; or a module, or the path of a source file, whose functions without a leading underscore become
            the programs.
        name: the library's name; that of the file or of the first function's file by default.
        registers: R of the machine that is compiled for.

    Raises:
        CompileError: something is outside the language; it names file, line, the construct and what to write instead.
    """
    sources = Sources()
    if isinstance(what, (str, Path)):
        path = Path(what)
        functions, default = exported(sources.file(path)), path.stem
    elif isinstance(what, ModuleType):
        path = module_path(what)
        functions, default = exported(sources.file(path)), path.stem
    else:
        if not callable(what) and not isinstance(what, Iterable):
            raise CompileError(
                "<source>", 0, f"{type(what).__name__} instead of functions", "pass functions, a module or a path"
            )
        given = [what] if callable(what) else list(what)
        functions = [sources.of(function) for function in given]
        default = Path(functions[0].file.label).stem if functions else "library"
    if not functions:
        raise CompileError(str(what), 0, "nothing to compile", "give it at least one function without a leading _")
    return compile_functions(functions, sources, name or _as_name(default), registers)


def compile_files(paths: Sequence[Path], name: str, registers: int = REGISTERS) -> NeuralLibrary:
    """Compiles several source files into one library, in which they share the functions that they import."""
    sources = Sources()
    functions = [function for path in paths for function in exported(sources.file(path))]
    return compile_functions(functions, sources, name, registers)


def compile_source(text: str, name: str = "library", registers: int = REGISTERS) -> NeuralLibrary:
    """Compiles source text; its functions without a leading underscore become the programs."""
    sources = Sources()
    functions = exported(sources.text(text, "<source>"))
    if not functions:
        raise CompileError("<source>", 0, "nothing to compile", "give it at least one function without a leading _")
    return compile_functions(functions, sources, name, registers)


def compile_functions(
    functions: list[SourceFunction], sources: Sources, name: str, registers: int = REGISTERS
) -> NeuralLibrary:
    """Compiles functions found in sources, and whatever they call, into a library."""
    where = functions[0].file.label if functions else "<source>"
    if type(registers) is not int or not LEAST_REGISTERS <= registers <= MOST_REGISTERS:
        raise CompileError(
            where, 0, f"a machine of {registers!r} registers", f"use {LEAST_REGISTERS} to {MOST_REGISTERS}"
        )
    sources.given |= {function.name: function for function in functions}
    unit = _Unit(sources, registers)
    programs = [unit.program(function) for function in functions]
    names = [program.name for program in programs]
    for function in functions:
        if names.count(function.name) > 1:
            raise function.file.error(function.node, f"two programs named {function.name!r}", "rename one")
    try:
        return link(name, programs, unit.assembled(), registers)
    except LibraryError as error:
        raise CompileError(where, 0, f"what no library can hold ({error})", "change that") from None


class _Unit:
    """The routines of a library being compiled, each translated once."""

    def __init__(self, sources: Sources, registers: int) -> None:
        self.sources, self.registers = sources, registers
        self.routines: dict[str, Routine] = {}
        self.labels: dict[ast.FunctionDef, str] = {}

    def program(self, function: SourceFunction) -> ProgramParts:
        with _not_too_deep(function):
            return self._program(function)

    def _program(self, function: SourceFunction) -> ProgramParts:
        found = signature(function)
        most = min(MAXIMUM_ARGUMENTS, (self.registers - 2) // 2)
        if len(found.parameters) > most:
            raise function.file.error(
                function.node, f"a program with {len(found.parameters)} parameters", f"use at most {most}"
            )
        docstring = ast.get_docstring(function.node) or ""
        _refuse_texts(function, found, docstring)
        stub = f"entry of {function.name}"
        wrapper = self._wrapper(function, found)
        outer = self.function(wrapper or function)
        self.routines[stub] = entry(function.name, outer, len(found.parameters))
        parts = [stub, outer] if wrapper is None else [stub, outer, self.function(function)]
        return ProgramParts(
            name=function.name,
            docstring=docstring,
            parameters=tuple(Parameter(parameter, str(kind)) for parameter, kind in found.parameters),
            returns=str(found.returns),
            source=function.source,
            routines=parts,
        )

    def _wrapper(self, function: SourceFunction, found: Signature) -> SourceFunction | None:
        """Reads the arguments and prints the result of a program whose types are not all ``str``."""
        name, kinds = function.name, dict(found.parameters)
        if all(kind == STR for kind in kinds.values()) and found.returns == STR:
            return None
        for kind in (*kinds.values(), found.returns):
            if kind != STR and kind not in _READERS:
                raise function.file.error(
                    function.node,
                    f"a program with {kind} in its signature",
                    "programs take and return str, int, bool or list[int]; for a helper begin the name with _",
                )
        forms = self.sources.file(_TEXT_FORMS)
        body, arguments = [], []
        texts: list[str] = []
        for parameter, kind in kinds.items():
            text = parameter
            while text in (*forms.functions, "__program__") or (text != parameter and text in kinds):
                text += "_"
            texts.append(text)
            test, read, message = _READERS.get(kind, ("", "", ""))
            if test:
                body.append(f"    if not {test}({text}):\n        return {message!r}")
            arguments.append(f"{read}({text})" if test else text)
        result = f"__program__({', '.join(arguments)})"
        printer = _PRINTERS.get(found.returns)
        body.append(f"    return {printer}({result})" if printer else f"    return {result}")
        header = f"def {name}_in_text({', '.join(f'{text}: str' for text in texts)}) -> str:"
        file = self.sources.text("\n".join([header, *body]), f"<{name} in text>")
        file.given = {each: SourceFunction(forms, node) for each, node in forms.functions.items()}
        file.given["__program__"] = function
        return SourceFunction(file, file.functions[f"{name}_in_text"])

    def function(self, function: SourceFunction) -> str:
        """The label of a function's routine; translates it and whatever it calls if that was not done yet."""
        key = function.node
        if key in self.labels:
            return self.labels[key]
        label = function.name
        reserved = label in assembly() or (label == INTEGER_TO_TEXT and function.file.path != _TEXT_FORMS)
        if label in self.routines or reserved:
            label = f"{Path(function.file.label).stem}.{function.name}"
        while label in self.routines:
            label += "'"
        self.labels[key] = label
        if len(function.source) > MAXIMUM_TEXT:
            raise function.file.error(
                function.node, f"a function of {len(function.source)} characters", f"keep it to {MAXIMUM_TEXT}: split it up"
            )
        most = self.registers - 2  # the other two are the heap and the stack pointer
        if len(function.node.args.args) > most:
            raise function.file.error(
                function.node,
                f"{len(function.node.args.args)} parameters on a machine of {self.registers} registers",
                f"use at most {most}, or compile for a machine with more registers",
            )
        with _not_too_deep(function):
            typed = parse(function, self.sources)
        self.routines[label] = Routine(label, 0)  # keeps the place, and the name, of a function that calls itself
        for callee in typed.callees.values():
            self.function(callee)
        with _not_too_deep(function):
            lowered = lower(typed, label, self.labels, self.registers)
        self.add(lowered)
        return label

    def add(self, built: Routine) -> None:
        """Finishes a routine, and brings in the runtime routines that it calls."""
        optimise(built)
        allocate(built, self.registers)
        self.routines[built.name] = built
        for label in sorted(built.calls()):
            if label not in self.routines:
                if label == INTEGER_TO_TEXT:
                    forms = self.sources.file(_TEXT_FORMS)
                    self.function(SourceFunction(forms, forms.functions[label]))
                elif label.startswith(LITERAL):
                    self.add(literal(label, self.registers))
                else:
                    self.add(routine(label, self.registers))

    def assembled(self) -> dict[str, Assembled]:
        return {label: assemble(built) for label, built in self.routines.items()}


@contextmanager
def _not_too_deep(function: SourceFunction) -> Iterator[None]:
    """Names the function in which Python's limit of recursion was reached."""
    try:
        yield
    except RecursionError:
        raise function.file.error(function.node, *TOO_DEEP) from None


def _refuse_texts(function: SourceFunction, found: Signature, docstring: str) -> None:
    """Refuses names and a docstring of a program that a library cannot hold."""
    for name in (function.name, *(parameter for parameter, _ in found.parameters)):
        if len(name) > MAXIMUM_NAME:
            raise function.file.error(
                function.node, f"the name {name[:40]}… of {len(name)} characters", f"use at most {MAXIMUM_NAME}"
            )
    if not function.name.isascii():
        raise function.file.error(
            function.node, f"a program named {function.name!r}", "name programs with letters a to z, digits and _"
        )
    if len(docstring) > MAXIMUM_TEXT:
        raise function.file.error(
            function.node, f"a docstring of {len(docstring)} characters", f"use at most {MAXIMUM_TEXT}"
        )
    if any("\ud800" <= character <= "\udfff" for character in docstring):
        raise function.file.error(
            function.node, "a docstring with half of a surrogate pair", "write the character itself"
        )


def _as_name(text: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_-]", "_", text).strip("_")
    return name if name and name[0].isalpha() else f"library_{name}".rstrip("_")
