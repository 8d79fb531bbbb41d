"""Programs that training never asked for: how often they are selected by their docstrings, and after a few examples.

    python benchmarks/held_out_programs.py train --output runs/held-out-first [--recipe R.yaml] first [key=value …]
    python benchmarks/held_out_programs.py measure --output runs/held-out-first [--device cuda]

``train`` makes the first run of a recipe with six programs held out (``first`` or ``second``, chosen before any result was seen);
it goes on from its last checkpoint, and does nothing where the heads lie in the output folder. A GPU is used where there is one.
``measure`` needs of that folder only ``heads``. It enables the held-out programs and asks for them, and for the others, by
wordings of the validation split, which no training saw. Selected means: the gate opens at the end of the prompt, and of all
programs the model calls the one that the request is for; exact, that the result is right.

With n examples of each held-out program only the offsets of the held-out programs' keys are tuned, on the CPU; other keys stay,
to the last bit. The examples have wordings of the training split. ``answers``: nothing but the answers is told, and the calls
are searched for; ``calls``: they are given. Beside them stand ``--replay`` requests of the programs known before, with their
calls, and general messages, a quarter, so that the new keys learn what is not theirs. The seconds are those of the whole
tuning, from the text of the examples and of the replay on: search, states of the backbone, optimisation.

``calibrated``: the new programs have a bias, as ``load_library(bias=…)`` gives a library. It is the largest up to 0 with which
they take no more than ``--taken`` of the requests, in training wordings with new values, of programs known before; no request
of a new program is needed for it.

What ``measure`` has found lies in ``held_out_programs.json`` in the output folder, and what stands there is not measured again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from neurallib.modeling_neurallib.call import CallLayer
from neurallib.trainer.arguments import NeuralLibTrainingArguments
from neurallib.trainer.dialogues import Dialogue
from neurallib.trainer.features import Conversation, FeatureCache
from neurallib.trainer.lessons import Lesson, Lessons, LessonWriter, collate, explained
from neurallib.trainer.outcomes import calls_of_lessons
from neurallib.trainer.recipe import Recipe
from neurallib.trainer.runs import NOT_FOR_REQUESTS, train
from neurallib.trainer.shipping import load_base, load_heads
from neurallib.trainer.tasks import Example, RequestGenerator
from neurallib.trainer.training import NeuralLibTrainer
from neurallib.trainer.wording import PARAMETERS

HELD_OUT = {
    # Four have a twin among the known ones, which a careless selector would call in their place; two have none.
    "first": ("subtract", "least_common_multiple", "minimum", "sort_descending", "text_length", "is_prime"),
    "second": ("divide", "factorial", "mean", "count_letter", "reverse_list", "compare"),
}
RECIPE = Path(__file__).parent.parent / "configuration" / "recipes" / "smollm2-135m.yaml"
RESULTS = "held_out_programs.json"
SEED = 30_001
"""Not a seed of training: the values of requests are new."""


class Measurement:
    """A model whose held-out programs are enabled, and requests to measure it with.

    Args:
        output: of ``train``. requests: asked for each held-out program. known: asked for the others, a fifth of them general
            messages. calibration: requests that the bias is found with. device: where the backbone reads the requests.
        base: where the backbone lies; as the recipe says if None.
    """

    def __init__(self, output: Path, requests: int, known: int, calibration: int, device: str, base: str | None):
        described = json.loads((output / "heads" / "heads_config.json").read_text())
        told = described["report"]["recipe"]
        self.recipe = Recipe(
            **{field.name: told[field.name] for field in dataclasses.fields(Recipe) if field.name in told}
        )
        self.held_out = list(self.recipe.held_out_programs)
        backbone, self.tokenizer = load_base(base or self.recipe.base)
        self.model = load_heads(backbone, self.tokenizer, output / "heads").eval()
        self.computer = self.model.computer
        self.numbers = [self.computer.programs.index(name) for name in self.held_out]
        if self.computer.offsets.detach()[self.numbers].any():
            raise SystemExit("the held-out programs have offsets: they were trained")
        self.before = self.computer.offsets.detach().clone()
        self.writer = LessonWriter(self.model, self.tokenizer, self.recipe)
        self.cache = FeatureCache(self.model, output / "features")
        self.known = [name for name in PARAMETERS if name not in self.held_out]
        self.model.to(device)
        self.requests = {
            "held out": self._asked(self.held_out, requests * len(self.held_out), 0.0),
            "known": self._asked(self.known, known, 0.2),
        }
        drawn = RequestGenerator(SEED + 99, "train", programs=self.known).examples(calibration, general_share=0.0)
        self.calibration = self._prompts(drawn)
        self.model.to("cpu")

    def _asked(self, programs: Sequence[str], count: int, general: float) -> Lessons:
        """Requests in wordings of the validation split."""
        return self._prompts(
            RequestGenerator(SEED, "validation", programs=programs).examples(count, general_share=general)
        )

    def _prompts(self, examples: Iterable[Example]) -> Lessons:
        """Prompts with their features."""
        lessons = []
        for example in examples:
            prompt = tuple(self.writer.prompt([example.prompt], None))
            lessons.append(Lesson(Dialogue.from_example(example), Conversation(prompt, len(prompt)), ()))
        self.cache.fill([lesson.conversation for lesson in lessons])
        return Lessons(lessons, self.cache, self.computer)

    def enable(self, held_out: bool) -> None:
        """Whether the held-out programs can be called."""
        self.model.config.disabled_programs = [*NOT_FOR_REQUESTS, *(() if held_out else self.held_out)]

    def bias(self, value: float) -> None:
        """What is added to the logit of each held-out program."""
        biases = torch.zeros(len(self.before))
        biases[self.numbers] = value
        self.computer.biases = lambda: biases if value else None
        self.computer.eval()

    @torch.no_grad()
    def calibrated(self, taken: float, batch: int = 32) -> float:
        """The bias with which held-out programs take no more than this share of the calibration's requests."""
        self.bias(0.0)
        margins = []
        others = torch.ones(len(self.before), dtype=torch.bool)
        others[self.numbers] = False
        for start in range(0, len(self.calibration), batch):
            numbers = range(start, min(start + batch, len(self.calibration)))
            features = collate([self.calibration[number] for number in numbers])["batch"].features
            tokens = torch.zeros(features.shape[:2], dtype=torch.long)
            mask = torch.zeros(features.shape[:2], dtype=torch.bool)
            for row, number in enumerate(numbers):
                prompt = torch.tensor(self.calibration.lessons[number].conversation.tokens)
                tokens[row, : len(prompt)], mask[row, : len(prompt)] = prompt, True
            _, choices, _ = self.computer.consider(CallLayer(), tokens, mask, features)
            scores = choices[torch.arange(len(numbers)), mask.sum(1) - 1, 1:]
            margins += (scores[:, self.numbers].amax(1) - scores[:, others].amax(1)).tolist()
        return min(0.0, -sorted(margins, reverse=True)[int(taken * len(margins))] - 1e-3)

    def results(self, kind: str, batch: int = 32) -> dict[str, Any]:
        """What the model makes of the requests of a kind, as it is now."""
        lessons, counts, confused = self.requests[kind], Counter[str](), Counter[str]()
        programs: dict[str, list[bool]] = defaultdict(list)
        self.computer.eval()
        for start in range(0, len(lessons), batch):
            numbers = range(start, min(start + batch, len(lessons)))
            ends = [lessons.lessons[number].conversation.prompt for number in numbers]
            for number, end, calls in zip(numbers, ends, calls_of_lessons(lessons, numbers, ends), strict=True):
                call = next((call for call in calls if call.start == end), None)
                steps = lessons.lessons[number].dialogue.steps
                if not steps:
                    counts["general"] += 1
                    counts["quiet"] += call is None
                    continue
                selected = call is not None and call.program == steps[0].program
                programs[steps[0].program].append(selected)
                counts["asked"] += 1
                counts["selected"] += selected
                counts["exact"] += call is not None and call.result == steps[0].answer
                counts["stolen"] += call is not None and not selected and call.program in self.held_out
                if not selected:
                    confused[f"{steps[0].program}→{'nothing' if call is None else call.program}"] += 1
        return {
            "selected": counts["selected"] / counts["asked"],
            "exact": counts["exact"] / counts["asked"],
            "programs": {name: sum(found) / len(found) for name, found in programs.items()},
            "confused": dict(confused.most_common(12)),
            "requests": counts["asked"],
            "taken by held-out programs": counts["stolen"],
            **({"quiet": counts["quiet"] / counts["general"]} if counts["general"] else {}),
        }

    def tune(self, shots: int, supervision: str, draw: int, replay: int, steps: int, rate: float) -> dict[str, Any]:
        """Tune the keys of the held-out programs by a few examples of each; from the docstrings' keys on."""
        with torch.no_grad():
            self.computer.offsets.copy_(self.before)
        examples: list[Example] = []
        for program in self.held_out:
            generator = RequestGenerator(SEED + 1 + draw, "train", programs=[program])
            examples += [generator.example(program) for _ in range(shots)]
        count = len(examples)
        examples += RequestGenerator(SEED + 1 + draw, "train", programs=self.known).examples(replay, general_share=0.25)
        folder = Path(f"{self.cache.directory}.tuning.{os.getpid()}")
        began = time.perf_counter()
        dialogues = [Dialogue.from_example(example) for example in examples]
        pairs = [(dialogue, self.writer.conversation(dialogue, None)) for dialogue in dialogues]
        found = [
            *explained(self.writer, pairs[:count], [supervision == "calls"] * count, "explaining answers"),
            *explained(self.writer, pairs[count:], [True] * (len(pairs) - count), "replay"),
        ]
        lessons = [lesson for lesson in found if lesson is not None]
        searched = time.perf_counter()
        cache = FeatureCache(self.model, folder)
        cache.fill([lesson.heard(self.writer.end) for lesson in lessons])
        computed = time.perf_counter()
        arguments = NeuralLibTrainingArguments(
            output_dir=str(folder), train="library_keys", tuned_programs=self.held_out, max_steps=steps, learning_rate=rate,
            per_device_train_batch_size=32, lr_scheduler_type="cosine", warmup_steps=0.05, weight_decay=0.0, max_grad_norm=10.0,
            stretch=self.recipe.stretch, sample_size=0, save_strategy="no", report_to=[], disable_tqdm=True, logging_steps=steps,
            use_cpu=True, seed=draw,
        )  # fmt: skip
        trainer = NeuralLibTrainer(
            self.model, arguments, train_dataset=Lessons(lessons, cache, self.computer), processing_class=self.tokenizer
        )
        trainer.train()
        ended = time.perf_counter()
        shutil.rmtree(folder, ignore_errors=True)
        others = torch.ones(len(self.before), dtype=torch.bool)
        others[self.numbers] = False
        assert torch.equal(self.computer.offsets[others], self.before[others]), "only the new keys are tuned"
        return {
            "seconds": ended - began,
            "seconds of searching": searched - began,
            "seconds of the backbone": computed - searched,
            "left out": len(found) - len(lessons),
            "length of the offsets": float(self.computer.offsets.detach()[self.numbers].norm(dim=1).mean()),
        }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything that is not yet in the file of results."""
    path = arguments.output / RESULTS
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    settings = {
        name: getattr(arguments, name)
        for name in ("requests", "known", "calibration", "taken", "replay", "steps", "rate")
    }
    if results.get("settings", settings) != settings:
        raise SystemExit(f"{path} has results of other settings, {results['settings']}: move it away, or give the same")
    measurement = Measurement(
        arguments.output, arguments.requests, arguments.known, arguments.calibration, arguments.device, arguments.base
    )
    results |= {
        "held out": measurement.held_out,
        "programs": int(measurement.computer.allowed().sum()),
        "settings": settings,
    }

    def kept(key: str, found: Any) -> None:
        results[key] = found
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        scratch.write_text(json.dumps(results, indent=2))
        os.replace(scratch, path)

    if "before" not in results:
        measurement.enable(False)
        kept("before", {"known": measurement.results("known")})
    measurement.enable(True)
    results["programs"] = int(measurement.computer.allowed().sum())

    def found_now(key: str, tuned: dict[str, Any]) -> None:
        """As the keys are, and with the bias that lets the known programs be."""
        for name in (key, f"{key} calibrated"):
            bias = 0.0 if name == key else measurement.calibrated(arguments.taken)
            measurement.bias(bias)
            kept(name, {**tuned, "bias": bias, **{kind: measurement.results(kind) for kind in measurement.requests}})
            print(line(name, results[name], results["before"]["known"]), flush=True)
        measurement.bias(0.0)

    if "0 calibrated" not in results:
        found_now("0", {})
    for supervision in arguments.supervision:
        for shots in arguments.examples:
            for draw in range(arguments.draws):
                key = f"{shots} {supervision} {draw}"
                if f"{key} calibrated" not in results:
                    found_now(
                        key,
                        measurement.tune(shots, supervision, draw, arguments.replay, arguments.steps, arguments.rate),
                    )
    return results


def line(name: str, found: dict[str, Any], before: dict[str, Any]) -> str:
    held, known = found["held out"], found["known"]
    lost = 100 * (before["exact"] - known["exact"])
    seconds = f"{found['seconds']:8.0f}" if "seconds" in found else " " * 8
    return (
        f"{name:24} {held['selected']:9.1%} {held['exact']:9.1%}  {known['selected']:9.1%} {known['exact']:9.1%} {lost:7.2f}"
        f" {known['quiet']:9.1%} {seconds}"
    )


def table(results: dict[str, Any]) -> str:
    before = results["before"]["known"]
    rows = [
        f"held out: {', '.join(results['held out'])}; selected among {results['programs']} programs",
        f"{'':24} {'held-out programs':^19}  {'known programs':^27} {'general':>9} {'tuning':>8}",
        f"{'examples':24} {'selected':>9} {'exact':>9}  {'selected':>9} {'exact':>9} {'points':>7} {'quiet':>9} {'seconds':>8}",
        f"{'(not enabled)':24} {'':9} {'':9}  {before['selected']:9.1%} {before['exact']:9.1%} {'lost':>7} {before['quiet']:9.1%}",
    ]
    rows += [
        line(key, found, before) for key, found in results.items() if isinstance(found, dict) and "held out" in found
    ]
    last = [found for found in results.values() if isinstance(found, dict) and "held out" in found]
    for name in results["held out"]:
        shares = (one["held out"]["programs"][name] for one in last)
        rows.append(f"  {name:22} selected {' '.join(f'{share:6.1%}' for share in shares)}")
    rows.append(f"  without examples: {json.dumps(results['0']['held out']['confused'], ensure_ascii=False)}")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(required=True, dest="step")
    training = steps.add_parser("train")
    training.add_argument("which", choices=[*HELD_OUT], help="which six programs are held out")
    training.add_argument("overrides", nargs="*", metavar="key=value", help="of the recipe")
    training.add_argument("--recipe", type=Path, default=RECIPE)
    measuring = steps.add_parser("measure")
    for each in (training, measuring):
        each.add_argument("--output", type=Path, required=True, help="folder of the run")
    measuring.add_argument("--examples", type=int, nargs="+", default=[1, 4, 16], help="of each held-out program")
    measuring.add_argument("--supervision", nargs="+", choices=["answers", "calls"], default=["answers", "calls"])
    measuring.add_argument(
        "--device", default="cpu", help="where the backbone reads the requests; tuning is on the CPU"
    )
    measuring.add_argument("--base", help="where the backbone lies, if it is elsewhere than it was for training")
    measuring.add_argument("--draws", type=int, default=1, help="of the examples")
    measuring.add_argument("--replay", type=int, default=192, help="requests of the other programs beside the examples")
    measuring.add_argument("--requests", type=int, default=60, help="measured for each held-out program")
    measuring.add_argument("--known", type=int, default=1_200, help="requests measured for the other programs")
    measuring.add_argument("--calibration", type=int, default=400, help="requests that the bias is found with")
    measuring.add_argument("--taken", type=float, default=0.0025, help="share of them that the new programs may take")
    measuring.add_argument("--steps", type=int, default=60, help="of tuning")
    measuring.add_argument("--rate", type=float, default=0.02, help="learning rate of tuning")
    arguments = parser.parse_args()
    if arguments.step == "train":
        if (arguments.output / "heads" / "heads_config.json").exists():
            print(f"{arguments.output} has its heads already")
            return
        held_out = f"held_out_programs=[{', '.join(HELD_OUT[arguments.which])}]"
        report = train(arguments.recipe, [held_out, "then=[]", f"output={arguments.output}", *arguments.overrides])
        print(json.dumps({name: report["validation"].get(name) for name in ("exact", "selected", "read", "quiet")}))
        return
    print(table(measure(arguments)))


if __name__ == "__main__":
    main()
