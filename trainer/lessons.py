"""Lessons: conversations as tokens, with the calls that explain their replies, and their features."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler
from tqdm.auto import tqdm

from ..modeling_neurallib.modeling_neurallib import Computer, NeuralLibForCausalLM
from ..modeling_neurallib.objective import CallBatch, Explanation, MarginalObjective, search
from ..modeling_neurallib.selector import UNSEEN
from ..modeling_neurallib.writer import LEADS, lead_at_the_end, result_tokens
from .arguments import NeuralLibTrainingArguments, share_of_labels
from .carriers import spots
from .checkpoints import write_whole
from .dialogues import Dialogue, DialogueGenerator, DialogueShares
from .features import Conversation, FeatureCache
from .prompts import has_chat_format, prompt_tokens
from .recipe import Recipe, RecipeError
from .shipping import LOW_RANK
from .wording import TaskError

SYSTEM_MESSAGES = (
    "You are a helpful assistant.",
    "You are a careful assistant. Answer briefly.",
    "Answer the user's question.",
    "You are a friendly tutor who helps with all sorts of questions.",
)
"""Besides the chat template's own, which three of four conversations have."""

PLAIN = (
    "{}", "{}", "{}\n", "{}\n", "{}\n\n", "Q: {}\nA:", "Q: {}\nA:", "Question: {}\nAnswer:", "{}\nAnswer:", "{} Answer:",
    "User: {}\nAssistant:", "Human: {}\nAI:", "Instruction: {}\nResponse:", "### Instruction:\n{}\n\n### Response:\n",
)  # fmt: skip
"""How a message stands where there is no chat template, or who asks does not use it; {} is the message."""

_ALPACA = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
FRAMED = (
    "### Instruction:\n{}\n\n### Response:", f"{_ALPACA}### Instruction:\n{{}}\n\n### Response:", "Instruction: {}",
    "Q: {}\nA:", "Question: {}\nAnswer:", "Question:\n{}\n\nAnswer:", "Problem: {}\nSolution:", "[INST] {} [/INST]",
    "<question>\n{}\n</question>", "Answer the following question.\n\n{}", "{}\n\nAnswer:",
    "Solve the problem below.\n{}", "User: {}\nAssistant:", "Task: {}\nOutput:",
)  # fmt: skip
"""How a message stands within the chat template where it comes from a data set or a program."""

SORTED_TOGETHER = 8
"""Batches whose lessons are sorted by length together and then shuffled."""

REPLIES_AT_ONCE = 64
"""Replies that the backbone writes in one batch."""


@dataclass(frozen=True)
class Lesson:
    """A conversation to learn from.

    Attributes:
        dialogue: where it comes from. conversation: its tokens.
        explanations: the calls that explain its reply; none for a conversation in which nothing is called.
        alone: the backbone alone explains the reply, too. Not where calls were given, or where ``alone_weight`` is 0: an answer
            that it says nearly as well ("2") would otherwise keep a call from being learned at all.
        features_of: the part of the conversation whose features were made, if some explanations were left out since.
    """

    dialogue: Dialogue
    conversation: Conversation
    explanations: tuple[Explanation, ...]
    alone: bool = True
    features_of: Conversation | None = None

    def heard(self, end: int | None) -> Conversation:
        """What the heads must see of the conversation, and the backbone compute.

        The prompt alone, where the result of each call that explains the reply is all of it: then nothing is decided within it,
        and nobody asks what the backbone would say.

        Args:
            end: the token that ends a turn.
        """
        if self.features_of is not None:
            return self.features_of
        tokens, prompt = self.conversation.tokens, self.conversation.prompt
        whole = (prompt - 1, len(tokens) - 1 - prompt)
        if self.alone or not self.explanations or tokens[-1] != end:
            return self.conversation
        if any((one.start, one.length) != whole for one in self.explanations):
            return self.conversation
        return Conversation(tokens[:prompt], prompt)


    def with_explanations(self, explanations: tuple[Explanation, ...], end: int | None) -> Lesson:
        """The lesson with some of its explanations alone, over the features that it has.

        Args:
            end: the token that ends a turn.
        """
        return dataclasses.replace(self, explanations=explanations, features_of=self.heard(end))


