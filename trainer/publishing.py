"""What ``neurallib publish`` does: a folder of a library, a model or an adapter, checked, with a card, put up in one commit."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ..configuration.configuration_neurallib import NeuralLibConfig
from ..model_cards.adapter_card import adapter_card
from ..model_cards.published import is_made, published_card
from ..modeling_neurallib.library import NeuralLibrary
from ..modeling_neurallib.library_hub import hub_reason
from ..modeling_neurallib.loaded_libraries import records as library_records
from ..modeling_neurallib.sharing import (
    CARD,
    PublishError,
    evaluation_record,
    model_folder_card,
    own_card,
    sha256,
    training_record,
    versions,
)
from .figures import results_files

LEFT_OUT = ("training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt", "trainer_state.json")
"""What a Trainer leaves for itself: of no use to others, and pickles most of it."""

FOLDERS_LEFT_OUT = ("features", "runs")
"""Folders of a training run: remembered states of the backbone, and logs."""

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
KINDS = (
    *(".safetensors", ".json", ".jsonl", ".py", ".md", ".txt", ".model", ".jinja"),
    *(".yaml", ".yml", ".png", ".svg", ".csv", ".html"),
)
NAMES = ("LICENSE", "NOTICE", ".gitattributes")

ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
HEADS = "base_model.model.model.computer."
"""What the names of the heads' tensors in an adapter begin with."""


@dataclass(frozen=True)
class Publication:
    """What goes into the commit.

    Attributes:
        kind: "library", "model" or "adapter". repository: ``org/name``.
        files: name in the repository → file. card: the text of ``README.md``.
        hashes: name → sha256, the card's among them. left_out: names of files that stay behind.
        replaced: name → content, of files that are not in the folder, or go up otherwise than they lie there.
    """

    kind: str
    repository: str
    files: Mapping[str, Path]
    card: str
    hashes: Mapping[str, str]
    left_out: tuple[str, ...]
    replaced: Mapping[str, bytes]


def prepare(
    folder: Path,
    repository: str,
    license: str | None = None,
    base_model: str | None = None,
    base_revision: str | None = None,
) -> Publication:
    """Check a folder and make its card. Nothing is uploaded, and the folder stays as it is.

    Args:
        base_model, base_revision: ``org/name`` and commit of an adapter's base, where the adapter does not name them.
    Raises:
        PublishError: it is no library, model or adapter, incomplete, or holds what must not be published.
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
    return describe(folder, repository, license, base_model, base_revision)


def describe(
    folder: Path,
    name: str,
    license: str | None = None,
    base_model: str | None = None,
    base_revision: str | None = None,
) -> Publication:
    """As :func:`prepare`, under any name: what a repository would hold."""
    if not folder.is_dir():
        raise PublishError(f"there is no folder {folder}; give the folder of a library, a model or an adapter")
    files, left_out = _files(folder)
    hashes = {each: sha256(path) for each, path in files.items() if each != CARD}
    replaced = results_files(evaluation_record(folder, hashes))
    hashes |= {each: hashlib.sha256(content).hexdigest() for each, content in replaced.items()}
    if "library_config.json" in files:
        kind = "library"
        stray = [each for each in files if each not in ("library_config.json", "library.safetensors", CARD, *NAMES)]
        if stray:
            raise PublishError(f"{folder} is a library, but holds {', '.join(stray[:4])} too; move that elsewhere")
        card = _library_card(folder, name, license)
    elif ADAPTER in files:
        kind = "adapter"
        config, described = _adapter(folder, files, hashes, base_model, base_revision)
        if config != json.loads(files[ADAPTER].read_bytes()):
            replaced[ADAPTER] = (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()
            hashes[ADAPTER] = hashlib.sha256(replaced[ADAPTER]).hexdigest()
        card = _adapter_card(folder, hashes, name, license, config, described)
    elif "config.json" in files:
        kind = "model"
        _check_model(folder, files)
        card = model_folder_card(folder, hashes, name, license=license, base_model=base_model)
    else:
        raise PublishError(
            f"{folder} is neither a library (library_config.json) nor a model (config.json) nor an adapter ({ADAPTER}); "
            "make one with `neurallib compile`, `neurallib assemble` or `neurallib train`"
        )
    files.pop(CARD, None)
    hashes[CARD] = hashlib.sha256(card.encode()).hexdigest()
    return Publication(kind, name, files, card, hashes, left_out, replaced)


def upload(
    publication: Publication,
    private: bool | None = None,
    revision: str | None = None,
    message: str | None = None,
    token: str | None = None,
) -> Any:
    """Put it up in one commit, made after all of its content has arrived: ``CommitInfo``, whose text is the commit's address.

    Raises:
        PublishError: the Hub refuses or cannot be reached; the repository is then as it was.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    repository = publication.repository
    contents: dict[str, Any] = {name: str(path) for name, path in publication.files.items()}
    contents |= {**publication.replaced, CARD: publication.card.encode()}
    try:
        api = HfApi(token=token)
        api.create_repo(repository, private=private, exist_ok=True)
        return api.create_commit(
            repo_id=repository,
            operations=[CommitOperationAdd(name, content) for name, content in contents.items()],
            commit_message=message or f"Upload {publication.kind}",
            revision=revision,
        )
    except Exception as error:  # the HTTP library's, whichever that is, among them
        raise PublishError(f"{repository} cannot be uploaded: {hub_reason(error, repository, revision)}") from error


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
            elif name.startswith("checkpoint-") or (name in FOLDERS_LEFT_OUT and Path(root) == folder):
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
    """Refuses a file that was cut short while it was written, and evaluation results that are none."""
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
    elif name.startswith(".eval_results/"):
        import yaml
        from huggingface_hub import parse_eval_result_entries

        try:
            parse_eval_result_entries(yaml.safe_load(path.read_bytes()))
        except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise PublishError(f"{name} holds no evaluation results as the Hub reads them ({reason})") from None


