"""Adapters through a hub on this machine: trained on a model from there, published with their card, answering elsewhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import TINY_HEADS, make_base, opened
from loopback import Hub, Repository, running
from people import WITHOUT_NEURALLIB, Person
from safetensors.torch import load

PROMPT = "What is 123 times 45?"

AUTHOR = """
import json, sys
from pathlib import Path
import torch
from huggingface_hub import HfApi, snapshot_download
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoTokenizer
from typer.testing import CliRunner
from neurallib import AdapterError, NeuralLibForCausalLM, NeuralLibTrainer, NeuralLibTrainingArguments, PublishError
from neurallib.command_line import app

torch.set_num_threads(1)
told = {}
folder, prompt = sys.argv[1:]
rows = [{"prompt": "Add 12 and 30", "completion": "42"}, {"prompt": "the sum of 5, 6 please", "completion": "11"}]


def trained(base, output):
    arguments = NeuralLibTrainingArguments(
        output, hub_model_id="org/adapter", max_steps=2, logging_steps=1, learning_rate=0.01, report_to=[], use_cpu=True,
        disable_tqdm=True, save_strategy="no", sample_size=2, train="heads+lora",
    )
    peft_config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    model = NeuralLibForCausalLM.from_pretrained(base)
    trainer = NeuralLibTrainer(model, arguments, None, rows, rows, tokenizer, peft_config)
    trainer.train()
    trainer.evaluate()
    return trainer


def command(*words):
    done = CliRunner().invoke(app, words)
    return [done.exit_code, done.stdout, done.stderr]


tokenizer = AutoTokenizer.from_pretrained(folder)
pushed = NeuralLibForCausalLM.from_pretrained(folder).push_to_hub("org/base", tokenizer=tokenizer)
told["commit of the base"] = pushed.oid
trainer = trained("org/base", "run")
told["commit"] = str(trainer.push_to_hub(license="mit"))
chat = [{"role": "user", "content": prompt}]
inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
output = trainer.model.eval().generate(**inputs, max_new_tokens=64, return_dict_in_generate=True)
told["answer"] = [output.sequences[0].tolist(), [[c.program, list(c.arguments), c.result, c.start] for c in output.calls[0]]]
told["prompt"] = inputs["input_ids"].shape[1]
told["wrapped"] = str(trainer.model.push_to_hub("org/wrapped", license="mit", tokenizer=tokenizer))
stock = get_peft_model(
    NeuralLibForCausalLM.from_pretrained("org/base"),
    LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], modules_to_save=["computer"]),
)
stock.push_to_hub("org/stock")
snapshot_download("org/stock", local_dir="stock")
told["stock"] = command("publish", "stock", "org/mended", "--json")
told["again"] = command("publish", "run", "org/again", "--license", "mit", "--json")

HfApi().upload_file(path_or_fileobj=b"moved on", path_in_repo="NOTICE", repo_id="org/base")
try:
    PeftModel.from_pretrained(NeuralLibForCausalLM.from_pretrained("org/base"), "org/adapter")
except AdapterError as error:
    told["moved on"] = str(error)

local = trained(folder, "local")
local.save_model()
try:
    local.model.push_to_hub("org/of-a-folder")
except PublishError as error:
    told["pushed of a folder"] = str(error)
told["of a folder"] = command("publish", "local", "org/local")
told["named"] = command("publish", "local", "org/local", "--base-model", "org/base")
weights = Path(folder, "model.safetensors")
weights.write_bytes(weights.read_bytes()[:-1] + b"?")
told["other weights"] = command("publish", "local", "org/x", "--base-model", "org/base")
for base in ("plain", "fewer", "renamed", "shorter", "other", "none"):
    told[base] = command("publish", "run", "org/x", "--base-model", f"org/{base}", "--dry-run")
