"""A member of a group, over any number of streams.

A notification that the worker was leased is a job: it waits for its turn, is handled, and is
settled, which is to tell the gateway and hear that it knows. Jobs that wait are dropped when the
stream breaks, because the gateway then gives them to others. Those that were begun go on, and are
settled with whichever gateway answers.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from grpc import aio

from ._connection import Link, Settings, back_off, logger
from ._errors import LinksgateError, final
from ._streams import End, Ended, Frames
from .v1 import closing_pb2, notification_pb2
from .v1 import worker_service_pb2 as work_pb2
from .v1.worker_service_pb2_grpc import WorkerServiceStub

_MAX_LEASES = 1024  # in flight, and in one call
_CALL_TIME = 10.0  # seconds for a call that settles or extends leases
_SETTLE_TIME = 5.0  # to settle what is left when the grace time is over
_LEAVE_TIME = 2.0  # for the gateway to end the stream of a member that leaves
_MAX_REASON = 1000  # bytes
_NEWLY_JOINED = 2.0  # how long "the lease is over" may be older than a new lease
_DOUBT_TIME = 0.5


@dataclass(frozen=True)
class Delivery:
    """A notification that was leased to this worker."""

    notification: notification_pb2.Notification
    #: From 1.
    attempt: int


class RetryAfter(Exception):
    """Raised by a handler: the notification comes again after so many seconds, unless its
    attempts are used up."""

    def __init__(self, seconds: float, reason: str = "not now") -> None:
        super().__init__(reason)
        self.seconds = seconds


class Park(Exception):
    """Raised by a handler: the notification is set aside, for a person to look at."""


class EverythingIsDown(Exception):
    """Raised by a handler: nothing is wrong with the notification. The whole group is paused for
    so many seconds, from 1 to 3600, and the attempt does not count."""

    def __init__(self, seconds: float, reason: str = "everything is down") -> None:
        super().__init__(reason)
        self.seconds = seconds


class HandlersCutOff(Exception):
    """Handlers took longer than the grace time; their notifications come again."""


#: Handles a notification: a coroutine function, or a function, which runs in a thread.
Handler = Callable[[Delivery], "Awaitable[None] | None"]


class _State(Enum):
    WAITING = 0
    RUNNING = 1
    FINISHED = 2


class _Job:
    def __init__(self, lease: work_pb2.Lease) -> None:
        self.delivery = Delivery(lease.notification, lease.attempt)
        self.id = lease.notification.id
        self.state = _State.WAITING
        self.task: asyncio.Task[None] | None = None
        self.error: BaseException | None = None
        self.released = False  # it was not begun
        self.lost = False  # the lease is over
        self.doubted = False
        self.next: work_pb2.Lease | None = None  # came while this was handled or settled
        self.extend_at = 0.0
        self.adopt(lease)

    def adopt(self, lease: work_pb2.Lease) -> None:
        self.token = lease.lease_token
        self.expires = _seconds_to(lease.expires_at)

    @property
    def acknowledges(self) -> bool:
        return not self.released and self.error is None


def _seconds_to(t: Timestamp) -> float:
    """A time of the gateway's clock, by the clock of this process."""
    left = t.ToDatetime(tzinfo=timezone.utc) - datetime.now(timezone.utc)
    return time.monotonic() + left.total_seconds()


