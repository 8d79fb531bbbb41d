"""Round trips of libraries and models through a hub on this machine, by the real client, each step in its own process."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import TINY_HEADS, TINY_PROGRAMS, make_base, opened
from loopback import Hub, Repository, running
from neurallib.model_cards.model_card import model_card
from people import ASK, WITHOUT_NEURALLIB, Person

PROMPT = "Add 12 and 30"


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running() as found:
        yield found


@pytest.fixture(scope="module")
def library_folder(tmp_path_factory: pytest.TempPathFactory, tiny_library: Any) -> Path:
    folder = tmp_path_factory.mktemp("library") / "tiny"
    tiny_library.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def published(hub: Hub, tmp_path_factory: pytest.TempPathFactory, library_folder: Path) -> dict[str, Any]:
    """What ``neurallib publish`` says of a library."""
    author = Person(hub, tmp_path_factory.mktemp("author"))
    said: dict[str, Any] = json.loads(author.neurallib("publish", library_folder, "org/tiny", "--json"))
    return said


def test_a_library_is_published_with_its_card(hub: Hub, published: dict[str, Any], library_folder: Path) -> None:
    files = hub.files("org/tiny")
    assert set(files) == {".gitattributes", "README.md", "library_config.json", "library.safetensors"}
    for name in ("library_config.json", "library.safetensors"):
        assert files[name] == (library_folder / name).read_bytes()
        assert hashlib.sha256(files[name]).hexdigest() == published["files"][name]
        assert published["files"][name] in files["README.md"].decode()
    card = files["README.md"].decode()
    assert 'from_pretrained("org/tiny")' in card and "reverse" in card and "strawberry" not in published["commit"]
    assert published["commit"].endswith(hub.repositories["org/tiny"].branches["main"])
    # The tensors went as LFS, the rest in the commit itself.
    assert hashlib.sha256(files["library.safetensors"]).hexdigest() in hub.objects
    assert not (library_folder / "README.md").exists()


def test_a_library_is_inspected_and_run_from_the_hub(
    hub: Hub, published: dict[str, Any], tmp_path: Path, tiny_library: Any
) -> None:
    reader = Person(hub, tmp_path, token=None)
    listed = json.loads(reader.neurallib("inspect", "org/tiny", "--json"))
    sha = hub.repositories["org/tiny"].branches["main"]
    assert listed["fingerprint"] == tiny_library.fingerprint
    assert (listed["repository"], listed["revision"]) == ("org/tiny", sha)
    assert json.loads(reader.neurallib("inspect", "org/tiny", "--revision", sha, "--json")) == listed
    assert reader.neurallib("run", "add", "2", "3", "--library", "org/tiny") == "5\n"


def test_push_from_python_records_the_commit(hub: Hub, library_folder: Path, tmp_path: Path) -> None:
    script = """
