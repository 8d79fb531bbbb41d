"""Two processes under ``accelerate launch`` (gloo, on the CPU) have the gradients of one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from distributed_run import step
from safetensors.torch import load_file

CONFIGURATIONS = Path(__file__).parents[2] / "configuration" / "accelerate"


def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    # --multi_gpu is how accelerate names several processes; the script says that they have no GPU.
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    script = Path(__file__).with_name("distributed_run.py")
    done = subprocess.run(
        [sys.executable, *launch, str(script), str(tmp_path / "two")],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    for cached in (True, False):
        step(tmp_path / "one", cached)
        one, two = (load_file(str(tmp_path / name / f"gradients-{cached}.safetensors")) for name in ("one", "two"))
        moved = {name for name, gradient in one.items() if gradient.abs().sum() > 0}
        assert {"model.computer.reader.scores.weight", "model.computer.selector.no_call.bias"} <= moved
        assert any(name.startswith("model.layers.") for name in moved) == (not cached)
        for name in one:
            if not name.startswith("log.grad_norm"):
                torch.testing.assert_close(two[name], one[name], atol=2e-5, rtol=2e-3, msg=f"{name}, cached={cached}")


@pytest.mark.parametrize("path", sorted(CONFIGURATIONS.glob("*.yaml")), ids=lambda path: path.stem)
def test_configurations_are_those_that_accelerate_reads(path: Path) -> None:
    from accelerate.commands.config.config_args import ClusterConfig

    config = ClusterConfig.from_yaml_file(yaml_file=str(path))
    assert config.num_processes >= 2 and config.mixed_precision == "bf16"
    assert "Not run" in path.read_text() and yaml.safe_load(path.read_text())["distributed_type"] in (
        "FSDP",
        "DEEPSPEED",
    )
