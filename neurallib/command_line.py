"""The command line: ``neurallib ask | run | compile | inspect | assemble | train | evaluate | publish``.

Every command prints something for people, or with ``--json`` one JSON object a line for machines. What goes wrong is
one line on stderr and exit code 1; wrong usage exits with 2. What is heavy is imported where it is needed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
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
    from .modeling_neurallib.library import NeuralLibrary
    from .modeling_neurallib.library_records import Program
    from .modeling_neurallib.machine.state import RunResult
    from .modeling_neurallib.modeling_neurallib import NeuralLibForCausalLM

STANDARD = "standard"
"""Names the library that the package ships, where a library is asked for."""

SMOLLM2 = "smollm2-135m"
SMOLLM2_ON_THE_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"

EXTRAS = {"numba": "fast", "gguf": "gguf", "matplotlib": "plot"} | dict.fromkeys(
    ("peft", "datasets", "evaluate", "accelerate"), "train"
)
"""Optional package → the extra of neurallib that brings it."""

TRACE_LIMIT = 10_000

LIBRARY_FILES = {"library_config.json", "library.safetensors", "README.md", "LICENSE", "NOTICE"}
"""What the folder of a library may hold."""

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
        typer.Option(
            "--model",
            "-m",
            help="A model or an adapter: a folder or org/name; by default SmolLM2-135M-Instruct, trained.",
        ),
    ] = None,
    library: Annotated[
        list[str] | None, typer.Option("--library", "-l", help="Another library to call; may be given more than once.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest answer, in tokens.")] = 256,
    trace: Annotated[
        bool, typer.Option("--trace", help="Show every call: program, arguments, result, steps, time.")
    ] = False,
    compare: Annotated[bool, typer.Option("--compare", help="Show what the base model answers by itself.")] = False,
    page: Annotated[
        Path | None,
        typer.Option(
            "--explain", metavar="FILE.html", help="Write a page: what was considered, read, run and written."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask a language model, and see what it computed."""
    if not all(prompt.strip() for prompt in prompts):
        raise CommandError("the prompt is empty; ask something, for example: neurallib ask 'What is 123 times 45?'")
    if any("\udc80" <= character <= "\udcff" for prompt in prompts for character in prompt):  # so Python reads other bytes
        raise CommandError("the prompt is not UTF-8; write it in that encoding")
    if page is not None:
        _check_page(page)
    with _working("loading the model"):
        from .modeling_neurallib.explanation import explained, reply

        language_model, tokenizer = _language_model(model)
        for source in library or []:
            language_model.load_library(_library(source), tokenizer=tokenizer)
        backbone = _backbone(language_model, tokenizer, model) if compare else None
    explanations = []
    console = _console()
    for number, prompt in enumerate(prompts):
        with _working("answering"):
            began = time.perf_counter()
            replied = reply(language_model, tokenizer, prompt, max_new_tokens)
            answer, calls = replied.text, replied.calls
            seconds = time.perf_counter() - began
            alone = None
            if backbone is not None:
                from .trainer.evaluation import without_calls

                with without_calls(backbone):
                    alone = reply(backbone, tokenizer, prompt, max_new_tokens).text
            if page is not None:
                explanations.append(explained(language_model, tokenizer, replied, [_library(STANDARD)]))
        if as_json:
            record: dict[str, Any] = {"prompt": prompt, "answer": answer, "seconds": seconds}
            record["calls"] = [call.record() for call in calls]
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
    if page is not None:
        from .model_cards.explanation_page import explanation_page

        page.write_text(explanation_page(explanations), encoding="utf-8")
        typer.echo(f"explained in {page}", err=True)


def _check_page(page: Path) -> None:
    """Said before a model is loaded for it.

    Raises:
        CommandError: the page cannot be written.
    """
    if not page.absolute().parent.is_dir():
        raise CommandError(f"{page.parent} is no folder; make it first, or choose another FILE.html")
    there = page.exists()
    try:
        page.open("ab").close()
    except OSError as error:
        raise CommandError(f"{page} cannot be written ({error.strerror}); choose another FILE.html") from error
    if not there:
        page.unlink()


