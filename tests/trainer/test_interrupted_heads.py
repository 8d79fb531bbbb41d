"""Runs that train heads on remembered features, stopped anywhere: what was saved is whole, and is not made a second time."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY_HEADS, TINY_PROGRAMS, make_base, make_tokenizer
from neurallib.modeling_neurallib.sharing import sha256, training_record
from neurallib.trainer import lessons, own_data, runs
from neurallib.trainer.checkpoints import BEFORE, STAGE, last_checkpoint
from neurallib.trainer.shipping import load_heads
from test_interruption import CHECKPOINT, ROWS, follow, trainer_of

from neurallib import NeuralLibForCausalLM, NeuralLibTrainer, compile_library

KILL, INT = signal.SIGKILL, signal.SIGINT

PATIENCE = 120
"""Seconds after which a process that should have ended long ago is ended."""

CASES = [
    # recipe, point, signals, the first thing that is still to be put in its place, the step of the last checkpoint
    ("heads", "replies", [KILL], "replies", None),
    ("heads", "search", [KILL, INT], "explanations-train", None),
    ("heads", "explanations-train", [KILL], "explanations-train", None),
    ("heads", "amid features", [KILL, INT], "features 1", None),
    ("heads", "features 2", [KILL], "features 2", None),
    ("heads", "second step", [INT], "checkpoint-2", 1),
    ("heads", "checkpoint-3", [KILL], "checkpoint-3", 2),
    ("heads", "heads_config.json", [KILL, INT], "heads.safetensors", 4),
    ("heads", "report.json", [KILL], "heads.safetensors", 4),
    ("rows", "search", [KILL, INT], "features 1", None),
    ("rows", "second step", [KILL], "checkpoint-2", 1),
    ("rows", "model", [KILL, INT], "model", 4),
]
"""Where runs are stopped: before a thing takes its place, or within something."""

SELDOM = ("heads", "search", INT)
"""Control-C that a pool's workers hear too: failed once in thirteen runs, on a busy machine, for a reason not found yet."""


class Placed:
    """What takes its place in the folder of a run, in order: each thing is written beside its place, and then renamed.

    Args:
        stop: the thing before which ``how`` is sent to this process.
    """

    def __init__(self, output: Path, stop: str = "", how: signal.Signals = KILL) -> None:
        self.output, self.stop, self.how = output, stop, how
        self.things: list[str] = []
        self.replace = os.replace

    def name(self, target: Path) -> str:
        if target.parent.parent.name == "features":
            return f"features {1 + sum(not shard.name.startswith('.') for shard in target.parent.iterdir())}"
        return re.sub(r"-[0-9a-f]{16}\.json$", "", target.name)

    def __call__(self, source: Any, target: Any) -> None:
        if self.output in Path(target).parents:
            name = self.name(Path(target))
            if name == self.stop:
                signal.raise_signal(self.how)
            self.things += [] if name.endswith(BEFORE) else [name]
        self.replace(source, target)


# The process that forks for each case: see ``stopped_at``.


def stopped_at(output: Path, point: str, how: signal.Signals) -> None:
    """Patches this process so that it gets a signal at one point of training."""
    os.replace = Placed(output, point, how)  # type: ignore[assignment]
    this, stock = os.getpid(), NeuralLibTrainer.training_step
    lesson, searched, save = lessons.LessonWriter.lesson, own_data.search, np.save

    def search_on_all_cores(self: Any, *args: Any) -> Any:
        if os.getpid() != this:
            if how == KILL:
                os.kill(this, how)
            else:  # as by Control-C in a terminal, which all processes of the command hear; none ends before it has spoken
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
                os.killpg(this, how)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        return lesson(self, *args)

    def search(*args: Any, **kwargs: Any) -> Any:
        signal.raise_signal(how)
        return searched(*args, **kwargs)

    def save_features(*args: Any, **kwargs: Any) -> None:
        signal.raise_signal(how)
        save(*args, **kwargs)

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 1:
            signal.raise_signal(how)
        return stock(self, *args, **kwargs)

    if point == "search":
        lessons.LessonWriter.lesson = search_on_all_cores  # type: ignore[method-assign]
        own_data.search = search  # type: ignore[assignment]
    elif point == "amid features":
        np.save = save_features  # type: ignore[assignment]
    elif point == "second step":
        NeuralLibTrainer.training_step = step  # type: ignore[method-assign]