import json, sys
from neurallib import NeuralLibrary
library = NeuralLibrary.from_pretrained(sys.argv[1])
url = library.push_to_hub("org/pushed", license="mit")
again = NeuralLibrary.from_pretrained("org/pushed", revision=library.revision)
print(json.dumps([url, library.repository, library.revision, again.revision, again.fingerprint == library.fingerprint]))
"""
    url, repository, revision, again, same = Person(hub, tmp_path).python(script, library_folder)
    sha = hub.repositories["org/pushed"].branches["main"]
    assert (url, repository, revision, again, same) == (
        f"{hub.url}/org/pushed/commit/{sha}",
        "org/pushed",
        sha,
        sha,
        True,
    )
    assert b"license: mit" in hub.files("org/pushed")["README.md"]


def test_what_fails_is_one_clear_line(
    hub: Hub, published: dict[str, Any], library_folder: Path, tmp_path: Path
) -> None:
    nobody = Person(hub, tmp_path / "nobody", token=None)
    stranger = Person(hub, tmp_path / "stranger", token="hf_wrong")
    before = dict(hub.repositories["org/tiny"].branches)
    assert "does not know this token" in stranger.complaint("publish", library_folder, "org/tiny")
    assert "log in with `hf auth login`" in nobody.complaint("publish", library_folder, "org/tiny")
    assert "does not know this token" in stranger.complaint("inspect", "org/tiny")
    assert "there is no repository org/none" in nobody.complaint("inspect", "org/none")
    assert "org/tiny has no revision 'v9'" in nobody.complaint("inspect", "org/tiny", "--revision", "v9")
    assert hub.repositories["org/tiny"].branches == before


def test_a_half_written_download_is_refused_and_then_completed(
    hub: Hub, published: dict[str, Any], tmp_path: Path
) -> None:
    reader = Person(hub, tmp_path, token=None)
    hub.cut.add("library.safetensors")
    try:
        line = reader.complaint("inspect", "org/tiny")
    finally:
        hub.cut.clear()
    assert "org/tiny" in line and "check name and network" in line
    assert json.loads(reader.neurallib("inspect", "org/tiny", "--json"))["name"] == "tiny_programs"


def library_of(folder: Path, library: Any, program: str) -> Path:
    """A library of one program, whose content no test has sent before."""
    library.extract([program]).save_pretrained(folder / program)
    return folder / program


def test_a_commit_that_fails_leaves_the_repository_whole_and_nothing_is_sent_twice(
    hub: Hub, published: dict[str, Any], tiny_library: Any, tmp_path: Path
) -> None:
    author, other = Person(hub, tmp_path / "author"), library_of(tmp_path, tiny_library, "add")
    before, sent = hub.files("org/tiny"), hub.uploads()
    hub.refuse.add("commit")
    try:
        line = author.complaint("publish", other, "org/tiny", "--license", "mit")
    finally:
        hub.refuse.clear()
    assert "org/tiny cannot be uploaded" in line and "no commits today" in line
    assert hub.files("org/tiny") == before and hub.uploads() == sent + 1
    author.neurallib("publish", other, "org/resumed")
    assert hub.files("org/resumed")["library.safetensors"] == (other / "library.safetensors").read_bytes()
    assert hub.uploads() == sent + 1, "what had arrived before is not sent again"


@pytest.mark.parametrize(("during", "program"), [("objects", "double"), ("commit", "count")])
def test_an_interrupted_upload_leaves_the_repository_whole(
    hub: Hub, published: dict[str, Any], tiny_library: Any, tmp_path: Path, during: str, program: str
) -> None:
    author, other = Person(hub, tmp_path / "author"), library_of(tmp_path, tiny_library, program)
    before = hub.files("org/tiny")
    hub.hold.add(during)
    publishing = author.start("publish", other, "org/tiny")
    try:
        assert hub.held.wait(timeout=300), "the upload has begun"
        publishing.send_signal(signal.SIGINT)
    finally:
        hub.hold.clear()
        hub.release.set()
        said, complaint = publishing.communicate(timeout=300)
        hub.held.clear()
        hub.release.clear()
    assert (publishing.returncode, said) == (130, ""), complaint
    assert complaint.startswith("neurallib: interrupted; org/tiny is as it was") and complaint.count("\n") == 1
    assert hub.files("org/tiny") == before
    author.neurallib("publish", other, f"org/{program}")
    assert hub.files(f"org/{program}")["library.safetensors"] == (other / "library.safetensors").read_bytes()


def test_the_command_line_of_the_hub_takes_a_library_there_and_back(
    hub: Hub, library_folder: Path, tiny_library: Any, tmp_path: Path
) -> None:
    from neurallib import NeuralLibrary

    author, reader = Person(hub, tmp_path / "author"), Person(hub, tmp_path / "reader", token=None)
    author.hf("upload", "org/by-hand", library_folder)
    reader.hf("download", "org/by-hand", "--local-dir", tmp_path / "got")
    names = {path.name for path in library_folder.iterdir()}
    assert {name for name in names if hub.files("org/by-hand")[name] == (tmp_path / "got" / name).read_bytes()} == names
    assert NeuralLibrary.from_pretrained(tmp_path / "got").fingerprint == tiny_library.fingerprint
    assert reader.hf_complaint("download", "org/by-hand", "--revision", "v9") and reader.hf_complaint(
        "download", "org/none"
    )


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any, tiny_library: Any) -> tuple[Path, Any]:
    """The folder of a tiny model whose gate is open, and the calls that it makes here."""
    import torch

    from neurallib import NeuralLibForCausalLM

    torch.manual_seed(1)
    base = make_base(tiny_tokenizer)
    model = NeuralLibForCausalLM.from_llama(base, library=tiny_library, tokenizer=tiny_tokenizer, heads=TINY_HEADS)
    folder = tmp_path_factory.mktemp("models") / "tiny-model"
    opened(model).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    (folder / "training_args.bin").write_bytes(b"\x80\x04.")
    inputs = tiny_tokenizer(PROMPT, return_tensors="pt", return_token_type_ids=False)
    calls = [[call.program, call.library, list(call.arguments), call.result] for call in model(**inputs).calls[0]]
    return folder, calls


TUNE = """
import json, resource, sys
from transformers import Trainer, TrainingArguments

rows = []
for prompt, answer in (("Add 12 and 30", "42"), ("the sum of 5, 6 please", "11")):
    chat = [{"role": "user", "content": prompt}]
    question = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    asked, given = (tokenizer(text, add_special_tokens=False).input_ids for text in (question, answer + "<|im_end|>"))
    rows.append({"input_ids": asked + given, "labels": [-100] * len(asked) + given})
arguments = TrainingArguments(
    "tuned", max_steps=4, per_device_train_batch_size=1, learning_rate=0.01, report_to=[], use_cpu=True, disable_tqdm=True,
    save_strategy="no", per_device_eval_batch_size=1,
)
trainer = Trainer(model, arguments, train_dataset=rows, eval_dataset=rows)
before = trainer.evaluate()["eval_loss"]
trainer.train()
after = trainer.evaluate()["eval_loss"]
told = {"module": type(model).__module__.split(".")[0], "losses": [before, after]}
model.eval()
inputs = tokenizer(sys.argv[1], return_tensors="pt", return_token_type_ids=False)
told["calls"] = len(model(**inputs).calls[0])


