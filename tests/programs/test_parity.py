"""The fourteen tasks of Adaptive Neural Compilation, compiled, against CPython on every engine."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neurallib.modeling_neurallib.machine.operations import Fault

FOLDER = Path(__file__).parents[2] / "benchmarks" / "parity"


def parity_tasks() -> Any:
    """``benchmarks/parity``, a package outside any other."""
    spec = importlib.util.spec_from_file_location(
        "parity", FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    assert spec is not None and spec.loader is not None
    sys.modules["parity"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["parity"])
    return importlib.import_module("parity.tasks")


tasks = parity_tasks()
NAMES = [task.name for task in tasks.TASKS]
LONG = {"bubble_sort"}
"""Tasks whose time grows with the square of the size: fewer examples."""


def test_there_are_fourteen():
    assert sorted(NAMES) == sorted(tasks.library().programs) and len(NAMES) == 14


@pytest.mark.parametrize("task", tasks.TASKS, ids=NAMES)
def test_small_inputs_on_exact(task: Any) -> None:
    @settings(max_examples=15, deadline=None)
    @given(st.integers(2, 40), st.integers(1, 10**6), st.integers(0, 2**32))
    def compare(size: int, largest: int, seed: int) -> None:
        arguments = task.draw(Random(seed), size, largest)
        expected = tasks.under_cpython(task.name, arguments)
        native, portable = (tasks.exact(task.name, arguments, portable) for portable in (False, True))
        assert native == portable
        assert native.text == expected, (arguments, native.fault)

    compare()


@pytest.mark.parametrize("task", tasks.TASKS, ids=NAMES)
def test_ten_times_the_papers_sizes_on_exact(task: Any) -> None:
    @settings(max_examples=2 if task.name in LONG else 5, deadline=None)
    @given(st.integers(0, 2**32))
    def compare(seed: int) -> None:
        arguments = task.draw(Random(seed), task.tenfold, 10**6)
        assert tasks.exact(task.name, arguments, False).text == tasks.under_cpython(task.name, arguments)

    compare()


@pytest.mark.parametrize("task", tasks.TASKS, ids=NAMES)
def test_portable_equals_native_at_size(task: Any) -> None:
    size = 200 if task.name in LONG else task.tenfold
    arguments = task.draw(Random(7), size, 10**6)
    assert tasks.exact(task.name, arguments, True) == tasks.exact(task.name, arguments, False)


@pytest.mark.parametrize("task", tasks.TASKS, ids=NAMES)
def test_adjoint_and_exact_on_the_small_machine(task: Any) -> None:
    for seed in range(5):
        arguments = task.draw(Random(seed), task.small, 9)
        expected = tasks.exact(task.name, arguments, False, tasks.SMALL)
        assert expected.fault is Fault.none
        assert expected.text == tasks.under_cpython(task.name, arguments)
        assert tasks.adjoint(task.name, arguments) == expected


@pytest.mark.parametrize("arithmetic", ["tables", "circuits"])
@pytest.mark.parametrize("name", ["access", "increment", "walk_search_tree"])
def test_dense_equals_exact(name: str, arithmetic: str) -> None:
    """The other tasks run on dense in ``benchmarks/parity.py``: a step there costs as much as 100,000 on exact."""
    task = tasks.TASKS[NAMES.index(name)]
    arguments = task.draw(Random(1), 3 if name == "walk_search_tree" else 2, 9)
    expected = tasks.exact(name, arguments, False, tasks.SMALL)
    assert tasks.dense(name, arguments, arithmetic=arithmetic) == expected
    assert expected.text == tasks.under_cpython(name, arguments)
