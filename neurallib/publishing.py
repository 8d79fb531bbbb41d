"""What ``neurallib publish`` does: a folder of a library or a model, checked, completed by a card, put up in one commit."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .model_cards.published import published_card

LEFT_OUT = ("training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt", "trainer_state.json")
"""What a Trainer leaves for itself: of no use to others, and pickles most of it."""

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
KINDS = (
    *(".safetensors", ".json", ".jsonl", ".py", ".md", ".txt", ".model", ".jinja"),
    *(".yaml", ".yml", ".png", ".svg", ".csv", ".html"),
)
NAMES = ("LICENSE", "NOTICE", ".gitattributes")
CARD = "README.md"


class PublishError(RuntimeError):
    """A folder that cannot be published: the message says what was found, and the way out."""


@dataclass(frozen=True)
class Publication:
    """What goes into the commit.

    Attributes:
        kind: "library" or "model". repository: ``org/name``.
        files: name in the repository → file. card: the text of ``README.md``.
        hashes: name → sha256, the card's among them. left_out: names of files that stay behind.
    """

    kind: str
    repository: str
    files: Mapping[str, Path]
    card: str
    hashes: Mapping[str, str]
    left_out: tuple[str, ...]


def prepare(folder: Path, repository: str, license: str | None = None) -> Publication:
    """Check a folder and make its card. Nothing is uploaded, and the folder stays as it is.

    Raises:
        PublishError: it is no library and no model, incomplete, or holds what must not be published.
        LibraryError: the library in it is not what a library must be.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise PublishError(f"{error}") from None
    if repository.count("/") != 1:
        raise PublishError(f"{repository!r} is no repository; give org/name")
    if not folder.is_dir():
        raise PublishError(f"there is no folder {folder}; give the folder of a library or of a model")
    files, left_out = _files(folder)
    is_library = "library_config.json" in files
    if is_library:
        stray = [name for name in files if name not in ("library_config.json", "library.safetensors", CARD, *NAMES)]
        if stray:
            raise PublishError(f"{folder} is a library, but holds {', '.join(stray[:4])} too; move that elsewhere")
        card = _library_card(folder, repository, license)
    elif "config.json" in files:
        _check_model(folder, files)
        card = _model_card(folder, files, repository, license)
    else:
        raise PublishError(
            f"{folder} is neither a library (library_config.json) nor a model (config.json); make one with "
            "`neurallib compile` or `neurallib assemble`"
        )
    files.pop(CARD, None)
    hashes = {name: _sha256(path) for name, path in files.items()}
    before = folder.absolute().name
    if not is_library:
        card = published_card(card, repository, hashes, before)
    hashes[CARD] = hashlib.sha256(card.encode()).hexdigest()
    return Publication("library" if is_library else "model", repository, files, card, hashes, left_out)


def upload(
    publication: Publication,
    private: bool | None = None,
    revision: str | None = None,
    message: str | None = None,
) -> str:
    """Put it up in one commit, made after all of its content has arrived. Returns the commit's address.

    Raises:
        PublishError: the Hub refuses or cannot be reached; the repository is then as it was.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    from .modeling_neurallib.library import hub_reason

    repository = publication.repository
    operations = [CommitOperationAdd(name, str(path)) for name, path in publication.files.items()]
    operations.append(CommitOperationAdd(CARD, publication.card.encode()))
    try:
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.create_commit(
            repo_id=repository,
            operations=operations,
            commit_message=message or f"Upload {publication.kind}",
            revision=revision,
        )
    except Exception as error:  # the HTTP library's, whichever that is, among them
        raise PublishError(f"{repository} cannot be uploaded: {hub_reason(error, repository, revision)}") from error
    return str(commit)


def _files(folder: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Name → file of what is to be published, and the names of what is not.

    Raises:
        PublishError: a pickle, a link, a file of an unknown kind, or one cut short.
    """
    found: dict[str, Path] = {}
    left_out = []
    for root, folders, names in os.walk(folder):
        for name in list(folders):
            if (name.startswith(".") and name != ".eval_results") or name == "__pycache__":
                folders.remove(name)
            elif name.startswith("checkpoint-"):
                folders.remove(name)
                left_out.append(f"{name}/")
        for name in sorted(names):
            path = Path(root, name)
            relative = path.relative_to(folder).as_posix()
            if name in LEFT_OUT or name.startswith("rng_state"):
                left_out.append(relative)
                continue
            if not stat.S_ISREG(path.lstat().st_mode):
                raise PublishError(f"{relative} is a link or no plain file; put the file itself there")
            if path.suffix in PICKLES:
                raise PublishError(
                    f"{relative} is a pickle, which can run code where it is loaded; save as safetensors, or remove it"
                )
            if name not in NAMES and path.suffix not in KINDS:
                raise PublishError(f"{relative} is of no kind that a library or a model is made of; remove it")
            _check_whole(path, relative)
            found[relative] = path
    return found, tuple(left_out)


