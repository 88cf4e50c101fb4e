"""The client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime

from grpc import aio

from ._checkpoint import Checkpoint
from ._connection import Settings, TokenSource
from ._subscribe import Subscription, request_of, start_at
from ._work import Handler, Worker
from .v1 import notification_pb2
from .v1.notification_service_pb2 import Gap


class Client:
    """How to reach the gateways of one log. Each subscription and each worker has a connection of
    its own.

    :param addresses: ``HOST:PORT``, one or several, which are tried one after the other.
    :param tls: connect with TLS and the system's certificate authorities.
    :param ca_file: PEM certificates to trust instead; read again for each new connection, as are
        ``cert_file`` and ``key_file`` of a client certificate.
    :param token: a bearer token, or what to ask for that of each call. ``token_file``: the file
        that holds it, which is read for each call. Over plain text it is refused, unless all
        addresses are of the loopback interface.
    :param interceptors: of grpc.aio, for example OpenTelemetry's.
    """

    def __init__(
        self,
        addresses: str | Sequence[str],
        *,
        tls: bool = False,
        ca_file: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
        token: str | TokenSource | None = None,
        token_file: str | None = None,
        interceptors: Sequence[aio.ClientInterceptor] = (),
    ) -> None:
        self._settings = Settings(
            [addresses] if isinstance(addresses, str) else addresses,
            tls,
            ca_file,
            cert_file,
            key_file,
            token,
            token_file,
            interceptors,
        )

    async def subscribe(
        self,
        *,
        checkpoint: Checkpoint | None = None,
        after: str | None = None,
        earliest: bool = False,
        since: datetime | None = None,
        until_head: bool = False,
        kinds: Sequence[int] = (),
        accounts: Sequence[str] = (),
        iccids: Sequence[str] = (),
        partner_codes: Sequence[str] = (),
        continue_after_gaps: bool = False,
        on_gap: Callable[[Gap], None] | None = None,
        max_batch: int = 64,
        heartbeat: float = 10.0,
        client_name: str = "",
    ) -> AsyncIterator[notification_pb2.Notification]:
        """Yields notifications in the order of the log, and comes back over broken connections,
        frozen and restarted gateways. A notification counts as handled when the next one is asked
        for; one at which the loop breaks off does not.

        It begins after the token in ``checkpoint``; without one, with ``after``, ``earliest`` or
        ``since``; by default with what is received from now on. It ends with ``until_head``, or
        with a :class:`LinksgateError`, when coming back cannot mend it.

        :param continue_after_gaps: go on where notifications have expired or are corrupt;
            ``on_gap`` is told of each gap, also of what was erased on purpose.
        :param max_batch: how many notifications come in one frame, up to 512. At most two frames
            are read ahead.
        :param heartbeat: the longest silence in seconds, from 1 to 600. After three of them the
            connection counts as dead.
        """
        request = request_of(
            kinds=kinds,
            accounts=accounts,
            iccids=iccids,
            partner_codes=partner_codes,
            until_head=until_head,
            continue_after_gaps=continue_after_gaps,
            max_batch=max_batch,
            heartbeat=heartbeat,
            client_name=client_name,
        )
        subscription = Subscription(self._settings, request, checkpoint, on_gap)
        token = await subscription.load()
        request.start.CopyFrom(start_at(token, after, earliest, since))
        stream = subscription.run()
        try:
            async for notification in stream:
                yield notification
        finally:
            await stream.aclose()  # type: ignore[attr-defined]

    async def work(
        self,
        group: str,
        handler: Handler,
        *,
        parallel: int = 4,
        grace: float = 30.0,
        stop: asyncio.Event | None = None,
        heartbeat: float = 10.0,
        client_name: str = "",
    ) -> None:
        """Is a member of a group until ``stop`` is set, the task is cancelled, or what coming back
        cannot mend: then it raises a :class:`LinksgateError`. Either way it begins nothing more,
        lets handlers end within the grace time, and settles what they did.

        What the handler returns from is acknowledged. What it raises makes the notification come
        again after the group's back-off; :class:`Park`, :class:`RetryAfter` and
        :class:`EverythingIsDown` say otherwise. A handler whose lease is over is cancelled.

        :param parallel: how many handlers may run at once, from 1 to 1024. The worker has up to
            twice as many leases.
        :param grace: seconds that handlers may take to end.
        """
        worker = Worker(self._settings, group, handler, parallel, grace, heartbeat, client_name)
        await worker.run(stop)
