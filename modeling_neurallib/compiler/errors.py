"""The one error of the compiler."""

from __future__ import annotations

TOO_DEEP = ("expressions, statements or calls that are nested too deeply", "split them up, or write a loop")
"""What is said where Python's own limit of recursion was reached."""


class CompileError(ValueError):
    """Source text outside the language.

    Attributes:
        file: the source file as it was given, or ``"<source>"``.
        line: 1-based line of the construct, 0 if there is none.
        construct: what was found.
        advice: what to write instead.
    """

    def __init__(self, file: str, line: int, construct: str, advice: str) -> None:
        self.file, self.line, self.construct, self.advice = file, line, construct, advice
        where = f"{file}:{line}" if line else file
        super().__init__(f"{where}: {construct}; {advice}")
