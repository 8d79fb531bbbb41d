"""Round trips of libraries and models through a hub on this machine, by the real client, each step in its own process."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY_HEADS, TINY_PROGRAMS, make_base, opened
from loopback import TOKEN, Hub, running

PROMPT = "Add 12 and 30"

WITHOUT_NEURALLIB = """
import sys
sys.modules["neurallib"] = sys.modules["numba"] = None
"""

ASK = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

torch.set_num_threads(1)
source, revision, prompt = sys.argv[1:]
trusted = {"trust_remote_code": True, "revision": revision}
tokenizer = AutoTokenizer.from_pretrained(source, **trusted)
model = AutoModelForCausalLM.from_pretrained(source, **trusted)
inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
calls = model(**inputs).calls[0]
print(json.dumps([[call.program, call.library, list(call.arguments), call.result] for call in calls]))
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running() as found:
        yield found


class Person:
    """Somebody with a home of their own, and perhaps a token, who runs commands against the hub."""

    def __init__(self, hub: Hub, home: Path, token: str | None = TOKEN) -> None:
        home.mkdir(exist_ok=True)
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.upper().startswith("HF_") and not name.lower().endswith("_proxy") and name != "PYTHONPATH"
        }
        self.home = home
        self.environment = kept | {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "TRANSFORMERS_VERBOSITY": "error",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        if token is not None:
            self.environment["HF_TOKEN"] = token

    def process(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(word) for word in command],
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def neurallib(self, *arguments: str | Path) -> str:
        done = self.process(Path(sys.executable).with_name("neurallib"), *arguments)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def complaint(self, *arguments: str | Path) -> str:
        """The one line that a command fails with."""
        done = self.process(Path(sys.executable).with_name("neurallib"), *arguments)
        assert (done.returncode, done.stdout) == (1, ""), done.stdout + done.stderr
        lines = done.stderr.splitlines()
        assert len(lines) == 1 and lines[0].startswith("neurallib: "), done.stderr[-3000:]
        return lines[0]

    def python(self, script: str, *arguments: str | Path) -> Any:
        done = self.process(sys.executable, "-c", script, *arguments)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])


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


def test_a_commit_that_fails_leaves_the_repository_whole(
    hub: Hub, published: dict[str, Any], library_folder: Path, tmp_path: Path
) -> None:
    before = hub.files("org/tiny")
    hub.refuse.add("commit")
    try:
        line = Person(hub, tmp_path).complaint("publish", library_folder, "org/tiny", "--license", "mit")
    finally:
        hub.refuse.clear()
    assert "org/tiny cannot be uploaded" in line and "no commits today" in line
    assert hub.files("org/tiny") == before


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
