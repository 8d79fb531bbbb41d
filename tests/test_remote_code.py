"""A saved model loads where ``neurallib`` does not exist: real processes in which it cannot be imported."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import TINY_HEADS, make_base, opened
from neurallib.configuration import remote_code as module
from neurallib.configuration.remote_code import AUTO_MAP, RemoteCodeError, remote_code, write_remote_code

if TYPE_CHECKING:
    from neurallib import NeuralLibrary

PROMPT = "What is 123 times 45?"

# The package is made impossible to import, however it is installed; numba too, which a user of the Hub need not have.
WITHOUT_NEURALLIB = """
import json, sys

sys.modules["neurallib"] = sys.modules["numba"] = None
try:
    import neurallib
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("neurallib can be imported: this process proves nothing")

import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, pipeline

torch.set_num_threads(1)
folder, again, prompt = sys.argv[1:]
trusted = {"trust_remote_code": True}
tokenizer = AutoTokenizer.from_pretrained(folder, **trusted)
inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
config = AutoConfig.from_pretrained(folder, **trusted)
found = {"config": [type(config).__module__.split(".")[0], config.model_type]}
"""

# As a user of the Hub: every Auto class, a pipeline, and the model saved again.
LOAD = """
model = AutoModelForCausalLM.from_pretrained(folder, **trusted)
output = model.generate(**inputs, max_new_tokens=10, do_sample=False, return_dict_in_generate=True)
call = output.calls[0][-1]
found["module"] = type(model).__module__.split(".")[0]
found["logits"] = model(**inputs).logits[0, -1].tolist()
found["tokens"] = output.sequences[0].tolist()
found["call"] = [call.program, list(call.arguments), call.result]
model.save_pretrained(again)
tokenizer.save_pretrained(again)
"""

BACKBONE = """
backbone = AutoModel.from_pretrained(folder, **trusted)
found["backbone"] = [type(backbone).__name__, len(backbone(**inputs).calls[0]) > 0]
"""

PIPELINE = """
generator = pipeline("text-generation", model=folder, max_new_tokens=10, do_sample=False, **trusted)
found["pipeline"] = generator(prompt)[0]["generated_text"]
"""


def in_process(script: str, folder: Path, again: Path, home: Path) -> dict[str, Any]:
    environment = {
        **os.environ,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    environment.pop("PYTHONPATH", None)
    finished = subprocess.run(
        [sys.executable, "-c", WITHOUT_NEURALLIB + script + "\nprint(json.dumps(found))", folder, again, PROMPT],
        env=environment,
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    found: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def told(
    tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any, tiny_library: NeuralLibrary
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], Path]:
    """What the model says here, in a process without neurallib, and in one that loads what that saved; their folder."""
    import torch

    from neurallib import NeuralLibForCausalLM

    torch.manual_seed(1)
    base = make_base(tiny_tokenizer)
    model = NeuralLibForCausalLM.from_llama(base, library=tiny_library, tokenizer=tiny_tokenizer, heads=TINY_HEADS)
    opened(model)
    root = tmp_path_factory.mktemp("remote")
    model.save_pretrained(root / "first")
    tiny_tokenizer.save_pretrained(root / "first")
    inputs = tiny_tokenizer(PROMPT, return_tensors="pt", return_token_type_ids=False)
    output = model.generate(**inputs, max_new_tokens=10, do_sample=False, return_dict_in_generate=True)
    call = output.calls[0][-1]
    here = {
        "logits": model(**inputs).logits[0, -1].tolist(),
        "tokens": output.sequences[0].tolist(),
        "text": tiny_tokenizer.decode(output.sequences[0], skip_special_tokens=True),
        "call": [call.program, list(call.arguments), call.result],
    }
    (root / "home").mkdir()
    (root / "other_home").mkdir()
    first = in_process(LOAD + BACKBONE, root / "first", root / "second", root / "home")
    second = in_process(LOAD + PIPELINE, root / "second", root / "third", root / "other_home")
    return here, first, second, root


def test_every_auto_class_loads_our_code(told: Any) -> None:
    _, first, second, _ = told
    for found in (first, second):
        assert found["config"] == ["transformers_modules", "neurallib"]
        assert found["module"] == "transformers_modules"
    assert first["backbone"] == ["NeuralLibModel", True]


def test_the_remote_model_computes_what_the_local_one_does(told: Any) -> None:
    here, first, second, _ = told
    for found in (first, second):
        assert found["logits"] == pytest.approx(here["logits"], abs=1e-5)
        assert found["tokens"] == here["tokens"]
        assert found["call"] == here["call"]


def test_the_pipeline_generates(told: Any) -> None:
    here, _, second, _ = told
    assert second["pipeline"] == here["text"]


def test_a_bundle_of_a_bundle_is_the_same_bundle(told: Any) -> None:
    root = told[3]
    for name in ("first", "second", "third"):
        assert {path.name: path.read_text() for path in (root / name).glob("*.py")} == remote_code()
        assert json.loads((root / name / "config.json").read_text())["auto_map"] == AUTO_MAP


def test_hashes_are_those_of_the_files(tmp_path: Path) -> None:
    hashes = write_remote_code(tmp_path / "new" / "folder")
    assert {"modeling_neurallib.py", "configuration_neurallib.py", "remote_code.py", "library.py"} <= set(hashes)
    for name, digest in hashes.items():
        assert hashlib.sha256((tmp_path / "new" / "folder" / name).read_bytes()).hexdigest() == digest


def test_the_bundle_needs_only_what_transformers_needs_and_leaves_the_compiler_out(tmp_path: Path) -> None:
    from transformers.dynamic_module_utils import get_imports, get_relative_imports

    hashes = write_remote_code(tmp_path)
    allowed = {"torch", "transformers", "numpy", "safetensors", "huggingface_hub", "yaml"}
    for name in hashes:
        assert {each for each in get_imports(tmp_path / name) if each not in sys.stdlib_module_names} <= allowed
        assert {f"{each}.py" for each in get_relative_imports(tmp_path / name)} <= set(hashes)
    assert not {"compiling.py", "parse.py", "lower.py", "source.py"} & set(hashes)


def package(root: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A project of another content, laid out as ours, whose bundle is asked for."""
    always = {
        "configuration/remote_code.py": "",
        "configuration/configuration_neurallib.py": "from .remote_code import x\n",
        "modeling_neurallib/modeling_neurallib.py": "from ..configuration.configuration_neurallib import x\n",
    }
    for name, text in (always | files).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(module, "__file__", str(root / "configuration" / "remote_code.py"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("from . import reader\n", "names a package"),
        ("from .machine import exact\n", "is no module"),
        ("def f():\n    import neurallib.trainer\n", "imports neurallib by name"),
        ("from neurallib.trainer import x\n", "imports neurallib by name"),
        ("from .machine.remote_code import x\n", "two modules are named remote_code.py"),
        ('"""Text.\n\nfrom .nowhere import what reads like one\n"""\n', "reads as an import of .nowhere"),
    ],
)
def test_what_cannot_be_flat_is_refused(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"modeling_neurallib/modeling_neurallib.py": text, "modeling_neurallib/machine/remote_code.py": ""}
    package(tmp_path, files, monkeypatch)
    with pytest.raises(RemoteCodeError, match=message):
        remote_code()


def test_imports_are_rewritten_wherever_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "from typing import TYPE_CHECKING\n\nfrom .machine.state import (\n    x,\n)\n\n"
        "if TYPE_CHECKING:\n    from ..configuration.machine_config import x as é\n\n"
        "def f():\n    é = 1; from .reader import x\n"
    )
    files = {
        "modeling_neurallib/modeling_neurallib.py": source,
        "modeling_neurallib/machine/state.py": "from ...configuration.machine_config import x\n",
        "modeling_neurallib/reader.py": "",
        "configuration/machine_config.py": "",
    }
    package(tmp_path, files, monkeypatch)
    bundle = remote_code()
    assert bundle["state.py"] == "from .machine_config import x\n"
    assert bundle["modeling_neurallib.py"] == source.replace(".machine.state", ".state").replace("..configuration", "")
    assert list(bundle) == sorted(bundle)
