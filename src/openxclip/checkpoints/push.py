"""Uploads to the Hugging Face hub with its own client, including its log-in and offline mode."""

from pathlib import Path

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError

from openxclip.checkpoints.hub import is_hub_id
from openxclip.errors import HubError, InputError

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN, with a token that may write"


def check_push(repo_id: str) -> None:
    """Check that a push can be tried: the form of the name, a token, no offline mode. Sends nothing.

    Raises:
        InputError: the name is not `owner/name`.
        HubError: there is no token, or HF_HUB_OFFLINE is set.
    """
    if "/" not in repo_id or not is_hub_id(repo_id):
        raise InputError(f"{repo_id!r} is not a repository of the hub; give it as owner/name")
    if constants.HF_HUB_OFFLINE:
        raise HubError(f"{repo_id} cannot be pushed while HF_HUB_OFFLINE forbids asking the hub: unset it")
    if get_token() is None:
        raise HubError(f"{repo_id} cannot be pushed without a log-in: {LOG_IN}")


def push(folder: Path, repo_id: str, *, private: bool) -> str:
    """Upload a model folder as one commit, creating the repository if it does not exist -> its URL.

    Raises:
        HubError: the hub refuses, or cannot be reached; the folder stays as it is.
    """
    try:
        api = HfApi(library_name="openxclip")
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Model converted by OpenXCLIP")
        return str(address)
    except (
        Exception
    ) as error:  # a lost connection raises different errors in different versions of the client
        raise HubError(_explain(repo_id, folder, error)) from error


def _explain(repo_id: str, folder: Path, error: Exception) -> str:
    """One line that says what failed and what to do."""
    again = f"the model is in {folder}; upload it later with `hf upload {repo_id} {folder}`"
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        status = error.response.status_code
        advice = LOG_IN if status in (401, 403) else "try again later"
        return f"the hub answered {status} to the upload of {repo_id}: {advice}; {again}"
    reason = str(error).partition("\n")[0]
    return f"{repo_id} cannot be uploaded ({type(error).__name__}: {reason}): check the connection; {again}"
