"""Short runs of the fuzzer (``benchmarks/fuzz.py`` is the long one), and the hostile libraries that it is not enough for."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neurallib.modeling_neurallib.library import NeuralLibrary
from neurallib.modeling_neurallib.library_errors import LibraryError
from neurallib.modeling_neurallib.library_files import CONFIG_FILE, TENSOR_FILE, decoded


def load_fuzz() -> Any:
    path = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"
    spec = importlib.util.spec_from_file_location("fuzz", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fuzz = load_fuzz()
seeds = st.integers(0, 2**32)


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_random_programs_stay_in_bounds_and_engines_agree(seed: int) -> None:
    pytest.importorskip("numba")
    fuzz.states(np.random.default_rng(seed), batch=16, compared=4)


@settings(max_examples=8, deadline=None)
@given(seeds)
def test_mutated_programs_on_random_texts(seed: int) -> None:
    pytest.importorskip("numba")
    fuzz.texts(np.random.default_rng(seed), batch=16, compared=2)


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_the_loops_behind_the_gradients_stay_in_bounds(seed: int) -> None:
    pytest.importorskip("numba")
    fuzz.gradients(np.random.default_rng(seed), batch=2, longest=16)


@settings(max_examples=8, deadline=None)
@given(seeds)
def test_random_programs_on_dense(seed: int) -> None:
    fuzz.dense(np.random.default_rng(seed), steps=12)


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_malformed_files_are_refused_with_the_reason(seed: int) -> None:
    fuzz.files(np.random.default_rng(seed))


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(codec="utf-8"), max_size=9)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_value_in_any_place_of_the_description(data: st.DataObject) -> None:
    """Whatever is put there, the library is refused with the place named, or it is one that can be used."""
    text, tensors = fuzz.base_files()
    description = json.loads(text)
    path = data.draw(st.sampled_from(list(fuzz.paths_of(description))))
    holder = description
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = data.draw(json_values)
    try:
        library = decoded(NeuralLibrary, json.dumps(description).encode(), tensors, Path("folder"))
    except LibraryError as error:
        assert str(error).startswith("folder")
    else:
        fuzz.use_everything(library)


def test_the_fuzzer_sees_a_write_out_of_bounds() -> None:
    """A guard cell that was written to, by hand: the checks that everything else relies on do find it."""
    buffer, view = fuzz.guarded(np.zeros((2, 3), np.int32), -7)
    assert view.flags.c_contiguous and fuzz.intact(buffer, -7)
    view[:] = 5
    assert fuzz.intact(buffer, -7)
    buffer[fuzz.GUARD + 6] = 5
    assert not fuzz.intact(buffer, -7)


@pytest.mark.parametrize("loop", ["execute", "_backward", "alternatives", "first_right"])
def test_the_fuzzer_sees_what_a_loop_does_wrong(monkeypatch: pytest.MonkeyPatch, loop: str) -> None:
    """A cell written beyond an array's end, and one written into the code."""
    pytest.importorskip("numba")
    compiled = getattr(fuzz.adjoint, loop)
    for offset, message in ((-1, f"{loop} wrote around the code"), (0, f"{loop} wrote into the code")):

        def broken(code: np.ndarray, *arguments: Any, offset: int = offset) -> Any:
            code.base[fuzz.GUARD + offset] += 1
            return compiled(code, *arguments)

        monkeypatch.setattr(fuzz.adjoint, loop, broken)
        with pytest.raises(fuzz.Finding, match=message):
            fuzz.gradients(np.random.default_rng(1), batch=1, longest=5)


def test_a_long_run_reports_what_it_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Any) -> Any:
        raise IndexError("out of range")

    monkeypatch.setitem(fuzz.ROUNDS, "files", broken)
    monkeypatch.setattr(fuzz, "SHARES", {"files": 1.0})
    counts, found, memory = fuzz.chunk(5, 2)
    assert found == [f"files, seed {seed}: IndexError: out of range" for seed in (5, 6)]
    assert counts["rounds of files"] == 2 and memory > 0


# Hostile libraries made by hand


def written(folder: Path, change: Callable[[dict[str, Any]], object], tensors: bytes | None = None) -> Path:
    """The base library with a changed description, its hash made to fit."""
    text, content = fuzz.base_files()
    content = content if tensors is None else tensors
    description = json.loads(text)
    description["sha256"] = hashlib.sha256(content).hexdigest()
    change(description)
    (folder / CONFIG_FILE).write_text(json.dumps(description))
    (folder / TENSOR_FILE).write_bytes(content)
    return folder


def first_program(description: dict[str, Any], key: str, value: Any) -> None:
    description["programs"][0][key] = value


@pytest.mark.parametrize("key", ["docstring", "source"])
def test_half_of_a_surrogate_pair_is_no_text(tmp_path: Path, key: str) -> None:
    with pytest.raises(LibraryError):
        NeuralLibrary.from_pretrained(written(tmp_path, lambda d: first_program(d, key, "\ud800")))


@pytest.mark.parametrize("rest", ["\x1b[2J", "a" * 10**6], ids=["control characters", "a million letters"])
def test_the_whole_name_of_a_parameter_is_checked(tmp_path: Path, rest: str) -> None:
    parameter = [{"name": "a" * 128 + rest, "type": "str"}]
    with pytest.raises(LibraryError):
        NeuralLibrary.from_pretrained(written(tmp_path, lambda d: first_program(d, "parameters", parameter)))


def test_true_is_no_format_version(tmp_path: Path) -> None:
    with pytest.raises(LibraryError):
        NeuralLibrary.from_pretrained(written(tmp_path, lambda d: d.update(format_version=True)))


@pytest.mark.skipif(not Path(os.devnull).is_char_device(), reason="needs a device file")
def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    """A device or a pipe says that its size is 0 and need not have an end; this one has, so that nothing hangs."""
    written(tmp_path, lambda _: None)
    (tmp_path / TENSOR_FILE).unlink()
    (tmp_path / TENSOR_FILE).symlink_to(os.devnull)
    with pytest.raises(LibraryError, match=r"is (no|not a) file"):
        NeuralLibrary.from_pretrained(tmp_path)
