"""Exact answers on requests: wordings never seen, wordings seen with new values, longer inputs, and general prompts.

    python benchmarks/requests.py fifth             one of the sets, which --help lists
    python benchmarks/requests.py fifth --record    ... and keep what was found, in results/requests
    python benchmarks/requests.py table             the README's table, of what was kept; --record writes it there

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from neurallib.modeling_neurallib.sharing import sha256
from neurallib.trainer.shipping import SHIPPED, SMOLLM2, load_base, load_heads, load_shipped
from neurallib.trainer.tasks import RequestGenerator
from neurallib.trainer.wording import PARAMETERS, wordings

HERE = Path(__file__).parent
README, RESULTS = HERE.parent / "README.md", HERE / "results" / "requests"
BEGIN, END = "<!-- python benchmarks/requests.py table -->", "<!-- end -->"
"""What the README's table stands between."""
SEED = 20_001
"""Not a seed of training: the values of requests are new."""


def folded(text: str) -> str:
    """White space and the marks between a list's numbers do not matter."""
    return " ".join(text.replace(",", " ").split())


def requests(kind: str, count: int) -> list[dict[str, Any]]:
    """The requests of a set; ``count`` of them, where they are drawn or general prompts."""
    file, count = SETS[kind].file, count or SETS[kind].count
    if kind == "general":
        lines = (HERE / str(file)).read_text().splitlines()
        return [{"request": line.replace("\\n", "\n")} for line in lines if line.strip()][: count or None]
    if file is not None:
        items = [json.loads(line) for line in (HERE / file).read_text().splitlines()]
        return [as_request(item) if "messages" in item else item for item in items]
    drawn = []
    if kind == "long":
        for programs, shape in ((TWO_NUMBERS, {"digits": (40, 40)}), (LISTS, {"list_length": (64, 64)})):
            generator = RequestGenerator(SEED, split="train", programs=programs, **shape)  # type: ignore[arg-type]
            drawn += list(generator.examples(count // 2, general_share=0.0))
    else:
        drawn = list(RequestGenerator(SEED, split="train").examples(count, general_share=0.0))
    return [
        {"program": e.program, "request": e.prompt, "arguments": list(e.arguments), "answer": e.answer} for e in drawn
    ]


@dataclass(frozen=True)
class RequestSet:
    """Requests that belong together.

    Attributes:
        title: what they are, for the README. file: where they are; none for those that are drawn.
        target: what is aimed at. count: how many are drawn.
        frame: the text that they stand in, in the place of the chat template.
    """

    title: str
    file: str | None = None
    target: str = ""
    count: int = 0
    frame: str | None = None


READ = "failures by earlier heads were read"
BLIND = "aim 92 %, no program under 80 %"
SETS = {
    "unseen": RequestSet(f"first blind set; {READ}", "requests_unseen.jsonl", BLIND),
    "blind": RequestSet(f"second blind set; {READ}", "requests_blind_2.jsonl", BLIND),
    "third": RequestSet(f"third blind set; {READ}", "requests_blind_3.jsonl", BLIND),
    "fourth": RequestSet("fourth blind set", "requests_blind_4.jsonl", BLIND),
    "fifth": RequestSet("fifth blind set", "requests_blind_5.jsonl", BLIND),
    "sixth": RequestSet("sixth blind set, the six everyday programs among them", "requests_blind_6.jsonl", BLIND),
    "seen": RequestSet("wordings of training, new values", target="99.5 %", count=480),
    "long": RequestSet(f"numbers of 40 digits, lists of 64, trained on at most 4 and 8; {READ}", target="99 %", count=56),
    "general": RequestSet("general prompts that need no call", "prompts_general.txt", "a call in at most 1 %"),
    "decimals": RequestSet("numbers with decimals, blind", "requests_decimals.jsonl"),
    "plain": RequestSet("fifth blind set as a bare line, no chat template", "requests_blind_5.jsonl", frame="{}\n"),
    "question_answer": RequestSet("fifth blind set as `Q: …`, `A:`", "requests_blind_5.jsonl", frame="Q: {}\nA:"),
    "examples": RequestSet("after solved examples in the same message, blind", "requests_examples.jsonl"),
    "conversations": RequestSet(
        "conversations, blind (again: the same of new values, another thing of the same)", "requests_conversations.jsonl"
    ),
    "dialogues": RequestSet("conversations, an earlier set", "requests_dialogues.jsonl"),
    "development": RequestSet(f"development set; {READ}", "requests_development.jsonl"),
    "development_2": RequestSet(f"second development set; {READ}", "requests_development_2.jsonl"),
    "development_3": RequestSet(
        f"third development set, as in public data sets and as people type; {READ}", "requests_development_3.jsonl"
    ),
    "development_conversations": RequestSet(
        f"development conversations; {READ}", "requests_development_conversations.jsonl"
    ),
}
"""A blind set was written by somebody who saw the programs' docstrings only, each by somebody else."""


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


def _row(name: str) -> str:
    """A set's row of the README's table, of what was kept."""
    one, found = SETS[name], json.loads((RESULTS / f"{name}.json").read_text())
    of_these = "" if found["heads"] == sha256(SHIPPED / "heads.safetensors") else " (by other heads)"
    if name == "general":
        measured, errors, apart = f"a call in {found['share']:.1%} of {found['prompts']}", "", ""
    else:
        counted, shares = found["errors"], found["programs"]
        measured = f"{found['exact']:.1%} of {found['requests']}"
        if "several" in counted or len(shares) < 5:
            errors, apart = "", ", ".join(f"{kind.replace('_', ' ')} {share:.0%}" for kind, share in shares.items())
        else:
            errors = " / ".join(str(counted.get(kind, 0)) for kind in ("selecting", "reading", "executing", "writing"))
            worst = sorted(shares, key=lambda program: shares[program])[:3]
            apart = ", ".join(f"`{program}` {shares[program]:.0%}" for program in worst if shares[program] < 1)
    cells = (one.title, measured.replace("%", " %") + of_these, one.target, errors, apart.replace("%", " %"), f"`{name}`")
    return f"| {' | '.join(cells)} |"


def table() -> str:
    """The README's table: a row for each set of which a result was kept."""
    head = (
        "| set | exact | target | errors: selecting / reading / executing / writing | worst programs, or kinds | `requests.py` |\n"
        "|---|---|---|---|---|---|"
    )
    return "\n".join([head, *(_row(name) for name in SETS if (RESULTS / f"{name}.json").exists())])


def with_table(readme: str) -> str:
    """A README with the table of today between its two marks."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"README.md has no table between {BEGIN} and {END}: put these two lines where it belongs")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> None:
    sets = "\n".join(f"  {name:26}{one.title}" for name, one in SETS.items())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"sets:\n{sets}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=[*SETS, "table"], metavar="set")
    parser.add_argument("--heads", type=Path, help="folder of trained heads; the shipped ones by default")
    parser.add_argument(
        "--count", type=int, default=0, help="requests to draw (seen, long), or the first prompts (general)"
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=0)
    parser.add_argument("--frame", help="text with {} in the place of the chat template; \\n is a newline")
    parser.add_argument("--record", action="store_true", help="keep what is found, or write the table into the README")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--show", action="store_true", help="print the replies that are wrong")
    arguments = parser.parse_args()
    if arguments.kind == "table":
        if arguments.record:
            README.write_text(with_table(README.read_text()))
        print(table())
        return
    if arguments.record and (arguments.count or arguments.frame):
        parser.error("--record keeps whole sets as they are: leave --count and --frame out")
    model, tokenizer = with_heads(arguments.heads)
    items = requests(arguments.kind, arguments.count)
    new_tokens = arguments.new_tokens or {"general": 48, "long": 400}.get(arguments.kind, 40)
    began = time.time()
    frame = SETS[arguments.kind].frame if arguments.frame is None else arguments.frame.replace("\\n", "\n")
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
    if arguments.record:
        RESULTS.mkdir(exist_ok=True)
        report["heads"] = sha256((arguments.heads or SHIPPED) / "heads.safetensors")
        (RESULTS / f"{arguments.kind}.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    print(json.dumps(report, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