def _library_card(folder: Path, repository: str, license: str | None) -> str:
    library = NeuralLibrary.from_pretrained(folder)
    return library.card(repository, license or own_card(folder)[1].get("license"))


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


# Adapters


def _adapter(
    folder: Path,
    files: Mapping[str, Path],
    hashes: Mapping[str, str],
    base_model: str | None,
    base_revision: str | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """An adapter's configuration, as it is to be published, and that of its base.

    Raises:
        PublishError: the adapter is incomplete, its base is nowhere to be had, or it was made for another.
    """
    config = json.loads(files[ADAPTER].read_bytes())
    if ADAPTER_WEIGHTS not in files:
        raise PublishError(f"{folder} is not complete, {ADAPTER_WEIGHTS} is missing; save the adapter again")
    if not isinstance(config, dict) or config.get("task_type") != "CAUSAL_LM":
        raise PublishError(f"{ADAPTER} has no task_type 'CAUSAL_LM', so that AutoPeftModelForCausalLM would refuse it")
    named = str(config.get("base_model_name_or_path") or "")
    if base_model is None and (os.path.exists(named) or named.count("/") != 1):
        where = f"the folder {named}" if named else "a model that was put together in memory"
        raise PublishError(
            f"the adapter's base is {where}, which nobody else has: publish the base first, and name it with "
            "--base-model org/name"
        )
    base, revision = base_model or named, base_revision or (None if base_model else config.get("revision"))
    described, commit = _base(base, revision)
    if base_model is not None or base_revision is not None:
        if os.path.isdir(named):
            _check_same_weights(Path(named), base, commit)
        config = config | {"base_model_name_or_path": base, "revision": commit}
    _check_heads(files[ADAPTER_WEIGHTS], training_record(folder, hashes), described, base)
    return config, described


def _adapter_card(
    folder: Path,
    hashes: Mapping[str, str],
    repository: str,
    license: str | None,
    config: Mapping[str, Any],
    described: Mapping[str, Any],
) -> str:
    """An adapter's card: somebody's own, else one made from what is there.

    Args:
        hashes: name → sha256, of the files. config: the adapter's configuration. described: that of its base.
    """
    text, told = own_card(folder)
    if not text or is_made(text):
        text = str(
            adapter_card(
                repository,
                config,
                described.get("library"),
                heads="computer" in (config.get("modules_to_save") or ()),
                disabled=described.get("disabled_programs"),
                license=license or told.get("license"),
                versions=versions("neurallib", "peft", "transformers", "torch", "huggingface_hub"),
                training=training_record(folder, hashes),
                evaluation=evaluation_record(folder, hashes),
            )
        )
    return published_card(text, repository, hashes, folder.absolute().name)


def _base(base: str, revision: str | None) -> tuple[dict[str, Any], str | None]:
    """What the configuration of an adapter's base says, and its commit.

    Raises:
        PublishError: it cannot be had, or is no model that calls programs.
    """
    from huggingface_hub import hf_hub_download

    try:
        path = Path(hf_hub_download(base, "config.json", revision=revision))
    except Exception as error:  # the HTTP library's, whichever that is, among them
        reason = hub_reason(error, base, revision)
        raise PublishError(f"the adapter's base {base} cannot be had from the Hub: {reason}") from error
    described: dict[str, Any] = json.loads(path.read_bytes())
    if described.get("model_type") != "neurallib":
        raise PublishError(
            f"the adapter's base {base} is a model of type {described.get('model_type')!r} without a computer: publish the "
            "model that it was trained on, and name it with --base-model org/name"
        )
    # The client keeps files as snapshots/COMMIT/NAME.
    return described, path.parent.name


def _check_heads(weights: Path, record: Mapping[str, Any] | None, described: Mapping[str, Any], base: str) -> None:
    """Refuses an adapter whose heads are for other programs than its base has.

    Args:
        record: of the training; it says which libraries the heads were trained with. described: the base's configuration.
    Raises:
        PublishError: naming the programs, or their numbers.
        LibraryError: the base's configuration contradicts itself.
    """
    from safetensors import safe_open

    way_out = "publish the base that it was trained on, with its libraries, and name it with --base-model org/name"
    with safe_open(weights, framework="numpy") as tensors:
        if f"{HEADS}offsets" not in tensors.keys():  # noqa: SIM118 - no mapping
            return
        trained = tensors.get_slice(f"{HEADS}offsets").get_shape()[0]
        code = tensors.get_slice(f"{HEADS}instructions").get_shape()[0]
    programs = len((described.get("library") or {}).get("programs", []))
    if trained != programs:
        raise PublishError(
            f"the adapter's heads choose among {trained} programs, its base {base} has {programs}: {way_out}"
        )
    here = library_records(NeuralLibConfig.from_dict(dict(described)))
    instructions = sum(library.instructions for library in here if not library.by_reference)
    if code != instructions:
        raise PublishError(
            f"the adapter was trained with {code} instructions inside its base, {base} has {instructions}: {way_out}"
        )
    known = (record or {}).get("libraries") or []
    wanted = [f"{each['name']}.{program}" for each in known for program in each["programs"]]
    found = [f"{each.name}.{program}" for each in here for program in each.programs]
    for one, other in zip_longest(wanted, found, fillvalue="none") if known else ():
        if one != other:
            raise PublishError(
                f"the adapter's heads were trained for the program {one} where its base {base} has {other}: {way_out}"
            )
    for each, library in zip(known, here, strict=False):
        if each["fingerprint"] and library.fingerprint and each["fingerprint"] != library.fingerprint:
            raise PublishError(
                f"the adapter's heads were trained with library {library.name} of sha256 {each['fingerprint']}, that of its base "
                f"{base} is {library.fingerprint}: {way_out}"
            )


def _check_same_weights(folder: Path, base: str, commit: str | None) -> None:
    """Refuses a base on the Hub whose weights are not those of the folder that the adapter was trained on.

    Raises:
        PublishError: they differ, or the Hub cannot be asked.
    """
    from huggingface_hub import HfApi

    try:
        there = HfApi().model_info(base, revision=commit, files_metadata=True).siblings or []
    except Exception as error:  # the HTTP library's, whichever that is, among them
        raise PublishError(f"{base} cannot be compared with {folder}: {hub_reason(error, base, commit)}") from error
    listed = {each.rfilename: each.lfs.sha256 for each in there if each.lfs is not None}
    for path in sorted(folder.glob("model*.safetensors")):
        if listed.get(path.name) != sha256(path):
            raise PublishError(
                f"{base} is not the base of this adapter: its {path.name} is another than that in {folder}; publish that folder"
            )
