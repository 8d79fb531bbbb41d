"""How a model goes to the Hub with a card made from its files, and what an adapter made for it is checked against.

What is heavy is imported where it is needed: a library is published without torch.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from huggingface_hub import ModelCard, try_to_load_from_cache

from ..model_cards.model_card import model_card
from ..model_cards.published import is_made, published_card
from .library_errors import LibraryError
from .library_hub import hub_reason

if TYPE_CHECKING:
    from torch import Tensor

CARD = "README.md"
RECORD = "training_record.json"
"""What a training run leaves beside the weights: see :func:`~.training_section.training_fields`."""
EVALUATION = "evaluation_record.json"
"""What an evaluation leaves there: see :func:`~.evaluation_section.evaluation_fields`."""

UNTRAINED_BIAS = 8.0
"""Logit of "no call" in a selector that has not been trained."""


_NO_SPACE = re.compile(
    r"no space left|os error 2[78]\b|file too large|disk quota exceeded|file write failed|PytorchStreamWriter failed",
    re.I,
)


class PublishError(RuntimeError):
    """Something that cannot be published: the message says what was found, and the way out."""


class AdapterError(ValueError):
    """An adapter that is not for this model."""


def no_space(error: BaseException) -> bool:
    """Whether an error, or one that led to it, says that the device is full."""
    seen: BaseException | None = error
    while seen is not None:
        if getattr(seen, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or _NO_SPACE.search(str(seen)):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions(*packages: str) -> dict[str, str]:
    """Package → version, of those that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def own_card(folder: Path) -> tuple[str, dict[str, Any]]:
    """The text of the card that lies in a folder, and its front matter; nothing if there is none.

    Raises:
        PublishError: the front matter is not valid.
    """
    import yaml

    path = folder / CARD
    if not path.is_file():
        return "", {}
    text = path.read_text(encoding="utf-8")
    try:
        return text, ModelCard(text).data.to_dict()
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise PublishError(f"the front matter of {path} is not valid ({reason}); mend it or remove the card") from None


def training_record(folder: Path, hashes: Mapping[str, str]) -> dict[str, Any] | None:
    """The record of the training that made the files of a folder; None if there is none, or it tells of other weights.

    Args:
        hashes: name → sha256, of the files.
    """
    return _record(folder, hashes, RECORD)


def evaluation_record(folder: Path, hashes: Mapping[str, str]) -> dict[str, Any] | None:
    """The record of an evaluation of these very files, likewise."""
    return _record(folder, hashes, EVALUATION)


def _record(folder: Path, hashes: Mapping[str, str], name: str) -> dict[str, Any] | None:
    if name not in hashes:
        return None
    record: Any = json.loads((folder / name).read_bytes())
    weights = record.get("weights") if isinstance(record, dict) else None
    if not isinstance(weights, dict) or not weights or any(hashes.get(name) != its for name, its in weights.items()):
        return None
    return dict(record)


def model_folder_card(
    folder: Path,
    hashes: Mapping[str, str],
    name: str,
    *,
    license: str | None = None,
    base_model: str | None = None,
) -> str:
    """The card of a model's folder: somebody's own with the files listed anew, else one made from what is there.

    Args:
        folder: of the model. hashes: name → sha256, of all files that go with the card. name: ``org/name``, or the folder's.
        license, base_model: identifiers; by default those of the card that is there.
    Raises:
        PublishError: the card's front matter is not valid.
        LibraryError: the model's libraries are not what its configuration says.
    """
    from ..configuration.configuration_neurallib import NeuralLibConfig
    from .loaded_libraries import linked_library, records

    text, told = own_card(folder)
    config = NeuralLibConfig.from_pretrained(folder)
    tensors = _tensors([folder / each for each in hashes if each.endswith(".safetensors")])
    # Whatever the card says: libraries are checked, and those by reference fetched, before anybody loads them.
    library = linked_library(config, tensors.get("instructions", np.zeros((0, 5), dtype=np.int64)), {})
    if text and not is_made(text):
        if license:
            card: Any = ModelCard(text)
            card.data.license = license
            text = str(card)
    else:
        record = training_record(folder, hashes)
        base_model = base_model or (record or {}).get("base_model") or told.get("base_model")
        base_model = None if base_model == name else base_model
        bias = tensors.get("bias")
        made = model_card(
            name,
            str(base_model).rsplit("/", 1)[-1] if base_model else "A Llama",
            config.library,
            {each: digest for each, digest in hashes.items() if each.endswith(".py")},
            base_model=base_model,
            license=license or told.get("license"),
            language=told.get("language"),
            trained=bias is None or bool(np.any(bias != UNTRAINED_BIAS)),
            disabled=config.disabled_programs,
            machine=config.machine,
            versions=versions("neurallib", "transformers", "torch", "huggingface_hub"),
            libraries=[each.to_dict() for each in records(config)],
            examples=[vars(example) for example in library.worked_examples()] if library is not None else [],
            training=record,
            evaluation=evaluation_record(folder, hashes),
        )
        text = str(made)
    return published_card(text, name, hashes, folder.absolute().name)


