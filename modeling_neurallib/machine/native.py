"""Loops compiled by numba, where it is installed: importing this takes a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    import numba
except ImportError:
    numba = None  # type: ignore[assignment]


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """The function compiled by numba when it is first called, or as it is where numba is not installed.

    Args:
        options: of ``numba.njit``, beside those that all loops have.
    """
    if numba is None:
        return function
    options = {"nogil": True, "error_model": "numpy", **options}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return numba.njit(**options)(function)
