"""A program that learns, from its compiled form to a library that runs, and back again from the disk."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from random import Random

import numpy as np
from neurallib.configuration.machine_config import MachineConfig
from neurallib.modeling_neurallib.machine.exact import ExactMachine
from neurallib.modeling_neurallib.machine.learning import Objective, discretised, judge, learn
from test_parity import tasks
from typer.testing import CliRunner

from neurallib import NeuralLibrary
from neurallib.command_line import app

functions = importlib.import_module("parity.functions")


def test_a_program_learns_is_saved_loaded_inspected_and_runs_exactly(tmp_path: Path) -> None:
    """``access``, where the place is always 3: the function saves a step, and the text around it is as it was."""
    function, config = functions.function("access"), functions.CONFIG

    def place_three(random: Random) -> list[object]:
        return [[random.randint(-9, 9) for _ in range(6)], 3]

    given, new = (functions.examples("access", place_three, 40, seed) for seed in ("given", "new"))
    found = learn(
        function.instructions, config, given, Objective(1, 1, 1, 1), rows=function.rows, iterations=10, max_steps=16, seed=0
    )
    assert found.right and (discretised(found.program, config, function.instructions) == found.instructions).all()
    before, after = (judge(code, config, new) for code in (function.instructions, found.instructions))
    assert after.right.all() and (after.steps < before.steps).all()

    learned = function.learned(found)
    learned.save_pretrained(tmp_path)
    loaded = NeuralLibrary.from_pretrained(tmp_path)
    assert loaded.fingerprint == learned.fingerprint != function.library.fingerprint
    assert np.array_equal(loaded.instructions, learned.instructions)
    assert loaded.changes() == learned.changes()

    (change,) = loaded.changes()
    shown = CliRunner().invoke(app, ["inspect", str(tmp_path), "access"]).stdout
    assert f"learned: 1 of {len(function.instructions) - 2} instructions differ from the compiled ones" in shown
    assert str(change.address) in shown and change.function == "access"
    (record,) = json.loads(CliRunner().invoke(app, ["inspect", str(tmp_path), "--json"]).stdout)["learned"]
    assert (record["address"], record["before"], record["after"]) == (change.address, change.before, change.after)

    random = Random(0)
    machine = MachineConfig()
    inputs = [place_three(random) for _ in range(20)]
    entry, texts = loaded.programs["access"].entry, [[tasks.printed(each) for each in given] for given in inputs]
    runs = {
        portable: ExactMachine(loaded.instructions_for(machine), machine, portable=portable).run_batch([entry] * 20, texts)
        for portable in (False, True)
    }
    assert runs[False] == runs[True]
    compiled = function.library.run_batch([("access", text) for text in texts])
    for arguments, run, old in zip(inputs, runs[False], compiled, strict=True):
        assert run.text == old.text == tasks.under_cpython("access", arguments)
        assert run.steps == old.steps - 1
