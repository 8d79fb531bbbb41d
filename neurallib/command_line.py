"""The command line: ``neurallib ask | run | compile | inspect | assemble | train``.

Every command prints something for people, or with ``--json`` one JSON object a line for machines. What goes wrong is
one line on stderr and exit code 1; wrong usage exits with 2. What is heavy is imported where it is needed.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from . import __version__

if TYPE_CHECKING:
    from rich.console import Console

    from .configuration.machine_config import MachineConfig
    from .modeling_neurallib.call import Call
    from .modeling_neurallib.library import NeuralLibrary, Program
    from .modeling_neurallib.machine.state import RunResult
    from .modeling_neurallib.modeling_neurallib import NeuralLibForCausalLM

STANDARD = "standard"
"""Names the library that the package ships, where a library is asked for."""

SMOLLM2 = "smollm2-135m"
SMOLLM2_ON_THE_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"

EXTRAS = {"numba": "fast", "gguf": "gguf"} | dict.fromkeys(("peft", "datasets", "evaluate", "accelerate"), "train")
"""Optional package → the extra of neurallib that brings it."""

TRACE_LIMIT = 10_000

DENSE_INSTRUCTIONS = 4_096
"""The most instructions P that are run as distributions: code addresses alone take P² numbers."""


class CommandError(RuntimeError):
    """Something that the user can put right: the message says what was found, and the way out."""


def explain(error: BaseException) -> str | None:
    """One line for an error that is the user's to mend, None for one that is ours."""
    if isinstance(error, ImportError) and error.name:
        package = error.name.split(".")[0]
        if package in EXTRAS:
            return f"the package {package} is not installed; pip install 'neurallib[{EXTRAS[package]}]'"
        return None if package == "neurallib" else f"the package {package} is not installed; pip install {package}"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError | ImportError) or type(error).__module__.split(".")[0] == "neurallib":
        return str(error)
    return None


class Commands(TyperGroup):
    """The commands, with one way to fail."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except Exception as error:
            found = explain(error)
            if found is None:
                raise
            typer.echo(f"neurallib: {shown(found)}", err=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Language models that compute instead of guess: compiled programs inside a LLaMA.",
)

Library = Annotated[str, typer.Option("--library", "-l", help="A folder, org/name on the Hub, or Python source.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """What the console script ``neurallib`` runs."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


# Asking


@app.command()
def ask(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT…", help="What to ask; each begins a new chat.")],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="A folder or org/name; by default SmolLM2-135M-Instruct, trained."),
    ] = None,
    library: Annotated[
        list[str] | None, typer.Option("--library", "-l", help="Another library to call; may be given more than once.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest answer, in tokens.")] = 256,
    trace: Annotated[
        bool, typer.Option("--trace", help="Show every call: program, arguments, result, steps, time.")
    ] = False,
    compare: Annotated[bool, typer.Option("--compare", help="Show what the base model answers by itself.")] = False,
    as_json: Json = False,
) -> None:
    """Ask a language model, and see what it computed."""
    if not all(prompt.strip() for prompt in prompts):
        raise CommandError("the prompt is empty; ask something, for example: neurallib ask 'What is 123 times 45?'")
    with _working("loading the model"):
        language_model, tokenizer = _language_model(model)
        for source in library or []:
            language_model.load_library(_library(source), tokenizer=tokenizer)
    console = _console()
    for number, prompt in enumerate(prompts):
        with _working("answering"):
            began = time.perf_counter()
            answer, calls = _answer(language_model, tokenizer, prompt, max_new_tokens)
            seconds = time.perf_counter() - began
            alone = None
            if compare:
                with _backbone_alone(language_model):
                    alone, _ = _answer(language_model, tokenizer, prompt, max_new_tokens)
        if as_json:
            record: dict[str, Any] = {"prompt": prompt, "answer": answer, "seconds": seconds}
            record["calls"] = [asdict(call) for call in calls]
            if compare:
                record["base_answer"] = alone
            typer.echo(json.dumps(record, ensure_ascii=False))
            continue
        if number:
            console.print()
        if alone is not None:
            console.print(_answers(prompt, [("the model alone", alone), ("with neurallib", answer)]))
        elif len(prompts) > 1 or trace:
            console.print(_answers(prompt, [("answer", answer)]))
        else:
            typer.echo(shown(answer, lines=True))
        if trace:
            console.print(_calls_table(calls) if calls else "  no program was called")


