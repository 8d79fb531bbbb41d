"""One step of training, for ``test_distributed.py``: as many processes as it is launched with see one batch of four rows."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from conftest import TINY_HEADS, TINY_PROGRAMS, make_base, make_tokenizer
from safetensors.torch import save_file

from neurallib import NeuralLibForCausalLM, NeuralLibTrainer, NeuralLibTrainingArguments, compile_library

ROWS = [
    {"prompt": "Add 12 and 30", "completion": "42"},
    {"prompt": "the sum of 5, 6 please, nothing else", "completion": "11"},
    {"prompt": "Who was Ada?", "completion": "A mathematician."},
    {"prompt": "Turn strawberry around", "completion": "yrrebwarts"},
]


def step(folder: Path, cached: bool) -> None:
    """Writes what plain gradient descent with rate 1 takes away from each trained parameter: its gradient."""
    tokenizer = make_tokenizer()
    torch.manual_seed(1)
    heads = {**TINY_HEADS, "head_dropout": 0.0, "reader_dropout": 0.0}
    model = NeuralLibForCausalLM.from_llama(
        make_base(tokenizer), compile_library(str(TINY_PROGRAMS)), tokenizer=tokenizer, heads=heads
    )
    # An open gate, so that calls weigh as much as the backbone's words.
    model.computer.selector.no_call.bias.data.zero_()
    processes = int(os.environ.get("WORLD_SIZE", 1))
    backend = "gloo" if processes > 1 else None
    arguments = NeuralLibTrainingArguments(
        output_dir=str(folder / f"run-{cached}"), max_steps=1, per_device_train_batch_size=4 // processes, optim="sgd",
        learning_rate=1.0, lr_scheduler_type="constant", max_grad_norm=0.0, report_to=[], use_cpu=True, disable_tqdm=True,
        save_strategy="no", logging_steps=1, train="heads" if cached else "all", sample_size=0, ddp_backend=backend,
    )  # fmt: skip
    trainer = NeuralLibTrainer(model, arguments, train_dataset=ROWS, processing_class=tokenizer)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trainer.train()
    assert trainer.cached == cached and trainer.args.world_size == processes
    if trainer.is_world_process_zero():
        after = dict(model.named_parameters())
        gradients = {name: (value - after[name].detach()).contiguous() for name, value in before.items()}
        logged = {f"log.{k}": torch.tensor(v) for k, v in trainer.state.log_history[0].items()}
        save_file({**gradients, **logged}, str(folder / f"gradients-{cached}.safetensors"))


if __name__ == "__main__":
    for cached in (True, False):
        step(Path(sys.argv[1]), cached)