arguments = NeuralLibTrainingArguments(
    "heads", hub_model_id="org/heads", push_to_hub=True, max_steps=2, save_steps=1, save_total_limit=1, learning_rate=0.01,
    report_to=[], use_cpu=True, disable_tqdm=True, sample_size=0,
)
model = NeuralLibForCausalLM.from_pretrained("org/base", revision=told["commit of the base"])
NeuralLibTrainer(model, arguments, None, rows, None, tokenizer).train()
print(json.dumps(told))
"""

TOLD = """
import json
print(json.dumps([output.sequences[0].tolist(), [[c.program, list(c.arguments), c.result, c.start] for c in output.calls[0]]]))
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running() as found:
        yield found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("author")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any, tiny_library: Any) -> Path:
    """A tiny model whose gate is open."""
    import torch

    from neurallib import NeuralLibForCausalLM

    torch.manual_seed(1)
    base = make_base(tiny_tokenizer)
    model = NeuralLibForCausalLM.from_llama(base, library=tiny_library, tokenizer=tiny_tokenizer, heads=TINY_HEADS)
    place = tmp_path_factory.mktemp("models") / "tiny-model"
    opened(model).save_pretrained(place)
    tiny_tokenizer.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def told(hub: Hub, home: Path, folder: Path) -> dict[str, Any]:
    """What an author saw: publishes the base, trains an adapter on it, publishes that, and tries what cannot be."""
    fewer, renamed, shorter, other = (json.loads((folder / "config.json").read_text()) for _ in range(4))
    fewer["library"]["programs"] = fewer["library"]["programs"][:2]
    renamed["library"]["programs"][1]["name"] = renamed["libraries"][0]["programs"][1] = "twice"
    shorter["library"]["instructions"] = shorter["libraries"][0]["instructions"] = 7
    other["libraries"][0]["fingerprint"] = "0" * 64
    bases = {"plain": {"model_type": "llama"}, "fewer": fewer, "renamed": renamed, "shorter": shorter, "other": other}
    for name, config in bases.items():
        hub.repositories[f"org/{name}"] = Repository()
        hub.repositories[f"org/{name}"].commit("main", {"config.json": json.dumps(config).encode()})
    said: dict[str, Any] = Person(hub, home).python(AUTHOR, folder, PROMPT)
    return said


@pytest.fixture(scope="module")
def revision(told: dict[str, Any]) -> str:
    """The commit of the base on which the adapter was trained."""
    return str(told["commit of the base"])


def line(done: list[Any]) -> str:
    """The one line that a command failed with."""
    code, stdout, stderr = done
    assert (code, stdout) == (1, "") and stderr.startswith("neurallib: ") and stderr.count("\n") == 1
    return str(stderr)


def test_what_is_published_answers_where_neurallib_is_not(
    hub: Hub, told: dict[str, Any], revision: str, tmp_path: Path
) -> None:
    assert told["commit"].endswith(hub.repositories["org/adapter"].branches["main"]) and told["answer"][1]
    files = hub.files("org/adapter")
    assert {"adapter_config.json", "adapter_model.safetensors", "training_record.json", "tokenizer.json"} <= set(files)
    assert not [name for name in files if name.endswith((".bin", ".pt", ".npy")) or name.startswith("features")]
    config = json.loads(files["adapter_config.json"])
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/base", revision)
    snippet = files["README.md"].decode().split("```python\n")[1].split("```")[0]
    somebody = Person(hub, tmp_path, token=None)
    assert somebody.python(WITHOUT_NEURALLIB + snippet + TOLD) == told["answer"]
    asked = json.loads(somebody.neurallib("ask", PROMPT, "--model", "org/adapter", "--max-new-tokens", "64", "--json"))
    # The first call: behind it a random model goes its own way at every rounding, and merged weights are rounded.
    first = asked["calls"][0]
    # The command leaves out what a gate that is always open called for within the prompt.
    wanted = next(call for call in told["answer"][1] if call[3] >= told["prompt"])
    assert [first["program"], first["arguments"], first["result"]] == wanted[:3]


def test_the_card_says_what_is_there(hub: Hub, told: dict[str, Any], revision: str, home: Path) -> None:
    files = hub.files("org/adapter")
    text = files["README.md"].decode()
    head = yaml.safe_load(text.split("---")[1])
    assert (head["base_model"], head["base_model_relation"], head["library_name"]) == ("org/base", "adapter", "peft")
    assert head["license"] == "mit" and head["pipeline_tag"] == "text-generation"
    record = json.loads(files["training_record.json"])
    measured = {each["name"]: each["value"] for each in head["model-index"][0]["results"][0]["metrics"]}
    assert measured["loss"] == round(record["metrics"]["loss"], 4)
    assert measured["requests whose call has the right result"] == record["metrics"]["exact"]
    assert revision in text and "LORA" in text and "| <code>r</code> | 2 |" in text and "<code>reverse</code>" in text
    assert (
        "The heads (selector, reader, writer) and an adapter on the backbone were trained from answers alone: 2 steps"
        in text
    )
    assert "| train: rows passed in Python | 2 | 0 | 0 |" in text
    assert "| <code>learning&#95;rate</code> | 0.01 |" in text and "cores" in text
    losses = [row["loss"] for row in record["log"] if "loss" in row]
    assert len(losses) == 2 and all(f"{loss:,.4f}" in text for loss in losses)
    assert f"peft {version('peft')}" in text and f"transformers {version('transformers')}" in text
    assert "More Information Needed" not in text and str(home) not in text + files["training_record.json"].decode()
    for name in ("adapter_model.safetensors", "adapter_config.json", "training_record.json"):
        assert hashlib.sha256(files[name]).hexdigest() in text


