"""Files and checkpoints that are whole or not there: written beside their place, then put there in one step."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..modeling_neurallib.sharing import no_space


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there with all of its text, or as it was."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(text, encoding="utf-8")
    os.replace(scratch, path)
    for left in path.parent.glob(f".{path.name}.*"):  # by a process that was killed
        left.unlink(missing_ok=True)


STAGE = ".unfinished"
"""Folder of a run in which a checkpoint is written; what is left in it was interrupted."""


class SavingError(OSError):
    """Something that could not be saved. What was saved before is whole."""


BEFORE = ".before"


def put_back(run: Path) -> None:
    """What was being staged goes; a whole checkpoint that was to be replaced, and was not, takes its place again."""
    for before in (run / STAGE).glob(f"*{BEFORE}"):
        place = run / before.name.removesuffix(BEFORE)
        if not place.exists():
            with suppress(FileNotFoundError):  # another process of the run was first
                os.replace(before, place)
    shutil.rmtree(run / STAGE, ignore_errors=True)


def last_checkpoint(folder: str | os.PathLike[str]) -> Path | None:
    """The last checkpoint of a run."""
    found = [path for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.name.rsplit("-", 1)[1].isdigit()]
    return max(found, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)


@contextmanager
def said_clearly(what: str, folder: str | os.PathLike[str]) -> Iterator[None]:
    """Turns the errors of a full device, which come in many kinds, into one that says what is whole and what to do.

    Raises:
        SavingError: no space left.
    """
    try:
        yield
    except Exception as error:
        if not no_space(error):
            raise
        last = last_checkpoint(folder)
        whole = "no checkpoint was saved before" if last is None else f"the last whole checkpoint is {last.name}"
        raise SavingError(
            errno.ENOSPC,
            f"no space left for {what} in {folder}: {whole}; free some space, or lower save_total_limit, and start the run "
            "again: it goes on from there",
        ) from error


MADE_WITH = "made_with.json"
"""A file of a checkpoint: the libraries and the backbone that it belongs to."""


class CheckpointError(ValueError):
    """A checkpoint of another model than the one that would go on from it."""


def write_made_with(checkpoint: Path, made_with: dict[str, str]) -> None:
    """Say what a checkpoint belongs to: a name → a hash or a name."""
    (checkpoint / MADE_WITH).write_text(json.dumps(made_with, indent=2) + "\n", encoding="utf-8")


def check_made_with(checkpoint: Path, made_with: dict[str, str]) -> None:
    """A checkpoint goes on only with what it was made with; one that does not say is taken as it is.

    Raises:
        CheckpointError: it was made with another library, another version of it, or another backbone.
    """
    if not (checkpoint / MADE_WITH).is_file():
        return
    then = json.loads((checkpoint / MADE_WITH).read_text(encoding="utf-8"))
    for name in sorted(then.keys() | made_with.keys()):
        if then.get(name) != made_with.get(name):
            was, now = (str(each.get(name, "none"))[:12] for each in (then, made_with))
            raise CheckpointError(
                f"{checkpoint.name} was made with another {name} ({was}, now {now}): give the run the one it began with, "
                "or another output folder to begin anew"
            )


def put_in_place(stage: Path, place: Path) -> None:
    """A folder that is complete takes its place, in the stead of an older one of that name.

    Whenever it is interrupted, what stands in that place is whole, or nothing stands there, and :func:`put_back` mends that.
    """
    state = stage / "trainer_state.json"
    if state.exists():
        told = json.loads(state.read_text(encoding="utf-8"))
        best = told.get("best_model_checkpoint")
        if best is not None and Path(best) == stage:
            told["best_model_checkpoint"] = str(place)
            state.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for path in stage.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    before = stage.with_name(f"{stage.name}{BEFORE}")
    if place.exists():
        os.replace(place, before)
    os.replace(stage, place)
    if before.exists():
        shutil.rmtree(before)