def _check_whole(path: Path, name: str) -> None:
    """Refuses a file that was cut short while it was written."""
    from safetensors import SafetensorError, safe_open

    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            raise PublishError(f"{name} is cut short or corrupt ({error}); save it again") from None
    elif path.suffix == ".json":
        try:
            json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            raise PublishError(f"{name} is not JSON; save it again") from None


def _library_card(folder: Path, repository: str, license: str | None) -> str:
    from .modeling_neurallib.library import NeuralLibrary

    library = NeuralLibrary.from_pretrained(folder)
    return library.card(repository, license or _metadata(folder).get("license"))


def _metadata(folder: Path) -> dict[str, Any]:
    """The front matter of the folder's card; nothing if there is none."""
    import yaml
    from huggingface_hub import ModelCard

    if not (folder / CARD).is_file():
        return {}
    try:
        metadata: dict[str, Any] = ModelCard.load(folder / CARD).data.to_dict()
    except (ValueError, yaml.YAMLError) as error:
        raise PublishError(
            f"the front matter of {folder / CARD} is not valid ({' '.join(str(error).split())}); mend it or remove the card"
        ) from None
    return metadata


def _check_model(folder: Path, files: Mapping[str, Path]) -> None:
    """Refuses a model that could not be loaded from its repository.

    Raises:
        PublishError: naming what is missing.
    """
    config = json.loads((folder / "config.json").read_bytes())
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "neurallib":
        raise PublishError(f"{folder} is a model of type {kind!r}, not 'neurallib'; make one with `neurallib assemble`")
    code = {
        f"{str(target).split('.')[0]}.py" for target in (config.get("auto_map") or {"": "modeling_neurallib"}).values()
    }
    weights = {"model.safetensors"}
    index = files.get("model.safetensors.index.json")
    if index is not None:
        weights = set(json.loads(index.read_bytes()).get("weight_map", {}).values())
    missing = sorted((code | weights | {"tokenizer_config.json"}) - set(files))
    if missing:
        raise PublishError(
            f"{folder} is not complete, {', '.join(missing[:4])} is missing; save model and tokenizer again"
        )


def _model_card(folder: Path, files: Mapping[str, Path], repository: str, license: str | None) -> str:
    """The folder's card if it has one, else one made from the model.

    Raises:
        PublishError: the model's libraries are not what its configuration says.
    """
    from huggingface_hub import ModelCard

    from . import NeuralLibConfig
    from .model_cards.model_card import model_card
    from .modeling_neurallib.loaded_libraries import linked_library, records

    config = NeuralLibConfig.from_pretrained(folder)
    # Whatever the card says: libraries are checked, and those by reference fetched, before anybody loads them.
    library = linked_library(config, _instructions(files), {})
    metadata = _metadata(folder)
    if metadata:
        card = ModelCard.load(folder / CARD)
        if license:
            card.data.license = license
        return str(card)
    made = model_card(
        repository,
        Path(str(config.name_or_path)).name or "a Llama",
        config.library,
        {name: _sha256(path) for name, path in files.items() if name.endswith(".py")},
        license=license,
        disabled=config.disabled_programs,
        machine=config.machine,
        libraries=[record.to_dict() for record in records(config)],
        examples=[vars(example) for example in library.worked_examples()] if library is not None else [],
    )
    return str(made)


def _instructions(files: Mapping[str, Path]) -> Any:
    """The instructions inside a model: int64 [P, 5]."""
    import numpy as np
    from safetensors import safe_open

    for name, path in files.items():
        if name.endswith(".safetensors"):
            with safe_open(path, framework="numpy") as tensors:
                for key in tensors.keys():  # noqa: SIM118 - no mapping
                    if key.endswith("computer.instructions"):
                        return tensors.get_tensor(key)
    return np.zeros((0, 5), dtype=np.int64)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
