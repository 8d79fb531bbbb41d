"""Give a published model programs that it was never trained on, and ask it for one of them.

python examples/add_a_library.py MODEL LIBRARY PROMPT      each of the first two a folder or org/name
"""

import argparse

from transformers import AutoTokenizer

from neurallib import NeuralLibForCausalLM


def main() -> None:
    parser = argparse.ArgumentParser(description="Add a library to a model.")
    parser.add_argument("model")
    parser.add_argument("library")
    parser.add_argument("prompt")
    arguments = parser.parse_args()

    model = NeuralLibForCausalLM.from_pretrained(arguments.model)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)

    # The keys of its programs are made from their names and docstrings: nothing is trained.
    model.load_library(arguments.library, tokenizer=tokenizer)
    print("libraries:", ", ".join(model.active_libraries))

    with_it = model.explain(arguments.prompt, tokenizer)
    print("answer:", with_it["answer"])
    for call in with_it["calls"]:
        considered = ", ".join(f"{choice['program']} {choice['probability']:.2f}" for choice in call["choices"])
        print(f"called {call['library']}: {call['program']} (considered: {considered})")

    with model.disable_library():
        print("without any program:", model.explain(arguments.prompt, tokenizer)["answer"])


if __name__ == "__main__":
    main()
