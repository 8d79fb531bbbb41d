"""Teach a model when to call a program, from questions and answers alone, and save what came of it.

python examples/fine_tune.py MODEL OUTPUT      MODEL: a folder or org/name whose library has a program that adds
"""

import argparse
import random

from transformers import AutoTokenizer

from neurallib import NeuralLibForCausalLM, NeuralLibTrainer, NeuralLibTrainingArguments

WORDINGS = ("Add {} and {}.", "What is {} plus {}?", "I have {} apples and get {} more. How many?", "Sum of {} and {}:")


def rows(count: int) -> list[dict[str, str]]:
    """Requests with their answers; nothing says which program gives them, or on what."""
    drawn = random.Random(0)
    pairs = [(drawn.randrange(100, 1000), drawn.randrange(100, 1000)) for _ in range(count)]
    return [{"prompt": drawn.choice(WORDINGS).format(a, b), "completion": str(a + b)} for a, b in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tune the heads of a model on your own data.")
    parser.add_argument("model")
    parser.add_argument("output")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--epochs", type=float, default=3)
    arguments = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    trainer = NeuralLibTrainer(
        NeuralLibForCausalLM.from_pretrained(arguments.model),
        args=NeuralLibTrainingArguments(
            output_dir=arguments.output,
            num_train_epochs=arguments.epochs,
            per_device_train_batch_size=16,
            learning_rate=2e-3,
            save_strategy="no",
            report_to=[],
        ),
        train_dataset=rows(arguments.rows),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model(arguments.output)
    tokenizer.save_pretrained(arguments.output)

    answer = NeuralLibForCausalLM.from_pretrained(arguments.output).explain("Add 12 and 30.", tokenizer)
    print(answer["answer"], [call["program"] for call in answer["calls"]])


if __name__ == "__main__":
    main()
