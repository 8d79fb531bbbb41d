"""Exact answers on requests: wordings never seen, wordings seen with new values, longer inputs, and general prompts.

    python benchmarks/requests.py unseen      benchmarks/requests_unseen.jsonl, written by someone shown the docstrings only
    python benchmarks/requests.py blind       benchmarks/requests_blind_2.jsonl, likewise, written later by someone else
    python benchmarks/requests.py third       benchmarks/requests_blind_3.jsonl, likewise, by a third writer, later still
    python benchmarks/requests.py fourth      benchmarks/requests_blind_4.jsonl, by a fourth writer, later still
    python benchmarks/requests.py fifth       benchmarks/requests_blind_5.jsonl, by a fifth writer, later still
    python benchmarks/requests.py sixth       benchmarks/requests_blind_6.jsonl, by a sixth writer, with the six everyday programs
    python benchmarks/requests.py development benchmarks/requests_development.jsonl, by three writers; failures on it were looked at
    python benchmarks/requests.py development_2  benchmarks/requests_development_2.jsonl, likewise, by two other writers
    python benchmarks/requests.py development_3  benchmarks/requests_development_3.jsonl, likewise, by two more
    python benchmarks/requests.py dialogues   benchmarks/requests_dialogues.jsonl: later turns, follow-ups, two requests in one
    python benchmarks/requests.py conversations  benchmarks/requests_conversations.jsonl: two or three requests in one message,
                                              follow-ups, the same asked of other arguments, another thing of the same
    python benchmarks/requests.py development_conversations  likewise, with examples, system messages; failures were looked at
    python benchmarks/requests.py examples    benchmarks/requests_examples.jsonl: solved examples stand before the request
    python benchmarks/requests.py decimals    benchmarks/requests_decimals.jsonl: numbers with decimals, by a seventh writer
    python benchmarks/requests.py seen        wordings of the training set, new values
    python benchmarks/requests.py long        numbers of 40 digits, lists of 64; trained on ≤ 4 digits and ≤ 8 numbers
    python benchmarks/requests.py general     benchmarks/prompts_general.txt, which need no call

With --frame "Q: {}\\nA:" a message stands in that text, without the chat template.

An answer is exact when the whole reply is the result: nothing before it but white space, and nothing after it but a full
stop. Errors are counted where they happen: no call or another program (selecting), other arguments (reading), another result
than the program's own definition gives (executing), or a reply that went on after a right result (writing).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import torch
from neurallib.trainer.shipping import SMOLLM2, load_base, load_heads, load_shipped
from neurallib.trainer.tasks import RequestGenerator
from neurallib.trainer.wording import PARAMETERS, wordings

HERE = Path(__file__).parent
SEED = 20_001
"""Not a seed of training: the values of requests are new."""


def folded(text: str) -> str:
    """White space and the marks between a list's numbers do not matter."""
    return " ".join(text.replace(",", " ").split())