def _language_model(source: str | None) -> tuple[NeuralLibForCausalLM, Any]:
    """A model and its tokenizer; that of the package if no source is given."""
    if source is None:
        _quiet()
        from .trainer.shipping import load_shipped

        return load_shipped()
    with _loading(f"the model {source}", source):
        _find(source)
    _quiet()
    from transformers import AutoConfig, AutoTokenizer

    from . import NeuralLibConfig, NeuralLibForCausalLM
    from .trainer.adapters import base_of

    with _loading(f"the model {source}", source):
        base = base_of(source)
        if base is not None:
            return _adapted_model(source, *base)
        config = AutoConfig.from_pretrained(source)
    if config.model_type != NeuralLibConfig.model_type:
        raise CommandError(
            f"{source} is a model of type {config.model_type!r} without a computer; make one of it with "
            f"`neurallib assemble --base {source} --output DIR`"
        )
    with _loading(f"the model {source}", source):
        return NeuralLibForCausalLM.from_pretrained(source), AutoTokenizer.from_pretrained(source)


def _backbone(language_model: NeuralLibForCausalLM, tokenizer: Any, source: str | None) -> NeuralLibForCausalLM:
    """The model to compare with: itself without calls; the pretrained one, where the package's own was trained further."""
    if source is not None:
        return language_model
    from . import NeuralLibForCausalLM
    from .trainer.shipping import SMOLLM2, load_base

    return NeuralLibForCausalLM.from_llama(load_base(SMOLLM2)[0], tokenizer=tokenizer)


def _adapted_model(source: str, base: str, revision: str) -> tuple[NeuralLibForCausalLM, Any]:
    """An adapter merged into its base, and their tokenizer: the adapter's where it has one."""
    from transformers import AutoConfig, AutoTokenizer
    from transformers.utils import cached_file

    from . import NeuralLibConfig, NeuralLibForCausalLM
    from .trainer.adapters import has_heads, merged

    with _loading(f"the base {base} of the adapter {source}", base, revision):
        _find(base)
        config = AutoConfig.from_pretrained(base, revision=revision)
        if config.model_type != NeuralLibConfig.model_type:
            way_out = "merge them, and make one of the result with `neurallib assemble --base FOLDER --output DIR`"
            if has_heads(source):
                way_out = (
                    "its heads belong to a model that was put together in memory: do that again in Python, with the same library "
                    "and heads, and keep the whole (PeftModel.from_pretrained(NeuralLibForCausalLM.from_llama("
                    f"{base!r}, library=…, heads=…), {source!r}).merge_and_unload().save_pretrained(DIR), and "
                    "tokenizer.save_pretrained(DIR))"
                )
            raise CommandError(
                f"{source} is an adapter for {base}, a model of type {config.model_type!r} without a computer; {way_out}"
            )
        model = NeuralLibForCausalLM.from_pretrained(base, revision=revision)
    with _loading(f"the adapter {source}", source):
        own = cached_file(source, "tokenizer_config.json", _raise_exceptions_for_missing_entries=False)
        place, commit = (base, revision) if own is None else (source, "main")
        return merged(model, source), AutoTokenizer.from_pretrained(place, revision=commit)


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
    from .modeling_neurallib.library_errors import ProgramFault
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

    if not source.is_file():
        raise CommandError(f"{source} is no file; give a Python source file")
    _check_for_library(output)
    library = compile_library(source, name=name)
    library.save_pretrained(output)
    (output / "README.md").write_text(library.card(), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps({"output": str(output), **_described(library)}, ensure_ascii=False))
    else:
        _show_library(library)
        typer.echo(f"written to {output}")


