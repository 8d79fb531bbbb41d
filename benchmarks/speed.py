"""What the computer costs and saves inside a model: tokens a second without a call, and calls that sort 64 numbers each.

    python benchmarks/speed.py [--rounds 7] [--json]

Both models generate from the same prompt in turn, A B A B …; the ratio is taken pair by pair, and medians are printed.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time

import torch
from neurallib.trainer.shipping import SMOLLM2, load_base, load_shipped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    base, _ = load_base(SMOLLM2)
    base.eval()
    model, tokenizer = load_shipped()

    def encode(message: str) -> torch.Tensor:
        turn = [{"role": "user", "content": message}]
        return tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt", return_dict=True)[
            "input_ids"
        ]

    def timed(which: torch.nn.Module, prompt: torch.Tensor, tokens: int) -> float:
        began = time.perf_counter()
        which.generate(prompt, min_new_tokens=tokens, max_new_tokens=tokens, do_sample=False, pad_token_id=0)  # type: ignore[operator]
        return time.perf_counter() - began

    plain = encode("Tell me about the history of Paris.")
    for which in (base, model):
        timed(which, plain, 4)
    ratios, ours = [], []
    for _ in range(arguments.rounds):
        bare = timed(base, plain, arguments.tokens)
        augmented = timed(model, plain, arguments.tokens)
        ratios.append(bare / augmented)
        ours.append(arguments.tokens / augmented)
    token = statistics.median(arguments.tokens / rate for rate in ours) / arguments.tokens
    right = []
    for seed in range(1, 1 + arguments.rounds):
        drawn = random.Random(seed)
        numbers = [drawn.randint(0, 9_999) for _ in range(64)]
        output = model(encode("Sort these numbers: " + ", ".join(map(str, numbers))))
        right += [call for call in output.calls[0] if call.result == " ".join(map(str, sorted(numbers)))]
    report = {
        "tokens a second without a call": statistics.median(ours),
        "against the bare model (median ratio)": statistics.median(ratios),
        "seconds of one token": token,
        "seconds of a call that sorts 64 numbers (read, run, cut)": statistics.median(c.seconds for c in right)
        if right
        else None,
        "lists sorted rightly": f"{len(right)} of {arguments.rounds}",
        "steps": right[0].steps if right else None,
    }
    print(json.dumps(report, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
