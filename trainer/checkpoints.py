"""Checkpoints that are whole or not there: written beside their place, then put there in one step."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..modeling_neurallib.sharing import no_space

STAGE = ".unfinished"
"""Folder of a run in which a checkpoint is written; what is left in it was interrupted."""


class SavingError(OSError):
    """Something that could not be saved. What was saved before is whole."""


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


def put_in_place(stage: Path, place: Path) -> None:
    """A folder that is complete takes its place, in the stead of an older one of that name.

    Whenever it is interrupted, what stands in that place is whole, or nothing stands there.
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
    before = stage.with_name(f"{stage.name}.before")
    if place.exists():
        os.replace(place, before)
    os.replace(stage, place)
    if before.exists():
        shutil.rmtree(before)
