"""The blocking twin of :class:`linksgate.Client`, for programs without asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

from ._client import Client as _Client
from ._work import Handler
from .v1 import notification_pb2


class Client:
    """Takes what :class:`linksgate.Client` takes. ``close`` it, or use it in a ``with``."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._client = _Client(*args, **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def subscribe(self, **options: Any) -> Iterator[notification_pb2.Notification]:
        """As :meth:`linksgate.Client.subscribe`."""
        stream = self._client.subscribe(**options)
        try:
            while True:
                try:
                    yield self._await(stream.__anext__())
                except StopAsyncIteration:
                    return
        finally:
            self._await(stream.aclose())  # type: ignore[attr-defined]

    def work(
        self, group: str, handler: Handler, *, stop: threading.Event | None = None, **options: Any
    ) -> None:
        """As :meth:`linksgate.Client.work`, until ``stop`` is set."""

        async def run() -> None:
            stopping = asyncio.Event()
            if stop is not None:

                async def watch() -> None:
                    await asyncio.to_thread(stop.wait)
                    stopping.set()

                watching = asyncio.create_task(watch())
            try:
                await self._client.work(group, handler, stop=stopping, **options)
            finally:
                if stop is not None:
                    stop.set()
                    await watching

        self._await(run())

    def _await(self, coroutine: Any) -> Any:
        ended = threading.Event()

        async def awaited() -> Any:
            try:
                return await coroutine
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(awaited(), self._loop)
        try:
            return future.result()
        except BaseException:
            if future.cancel():  # interrupted: what follows needs it to have ended
                ended.wait(5)
            raise

    def close(self) -> None:
        """Ends the thread behind it."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