def _tensors(files: Iterable[Path]) -> dict[str, np.ndarray]:
    """``instructions`` int64 [P, 5] and ``bias`` float32 [1] (of "no call") of a saved model, where it has them."""
    from safetensors import safe_open

    wanted = {"computer.instructions": "instructions", "computer.selector.no_call.bias": "bias"}
    found = {}
    for path in files:
        with safe_open(path, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - no mapping
                for end, name in wanted.items():
                    if key.endswith(end):
                        tensor = tensors.get_tensor(key)
                        found[name] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return found


class Sharing:
    """What a model does when it goes to the Hub, and when an adapter comes from there."""

    config: Any

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As ``PreTrainedModel.from_pretrained``; the configuration then knows the commit, for adapters that are made on it."""
        stock: Any = super()
        source = pretrained_model_name_or_path
        loaded = stock.from_pretrained(source, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if source is not None and not os.path.exists(source):
            where = [kwargs.get(name) for name in ("revision", "cache_dir", "subfolder")]
            found = commit_of(str(source), *where) or getattr(model.config, "_commit_hash", None)
            model.config._commit_hash = found
            if found is None:
                from transformers.utils import logging

                logging.get_logger(__name__).warning(
                    f"the commit at which {source} was loaded is not known: an adapter that is made on it will not record it, and "
                    "one that is loaded into it is not checked against it"
                )
        return loaded

    def push_to_hub(self, repo_id: str, *args: Any, **kwargs: Any) -> Any:
        """As ``PreTrainedModel.push_to_hub``, with a card made from the files that go up, and the tokenizer if it is passed.

        Args:
            kwargs: ``tokenizer``, and what the stock one takes.
        Raises:
            PublishError: nothing went up: the Hub refuses or cannot be reached, or there is no space left to save what goes.
            LibraryError: a library in the model is not what it must be.
        """
        stock: Any = super()
        self._companion = kwargs.pop("tokenizer", None)
        try:
            return stock.push_to_hub(repo_id, *args, **kwargs)
        except (PublishError, LibraryError):
            raise
        except Exception as error:  # the HTTP library's and safetensors' own, whichever those are, among them
            reason = hub_reason(error, repo_id, kwargs.get("revision"))
            if no_space(error):
                reason = f"no space left in {tempfile.gettempdir()} to save what goes up; free some, or set TMPDIR"
            raise PublishError(f"{repo_id} cannot be uploaded: {reason}") from error
        finally:
            del self._companion

    def _upload_modified_files(self, working_dir: Any, repo_id: str, *args: Any, **kwargs: Any) -> Any:
        """What ``push_to_hub`` and ``save_pretrained(push_to_hub=True)`` end with: here the folder gets its card."""
        stock: Any = super()
        folder = Path(working_dir)
        if getattr(self, "_companion", None) is not None:
            self._companion.save_pretrained(folder)
        hashes = {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.is_file() and path.name != CARD}
        card = model_folder_card(folder, hashes, repo_id, base_model=hub_name(self.config))
        (folder / CARD).write_text(card, encoding="utf-8")
        return stock._upload_modified_files(working_dir, repo_id, *args, **kwargs)

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args: Any, **kwargs: Any) -> None:
        """As ``nn.Module``'s, but an adapter is checked first: PEFT itself asks neither for the base's revision nor its library.

        Raises:
            AdapterError: it was made for another model.
        """
        stock: Any = super()
        for adapter in getattr(self, "peft_config", {}).values():
            check_base(self.config, adapter)
        if getattr(self, "peft_config", None):
            own = dict(self.named_parameters()) | dict(self.named_buffers())  # type: ignore[attr-defined]
            _check_shapes({name.removeprefix(prefix): each for name, each in state_dict.items()}, own)
        stock._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def hub_name(config: Any) -> str | None:
    """``org/name`` from which a model came; None if it came from elsewhere."""
    name = str(config.name_or_path or "")
    return name if name.count("/") == 1 and not name.startswith((".", "/", "~")) and not os.path.exists(name) else None


def commit_of(
    repository: str, revision: str | None = None, cache: str | Path | None = None, subfolder: str | None = None
) -> str | None:
    """The commit that a revision of a repository stands for in the client's cache, which a load has just filled.

    Args:
        subfolder: of the repository, in which the model is.
    """
    resolved = getattr(revision, "resolved", revision)
    name = PurePosixPath(subfolder or "", "config.json")
    found = try_to_load_from_cache(repository, str(name), cache_dir=cache, revision=resolved)
    # The client keeps files as snapshots/COMMIT/NAME.
    return Path(found).parents[len(name.parts) - 1].name if isinstance(found, str) else None


def base_revision(config: Any) -> str | None:
    """The commit at which a model came from the Hub."""
    found: str | None = getattr(config, "_commit_hash", None)
    return found if hub_name(config) else None


def check_base(config: Any, adapter: Any) -> None:
    """Refuses an adapter whose base, by its own record, is another revision of this model.

    Raises:
        AdapterError: naming both revisions.
    """
    name, here, wanted = hub_name(config), base_revision(config), str(adapter.revision)
    known = here is not None and adapter.base_model_name_or_path == name and re.fullmatch("[0-9a-f]{40}", wanted)
    if known and wanted != here:
        raise AdapterError(
            f"the adapter was made for {name} at revision {wanted}, this model is its revision {here}: load the base with "
            f"revision={wanted!r}, or let AutoPeftModelForCausalLM do it"
        )


def _check_shapes(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Raises AdapterError: tensors of other shapes than the model's, or instructions of another library."""
    way_out = "load it on the base that its adapter_config.json names"
    for name, tensor in found.items():
        here = own.get(name)
        if here is None:
            continue
        if here.shape != tensor.shape:
            raise AdapterError(
                f"the adapter was made for a model of another shape: {name} is {list(tensor.shape)}, this model's is "
                f"{list(here.shape)}; {way_out}, with the libraries that it had"
            )
        if name.endswith((".instructions", ".token_bytes")) and not here.is_meta and not here.cpu().equal(tensor.cpu()):
            what = "another tokenizer" if name.endswith("bytes") else "other programs than this model has"
            raise AdapterError(f"the adapter was made for {what}; {way_out}")