class Worker:
    def __init__(
        self,
        settings: Settings,
        group: str,
        handler: Handler,
        parallel: int,
        grace: float,
        heartbeat: float,
        client_name: str,
    ) -> None:
        if not 1 <= parallel <= _MAX_LEASES:
            raise ValueError(f"parallel is {parallel}; it must be from 1 to {_MAX_LEASES}")
        self._settings = settings
        self._link = Link(settings)
        self._group = group
        self._handler = handler
        self._parallel = parallel
        self._grace = grace
        self._request = work_pb2.ConsumeRequest(
            group_name=group, max_in_flight=min(2 * parallel, _MAX_LEASES), client_name=client_name
        )
        self._request.heartbeat_interval.FromTimedelta(timedelta(seconds=heartbeat))
        self._silence = 3 * heartbeat
        self._jobs: dict[str, _Job] = {}
        self._waiting: list[_Job] = []
        self._finished: list[_Job] = []
        self._running = 0
        self._changed = asyncio.Event()
        self._lease = 30.0
        self._member = ""
        self._joined_at = 0.0
        self._leaving = False
        self._holding = False  # what is given back now would come again at once

    async def run(self, stop: asyncio.Event | None) -> None:
        streaming = asyncio.create_task(self._stream())
        others = [asyncio.create_task(self._settle_all()), asyncio.create_task(self._extend_all())]
        stopping = asyncio.create_task((stop or asyncio.Event()).wait())
        cancelled = False
        try:
            await asyncio.wait({streaming, stopping}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            cancelled = True
        ending = asyncio.create_task(self._end(streaming, others))
        while not ending.done():
            try:
                await asyncio.shield(ending)
            except asyncio.CancelledError:
                if ending.done():
                    break
                cancelled = True
        stopping.cancel()
        if cancelled:
            raise asyncio.CancelledError
        ending.result()

    async def _end(self, streaming: asyncio.Task[None], others: list[asyncio.Task[None]]) -> None:
        try:
            if not streaming.done():
                await self._leave()
                await asyncio.wait({streaming}, timeout=_LEAVE_TIME)
            self._stop_beginning()
            failure = streaming.exception() if streaming.done() else None
            streaming.cancel()
            cut = await self._await_handlers()
            await self._await_settled()
        finally:
            for task in [streaming, *others]:
                task.cancel()
            await asyncio.gather(streaming, *others, return_exceptions=True)
            await self._link.close()
        if failure is not None:
            raise failure
        if cut:
            raise HandlersCutOff(f"{cut} handlers took longer than {self._grace:g} s")

    async def _leave(self) -> None:
        self._leaving = self._holding = True
        if self._member:
            request = work_pb2.LeaveRequest(group_name=self._group, member_id=self._member)
            try:
                await self._call("Leave", request, _LEAVE_TIME)
            except aio.AioRpcError as error:  # the gateway is gone, and so is the membership
                logger.info("leaving without the gateway's word: %s", error.details())
        self._holding = False
        self._stop_beginning()

    def _stop_beginning(self) -> None:
        self._leaving = True
        self._release_waiting()
        self._changed.set()

    def _release_waiting(self) -> None:
        for job in self._waiting:
            job.state, job.released = _State.FINISHED, True
            self._finished.append(job)
        self._waiting.clear()

    async def _await_handlers(self) -> int:
        """Waits until nothing is handled any more, and returns how many handlers were cut off."""
        running = [j for j in self._jobs.values() if j.task and not j.task.done()]
        if not running:
            return 0
        tasks = [j.task for j in running if j.task]
        _, late = await asyncio.wait(tasks, timeout=self._grace)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=_SETTLE_TIME)
        for job in self._jobs.values():
            if job.state is _State.RUNNING:
                job.state, job.error = _State.FINISHED, HandlersCutOff("the grace time is over")
                self._finished.append(job)
        return len(late)

    async def _await_settled(self) -> None:
        deadline = time.monotonic() + _SETTLE_TIME
        while self._jobs:
            if time.monotonic() > deadline:
                raise ConnectionError(
                    f"the gateway could not be told of {len(self._jobs)} notifications: "
                    "they come again"
                )
            self._changed.set()
            await asyncio.sleep(0.01)

    # Streams.

    async def _stream(self) -> None:
        failures = 0
        while True:
            end = End()
            await self._stream_once(end)
            if end.fatal is not None:
                raise end.fatal
            if self._leaving:
                return
            failures = 0 if end.progressed else failures + 1
            delay = max(end.delay, back_off(failures))
            logger.info("joining %s again in %.1f s: %s", self._group, delay, end.cause)
            await asyncio.sleep(delay)

    async def _stream_once(self, end: End) -> None:
        channel = None
        try:
            channel = self._link.channel()
            metadata = await self._settings.metadata()
            call = WorkerServiceStub(channel).Consume(self._request, metadata=metadata)
        except OSError as error:
            end.cause = error
            await self._link.next(channel)
            return
        frames = Frames(call, self._silence)
        planned = False
        try:
            while True:
                frame = await frames.get()
                end.progressed = True
                what = frame.WhichOneof("frame")
                if what == "joined":
                    self._joined(frame.joined)
                elif what == "leases":
                    self._take_all(list(frame.leases.leases))
                elif what == "closing":
                    closing = frame.closing
                    planned = closing.reason != closing_pb2.CLOSING_REASON_GROUP_MOVED
                    end.delay = closing.reconnect_after.ToTimedelta().total_seconds()
                    end.cause = "the gateway ends the stream"
        except Ended as ended:
            if end.cause is None:
                end.by(ended.error)
        finally:
            self._parted(planned)
            await frames.close()
        if not self._leaving:
            await self._link.next(channel)

    def _joined(self, joined: work_pb2.GroupJoined) -> None:
        self._member, self._joined_at = joined.member_id, time.monotonic()
        self._lease = joined.group.lease_duration.ToTimedelta().total_seconds() or self._lease
        for job in self._jobs.values():  # whether they are still ours is for the gateway to say
            job.extend_at = self._joined_at

    def _parted(self, planned: bool) -> None:
        """Without a planned end, what was not begun has gone back to the group."""
        self._member = ""
        if planned:
            return
        for job in self._waiting:
            del self._jobs[job.id]
        self._waiting.clear()

    def _take_all(self, leases: list[work_pb2.Lease]) -> None:
        for lease in leases:
            self._take(lease)
        if self._leaving:
            self._release_waiting()
            self._changed.set()
        self._begin()

    def _take(self, lease: work_pb2.Lease) -> None:
        """Adds a job. A notification that is one already was leased to us again because the
        gateway did not know that it is ours: then the job settles the new lease."""
        job = self._jobs.get(lease.notification.id)
        if job is None:
            job = _Job(lease)
            self._jobs[job.id] = job
            self._waiting.append(job)
        elif job.lost or job.state is _State.FINISHED:
            job.next = lease
            return
        else:
            job.adopt(lease)
            job.doubted = False
        job.extend_at = time.monotonic() + self._half(job)

    def _half(self, job: _Job) -> float:
        """How long a lease goes until its middle. The gateway's clock may differ from ours, so
        the shorter of what both say counts."""
        return min(max(job.expires - time.monotonic(), 1.0), self._lease) / 2

    # Handlers.

    def _begin(self) -> None:
        while self._waiting and self._running < self._parallel and not self._leaving:
            job = self._waiting.pop(0)
            job.state = _State.RUNNING
            self._running += 1
            job.task = asyncio.create_task(self._handle(job))

    async def _handle(self, job: _Job) -> None:
        error: BaseException | None = None
        try:
            if inspect.iscoroutinefunction(self._handler):
                await self._handler(job.delivery)
            else:
                result = await asyncio.to_thread(self._handler, job.delivery)
                if inspect.isawaitable(result):
                    await result
        except asyncio.CancelledError:
            error = HandlersCutOff("the handler was cancelled")
        except Exception as raised:
            error = raised
        self._running -= 1
        if job.state is not _State.FINISHED:
            job.state, job.error = _State.FINISHED, error
            if job.lost:
                self._forget(job)
            else:
                self._finished.append(job)
                self._changed.set()
        self._begin()

    def _forget(self, job: _Job) -> None:
        del self._jobs[job.id]
        if job.next is not None:
            self._take(job.next)

    # Settling.

    async def _settle_all(self) -> None:
        failures = 0
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._finished and not self._holding:
                jobs = self._finished[:_MAX_LEASES]
                del self._finished[:_MAX_LEASES]
                jobs.sort(key=lambda j: not j.acknowledges)
                if await self._settle(jobs):
                    failures = 0
                    continue
                await asyncio.sleep(min(0.01 + back_off(failures), 1.0))
                failures += 1

    async def _call(self, method: str, request: Any, timeout: float) -> Any:
        stub = WorkerServiceStub(self._link.channel())
        metadata = await self._settings.metadata()
        return await getattr(stub, method)(request, timeout=timeout, metadata=metadata)

    async def _settle(self, jobs: list[_Job]) -> bool:
        acknowledge = [j.token for j in jobs if j.acknowledges]
        reject = [_rejection(j) for j in jobs if not j.acknowledges]
        results: list[work_pb2.LeaseResult] = []
        refused: LinksgateError | None = None
        channel = self._link.channel()
        try:
            if acknowledge:
                acknowledging = work_pb2.AcknowledgeRequest(
                    group_name=self._group, lease_tokens=acknowledge
                )
                results += (await self._call("Acknowledge", acknowledging, _CALL_TIME)).results
            if reject:
                rejecting = work_pb2.RejectRequest(group_name=self._group, rejections=reject)
                results += (await self._call("Reject", rejecting, _CALL_TIME)).results
        except (aio.AioRpcError, OSError) as error:
            refused = final(error)
            logger.warning("leases of %s not settled: %s", self._group, error)
            if not self._member and refused is None:  # nobody else looks for another gateway
                await self._link.next(channel)
        done = True
        for i, job in enumerate(jobs):
            said: int = work_pb2.LEASE_OUTCOME_UNAVAILABLE
            if i < len(results):
                said = results[i].outcome
            elif refused is not None:  # the group is gone: there is nothing to settle
                said = work_pb2.LEASE_OUTCOME_INVALID
            done = self._settled(job, said) and done
        self._begin()
        return done

    def _settled(self, job: _Job, said: int) -> bool:
        """Takes in what the gateway said of a job: False if it is to be settled again."""
        unavailable = said == work_pb2.LEASE_OUTCOME_UNAVAILABLE
        if said == work_pb2.LEASE_OUTCOME_OK:
            if job.acknowledges:
                job.next = None
            self._forget(job)  # for another attempt, if it came
            return True
        if not unavailable and job.next is not None:  # leased to us again, as it was not known
            job.adopt(job.next)
            job.next, job.doubted = None, False
        elif not (unavailable and time.monotonic() < job.expires + self._lease) and not self._doubt(
            job, said
        ):
            if not job.released:
                logger.warning("%s was settled too late: it comes again", job.id)
            del self._jobs[job.id]
            return True
        self._finished.append(job)
        self._changed.set()
        return False

    def _doubt(self, job: _Job, said: int) -> bool:
        """Whether to ask again before a lease counts as over. A gateway that was restarted leases
        to a member, as soon as it has joined, what the member is working on; the word of that may
        come after the word that the lease before it is over."""
        long_ago = self._member and time.monotonic() - self._joined_at > _NEWLY_JOINED
        if said != work_pb2.LEASE_OUTCOME_STALE or job.doubted or long_ago or self._leaving:
            return False
        job.doubted = True
        return True

    async def _extend_all(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            now = time.monotonic()
            due = [
                j
                for j in self._jobs.values()
                if j.state is not _State.FINISHED and not j.lost and now >= j.extend_at
            ][:_MAX_LEASES]
            if due:
                await self._extend(due)

    async def _extend(self, jobs: list[_Job]) -> None:
        tokens = [j.token for j in jobs]
        results: list[work_pb2.LeaseResult] = []
        try:
            request = work_pb2.ExtendLeasesRequest(group_name=self._group, lease_tokens=tokens)
            results = list((await self._call("ExtendLeases", request, _CALL_TIME)).results)
        except (aio.AioRpcError, OSError) as error:
            logger.warning("leases of %s not extended: %s", self._group, error)
        now = time.monotonic()
        for i, job in enumerate(jobs):
            stays = self._jobs.get(job.id) is job and job.state is not _State.FINISHED
            if not stays or job.token != tokens[i]:
                continue  # leased again, finished or gone meanwhile
            said: int = work_pb2.LEASE_OUTCOME_UNAVAILABLE
            if i < len(results):
                said = results[i].outcome
            if said == work_pb2.LEASE_OUTCOME_OK:
                job.expires = _seconds_to(results[i].expires_at)
                job.extend_at = now + self._half(job)
            elif said == work_pb2.LEASE_OUTCOME_UNAVAILABLE:
                job.extend_at = now + max(self._lease / 16, 0.05)
            elif self._doubt(job, said):
                job.extend_at = now + _DOUBT_TIME
            else:
                self._lose(job)

    def _lose(self, job: _Job) -> None:
        if job.state is _State.WAITING:
            self._waiting.remove(job)
            del self._jobs[job.id]
            return
        logger.warning("the lease of %s is over: another worker may have it", job.id)
        job.lost = True
        if job.task is not None:
            job.task.cancel()


def _rejection(job: _Job) -> work_pb2.LeaseRejection:
    rejection = work_pb2.LeaseRejection(lease_token=job.token)
    if job.released:
        rejection.release = True
        return rejection
    error = job.error
    text = str(error) or type(error).__name__
    rejection.reason = text.encode("utf-8", "replace")[:_MAX_REASON].decode("utf-8", "ignore")
    if isinstance(error, Park):
        rejection.park = True
    elif isinstance(error, RetryAfter):
        rejection.retry_after.FromTimedelta(timedelta(seconds=error.seconds))
    elif isinstance(error, EverythingIsDown):
        rejection.pause_group.FromTimedelta(timedelta(seconds=max(error.seconds, 1.0)))
    return rejection
