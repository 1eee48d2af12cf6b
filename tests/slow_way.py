"""
A way to a Redis that takes as long as it is told.

For clients of the test's own process; where whole nodes are behind one, the lab has a relay.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

CHUNK_BYTES = 1 << 16


@dataclass
class SlowWay:
    """
    A port on this machine that leads to a Redis.

    Attributes:
        url: For clients.
        there_and_back_s: What it adds to each round trip; it may be set at any time.
    """

    url: str = ""
    there_and_back_s: float = 0.0

    async def carry(self, redis_url: str, ready: threading.Event) -> None:
        """Carry what comes, until cancelled."""
        carrying = set[asyncio.Task[None]]()

        async def joined(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            carrying.add(task)
            await self._join(redis_url, reader, writer)
            carrying.discard(task)

        server = await asyncio.start_server(joined, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        ready.set()
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            for task in carrying:
                task.cancel()

    async def _join(
        self, redis_url: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        parts = urlsplit(redis_url)
        if parts.scheme == "unix":
            there = await asyncio.open_unix_connection(parts.path)
        else:
            there = await asyncio.open_connection(parts.hostname, parts.port or 6379)
        try:
            ways = self._pass(reader, there[1]), self._pass(there[0], writer)
            await asyncio.wait(
                [asyncio.ensure_future(way) for way in ways],
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            for end in (writer, there[1]):
                end.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass bytes one way, each half of the time later; several may be on their way at once."""
        loop, under_way = asyncio.get_running_loop(), asyncio.Queue[tuple[float, bytes]]()

        async def deliver() -> None:
            while True:
                due, chunk = await under_way.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                with suppress(OSError):
                    writer.write(chunk)
                    await writer.drain()

        delivering = asyncio.ensure_future(deliver())
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                under_way.put_nowait((loop.time() + self.there_and_back_s / 2, chunk))
        except OSError:
            pass
        finally:
            delivering.cancel()


@contextmanager
def slow_way(redis_url: str, there_and_back_s: float = 0.0) -> Iterator[SlowWay]:
    """Open a way to a Redis until the block ends."""
    way, ready = SlowWay(there_and_back_s=there_and_back_s), threading.Event()
    loop = asyncio.new_event_loop()

    def run() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(carrying)
        loop.run_until_complete(loop.shutdown_asyncgens())

    carrying = loop.create_task(way.carry(redis_url, ready))
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield way
    finally:
        loop.call_soon_threadsafe(carrying.cancel)
        thread.join()
        loop.close()
