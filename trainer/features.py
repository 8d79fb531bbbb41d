"""Backbone features of training conversations, computed once and kept on disk, because a frozen backbone never changes them."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import distributed
from transformers import LlamaConfig
from transformers.cache_utils import DynamicCache
from transformers.utils import logging

from ..modeling_neurallib.modeling_neurallib import NeuralLibForCausalLM

logger = logging.get_logger(__name__)

SHARD = 512
"""Conversations a file: what an interruption can cost."""


@dataclass(frozen=True)
class Conversation:
    """A request with its reply, as tokens.

    Attributes:
        tokens: of the whole conversation, the end of the turn included where the reply closes it.
        prompt: how many of them are the prompt.
    """

    tokens: tuple[int, ...]
    prompt: int

    @property
    def digest(self) -> str:
        """Names the conversation in the cache."""
        return hashlib.sha256(np.array((self.prompt, *self.tokens), dtype=np.int64).tobytes()).hexdigest()[:32]


def multiplies_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 itself. A processor without AVX-512 is told to by software, a hundred times slower."""
    if device.type != "cpu":
        return True
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class FeatureCache:
    """Features float16 and the backbone's log-probability of each next token, memory-mapped, in shards of conversations.

    One folder belongs to one backbone and one choice of layers. The tokens that the conversations of a shard begin with
    (system prompt, headers) are computed and stored once a shard.

    Args:
        model: the backbone. directory: parent of the folder, which is named by a hash of the backbone's weights.
        bf16: compute in bfloat16, where the device multiplies it: see :func:`multiplies_bf16`.
    """

    def __init__(self, model: NeuralLibForCausalLM, directory: Path, bf16: bool = False):
        self.model, self.bf16 = model, bf16 and multiplies_bf16(model.device)
        if self.bf16 != bf16:
            logger.warning("this processor does not multiply bfloat16: features are computed in float32")
        self.directory = directory / (backbone_hash(model) + ("-bf16" if self.bf16 else ""))
        self.directory.mkdir(parents=True, exist_ok=True)
        self._places: dict[str, tuple[np.ndarray, np.ndarray, tuple[int, int, int, int]]] = {}
        self._opened: set[str] = set()
        self._open_all()

    def _open_all(self) -> None:
        for index in sorted(self.directory.glob("[!.]*/index.json")):
            self._open(index.parent)

    def _open(self, shard: Path) -> None:
        if shard.name in self._opened:
            return
        self._opened.add(shard.name)
        index = json.loads((shard / "index.json").read_text())
        features = np.memmap(shard / "features.f16", dtype=np.float16, mode="r", shape=tuple(index["shape"]))
        base = np.load(shard / "base.npy", mmap_mode="r")
        for digest, span in index["spans"].items():
            self._places[digest] = (features, base, tuple(span))

    def __contains__(self, conversation: Conversation) -> bool:
        return conversation.digest in self._places

    def __getitem__(self, conversation: Conversation) -> tuple[np.ndarray, np.ndarray]:
        """(features [L, F], base [L]: log-probability of the token after each position of the reply, else 0)."""
        features, base, (head, shared, start, end) = self._places[conversation.digest]
        return (
            np.concatenate([features[head : head + shared], features[start:end]]),
            np.concatenate([np.zeros(shared, dtype=np.float32), base[start:end]]),
        )

    def own(self, conversation: Conversation) -> np.ndarray:
        """Its features [·, F] without the tokens that all conversations of its shard begin with."""
        features, _, (_, _, start, end) = self._places[conversation.digest]
        return features[start:end]

    def fill(
        self,
        conversations: Sequence[Conversation],
        batch_tokens: int = 1_024,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Compute what is missing; processes that train together each compute a part, and all must call this.

        Args:
            batch_tokens: tokens of a forward pass, padding included.
            progress: called with the number of conversations that each batch of this process adds.
        """
        together = distributed.is_available() and distributed.is_initialized()
        process, processes = (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)
        missing = list({c.digest: c for c in conversations if c not in self}.values())
        if progress is not None:
            progress(len(conversations) - len(missing))
        # By digest, because another process may already have added to what this one found on disk.
        missing = [c for c in missing if int(c.digest, 16) % processes == process]
        missing.sort(key=lambda conversation: conversation.tokens[:8])
        for start in range(0, len(missing), SHARD):
            self._open(self._compute(missing[start : start + SHARD], batch_tokens, progress))
        if together:
            distributed.barrier()
            self._open_all()

    def _compute(
        self, conversations: Sequence[Conversation], batch_tokens: int, progress: Callable[[int], None] | None
    ) -> Path:
        """A shard, which appears in one step, when all of it is written."""
        name = hashlib.sha256("".join(c.digest for c in conversations).encode()).hexdigest()[:16]
        scratch, target = self.directory / f".{name}.{os.getpid()}", self.directory / name
        shutil.rmtree(scratch, ignore_errors=True)  # a process of this number that was killed may have left one
        scratch.mkdir()
        try:
            self._write(scratch, conversations, batch_tokens, progress)
            os.replace(scratch, target)
        finally:
            for left in self.directory.glob(f".{name}.*"):  # by another that was killed, too
                shutil.rmtree(left, ignore_errors=True)
        return target

    def _write(
        self,
        folder: Path,
        conversations: Sequence[Conversation],
        batch_tokens: int,
        progress: Callable[[int], None] | None,
    ) -> None:
        model = self.model
        groups: dict[tuple[int, ...], list[Conversation]] = defaultdict(list)
        for conversation in conversations:
            groups[conversation.tokens[:8]].append(conversation)
        shared = {beginning: _common(group) for beginning, group in groups.items()}
        width = model.config.hidden_size * len(model.config.feature_layers or [])
        total = sum(shared[b] + sum(len(c.tokens) - shared[b] for c in group) for b, group in groups.items())
        features = _on_disk(folder / "features.f16", (total, width))
        base = np.zeros(total, dtype=np.float32)
        spans: dict[str, tuple[int, int, int, int]] = {}
        at = 0
        autocast = torch.autocast(model.device.type, torch.bfloat16, enabled=self.bf16)
        with torch.no_grad(), autocast:
            for beginning, group in groups.items():
                length = shared[beginning]
                cache = DynamicCache(config=model.config)
                head = at
                if length:
                    tokens = torch.tensor([group[0].tokens[:length]], device=model.device)
                    output = model.model(
                        tokens, cache=cache, use_cache=True, decide_calls=False, output_hidden_states=True
                    )
                    features[at : at + length] = model.model.features(output.hidden_states)[0].cpu().numpy()
                    at += length
                replied = [conversation for conversation in group if len(conversation.tokens) > conversation.prompt]
                silent = [conversation for conversation in group if len(conversation.tokens) == conversation.prompt]
                for batch in [*_batches(silent, length, batch_tokens), *_batches(replied, length, batch_tokens)]:
                    longest = max(len(c.tokens) for c in batch) - length
                    own = torch.zeros(len(batch), longest, dtype=torch.long)
                    mask = torch.zeros(len(batch), length + longest, dtype=torch.long)
                    for row, conversation in enumerate(batch):
                        own[row, : len(conversation.tokens) - length] = torch.tensor(conversation.tokens[length:])
                        mask[row, : len(conversation.tokens)] = 1
                    past = copy.deepcopy(cache)
                    if length:
                        past.batch_repeat_interleave(len(batch))
                    words = any(len(c.tokens) > c.prompt for c in batch)
                    with nullcontext() if words else lower_layers_alone(model):
                        output = model.model(
                            own.to(model.device), attention_mask=mask.to(model.device), cache=past, use_cache=True,
                            decide_calls=False, output_hidden_states=True,
                        )  # fmt: skip
                    found = model.model.features(output.hidden_states).cpu().numpy()
                    for row, conversation in enumerate(batch):
                        count = len(conversation.tokens) - length
                        features[at : at + count] = found[row, :count]
                        first = conversation.prompt - 1 - length
                        if first < count - 1:
                            logits = (
                                model.lm_head(output.last_hidden_state[row, first : count - 1]).float().log_softmax(-1)
                            )
                            following = own[row, first + 1 : count].to(logits.device)
                            base[at + first : at + count - 1] = (
                                logits.gather(-1, following[:, None])[:, 0].cpu().numpy()
                            )
                        spans[conversation.digest] = (head, length, at, at + count)
                        at += count
                    if progress is not None:
                        progress(len(batch))
        features.flush()
        np.save(folder / "base.npy", base)
        (folder / "index.json").write_text(json.dumps({"shape": [total, width], "spans": spans}))


@contextmanager
def lower_layers_alone(model: NeuralLibForCausalLM) -> Iterator[None]:
    """Within, the backbone runs no further than features need: one layer beyond the last of theirs, whose state would else be
    the normalised one."""
    config, layers = model.config, model.config.num_hidden_layers
    config.num_hidden_layers = min(layers, max(config.feature_layers or [layers]) + 1)
    try:
        yield
    finally:
        config.num_hidden_layers = layers


def _on_disk(path: Path, shape: tuple[int, int]) -> np.memmap:
    """A new float16 array in a file whose place on the disk is taken at once.

    Raises:
        OSError: there is no place. Of a sparse file one would hear nothing until a write into it kills the process.
    """
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate") and shape[0] * shape[1]:
            os.posix_fallocate(file.fileno(), 0, 2 * shape[0] * shape[1])
    return np.memmap(path, dtype=np.float16, mode="r+" if path.stat().st_size else "w+", shape=shape)


def _batches(conversations: Sequence[Conversation], shared: int, batch_tokens: int) -> Iterator[list[Conversation]]:
    """Conversations of similar length together, each batch at most ``batch_tokens`` with its padding."""
    batch: list[Conversation] = []
    for conversation in sorted(conversations, key=lambda c: len(c.tokens)):
        if batch and (len(batch) + 1) * (len(conversation.tokens) - shared) > batch_tokens:
            yield batch
            batch = []
        batch.append(conversation)
    if batch:
        yield batch


def _common(conversations: Sequence[Conversation]) -> int:
    """How many tokens all of them begin with, always leaving the last prompt token out."""
    first = conversations[0].tokens
    length = min(conversation.prompt for conversation in conversations) - 1
    for conversation in conversations:
        tokens = conversation.tokens
        length = next((i for i in range(length) if tokens[i] != first[i]), length)
    return length


ASIDE = {"architectures", "bos_token_id", "dtype", "eos_token_id", "pad_token_id", "transformers_version", "use_cache"}
"""Fields of a Llama's configuration that its hidden states do not depend on."""


def backbone_hash(model: NeuralLibForCausalLM) -> str:
    """A hash of what features depend on besides the tokens: every weight of the backbone, its configuration, the layers."""
    told = model.config.to_dict()
    kept = {name: told.get(name) for name in sorted(LlamaConfig().to_dict().keys() - ASIDE)}
    digest = hashlib.blake2b(json.dumps([model.config.feature_layers, kept], default=str).encode(), digest_size=8)
    for name, weight in sorted(model.state_dict().items()):
        if ".computer." not in name:
            digest.update(name.encode())
            digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
