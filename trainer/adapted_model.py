"""What PEFT puts around a model that calls programs, published as what it is: imported only where PEFT is."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

from peft import PeftModelForCausalLM

from ..modeling_neurallib.library_errors import LibraryError
from ..modeling_neurallib.library_hub import hub_reason
from ..modeling_neurallib.sharing import CARD, PublishError, no_space
from .publishing import describe


class AdaptedModel(PeftModelForCausalLM):
    """A ``PeftModelForCausalLM`` whose :meth:`push_to_hub` puts up our card instead of PEFT's draft."""

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """As PEFT's, which reads the base's configuration as one of ours, and warns at each save where it is a plain Llama's."""
        logger = logging.getLogger("transformers.configuration_utils")
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            super().save_pretrained(*args, **kwargs)
        finally:
            logger.setLevel(level)

    def push_to_hub(self, repo_id: str, *args: Any, **kwargs: Any) -> Any:
        """As PEFT's, with a card made from the files that go up; a card of your own in the repository is kept.

        Args:
            kwargs: ``tokenizer``, to go up too; ``license``; ``base_model`` and ``base_revision`` of an adapter whose base was
                not loaded from the Hub; and what the stock one takes.
        Raises:
            PublishError: nothing went up: its base is not on the Hub or another one, the Hub refuses or cannot be reached, or
                there is no space left to save what goes.
        """
        named = {name: kwargs.pop(name, None) for name in ("license", "base_model", "base_revision")}
        self._publishing = (kwargs.pop("tokenizer", None), named)
        try:
            return super().push_to_hub(repo_id, *args, **kwargs)
        except (PublishError, LibraryError):
            raise
        except Exception as error:  # the HTTP library's and safetensors' own, whichever those are, among them
            reason = hub_reason(error, repo_id, kwargs.get("revision"))
            if no_space(error):
                reason = f"no space left in {tempfile.gettempdir()} to save what goes up; free some, or set TMPDIR"
            raise PublishError(f"{repo_id} cannot be uploaded: {reason}") from error
        finally:
            del self._publishing

    def _upload_modified_files(self, working_dir: Any, repo_id: str, *args: Any, **kwargs: Any) -> Any:
        """What ``push_to_hub`` ends with: here the folder is checked and gets its card."""
        folder = Path(working_dir)
        tokenizer, named = self._publishing
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        publication = describe(folder, repo_id, **named)
        for name, content in {**publication.replaced, CARD: publication.card.encode()}.items():
            (folder / name).write_bytes(content)
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)
