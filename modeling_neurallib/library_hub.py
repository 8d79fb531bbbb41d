"""A library on the Hub: uploading and downloading it, and one line for what went wrong there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .library_errors import SHOWN, LibraryError, one_line, shown
from .library_files import CONFIG_FILE, TENSOR_FILE, file_contents
from .library_records import LibraryData
from .library_validation import MAXIMUM_NAME

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo


def upload(
    library: LibraryData,
    card: str,
    repo_id: str,
    *,
    private: bool | None,
    commit_message: str | None,
    token: str | bool | None,
    revision: str | None,
    create_pr: bool,
) -> CommitInfo:
    """Uploads a library and its card in one commit, to a repository that is made if it is missing.

    Raises:
        LibraryError: the upload fails; the repository is then as it was.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    files = {"README.md": card.encode(), **file_contents(library)}
    try:
        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        return api.create_commit(
            repo_id=repo_id,
            operations=[CommitOperationAdd(name, content) for name, content in files.items()],
            commit_message=commit_message or f"Upload library {library.name}",
            revision=revision,
            create_pr=create_pr,
        )
    except Exception as error:  # the HTTP library's, whichever that is, among them
        raise LibraryError(f"library {library.name!r} cannot be uploaded: {hub_reason(error, repo_id)}") from error


def download(repository: str, revision: str | None, options: dict[str, Any]) -> Path:
    """The folder, named by its commit, in which the two files of a repository lie.

    Args:
        options: of ``huggingface_hub.snapshot_download``.

    Raises:
        LibraryError: there is no such repository or revision, or it cannot be had.
    """
    if len(repository) > 2 * MAXIMUM_NAME or not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", repository):
        raise LibraryError(f"no folder {shown(repository)}; give the folder of a library, or a repository org/name")
    from huggingface_hub import snapshot_download

    wanted = [CONFIG_FILE, TENSOR_FILE]
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=wanted, **options))
    except Exception as error:  # the HTTP library's, whichever that is, among them
        reason = hub_reason(error, repository, revision)
        raise LibraryError(
            f"no folder {repository!r}, and no such library can be had from the Hub: {reason}"
        ) from error


def hub_reason(error: BaseException, repository: str, revision: str | None = None) -> str:
    """One line for what went wrong between this machine and the Hub, and the way out."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, errors.HfHubHTTPError):
        error = error.__cause__  # the client looked into its cache after the Hub had answered
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return f"access to {repository} must be asked for on its page"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repository} has no revision {shown(revision or 'main')}; check the branch, tag or commit"
    if status == 401 and re.search("invalid (credentials|user token)", str(error), re.IGNORECASE):
        return "the Hub does not know this token; log in again with `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no repository {repository}, or your token may not see it; check the name, or `hf auth login`"
    if status in (401, 403) or isinstance(error, errors.LocalTokenNotFoundError):
        return f"your token may not do this with {repository}; log in with `hf auth login`, with a token that may write"
    said = " ".join(str(error).split()) or type(error).__name__
    return f"{one_line(said[: 8 * SHOWN])}; check name and network"
