"""Storage of voice files by id: a local folder, or a URL that fsspec opens.

A file is written whole or not at all. Every call blocks and may come from any thread. Several servers may share one
location: there is no lock and no cache.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
from pathlib import Path
from typing import Any, Protocol

SUFFIX = ".safetensors"
_RECORDINGS, _RECORDING_SUFFIX = "recordings", ".audio"  # the folder beside the voices, and its files
_PARTIAL = ".partial"
_ABANDONED_S = 3600.0  # a partial file this old was left by a server that was killed


class VoiceFiles(Protocol):
    """Files by id. Every method may raise OSError. `kept`: whether the files outlive this process."""

    kept: bool

    def recordings(self) -> VoiceFiles:
        """The files of recordings that are kept with their voices. They have ids of their own."""
        ...

    def ids(self) -> set[str]:
        """Ids of all existing files."""
        ...

    def stamp(self, voice_id: str) -> str | None:
        """Returns a string that changes whenever the file does; None if it does not exist."""
        ...

    def read(self, voice_id: str, max_bytes: int | None = None) -> bytes:
        """Returns its first `max_bytes` bytes, or all. Raises FileNotFoundError; ValueError for a pipe or a device."""
        ...

    def create(self, voice_id: str, data: bytes) -> None:
        """Writes a new file, which is on the disk when this returns. Raises FileExistsError."""
        ...

    def delete(self, voice_id: str) -> None:
        """Does nothing if the file does not exist."""
        ...


def open_files(where: Path | str | None) -> VoiceFiles:
    """Opens a folder, created if missing; a URL; or, for None, this process' memory. Raises OSError."""
    if where is None:
        return UrlFiles(f"memory://mynah-voices-{secrets.token_hex(8)}")
    if isinstance(where, str) and "://" in where and not where.startswith("file://"):
        return UrlFiles(where)
    return FolderFiles(Path(str(where).removeprefix("file://")))


class FolderFiles:
    """VoiceFiles in a folder. Partial files of killed servers are ignored, and deleted after an hour."""

    kept = True

    def __init__(self, folder: Path, suffix: str = SUFFIX) -> None:
        self._folder, self._suffix = folder, suffix
        if suffix == SUFFIX:  # that of recordings is made with the first one
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                problem = f"voices cannot be stored at {folder}: {error.strerror}; choose another --voices-dir"
                raise OSError(problem) from error
        for partial in folder.glob(f"*{_PARTIAL}"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - partial.stat().st_mtime > _ABANDONED_S:
                    partial.unlink()

    def recordings(self) -> FolderFiles:
        return FolderFiles(self._folder / _RECORDINGS, _RECORDING_SUFFIX)

    def ids(self) -> set[str]:
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:  # it was deleted while the server runs; the next voice makes it again
            return set()
        return {name.removesuffix(self._suffix) for name in names if name.endswith(self._suffix)}

    def stamp(self, voice_id: str) -> str | None:
        try:
            about = self._path(voice_id).stat()
        except FileNotFoundError:
            return None
        return f"{about.st_ino} {about.st_mtime_ns} {about.st_size}"

    def read(self, voice_id: str, max_bytes: int | None = None) -> bytes:
        # without waiting for the writer of a pipe, which would never come
        with os.fdopen(os.open(self._path(voice_id), os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError("it is not a regular file")
            return file.read(-1 if max_bytes is None else max_bytes)

    def create(self, voice_id: str, data: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / f"{voice_id}.{secrets.token_hex(8)}{_PARTIAL}"
        try:
            with partial.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            _rename_new(partial, self._path(voice_id))
            self._sync()
        finally:
            partial.unlink(missing_ok=True)

    def delete(self, voice_id: str) -> None:
        self._path(voice_id).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            self._sync()

    def _path(self, voice_id: str) -> Path:
        return self._folder / f"{voice_id}{self._suffix}"

    def _sync(self) -> None:
        """Writes the folder's entries to the disk."""
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _rename_new(partial: Path, path: Path) -> None:
    """Renames `partial` to `path`. Raises FileExistsError if that exists: of two servers at once, one succeeds."""
    try:
        os.link(partial, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS):
            raise
        # no hard links on this file system; two servers at once could both succeed
        if path.exists():
            raise FileExistsError(errno.EEXIST, "the voice exists already", str(path)) from None
        partial.rename(path)


def _missing(url: str, error: ImportError) -> str:
    """Which package the URL's scheme lacks. fsspec chains its own words to the failure of the import."""
    from fsspec.registry import known_implementations

    scheme = url.partition("://")[0]
    cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
    package = cause.name or known_implementations.get(scheme, {"class": scheme})["class"].partition(".")[0]
    extra = " (the server's extra s3 has it)" if scheme in ("s3", "s3a") else ""
    return f"{scheme}:// needs the Python package {package!r}{extra}, which is not installed."


class UrlFiles:
    """VoiceFiles behind a URL such as s3://bucket/voices; fsspec's package for the scheme must be installed.

    An object is stored in one request, so it is whole or absent. Of two servers that create the same id at the same
    moment, the later one wins.
    """

    def __init__(self, url: str, suffix: str = SUFFIX) -> None:
        import fsspec

        self._url, self._suffix = url, suffix
        self.kept = not url.startswith("memory://")
        try:
            self._files, self._root = fsspec.core.url_to_fs(url, use_listings_cache=False)
            self._files.makedirs(self._root, exist_ok=True)
        except ImportError as error:
            raise OSError(f"voices cannot be stored at {url}: {_missing(url, error)}") from error
        except ValueError as error:
            raise OSError(f"voices cannot be stored at {url}: {error}") from error

    def recordings(self) -> UrlFiles:
        return UrlFiles(f"{self._url.rstrip('/')}/{_RECORDINGS}", _RECORDING_SUFFIX)

    def ids(self) -> set[str]:
        self._files.invalidate_cache()
        try:
            listed = self._files.ls(self._root, detail=False)
        except FileNotFoundError:  # an object store has no empty folders
            return set()
        names = [str(name).rsplit("/", 1)[-1] for name in listed]
        return {name.removesuffix(self._suffix) for name in names if name.endswith(self._suffix)}

    def stamp(self, voice_id: str) -> str | None:
        self._files.invalidate_cache()
        try:
            return str(self._files.ukey(self._path(voice_id)))
        except FileNotFoundError:
            return None

    def read(self, voice_id: str, max_bytes: int | None = None) -> bytes:
        data: Any = self._files.cat_file(self._path(voice_id), start=0 if max_bytes else None, end=max_bytes)
        return bytes(data)

    def create(self, voice_id: str, data: bytes) -> None:
        if self.stamp(voice_id) is not None:
            raise FileExistsError(errno.EEXIST, "the voice exists already", voice_id)
        self._files.pipe_file(self._path(voice_id), data)

    def delete(self, voice_id: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._path(voice_id))

    def _path(self, voice_id: str) -> str:
        return f"{self._root}/{voice_id}{self._suffix}"