def _language_model(source: str | None) -> tuple[NeuralLibForCausalLM, Any]:
    """A model and its tokenizer; that of the package if no source is given."""
    if source is None:
        _quiet()
        from .trainer.shipping import load_shipped

        return load_shipped()
    with _loading(f"the model {source}"):
        _find(source)
    _quiet()
    from transformers import AutoConfig, AutoTokenizer

    from . import NeuralLibConfig, NeuralLibForCausalLM

    with _loading(f"the model {source}"):
        config = AutoConfig.from_pretrained(source)
    if config.model_type != NeuralLibConfig.model_type:
        raise CommandError(
            f"{source} is a model of type {config.model_type!r} without a computer; make one of it with "
            f"`neurallib assemble --base {source} --output DIR`"
        )
    with _loading(f"the model {source}"):
        return NeuralLibForCausalLM.from_pretrained(source), AutoTokenizer.from_pretrained(source)


def _answer(
    model: NeuralLibForCausalLM, tokenizer: Any, prompt: str, max_new_tokens: int
) -> tuple[str, tuple[Call, ...]]:
    """The reply to a prompt, by the most likely tokens, and the calls made in it.

    Raises:
        CommandError: the prompt leaves no room in the model's context.
    """
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": prompt}]
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
    else:
        inputs = tokenizer(prompt, return_tensors="pt")
    length, context = inputs["input_ids"].shape[1], model.config.max_position_embeddings
    if length >= context:
        raise CommandError(f"the prompt has {length} tokens, the model's context holds {context}; shorten the prompt")
    ends = {model.config.end_of_turn_token_id, tokenizer.eos_token_id} - {None}
    output = model.generate(
        input_ids=inputs["input_ids"].to(model.device),
        attention_mask=inputs["attention_mask"].to(model.device),
        max_new_tokens=min(max_new_tokens, context - length),
        do_sample=False,
        eos_token_id=sorted(ends) or None,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
        return_dict_in_generate=True,
    )
    text = tokenizer.decode(output.sequences[0, length:], skip_special_tokens=True)
    # The prompt has no calls: a call that the gate opened in it was never written, and is none of the reply's.
    return text.strip(), tuple(call for call in output.calls[0] if call.start >= length)


@contextmanager
def _backbone_alone(model: NeuralLibForCausalLM) -> Iterator[None]:
    """Within, no program may be called: the logits are those of the base, to the last bit."""
    config = model.computer.config
    before = config.disabled_programs
    config.disabled_programs = list(model.computer.programs)
    try:
        yield
    finally:
        config.disabled_programs = before


def _answers(prompt: str, answers: Sequence[tuple[str, str]]) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2), pad_edge=True)
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for who, answer in answers:
        grid.add_row(Text(f"  {who}"), Text(shown(answer, lines=True)))
    return Group(Text(shown(prompt), style="bold"), grid)


def _calls_table(calls: Sequence[Call]) -> Any:
    table = _table("program", "arguments as read", "result", "steps", "time", right=("steps", "time"))
    for call in calls:
        arguments = ", ".join(repr(shown(argument)) for argument in call.arguments)
        result = f"no result: {call.fault}" if call.result is None else call.result
        row = (f"{call.library}: {call.program}", arguments, result, f"{call.steps:,}", f"{call.seconds * 1000:.1f} ms")
        table.add_row(*map(_text, row))
    return table


# Programs


