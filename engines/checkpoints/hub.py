"""The model hub: downloads the files of a repository, and explains errors."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from engines.errors import CheckpointError

_ANSWER_S = 10.0  # timeout of the request that tests whether the hub answers
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class HubUnreachable(CheckpointError):
    """The hub did not answer, or the connection failed. `cause` is a word or two."""

    reason: str = "HUB_UNREACHABLE"
    retryable: bool = True

    def __init__(self, repo_id: str, cause: str) -> None:
        super().__init__(
            f"hub repository {repo_id} cannot be reached ({cause}): check the network and proxy, or download it "
            f"elsewhere with `hf download {repo_id} --local-dir FOLDER` and use that folder as the model"
        )
        self.cause = cause


class NoSuchRevision(CheckpointError):
    """The repository does not have the revision that was asked for."""

    def __init__(self, repo_id: str, revision: str | None) -> None:
        super().__init__(
            f"hub repository {repo_id} has no revision {revision!r}: give a commit, tag or branch that it has"
        )


class Hub(Protocol):
    """A source of published checkpoints. `revision` is a commit, tag or branch; None: the newest of the main branch."""

    def cached(self, repo_id: str, files: Sequence[str], revision: str | None = None) -> list[Path]:
        """Returns local folders that hold the repository or parts of it, best first. Does not use the network.

        `revision` is a commit, a tag or a branch; None is the repository's main branch.
        """
        ...

    def file_names(self, repo_id: str, revision: str | None = None) -> tuple[str, ...]:
        """Returns the names of all files of the repository. Raises as `download`."""
        ...

    def download(self, repo_id: str, files: Sequence[str], revision: str | None = None) -> Path:
        """Returns a folder with those of `files` that the repository has, downloaded if necessary.

        Raises HubUnreachable; NoSuchRevision, or another CheckpointError with the solution, if a retry would not help.
        """
        ...


class HuggingFaceHub:
    """The Hugging Face Hub, with its progress bars, resumed downloads and token (HF_TOKEN or `hf auth login`)."""

    def __init__(self, cache_dir: Path, endpoint: str | None = None) -> None:
        """Download to `cache_dir`, and also use files in huggingface_hub's own cache.

        `endpoint` is the address of a mirror; the default is HF_ENDPOINT.
        """
        self._cache_dir = cache_dir
        self._endpoint = endpoint

    def cached(self, repo_id: str, files: Sequence[str], revision: str | None = None) -> list[Path]:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        folders = []
        for cache_dir in (self._cache_dir, None):
            try:
                folder = snapshot_download(
                    repo_id, revision=revision, cache_dir=cache_dir, local_files_only=True, allow_patterns=list(files)
                )
            except LocalEntryNotFoundError:
                continue
            folders.append(Path(folder))
        return folders

    def file_names(self, repo_id: str, revision: str | None = None) -> tuple[str, ...]:
        from huggingface_hub import HfApi

        try:
            info = HfApi(endpoint=self._endpoint).model_info(repo_id, revision=revision, timeout=_ANSWER_S)
        except (OSError, RuntimeError) as error:
            raise self._explain(repo_id, error, revision) from error
        return tuple(sibling.rfilename for sibling in info.siblings or ())

    def download(self, repo_id: str, files: Sequence[str], revision: str | None = None) -> Path:
        from huggingface_hub import HfApi, snapshot_download
        from huggingface_hub.errors import XetError

        try:
            # on a network that drops packets, snapshot_download would wait for minutes
            HfApi(endpoint=self._endpoint).model_info(repo_id, revision=revision, timeout=_ANSWER_S)
            return Path(
                snapshot_download(
                    repo_id,
                    revision=revision,
                    cache_dir=self._cache_dir,
                    endpoint=self._endpoint,
                    allow_patterns=list(files),
                )
            )
        except (OSError, RuntimeError, XetError) as error:
            raise self._explain(repo_id, error, revision) from error

    def _explain(self, repo_id: str, error: Exception, revision: str | None) -> CheckpointError:
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        where = f"hub repository {repo_id}"
        if isinstance(error, GatedRepoError):
            return CheckpointError(f"{where} is gated: accept its terms on its page on the hub, then set HF_TOKEN")
        if isinstance(error, RepositoryNotFoundError):
            return CheckpointError(
                f"{where} does not exist or is private: check HF_TOKEN, or use a local folder as the model"
            )
        if isinstance(error, RevisionNotFoundError):
            return NoSuchRevision(repo_id, revision)
        if getattr(error, "errno", None) in _DISK_FULL or "No space left" in str(error):
            return CheckpointError(
                f"{where}: no space left in {self._cache_dir}: free some space, or choose another folder"
            )
        if getattr(error, "filename", None):  # a local file: network errors have no file name
            return CheckpointError(f"{where}: cannot write to {self._cache_dir} ({error}): choose another folder")
        return HubUnreachable(repo_id, _cause(error))


def _cause(error: Exception) -> str:
    """The HTTP status or the type of the error, since whole messages run over many lines."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"HTTP status {status}" if status else type(error).__name__
