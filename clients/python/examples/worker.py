"""Takes part in the group "sms". Create it first:
linksgate group create sms --kind sms-received --ordering by-sim"""

import asyncio
import signal

import linksgate


async def answer(iccid: str, text: str) -> None:
    """Stands for what your service does."""
    print(iccid, text, flush=True)


async def handle(d: linksgate.Delivery) -> None:
    sms = d.notification.sms_received
    if not sms.text:
        raise linksgate.Park("an SMS without a text")
    try:
        await answer(sms.iccid, sms.text)
    except ConnectionError as error:
        raise linksgate.EverythingIsDown(30, str(error)) from error


async def main() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await linksgate.Client("localhost:9090").work("sms", handle, parallel=8, stop=stop)


asyncio.run(main())
