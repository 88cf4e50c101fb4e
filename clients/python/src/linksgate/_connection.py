"""How to reach the gateways of one log."""

from __future__ import annotations

import asyncio
import inspect
import ipaddress
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from grpc import aio

VERSION = "0.1.0"
logger = logging.getLogger("linksgate")

#: Asked for the bearer token of each call.
TokenSource = Callable[[], "str | Awaitable[str]"]

_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", 64 << 20),  # 512 of the largest notifications fit
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),  # a new channel is a new connection
    ("grpc.primary_user_agent", f"linksgate-python/{VERSION}"),
]


@dataclass
class Settings:
    """What a client was given."""

    addresses: Sequence[str]
    tls: bool = False
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    token: str | TokenSource | None = None
    token_file: str | None = None
    interceptors: Sequence[aio.ClientInterceptor] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        if isinstance(self.addresses, str):
            self.addresses = [self.addresses]
        if not self.addresses:
            raise ValueError("no address")
        self.tls = self.tls or bool(self.ca_file or self.cert_file)
        for address in self.addresses:
            host, _, port = address.rpartition(":")
            if not host or not port.isdigit():
                raise ValueError(f"{address!r} is not HOST:PORT")
            if (self.token or self.token_file) and not self.tls and not _is_loopback(host):
                raise ValueError(f"a token would go to {address} in plain text; use TLS")

    def channel(self, address: str) -> aio.Channel:
        """A new connection, with what the files hold now."""
        if not self.tls:
            return aio.insecure_channel(address, _OPTIONS, interceptors=self.interceptors)
        credentials = grpc.ssl_channel_credentials(
            _read(self.ca_file), _read(self.key_file), _read(self.cert_file)
        )
        return aio.secure_channel(address, credentials, _OPTIONS, interceptors=self.interceptors)

    async def metadata(self) -> list[tuple[str, str]]:
        """What goes with each call."""
        token: str | None = None
        if self.token_file:
            token = (await asyncio.to_thread(Path(self.token_file).read_text)).strip()
        elif callable(self.token):
            given = self.token()
            token = await given if inspect.isawaitable(given) else given
        else:
            token = self.token
        return [("authorization", f"Bearer {token}")] if token else []


def _read(file: str | None) -> bytes | None:
    return Path(file).read_bytes() if file else None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Link:
    """The connection of one subscription or worker: to one gateway at a time."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._channel: aio.Channel | None = None
        self._at = 0

    def channel(self) -> aio.Channel:
        if self._channel is None:
            addresses = self.settings.addresses
            self._channel = self.settings.channel(addresses[self._at % len(addresses)])
        return self._channel

    async def next(self, seen: aio.Channel | None) -> None:
        """Leaves a connection for a new one, to the next address; once for each."""
        if self._channel is seen:
            self._at += 1
            await self.close()

    async def close(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()


def back_off(failures: int) -> float:
    """Seconds before the next try after a number of failures in a row, all of it by chance."""
    return random.uniform(0.001, min(0.1 * 2 ** min(failures, 20), 10.0))