def _check_for_library(folder: Path) -> None:
    """A library may take the place of one, and of nothing else.

    Raises:
        CommandError: something else is there.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CommandError(f"{folder} is no folder; choose another --output")
    found = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    stray = sorted(found - LIBRARY_FILES if "library_config.json" in found else found)
    if stray:
        raise CommandError(f"{folder} holds {', '.join(stray[:4])}, which is no library's; choose another --output")


@app.command()
def inspect(
    library: Annotated[str, typer.Argument(help="A folder, org/name on the Hub, or Python source.")] = STANDARD,
    program: Annotated[str | None, typer.Argument(help="Show this program's source and instructions.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a library on the Hub.")] = None,
    as_json: Json = False,
) -> None:
    """Show what a library holds, or one program of it: its source beside its instructions."""
    loaded = _library(library, revision)
    if program is None:
        if as_json:
            typer.echo(json.dumps(_described(loaded), ensure_ascii=False))
        else:
            _show_library(loaded)
        return
    found = loaded.program(program)
    if as_json:
        record = asdict(found) | {"disassembly": loaded.disassemble(program)}
        if loaded.learned is not None:
            record["learned"] = [asdict(change) for change in loaded.changes()]
        typer.echo(json.dumps(record, ensure_ascii=False))
        return
    typer.echo(shown(f"{_signature(found)}\n\n{found.docstring}\n", lines=True))
    console = _console()
    for head, *lines in loaded.listing(program):
        table = _table("source", "instructions")
        if head.instructions:
            table.add_row(_text(""), _text("\n".join(head.instructions), lines=True))
        for listed in lines:
            table.add_row(_text(listed.source), _text("\n".join(listed.instructions), lines=True))
        console.print(_text(head.source))
        console.print(table)
    _show_learned(loaded)


def _show_learned(library: NeuralLibrary) -> None:
    """What learning changed in a library, beside what it was; nothing for one that is as compiled."""
    if library.learned is None:
        return
    changes = library.changes()
    table = _table("address", "in", "compiled", "learned", "weight", right=("address", "weight"))
    for change in changes:
        table.add_row(
            *map(_text, (f"{change.address:,}", change.function, change.before, change.after, f"{change.weight:.2f}"))
        )
    console = _console()
    console.print(
        _text(f"learned: {len(changes)} of {len(library.learned.rows)} instructions differ from the compiled ones")
    )
    console.print(table)


def _library(source: str, revision: str | None = None) -> NeuralLibrary:
    """A library by its name, folder or Python source."""
    from . import NeuralLibrary, compile_library, standard_library

    if source == STANDARD:
        return standard_library()
    if source.endswith(".py"):
        if not Path(source).is_file():
            raise CommandError(f"{source} is no file; give a Python source file, a library's folder or org/name")
        return compile_library(source)
    if not Path(source).is_dir():
        from huggingface_hub.utils import logging

        # What the client says while it tries again: what it comes to is said once, by us.
        logging.set_verbosity(logging.CRITICAL)
    return NeuralLibrary.from_pretrained(source, revision=revision)


def _described(library: NeuralLibrary) -> dict[str, Any]:
    programs = [asdict(program) for program in library.programs.values()]
    for program in programs:
        del program["source"]
    return {
        "name": library.name,
        "instructions": len(library.instructions),
        "fingerprint": library.fingerprint,
        "registers": library.registers,
        "repository": library.repository,
        "revision": library.revision,
        "learned": [asdict(change) for change in library.changes()],
        "keys": [{"base": each.base, "revision": each.revision, "heads": each.heads} for each in library.keys],
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
    place = f" ({library.repository} at {library.revision})" if library.repository else ""
    console.print(_text(f"{library.name}: {size}, for machines of {library.registers} registers{place}"))
    console.print(table)
    for keys in library.keys:
        place = f"{keys.base} at {keys.revision}" if keys.base else "a model that is not on the Hub"
        console.print(_text(f"keys tuned for {place}, heads {keys.heads}"))
    _show_learned(library)


def _signature(program: Program) -> str:
    parameters = ", ".join(f"{parameter.name}: {parameter.type}" for parameter in program.parameters)
    return f"{program.name}({parameters}) -> {program.returns}"


@app.command()
def publish(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a library, a model or an adapter.")],
    repository: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The repository on the Hub; made if missing.")],
    private: Annotated[bool, typer.Option("--private", help="Make a repository that only you can see.")] = False,
    revision: Annotated[str | None, typer.Option(help="The branch to put it on.")] = None,
    license: Annotated[str | None, typer.Option(help="For the card, an identifier such as apache-2.0.")] = None,
    message: Annotated[str | None, typer.Option(help="What the commit says.")] = None,
    base_model: Annotated[
        str | None, typer.Option(metavar="ORG/NAME", help="The base of an adapter that was trained on a folder.")
    ] = None,
    base_revision: Annotated[str | None, typer.Option(help="Its commit; the newest if not given.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, and list the files; upload nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Put a library, a model or an adapter on the Hub, with a card, in one commit. Pickles are refused."""
    _quiet()
    from .trainer.publishing import prepare, upload

    commit = None
    try:
        publication = prepare(folder, repository, license, base_model, base_revision)
        if not dry_run:
            with _working(f"uploading to {repository}"):
                commit = str(upload(publication, private or None, revision, message))
    except KeyboardInterrupt:
        typer.echo(
            f"neurallib: interrupted; {repository} is as it was unless its page shows a new commit, and the same command "
            "uploads what is missing",
            err=True,
        )
        raise typer.Exit(130) from None
    if as_json:
        record = {"repository": repository, "kind": publication.kind, "commit": commit, "files": publication.hashes}
        typer.echo(json.dumps(record | {"left_out": publication.left_out}, ensure_ascii=False))
        return
    table = _table("file", "sha256")
    for name, digest in sorted(publication.hashes.items()):
        table.add_row(_text(name), _text(digest))
    _console().print(table)
    for name in publication.left_out:
        typer.echo(f"left out: {shown(name)}")
    typer.echo(f"would go to {repository}" if commit is None else f"published: {commit}")


