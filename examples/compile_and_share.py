"""Compile plain Python functions into a library, run them, save it, and put it on the Hub.

python examples/compile_and_share.py FOLDER [org/name]
"""

import argparse

from neurallib import NeuralLibrary, compile_library


def initials(text: str) -> str:
    """The first letter of each word, in capitals."""
    result = ""
    before = " "
    for character in text:
        if before == " " and character != " ":
            code = ord(character)
            result += chr(code - 32) if 97 <= code <= 122 else character
        before = character
    return result


def digit_sum(number: int) -> int:
    """The sum of the decimal digits of an integer."""
    if number < 0:
        number = -number
    total = 0
    while number > 0:
        total += number % 10
        number = number // 10
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description="Compile a library and share it.")
    parser.add_argument("folder", help="where the library is saved")
    parser.add_argument("repository", nargs="?", help="org/name on the Hub, if it shall be put there")
    arguments = parser.parse_args()

    library = compile_library([initials, digit_sum], name="my_algorithms")
    print(library.run("initials", "large language model"), library.run("digit_sum", "98765"))
    library.save_pretrained(arguments.folder)

    again = NeuralLibrary.from_pretrained(arguments.folder)
    print(f"{arguments.folder}: {', '.join(again.programs)}, sha256 {again.fingerprint}")
    if arguments.repository:
        print(library.push_to_hub(arguments.repository))


if __name__ == "__main__":
    main()