def refusal(*words, **named):
    try:
        model.push_to_hub(*words, **named)
    except Exception as error:
        return [type(error).__name__, str(error)]


told["pushed"] = str(model.push_to_hub("org/tuned", tokenizer=tokenizer))
told["wrong token"] = refusal("org/tuned", token="hf_wrong")
limit = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))
told["full"] = refusal("org/tuned")
resource.setrlimit(resource.RLIMIT_FSIZE, limit)
print(json.dumps(told))
"""
"""Goes on from the snippet of a card, which has made ``model`` and ``tokenizer``."""


def test_a_model_is_published_and_answers_without_neurallib(
    hub: Hub, model_folder: tuple[Path, Any], tmp_path: Path
) -> None:
    folder, calls = model_folder
    said = json.loads(Person(hub, tmp_path / "author").neurallib("publish", folder, "org/model", "--json"))
    assert said["left_out"] == ["training_args.bin"]
    files = hub.files("org/model")
    assert "training_args.bin" not in files and {"README.md", "model.safetensors", "library.py"} <= set(files)
    card = files["README.md"].decode()
    assert 'from_pretrained("org/model"' in card and hashlib.sha256(files["library.py"]).hexdigest() in card
    reader = Person(hub, tmp_path / "reader", token=None)
    sha = hub.repositories["org/model"].branches["main"]
    assert calls and reader.python(WITHOUT_NEURALLIB + ASK, "org/model", sha, PROMPT) == calls


def test_a_pulled_model_is_fine_tuned_by_the_stock_trainer_and_pushed_without_neurallib(
    hub: Hub, model_folder: tuple[Path, Any], tmp_path: Path
) -> None:
    hub.repositories["org/pulled"] = Repository()
    hub.repositories["org/pulled"].commit("main", {path.name: path.read_bytes() for path in model_folder[0].iterdir()})
    card = model_card("org/pulled", "A Llama", None, {})
    snippet = str(card).split("```python\n")[1].split("```")[0]
    told = Person(hub, tmp_path / "reader").python(WITHOUT_NEURALLIB + snippet + TUNE, PROMPT)
    assert told["module"] == "transformers_modules" and told["calls"]
    before, after = told["losses"]
    assert after < before, "it learns"
    files, sha = hub.files("org/tuned"), hub.repositories["org/tuned"].branches["main"]
    assert told["pushed"].endswith(sha), "nothing that failed afterwards has left a trace"
    assert {"model.safetensors", "tokenizer.json", "modeling_neurallib.py", "README.md"} <= set(files)
    assert files["model.safetensors"] != (model_folder[0] / "model.safetensors").read_bytes()
    card = files["README.md"].decode()
    head = yaml.safe_load(card.split("---")[1])
    assert (head["base_model"], head["library_name"]) == ("org/pulled", "transformers")
    assert 'from_pretrained("org/tuned", trust_remote_code=True)' in card and "<code>reverse</code>" in card
    assert "untrained" not in card and "## Training" not in card, "nobody told what the training was"
    for name in set(files) - {"README.md", ".gitattributes"}:
        assert hashlib.sha256(files[name]).hexdigest() in card
    assert told["wrong token"] == ["PublishError", told["wrong token"][1]]
    assert "org/tuned cannot be uploaded: the Hub does not know this token" in told["wrong token"][1]
    assert told["full"][0] == "PublishError" and "no space left" in told["full"][1]


def test_a_model_that_refers_to_a_library_fetches_it(
    hub: Hub, published: dict[str, Any], model_folder: tuple[Path, Any], tmp_path: Path
) -> None:
    script = """
import sys
from neurallib import NeuralLibForCausalLM
from transformers import AutoTokenizer
model = NeuralLibForCausalLM.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model.delete_library("tiny_programs")
model.load_library("org/tiny", tokenizer=tokenizer, by_reference=True)
model.save_pretrained("refers")
tokenizer.save_pretrained("refers")
print(len(model.computer.instructions))
"""
    author = Person(hub, tmp_path / "author")
    assert author.python(script, model_folder[0]) == 0
    author.neurallib("publish", author.home / "refers", "org/refers")
    sha = hub.repositories["org/tiny"].branches["main"]
    assert sha[:12] in hub.files("org/refers")["README.md"].decode()
    reader = Person(hub, tmp_path / "reader", token=None)
    assert reader.python(WITHOUT_NEURALLIB + ASK, "org/refers", "main", PROMPT) == model_folder[1]
    # The library moves on; the model stays with the commit that it was saved with.
    other = tmp_path / "other.py"
    other.write_text(TINY_PROGRAMS.read_text().replace("first + second", "first - second"))
    author.neurallib("compile", other, "--output", tmp_path / "other", "--name", "tiny_programs")
    author.neurallib("publish", tmp_path / "other", "org/tiny")
    assert hub.repositories["org/tiny"].branches["main"] != sha
    fresh = Person(hub, tmp_path / "fresh", token=None)
    assert fresh.python(WITHOUT_NEURALLIB + ASK, "org/refers", "main", PROMPT) == model_folder[1]
