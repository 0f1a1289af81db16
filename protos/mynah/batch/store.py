"""Where a run on many machines reads its script and puts its audio: a folder that they share, or a URL of fsspec.

A file appears whole or not at all. Every call blocks, may come from any thread, and may raise OSError.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from mynah.batch.output_dir import locked
from mynah.client.errors import InvalidArgument


class Store(Protocol):
    """Files by their names, which may have folders before them."""

    def write(self, name: str, data: bytes) -> None:
        """Put a file durably, in place of one that has the name."""
        ...

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError."""
        ...

    def sizes(self, folder: str = "") -> dict[str, int]:
        """The bytes of the files in a folder, by their names in it."""
        ...

    def delete(self, name: str) -> None:
        """Does nothing if the file does not exist."""
        ...

    def lock(self) -> Any:
        """A context in which no other run of this machine writes here. Raises WrongState if one does."""
        ...


def open_store(where: str) -> Store:
    """Opens a folder, created if it is missing, or a URL such as s3://bucket/folder.

    Raises InvalidArgument if the package for the URL's scheme is not installed, OSError.
    """
    return UrlStore(where) if "://" in where else FolderStore(Path(where))


def read_bytes(where: str) -> bytes:
    """Returns the bytes of a file, by its path or its URL. Raises InvalidArgument, OSError."""
    if "://" not in where:
        return Path(where).read_bytes()
    folder, _, name = where.rpartition("/")
    return UrlStore(folder).read(name)


class FolderStore:
    """A folder; several machines may have mounted it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder.resolve()  # actors work elsewhere

    def write(self, name: str, data: bytes) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")  # two attempts may write the same file
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except OSError:
            part.unlink(missing_ok=True)  # on a full disk, the space that it took
            raise

    def read(self, name: str) -> bytes:
        return (self._folder / name).read_bytes()

    def sizes(self, folder: str = "") -> dict[str, int]:
        with suppress(FileNotFoundError), os.scandir(self._folder / folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        return {}

    def delete(self, name: str) -> None:
        path = self._folder / name
        path.unlink(missing_ok=True)
        if path.parent != self._folder:
            with suppress(OSError):  # there are more
                path.parent.rmdir()

    @contextmanager
    def lock(self) -> Iterator[None]:
        handle = locked(self._folder / ".lock")
        try:
            for part in self._folder.glob(".*.part"):  # of workers that were killed
                part.unlink(missing_ok=True)
            yield
        finally:
            os.close(handle)


class UrlStore:
    """A folder of an object store, where one request puts a whole object."""

    def __init__(self, url: str) -> None:
        try:
            import fsspec

            self._files, self._root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            scheme = url.partition("://")[0]
            message = f"{url} cannot be used: {error}. Install the package that fsspec needs for {scheme}://."
            raise InvalidArgument(message, reason="STORE_UNKNOWN", field="output", value=url) from error
        self._files.makedirs(self._root, exist_ok=True)

    def write(self, name: str, data: bytes) -> None:
        if "/" in name:
            self._files.makedirs(f"{self._root}/{name.rpartition('/')[0]}", exist_ok=True)
        self._files.pipe_file(f"{self._root}/{name}", data)

    def read(self, name: str) -> bytes:
        return bytes(self._files.cat_file(f"{self._root}/{name}"))

    def sizes(self, folder: str = "") -> dict[str, int]:
        self._files.invalidate_cache()
        try:
            listed = self._files.ls(f"{self._root}/{folder}".rstrip("/"), detail=True)
        except FileNotFoundError:  # an object store has no empty folders
            return {}
        return {each["name"].rsplit("/", 1)[-1]: each["size"] for each in listed if each["type"] == "file"}

    def delete(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._files.rm_file(f"{self._root}/{name}")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """No object store has locks: two runs at once would speak lines twice, into the same bytes."""
        yield
