"""The fourteen tasks of Adaptive Neural Compilation, compiled, against CPython on every engine."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neurallib.modeling_neurallib.machine.operations import Fault
from neurallib.modeling_neurallib.machine.state import GradientError

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
COPIED = {"access", "bubble_sort", "copy", "merge", "permutation", "reverse", "swap"}
"""Tasks whose results are numbers that they were given."""


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


@pytest.mark.parametrize("task", tasks.TASKS, ids=NAMES)
def test_ten_times_the_papers_sizes_on_adjoint(task: Any) -> None:
    arguments = task.draw(Random(3), task.tenfold, 99)
    found = tasks.adjoint(task.name, arguments, tasks.TENFOLD)
    assert found == tasks.exact(task.name, arguments, False, tasks.TENFOLD)
    assert found.text == tasks.under_cpython(task.name, arguments)


@pytest.mark.parametrize("task", tasks.TASKS, ids=NAMES)
def test_gradients_through_lists_of_100_words(task: Any) -> None:
    """Ten times the paper's small memories. ``benchmarks/parity.py`` goes to 1,000 words where a gradient has 2 GiB."""
    arguments = task.draw(Random(0), 50 if task.name in LONG else 100, 9)
    config = tasks.smallest(task.name, arguments)
    blind, steps = tasks.gradient(task.name, arguments, config, damping=0.0)
    assert np.isfinite(blind).all() and steps > 800
    if task.name in COPIED:  # its last digit is one that was read: another there would be another in the result
        wanted = np.arange(48, 58) - ord(tasks.under_cpython(task.name, arguments)[-1])
        assert (blind[:, 48:58] == wanted).all(1).any()
    try:
        whole, _ = tasks.gradient(task.name, arguments, config)
    except GradientError as error:
        assert f"gradient of {task.name} overflows float64" in str(error)
        back = int(str(error).split(" steps back")[0].split()[-1])
        assert 1_000 < back < 3_000
    else:
        assert task.name == "loopy_add" and np.isfinite(whole).all() and np.abs(whole).max() > 1e100


@pytest.mark.parametrize("arithmetic", ["tables", "circuits"])
@pytest.mark.parametrize("name", ["access", "increment", "walk_search_tree"])
def test_dense_equals_exact(name: str, arithmetic: str) -> None:
    """The other tasks run on dense in ``benchmarks/parity.py``: a step there costs as much as 100,000 on exact."""
    task = tasks.TASKS[NAMES.index(name)]
    arguments = task.draw(Random(1), 3 if name == "walk_search_tree" else 2, 9)
    expected = tasks.exact(name, arguments, False, tasks.SMALL)
    assert tasks.dense(name, arguments, arithmetic=arithmetic) == expected
    assert expected.text == tasks.under_cpython(name, arguments)