Pair = tuple[Dialogue, Conversation]


class LessonWriter:
    """Turns dialogues into lessons: the chat format, the reply cut into tokens, the search for what explains it.

    Raises:
        RecipeError: the tokenizer has no chat format.
    """

    def __init__(self, model: NeuralLibForCausalLM, tokenizer: Any, recipe: Recipe):
        if not has_chat_format(tokenizer):
            raise RecipeError(
                f"the tokenizer of {recipe.base} has no chat template, in which generated requests stand: name an "
                "instruction-tuned base, give the tokenizer a chat_template, or train on rows of your own (data: …)"
            )
        self.model, self.tokenizer, self.recipe = model, tokenizer, recipe
        self.table = model.computer.table
        self.objective = MarginalObjective(model.computer, recipe.budget)
        self.end = model.config.end_of_turn_token_id
        self.alone = float(recipe.arguments.get("alone_weight", NeuralLibTrainingArguments.alone_weight)) > 0

    def prompt(self, messages: Sequence[str], system: str | None) -> list[int]:
        """Tokens of a conversation (user, assistant, user, …), up to where the next reply begins."""
        turns = [{"role": ("user", "assistant")[i % 2], "content": message} for i, message in enumerate(messages)]
        if system is not None:
            turns.insert(0, {"role": "system", "content": system})
        return prompt_tokens(self.tokenizer, turns)

    def plain(self, message: str, frame: str) -> list[int]:
        """Tokens of a message without the chat template, in one of the frames :data:`PLAIN`."""
        return list(self.tokenizer(frame.replace("{}", message))["input_ids"])

    def reply(self, dialogue: Dialogue) -> list[int]:
        """Tokens of the reply: what stands around the results as the tokenizer cuts it, results as the writer does."""
        *befores, after = dialogue.around
        tokens: list[int] = []
        for before, step in zip(befores, dialogue.steps, strict=True):
            lead = lead_at_the_end(before)
            own = before.removesuffix(LEADS[lead])
            tokens += self.tokenizer.encode(own, add_special_tokens=False) if own else []
            tokens += result_tokens(self.table, lead, step.answer)
        return tokens + (self.tokenizer.encode(after, add_special_tokens=False) if after else [])

    def conversation(
        self, dialogue: Dialogue, system: str | None, frame: str | None = None, within: str = "{}"
    ) -> Conversation:
        """The tokens of a dialogue, with its reply if something must be called.

        Args:
            frame: one of :data:`PLAIN`, in the place of the chat template. within: one of :data:`FRAMED`, around the last message
                in the template.
        """
        if frame is None:
            prompt = self.prompt([*dialogue.messages[:-1], within.replace("{}", dialogue.messages[-1])], system)
        else:
            prompt = self.plain(dialogue.messages[0], frame)
            lead = "" if frame[-1] == "\n" else " "
            dialogue = dataclasses.replace(dialogue, reply=lead + "\n".join("{}" for _ in dialogue.steps))
        if not dialogue.steps:
            return Conversation(tuple(prompt), len(prompt))
        return Conversation((*prompt, *self.reply(dialogue), self.end), len(prompt))

    def offsets(self, dialogue: Dialogue, conversation: Conversation) -> list[int]:
        """The character at which each message begins in a conversation.

        Raises:
            RecipeError: the chat template changed a message.
        """
        text = self.table.characters(conversation.tokens[: conversation.prompt]).text()
        found = []
        end = len(text)
        for message in reversed(dialogue.messages):
            at = text.rfind(message.strip(), 0, end)
            if at < 0:
                raise RecipeError(f"the chat template changed the message {message!r}: the conversation lacks it")
            end = at
            found.append(at - (len(message) - len(message.lstrip())))
        return found[::-1]

    def truth(self, dialogue: Dialogue, conversation: Conversation) -> list[Explanation]:
        """The calls that the generator had in mind; none if the reply was cut in another way."""
        offsets = self.offsets(dialogue, conversation)
        reply = list(conversation.tokens[conversation.prompt :])
        calls: list[Explanation] = []
        searched = 0
        for step in dialogue.steps:
            pieces = tuple(
                tuple((start + offsets[message], end + offsets[message]) for message, start, end in argument)
                for argument in step.spans
            )
            program = self.model.computer.programs.index(step.program)
            written = [(lead, result_tokens(self.table, lead, step.answer)) for lead in reversed(range(len(LEADS)))]
            found = next(
                (
                    (at, lead, len(result))
                    for at in range(searched, len(reply))
                    for lead, result in written
                    if reply[at : at + len(result)] == result
                ),
                None,
            )
            if found is None:
                return []
            at, lead, length = found
            calls.append(Explanation(conversation.prompt - 1 + at, program, pieces, lead, length))
            searched = at + length
        return calls

    def lesson(self, dialogue: Dialogue, conversation: Conversation, labelled: bool) -> Lesson | None:
        """None where the reply has no explanation; results that have too many say nothing and are not used."""
        if not dialogue.steps:
            return Lesson(dialogue, conversation, ())
        if labelled:
            found = self.truth(dialogue, conversation)
        else:
            decisions = range(conversation.prompt - 1, len(conversation.tokens) - 1)
            characters = self.table.characters(conversation.tokens)
            found = self.objective.explain(conversation.tokens, list(decisions), characters)
        counts = Counter((one.start, one.length) for one in found)
        kept = tuple(one for one in found if counts[one.start, one.length] <= self.recipe.most_explanations)
        return Lesson(dialogue, conversation, kept, self.alone and not labelled) if kept else None


