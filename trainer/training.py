"""From a recipe to trained heads: requests, features, explanations, the Trainer, the tensors that ship."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm
from transformers import Trainer, TrainingArguments

from ..modeling_neurallib.characters import Characters
from ..modeling_neurallib.modeling_neurallib import Computer, NeuralLibForCausalLM
from ..modeling_neurallib.objective import CallBatch, Explanation, MarginalObjective, search
from ..modeling_neurallib.programs import standard_library
from ..modeling_neurallib.writer import result_tokens
from .features import Conversation, FeatureCache
from .shipping import load_base, save_heads
from .tasks import Example, RequestGenerator


class RecipeError(ValueError):
    """A recipe that cannot be followed."""


@dataclass
class Recipe:
    """What a training run depends on.

    Attributes:
        base: "smollm2-135m", a model id or a folder.
        output: folder of checkpoints and of the trained heads.
        examples: requests drawn. general_share: part of them that ask for nothing to be called.
        replies: general requests whose reply is written by the backbone first, so that the gate learns to stay shut within
            replies. reply_tokens: their length.
        sentence_share: part of the other requests whose reply is a sentence with the result in it.
        supervision: "answers" (the search explains them), "calls" (the truth is given), or a share of requests with the truth.
        budget: exact runs spent on the search of one answer. most_explanations: an answer with more is left out.
        validation: requests with wordings that training never sees.
        prompt_weight: weight of "no call within the prompt" beside the likelihood of the reply.
        heads: fields of ``NeuralLibConfig`` that shape the heads.
        seed, epochs, batch_size, learning_rate, weight_decay, warmup: of the optimisation.
    """

    base: str = "smollm2-135m"
    output: str = "runs/smollm2-135m"
    examples: int = 7_000
    general_share: float = 0.25
    replies: int = 300
    reply_tokens: int = 20
    sentence_share: float = 0.06
    supervision: str | float = "answers"
    budget: int = 6_000
    most_explanations: int = 64
    validation: int = 480
    prompt_weight: float = 1.0
    heads: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    epochs: float = 6.0
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    warmup: float = 0.05

    @classmethod
    def load(cls, path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
        """A recipe from YAML, with ``key=value`` overrides.

        Raises:
            RecipeError: no such file, not a mapping, an unknown key (the nearest valid one is named), a value of another type.
        """
        import difflib

        try:
            values = yaml.safe_load(Path(path).read_text()) or {}
        except OSError as error:
            raise RecipeError(f"the recipe {path} cannot be read: {error.strerror}") from error
        except yaml.YAMLError as error:
            raise RecipeError(f"the recipe {path} is not YAML: {error}") from error
        if not isinstance(values, dict):
            raise RecipeError(f"the recipe {path} must be a mapping of keys to values, found {type(values).__name__}")
        for override in overrides:
            key, equals, value = override.partition("=")
            if not equals:
                raise RecipeError(f"an override has the form key=value, found {override!r}")
            values[key] = yaml.safe_load(value)
        fields = {f.name: f for f in dataclasses.fields(cls)}
        for key, value in values.items():
            if key not in fields:
                nearest = difflib.get_close_matches(str(key), fields, n=1)
                hint = f"; did you mean {nearest[0]!r}?" if nearest else f"; known keys: {', '.join(fields)}"
                raise RecipeError(f"the recipe has no key {key!r}{hint}")
            default = getattr(cls(), key)
            accepts: tuple[type, ...] = (int, float) if isinstance(default, float) else (type(default),)
            accepts = (str, float, int) if key == "supervision" else accepts
            if not isinstance(value, accepts) or (isinstance(value, bool) and bool not in accepts):
                raise RecipeError(f"{key} must be {' or '.join(t.__name__ for t in accepts)}, found {value!r}")
        return cls(**values)


SYSTEM_MESSAGES = (
    "You are a helpful assistant.",
    "You are a careful assistant. Answer briefly.",
    "Answer the user's question.",
    "You are a friendly tutor who helps with all sorts of questions.",
)
"""Besides the chat template's own, which three of four conversations have."""

