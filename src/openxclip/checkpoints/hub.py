"""Files from the Hugging Face hub, through its own client: its cache, its log-in, its offline mode."""

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

from openxclip.errors import HubError

ID = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*", re.ASCII)

CONFIG_FILES = (
    "config.json",
    "preprocessor.json",
    "preprocessor_config.json",
    "processor_config.json",
    "open_clip_config.json",
)
TOKENIZER_FILES = ("tokenizer.json", "spiece.model", "merges.txt")  # the first that is there is enough
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
# Marker file -> what to download with it; the first whose marker is there is taken. Many repositories hold the same
# weights for transformers and for open_clip, in this order.
WEIGHTS = {
    "model.safetensors": (),
    "model.safetensors.index.json": ("model-*.safetensors",),
    "pytorch_model.bin": (),
    "pytorch_model.bin.index.json": ("pytorch_model-*.bin",),
    "open_clip_model.safetensors": (),
    "open_clip_pytorch_model.bin": (),
}
OFFLINE = "openxclip-tiny, which comes with the package, needs no network (it knows moving shapes only)"
Choice = Callable[[Collection[str]], list[str]]
"""File names of a repository -> patterns of those to download; none if it lacks what is needed."""

# Answers of the hub, not failures to reach it: a cached copy must not hide them.
DEFINITE = (RepositoryNotFoundError, RevisionNotFoundError)


def is_hub_id(source: str) -> bool:
    """Whether a text can be a hub id: `name` or `owner/name`."""
    return ID.fullmatch(source) is not None and ".." not in source and "--" not in source


def download_model(repo_id: str, revision: str | None = None) -> Path:
    """The folder with a repository's configuration, weights and tokenizer, downloaded if it is not cached.

    Raises:
        HubError: the repository, its weights or the network cannot be had.
    """
    return _download(repo_id, revision, _model_files)


def download_tokenizer(repo_id: str, revision: str | None = None) -> Path:
    """The folder with a repository's tokenizer.

    Raises:
        HubError: the repository, its tokenizer or the network cannot be had.
    """
    return _download(repo_id, revision, _tokenizer_files)


def _model_files(names: Collection[str]) -> list[str]:
    for marker, others in WEIGHTS.items():
        if marker in names:
            return [*CONFIG_FILES, *_tokenizer_files(names), marker, *others]
    return []


def _tokenizer_files(names: Collection[str]) -> list[str]:
    found = [name for name in TOKENIZER_FILES if name in names][:1]
    return [*found, TOKENIZER_CONFIG_FILE] if found else []


def _download(repo_id: str, revision: str | None, choose: Choice) -> Path:
    try:
        siblings = HfApi().model_info(repo_id, revision=revision).siblings or []
        files = choose([file.rfilename for file in siblings])
        if files:
            return Path(snapshot_download(repo_id, revision=revision, allow_patterns=files))
    except Exception as error:  # what a lost connection raises depends on the client's version
        cached = None if isinstance(error, DEFINITE) else _cached(repo_id, revision, choose)
        if cached is None:
            raise HubError(_explain(repo_id, revision, error)) from error
        return cached
    raise HubError(
        f"the hub's {repo_id} has no file of the kind needed, such as {', '.join((*TOKENIZER_FILES, *WEIGHTS))}; "
        "give another repository"
    )


def _cached(repo_id: str, revision: str | None, choose: Choice) -> Path | None:
    """What an earlier download left, for when the hub cannot be asked, if it holds the files that count."""
    try:
        # No patterns, as newer clients would insist on all files of the repository that match.
        folder = snapshot_download(repo_id, revision=revision, allow_patterns=[], local_files_only=True)
    except LocalEntryNotFoundError:
        return None
    return Path(folder) if choose([path.name for path in Path(folder).iterdir()]) else None


def _explain(repo_id: str, revision: str | None, error: BaseException) -> str:
    """One line: what failed, and what to do."""
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # the client hides the reason behind "not in the cache either"
    if isinstance(error, GatedRepoError):
        return (
            f"access to {repo_id} is restricted: accept its conditions at https://huggingface.co/{repo_id}, then "
            "log in with `hf auth login` or set HF_TOKEN"
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{repo_id!r} is no file or folder here, and the hub has no such model, or it is private: check the name; "
            "for a private one log in with `hf auth login` or set HF_TOKEN"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{repo_id} has no revision {revision!r}: give a branch, tag or commit that it has"
    if isinstance(error, OfflineModeIsEnabled):
        return (
            f"{repo_id} is not in the cache, and HF_HUB_OFFLINE forbids asking the hub: unset it, or load the model "
            f"once where there is a network; {OFFLINE}"
        )
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        status = error.response.status_code
        return f"the hub answered {status} for {repo_id}: try again later, or log in with `hf auth login`"
    reason = str(error).partition("\n")[0]
    return (
        f"the hub cannot be reached for {repo_id}, which is not in the cache ({type(error).__name__}: {reason}): "
        f"check the network connection, or give a local folder; {OFFLINE}"
    )
