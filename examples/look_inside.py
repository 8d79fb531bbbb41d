"""Look inside an answer: which programs were considered, what was read, every step that ran. Writes an HTML page.

python examples/look_inside.py PAGE.html [PROMPT] [--model MODEL]      without MODEL the one that neurallib ships heads for
"""

import argparse
from pathlib import Path

from neurallib.trainer.shipping import load_shipped
from transformers import AutoTokenizer

from neurallib import NeuralLibForCausalLM, explanation_page


def main() -> None:
    parser = argparse.ArgumentParser(description="Explain one answer.")
    parser.add_argument("page", type=Path)
    parser.add_argument("prompt", nargs="?", default="What is 123 times 45?")
    parser.add_argument("--model", help="a folder or org/name")
    arguments = parser.parse_args()

    if arguments.model:
        model = NeuralLibForCausalLM.from_pretrained(arguments.model)
        tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    else:
        model, tokenizer = load_shipped()

    answer = model.explain(arguments.prompt, tokenizer)
    print(answer["answer"])
    for call in answer["calls"]:
        copied = {argument["name"]: argument["text"] for argument in call["arguments"]}
        print(f"after {call['position']} tokens: {call['program']} on {copied} → {call['result']}")
        print(f"  no call {call['no_call']:.3f},", *(f"{c['program']} {c['probability']:.3f}" for c in call["choices"]))
        for step in call["run"]["first"][:5] if call["run"] else []:
            print(f"  step {step['step']}: {step['instruction']}")
    arguments.page.write_text(explanation_page([answer]), encoding="utf-8")
    print(f"written to {arguments.page}")


if __name__ == "__main__":
    main()
