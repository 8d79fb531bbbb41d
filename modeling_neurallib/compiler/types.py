"""The types of the language and what a word of each means on the machine.

| type      | one word holds                                                                             |
|-----------|--------------------------------------------------------------------------------------------|
| int       | the integer, in two's complement                                                           |
| bool      | 0 or 1                                                                                     |
| char      | a code point. Not written in source: it is a ``str`` known to have length one (``s[i]``)   |
| str       | the address of ``[length, characters …]``; never changed once built                        |
| list[T]   | the address of ``[length, capacity, address of the elements]``; one word an element        |
| none      | nothing: what a procedure returns                                                          |
| unknown   | not known yet: the element of ``[]``, a variable before inference has reached its value    |
"""

from __future__ import annotations

import ast
from dataclasses import dataclass


@dataclass(frozen=True)
class Type:
    """A type: its kind and, for a list, that of its elements."""

    kind: str
    element: Type | None = None

    def __str__(self) -> str:
        if self.element is not None:
            return f"list[{self.element}]"
        return "str" if self.kind == "char" else self.kind

    @property
    def known(self) -> bool:
        return self.kind != "unknown" and (self.element is None or self.element.known)


INT, BOOL, CHAR, STR, NONE, UNKNOWN = (Type(kind) for kind in ("int", "bool", "char", "str", "none", "unknown"))
SIMPLE = {"int": INT, "bool": BOOL, "str": STR}


def list_of(element: Type) -> Type:
    return Type("list", element)


def join(first: Type, second: Type) -> Type | None:
    """The least type that holds values of both, or None if there is none."""
    if first == second or second.kind == "unknown":
        return first
    if first.kind == "unknown":
        return second
    if {first.kind, second.kind} == {"char", "str"}:
        return STR
    if first.element is not None and second.element is not None:
        element = join(first.element, second.element)
        return None if element is None else list_of(element)
    return None


def annotated(node: ast.expr | None) -> Type | None:
    """The type that an annotation names, or None if it names none of the language."""
    if isinstance(node, ast.Name):
        return SIMPLE.get(node.id)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            return annotated(ast.parse(node.value, mode="eval").body)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "list":
        element = annotated(node.slice)
        return None if element is None else list_of(element)
    return None
