"""Prints each SMS that a SIM sends, and goes on where it stopped."""

import asyncio

import linksgate


async def main() -> None:
    client = linksgate.Client("localhost:9090")
    async for n in client.subscribe(
        checkpoint=linksgate.FileCheckpoint("print.token"),
        earliest=True,
        kinds=[linksgate.NotificationKind.NOTIFICATION_KIND_SMS_RECEIVED],
    ):
        print(n.sms_received.iccid, n.sms_received.text, flush=True)


asyncio.run(main())
