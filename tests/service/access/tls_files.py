"""Certificates for tests as PEM files: an authority, and servers and clients that it signs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Pair:
    certificate: Path
    key: Path


class Authority:
    """One CA, its files in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._ca = trustme.CA()
        self.certificate = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.certificate)

    def issue(self, pair: Pair | None = None, not_after: datetime | None = None) -> Pair:
        """Writes a certificate for localhost and 127.0.0.1, its key first; replaces the files of `pair` if given."""
        pair = pair or Pair(self._folder / "own.pem", self._folder / "own.key")
        made = self._ca.issue_cert("localhost", "127.0.0.1", not_after=not_after)
        made.private_key_pem.write_to_path(pair.key)
        made.cert_chain_pems[0].write_to_path(pair.certificate)
        return pair
