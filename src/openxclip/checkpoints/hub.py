"""Downloads from the Hugging Face hub with its own client, including its cache, log-in and offline mode."""

import re
from collections.abc import Callable, Collection
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from openxclip.checkpoints.formats.registry import FOLDER_FORMATS
from openxclip.checkpoints.weights import weights_files
from openxclip.errors import HubError
from openxclip.text.tokenizer_folder import CONFIG_FILE as TOKENIZER_CONFIG_FILE
from openxclip.text.tokenizer_folder import FILES as TOKENIZER_FILES

ID = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*", re.ASCII)

OFFLINE = "openxclip-tiny, which comes with the package, needs no network (it knows moving shapes only)"

# The files that the readers of all formats look for, in order.
CONFIG_FILES = tuple(dict.fromkeys(file for format in FOLDER_FORMATS for file in format.config_files))
WEIGHTS = tuple(dict.fromkeys(files for format in FOLDER_FORMATS for files in weights_files(format.weights)))
Choice = Callable[[Collection[str]], list[str]]
"""File names of a repository -> patterns of those to download; empty if it has no suitable files."""

# Answers of the hub, not connection failures; a cached copy must not hide them.
DEFINITE = (RepositoryNotFoundError, RevisionNotFoundError)


def is_hub_id(source: str) -> bool:
    """Whether a string has the form of a hub id: `name` or `owner/name`."""
    return ID.fullmatch(source) is not None and ".." not in source and "--" not in source


def download_model(repo_id: str, revision: str | None = None) -> Path:
    """The folder with a repository's configuration, weights and tokenizer, downloaded if it is not cached.

    Raises:
        HubError: the repository, its weights or the network is unavailable.
    """
    return _download(repo_id, revision, _model_files)


def download_tokenizer(repo_id: str, revision: str | None = None) -> Path:
    """The folder with a repository's tokenizer.

    Raises:
        HubError: the repository, its tokenizer or the network is unavailable.
    """
    return _download(repo_id, revision, _tokenizer_files)


def _model_files(names: Collection[str]) -> list[str]:
    """The preferred weights that the repository has, with all configuration."""
    weights = next((files for files in WEIGHTS if files[0] in names), None)
    return [] if weights is None else [*CONFIG_FILES, *_tokenizer_files(names), *weights]


def _tokenizer_files(names: Collection[str]) -> list[str]:
    """The tokenizer that a reader prefers, with its configuration."""
    found = [name for name in TOKENIZER_FILES if name in names][:1]
    return [*found, TOKENIZER_CONFIG_FILE] if found else []


def _download(repo_id: str, revision: str | None, choose: Choice) -> Path:
    try:
        siblings = HfApi().model_info(repo_id, revision=revision).siblings or []
        files = choose([file.rfilename for file in siblings])
        if files:
            return Path(snapshot_download(repo_id, revision=revision, allow_patterns=files))
    except (
        Exception
    ) as error:  # a lost connection raises different errors in different versions of the client
        cached = None if isinstance(error, DEFINITE) else _cached(repo_id, revision, choose)
        if cached is None:
            raise HubError(_explain(repo_id, revision, error)) from error
        return cached
    raise HubError(
        f"{repo_id} on the hub has no suitable file, such as "
        f"{', '.join((*TOKENIZER_FILES, *(files[0] for files in WEIGHTS)))}; give another repository"
    )


def _cached(repo_id: str, revision: str | None, choose: Choice) -> Path | None:
    """The folder of an earlier, complete download, if any; for when the hub is unreachable."""
    try:
        # Without patterns, as newer clients would insist on all matching files of the repository.
        folder = snapshot_download(repo_id, revision=revision, allow_patterns=[], local_files_only=True)
    except LocalEntryNotFoundError:
        return None
    return Path(folder) if choose([path.name for path in Path(folder).iterdir()]) else None


def _explain(repo_id: str, revision: str | None, error: BaseException) -> str:
    """One line that says what failed and what to do."""
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # the client hides the reason behind "not in the cache either"
    if isinstance(error, GatedRepoError):
        return (
            f"access to {repo_id} is restricted: accept its conditions at https://huggingface.co/{repo_id}, then "
            "log in with `hf auth login` or set HF_TOKEN"
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{repo_id!r} is not a local file or folder, and the hub has no such model, or it is private: check the "
            "name; for a private model log in with `hf auth login` or set HF_TOKEN"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{repo_id} has no revision {revision!r}: give a branch, tag or commit that it has"
    if isinstance(error, OfflineModeIsEnabled):
        return (
            f"{repo_id} is not in the cache, and HF_HUB_OFFLINE forbids asking the hub: unset it, or load the model "
            f"once with a network connection; {OFFLINE}"
        )
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        status = error.response.status_code
        return f"the hub answered {status} for {repo_id}: try again later, or log in with `hf auth login`"
    reason = str(error).partition("\n")[0]
    return (
        f"the hub cannot be reached for {repo_id}, which is not in the cache ({type(error).__name__}: {reason}): "
        f"check the network connection, or give a local folder; {OFFLINE}"
    )
