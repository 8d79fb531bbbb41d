"""Two processes under ``accelerate launch`` (gloo, on the CPU) have the gradients of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from distributed_run import ROWS, TINY_HEADS, make_base, make_tokenizer, step
from neurallib.trainer import runs
from neurallib.trainer.runs import train as follow
from safetensors.torch import load_file

from neurallib import NeuralLibForCausalLM

CONFIGURATIONS = Path(__file__).parents[2] / "configuration" / "accelerate"


def launched(*words: str | Path) -> str:
    """What two processes print that are launched on the CPU."""
    # --multi_gpu is how accelerate names several processes; what is launched says that they have no GPU.
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    done = subprocess.run(
        [sys.executable, *launch, *map(str, words)],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    launched(Path(__file__).with_name("distributed_run.py"), tmp_path / "two")
    for cached in (True, False):
        step(tmp_path / "one", cached)
        one, two = (load_file(str(tmp_path / name / f"gradients-{cached}.safetensors")) for name in ("one", "two"))
        moved = {name for name, gradient in one.items() if gradient.abs().sum() > 0}
        assert {"model.computer.reader.scores.weight", "model.computer.selector.no_call.bias"} <= moved
        assert any(name.startswith("model.layers.") for name in moved) == (not cached)
        for name in one:
            if not name.startswith("log.grad_norm"):
                torch.testing.assert_close(two[name], one[name], atol=2e-5, rtol=2e-3, msg=f"{name}, cached={cached}")


@pytest.fixture
def recipe(tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path) -> Path:
    """For all four rows in each step, however many processes share them."""
    tiny_model.computer.selector.no_call.bias.data.zero_()
    tiny_model.config.head_dropout = tiny_model.config.reader_dropout = 0.0
    tiny_model.save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    told = {
        "base": str(tmp_path / "base"), "data": str(tmp_path / "rows.jsonl"), "validation_data": str(tmp_path / "rows.jsonl"),
        "max_steps": 4, "save_steps": 2, "logging_steps": 2, "learning_rate": 0.1, "optim": "sgd", "use_cpu": True, "warmup": 0.0,
        "stretch": 1.0,  # above it each process draws
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.dump(told))
    return tmp_path / "recipe.yaml"


@pytest.mark.parametrize("trained", ["heads", pytest.param("heads+lora", marks=pytest.mark.slow)])
def test_the_command_line_follows_a_recipe_in_two_processes(recipe: Path, trained: str) -> None:
    one, two = recipe.parent / "one", recipe.parent / "two"
    how = [f"train={trained}", *(["peft={r: 2, target_modules: [q_proj]}"] if trained.endswith("lora") else [])]
    report = follow(recipe, [*how, f"output={one}", "batch_size=4"])
    command = Path(sys.executable).with_name("neurallib")
    said = launched(command, "train", recipe, *how, f"output={two}", "batch_size=2", "ddp_backend=gloo", "--json")
    told = json.loads(said)  # one process speaks, and says nothing else
    assert told == json.loads((two / "report.json").read_text()) and told["data"] == report["data"]
    assert told["validation"]["eval_loss"] == pytest.approx(report["validation"]["eval_loss"], rel=1e-3)
    assert {path.name for path in (two / "checkpoints").glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4"}
    (weights,) = [path.name for path in (one / "model").glob("*model.safetensors")]
    single, both = (load_file(str(run / "model" / weights)) for run in (one, two))
    before = load_file(str(recipe.parent / "base" / "model.safetensors"))
    moved = {name for name, value in single.items() if name not in before or not torch.equal(value, before[name])}
    assert any("reader" in name for name in moved)
    for name, value in single.items():
        torch.testing.assert_close(both[name], value, atol=2e-5, rtol=2e-3, msg=name)


def follow_and_tell(recipe: Path, *overrides: str) -> None:
    """Follows a recipe, and writes down how this process's explanations were read when each run began."""
    told: list[list[list[float | None]]] = []

    class Telling(runs.NeuralLibTrainer):
        def __init__(self, *words: Any, **named: Any):
            told.append([[one.read for one in lesson.explanations] for lesson in named["train_dataset"].lessons])
            super().__init__(*words, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "NeuralLibTrainer", Telling)
        report = follow(recipe, overrides)
    assert report["lessons"] == 8, "all are in each step, however many processes share them"
    name = f"{Path(report['recipe']['output']).name}-{os.environ.get('RANK', 0)}.json"
    recipe.with_name(name).write_text(json.dumps(told))


def test_two_processes_read_the_explanations_that_one_reads(tmp_path: Path) -> None:
    """A recipe of two runs, the second by the word of the first one's reader: each process has what both have read."""
    tokenizer = make_tokenizer()
    make_base(tokenizer).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    recipe = {
        "base": str(tmp_path / "base"), "examples": 8, "seed": 1, "validation": 2, "replies": 0, "sentence_share": 0,
        "budget": 1000,
        "heads": {**TINY_HEADS, "head_dropout": 0.0, "reader_dropout": 0.0}, "epochs": 2, "learning_rate": 0.1, "optim": "sgd",
        "use_cpu": True, "warmup": 0.0, "stretch": 1.0, "sample_size": 0, "disable_tqdm": True,
        "then": [{"weigh_explanations": True, "reading_share": 0.01}],
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.dump(recipe))
    one, two = tmp_path / "one", tmp_path / "two"
    follow_and_tell(tmp_path / "recipe.yaml", f"output={one}", "batch_size=8")
    launched(__file__, tmp_path / "recipe.yaml", f"output={two}", "batch_size=4", "ddp_backend=gloo")
    single, *both = (json.loads((tmp_path / name).read_text()) for name in ("one-0.json", "two-0.json", "two-1.json"))
    assert both[0] == both[1]
    before, after = ([read for lesson in run for read in lesson] for run in both[0])
    assert len(before) > 2 and set(before) == {None}
    assert after == pytest.approx([read for lesson in single[1] for read in lesson], abs=2e-3)
    for run in ("part-1/heads", "heads"):
        alone, shared = (load_file(str(folder / run / "heads.safetensors")) for folder in (one, two))
        for name, value in alone.items():
            torch.testing.assert_close(shared[name], value, atol=1e-3, rtol=2e-3, msg=f"{run}: {name}")


@pytest.mark.parametrize("path", sorted(CONFIGURATIONS.glob("*.yaml")), ids=lambda path: path.stem)
def test_configurations_are_those_that_accelerate_reads(path: Path) -> None:
    from accelerate.commands.config.config_args import ClusterConfig

    config = ClusterConfig.from_yaml_file(yaml_file=str(path))
    assert config.num_processes >= 2 and config.mixed_precision == "bf16"
    assert "Not run" in path.read_text() and yaml.safe_load(path.read_text())["distributed_type"] in (
        "FSDP",
        "DEEPSPEED",
    )


if __name__ == "__main__":
    follow_and_tell(Path(sys.argv[1]), *sys.argv[2:])