SENTENCES = (
    ("Answer in a full sentence.", "The answer is {}."),
    ("Please reply with a complete sentence.", "The result is {}."),
    ("Reply in one sentence.", "It is {}."),
    ("Write your answer as a sentence.", "The result of this calculation is {}."),
    ("Use a full sentence for the answer.", "That gives {}."),
    ("Give the answer in a sentence.", "Sure, here is the answer: {}"),
    ("Respond in a sentence.", "The correct answer is {}."),
    ("Say it in a sentence.", "You get {}."),
)


@dataclass(frozen=True)
class Lesson:
    """A conversation to learn from.

    Attributes:
        example: where it comes from. conversation: its tokens. offset: the character at which the user's message begins.
        explanations: the calls that explain its reply; none for a conversation in which nothing is called.
    """

    example: Example
    conversation: Conversation
    offset: int
    explanations: tuple[Explanation, ...]


class LessonWriter:
    """Turns examples into lessons: the chat format, the reply cut into tokens, the search for what explains it."""

    def __init__(self, model: NeuralLibForCausalLM, tokenizer: Any, recipe: Recipe):
        self.model, self.tokenizer, self.recipe = model, tokenizer, recipe
        self.table = model.computer.table
        self.objective = MarginalObjective(model.computer, recipe.budget)
        self.end = model.config.end_of_turn_token_id

    def prompt(self, message: str, system: str | None) -> list[int]:
        """Tokens of a conversation with one message, up to where the reply begins."""
        turns = [{"role": "user", "content": message}]
        if system is not None:
            turns.insert(0, {"role": "system", "content": system})
        encoded = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)
        return list(encoded["input_ids"])

    def conversation(self, example: Example, rng: random.Random) -> tuple[Example, Conversation]:
        """The tokens of an example with the reply that it asks for: the result alone, or a sentence with it."""
        system = rng.choice(SYSTEM_MESSAGES) if rng.random() < 0.25 else None
        answer = example.answer
        if answer is None:
            prompt = self.prompt(example.prompt, system)
            return example, Conversation(tuple(prompt), len(prompt))
        if rng.random() < self.recipe.sentence_share:
            request, carrier = rng.choice(SENTENCES)
            example = dataclasses.replace(example, prompt=f"{example.prompt.rstrip()} {request}")
            before, after = carrier.split("{}")
            lead = before.endswith(" ")
            tokens = [*self.tokenizer.encode(before.rstrip(" "), add_special_tokens=False)]
            tokens += result_tokens(self.table, int(lead), answer)
            tokens += self.tokenizer.encode(after, add_special_tokens=False) if after else []
        else:
            tokens = result_tokens(self.table, 0, answer)
        prompt = self.prompt(example.prompt, system)
        return example, Conversation((*prompt, *tokens, self.end), len(prompt))

    def offset(self, example: Example, characters: Characters) -> int:
        """The character at which the user's message begins in a conversation."""
        text = characters.text()
        at = text.find(example.prompt.strip())
        if at < 0:
            raise RecipeError(
                f"the chat template changed the message {example.prompt!r}: it is not found in the conversation"
            )
        return at - (len(example.prompt) - len(example.prompt.lstrip()))

    def truth(
        self, example: Example, conversation: Conversation, characters: Characters, offset: int
    ) -> list[Explanation]:
        """The call that the generator had in mind."""
        assert example.answer is not None and example.program is not None
        reply = conversation.tokens[conversation.prompt :]
        pieces = tuple(tuple((s + offset, e + offset) for s, e in argument) for argument in example.spans)
        program = self.model.computer.programs.index(example.program)
        for lead in (0, 1):
            written = result_tokens(self.table, lead, example.answer)
            for at in range(len(reply) - len(written) + 1):
                if list(reply[at : at + len(written)]) == written:
                    return [Explanation(conversation.prompt - 1 + at, program, pieces, lead, len(written))]
        return []

    def lesson(self, example: Example, conversation: Conversation, labelled: bool) -> Lesson | None:
        """None where the reply has no explanation, or too many."""
        if example.answer is None:
            return Lesson(example, conversation, 0, ())
        characters = self.table.characters(conversation.tokens)
        offset = self.offset(example, characters)
        if labelled:
            found = self.truth(example, conversation, characters, offset)
        else:
            decisions = range(conversation.prompt - 1, len(conversation.tokens) - 1)
            found = self.objective.explain(conversation.tokens, list(decisions), characters)
        if not found or len(found) > self.recipe.most_explanations:
            return None
        return Lesson(example, conversation, offset, tuple(found))


