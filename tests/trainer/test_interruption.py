"""What is left when a run is stopped at any point, or the device is full: checkpoints that are whole, and clear words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from neurallib.trainer.checkpoints import STAGE, SavingError, last_checkpoint
from safetensors.torch import load_file

from neurallib import NeuralLibForCausalLM, NeuralLibTrainer, NeuralLibTrainingArguments

pytestmark = pytest.mark.slow

ROWS = [{"prompt": "Add 12 and 30", "completion": "42"}, {"prompt": "the sum of 5, 6 please", "completion": "11"}]

RUN = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from test_interruption import trainer_of
from conftest import TINY_HEADS, TINY_PROGRAMS, make_base, make_tokenizer
from neurallib import NeuralLibForCausalLM, compile_library
tokenizer = make_tokenizer()
model = NeuralLibForCausalLM.from_llama(
    make_base(tokenizer), compile_library(str(TINY_PROGRAMS)), tokenizer=tokenizer, heads=TINY_HEADS
)
trainer = trainer_of(model, tokenizer, sys.argv[1], 5)
save = trainer._save_scaler
def stop_amid_the_third(folder):
    save(folder)
    if trainer.state.global_step == 3:
        Path(sys.argv[1], "amid").touch()
        time.sleep(600)
trainer._save_scaler = stop_amid_the_third
trainer.train()
"""
"""Waits amid its third checkpoint, of which model and optimizer are written already: the worst of moments."""


def trainer_of(model: NeuralLibForCausalLM, tokenizer: Any, folder: str, steps: int) -> NeuralLibTrainer:
    arguments = NeuralLibTrainingArguments(
        output_dir=folder, max_steps=steps, per_device_train_batch_size=2, save_steps=1, save_total_limit=2, report_to=[],
        use_cpu=True, disable_tqdm=True, logging_strategy="no", sample_size=0,
    )  # fmt: skip
    return NeuralLibTrainer(model, arguments, train_dataset=ROWS, processing_class=tokenizer)


def assert_whole(folder: Path, model: NeuralLibForCausalLM, tokenizer: Any) -> None:
    """Every checkpoint can be read, and training goes on from the last."""
    checkpoints = list(folder.glob("checkpoint-*"))
    for path in checkpoints:
        assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= {
            file.name for file in path.iterdir()
        }
        assert load_file(str(path / "model.safetensors"))
        torch.load(path / "optimizer.pt", weights_only=False)
    last = last_checkpoint(folder)
    assert last is not None
    number = int(last.name.split("-")[1])
    trainer = trainer_of(model, tokenizer, str(folder), number + 1)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == number + 1 and not (folder / STAGE).exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["SIGINT", "SIGKILL"])
def test_a_run_that_is_stopped_leaves_whole_checkpoints(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path, how: signal.Signals
) -> None:
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while run.poll() is None and not (tmp_path / "amid").exists():
        time.sleep(0.05)
    written = {path.name for path in (tmp_path / STAGE).glob("*/*")}
    run.send_signal(how)
    _, errors = run.communicate()
    assert run.returncode == -how or (how == signal.SIGINT and run.returncode != 0), errors
    assert {"model.safetensors", "optimizer.pt"} <= written
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    assert_whole(tmp_path, tiny_model, tiny_tokenizer)


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
    assert_whole(tmp_path, tiny_model, tiny_tokenizer)
