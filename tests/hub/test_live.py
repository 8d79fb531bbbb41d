"""The live Hub, asked for: ``NEURALLIB_LIVE_HUB=org`` names where a repository may be made, and HF_TOKEN (or `hf auth login`)
gives a token that may write there. Everything that is made is deleted again."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from people import ASK, WITHOUT_NEURALLIB

NAMESPACE = os.environ.get("NEURALLIB_LIVE_HUB")

SCRIPT = """
import json, sys
from huggingface_hub import HfApi
from neurallib import NeuralLibForCausalLM, NeuralLibrary
from transformers import AutoTokenizer

folder, library, name = sys.argv[1:]
api = HfApi()
made = [f"{name}-library", f"{name}-model"]
try:
    NeuralLibrary.from_pretrained(library).push_to_hub(made[0], private=True)
    again = NeuralLibrary.from_pretrained(made[0])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    NeuralLibForCausalLM.from_pretrained(folder).push_to_hub(made[1], private=True, tokenizer=tokenizer)
    model = NeuralLibForCausalLM.from_pretrained(made[1])
    inputs = AutoTokenizer.from_pretrained(made[1])("Add 12 and 30", return_tensors="pt", return_token_type_ids=False)
    calls = [[call.program, call.library, list(call.arguments), call.result] for call in model(**inputs).calls[0]]
    card = api.hf_hub_download(made[1], "README.md")
    print(json.dumps([again.fingerprint, calls, open(card).read()]))
finally:
    for each in made:
        api.delete_repo(each, missing_ok=True)
"""


@pytest.mark.skipif(
    NAMESPACE is None, reason="asks the live Hub: set NEURALLIB_LIVE_HUB=org, with a token that may write there"
)
def test_a_library_and_a_model_go_to_the_hub_and_come_back(
    tiny_model: Any, tiny_library: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    from conftest import opened

    opened(tiny_model).save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    tiny_library.save_pretrained(tmp_path / "library")
    online = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "PYTHONPATH")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / "model", tmp_path / "library", f"{NAMESPACE}/test-{secrets.token_hex(4)}"],
        env=online, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    fingerprint, calls, card = json.loads(done.stdout.splitlines()[-1])
    assert fingerprint == tiny_library.fingerprint and calls and "## Files" in card
    local = subprocess.run(
        [sys.executable, "-c", WITHOUT_NEURALLIB + ASK, tmp_path / "model", "main", "Add 12 and 30"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    assert calls == json.loads(local.stdout.splitlines()[-1])