@torch.no_grad()
def sampled_replies(
    model: NeuralLibForCausalLM, prompts: Sequence[list[int]], length: int, seed: int, batch: int = 32
) -> Iterator[list[int]]:
    """Replies that the backbone writes by itself, left-padded batches, sampled at temperature 0.7."""
    torch.manual_seed(seed)
    pad = model.config.pad_token_id or 0
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    replies: dict[int, list[int]] = {}
    for start in tqdm(range(0, len(order), batch), desc="replies of the backbone", leave=False):
        chosen = order[start : start + batch]
        longest = max(len(prompts[i]) for i in chosen)
        tokens = torch.tensor([[pad] * (longest - len(prompts[i])) + prompts[i] for i in chosen])
        mask = torch.tensor([[0] * (longest - len(prompts[i])) + [1] * len(prompts[i]) for i in chosen])
        written = model.generate(
            tokens.to(model.device), attention_mask=mask.to(model.device), max_new_tokens=length, do_sample=True,
            temperature=0.7, pad_token_id=pad,
        )  # fmt: skip
        for i, reply in zip(chosen, written[:, longest:].tolist(), strict=True):
            end = reply.index(pad) + 1 if pad in reply else len(reply)
            replies[i] = reply[:end]
    for i in range(len(prompts)):
        yield replies[i]


class Lessons(Dataset):  # type: ignore[type-arg]
    """Lessons with their features."""

    def __init__(self, lessons: Sequence[Lesson], cache: FeatureCache, computer: Computer):
        self.lessons, self.cache = lessons, cache
        self.table, self.end = computer.table, computer.config.end_of_turn_token_id

    def __len__(self) -> int:
        return len(self.lessons)

    def __getitem__(self, index: int) -> dict[str, Any]:
        lesson = self.lessons[index]
        features, base = self.cache[lesson.conversation]
        tokens = lesson.conversation.tokens
        return {
            "features": features,
            "base": base,
            "prompt": lesson.conversation.prompt,
            "characters": self.table.characters(tokens),
            "explanations": list(lesson.explanations),
            "end": len(tokens) - 1 if len(tokens) > lesson.conversation.prompt and tokens[-1] == self.end else -1,
        }


def collate(items: Sequence[dict[str, Any]]) -> dict[str, CallBatch]:
    """Right-padded batch of lessons."""
    longest = max(len(item["features"]) for item in items)
    width = items[0]["features"].shape[1]
    features = torch.zeros(len(items), longest, width)
    mask = torch.zeros(len(items), longest, dtype=torch.bool)
    decisions = torch.zeros(len(items), longest, dtype=torch.bool)
    base = torch.zeros(len(items), longest)
    for row, item in enumerate(items):
        length = len(item["features"])
        features[row, :length] = torch.from_numpy(np.asarray(item["features"], dtype=np.float32))
        mask[row, :length] = True
        first = item["prompt"] - 1
        # The last token of a reply has no successor in the lesson; a prompt alone still decides at its last token.
        last = max(length - 1, item["prompt"])
        decisions[row, first:last] = True
        base[row, first:last] = torch.from_numpy(np.asarray(item["base"][first:last], dtype=np.float32))
    return {
        "batch": CallBatch(
            features,
            mask,
            [item["characters"] for item in items],
            decisions,
            base,
            [item["explanations"] for item in items],
            [item["end"] for item in items],
        )
    }


