"""Where a subscription remembers how far it has come."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Protocol


class Checkpoint(Protocol):
    """Remembers the resume token up to which everything was handled.

    To have it together with the effect, in one transaction of a database, do without: store
    ``notification.token`` in the transaction, and pass the stored token as ``after``.
    """

    async def load(self) -> str | None:
        """The token; None if none was stored."""
        ...

    async def store(self, token: str) -> None:
        """Returns only when the token will be loaded, also after a crash."""
        ...


class FileCheckpoint:
    """Keeps the token in a file, which is replaced, never rewritten."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    async def load(self) -> str | None:
        """The token in the file; None if there is no file. Raises ValueError if it is empty."""
        return await asyncio.to_thread(self._load)

    async def store(self, token: str) -> None:
        """Replaces the file, and syncs it and its directory. Raises OSError."""
        await asyncio.to_thread(self._store, token)

    def _load(self) -> str | None:
        try:
            token = self._path.read_text().strip()
        except FileNotFoundError:
            return None
        if not token:  # to take it for none would leave notifications out unseen
            raise ValueError(f"the checkpoint {self._path} is empty; remove it to start anew")
        return token

    def _store(self, token: str) -> None:
        directory = self._path.parent
        descriptor, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=directory)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(token + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self._path)
        except BaseException:
            os.unlink(name)
            raise
        opened = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


class MemoryCheckpoint:
    """Keeps the token for as long as it is referred to."""

    def __init__(self) -> None:
        self._token: str | None = None

    async def load(self) -> str | None:
        """The token that was stored last; None if none was."""
        return self._token

    async def store(self, token: str) -> None:
        """Replaces the token."""
        self._token = token