# Models


@app.command()
def assemble(
    base: Annotated[str, typer.Option(help=f"A Llama: org/name, a folder, a .gguf file, or {SMOLLM2}.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder for the model; it must not exist.")],
    library: Annotated[
        str,
        typer.Option(
            "--library",
            "-l",
            help="A folder, org/name on the Hub, or Python source; beside the standard library where --heads are trained for that.",
        ),
    ] = STANDARD,
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
            _put_card(scratch, base, output.name, _heads_folder(heads))
            if output.exists():
                output.rmdir()
            scratch.rename(output)
    except OSError as error:
        if str(error.filename).startswith(str(scratch)):
            raise CommandError(f"{output} cannot be written: {error.strerror}") from error
        raise
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
        with _loading(f"the base {base}", base):
            _find(base)
    from . import NeuralLibForCausalLM
    from .trainer.shipping import load_base, load_heads

    programs = _library(library)
    with _loading(f"the base {base}", base):
        backbone, tokenizer = load_base(base)
    folder = _heads_folder(heads)
    if folder is None:
        return NeuralLibForCausalLM.from_llama(backbone, library=programs, tokenizer=tokenizer), tokenizer
    model = load_heads(backbone, tokenizer, folder)
    if library != STANDARD:
        model.load_library(programs, tokenizer=tokenizer)
    return model, tokenizer


def _heads_folder(heads: str) -> Path | None:
    from .trainer.shipping import SHIPPED

    return {"none": None, "shipped": SHIPPED}.get(heads, Path(heads))


def _put_card(folder: Path, base: str, name: str, heads: Path | None) -> None:
    """Gives the folder of a model its card.

    Args:
        name: of the model. heads: the folder of its trained heads, whose record of the training goes with the model.
    """
    from .modeling_neurallib.sharing import CARD, RECORD, model_folder_card, sha256
    from .trainer.record import write_record

    if heads is not None and (heads / RECORD).is_file():
        write_record(folder, json.loads((heads / RECORD).read_bytes()))
    on_the_hub = not Path(base).exists() and base.count("/") == 1
    hashes = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    card = model_folder_card(
        folder,
        hashes,
        name,
        license="apache-2.0" if base == SMOLLM2 else None,
        base_model=SMOLLM2_ON_THE_HUB if base == SMOLLM2 else base if on_the_hub else None,
    )
    (folder / CARD).write_text(card, encoding="utf-8")


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="What to train, on what, how.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="key=value…", help="Values that replace those of the recipe.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train by a recipe; a run that was interrupted goes on where it was."""
    from .trainer.runs import train as follow

    _quiet()
    try:
        with redirect_stdout(sys.stderr):  # what the Trainer says on the way
            report = follow(recipe, list(overrides or []))
    except KeyboardInterrupt:
        from .trainer.checkpoints import last_checkpoint
        from .trainer.recipe import Recipe
        from .trainer.runs import is_made

        parts = Recipe.load(recipe, list(overrides or [])).parts()
        number = next((i for i, part in enumerate(parts[:-1]) if not is_made(part)), len(parts) - 1)
        last = last_checkpoint(Path(parts[number].output) / "checkpoints")
        run = f" run {number + 1} of {len(parts)}" if len(parts) > 1 else ""
        goes_on = (
            f"goes on from {last.name}{run and f',{run}'}"
            if last
            else f"begins{run} again: no checkpoint was saved yet"
        )
        typer.echo(f"neurallib: interrupted; the same command {goes_on}", err=True)
        raise typer.Exit(130) from None
    if os.environ.get("RANK", "0") != "0":  # of the processes of a launcher the first one speaks
        return
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False))
        return
    if (table := _training_table(report)).rows:
        _console().print(table)
    typer.echo(f"written to {shown(report['recipe']['output'])}")


def _training_table(report: dict[str, Any]) -> Any:
    """What a training measured, a row a measure."""
    measured = {
        part: {name: value for name, value in report[part].items() if isinstance(value, int | float)}
        for part in ("training", "validation")
        if part in report
    }
    table = _table("measured", *measured, right=tuple(measured))
    for name in dict.fromkeys(name for each in measured.values() for name in each):
        values = [f"{each[name]:.4g}" if name in each else "–" for each in measured.values()]
        table.add_row(*map(_text, [name, *values]))
    return table


@app.command()
def evaluate(
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--tasks",
            "-t",
            help="requests, dialogues, general, numbers, lists, programs, one split (numbers:digits_40), or a file; "
            "several with commas, or the option again.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A model or an adapter: a folder or org/name; by default SmolLM2-135M-Instruct, trained.",
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Compare with a base: its folder or org/name, or self: the model without its programs."),
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Compare with another run: its folder or its report.json.")
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="The folder for replies, and for report and plot of these tasks; a run goes on in it."
        ),
    ] = Path("evaluation"),
    examples: Annotated[
        int | None, typer.Option(min=1, help="The most examples of a task; by default 200, of a file all.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the values in the tasks.")] = 20_001,
    batch_size: Annotated[int, typer.Option(min=1, help="Conversations at once.")] = 8,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="The longest reply, in tokens; longer where the answer is.")
    ] = 64,
    card: Annotated[
        bool,
        typer.Option("--card", help="Leave the figures in the model's folder too: `publish` puts them into its card."),
    ] = False,
    benchmark: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK=ORG/NAME:ID",
            help="With --card: the benchmark of the Hub that a task is, for its leaderboard; may be given more than once.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure a model on tasks; a run that was interrupted goes on where it was."""
    from .trainer import evaluation, figures

    names = [
        name
        for given in tasks or ["requests,general"]
        for name in ([given] if Path(given).exists() else given.split(","))  # a file's name may hold a comma
        if name
    ]
    # What is wrong with the tasks is said before a model is loaded for minutes.
    before = evaluation.load_report(compare) if compare is not None else None
    if card and model is None:
        raise CommandError("--card leaves the figures in a model's folder: give that folder with --model")
    if benchmark and not card:
        raise CommandError("--benchmark says what the figures in a model's folder are of: give --card too")
    weights = figures.weights_of(Path(model)) if card and model is not None else {}
    chosen = [task for name in names for task in evaluation.load(name, examples, seed)]
    benchmarks = figures.benchmarks_of(benchmark or [], [task.name for task in chosen])
    with _working("loading the model"):
        language_model, tokenizer = _evaluated_model(model)
        reference = None
        if base is not None:
            reference = (language_model, tokenizer) if base == "self" else _evaluated_model(base)
    called = {"model": model or SMOLLM2} | ({} if base is None else {"base": base})
    try:
        report = evaluation.evaluate(
            language_model, tokenizer, chosen, output, reference, batch_size, max_new_tokens, called
        )
    except KeyboardInterrupt:
        typer.echo(f"neurallib: interrupted; the same command goes on with what is in {shown(str(output))}", err=True)
        raise typer.Exit(130) from None
    if card and model is not None:
        figures.write_figures(Path(model), report, weights, benchmarks)
    changes = evaluation.compared(report, before) if before is not None else None
    try:
        evaluation.plot(report, output / "report.png")
    except ImportError as error:
        typer.echo(f"neurallib: no plot was drawn: {explain(error)}", err=True)
    if as_json:
        typer.echo(json.dumps(report | ({} if changes is None else {"changes": changes}), ensure_ascii=False))
        return
    console = _console()
    for table in _evaluation_tables(report, changes):
        console.print(table)
    typer.echo(f"written to {shown(str(output))}")


def _evaluated_model(source: str | None) -> tuple[Any, Any]:
    """A model with or without a computer, and its tokenizer; the one that ships if no source is given."""
    if source is None:
        return _language_model(None)
    if source != SMOLLM2 and not source.endswith(".gguf"):
        with _loading(f"the model {source}", source):
            _find(source)
    _quiet()
    from transformers import AutoConfig

    from . import NeuralLibConfig
    from .trainer.adapters import base_of
    from .trainer.shipping import load_base

    with _loading(f"the model {source}", source):
        plain = source == SMOLLM2 or source.endswith(".gguf")
        if not plain and base_of(source) is None:
            plain = AutoConfig.from_pretrained(source).model_type != NeuralLibConfig.model_type
        if plain:
            return load_base(source)
    return _language_model(source)


def _evaluation_tables(report: dict[str, Any], changes: dict[str, Any] | None) -> Iterator[Any]:
    """What an evaluation found: a row a task, the curves, and what has changed since another run."""
    from .trainer.evaluation import HEADLINES

    def percent(found: dict[str, Any] | None) -> str:
        if not found or found["share"] is None:
            return "–"
        return f"{100 * found['share']:.1f} % ({100 * found['low']:.0f}–{100 * found['high']:.0f})"

    def points(change: dict[str, float] | None) -> str:
        if change is None:
            return "–"
        low, high = 100 * change["low"], 100 * change["high"]
        return f"{100 * change['difference']:+.1f} ({low:+.0f} to {high:+.0f})"

    with_base = any("base" in task for task in report["tasks"].values())
    columns = ["examples", "exact match", "stated"]
    columns += ["exact match, base", "stated, base", "identical to base"] if with_base else []
    table = _table("replies", *columns, right=columns)
    table.columns[0].no_wrap = True
    for name, task in report["tasks"].items():
        row = [name, f"{task['examples']:,}", percent(task.get("exact_match")), percent(task.get("stated"))]
        if with_base:
            alone, retained = task.get("base", {}), task.get("retention")
            row += [percent(alone.get("exact_match")), percent(alone.get("stated"))]
            row += [percent(retained and retained | {"share": retained["identical"]})]
        table.add_row(*map(_text, row))
    yield table
    if any("calls" in task for task in report["tasks"].values()):
        columns = ["precision", "recall", "no call where none is wanted", "selection", "reading"]
        table = _table("calls", *columns, right=columns)
        table.columns[0].no_wrap = True
        for name, task in report["tasks"].items():
            calls = task.get("calls", {})
            counted = (("precision", "made_calls"), ("recall", "wanted_calls"), ("quiet", "quiet_replies"))
            row = [name, *(f"{100 * calls[rate]:.1f} %" if calls.get(count) else "–" for rate, count in counted)]
            row += [percent(task.get("selection_accuracy")), percent(task.get("reading_accuracy"))]
            table.add_row(*map(_text, row))
        yield table
    for group, measures in report["length_generalisation"].items():
        for measure, curve in measures.items():
            table = _table(f"{group}: {measure}", "examples", "exact match", right=("examples", "exact match"))
            for point in curve:
                row = [f"{point['least']}–{point['most']}", f"{point['count']:,}", percent(point)]
                table.add_row(*map(_text, row))
            yield table
    for name, task in report["tasks"].items():
        if task.get("without_reply"):
            missing = task["without_reply"]
            yield _text(f"  {name}: {missing['count']} without a reply; the first: {missing['first']}")
    if changes is not None:
        table = _table("task, in points since the other run", *HEADLINES, "same examples", right=tuple(HEADLINES))
        for name, change in changes.items():
            row = [name, *(points(change.get(key)) for (key,) in HEADLINES.values())]
            table.add_row(*map(_text, [*row, "yes" if change["same_examples"] else "no"]))
        yield table if changes else _text("  the other run has none of these tasks")


# What people see


def shown(text: str, lines: bool = False) -> str:
    """Text of a model or a stranger, fit for a terminal: control characters, which could steer it, are written out.

    Args:
        lines: keep line breaks and tabs.
    """
    kept = "\n\t" if lines else ""
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)