def requests(kind: str, count: int) -> list[dict[str, Any]]:
    if kind in FILES:
        items = [json.loads(line) for line in (HERE / FILES[kind]).read_text().splitlines()]
        return [as_request(item) if "messages" in item else item for item in items]
    if kind == "general":
        lines = (HERE / "prompts_general.txt").read_text().splitlines()
        return [{"request": line.replace("\\n", "\n")} for line in lines if line.strip()][: count or None]
    drawn = []
    if kind == "long":
        for programs, shape in ((TWO_NUMBERS, {"digits": (40, 40)}), (LISTS, {"list_length": (64, 64)})):
            generator = RequestGenerator(SEED, split="train", programs=programs, **shape)  # type: ignore[arg-type]
            drawn += list(generator.examples((count or 80) // 2, general_share=0.0))
    else:
        drawn = list(RequestGenerator(SEED, split="train").examples(count or 480, general_share=0.0))
    return [
        {"program": e.program, "request": e.prompt, "arguments": list(e.arguments), "answer": e.answer} for e in drawn
    ]


FILES = {
    "unseen": "requests_unseen.jsonl", "blind": "requests_blind_2.jsonl", "third": "requests_blind_3.jsonl",
    "fourth": "requests_blind_4.jsonl", "fifth": "requests_blind_5.jsonl", "development": "requests_development.jsonl",
    "sixth": "requests_blind_6.jsonl", "development_2": "requests_development_2.jsonl",
    "development_3": "requests_development_3.jsonl", "dialogues": "requests_dialogues.jsonl",
    "conversations": "requests_conversations.jsonl",
    "development_conversations": "requests_development_conversations.jsonl",
    "examples": "requests_examples.jsonl", "decimals": "requests_decimals.jsonl",
}  # fmt: skip


def as_request(dialogue: dict[str, Any]) -> dict[str, Any]:
    """A conversation in the form of a request: its kind stands for the program, its first call's arguments, if told, for all."""
    calls, turns = dialogue["calls"], dialogue["messages"]
    earlier = {turn["content"] for turn in turns if turn["role"] == "assistant"}
    follows = any(argument in earlier for call in calls for argument in call.get("arguments", ()))
    kind = dialogue.get("kind") or ("several" if len(calls) > 1 else "follow-up" if follows else "later turn")
    return {
        "request": turns,
        "program": kind,
        "called": [call["program"] for call in calls],
        "arguments": calls[0].get("arguments"),
        "answer": dialogue.get("answer", calls[0]["answer"]),
        "answers": [call["answer"] for call in calls],
    }


TWO_NUMBERS = ("add", "subtract", "multiply", "divide", "remainder", "compare")
"""Asked with numbers of 40 digits; the other arithmetic keeps to small results or runs."""

LISTS = (
    "sum_numbers", "maximum", "minimum", "mean", "count_numbers", "sort_ascending", "sort_descending", "reverse_list",
)  # fmt: skip
"""Asked with lists of 64 numbers."""


@torch.no_grad()
def replies(
    model: Any,
    tokenizer: Any,
    prompts: list[str | list[dict[str, str]]],
    new_tokens: int,
    batch: int,
    frame: str | None = None,
) -> list[tuple[str, tuple[Any, ...]]]:
    """(text, calls of the reply) of each prompt (a message, or turns), greedy, in left-padded batches of similar length.

    Args:
        frame: a text that holds {}, in which each prompt, a message, stands in the place of the chat template.
    """
    turns = [[{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt for prompt in prompts]
    if frame is None:
        texts = [tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False) for turn in turns]
    else:
        texts = [frame.replace("{}", turn[-1]["content"]) for turn in turns]
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found: dict[int, tuple[str, tuple[Any, ...]]] = {}
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        encoded = tokenizer([texts[i] for i in chosen], return_tensors="pt", padding=True, padding_side="left")
        output = model.generate(
            **encoded,
            max_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
            return_dict_in_generate=True,
        )
        width = encoded["input_ids"].shape[1]
        for row, i in enumerate(chosen):
            text = tokenizer.decode(output.sequences[row, width:], skip_special_tokens=True)
            found[i] = (text, output.calls[row])
        print(f"\r{len(found)}/{len(order)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return [found[i] for i in range(len(prompts))]


def verdict(item: dict[str, Any], text: str, calls: tuple[Any, ...], library: Any) -> str:
    """ "exact", or where the reply went wrong."""
    reply = text.strip()
    if len(item.get("answers", ())) > 1:
        # In the backbone's own words: the results of the calls count, each once and in order, and all must be in the reply.
        results = [call.result for call in calls]
        return "exact" if results == item["answers"] and all(result in reply for result in results) else "several"
    if folded(reply.removesuffix(".")) == folded(item["answer"]):
        return "exact"
    if not calls or calls[0].program not in item.get("called", [item["program"]]):
        return "selecting"
    told = item["arguments"]
    if (calls[0].result != item["answer"]) if told is None else [*map(folded, calls[0].arguments)] != [*map(folded, told)]:
        return "reading"
    if calls[0].result is None or calls[0].result != library.run(calls[0].program, *calls[0].arguments):
        return "executing"
    return "writing"


def with_heads(folder: Path | None) -> tuple[Any, Any]:
    """SmolLM2-135M-Instruct with the heads of a folder, or those that ship; and its tokenizer."""
    if folder is None:
        return load_shipped()
    base, tokenizer = load_base(SMOLLM2)
    return load_heads(base, tokenizer, folder), tokenizer


def wording_of(request: str) -> str:
    """A request without its numbers, capitals and marks."""
    told = re.sub(r"[-−]?\d[\d.,]*", " # ", request.lower())
    return re.sub(r"#( (and )?#)+", "#", re.sub(r"[^\w#]+", " ", told).strip())


def trained_wordings(program: str) -> set[str]:
    """:func:`wording_of` all that training draws from, whichever side of its split."""
    slots = r"\{(a|b|n|numbers|x|y)\}"
    return {wording_of(re.sub(slots, "7", line.replace("\\n", " "))) for line in wordings(program)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=[*FILES, "seen", "long", "general"])
    parser.add_argument("--heads", type=Path, help="folder of trained heads; the shipped ones by default")
    parser.add_argument(
        "--count", type=int, default=0, help="requests to draw (seen, long), or the first prompts (general)"
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=0)
    parser.add_argument("--frame", help="text with {} in the place of the chat template; \\n is a newline")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--show", action="store_true", help="print the replies that are wrong")
    arguments = parser.parse_args()
    model, tokenizer = with_heads(arguments.heads)
    items = requests(arguments.kind, arguments.count)
    new_tokens = arguments.new_tokens or {"general": 48, "long": 400}.get(arguments.kind, 40)
    began = time.time()
    frame = None if arguments.frame is None else arguments.frame.replace("\\n", "\n")
    if frame is not None and ("{}" not in frame or isinstance(items[0]["request"], list)):
        parser.error("--frame takes a text that holds {}, for messages: " + repr(arguments.frame))
    found = replies(model, tokenizer, [item["request"] for item in items], new_tokens, arguments.batch, frame)
    if arguments.kind == "general":
        called = [(item["request"], calls) for item, (_, calls) in zip(items, found, strict=True) if calls]
        report: dict[str, Any] = {
            "prompts": len(items),
            "replies with a call": len(called),
            "share": len(called) / len(items),
        }
        if arguments.show:
            for prompt, calls in called:
                print(repr(prompt), [(c.program, c.arguments) for c in calls])
    else:
        verdicts = Counter()
        programs: dict[str, list[bool]] = defaultdict(list)
        known = {name: trained_wordings(name) for name in PARAMETERS}
        new = []  # whether exact, of requests whose words no wording of training has
        for item, (text, calls) in zip(items, found, strict=True):
            outcome = verdict(item, text, calls, model.library)
            verdicts[outcome] += 1
            programs[item["program"]].append(outcome == "exact")
            if item["program"] in known and wording_of(item["request"]) not in known[item["program"]]:
                new.append(outcome == "exact")
            if arguments.show and outcome != "exact":
                read = [(c.program, c.arguments, c.result) for c in calls]
                print(outcome, item["program"], repr(item["request"]), "→", repr(text), read)
        shares = {name: sum(hits) / len(hits) for name, hits in programs.items()}
        worst = min(shares, key=lambda name: shares[name])
        report = {
            "requests": len(items),
            "exact": verdicts["exact"] / len(items),
            "worded unlike training": {"requests": len(new), "exact": sum(new) / len(new) if new else None},
            "worst program": [worst, shares[worst]],
            "errors": {name: count for name, count in verdicts.items() if name != "exact"},
            "programs": shares,
        }
    report["seconds"] = time.time() - began
    print(json.dumps(report, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