class Lessons(Dataset):  # type: ignore[type-arg]
    """Lessons with their features."""

    def __init__(self, lessons: Sequence[Lesson], cache: FeatureCache, computer: Computer):
        self.lessons, self.cache, self.computer = lessons, cache, computer
        self.table, self.end = computer.table, computer.config.end_of_turn_token_id

    def __len__(self) -> int:
        return len(self.lessons)

    def quiet_from(self, lesson: Lesson) -> int:
        """The first column at which no call may open: earlier turns, if there are any, made calls of their own."""
        if len(lesson.dialogue.messages) == 1:
            return 0
        tokens = lesson.conversation.tokens[: lesson.conversation.prompt]
        ends = [column for column, token in enumerate(tokens) if token == self.end]
        return ends[-2] if len(ends) > 1 else 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        lesson = self.lessons[index]
        heard, whole = lesson.heard(self.end), lesson.conversation.tokens
        features, base = self.cache[heard]
        tokens = heard.tokens
        return {
            "features": features,
            "base": base,
            "prompt": heard.prompt,
            "quiet": self.quiet_from(lesson),
            "characters": self.table.characters(tokens),
            "goes_on": self.table.goes_on(np.array([tokens]), np.array([-1]))[0],
            "explanations": list(lesson.explanations),
            "alone": lesson.alone,
            "end": len(whole) - 1 if len(whole) > heard.prompt and whole[-1] == self.end else -1,
        }


