"""The standard library: restricted Python in this folder, compiled and shipped beside it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ..library import NeuralLibrary

SUBJECTS = ("arithmetic", "number_theory", "statistics", "lists", "texts", "expressions", "everyday")
SHIPPED = Path(__file__).parent.parent / "shipped" / "standard_library"


@cache
def standard_library() -> NeuralLibrary:
    """The standard library, as it is shipped: read once a process."""
    return NeuralLibrary.from_pretrained(SHIPPED)


def compile_standard_library() -> NeuralLibrary:
    """The standard library, compiled from the sources in this folder."""
    from ..compiler.compiling import compile_files

    folder = Path(__file__).parent
    return compile_files([folder / f"{subject}.py" for subject in SUBJECTS], "standard_library")
