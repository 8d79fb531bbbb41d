"""How far the shipped backbone has moved from the pretrained one, where nothing is called.

    python benchmarks/retention.py [--prompts 100] [--tokens 48] [--heads FOLDER] [--json]

The pretrained model answers general prompts (benchmarks/prompts_general.txt) greedily; both models then read its prompts and
replies. Printed, over the tokens of the replies: KL(pretrained ‖ shipped) in nats, how often both have the same most likely token,
and the perplexity of the replies under each.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from neurallib.trainer.shipping import SHIPPED, load_base, load_heads

PROMPTS = Path(__file__).parent / "prompts_general.txt"


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--heads", type=Path, default=SHIPPED)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    base, tokenizer = load_base("smollm2-135m")
    shipped = load_heads(load_base("smollm2-135m")[0], tokenizer, arguments.heads)
    lines = [line.replace("\\n", "\n") for line in PROMPTS.read_text().splitlines() if line.strip()]
    divergence = same = own = other = count = 0.0
    for line in lines[:: max(1, len(lines) // arguments.prompts)][: arguments.prompts]:
        chat = [{"role": "user", "content": line}]
        encoded = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        start = encoded["input_ids"].shape[1]
        tokens = base.generate(
            **encoded, max_new_tokens=arguments.tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )
        read = slice(start - 1, tokens.shape[1] - 1)
        wanted = base(tokens).logits[0, read].log_softmax(-1)
        states = shipped.model(tokens, use_cache=False, decide_calls=False).last_hidden_state
        found = shipped.lm_head(states)[0, read].log_softmax(-1)
        written = tokens[0, start:, None]
        divergence += float((wanted.exp() * (wanted - found)).sum())
        same += float((wanted.argmax(-1) == found.argmax(-1)).sum())
        own -= float(wanted.gather(-1, written).sum())
        other -= float(found.gather(-1, written).sum())
        count += len(written)
    report = {
        "tokens": int(count),
        "KL(pretrained ‖ shipped), nats a token": divergence / count,
        "same most likely token": same / count,
        "perplexity of its replies, pretrained": math.exp(own / count),
        "perplexity of its replies, shipped": math.exp(other / count),
    }
    print(json.dumps(report, indent=None if arguments.json else 2, ensure_ascii=False))


if __name__ == "__main__":
    main()