def stop_one_after_another() -> None:
    """A line of JSON on stdin (recipe, output, point, signal) → a line on stdout: how the command ended, when all of it has."""
    for line in sys.stdin:
        recipe, output, point, number = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            code = 70  # whatever goes wrong
            try:
                os.setpgid(0, 0)
                signal.alarm(PATIENCE)
                signal.signal(INT, signal.default_int_handler)
                os.close(reading)
                sys.stdin = open(os.devnull)  # noqa: SIM115
                os.dup2(2, 1)
                stopped_at(Path(output), point, signal.Signals(number))
                code = follow(Path(recipe), Path(output))
            finally:
                os._exit(code)
        os.close(writing)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        # Until the processes that it made have ended too.
        if not select.select([reading], [], [], PATIENCE)[0]:
            os.killpg(child, KILL)
            ended = 71
        os.close(reading)
        print(ended, flush=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recipes, and what whole runs of them leave in ``whole heads`` and ``whole rows``."""
    folder = tmp_path_factory.mktemp("runs")
    tokenizer = make_tokenizer()
    base = make_base(tokenizer)
    base.save_pretrained(folder / "llama")
    tokenizer.save_pretrained(folder / "llama")
    NeuralLibForCausalLM.from_llama(
        base, compile_library(str(TINY_PROGRAMS)), tokenizer=tokenizer, heads=TINY_HEADS
    ).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    common = "use_cpu: true\ndisable_tqdm: true\nsave_steps: 1\nsave_total_limit: 2\nsample_size: 0\n"
    (folder / "heads.yaml").write_text(
        f"base: {folder / 'llama'}\nexamples: 12\nvalidation: 6\nreplies: 2\nreply_tokens: 4\nsentence_share: 0\nbudget: 60\n"
        f"batch_size: 4\nepochs: 1\nheads: {json.dumps(TINY_HEADS)}\n" + common
    )
    (folder / "rows.yaml").write_text(
        f"base: {folder / 'base'}\ndata: {folder / 'rows.jsonl'}\nbatch_size: 1\nepochs: 2\nlearning_rate: 0.01\n"
        + common
    )
    return folder


@pytest.fixture(scope="module")
def wholes(home: Path) -> dict[str, list[str]]:
    """What took its place in runs that nobody stopped."""
    found = {}
    for recipe in ("heads", "rows"):
        with pytest.MonkeyPatch.context() as patch:
            placed = Placed(home / f"whole {recipe}")
            patch.setattr(os, "replace", placed)
            runs.train(home / f"{recipe}.yaml", [f"output={placed.output}"])
            found[recipe] = placed.things
    checkpoints = [f"checkpoint-{step}" for step in (1, 2, 3, 4)]
    remembered = ["replies", "explanations-train", "replies", "explanations-validation", "features 1", "features 2"]
    assert found["heads"] == [
        *remembered,
        *checkpoints,
        "heads.safetensors",
        "heads_config.json",
        "heads",
        "report.json",
    ]
    assert found["rows"] == ["features 1", *checkpoints, "model", "report.json"]
    return found


@pytest.fixture(scope="module")
def stopping(home: Path) -> Iterator[subprocess.Popen[str]]:
    here = Path(__file__)
    path = os.pathsep.join([str(here.parent), str(here.parents[1]), os.environ.get("PYTHONPATH", "")])
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", "import test_interrupted_heads as test; test.stop_one_after_another()"],
            env=os.environ | {"PYTHONPATH": path}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
        yield process
        process.communicate(timeout=300)


def stopped(
    stopping: subprocess.Popen[str], recipe: Path, output: Path, point: str, how: signal.Signals
) -> tuple[int, str]:
    """How a run ends that is stopped at a point, and what it says on stderr."""
    assert stopping.stdin is not None and stopping.stdout is not None
    stopping.stdin.write(json.dumps([str(recipe), str(output), point, int(how)]) + "\n")
    stopping.stdin.flush()
    code = int(stopping.stdout.readline())
    return code, (output.parent / f"{output.name}.stderr").read_text()


def check_whole(output: Path) -> None:
    """What stands in its place in the folder of a run is complete."""
    for folder in (output / "heads", output / "model"):
        if folder.exists():
            hashes = {file.name: sha256(file) for file in folder.iterdir()}
            assert training_record(folder, hashes) is not None, "the record tells of other weights"
    if (output / "heads").exists():
        tokenizer = make_tokenizer()
        load_heads(make_base(tokenizer), tokenizer, output / "heads")
    for file in output.glob("*.json"):
        json.loads(file.read_text())
    for index in output.rglob("index.json"):
        if not index.parent.name.startswith("."):
            rows, width = json.loads(index.read_text())["shape"]
            assert (index.parent / "features.f16").stat().st_size == 2 * rows * width
            assert np.load(index.parent / "base.npy").shape == (rows,)
    for shard in (output / "features").glob("*/[!.]*"):
        assert (shard / "index.json").is_file()
    for checkpoint in (output / "checkpoints").glob("checkpoint-*"):
        assert {file.name for file in checkpoint.iterdir()} >= CHECKPOINT


@pytest.mark.parametrize(
    ("recipe", "point", "how", "first", "step"),
    [
        pytest.param(recipe, point, how, first, step, marks=[pytest.mark.slow] if (recipe, point, how) == SELDOM else [])
        for recipe, point, signals, first, step in CASES
        for how in signals
    ],
    ids=lambda value: getattr(value, "name", str(value)).replace(" ", "_"),
)
def test_a_run_of_heads_that_was_stopped_makes_what_is_missing(
    home: Path, wholes: dict[str, list[str]], stopping: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch,
    recipe: str, point: str, how: signal.Signals, first: str, step: int | None,
) -> None:  # fmt: skip
    output = home / f"{recipe} {point} {how.name}"
    code, told = stopped(stopping, home / f"{recipe}.yaml", output, point, how)
    last = last_checkpoint(output / "checkpoints")
    assert (None if last is None else last.name) == (None if step is None else f"checkpoint-{step}"), told
    if how == KILL:
        assert code == -KILL, told
    else:
        goes_on = "begins again: no checkpoint was saved yet" if step is None else f"goes on from checkpoint-{step}"
        assert (code, "Traceback" in told) == (130, False), told
        assert told.splitlines()[-1] == f"neurallib: interrupted; the same command {goes_on}"
        assert not (output / STAGE).exists() and not (output / "checkpoints" / STAGE).exists()
    check_whole(output)
    assert (output / "heads").exists() == (point == "report.json") and not (output / "model").exists()

    placed = Placed(output)
    monkeypatch.setattr(os, "replace", placed)
    runs.train(home / f"{recipe}.yaml", [f"output={output}"])
    things = wholes[recipe]
    assert placed.things == things[things.index(first) :], "what was saved is made again, or what is missing is not"
    check_whole(output)
    assert not [path for path in output.rglob(".*")], "what a stopped run had begun is still there"
    file = "heads/heads.safetensors" if recipe == "heads" else "model/model.safetensors"
    assert (output / file).read_bytes() == (home / f"whole {recipe}" / file).read_bytes()


def test_heads_that_are_made_anew_stand_until_the_new_ones_are_whole(
    home: Path, wholes: dict[str, list[str]], stopping: subprocess.Popen[str]
) -> None:
    output = home / "again"
    shutil.copytree(home / "whole heads", output)
    before = {file.name: file.read_bytes() for file in (output / "heads").iterdir()}
    (output / "heads" / "of_before").touch()
    code, told = stopped(stopping, home / "heads.yaml", output, "heads_config.json", KILL)
    assert code == -KILL, told
    assert {file.name: file.read_bytes() for file in (output / "heads").iterdir()} == before | {"of_before": b""}
    check_whole(output)


def test_a_checkpoint_stays_when_its_replacement_is_interrupted(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(tiny_model, tiny_tokenizer, str(tmp_path), 2)
    trainer.train()
    before = {file.name: file.read_bytes() for file in (tmp_path / "checkpoint-2").iterdir()}
    replace = os.replace

    def interrupted(source: Any, target: Any) -> None:
        if Path(source) == tmp_path / STAGE / "checkpoint-2":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer._save_checkpoint(trainer.model, None)
    monkeypatch.undo()
    assert {file.name: file.read_bytes() for file in (tmp_path / "checkpoint-2").iterdir()} == before
    assert not (tmp_path / STAGE).exists()
