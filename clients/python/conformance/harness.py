"""The Python harness of the conformance suite; see ../../conformance/README.md."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from typing import Any

import grpc

import linksgate
from linksgate.v1 import (
    log_pb2,
    notification_pb2,
    notification_service_pb2,
    notification_service_pb2_grpc,
)


def say(event: str, **members: Any) -> None:
    print(json.dumps({"event": event, **members}), flush=True)


async def subscribe(client: linksgate.Client, o: dict[str, Any], stop: asyncio.Event) -> None:
    start: str = o.get("start", "latest")
    options: dict[str, Any] = {}
    if o.get("checkpoint"):
        options["checkpoint"] = linksgate.FileCheckpoint(o["checkpoint"])
    if o.get("on_gap") == "continue":

        def gap(g: linksgate.Gap) -> None:
            reason = notification_service_pb2.GapReason.Name(g.reason)
            say("gap", reason=reason.removeprefix("GAP_REASON_"))

        options["on_gap"], options["continue_after_gaps"] = gap, True
    stream = client.subscribe(
        after=start.removeprefix("after:") if start.startswith("after:") else None,
        earliest=start == "earliest",
        until_head=o.get("until_head", False),
        kinds=[
            notification_pb2.NotificationKind.Value("NOTIFICATION_KIND_" + k)
            for k in o.get("kinds", [])
        ],
        accounts=o.get("accounts", []),
        iccids=o.get("iccids", []),
        max_batch=o.get("max_batch", 64),
        heartbeat=o.get("heartbeat_ms", 10000) / 1000,
        client_name=o.get("client_name", ""),
        **options,
    )
    count = 0
    try:
        async for n in stream:
            body = n.body.encode() if n.WhichOneof("raw") == "body" else n.binary_body
            say(
                "notification",
                id=n.id,
                sequence=n.sequence,
                token=n.token,
                text=n.sms_received.text,
                body_bytes=len(body),
            )
            count += 1
            if count == o.get("fail_at"):
                os._exit(3)
            if o.get("handler_ms"):
                await asyncio.sleep(o["handler_ms"] / 1000)
            say("handled", id=n.id)
    finally:
        await stream.aclose()  # type: ignore[attr-defined]


async def measure(client: linksgate.Client, o: dict[str, Any]) -> None:
    count, began = 0, 0.0
    if o["mode"] == "replay":
        async for _ in client.subscribe(earliest=True, until_head=True, max_batch=o["max_batch"]):
            count += 1
            began = began or time.monotonic()
    else:
        options = [("grpc.max_receive_message_length", 64 << 20)]
        async with grpc.aio.insecure_channel(o["addresses"][0], options) as channel:
            request = notification_service_pb2.SubscribeRequest(
                start=log_pb2.Start(earliest=True), until_head=True, max_batch=o["max_batch"]
            )
            stub = notification_service_pb2_grpc.NotificationServiceStub(channel)
            async for frame in stub.Subscribe(request):
                for _ in frame.batch.notifications:
                    count += 1
                    began = began or time.monotonic()
    say("stopped", error="", count=count, seconds=time.monotonic() - began)
    os._exit(0)


async def handle(d: linksgate.Delivery) -> None:
    n = d.notification
    text = n.sms_received.text
    say("begin", id=n.id, attempt=d.attempt, iccid=n.sms_received.iccid, text=text)
    word, _, argument = text.partition(" ")
    first = d.attempt == 1
    outcome = "ok"
    try:
        if word in ("fail", "panic") or (word == "fail-once" and first):
            outcome = "fail"
            raise RuntimeError("asked to fail")
        if word == "park":
            outcome = "park"
            raise linksgate.Park("asked to")
        if word == "retry" and first:
            outcome = "retry"
            raise linksgate.RetryAfter(int(argument) / 1000)
        if word == "down" and first:
            outcome = "down"
            raise linksgate.EverythingIsDown(int(argument) / 1000)
        if word == "sleep":
            await asyncio.sleep(int(argument) / 1000)
    except asyncio.CancelledError:
        outcome = "cancelled"
        raise
    finally:
        say("end", id=n.id, outcome=outcome)


def listen(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    for line in sys.stdin:
        if '"stop"' in line:
            loop.call_soon_threadsafe(stop.set)


async def main() -> None:
    o: dict[str, Any] = json.loads(sys.stdin.readline())
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    threading.Thread(target=listen, args=(loop, stop), daemon=True).start()
    error: BaseException | None = None
    try:
        client = linksgate.Client(
            o["addresses"],
            ca_file=o.get("ca_file"),
            cert_file=o.get("cert_file"),
            key_file=o.get("key_file"),
            token=o.get("token"),
            token_file=o.get("token_file"),
        )
        if o["mode"] in ("replay", "bare"):
            await measure(client, o)
        if o["mode"] == "work":
            await client.work(
                o["group"],
                handle,
                parallel=o.get("parallel", 4),
                stop=stop,
                grace=o.get("grace_ms", 30000) / 1000,
                client_name=o.get("client_name", ""),
                heartbeat=o.get("heartbeat_ms", 10000) / 1000,
            )
        else:
            task = asyncio.create_task(subscribe(client, o, stop))
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                task.cancel()
            await asyncio.gather(task)
    except asyncio.CancelledError:
        pass
    except Exception as raised:
        error = raised
    name = "" if error is None else "Other"
    if isinstance(error, linksgate.LinksgateError):
        name = type(error).__name__
    say(
        "stopped",
        error=name,
        detail=str(error or ""),
        first_available_token=getattr(error, "first_available_token", ""),
    )
    sys.stdout.flush()
    os._exit(0)


asyncio.run(main())