@app.command(context_settings={"ignore_unknown_options": True})
def run(
    program: Annotated[str, typer.Argument(help="The program's name.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARGUMENT…", help="One text for each parameter.")
    ] = None,
    library: Library = STANDARD,
    engine: Annotated[str, typer.Option(help="exact, or dense: distributions, on a small machine.")] = "exact",
    trace: Annotated[bool, typer.Option("--trace", help="Show every instruction that ran.")] = False,
    as_json: Json = False,
) -> None:
    """Run one program of a library."""
    if engine not in ("exact", "dense"):
        raise typer.BadParameter(f"{engine!r} is none of exact, dense", param_hint="--engine")
    from .modeling_neurallib.library import ProgramFault
    from .modeling_neurallib.machine.operations import Fault

    loaded, texts = _library(library), list(arguments or [])
    began = time.perf_counter()
    result = loaded.call(program, texts) if engine == "exact" else _run_dense(loaded, program, texts)
    seconds = time.perf_counter() - began
    if result.text is None:
        stopped = ProgramFault(program, result.fault, result.steps)
        if result.fault is Fault.wild_access:
            raise CommandError(f"{stopped} (so ends also a run that asks at once for more memory than there is)")
        raise stopped
    ran = _executed(loaded, loaded.program(program), texts) if trace else []
    if as_json:
        record = {
            "program": program,
            "library": loaded.name,
            "arguments": texts,
            "engine": engine,
            "result": result.text,
            "steps": result.steps,
            "seconds": seconds,
        }
        typer.echo(json.dumps(record | ({"trace": ran} if trace else {}), ensure_ascii=False))
        return
    if trace:
        table = _table("step", "function", "address", "instruction", "changes", right=("step", "address"))
        for number, step in enumerate(ran, 1):
            row = (str(number), step["function"], str(step["address"]), step["instruction"], step["changes"])
            table.add_row(*map(_text, row))
        console = _console()
        console.print(table)
        if len(ran) < result.steps:
            console.print(f"  … and {result.steps - len(ran):,} more steps")
    typer.echo(shown(result.text, lines=True))


def _executed(library: NeuralLibrary, program: Program, arguments: list[str]) -> list[dict[str, Any]]:
    """The first steps of a run: function, address, instruction, and what it changed."""
    starts = sorted(library.symbols)
    steps = []
    for step in library.machine().trace(program.entry, arguments, TRACE_LIMIT):
        place = bisect_right(starts, step.program_counter) - 1
        changes = [f"r{register} ← {word}" for register, word in step.registers.items()]
        changes += [f"memory[{address}] ← {word}" for address, word in step.memory.items()]
        steps.append(
            {
                "function": library.symbols[starts[place]] if place >= 0 else "",
                "address": step.program_counter,
                "instruction": " ".join(library.instruction_text(step.program_counter).split()),
                "changes": ", ".join(changes),
            }
        )
    return steps


def _run_dense(library: NeuralLibrary, program: str, arguments: list[str]) -> RunResult:
    """Run a program on distributions, on the smallest machine that serves; the result is the most likely text.

    The dense engine goes on where the exact one stops at a fault. So the exact one runs first, and says on which
    machine there is a result, and how many steps and characters that takes.

    Raises:
        CommandError: there is a result, but no dense machine serves.
    """
    import torch

    from .modeling_neurallib.machine.dense import DenseMachine, SoftProgram
    from .modeling_neurallib.machine.state import RunResult

    alone = library.extract([program])
    result = alone.call(program, arguments)
    if result.text is None:
        return result
    config = _dense_shape(alone, program, arguments)
    with torch.no_grad():
        machine = DenseMachine(SoftProgram.from_instructions(alone.instructions_for(config), config), config)
        state = machine.initial_state([arguments], [alone.program(program).entry])
        state, steps = machine.run(state, result.steps)
        length, characters = machine.result(state, len(result.text))
    text = "".join(chr(point) for point in characters[0].argmax(-1).tolist()[: int(length[0].argmax())])
    return RunResult(text, steps, result.fault)