def _text(text: str, lines: bool = False) -> Any:
    """A cell of a table: never read as markup. ``lines``: keep its line breaks."""
    from rich.text import Text

    return Text(shown(text, lines=lines))


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
def _loading(what: str, source: str, revision: str | None = None) -> Iterator[None]:
    """Name what was being loaded when the Hugging Face libraries fail, which they do with many kinds of errors.

    Args:
        source: its folder, or ``org/name``.
    """
    try:
        yield
    except Exception as error:
        kind = type(error)
        expected = kind.__module__ != "builtins" or isinstance(error, OSError | ValueError | KeyError | RuntimeError)
        if kind.__module__.split(".")[0] == "neurallib" or not expected:
            raise
        raise CommandError(f"{what} cannot be loaded: {_reason(error, source, revision)}") from error


def _reason(error: BaseException, source: str, revision: str | None) -> str:
    """One line for why something cannot be loaded: what led to it says more than the loaders, which then guess."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError
    from safetensors import SafetensorError

    from .modeling_neurallib.library_hub import hub_reason

    seen: BaseException | None = error
    while seen is not None:
        told = " ".join(str(seen).split())
        if type(seen) is ConnectionError:  # from _find
            return told
        if isinstance(seen, HFValidationError) and not Path(source).exists():
            return f"there is no folder {source}; give a folder that is there, or org/name on the Hub"
        if isinstance(seen, SafetensorError | UnicodeDecodeError | json.JSONDecodeError):
            again = "get it again" if Path(source).exists() else f"get it again, after `hf cache rm model/{source}`"
            return f"one of its files is cut short or corrupt ({told}); {again}"
        answered = isinstance(seen, HfHubHTTPError) and not isinstance(seen, EntryNotFoundError)
        if answered or type(seen).__module__.startswith(("httpx", "requests")):
            return hub_reason(seen, source, revision)
        seen = seen.__cause__ or seen.__context__
    return " ".join(str(error).split()) or type(error).__name__


def _find(model: str) -> None:
    """Ask the Hub for a model that is not on this machine, once: the loaders would go on asking for half a minute.

    Raises:
        CommandError: it is a file. ConnectionError: the Hub does not answer.
    """
    if Path(model).is_file():
        raise CommandError(f"{model} is a file; a model is a folder, or org/name on the Hub")
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