class SimilarLengths(Sampler[int]):
    """Lessons in random order, but lessons of similar length beside each other, so that batches carry little padding.

    Args:
        lengths: tokens of each lesson. batch_size: lessons in a batch.
        seed: of an order that depends on it and the epoch alone, the same in every process and after a resumption; None draws
            from torch's global generator.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int | None = None):
        self.lengths, self.batch_size, self.seed = lengths, batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = None if self.seed is None else torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        size = self.batch_size * SORTED_TOGETHER
        batches: list[list[int]] = []
        for start in range(0, len(order), size):
            block = sorted(order[start : start + size], key=lambda i: self.lengths[i])
            batches += [block[i : i + self.batch_size] for i in range(0, len(block), self.batch_size)]
        full = [batch for batch in batches if len(batch) == self.batch_size]
        for number in torch.randperm(len(full), generator=generator).tolist():
            yield from full[number]
        for batch in batches:
            if len(batch) < self.batch_size:
                yield from batch


def collate(items: Sequence[dict[str, Any]]) -> dict[str, CallBatch]:
    """Right-padded batch of lessons."""
    longest = max(len(item["features"]) for item in items)
    width = items[0]["features"].shape[1]
    features = torch.zeros(len(items), longest, width)
    weights = torch.full((len(items), longest), UNSEEN)
    prompt = torch.zeros(len(items), longest, dtype=torch.bool)
    decisions = torch.zeros(len(items), longest, dtype=torch.bool)
    base = torch.zeros(len(items), longest)
    for row, item in enumerate(items):
        length = len(item["features"])
        features[row, :length] = torch.from_numpy(np.asarray(item["features"], dtype=np.float32))
        weights[row, :length][~torch.from_numpy(item["goes_on"])] = 0.0
        first = item["prompt"] - 1
        # The last token of a reply has no successor in the lesson; a prompt alone still decides at its last token.
        last = max(length - 1, item["prompt"])
        decisions[row, first:last] = True
        prompt[row, item["quiet"] : first] = True
        base[row, first:last] = torch.from_numpy(np.asarray(item["base"][first:last], dtype=np.float32))
    return {
        "batch": CallBatch(
            features,
            weights,
            prompt,
            [item["characters"] for item in items],
            decisions,
            base,
            [item["explanations"] for item in items],
            [item["end"] for item in items],
            frozenset(row for row, item in enumerate(items) if not item["alone"]),
        )
    }


def weighed(
    lessons: Lessons,
    process: int = 0,
    processes: int = 1,
    batch_size: int = 32,
    unknown: Collection[int] = (),
    kept: Collection[int] = (),
) -> list[tuple[int, tuple[Explanation, ...]]]:
    """The explanations of lessons as the heads see them: see :meth:`MarginalObjective.weighed`.

    Args:
        process, processes: of the lessons that have explanations, every ``processes``-th from ``process`` on is weighed.
        unknown: programs that the heads were never trained for. kept: programs that they are not to be trusted about.
    Returns:
        numbers of lessons, and their explanations.
    """
    objective = MarginalObjective(lessons.computer)
    training = lessons.computer.training
    lessons.computer.eval()
    numbers = [number for number, lesson in enumerate(lessons.lessons) if lesson.explanations][process::processes]
    numbers.sort(key=lambda number: len(lessons.lessons[number].conversation.tokens))
    found: list[tuple[int, tuple[Explanation, ...]]] = []
    with tqdm(total=len(numbers), desc="reading explanations", disable=process > 0) as bar:
        for start in range(0, len(numbers), batch_size):
            chosen = numbers[start : start + batch_size]
            batch = collate([lessons[number] for number in chosen])["batch"].to(lessons.computer.offsets.device)
            found += zip(chosen, map(tuple, objective.weighed(batch, unknown, kept)), strict=True)
            bar.update(len(chosen))
    lessons.computer.train(training)
    return found


def conversations(writer: LessonWriter, split: str, count: int, directory: Path) -> list[Pair]:
    """The dialogues of a split with their replies, as tokens. Number i depends on the recipe, the split and i alone.

    Some replies are sentences: the backbone writes them (its own words, its own wrong values), and the results are put in
    the place of the values.
    """
    recipe = writer.recipe
    try:
        shares = DialogueShares(**recipe.shares)
    except TypeError as error:
        raise RecipeError(f"shares has kinds that there are not: {error}") from error
    asked = recipe.asked_programs()
    told = recipe.emphasis if split == "train" else {}
    emphasis = {program: times for program, times in told.items() if program not in recipe.held_out_programs}
    try:
        generator = DialogueGenerator(
            recipe.seed, split, programs=asked, emphasis=emphasis, mistyped=recipe.mistyped_share  # type: ignore[arg-type]
        )
    except TaskError as error:
        raise RecipeError(str(error)) from error
    dialogues = list(generator.dialogues(count, shares))
    draws = [random.Random(f"{recipe.seed}:{split}:{number}") for number in range(count)]
    systems = [draw.choice(SYSTEM_MESSAGES) if draw.random() < 0.25 else None for draw in draws]
    frames = [_frame(recipe, split, number, dialogue) for number, dialogue in enumerate(dialogues)]
    within = [_within(recipe, split, number, dialogue, frames[number]) for number, dialogue in enumerate(dialogues)]
    spoken = [
        number
        for number, (dialogue, draw) in enumerate(zip(dialogues, draws, strict=True))
        if len(dialogue.steps) == len(dialogue.messages) == 1
        and draw.random() < recipe.sentence_share
        and (frames[number], within[number]) == (None, "{}")
    ]
    prompts = [writer.prompt(dialogues[number].messages, systems[number]) for number in spoken]
    for number, reply in zip(spoken, sampled_replies(writer, prompts, directory), strict=True):
        dialogue = dialogues[number]
        text = writer.table.characters(reply).text()
        template = spots("\n".join(dialogue.messages), text, [step.answer for step in dialogue.steps])
        if template is not None:
            dialogues[number] = dataclasses.replace(dialogue, reply=template)
    return [
        (dialogue, writer.conversation(dialogue, system, frame, around))
        for dialogue, system, frame, around in zip(dialogues, systems, frames, within, strict=True)
    ]


def _frame(recipe: Recipe, split: str, number: int, dialogue: Dialogue) -> str | None:
    """The frame of a message that stands without the chat template; None for a conversation with it."""
    draw = random.Random(f"plain:{recipe.seed}:{split}:{number}")
    if len(dialogue.messages) > 1 or draw.random() >= recipe.plain_share:
        return None
    return "{}" if _is_framed(dialogue) else draw.choice(PLAIN)


def _within(recipe: Recipe, split: str, number: int, dialogue: Dialogue, frame: str | None) -> str:
    """What is around a message within the chat template; mostly nothing."""
    draw = random.Random(f"framed:{recipe.seed}:{split}:{number}")
    if len(dialogue.messages) > 1 or frame is not None or _is_framed(dialogue) or draw.random() >= recipe.framed_share:
        return "{}"
    return draw.choice(FRAMED)


def _is_framed(dialogue: Dialogue) -> bool:
    """A message that ends as a frame does is its own."""
    return dialogue.messages[0][-1:] in (":", ">", "=", "→")


def written_by_the_backbone(writer: LessonWriter, directory: Path) -> list[Pair]:
    """General conversations with replies of the backbone, so that the gate learns to stay shut within a reply."""
    recipe = writer.recipe
    shares = DialogueShares(general=1.0, later=0.0, follow_up=0.0, several=0.0)
    generator = DialogueGenerator(recipe.seed, split="train")
    dialogues = list(generator.dialogues(recipe.replies, shares, start=10**6))
    prompts = [writer.prompt(dialogue.messages, None) for dialogue in dialogues]
    return [
        (dialogue, Conversation((*prompt, *reply), len(prompt)))
        for dialogue, prompt, reply in zip(dialogues, prompts, sampled_replies(writer, prompts, directory), strict=True)
    ]


@torch.no_grad()
def sampled_replies(writer: LessonWriter, prompts: Sequence[list[int]], directory: Path) -> list[list[int]]:
    """Replies that the backbone writes by itself at temperature 0.7, in left-padded batches; remembered in ``directory``."""
    model, recipe = writer.model, writer.recipe
    asked = [recipe.base, recipe.seed, recipe.reply_tokens, prompts]
    adapted = recipe.start_from is not None and (Path(recipe.start_from) / LOW_RANK).is_file()
    told = json.dumps([recipe.start_from, *asked] if adapted else asked)
    remembered = directory / f"replies-{hashlib.sha256(told.encode()).hexdigest()[:16]}.json"
    if remembered.exists():
        stored: list[list[int]] = json.loads(remembered.read_text())
        return stored
    pad = model.config.pad_token_id or 0
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    replies: list[list[int]] = [[] for _ in prompts]
    kept, model.config.disabled_programs = model.config.disabled_programs, model.computer.programs
    try:
        torch.manual_seed(recipe.seed)
        with _threads_of_all(), tqdm(total=len(order), desc="replies of the backbone", leave=False) as bar:
            for start in range(0, len(order), REPLIES_AT_ONCE):
                chosen = order[start : start + REPLIES_AT_ONCE]
                longest = max(len(prompts[i]) for i in chosen)
                tokens = torch.tensor([[pad] * (longest - len(prompts[i])) + prompts[i] for i in chosen])
                mask = torch.tensor([[0] * (longest - len(prompts[i])) + [1] * len(prompts[i]) for i in chosen])
                written = model.generate(
                    tokens.to(model.device), attention_mask=mask.to(model.device), max_new_tokens=recipe.reply_tokens,
                    do_sample=True, temperature=0.7, pad_token_id=pad,
                )  # fmt: skip
                for i, reply in zip(chosen, written[:, longest:].tolist(), strict=True):
                    replies[i] = reply[: reply.index(pad) + 1] if pad in reply else reply
                bar.update(len(chosen))
    finally:
        model.config.disabled_programs = kept
    write_whole(remembered, json.dumps(replies))
    return replies


@contextmanager
def _threads_of_all() -> Iterator[None]:
    """The first process of a machine works with the threads of all of them, while the others wait for it."""
    own = torch.get_num_threads()
    torch.set_num_threads(own * int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    try:
        yield
    finally:
        torch.set_num_threads(own)


def worked_off(work: Callable[[Sequence[int]], list[Any]], count: int, title: str, forked: bool = True) -> list[Any]:
    """What ``work`` makes of the numbers 0 … count − 1, given to it in blocks: on all cores where the platform can fork."""
    global _WORK
    _WORK = work
    blocks = [range(start, min(start + 50, count)) for start in range(0, count, 50)]
    results: list[Any] = []
    with tqdm(total=count, desc=title) as bar:
        if not forked or "fork" not in multiprocessing.get_all_start_methods() or (os.cpu_count() or 1) < 2:
            for block in map(_run_work, blocks):
                results += block
                bar.update(len(block))
        else:
            # Control-C reaches all processes: those of the pool leave it to this one, which then ends them. It waits while they
            # are forked, for what runs in a process that has just begun would show a traceback.
            deaf = (signal.SIGINT, signal.SIG_IGN)
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                with multiprocessing.get_context("fork").Pool(initializer=signal.signal, initargs=deaf) as pool:
                    signal.pthread_sigmask(signal.SIG_SETMASK, before)
                    for block in pool.imap(_run_work, blocks):
                        results += block
                        bar.update(len(block))
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return results


def explained(writer: LessonWriter, pairs: Sequence[Pair], labelled: Sequence[bool], title: str) -> list[Lesson | None]:
    """The lesson of each pair, searched for on all cores (forked, where the platform can: the library is shared that way)."""

    def work(numbers: Sequence[int]) -> list[Lesson | None]:
        return [writer.lesson(*pairs[number], labelled[number]) for number in numbers]

    library, computer = writer.model.library, writer.model.computer
    assert library is not None
    # Compile the engine once before the fork, not once in every process.
    search(library, writer.objective.programs(), "1 2", "3", 1, computer.machine)
    # A forked process cannot use the CUDA of its parent.
    device = computer.offsets.device
    computer.cpu()
    try:
        return worked_off(work, len(pairs), title, forked=not all(labelled))
    finally:
        computer.to(device)


def _search_hash(writer: LessonWriter, pairs: Sequence[Pair], labelled: Sequence[bool]) -> str:
    """What the explanations of conversations depend on."""
    library = writer.model.library
    assert library is not None
    told = [SEARCH, library.fingerprint, LEADS, writer.recipe.budget, writer.recipe.most_explanations, list(labelled)]
    if writer.recipe.held_out_programs:
        told.append(sorted(writer.recipe.held_out_programs))
    return hashlib.sha256(json.dumps([*told, [c.digest for _, c in pairs]]).encode()).hexdigest()[:16]


def restored(dialogue: Dialogue, conversation: Conversation, alone: bool, stored: list[Any] | None) -> Lesson | None:
    """A lesson whose explanations were searched for before."""
    if stored is None:
        return None
    explanations = [
        Explanation(start, program, tuple(tuple((s, e) for s, e in argument) for argument in pieces), *others)
        for start, program, pieces, *others in stored
    ]
    return Lesson(dialogue, conversation, tuple(explanations), alone)


SEARCH = 7
"""Version of the search, by which what earlier versions found is told apart."""

_WORK: Callable[[Sequence[int]], list[Any]] | None = None
"""What the processes of :func:`worked_off` do: inherited by the fork, because a library and a model are not to be pickled."""


def _run_work(numbers: Sequence[int]) -> list[Any]:
    assert _WORK is not None
    return _WORK(numbers)


def lessons_of(
    model: NeuralLibForCausalLM, tokenizer: Any, recipe: Recipe, split: str, count: int, directory: Path
) -> tuple[list[Lesson], dict[str, int]]:
    """Lessons of a split, and how many requests of each program no call was found for.

    Args:
        directory: where replies and explanations are remembered.
    """
    writer = LessonWriter(model, tokenizer, recipe)
    share = share_of_labels(recipe.supervision)
    pairs = conversations(writer, split, count, directory)
    shares = [max([share, *(recipe.labelled.get(step.program, 0.0) for step in d.steps)]) for d, _ in pairs]
    labelled = [
        split != "train" or random.Random(f"labelled:{recipe.seed}:{n}").random() < own for n, own in enumerate(shares)
    ]
    remembered = directory / f"explanations-{split}-{_search_hash(writer, pairs, labelled)}.json"
    if remembered.exists():
        found = [
            restored(*pair, writer.alone and not own, stored)
            for pair, own, stored in zip(pairs, labelled, json.loads(remembered.read_text()), strict=True)
        ]
    else:
        found = explained(writer, pairs, labelled, f"{split}: explaining answers")
        told = [None if one is None else [dataclasses.astuple(e) for e in one.explanations] for one in found]
        write_whole(remembered, json.dumps(told))
    lessons = [lesson for lesson in found if lesson is not None]
    unexplained = (step for (d, _), lesson in zip(pairs, found, strict=True) if lesson is None for step in d.steps)
    left_out = Counter(step.program for step in unexplained)
    if split == "train" and recipe.replies:
        lessons += [Lesson(*pair, ()) for pair in written_by_the_backbone(writer, directory)]
    return lessons, dict(left_out)


def with_features(lessons: Sequence[Lesson], model: NeuralLibForCausalLM, recipe: Recipe, directory: Path) -> Lessons:
    """Lessons with their features, which are remembered in ``directory``; processes that train together divide the work."""
    with tqdm(total=len(lessons), desc="features of the backbone") as bar:
        cache = FeatureCache(model, directory / "features", bool(recipe.arguments.get("bf16_features")))
        end = model.config.end_of_turn_token_id
        cache.fill([lesson.heard(end) for lesson in lessons], progress=bar.update)
    return Lessons(lessons, cache, model.computer)
