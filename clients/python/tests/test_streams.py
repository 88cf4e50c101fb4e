"""What waiting for a frame promises, apart from any gateway."""

from __future__ import annotations

import asyncio
import unittest

from linksgate._streams import _within


class Within(unittest.IsolatedAsyncioTestCase):
    async def test_a_cancellation_is_never_lost(self) -> None:
        """Also when what is waited for is done at the same turn of the loop, or the one before."""
        cancelled = 0
        for turns in range(8):
            loop = asyncio.get_running_loop()
            awaited: asyncio.Future[str] = loop.create_future()

            async def result(of: asyncio.Future[str] = awaited) -> str:
                return await of

            waiting = asyncio.create_task(_within(10, result()))
            for _ in range(4):
                await asyncio.sleep(0)
            awaited.set_result("a frame")
            for _ in range(turns):
                await asyncio.sleep(0)
            if waiting.cancel():
                await asyncio.gather(waiting, return_exceptions=True)
                self.assertTrue(waiting.cancelled(), f"{turns} turns after the frame")
                cancelled += 1
        self.assertGreaterEqual(cancelled, 2)

    async def test_it_waits_no_longer_than_it_may(self) -> None:
        ended = asyncio.Event()

        async def forever() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        with self.assertRaises(TimeoutError):
            await _within(0.01, forever())
        await asyncio.wait_for(ended.wait(), 10)


if __name__ == "__main__":
    unittest.main()
