"""The model hub: which repository holds which model, and how its files come onto this machine.

Knows huggingface_hub and its errors; knows no file's content.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from engines.errors import CheckpointError

_ANSWER_S = 10.0  # how long the hub may take to say that it is there
_FULL = (errno.ENOSPC, errno.EDQUOT)


class HubUnreachable(CheckpointError):
    """The hub did not answer or broke off; another time it may. `cause` is a word or two."""

    reason: str = "HUB_UNREACHABLE"
    retryable: bool = True

    def __init__(self, repo_id: str, cause: str) -> None:
        super().__init__(
            f"hub repository {repo_id} cannot be reached ({cause}): check the network and proxy, or fetch it elsewhere "
            f"with `hf download {repo_id} --local-dir FOLDER` and give that folder as model"
        )
        self.cause = cause


class Hub(Protocol):
    """Where published checkpoints come from."""

    def cached(self, repo_id: str, files: Sequence[str]) -> list[Path]:
        """Folders on this machine that hold the repository or a part of it; best first. Asks no network."""
        ...

    def download(self, repo_id: str, files: Sequence[str]) -> Path:
        """The folder with those of `files` that the repository has, fetched where needed.

        Raises HubUnreachable, or CheckpointError saying what to do when trying again would not help.
        """
        ...


class HuggingFaceHub:
    """huggingface_hub with its own progress bar, resuming, and the user's token (HF_TOKEN or `hf auth login`)."""

    def __init__(self, cache_dir: Path, endpoint: str | None = None) -> None:
        """Downloads go to `cache_dir`; huggingface_hub's usual cache is looked into as well.

        `endpoint` is a mirror's address; None leaves it to HF_ENDPOINT.
        """
        self._cache_dir = cache_dir
        self._endpoint = endpoint

    def cached(self, repo_id: str, files: Sequence[str]) -> list[Path]:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        found = []
        for cache_dir in (self._cache_dir, None):
            try:
                folder = snapshot_download(
                    repo_id, cache_dir=cache_dir, local_files_only=True, allow_patterns=list(files)
                )
            except LocalEntryNotFoundError:
                continue
            found.append(Path(folder))
        return found

    def download(self, repo_id: str, files: Sequence[str]) -> Path:
        from huggingface_hub import HfApi, snapshot_download
        from huggingface_hub.errors import XetError

        try:
            # snapshot_download would wait for minutes on a network that swallows packets, so ask for a sign of life
            HfApi(endpoint=self._endpoint).model_info(repo_id, timeout=_ANSWER_S)
            return Path(
                snapshot_download(
                    repo_id, cache_dir=self._cache_dir, endpoint=self._endpoint, allow_patterns=list(files)
                )
            )
        except (OSError, RuntimeError, XetError) as error:
            raise self._explain(repo_id, error) from error

    def _explain(self, repo_id: str, error: Exception) -> CheckpointError:
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

        where = f"hub repository {repo_id}"
        if isinstance(error, GatedRepoError):
            return CheckpointError(f"{where} is gated: accept its terms on its page on the hub, then set HF_TOKEN")
        if isinstance(error, RepositoryNotFoundError):
            return CheckpointError(
                f"{where} is not there or is private: check HF_TOKEN, or give a local folder as model"
            )
        if getattr(error, "errno", None) in _FULL or "No space left" in str(error):
            return CheckpointError(f"{where}: no space left in {self._cache_dir}: free some, or choose another folder")
        if getattr(error, "filename", None):  # a file of ours: network errors have none
            return CheckpointError(f"{where}: cannot write to {self._cache_dir} ({error}): choose another folder")
        return HubUnreachable(repo_id, _cause(error))


def _cause(error: Exception) -> str:
    """The status the hub answered with, or the kind of failure: whole messages run over many lines."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"HTTP status {status}" if status else type(error).__name__
