"""How many numbers of a long list are read, by how many directions of drift the reader is blind to.

    python benchmarks/drift.py [--heads DIR] [--directions 0 4 16 64] [--count 200] [--json]

Requests for lists of 20 to 44 numbers, in wordings of the training split; training knows lists of at most 8. Of those whose
program is selected, the share whose list is copied whole, by the heads as they are, but for the projection of their reader,
which is made orthogonal to so many directions (``trainer/drift.py``) without any training. The heads that ship were trained
orthogonal to 64, so for the difference give heads that were not: those of the recipe's first run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from neurallib.trainer.dialogues import Dialogue
from neurallib.trainer.drift import drift_directions
from neurallib.trainer.features import Conversation, FeatureCache
from neurallib.trainer.lessons import Lesson, Lessons
from neurallib.trainer.outcomes import decided
from neurallib.trainer.prompts import prompt_tokens
from neurallib.trainer.tasks import RequestGenerator
from requests import LISTS, with_heads

SEED = 777
"""Not the seed of training, nor of the lists of 64 in ``requests.py``."""


def lessons(tokenizer: Any, count: int) -> list[Lesson]:
    """Requests without a reply: what is decided at the end of their prompts is looked at."""
    drawn = RequestGenerator(SEED, split="train", programs=LISTS, list_length=(20, 44)).examples(
        count, general_share=0.0
    )
    found = []
    for example in drawn:
        tokens = prompt_tokens(tokenizer, [{"role": "user", "content": example.prompt}])
        found.append(Lesson(Dialogue.from_example(example), Conversation(tuple(tokens), len(tokens)), ()))
    return found


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=Path, help="folder of trained heads; the shipped ones by default")
    parser.add_argument("--directions", type=int, nargs="+", default=[0, 4, 16, 64])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    model, tokenizer = with_heads(arguments.heads)
    model.computer.eval()
    directions = drift_directions(model, tokenizer, max(arguments.directions))
    linear = model.computer.reader.projection.linear
    weight = linear.weight.clone()
    report = {}
    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache(model, Path(folder))
        drawn = lessons(tokenizer, arguments.count)
        cache.fill([lesson.conversation for lesson in drawn])
        for count in arguments.directions:
            chosen = directions[:count]
            linear.weight.copy_(weight - (weight @ chosen.T) @ chosen)
            found = decided(Lessons(drawn, cache, model.computer))
            report[count] = {name: found[name] for name in ("selected", "read", "exact")}
    if arguments.json:
        print(json.dumps(report))
        return
    print(f"{arguments.count} requests, lists of 20 to 44 numbers\ndirections  selected   of these read   exact result")
    for count, row in report.items():
        print(f"{count:10}  {row['selected']:8.1%}  {row['read']:14.1%}  {row['exact']:13.1%}")


if __name__ == "__main__":
    main()
