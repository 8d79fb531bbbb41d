"""Training of the heads by a recipe, the backbone frozen: the Trainer on remembered features, and what came of it."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from ..modeling_neurallib.call import CallLayer
from ..modeling_neurallib.modeling_neurallib import Computer, NeuralLibForCausalLM
from ..modeling_neurallib.objective import CallBatch, MarginalObjective
from ..modeling_neurallib.programs import standard_library
from ..modeling_neurallib.selector import UNSEEN
from .lessons import Lessons, SimilarLengths, collate, prepare
from .recipe import Recipe
from .shipping import load_base, save_heads


class HeadsForTraining(nn.Module):
    """The computer with the marginal objective: what the Trainer optimises while the backbone is frozen.

    Args:
        prompt_weight, stretch: see :class:`Recipe`.
    """

    def __init__(self, computer: Computer, prompt_weight: float, stretch: float):
        super().__init__()
        self.computer, self.prompt_weight, self.stretch = computer, prompt_weight, stretch

    def forward(self, batch: CallBatch, **_: Any) -> dict[str, Tensor]:
        if self.training and self.stretch > 1:
            batch = dataclasses.replace(batch, weights=stretched(batch, self.stretch))
        likelihoods, parts = MarginalObjective(self.computer).score(batch)
        called = torch.tensor([bool(found) for found in batch.explanations])
        # The backbone's own words cost what they cost: only what the heads decide is compared between lessons.
        fixed = torch.where(called, torch.zeros_like(likelihoods), batch.base.sum(1))
        answer = -(likelihoods - fixed).mean()
        prompt = -parts["prompt_no_call"].mean()
        return {"loss": answer + self.prompt_weight * prompt, "answer": answer.detach(), "prompt": prompt.detach()}


def stretched(batch: CallBatch, most: float) -> Tensor:
    """Log-weights [B, L] as if every number, and the token after it, stood there several times: longer lists than were trained on.

    In half of the rows a factor is drawn log-uniformly from 1 to ``most``.
    """
    weights = batch.weights
    factors = torch.rand(len(weights), 1) * torch.log(torch.tensor(most)) * (torch.rand(len(weights), 1) < 0.5)
    numbers = torch.zeros_like(weights, dtype=torch.bool)
    for row, characters in enumerate(batch.characters):
        digits = (characters.code_points >= ord("0")) & (characters.code_points <= ord("9"))
        numbers[row, torch.from_numpy(characters.tokens[digits])] = True
    seen = weights > UNSEEN
    beside = nn.functional.pad(numbers, (1, 0))[:, :-1]
    return torch.where(seen & (numbers | beside), weights + factors, weights)


class NeuralLibTrainer(Trainer):
    """The Hugging Face Trainer for a model with a computer, backbone frozen: features come from a cache, the heads learn.

    Args:
        model: whose heads are trained. prompt_weight, stretch: see :class:`Recipe`.
        kwargs: of ``Trainer``; ``data_collator`` is ours by default.
    """

    def __init__(self, model: NeuralLibForCausalLM, prompt_weight: float = 1.0, stretch: float = 1.0, **kwargs: Any):
        self.language_model = model
        heads = HeadsForTraining(model.computer, prompt_weight, stretch)
        super().__init__(model=heads, **{"data_collator": collate, **kwargs})

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        lessons = self.train_dataset if train_dataset is None else train_dataset
        if isinstance(lessons, Lessons):
            lengths = [len(lesson.conversation.tokens) for lesson in lessons.lessons]
            return SimilarLengths(lengths, self.args.train_batch_size)
        return super()._get_train_sampler(train_dataset)

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
def decided(computer: Computer, lessons: Lessons, batch_size: int = 32) -> dict[str, Any]:
    """What the heads make of lessons, given each prompt and the part of the reply before its first call.

    Returns:
        exact: share of requests whose call, whichever it is, has the right result; selected: share with a call of the program
        that the generator had in mind; read: of those, the share whose copied texts are the truth's, up to spaces and commas;
        quiet: share of general conversations without a call; programs: ``exact`` of each program; confused: pairs
        "wanted→called" with wrong results, most frequent first.
    """
    counts: dict[str, int] = defaultdict(int)
    programs: dict[str, list[bool]] = defaultdict(list)
    confused: dict[str, int] = defaultdict(int)
    for begin in range(0, len(lessons), batch_size):
        chosen = [lessons.lessons[i] for i in range(begin, min(begin + batch_size, len(lessons)))]
        items = [lessons[i] for i in range(begin, begin + len(chosen))]
        ends = [
            lesson.explanations[0].start + 1 if lesson.explanations else len(lesson.conversation.tokens)
            for lesson in chosen
        ]
        width = max(ends)
        features = collate(items)["batch"].features[:, :width]
        tokens = torch.zeros(len(chosen), width, dtype=torch.long)
        mask = torch.zeros(len(chosen), width, dtype=torch.bool)
        for row, (lesson, end) in enumerate(zip(chosen, ends, strict=True)):
            tokens[row, :end] = torch.tensor(lesson.conversation.tokens[:end])
            mask[row, :end] = True
        layer = CallLayer()
        computer.advance(layer, tokens, mask, features)
        for lesson, row_state, end in zip(chosen, layer.rows, ends, strict=True):
            if not lesson.dialogue.steps:
                counts["general"] += 1
                counts["quiet"] += not row_state.calls
                continue
            truth = lesson.dialogue.steps[0]
            call = next((call for call in row_state.calls if call.start == end), None)
            selected = call is not None and call.program.rsplit(".", 1)[-1] == truth.program
            read = selected and call is not None and [*map(_folded, call.arguments)] == [*map(_folded, truth.arguments)]
            exact = call is not None and call.result == truth.answer
            counts["requests"] += 1
            counts["selected"] += selected
            counts["read"] += read
            counts["exact"] += exact
            programs[truth.program].append(exact)
            if not exact:
                confused[f"{truth.program}→{'nothing' if call is None else call.program}"] += 1
    requests, general = max(counts["requests"], 1), max(counts["general"], 1)
    return {
        "exact": counts["exact"] / requests,
        "selected": counts["selected"] / requests,
        "read": counts["read"] / max(counts["selected"], 1),
        "quiet": counts["quiet"] / general,
        "programs": {name: sum(hits) / len(hits) for name, hits in sorted(programs.items())},
        "confused": dict(sorted(confused.items(), key=lambda pair: -pair[1])[:20]),
    }


def _folded(text: str) -> str:
    return " ".join(text.replace(",", " ").split())


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
    training, left_out = prepare(model, tokenizer, recipe, "train", recipe.examples, output)
    validation, _ = prepare(model, tokenizer, recipe, "validation", recipe.validation, output)
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
    trainer = NeuralLibTrainer(model, recipe.prompt_weight, recipe.stretch, args=arguments, train_dataset=training)
    checkpoints = sorted((output / "checkpoints").glob("checkpoint-*"))
    trainer.train(resume_from_checkpoint=bool(checkpoints) and resume)
    model.computer.cpu().eval()
    report = dict(
        left_out=left_out,
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
