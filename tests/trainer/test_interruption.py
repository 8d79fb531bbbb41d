"""What is left when a run is stopped at any point, or the device is full: checkpoints that are whole, and clear words."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_HEADS, TINY_PROGRAMS, make_base, make_tokenizer
from neurallib.trainer import runs, training
from neurallib.trainer.checkpoints import STAGE, SavingError, last_checkpoint, put_back, put_in_place
from safetensors.torch import load_file

from neurallib import NeuralLibForCausalLM, NeuralLibTrainer, NeuralLibTrainingArguments, command_line, compile_library

ROWS = [{"prompt": "Add 12 and 30", "completion": "42"}, {"prompt": "the sum of 5, 6 please", "completion": "11"}]
STEPS = 4
CHECKPOINT = {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"}
"""Some of the files of a checkpoint of which all parameters are trained."""

POINTS = {"first step": None, "third step": 2, "amid a checkpoint": 2, "before its place": 2, "old one half removed": 3}
"""Point at which a run is stopped → the step of its last whole checkpoint."""


# A process of its own runs the command once for each point and signal, and is stopped there from within: nothing is waited for
# that might not come.


def stopped_at(point: str, how: signal.Signals) -> None:
    """Patches this process so that it gets a signal at one point of training."""
    stock = {
        "step": NeuralLibTrainer.training_step,
        "save": NeuralLibTrainer._save_scaler,
        "place": training.put_in_place,
        "remove": shutil.rmtree,
    }

    def stop(here: bool) -> None:
        if here:
            signal.raise_signal(how)

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        stop((point, self.state.global_step) in (("first step", 0), ("third step", 2)))
        return stock["step"](self, *args, **kwargs)

    def save(self: Any, folder: str) -> None:
        stock["save"](self, folder)
        stop(point == "amid a checkpoint" and self.state.global_step == 3)

    def place(stage: Path, to: Path) -> None:
        stop(point == "before its place" and to.name == "checkpoint-3")
        stock["place"](stage, to)

    def remove(path: Any, *args: Any, **kwargs: Any) -> None:
        if point == "old one half removed" and Path(path).name == "checkpoint-1":
            Path(path, "optimizer.pt").unlink()
            stop(True)
        stock["remove"](path, *args, **kwargs)

    NeuralLibTrainer.training_step = step  # type: ignore[method-assign]
    NeuralLibTrainer._save_scaler = save  # type: ignore[method-assign]
    training.put_in_place = place  # type: ignore[assignment]
    shutil.rmtree = remove  # type: ignore[assignment]


def follow(recipe: Path, output: Path) -> int:
    """What ``neurallib train`` does, with its words in a file; its exit code."""
    with (output.parent / f"{output.name}.stderr").open("w") as errors:
        os.dup2(errors.fileno(), 2)
        sys.argv = ["neurallib", "train", str(recipe), f"output={output}"]
        try:
            command_line.main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0


def stop_everywhere(folder: Path) -> None:
    """In a process that has never run a backward pass, so that it can fork."""
    # A shell starts what runs in its background with SIGINT ignored, and processes inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(2, 1)
    ends = {}
    for how in (signal.SIGINT, signal.SIGKILL):
        for point in POINTS:
            child = os.fork()
            if child == 0:
                stopped_at(point, how)
                code = 70  # whatever goes wrong
                try:
                    code = follow(folder / "recipe.yaml", folder / f"{how.name} {point}")
                finally:
                    os._exit(code)
            ends[f"{how.name} {point}"] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    (folder / "ends.json").write_text(json.dumps(ends))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, what a whole run of it leaves in ``whole``, and what runs that were stopped leave."""
    folder = tmp_path_factory.mktemp("runs")
    tokenizer = make_tokenizer()
    torch.manual_seed(1)
    model = NeuralLibForCausalLM.from_llama(
        make_base(tokenizer), compile_library(str(TINY_PROGRAMS)), tokenizer=tokenizer, heads=TINY_HEADS
    )
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "recipe.yaml").write_text(
        f"base: {folder / 'base'}\ndata: {folder / 'rows.jsonl'}\nbatch_size: 1\nepochs: 2\nlearning_rate: 0.01\n"
        "train: all\nuse_cpu: true\ndisable_tqdm: true\nsave_steps: 1\nsave_total_limit: 2\nsample_size: 0\n"
    )
    runs.train(folder / "recipe.yaml", [f"output={folder / 'whole'}"])
    path = os.pathsep.join(
        [str(Path(__file__).parent), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    )
    code = (
        f"from pathlib import Path; import test_interruption; test_interruption.stop_everywhere(Path({str(folder)!r}))"
    )
    with (folder / "log").open("w") as log:
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, stdout=log, stderr=log,
            stdin=subprocess.DEVNULL, timeout=900, check=False,
        )  # fmt: skip
    assert done.returncode == 0, (folder / "log").read_text()[-3000:]
    return folder


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["SIGINT", "SIGKILL"])
def test_a_run_that_was_stopped_goes_on_from_its_last_whole_checkpoint(
    home: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals, point: str
) -> None:
    output, step = home / f"{how.name} {point}", POINTS[point]
    told = (home / f"{output.name}.stderr").read_text()
    code = json.loads((home / "ends.json").read_text())[output.name]
    checkpoints = output / "checkpoints"
    last = last_checkpoint(checkpoints)
    assert (None if last is None else last.name) == (None if step is None else f"checkpoint-{step}")
    if last is not None:
        assert {file.name for file in last.iterdir()} >= CHECKPOINT
    if how == signal.SIGINT:
        assert code == 130, told
        goes_on = "begins again: no checkpoint was saved yet" if step is None else f"goes on from checkpoint-{step}"
        assert told.splitlines()[-1] == f"neurallib: interrupted; the same command {goes_on}"
        assert not (checkpoints / STAGE).exists()
    else:
        assert code == -signal.SIGKILL, told
        left = {file.name for file in (checkpoints / STAGE).glob("*/*")}
        amid = point in ("amid a checkpoint", "before its place")
        assert left >= {"model.safetensors", "optimizer.pt"} if amid else not left

    steps = []
    stock = NeuralLibTrainer.training_step
    monkeypatch.setattr(
        NeuralLibTrainer,
        "training_step",
        lambda self, *args, **kwargs: steps.append(self.state.global_step) or stock(self, *args, **kwargs),
    )
    runs.train(home / "recipe.yaml", [f"output={output}"])
    assert steps == list(range(step or 0, STEPS))
    whole, resumed = (load_file(str(run / "model" / "model.safetensors")) for run in (home / "whole", output))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole), "not the run that was never stopped"
    assert not (checkpoints / STAGE).exists()
    kept = [path for path in checkpoints.glob("checkpoint-*") if {file.name for file in path.iterdir()} >= CHECKPOINT]
    assert checkpoints / f"checkpoint-{STEPS}" in kept


