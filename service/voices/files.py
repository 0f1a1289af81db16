"""Where voices are kept as files: a folder of this machine, or whatever fsspec opens behind a URL.

Knows bytes under ids, each written whole or not at all; nothing of what is in them. Everything here blocks, and may
be called from any thread. Several servers may share one place: none of them holds a lock, or remembers what is there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from pathlib import Path
from typing import Any, Protocol

SUFFIX = ".safetensors"
_PARTIAL = ".partial"
_ABANDONED_S = 3600.0  # a partial file this old belongs to nobody any more


class VoiceFiles(Protocol):
    """Files by id. Every method may raise OSError."""

    def ids(self) -> set[str]:
        """Who is there now."""
        ...

    def stamp(self, voice_id: str) -> str | None:
        """Changes whenever the file does; None when there is none."""
        ...

    def read(self, voice_id: str, most: int | None = None) -> bytes:
        """Its first `most` bytes, or all. Raises FileNotFoundError."""
        ...

    def create(self, voice_id: str, data: bytes) -> None:
        """A new file, on the disk when this returns. Raises FileExistsError."""
        ...

    def delete(self, voice_id: str) -> None:
        """Nothing happens when there is none."""
        ...


def open_files(where: Path | str | None) -> VoiceFiles:
    """A folder, made if need be; a URL; None: this process' memory. Raises OSError naming what cannot be used."""
    if where is None:
        return UrlFiles(f"memory://mynah-voices-{secrets.token_hex(8)}")
    if isinstance(where, str) and "://" in where and not where.startswith("file://"):
        return UrlFiles(where)
    return FolderFiles(Path(str(where).removeprefix("file://")))


class FolderFiles:
    """VoiceFiles in a folder. What a killed server left half-written is never taken for a voice, and goes in time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for partial in folder.glob(f"*{_PARTIAL}"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - partial.stat().st_mtime > _ABANDONED_S:
                    partial.unlink()

    def ids(self) -> set[str]:
        return {name.removesuffix(SUFFIX) for name in os.listdir(self._folder) if name.endswith(SUFFIX)}

    def stamp(self, voice_id: str) -> str | None:
        try:
            found = self._path(voice_id).stat()
        except FileNotFoundError:
            return None
        return f"{found.st_ino} {found.st_mtime_ns} {found.st_size}"

    def read(self, voice_id: str, most: int | None = None) -> bytes:
        with self._path(voice_id).open("rb") as file:
            return file.read(-1 if most is None else most)

    def create(self, voice_id: str, data: bytes) -> None:
        partial = self._folder / f"{voice_id}.{secrets.token_hex(8)}{_PARTIAL}"
        try:
            with partial.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            _put_in_place(partial, self._path(voice_id))
            self._sync()
        finally:
            partial.unlink(missing_ok=True)

    def delete(self, voice_id: str) -> None:
        self._path(voice_id).unlink(missing_ok=True)
        self._sync()

    def _path(self, voice_id: str) -> Path:
        return self._folder / f"{voice_id}{SUFFIX}"

    def _sync(self) -> None:
        """Have the folder's own entries on the disk too."""
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _put_in_place(partial: Path, path: Path) -> None:
    """Give the whole file its name, which nobody may have; of two servers that try at once, one succeeds."""
    try:
        os.link(partial, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS):
            raise
        # a file system without hard links: a rename, which two servers at once could both do
        if path.exists():
            raise FileExistsError(errno.EEXIST, "there is one already", str(path)) from None
        partial.rename(path)


class UrlFiles:
    """VoiceFiles behind a URL such as s3://bucket/voices; fsspec's package for the scheme must be installed.

    An object is stored in one request, so it is whole or not there. Of two servers that create the same id in the same
    moment the later one wins, as object stores have it.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        try:
            self._files, self._root = fsspec.core.url_to_fs(url, use_listings_cache=False)
            self._files.makedirs(self._root, exist_ok=True)
        except (ImportError, ValueError) as error:
            raise OSError(f"voices cannot be kept at {url}: {error}") from error

    def ids(self) -> set[str]:
        self._files.invalidate_cache()
        names = [str(name).rsplit("/", 1)[-1] for name in self._files.ls(self._root, detail=False)]
        return {name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)}

    def stamp(self, voice_id: str) -> str | None:
        self._files.invalidate_cache()
        try:
            return str(self._files.ukey(self._path(voice_id)))
        except FileNotFoundError:
            return None

    def read(self, voice_id: str, most: int | None = None) -> bytes:
        found: Any = self._files.cat_file(self._path(voice_id), start=0 if most else None, end=most)
        return bytes(found)

    def create(self, voice_id: str, data: bytes) -> None:
        if self.stamp(voice_id) is not None:
            raise FileExistsError(errno.EEXIST, "there is one already", voice_id)
        self._files.pipe_file(self._path(voice_id), data)

    def delete(self, voice_id: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._path(voice_id))

    def _path(self, voice_id: str) -> str:
        return f"{self._root}/{voice_id}{SUFFIX}"
