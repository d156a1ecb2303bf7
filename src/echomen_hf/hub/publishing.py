"""Upload of a folder to the Hub in one commit, with errors that say what to do."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_token,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id
from transformers.utils import CONFIG_NAME, logging

from ..model.configuration_echomen import EchoMENConfig
from .repository import CARD_FILE, listing


__all__ = ["create_repository", "publish_folder", "resolve_repository"]

logger = logging.get_logger(__name__)

WAITS = (1.0, 4.0)
"""Seconds before the second and the third attempt."""

TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})

PICKLES = frozenset({".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"})
"""Endings of files that run code when they are loaded, or may."""

STALE = re.compile(r"(evaluation/.*|[^/]*_echomen\.py|model(-\d+-of-\d+)?\.safetensors(\.index\.json)?|echomen_hf/.*)")
"""Files that an earlier publication left and that mean something else, or nothing, beside a new one."""

INITIAL_FILES = frozenset({".gitattributes", ".gitignore", "LICENSE", CARD_FILE})

Result = TypeVar("Result")


def publish_folder(
    folder: str | Path,
    repo_id: str,
    *,
    repo_type: str = "model",
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str = "Upload EchoMEN",
    commit_description: str | None = None,
) -> CommitInfo:
    """Publish a folder in one commit: afterwards either all of it is on the Hub or nothing.

    Everything that can be checked is checked before the upload. A request that failed for a temporary reason is
    repeated if that does no harm: the commit names its parent and leaves out files that are already there, so a commit
    whose answer was lost is not made twice.

    Args:
        folder: Folder of `stage_repository` or `stage_space`.
        repo_id: Id of the repository. Without an owner, the token's owner is used.
        repo_type: `model` or `space`.
        private: Whether a new repository is private. Defaults to the owner's setting.
        token: Token with write access. Defaults to the stored one.
        revision: Branch, created if missing. Defaults to the main branch.
        create_pr: Whether to open a pull request instead.
        commit_message: Title of the commit.
        commit_description: Description of the commit.

    Returns:
        The commit.

    Raises:
        ValueError: If the folder holds a pickle, the id is not valid, or the repository holds something else.
        PermissionError: If there is no token, or it does not suffice.
        FileNotFoundError: If the repository or branch does not exist.
        ConnectionError: If the Hub cannot be reached or fails.
    """
    root = Path(folder)
    files = listing(root)
    if not files:
        raise ValueError(f"{root} holds no files to publish.")
    if pickles := [name for name in files if Path(name).suffix in PICKLES]:
        raise ValueError(f"Pickles are never published, since loading one runs its code: {', '.join(pickles)}.")
    api = HfApi(token=token)
    repo_id = create_repository(repo_id, repo_type=repo_type, private=private, token=token)
    with _clear_errors(repo_id):
        if revision is not None and not revision.startswith("refs/pr/"):
            _attempt(lambda: api.create_branch(repo_id, branch=revision, repo_type=repo_type, exist_ok=True))
        parent = _attempt(lambda: api.repo_info(repo_id, repo_type=repo_type, revision=revision)).sha

    def commit() -> CommitInfo:
        present = api.list_repo_files(repo_id, repo_type=repo_type, revision=revision)
        stale = [name for name in present if name not in files and STALE.fullmatch(name)]
        return api.create_commit(
            repo_id,
            [
                *(CommitOperationAdd(name, root / name) for name in files),
                *(CommitOperationDelete(name) for name in stale),
            ],
            commit_message=commit_message,
            commit_description=commit_description,
            repo_type=repo_type,
            revision=revision,
            create_pr=create_pr,
            parent_commit=parent,
        )

    with _clear_errors(repo_id, "All files are there or none of them is; the same command may be run again."):
        # A second pull request would be made where the answer to the first was lost.
        return commit() if create_pr else _attempt(commit)


def resolve_repository(
    repo_id: str, *, repo_type: str = "model", private: bool | None = None, token: str | bool | None = None
) -> tuple[str, bool]:
    """Check that a repository may be published to, without any change; returns its full id and whether it exists."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} is no id of a repository, such as owner/name: {error}") from error
    if constants.HF_HUB_OFFLINE:
        raise ConnectionError("Publishing needs the Hub, but HF_HUB_OFFLINE is set; unset it, or make a dry run.")
    if (token is None or token is True) and get_token() is None:
        raise PermissionError(
            "There is no token for the Hub. Log in by `hf auth login`, or set HF_TOKEN to a token with write access "
            "from https://huggingface.co/settings/tokens."
        )
    api = HfApi(token=token)
    with _clear_errors(repo_id):
        owner = _attempt(api.whoami)["name"]
        repo_id = repo_id if "/" in repo_id else f"{owner}/{repo_id}"
        try:
            info = _attempt(lambda: api.repo_info(repo_id, repo_type=repo_type))
        except RepositoryNotFoundError:
            return repo_id, False
        if private and not info.private:
            raise ValueError(
                f"{repo_id} exists and is public. Make it private in its settings on the Hub first, or leave out "
                "`private`."
            )
        files = {sibling.rfilename for sibling in info.siblings or []}
        if repo_type == "space":
            _check_space(repo_id, files, getattr(info, "sdk", None))
        else:
            _check_model(api, repo_id, files, info.sha)
    return repo_id, True