class HeadsForTraining(nn.Module):
    """The computer with the marginal objective: what the Trainer optimises while the backbone is frozen."""

    def __init__(self, computer: Computer, prompt_weight: float):
        super().__init__()
        self.computer, self.prompt_weight = computer, prompt_weight

    def forward(self, batch: CallBatch, **_: Any) -> dict[str, Tensor]:
        likelihoods, parts = MarginalObjective(self.computer).score(batch)
        called = torch.tensor([bool(found) for found in batch.explanations])
        # The backbone's own words cost what they cost: only what the heads decide is compared between lessons.
        fixed = torch.where(called, torch.zeros_like(likelihoods), batch.base.sum(1))
        answer = -(likelihoods - fixed).mean()
        prompt = -parts["prompt_no_call"].mean()
        return {"loss": answer + self.prompt_weight * prompt, "answer": answer.detach(), "prompt": prompt.detach()}


class NeuralLibTrainer(Trainer):
    """The Hugging Face Trainer for a model with a computer, backbone frozen: features come from a cache, the heads learn.

    Args:
        model: whose heads are trained. prompt_weight: see :class:`Recipe`.
        kwargs: of ``Trainer``; ``data_collator`` is ours by default.
    """

    def __init__(self, model: NeuralLibForCausalLM, prompt_weight: float = 1.0, **kwargs: Any):
        self.language_model = model
        super().__init__(model=HeadsForTraining(model.computer, prompt_weight), **{"data_collator": collate, **kwargs})

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        outputs = model(**inputs)
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]


@torch.no_grad()
def decided(computer: Computer, lessons: Lessons, batch_size: int = 32) -> dict[str, float]:
    """Where the accuracy goes, on lessons.

    Returns:
        selected: share of requests with a call of the program that the generator had in mind; read: of those, the share whose
        copied texts are those of the truth, up to spaces and commas; exact: share of requests whose call, whichever it is, has
        the right result; quiet: share of general conversations without a call.
    """
    from ..modeling_neurallib.reader import argument_texts, decode_labelling

    counts = {"requests": 0, "selected": 0, "read": 0, "exact": 0, "general": 0, "quiet": 0}
    for start in range(0, len(lessons), batch_size):
        indices = range(start, min(start + batch_size, len(lessons)))
        batch = collate([lessons[i] for i in indices])["batch"]
        states = computer.projection(batch.features)
        query, key, value = computer.selector.split(states)
        causal = torch.ones(states.shape[1], states.shape[1], dtype=torch.bool).tril()
        pooled = computer.selector.pool(states, query, key, value, causal[None, None] & batch.mask[:, None, None, :])
        keys = computer.keys()
        choices = computer.selector(pooled, keys, computer.allowed())
        for row, index in enumerate(indices):
            lesson = lessons.lessons[index]
            if lesson.example.answer is None:
                counts["general"] += 1
                opened = (choices[row, :, 0].exp() < 1 - computer.config.call_threshold) & batch.decisions[row]
                counts["quiet"] += not bool(opened.any())
                continue
            counts["requests"] += 1
            at = lesson.explanations[0].start
            choice = choices[row, at]
            program = int(choice[1:].argmax())
            if float(choice[0].exp()) >= 1 - computer.config.call_threshold:
                continue
            right = computer.programs[program] == lesson.example.program
            counts["selected"] += right
            characters = lessons.table.characters(lesson.conversation.tokens[: at + 1])
            prefix = states[row : row + 1, : at + 1]
            encoded = computer.reader.encode(
                prefix, torch.ones_like(prefix[..., 0], dtype=torch.bool), pooled[row : row + 1, at]
            )
            scores = computer.reader(
                encoded, torch.from_numpy(characters.code_points)[None], torch.from_numpy(characters.tokens)[None],
                keys[program].view(1, 1, -1),
            )[0, 0]  # fmt: skip
            labelling = decode_labelling(scores.numpy(), computer.arities[program], computer.config.reader_switch_cost)
            texts = argument_texts(labelling, characters.code_points, characters.boundary, computer.arities[program])
            counts["read"] += right and [_folded(t) for t in texts] == [_folded(t) for t in lesson.example.arguments]
            outcome, _ = computer.run(computer.programs[program], texts, computer.config.max_steps)
            counts["exact"] += outcome is not None and outcome.text == lesson.example.answer
    requests, general = max(counts["requests"], 1), max(counts["general"], 1)
    return {
        "selected": counts["selected"] / requests,
        "read": counts["read"] / max(counts["selected"], 1),
        "exact": counts["exact"] / requests,
        "quiet": counts["quiet"] / general,
    }