def _dense_shape(library: NeuralLibrary, program: str, arguments: list[str]) -> MachineConfig:
    """The smallest machine, of at most 256 values, on which a program comes to a result.

    Raises:
        CommandError: there is none, or the library has too many instructions for distributions over them.
    """
    from .configuration.machine_config import PAPER, TEXT
    from .modeling_neurallib.machine.state import MachineError

    reason = f"it has {len(library.instructions):,} instructions, more than {DENSE_INSTRUCTIONS:,}"
    if len(library.instructions) <= DENSE_INSTRUCTIONS:
        for base in (PAPER, TEXT):
            for memory in (base.values // 4, base.values // 2, base.values):
                config = replace(TEXT, values=base.values, memory=memory, registers=library.registers)
                try:
                    result = library.call(program, arguments, config)
                except MachineError as error:
                    reason = str(error).partition(";")[0]
                    continue
                if result.text is not None:
                    return config
                reason = result.fault.name.replace("_", " ")
        needed = library.program(program).minimum_values
        if needed > TEXT.values:
            reason = f"it computes with constants that need {needed:,} values"
    raise CommandError(
        f"{program} does not run on a dense machine, which has at most {TEXT.values} values and words of memory: "
        f"{reason}; use --engine exact"
    )


@app.command("compile")
def compile_(
    source: Annotated[Path, typer.Argument(help="A Python file; its functions without a leading _ become programs.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder for the library.")],
    name: Annotated[str | None, typer.Option(help="The library's name; that of the file if not given.")] = None,
    as_json: Json = False,
) -> None:
    """Compile Python functions into a library."""
    from . import compile_library
    from .model_cards.library_card import library_card

    if not source.is_file():
        raise CommandError(f"{source} is no file; give a Python source file")
    library = compile_library(source, name=name)
    library.save_pretrained(output)
    description = json.loads((output / "library_config.json").read_text())
    library_card(description, library.fingerprint).save(output / "README.md")
    if as_json:
        typer.echo(json.dumps({"output": str(output), **_described(library)}, ensure_ascii=False))
    else:
        _show_library(library)
        typer.echo(f"written to {output}")


@app.command()
def inspect(
    library: Annotated[str, typer.Argument(help="A folder, org/name on the Hub, or Python source.")] = STANDARD,
    program: Annotated[str | None, typer.Argument(help="Show this program's source and instructions.")] = None,
    as_json: Json = False,
) -> None:
    """Show what a library holds, or one program of it, down to its instructions."""
    loaded = _library(library)
    if program is None:
        if as_json:
            typer.echo(json.dumps(_described(loaded), ensure_ascii=False))
        else:
            _show_library(loaded)
        return
    found = loaded.program(program)
    if as_json:
        record = asdict(found) | {"disassembly": loaded.disassemble(program)}
        typer.echo(json.dumps(record, ensure_ascii=False))
        return
    typer.echo(shown(f"{_signature(found)}\n\n{found.source or found.docstring}\n", lines=True))
    typer.echo(shown(loaded.disassemble(program), lines=True))


def _library(source: str) -> NeuralLibrary:
    """A library by its name, folder or Python source."""
    from . import NeuralLibrary, compile_library, standard_library

    if source == STANDARD:
        return standard_library()
    if source.endswith(".py"):
        if not Path(source).is_file():
            raise CommandError(f"{source} is no file; give a Python source file, a library's folder or org/name")
        return compile_library(source)
    return NeuralLibrary.from_pretrained(source)


def _described(library: NeuralLibrary) -> dict[str, Any]:
    programs = [asdict(program) for program in library.programs.values()]
    for program in programs:
        del program["source"]
    return {
        "name": library.name,
        "instructions": len(library.instructions),
        "fingerprint": library.fingerprint,
        "programs": programs,
    }


def _show_library(library: NeuralLibrary) -> None:
    table = _table("program", "what it does", "instructions", "V ≥", right=("instructions", "V ≥"))
    for program in library.programs.values():
        summary = program.docstring.strip().split("\n\n")[0]
        row = (_signature(program), summary, f"{program.length:,}", f"{program.minimum_values:,}")
        table.add_row(*map(_text, row))
    console = _console()
    size = f"{len(library.programs)} programs, {len(library.instructions):,} instructions"
    console.print(_text(f"{library.name}: {size}"))
    console.print(table)


def _signature(program: Program) -> str:
    parameters = ", ".join(f"{parameter.name}: {parameter.type}" for parameter in program.parameters)
    return f"{program.name}({parameters}) -> {program.returns}"


# Models


@app.command()
def assemble(
    base: Annotated[str, typer.Option(help=f"A Llama: org/name, a folder, a .gguf file, or {SMOLLM2}.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder for the model; it must not exist.")],
    library: Library = STANDARD,
    heads: Annotated[
        str | None, typer.Option(help=f"shipped (for {SMOLLM2}), none, or a folder of trained heads.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Put a computer into a Llama: a Hub-ready folder with weights, tokenizer, code and card."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise CommandError(f"{output} exists already; choose another --output, or remove it first")
    heads = heads or ("shipped" if base == SMOLLM2 and library == STANDARD else "none")
    _quiet()
    # Beside the output, so that renaming it is one step: the folder appears complete or not at all.
    scratch = output.absolute().with_name(f".{output.name}.{os.getpid()}.part")
    try:
        with _working("assembling"):
            model, tokenizer = _assembled(base, library, heads)
            scratch.mkdir(parents=True)
            model.save_pretrained(scratch)
            tokenizer.save_pretrained(scratch)
            _model_card(model, base, output.name, scratch, trained=heads != "none").save(scratch / "README.md")
            if output.exists():
                output.rmdir()
            scratch.rename(output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    programs = model.computer.programs
    if as_json:
        record = {"output": str(output), "base": base, "heads": heads, "programs": programs}
        typer.echo(json.dumps(record | {"files": sorted(path.name for path in output.iterdir())}, ensure_ascii=False))
        return
    typer.echo(f"{output}: {base} with {len(programs)} programs")
    if heads == "none":
        typer.echo("Its selector and reader are untrained, so it calls nothing yet: see `neurallib train`.")


def _assembled(base: str, library: str, heads: str) -> tuple[NeuralLibForCausalLM, Any]:
    """A base with a library and, if asked for, trained heads; and its tokenizer.

    Raises:
        CommandError: the base cannot be loaded.
        NeuralLibError: it is no Llama, or the heads do not fit.
    """
    if base != SMOLLM2 and not base.endswith(".gguf"):
        with _loading(f"the base {base}"):
            _find(base)
    from . import NeuralLibForCausalLM
    from .trainer.shipping import SHIPPED, load_base, load_heads

    programs = _library(library)
    with _loading(f"the base {base}"):
        backbone, tokenizer = load_base(base)
    if heads == "none":
        return NeuralLibForCausalLM.from_llama(backbone, library=programs, tokenizer=tokenizer), tokenizer
    model = load_heads(backbone, tokenizer, SHIPPED if heads == "shipped" else Path(heads))
    if library != STANDARD:
        model.load_library(programs, tokenizer=tokenizer)
    return model, tokenizer


def _model_card(model: NeuralLibForCausalLM, base: str, name: str, folder: Path, trained: bool) -> Any:
    """The card of the model that has been saved in a folder."""
    import hashlib
    from importlib.metadata import version

    from .model_cards.model_card import model_card

    config = model.config
    on_the_hub = not Path(base).exists() and base.count("/") == 1
    return model_card(
        name,
        SMOLLM2_ON_THE_HUB.split("/")[1] if base == SMOLLM2 else Path(base).name,
        config.library,
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.py")},
        base_model=SMOLLM2_ON_THE_HUB if base == SMOLLM2 else base if on_the_hub else None,
        license="apache-2.0" if base == SMOLLM2 else None,
        trained=trained,
        disabled=config.disabled_programs,
        machine=config.machine,
        versions={"neurallib": __version__} | {package: version(package) for package in ("torch", "transformers")},
    )


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="What to train, on what, how.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="key=value…", help="Values that replace those of the recipe.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train selector and reader by a recipe; a run that was interrupted goes on where it was."""
    from .trainer.training import train as follow

    _quiet()
    report = follow(recipe, list(overrides or []))
    typer.echo(json.dumps(report, ensure_ascii=False, indent=None if as_json else 2))


# What people see


def shown(text: str, lines: bool = False) -> str:
    """Text of a model or a stranger, fit for a terminal: control characters, which could steer it, are written out.

    Args:
        lines: keep line breaks and tabs.
    """
    kept = "\n\t" if lines else ""
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)


def _text(text: str) -> Any:
    """A cell of a table: never read as markup."""
    from rich.text import Text

    return Text(shown(text))


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 120
    return console


def _table(*columns: str, right: Sequence[str] = ()) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, header_style="dim")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


@contextmanager
def _working(what: str) -> Iterator[None]:
    """Says on a terminal what takes its time."""
    console = _console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(what):
        yield


def _quiet() -> None:
    """Leave stderr to us: no progress bars for what takes a second, no warnings about what we do on purpose."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    hub_logging.set_verbosity_error()
    logging.set_verbosity_error()
    logging.disable_progress_bar()


@contextmanager
def _loading(what: str) -> Iterator[None]:
    """Name what was being loaded when the Hugging Face libraries fail, which they do with many kinds of errors."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if type(error).__module__.split(".")[0] == "neurallib":
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CommandError(f"{what} cannot be loaded: {reason}") from error


def _find(model: str) -> None:
    """Ask the Hub for a model that is not on this machine, once: the loaders would go on asking for half a minute.

    Raises:
        ConnectionError: the Hub does not answer.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        if not Path(model).exists() and try_to_load_from_cache(model, "config.json") is None:
            get_hf_file_metadata(hf_hub_url(model, "config.json"))
    except HFValidationError:
        return  # no name of a repository: the loader says what it may be
    except Exception as error:  # the HTTP library's, whichever that is
        if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
            return  # an answer: the loader says what it means
        raise ConnectionError(f"there is no folder of that name, and the Hub does not answer ({error})") from error