def create_repository(
    repo_id: str, *, repo_type: str = "model", private: bool | None = None, token: str | bool | None = None
) -> str:
    """Create a repository, or check that the existing one may be published to; returns its full id."""
    repo_id, exists = resolve_repository(repo_id, repo_type=repo_type, private=private, token=token)
    if not exists:
        api, sdk = HfApi(token=token), {"space_sdk": "gradio"} if repo_type == "space" else {}
        with _clear_errors(repo_id):
            _attempt(lambda: api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True, **sdk))
    return repo_id


def _check_model(api: HfApi, repo_id: str, files: set[str], revision: str | None) -> None:
    """Refuse a repository that holds another kind of model."""
    if CONFIG_NAME in files:
        path = _attempt(lambda: api.hf_hub_download(repo_id, CONFIG_NAME, revision=revision))
        try:
            model_type = json.loads(Path(path).read_text(encoding="utf-8")).get("model_type")
        except (ValueError, AttributeError):
            model_type = None
        if model_type != EchoMENConfig.model_type:
            raise ValueError(
                f"{repo_id} exists and holds a model of type {model_type!r}, not {EchoMENConfig.model_type!r}. "
                "Nothing was published; choose another name."
            )
    elif others := sorted(files - INITIAL_FILES):
        raise ValueError(
            f"{repo_id} exists and holds files that are no EchoMEN model ({', '.join(others[:3])}). Nothing was "
            "published; choose another name."
        )


def _check_space(repo_id: str, files: set[str], sdk: str | None) -> None:
    """Refuse a Space that was not made by this package."""
    others = sorted(files - INITIAL_FILES)
    if others and not (sdk == "gradio" and any(name.startswith("echomen_hf/") for name in files)):
        raise ValueError(
            f"The Space {repo_id} exists and holds another app ({', '.join(others[:3])}). Nothing was published; "
            "choose another name."
        )


def _attempt(call: Callable[[], Result]) -> Result:
    """Make a request up to three times."""
    for wait in WAITS:
        try:
            return call()
        except (HTTPError, RuntimeError, json.JSONDecodeError) as error:
            if not _is_transient(error):
                raise
            logger.warning(f"The Hub failed ({_first_line(error)}); trying again in {wait:g} s.")
            time.sleep(wait)
    return call()


def _is_transient(error: Exception) -> bool:
    """Whether an error may be gone a moment later: no connection, a failing server, or no answer of the Hub."""
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        # How huggingface_hub reports the failure of one of several uploads.
        return _is_transient(error.__cause__)
    if isinstance(error, HfHubHTTPError):
        return _status_of(error) in TRANSIENT
    return isinstance(error, HTTPError | json.JSONDecodeError) and not isinstance(error, OfflineModeIsEnabled)


def _status_of(error: Any) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _clear_errors(repo_id: str, consequence: str = "Nothing was published.") -> Iterator[None]:
    """Turn errors of requests into ones that say what to do."""
    try:
        yield
    except (HTTPError, RuntimeError, json.JSONDecodeError, OfflineModeIsEnabled) as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ is not None else error
        raise _explain(cause, repo_id, consequence) from error


def _explain(error: BaseException, repo_id: str, consequence: str) -> Exception:
    """Error that says what to do about the error of a request."""
    endpoint, status = constants.ENDPOINT, _status_of(error)
    if status == 401 and not isinstance(error, RevisionNotFoundError):
        return PermissionError(
            f"{endpoint} does not accept the token (401). Log in anew by `hf auth login`, or set HF_TOKEN to a valid "
            f"token with write access. {consequence}"
        )
    if status == 403:
        return PermissionError(
            f"The token may not write to {repo_id} (403): it needs the role `write`, and its owner must belong to "
            f"{repo_id.split('/')[0]}. {consequence}"
        )
    if status == 404:
        return FileNotFoundError(
            f"{endpoint} does not know {repo_id}, or not the branch that was asked for (404); check the name and that "
            f"the token may see it. {consequence}"
        )
    if status in (409, 412):
        return ValueError(
            f"{repo_id} was changed by someone else in the meantime ({status}). Nothing was published; look at the "
            "change, and run the command again."
        )
    if status is not None and status not in TRANSIENT:
        return ValueError(f"{endpoint} refuses the request ({status}): {_first_line(error)} {consequence}")
    if status is not None:
        return ConnectionError(f"{endpoint} fails ({status}), also when asked again. {consequence} Try again later.")
    return ConnectionError(
        f"The connection to {endpoint} failed ({_first_line(error)}). {consequence} Check the network, "
        "and HF_ENDPOINT if it is set."
    )