def _folded(text: str) -> str:
    return " ".join(text.replace(",", " ").split())


def conversations(writer: LessonWriter, recipe: Recipe, split: str, count: int) -> list[tuple[Example, Conversation]]:
    """The requests of a split with their replies, as tokens. Number i depends on the recipe, the split and i alone."""
    generator = RequestGenerator(recipe.seed, split=split)  # type: ignore[arg-type]
    examples = generator.examples(count, general_share=recipe.general_share)
    return [
        writer.conversation(example, random.Random(f"{recipe.seed}:{split}:{number}"))
        for number, example in enumerate(examples)
    ]


def written_by_the_backbone(
    model: NeuralLibForCausalLM, writer: LessonWriter, recipe: Recipe
) -> list[tuple[Example, Conversation]]:
    """General requests with replies of the backbone, so that the gate learns to stay shut within a reply."""
    generator = RequestGenerator(recipe.seed, split="train")
    requests = [generator.general() for _ in range(recipe.replies)]
    prompts = [writer.prompt(request.prompt, None) for request in requests]
    replies = sampled_replies(model, prompts, recipe.reply_tokens, recipe.seed)
    return [
        (request, Conversation((*prompt, *reply), len(prompt)))
        for request, prompt, reply in zip(requests, prompts, replies, strict=True)
    ]


def explained(
    writer: LessonWriter, pairs: Sequence[tuple[Example, Conversation]], labelled: Sequence[bool], title: str
) -> list[Lesson | None]:
    """The lesson of each pair, searched for on all cores (forked, where the platform can: the library is shared that way)."""

    def work(numbers: Sequence[int]) -> list[Lesson | None]:
        return [writer.lesson(*pairs[number], labelled[number]) for number in numbers]

    global _WORK
    _WORK = work
    blocks = [range(start, min(start + 50, len(pairs))) for start in range(0, len(pairs), 50)]
    lessons: list[Lesson | None] = []
    library = writer.model.library
    assert library is not None
    with tqdm(total=len(pairs), desc=title) as bar:
        if "fork" not in multiprocessing.get_all_start_methods() or (os.cpu_count() or 1) < 2 or all(labelled):
            done = map(_run_work, blocks)
            for block in done:
                lessons += block
                bar.update(len(block))
        else:
            # Compile the engine once before the fork, not once in every process.
            search(library, writer.objective.programs(), "1 2", "3", 1, writer.model.computer.machine)
            with multiprocessing.get_context("fork").Pool() as pool:
                for block in pool.imap(_run_work, blocks):
                    lessons += block
                    bar.update(len(block))
    return lessons


def _search_hash(writer: LessonWriter, pairs: Sequence[tuple[Example, Conversation]], labelled: Sequence[bool]) -> str:
    """What the explanations of conversations depend on."""
    library = writer.model.library
    assert library is not None
    told = [library.fingerprint, writer.recipe.budget, writer.recipe.most_explanations, list(labelled)]
    return hashlib.sha256(json.dumps([*told, [c.digest for _, c in pairs]]).encode()).hexdigest()[:16]


def restored(
    writer: LessonWriter, example: Example, conversation: Conversation, stored: list[Any] | None
) -> Lesson | None:
    """A lesson whose explanations were searched for before."""
    if stored is None:
        return None
    if example.answer is None:
        return Lesson(example, conversation, 0, ())
    explanations = [
        Explanation(start, program, tuple(tuple((s, e) for s, e in argument) for argument in pieces), lead, length)
        for start, program, pieces, lead, length in stored
    ]
    offset = writer.offset(example, writer.table.characters(conversation.tokens))
    return Lesson(example, conversation, offset, tuple(explanations))


_WORK: Callable[[Sequence[int]], list[Lesson | None]] | None = None
"""What the processes of :func:`explained` do: inherited by the fork, because a library and a model are not to be pickled."""


def _run_work(numbers: Sequence[int]) -> list[Lesson | None]:
    assert _WORK is not None
    return _WORK(numbers)


