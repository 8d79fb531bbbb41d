"""What goes wrong between this machine and a hub, with models and adapters: one clear line, and both sides stay whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_HEADS, make_base, opened
from loopback import Hub, Repository, running
from people import Hurried, Person
from safetensors.torch import load_file, save_file

PROMPT = "Add 12 and 30"
KINDS = ("model", "adapter")


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running() as found:
        yield found


@pytest.fixture(scope="module")
def folders(
    hub: Hub, tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any, tiny_library: Any
) -> dict[str, Path]:
    """A tiny model whose gate is open, which is ``org/base`` on the hub, and an adapter for it."""
    from neurallib.trainer.adapters import adapted
    from peft import LoraConfig

    from neurallib import NeuralLibForCausalLM

    place = tmp_path_factory.mktemp("folders")
    found = {kind: place / f"tiny-{kind}" for kind in KINDS}
    torch.manual_seed(1)
    base = make_base(tiny_tokenizer)
    model = NeuralLibForCausalLM.from_llama(base, library=tiny_library, tokenizer=tiny_tokenizer, heads=TINY_HEADS)
    opened(model).save_pretrained(found["model"])
    tiny_tokenizer.save_pretrained(found["model"])
    commit = put(hub, "org/base", found["model"])
    wrapped = adapted(NeuralLibForCausalLM.from_pretrained(found["model"]), LoraConfig(r=2, target_modules=["q_proj"]))
    wrapped.save_pretrained(found["adapter"])
    (found["adapter"] / "README.md").unlink()
    config = json.loads((found["adapter"] / "adapter_config.json").read_text())
    config |= {"base_model_name_or_path": "org/base", "revision": commit}
    (found["adapter"] / "adapter_config.json").write_text(json.dumps(config))
    return found


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def put(hub: Hub, name: str, folder: Path, **changes: bytes) -> str:
    """A repository with the files of a folder; its commit, which is like no other."""
    hub.repositories[name] = Repository()
    return hub.repositories[name].commit("main", content(folder) | {"NOTICE": name.encode()} | changes)


@pytest.fixture(scope="module")
def somebody(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hurried]:
    found = Hurried(hub, tmp_path_factory.mktemp("somebody"))
    yield found
    found.close()


def answer(person: Person, source: str | Path) -> list[Any]:
    said = json.loads(person.neurallib("ask", PROMPT, "--model", source, "--max-new-tokens", "8", "--json"))
    return [said["answer"], [[call["program"], call["arguments"], call["result"]] for call in said["calls"]]]


def line(person: Hurried, *arguments: str | Path, token: str | None = None) -> str:
    """The one line that a command fails with."""
    person.begin(*arguments, **({} if token is None else {"HF_TOKEN": token}))
    done = person.end()
    assert (done.returncode, done.stdout) == (1, ""), done.stdout + done.stderr
    assert done.stderr.startswith("neurallib: ") and done.stderr.count("\n") == 1, done.stderr[-3000:]
    return done.stderr


@pytest.fixture(scope="module")
def answers(hub: Hub, folders: dict[str, Path], somebody: Hurried) -> dict[str, list[Any]]:
    """What a model and an adapter answer that come whole."""
    return {kind: answer(somebody, folders[kind]) for kind in KINDS}


# Downloads


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_there_or_not_for_this_token(
    hub: Hub, folders: dict[str, Path], somebody: Hurried, answers: dict[str, list[Any]], kind: str
) -> None:
    name = f"org/{kind}-private"
    put(hub, name, folders[kind])
    hub.repositories[name].private = True
    said = line(somebody, "ask", PROMPT, "--model", f"{name}s")
    assert f"there is no repository {name}s, or your token may not see it; check the name" in said
    said = line(somebody, "ask", PROMPT, "--model", name, token="")
    assert f"there is no repository {name}, or your token may not see it; check the name, or `hf auth login`" in said
    said = line(somebody, "ask", PROMPT, "--model", name, token="hf_wrong")
    assert f"{name} cannot be loaded: the Hub does not know this token; log in again with `hf auth login`" in said
    assert answer(somebody, name) == answers[kind], "who may see it can load it"


def test_an_adapter_whose_base_is_gone(hub: Hub, folders: dict[str, Path], somebody: Hurried) -> None:
    config = json.loads((folders["adapter"] / "adapter_config.json").read_text())
    for name, change, message in (
        (
            "base",
            {"base_model_name_or_path": "org/gone"},
            "there is no repository org/gone, or your token may not see it",
        ),
        ("commit", {"revision": "0" * 40}, f"org/base has no revision '{'0' * 40}'; check the branch, tag or commit"),
    ):
        put(
            hub, f"org/lost-{name}", folders["adapter"], **{"adapter_config.json": json.dumps(config | change).encode()}
        )
        said = line(somebody, "ask", PROMPT, "--model", f"org/lost-{name}")
        assert f"of the adapter org/lost-{name} cannot be loaded: {message}" in said


@pytest.mark.parametrize(
    ("how", "kind", "file"),
    [
        ("cut", "model", "config.json"),
        ("cut", "model", "model.safetensors"),
        ("cut", "model", "tokenizer.json"),
        ("cut", "adapter", "adapter_config.json"),
        ("cut", "adapter", "adapter_model.safetensors"),
        ("short", "model", "model.safetensors"),
        ("short", "adapter", "adapter_model.safetensors"),
        ("garbled", "model", "model.safetensors"),
        ("garbled", "model", "tokenizer.json"),
        ("garbled", "adapter", "adapter_model.safetensors"),
    ],
)
def test_a_download_that_is_not_whole_is_refused_and_then_completed(
    hub: Hub, folders: dict[str, Path], somebody: Hurried, answers: dict[str, list[Any]], how: str, kind: str, file: str
) -> None:
    name = f"org/{how}-{file.split('.')[0]}"
    put(hub, name, folders[kind])
    ill: set[str] = getattr(hub, how)
    ill.add(f"{name}/{file}")
    try:
        said = line(somebody, "ask", PROMPT, "--model", name)
    finally:
        ill.clear()
    assert f"{name} cannot be loaded: " in said
    if how == "cut":
        assert "closed connection" in said and said.endswith("; check name and network\n")
    elif how == "short":
        assert "Consistency check failed: file should be of size" in said
    else:
        assert "one of its files is cut short or corrupt (" in said
        # The client has no way to know, and keeps what it got.
        assert said.endswith(f"; get it again, after `hf cache rm model/{name}`\n")
        somebody.hf("cache", "rm", f"model/{name}", "-y")
    assert answer(somebody, name) == answers[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_with_half_of_its_weights_is_refused(
    folders: dict[str, Path], somebody: Hurried, tmp_path: Path, kind: str
) -> None:
    shutil.copytree(folders[kind], tmp_path / kind)
    weights = next((tmp_path / kind).glob("*model.safetensors"))
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    said = line(somebody, "ask", PROMPT, "--model", tmp_path / kind)
    assert f"{tmp_path / kind} cannot be loaded: one of its files is cut short or corrupt (" in said
    assert said.endswith("; get it again\n")


LOADERS = """
import json
from peft import AutoPeftModelForCausalLM
from neurallib import NeuralLibForCausalLM

