"""The README's snippets, run as they stand."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY_HEADS, opened

from neurallib import NeuralLibForCausalLM, standard_library

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
MARKED = dict(re.findall(r"<!-- test: (\w+) -->\n```python\n(.*?)```", README, flags=re.DOTALL))


def test_there_are_snippets() -> None:
    assert len(BLOCKS) >= 2 and MARKED.keys() == {"compile", "libraries"}


@pytest.mark.parametrize("block", BLOCKS)
def test_snippets_are_python(block: str) -> None:
    ast.parse(block)


def test_compiling_ones_own_functions(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", MARKED["compile"]], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("lmtc\n")
    assert {"library_config.json", "library.safetensors"} <= set(os.listdir(tmp_path / "my-library"))


def test_fine_tuning(tiny_base: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    tiny_base.save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    rows = [{"prompt": "Add 12 and 30", "completion": "42"}, {"prompt": "What is 7 times 6?", "completion": "42"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    snippet = next(block for block in BLOCKS if "NeuralLibTrainer(" in block)
    assert snippet.count("meta-llama/Llama-3.2-1B-Instruct") == 1
    script = snippet.replace("meta-llama/Llama-3.2-1B-Instruct", str(tmp_path / "base"))
    script += "\nprint(trainer.state.global_step, trainer.state.log_history[-1]['train_loss'])\n"
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    steps, loss = done.stdout.splitlines()[-1].split()
    assert int(steps) == 3 and 0 < float(loss) < 1e4, "two rows are one batch, three times"


def test_a_model_from_the_hub(tiny_model: object, tiny_tokenizer: object, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny_model.save_pretrained(folder)  # type: ignore[attr-defined]
    tiny_tokenizer.save_pretrained(folder)  # type: ignore[attr-defined]
    snippet = next(block for block in BLOCKS if "AutoModelForCausalLM" in block)
    assert "org/llama3.2-neurallib" in snippet
    script = snippet.replace("org/llama3.2-neurallib", str(folder))
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr


def test_several_libraries(tiny_base: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    model = NeuralLibForCausalLM.from_llama(tiny_base, standard_library(), tokenizer=tiny_tokenizer, heads=TINY_HEADS)
    opened(model).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    first = next(block for block in BLOCKS if "AutoModelForCausalLM" in block)
    loaded = first.partition("output = ")[0].replace("org/llama3.2-neurallib", str(folder))
    script = "\n".join([MARKED["compile"], loaded, "print('loaded')", MARKED["libraries"], "print(model.active_libraries)"])
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    active, result, *calls, disabled, at_last = done.stdout.partition("loaded\n")[2].splitlines()
    assert (active, result) == ("['standard_library', 'my_algorithms']", "5")
    assert calls and {call.split()[0] for call in calls} == {"my_algorithms"}
    assert {call.split()[1] for call in calls} <= {"my_algorithms.add", "initials"}
    assert (disabled, at_last) == ("()", "['standard_library']")
    for said in (active, result, disabled):
        assert f"# {said}" in MARKED["libraries"], "the comment says otherwise"


def test_the_table_of_answers_is_what_was_kept() -> None:
    """Its rows come from the files of ``benchmarks/results/requests``; what has a target was asked of the heads that ship."""
    path = Path(__file__).parent.parent / "benchmarks" / "requests.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_requests", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    assert module.with_table(README) == README
    for name, one in module.SETS.items():
        kept = module.RESULTS / f"{name}.json"
        if one.target:
            assert json.loads(kept.read_text())["heads"] == module.sha256(module.SHIPPED / "heads.safetensors"), name
