"""A subscription, over any number of streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta

from grpc import StatusCode

from ._checkpoint import Checkpoint
from ._connection import Link, Settings, back_off, logger
from ._errors import DataLoss, Expired, LinksgateError
from ._streams import End, Ended, Frames
from .v1 import closing_pb2, log_pb2, notification_pb2
from .v1 import notification_service_pb2 as service_pb2
from .v1.notification_service_pb2_grpc import NotificationServiceStub

_STORE_PAUSE = 1.0  # seconds between two stores of a checkpoint


def start_at(
    checkpointed: str | None, after: str | None, earliest: bool, since: datetime | None
) -> log_pb2.Start:
    """Where to begin: the first of these that is given, else with what is received from now on."""
    if checkpointed or after:
        return log_pb2.Start(after=checkpointed or after)
    if earliest:
        return log_pb2.Start(earliest=True)
    if since is not None:
        start = log_pb2.Start()
        start.since.FromDatetime(since)
        return start
    return log_pb2.Start(latest=True)


def request_of(
    *,
    kinds: Sequence[int],
    accounts: Sequence[str],
    iccids: Sequence[str],
    partner_codes: Sequence[str],
    until_head: bool,
    continue_after_gaps: bool,
    max_batch: int,
    heartbeat: float,
    client_name: str,
) -> service_pb2.SubscribeRequest:
    request = service_pb2.SubscribeRequest(
        filter=log_pb2.NotificationFilter(
            kinds=kinds,  # type: ignore[arg-type]
            accounts=accounts,
            iccids=iccids,
            partner_codes=partner_codes,
        ),
        max_batch=max_batch,
        client_name=client_name,
    )
    request.heartbeat_interval.FromTimedelta(timedelta(seconds=heartbeat))
    if until_head:
        request.until_head = True
    if continue_after_gaps:
        request.on_gap = service_pb2.GAP_POLICY_CONTINUE
    return request


class Subscription:
    def __init__(
        self,
        settings: Settings,
        request: service_pb2.SubscribeRequest,
        checkpoint: Checkpoint | None,
        on_gap: Callable[[service_pb2.Gap], None] | None,
    ) -> None:
        self._link = Link(settings)
        self._settings = settings
        self._request = request
        self._checkpoint = checkpoint
        self._on_gap = on_gap
        self._silence = 3 * request.heartbeat_interval.ToTimedelta().total_seconds()
        self._handled: str | None = None  # token up to which everything was handled
        self._stored: str | None = None
        self._stored_at = 0.0
        self._complete = False

    async def run(self) -> AsyncIterator[notification_pb2.Notification]:
        try:
            failures = 0
            while True:
                end = End()
                async for notification in self._stream(end):
                    yield notification
                    # The caller asks for the next one: this one was handled.
                    self._handled = notification.token
                if end.fatal is not None:
                    raise end.fatal
                if self._complete:
                    return
                failures = 0 if end.progressed else failures + 1
                delay = max(end.delay, back_off(failures))
                logger.info("subscribing again in %.1f s: %s", delay, end.cause)
                await asyncio.sleep(delay)
        finally:
            await asyncio.shield(self._finish())

    async def _finish(self) -> None:
        try:
            await self._store(now=True)
        finally:
            await self._link.close()

    async def _stream(self, end: End) -> AsyncIterator[notification_pb2.Notification]:
        channel = None
        try:
            channel = self._link.channel()
            metadata = await self._settings.metadata()
            call = NotificationServiceStub(channel).Subscribe(self._request, metadata=metadata)
        except OSError as error:  # a file of a certificate or a token
            end.cause = error
            await self._link.next(channel)
            return
        frames = Frames(call, self._silence)
        try:
            while not self._complete and end.fatal is None:
                frame = await frames.get(_STORE_PAUSE / 4)
                await self._store()
                if frame is None:
                    continue
                end.progressed = True
                for notification in frame.batch.notifications:
                    yield notification
                self._take(frame, frames, end)
        except Ended as ended:
            if end.cause is None:
                end.by(ended.error)
        finally:
            await frames.close()
        if not self._complete:
            await self._link.next(channel)

    def _take(self, frame: service_pb2.SubscribeResponse, frames: Frames, end: End) -> None:
        what = frame.WhichOneof("frame")
        if what == "confirmed":
            self._confirm(frame.confirmed, frames)
        elif what == "gap":
            erased = frame.gap.reason == service_pb2.GAP_REASON_ERASED
            if not erased and self._request.on_gap != service_pb2.GAP_POLICY_CONTINUE:
                end.fatal = _gap_error(frame.gap, frame.token)
                return
            if self._on_gap is not None:
                self._on_gap(frame.gap)
        elif what == "closing":
            closing = frame.closing
            self._complete = closing.reason == closing_pb2.CLOSING_REASON_COMPLETED
            end.delay = closing.reconnect_after.ToTimedelta().total_seconds()
            end.cause = "the gateway ends the stream"
        if frame.token:
            self._handled = frame.token
            self._request.start.CopyFrom(log_pb2.Start(after=frame.token))

    def _confirm(self, confirmed: service_pb2.SubscriptionConfirmed, frames: Frames) -> None:
        interval = confirmed.heartbeat_interval.ToTimedelta().total_seconds()
        if interval > 0:
            self._silence = frames.silence = 3 * interval
        if confirmed.unknown_accounts:
            logger.warning(
                "the gateway does not have these accounts: %s",
                ", ".join(confirmed.unknown_accounts),
            )
        if not self._request.until_head:
            return
        if not confirmed.HasField("head"):
            self._complete = True  # the log is empty
            return
        self._request.until_token = confirmed.head.token

    async def load(self) -> str | None:
        """The token in the checkpoint."""
        if self._checkpoint is None:
            return None
        self._stored = await self._checkpoint.load()
        return self._stored

    async def _store(self, now: bool = False) -> None:
        if self._checkpoint is None or self._handled in (None, self._stored):
            return
        if not now and time.monotonic() - self._stored_at < _STORE_PAUSE:
            return
        token = self._handled
        assert token is not None
        await self._checkpoint.store(token)
        self._stored, self._stored_at = token, time.monotonic()


def _gap_error(gap: service_pb2.Gap, token: str) -> LinksgateError:
    if gap.reason == service_pb2.GAP_REASON_EXPIRED:
        return Expired(
            "notifications have expired",
            code=StatusCode.OUT_OF_RANGE,
            reason="EXPIRED",
            first_available_token=token,
        )
    return DataLoss(
        "notifications are corrupt",
        code=StatusCode.DATA_LOSS,
        reason="CORRUPT",
        first_available_token=token,
    )