told = []
for kind, load in (("model", NeuralLibForCausalLM), ("adapter", AutoPeftModelForCausalLM)):
    for name, options in ((f"org/{kind}-seen", {"revision": "v9"}), ("org/none", {}), (f"org/{kind}-seen", {"token": "hf_wrong"})):
        try:
            load.from_pretrained(name, **options)
        except (OSError, ValueError) as error:
            told.append(" ".join(str(error).split()))
print(json.dumps(told))
"""


def test_the_loaders_of_python_say_it_in_words_of_transformers_and_peft(
    hub: Hub, folders: dict[str, Path], tmp_path: Path
) -> None:
    for kind in KINDS:
        put(hub, f"org/{kind}-seen", folders[kind])
    revision, none, token, *adapters = Person(hub, tmp_path, token=None).python(LOADERS)
    assert revision.startswith("v9 is not a valid git identifier") and "org/model-seen" in revision
    assert none.startswith("org/none is not a local folder and is not a valid model identifier")
    assert "org/model-seen" in token and "Invalid credentials" in token
    # PEFT says the same of all three.
    assert adapters == [
        f"Can't find 'adapter_config.json' at 'org/{name}'" for name in ("adapter-seen", "none", "adapter-seen")
    ]


# Uploads


def fresh(folders: dict[str, Path], kind: str, place: Path) -> tuple[Path, str]:
    """A copy of a folder with weights that nobody has sent before, and their sha256."""
    folder = place / f"new-{kind}"
    shutil.copytree(folders[kind], folder)
    file = next(folder.glob("*model.safetensors"))
    tensors = load_file(str(file))
    name = next(name for name, tensor in sorted(tensors.items()) if tensor.dtype == torch.float32)
    tensors[name] = torch.rand(tensors[name].shape)
    save_file(tensors, str(file), {"format": "pt"})
    return folder, hashlib.sha256(file.read_bytes()).hexdigest()


def sent(hub: Hub, digest: str) -> int:
    """How often a content was sent."""
    return hub.requests.count(f"PUT objects/{digest}")


@pytest.mark.parametrize("kind", KINDS)
def test_uploads_that_are_refused_change_nothing(
    hub: Hub, folders: dict[str, Path], somebody: Hurried, tmp_path: Path, kind: str
) -> None:
    name, (folder, _) = f"org/{kind}-refused", fresh(folders, kind, tmp_path)
    put(hub, name, folders[kind])
    there, here = dict(hub.repositories[name].branches), content(folder)
    publish = ("publish", folder, name)
    assert "does not know this token; log in again with `hf auth login`" in line(somebody, *publish, token="hf_wrong")
    assert f"{name} has no revision 'v9'; check the branch, tag or commit" in line(
        somebody, *publish, "--revision", "v9"
    )
    assert "log in with `hf auth login`, with a token that may write" in line(somebody, *publish, token="")
    if kind == "adapter":
        based = ("--base-model", "org/base", "--base-revision", "v8")
        assert "org/base has no revision 'v8'; check the branch, tag or commit" in line(somebody, *publish, *based)
        assert "there is no repository org/none, or" in line(somebody, *publish, "--base-model", "org/none")
    assert hub.repositories[name].branches == there and content(folder) == here


@pytest.mark.parametrize("kind", KINDS)
def test_an_upload_that_breaks_off_is_resumed(
    hub: Hub, folders: dict[str, Path], somebody: Hurried, tmp_path: Path, kind: str
) -> None:
    name, (folder, digest) = f"org/{kind}-resumed", fresh(folders, kind, tmp_path)
    put(hub, name, folders[kind])
    before, here = hub.files(name), content(folder)
    hub.drop.add("objects")
    try:
        said = line(somebody, "publish", folder, name)
    finally:
        hub.drop.clear()
    assert f"{name} cannot be uploaded: " in said and said.endswith("; check name and network\n")
    assert digest not in hub.objects, "half of it is nothing"
    hub.refuse.add("commit")
    try:
        assert "no commits today" in line(somebody, "publish", folder, name)
    finally:
        hub.refuse.clear()
    assert hub.files(name) == before and digest in hub.objects
    times = sent(hub, digest)
    somebody.neurallib("publish", folder, name)
    assert sent(hub, digest) == times, "what had arrived before is not sent again"
    assert {file: hub.files(name)[file] for file in here} == here == content(folder)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("during", ["objects", "commit"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["SIGINT", "SIGKILL"])
def test_publishing_that_is_stopped_leaves_the_repository_whole(
    hub: Hub, folders: dict[str, Path], somebody: Hurried, tmp_path: Path, how: signal.Signals, during: str, kind: str
) -> None:
    name, (folder, digest) = f"org/{kind}-{how.name}-{during}", fresh(folders, kind, tmp_path)
    put(hub, name, folders[kind])
    before, here = hub.files(name), content(folder)
    hub.hold.add(during)
    publishing = somebody.begin("publish", folder, name)
    try:
        assert hub.held.wait(timeout=300), "the upload has begun"
        os.kill(publishing, how)
    finally:
        hub.hold.clear()
        hub.release.set()
        done = somebody.end()
        hub.held.clear()
        hub.release.clear()
    if how == signal.SIGINT:
        assert (done.returncode, done.stdout) == (130, ""), done.stderr
        assert done.stderr.startswith(f"neurallib: interrupted; {name} is as it was") and done.stderr.count("\n") == 1
    else:
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert hub.files(name) == before and content(folder) == here
    times = sent(hub, digest)
    somebody.neurallib("publish", folder, name)
    assert {file: hub.files(name)[file] for file in here} == here == content(folder)
    assert len(hub.repositories[name].commits) == 2, "all of it in one commit"
    assert sent(hub, digest) == times + (during == "objects")


# The command line of the Hub


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_line_of_the_hub_takes_a_folder_there_and_back(
    hub: Hub, folders: dict[str, Path], somebody: Hurried, answers: dict[str, list[Any]], tmp_path: Path, kind: str
) -> None:
    name, folder, got = f"org/{kind}-by-hand", folders[kind], tmp_path / "got"
    here = content(folder)
    somebody.hf("upload", name, folder)
    assert {file: hub.files(name)[file] for file in here} == here == content(folder)
    weights = next(file for file in here if file.endswith("model.safetensors"))
    hub.short.add(f"{name}/{weights}")
    try:
        assert "Consistency check failed" in somebody.hf_complaint("download", name, "--local-dir", got)
    finally:
        hub.short.clear()
    assert not (got / weights).exists(), "no half of a file is left in its place"
    somebody.hf("download", name, "--local-dir", got)
    assert {file: (got / file).read_bytes() for file in here} == here
    assert answer(somebody, got) == answers[kind]
    assert f"Revision not found in model '{name}'" in somebody.hf_complaint("download", name, "--revision", "v9")
    assert f"'{name}s' not found" in somebody.hf_complaint("download", f"{name}s")
    before = dict(hub.repositories[name].branches)
    assert "Invalid credentials" in somebody.hf_complaint("upload", name, folder, "--token", "hf_wrong")
    assert hub.repositories[name].branches == before and {file: (got / file).read_bytes() for file in here} == here


@pytest.mark.parametrize("kind", KINDS)
def test_an_upload_by_the_command_line_of_the_hub_that_is_killed_is_resumed(
    hub: Hub, folders: dict[str, Path], somebody: Hurried, tmp_path: Path, kind: str
) -> None:
    name, (folder, digest) = f"org/{kind}-killed", fresh(folders, kind, tmp_path)
    put(hub, name, folders[kind])
    before, here = hub.files(name), content(folder)
    hub.hold.add("commit")
    uploading = somebody.start("upload", name, folder, command="hf")
    try:
        assert hub.held.wait(timeout=300), "the upload has begun"
        uploading.kill()
    finally:
        hub.hold.clear()
        hub.release.set()
        uploading.communicate(timeout=300)
        hub.held.clear()
        hub.release.clear()
    assert hub.files(name) == before and content(folder) == here
    times = sent(hub, digest)
    somebody.hf("upload", name, folder)
    assert {file: hub.files(name)[file] for file in here} == here == content(folder)
    assert sent(hub, digest) == times == 1