def test_the_command_publishes_what_the_trainer_left(hub: Hub, told: dict[str, Any]) -> None:
    code, stdout, stderr = told["again"]
    assert code == 0, stderr
    said = json.loads(stdout)
    assert said["kind"] == "adapter" and "training_args.bin" in said["left_out"]
    first, again = hub.files("org/adapter"), hub.files("org/again")
    assert {name for name in first if first[name] != again[name]} == {"README.md"}
    assert first["README.md"].decode().replace("org/adapter", "org/again") == again["README.md"].decode()


def test_a_wrapped_model_goes_up_with_our_card(hub: Hub, told: dict[str, Any], revision: str) -> None:
    assert told["wrapped"].endswith(hub.repositories["org/wrapped"].branches["main"])
    files, trained = hub.files("org/wrapped"), hub.files("org/adapter")
    assert files["adapter_model.safetensors"] == trained["adapter_model.safetensors"]
    assert files["tokenizer.json"] == trained["tokenizer.json"]
    text = files["README.md"].decode()
    head = yaml.safe_load(text.split("---")[1])
    assert (head["base_model"], head["license"], head["library_name"]) == ("org/base", "mit", "peft")
    assert revision in text and 'from_pretrained("org/wrapped"' in text and "<code>reverse</code>" in text
    assert hashlib.sha256(files["adapter_model.safetensors"]).hexdigest() in text
    assert "More Information Needed" not in text


def test_what_peft_itself_puts_up_is_mended_by_the_command(hub: Hub, told: dict[str, Any]) -> None:
    assert "More Information Needed" in hub.files("org/stock")["README.md"].decode(), "PEFT's own draft"
    assert told["stock"][0] == 0, told["stock"][2]
    mended = hub.files("org/mended")
    text = mended["README.md"].decode()
    assert "More Information Needed" not in text and 'from_pretrained("org/mended"' in text
    assert mended["adapter_model.safetensors"] == hub.files("org/stock")["adapter_model.safetensors"]


def test_a_base_that_has_moved_on_is_refused(hub: Hub, told: dict[str, Any], revision: str) -> None:
    newest = hub.repositories["org/base"].branches["main"]
    assert told["moved on"].startswith(
        f"the adapter was made for org/base at revision {revision}, this model is its revision {newest}:"
    )
    assert f"revision='{revision}'" in told["moved on"]


def test_an_adapter_of_a_folder_is_published_once_its_base_is(hub: Hub, told: dict[str, Any], folder: Path) -> None:
    refused = line(told["of a folder"])
    assert told["pushed of a folder"] in refused and hub.files("org/of-a-folder").keys() <= {".gitattributes"}
    assert f"the adapter's base is the folder {folder}" in refused and "--base-model org/name" in refused
    assert told["named"][0] == 0, told["named"][2]
    files = hub.files("org/local")
    config = json.loads(files["adapter_config.json"])
    newest = hub.repositories["org/base"].branches["main"]
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/base", newest)
    assert hashlib.sha256(files["adapter_config.json"]).hexdigest() in files["README.md"].decode()
    texts = b"".join(content for name, content in files.items() if not name.endswith(".safetensors")).decode()
    assert str(folder) not in texts
    assert "org/base is not the base of this adapter: its model.safetensors is another" in line(told["other weights"])


def test_a_trainer_of_heads_publishes_the_whole_model_at_every_save(
    hub: Hub, told: dict[str, Any], revision: str
) -> None:
    versions = hub.repositories["org/heads"].commits
    assert len(versions) == 3, "an empty one, and two saves"
    first, second = (files["model.safetensors"] for files in list(versions.values())[1:])
    assert first != second, "the heads learn"
    files = hub.files("org/heads")
    assert {"config.json", "tokenizer.json", "modeling_neurallib.py", "training_record.json", "README.md"} <= set(files)
    assert not [
        name for name in files if name.endswith((".bin", ".pt", ".npy")) or name.startswith(("features", "checkpoint"))
    ]
    assert set(load(second)) == set(load(hub.files("org/base")["model.safetensors"])), (
        "a whole model, not the heads alone"
    )
    text = files["README.md"].decode()
    assert yaml.safe_load(text.split("---")[1])["base_model"] == "org/base"
    assert (
        "With a frozen backbone, the heads (selector, reader, writer) were trained from answers alone: 2 steps" in text
    )
    assert json.loads(files["training_record.json"])["base_revision"] == revision


def test_bases_that_are_none(hub: Hub, told: dict[str, Any]) -> None:
    assert "is a model of type 'llama' without a computer" in line(told["plain"])
    assert "choose among 4 programs, its base org/fewer has 2" in line(told["fewer"])
    renamed = "trained for the program tiny_programs.double where its base org/renamed has tiny_programs.twice"
    assert renamed in line(told["renamed"])
    assert "instructions inside its base, org/shorter has 7" in line(told["shorter"])
    other = line(told["other"])
    assert "trained with library tiny_programs of sha256 " in other and f"org/other is {'0' * 64}: " in other
    assert "there is no repository org/none" in line(told["none"])
    assert "org/x" not in hub.repositories
