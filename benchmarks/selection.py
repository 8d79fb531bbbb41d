"""How well the choice of a program is learned from answers alone, by what a labelling that nobody reads counts as.

    python benchmarks/selection.py --output runs/smollm2-135m [--epochs 1] [--ways candidates explanations calls] [key=value …]

Fresh heads learn to choose and nothing else (a reading weight of 0), by the lessons of a recipe; lessons and features that lie in
the output folder are used again. Printed is the share of requests for which the program that the generator had in mind is the
likeliest of all, on lessons of training and on lessons in held-out wordings, and the share of other messages at whose end "no
call" is the likeliest.

``candidates``: what ships; an explanation counts as one of all labellings that the search ran of its program.
``explanations``: it counts as one of those with which its program explains the answer, so every program that can explain it counts
alike. ``calls``: the calls are given, which is how well the choice can be learned at all. With ``whitening=0`` the heads learn in
the backbone's own coordinates.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from neurallib.modeling_neurallib.call import CallLayer
from neurallib.modeling_neurallib.objective import Explanation
from neurallib.trainer.lessons import Lesson, Lessons, LessonWriter, SimilarLengths, collate, lessons_of, with_features
from neurallib.trainer.recipe import Recipe
from neurallib.trainer.runs import model_of
from neurallib.trainer.training import HeadsForTraining
from neurallib.trainer.whitening import whitened_for

RECIPE = Path(__file__).parent.parent / "configuration" / "recipes" / "smollm2-135m.yaml"


def counted(lesson: Lesson, way: str, writer: LessonWriter) -> Lesson:
    """A lesson whose explanations count as a way says."""
    found: Sequence[Explanation] = lesson.explanations
    if way == "calls" and found:
        found = writer.truth(lesson.dialogue, lesson.conversation) or found
    elif way == "explanations":
        alike = Counter((one.start, one.length, one.program) for one in found)
        found = [dataclasses.replace(one, candidates=alike[one.start, one.length, one.program]) for one in found]
    return dataclasses.replace(lesson, explanations=tuple(found))


@torch.no_grad()
def chosen(lessons: Lessons, batch: int = 32) -> dict[str, float]:
    """The share of right choices at the end of the prompt, by kind of conversation."""
    computer, hits = lessons.computer.eval(), defaultdict(list)
    numbers = sorted(range(len(lessons)), key=lambda i: len(lessons.lessons[i].conversation.tokens))
    for start in range(0, len(numbers), batch):
        part = [lessons.lessons[number] for number in numbers[start : start + batch]]
        ends = [
            min((one.start for one in lesson.explanations), default=lesson.conversation.prompt - 1) for lesson in part
        ]
        features = collate([lessons[number] for number in numbers[start : start + batch]])["batch"].features
        tokens = torch.zeros(features.shape[:2], dtype=torch.long)
        mask = torch.zeros(features.shape[:2], dtype=torch.bool)
        for row, (lesson, end) in enumerate(zip(part, ends, strict=True)):
            tokens[row, : end + 1] = torch.tensor(lesson.conversation.tokens[: end + 1])
            mask[row, : end + 1] = True
        _, choices, _ = computer.consider(CallLayer(), tokens, mask, features)
        likeliest = choices[torch.arange(len(part)), torch.tensor(ends)].argmax(-1).tolist()
        for lesson, index in zip(part, likeliest, strict=True):
            dialogue = lesson.dialogue
            wanted = 1 + computer.programs.index(dialogue.steps[0].program) if dialogue.steps else 0
            single = len(dialogue.steps) == len(dialogue.messages) == 1
            kind = "single requests" if single else "other requests" if dialogue.steps else "no call"
            hits[kind].append(index == wanted)
    return {kind: sum(found) / len(found) for kind, found in sorted(hits.items())}


def learn(lessons: Lessons, recipe: Recipe, epochs: int) -> None:
    """Choosing alone, for a few passes over the lessons."""
    computer = lessons.computer
    computer.alone_weight, computer.reading_weight = float(recipe.arguments.get("alone_weight", 1.0)), 0.0
    model = HeadsForTraining(computer).train()
    ridge = float(recipe.arguments.get("whitening", 0.0))
    with whitened_for(lessons, [computer.projection.linear], ridge):
        optimise(model, lessons, recipe, epochs)
    computer.reading_weight = 1.0


def optimise(model: HeadsForTraining, lessons: Lessons, recipe: Recipe, epochs: int) -> None:
    computer = model.computer
    optimizer = torch.optim.AdamW(computer.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    size = recipe.batch_size
    sampler = SimilarLengths([len(one.conversation.tokens) for one in lessons.lessons], size, seed=recipe.seed)
    steps, step = epochs * len(lessons) // size, 0
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        order = list(sampler)
        for start in range(0, len(order), size):
            warm, cosine = min(1.0, step / 100), 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * warm * cosine
            batch = collate([lessons[number] for number in order[start : start + size]])
            loss = -model(**batch)["log_likelihoods"].mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(computer.parameters(), 1.0)
            optimizer.step()
            step += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the recipe")
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--output", type=Path, required=True, help="folder of lessons and features")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--ways", nargs="+", choices=["candidates", "explanations", "calls"], default=None)
    arguments = parser.parse_args()
    recipe = Recipe.load(arguments.recipe, [f"output={arguments.output}", *arguments.overrides])
    arguments.output.mkdir(parents=True, exist_ok=True)
    torch.set_flush_denormal(True)
    for way in arguments.ways or ("candidates", "explanations", "calls"):
        torch.manual_seed(recipe.seed)
        model, tokenizer = model_of(recipe)
        writer = LessonWriter(model, tokenizer, recipe)
        lessons, _ = lessons_of(model, tokenizer, recipe, "train", recipe.examples, arguments.output)
        held_out, _ = lessons_of(model, tokenizer, recipe, "validation", recipe.validation, arguments.output)
        training = with_features([counted(one, way, writer) for one in lessons], model, recipe, arguments.output)
        validation = with_features(held_out, model, recipe, arguments.output)
        learn(training, recipe, arguments.epochs)
        some = Lessons(training.lessons[:2_000], training.cache, model.computer)
        report = {"training": chosen(some), "held-out wordings": chosen(validation)}
        print(json.dumps({"way": way, "epochs": arguments.epochs, "lessons": len(lessons), **report}), flush=True)


if __name__ == "__main__":
    main()