def prepare(
    model: NeuralLibForCausalLM, tokenizer: Any, recipe: Recipe, split: str, count: int, directory: Path
) -> tuple[Lessons, dict[str, Any]]:
    """Lessons of a split with their features, and what was left out."""
    writer = LessonWriter(model, tokenizer, recipe)
    share = {"answers": 0.0, "calls": 1.0}.get(str(recipe.supervision))
    share = float(recipe.supervision) if share is None else share
    lessons: list[Lesson] = []
    left_out: dict[str, int] = {}
    pairs = conversations(writer, recipe, split, count)
    labelled = [split != "train" or random.Random(f"labelled:{recipe.seed}:{n}").random() < share for n in range(count)]
    remembered = directory.parent / f"explanations-{split}-{_search_hash(writer, pairs, labelled)}.json"
    if remembered.exists():
        found = [
            restored(writer, *pair, stored)
            for pair, stored in zip(pairs, json.loads(remembered.read_text()), strict=True)
        ]
    else:
        found = explained(writer, pairs, labelled, f"{split}: explaining answers")
        scratch = remembered.with_suffix(f".{os.getpid()}")
        scratch.write_text(
            json.dumps([None if one is None else [dataclasses.astuple(e) for e in one.explanations] for one in found])
        )
        os.replace(scratch, remembered)
    for (example, _), lesson in zip(pairs, found, strict=True):
        if lesson is None:
            left_out[str(example.program)] = left_out.get(str(example.program), 0) + 1
        else:
            lessons.append(lesson)
    if split == "train" and recipe.replies:
        lessons += [Lesson(*pair, 0, ()) for pair in written_by_the_backbone(model, writer, recipe)]
    with tqdm(total=len(lessons), desc=f"{split}: features of the backbone") as bar:
        cache = FeatureCache(model, directory)
        cache.fill([lesson.conversation for lesson in lessons], progress=bar.update)
    return Lessons(lessons, cache, model.computer), {"left_out": left_out}


def train(recipe_path: str | Path, overrides: Iterable[str] = (), resume: bool = True) -> dict[str, Any]:
    """Train the heads by a recipe; continues from the last checkpoint in the output folder.

    Returns:
        what was measured on wordings never seen, also written to ``report.json`` beside the heads.
    """
    recipe = Recipe.load(recipe_path, overrides)
    output = Path(recipe.output)
    output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    base, tokenizer = load_base(recipe.base)
    model = NeuralLibForCausalLM.from_llama(
        base, standard_library(), tokenizer=tokenizer, heads={"disabled_programs": NOT_FOR_REQUESTS, **recipe.heads}
    )
    training, report = prepare(model, tokenizer, recipe, "train", recipe.examples, output / "features")
    validation, _ = prepare(model, tokenizer, recipe, "validation", recipe.validation, output / "features")
    arguments = TrainingArguments(
        output_dir=str(output / "checkpoints"),
        per_device_train_batch_size=recipe.batch_size,
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        warmup_steps=recipe.warmup,
        lr_scheduler_type="cosine",
        max_grad_norm=1.0,
        logging_steps=25,
        save_steps=200,
        save_total_limit=2,
        remove_unused_columns=False,
        report_to=[],
        seed=recipe.seed,
        use_cpu=not torch.cuda.is_available(),
    )
    trainer = NeuralLibTrainer(model, recipe.prompt_weight, args=arguments, train_dataset=training)
    checkpoints = sorted((output / "checkpoints").glob("checkpoint-*"))
    trainer.train(resume_from_checkpoint=bool(checkpoints) and resume)
    model.computer.cpu().eval()
    report.update(
        lessons=len(training),
        training=decided(model.computer, Lessons(training.lessons[:400], training.cache, model.computer)),
        validation=decided(model.computer, validation),
        recipe=dataclasses.asdict(recipe),
    )
    save_heads(model, output / "heads", report)
    scratch = output / f"report.json.{os.getpid()}"
    scratch.write_text(json.dumps(report, indent=2))
    os.replace(scratch, output / "report.json")
    return report


NOT_FOR_REQUESTS = ["fibonacci_recursive", "insertion_sort"]
"""Programs of the standard library that do what another one does, kept for study: a request is answered by the other."""