def test_a_checkpoint_that_takes_anothers_place_is_never_half_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, stage = tmp_path / "checkpoint-3", tmp_path / STAGE / "checkpoint-3"
    for folder, content in ((place, "before"), (stage, "after")):
        folder.mkdir(parents=True)
        for name in ("model.safetensors", "optimizer.pt"):
            (folder / name).write_text(content)

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        put_in_place(stage, place)
    assert {file.read_text() for file in place.iterdir()} == {"after"}
    assert last_checkpoint(tmp_path) == place


def trainer_of(model: NeuralLibForCausalLM, tokenizer: Any, folder: str, steps: int) -> NeuralLibTrainer:
    arguments = NeuralLibTrainingArguments(
        output_dir=folder, max_steps=steps, per_device_train_batch_size=2, save_steps=1, save_total_limit=2, report_to=[],
        use_cpu=True, disable_tqdm=True, logging_strategy="no", sample_size=0,
    )  # fmt: skip
    return NeuralLibTrainer(model, arguments, train_dataset=ROWS, processing_class=tokenizer)


@pytest.mark.parametrize("moment", ["before the new one is there", "after"])
def test_a_checkpoint_that_was_being_replaced_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    place, stage = tmp_path / "checkpoint-2", tmp_path / STAGE / "checkpoint-2"
    for folder, text in ((place, "old"), (stage, "new")):
        folder.mkdir(parents=True)
        (folder / "model").write_text(text)
    replace = os.replace

    def killed(source: Path, target: Path) -> None:
        if source == stage and moment != "after":
            raise KeyboardInterrupt
        replace(source, target)
        if source == stage:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        put_in_place(stage, place)
    put_back(tmp_path)
    assert last_checkpoint(tmp_path) == place and not (tmp_path / STAGE).exists()
    assert (place / "model").read_text() == ("new" if moment == "after" else "old")


def test_no_space_left(tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path) -> None:
    trainer = trainer_of(tiny_model, tiny_tokenizer, str(tmp_path), 3)
    save = trainer._save_optimizer_and_scheduler

    def full(folder: str) -> None:
        if trainer.state.global_step < 3:
            return save(folder)
        with open("/dev/full", "w") as device:
            device.write("x" * 100_000)

    trainer._save_optimizer_and_scheduler = full  # type: ignore[method-assign]
    with pytest.raises(SavingError, match=r"no space left for checkpoint-3 .* last whole checkpoint is checkpoint-2;"):
        trainer.train()
    for path in tmp_path.glob("checkpoint-*"):
        assert {file.name for file in path.iterdir()} >= CHECKPOINT
        assert load_file(str(path / "model.safetensors"))
        torch.load(path / "optimizer.pt", weights_only=False)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    again = trainer_of(tiny_model, tiny_tokenizer, str(tmp_path), 3)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 3 and not (tmp_path / STAGE).exists()
