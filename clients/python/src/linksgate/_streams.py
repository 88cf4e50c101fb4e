"""What subscriptions and workers have in common: reading a stream that may fall silent."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from grpc import aio

from ._errors import asked_delay, final

_READ_AHEAD = 2  # frames


class Silence(Exception):
    """No frame came for three heartbeat intervals."""


@dataclass
class End:
    """How a stream ended."""

    cause: object = None
    fatal: BaseException | None = None
    delay: float = 0.0
    progressed: bool = False

    def by(self, error: BaseException | None) -> None:
        self.fatal = final(error)
        self.delay = max(self.delay, asked_delay(error))
        if isinstance(error, aio.AioRpcError):
            self.cause = f"{error.code().name}: {error.details()}"
        else:
            self.cause = error or "the gateway ended the stream"


async def _within(seconds: float | None, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """asyncio.wait_for, which before Python 3.12 returned instead of being cancelled when what it
    waited for was done at the same moment. Raises TimeoutError."""
    task = asyncio.ensure_future(coroutine)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if not done:
            raise TimeoutError
        return task.result()
    finally:
        task.cancel()


class Frames:
    """Reads frames ahead, within a bound. Only the wait for a frame is timed: a handler that is
    slow says nothing about the gateway."""

    def __init__(self, call: Any, silence: float) -> None:
        self._call = call
        self.silence = silence
        self._closing = False
        self._queue: asyncio.Queue[Any] = asyncio.Queue(_READ_AHEAD)
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        end: BaseException | None = None
        try:
            while True:
                frame = await _within(self.silence, self._call.read())
                if frame is aio.EOF:
                    break
                await self._queue.put(frame)
        except TimeoutError:
            end = Silence(f"no frame came for {self.silence:g} s")
        except aio.AioRpcError as error:
            end = error
        except asyncio.CancelledError:
            if self._closing:
                raise
        except Exception as error:
            end = error
        await self._queue.put(Ended(end))

    async def get(self, timeout: float | None = None) -> Any:
        """The next frame; None if none came in time. Raises Ended."""
        try:
            item = await _within(timeout, self._queue.get())
        except TimeoutError:
            return None
        if isinstance(item, Ended):
            raise item
        return item

    async def close(self) -> None:
        self._closing = True
        self._call.cancel()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class Ended(Exception):
    """A stream has ended."""

    def __init__(self, error: BaseException | None) -> None:
        super().__init__()
        self.error = error
