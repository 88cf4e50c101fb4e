"""Reads notifications from a Linksgate gateway, and works on them in groups.

::

    client = linksgate.Client("localhost:9090")
    async for n in client.subscribe(checkpoint=linksgate.FileCheckpoint("sms.token")):
        print(n.sms_received.text)

    async def handler(d: linksgate.Delivery) -> None: ...
    await client.work("billing", handler, parallel=8)
"""

from ._checkpoint import Checkpoint, FileCheckpoint, MemoryCheckpoint
from ._client import Client
from ._connection import VERSION as __version__
from ._errors import (
    DataLoss,
    Expired,
    InvalidRequest,
    LinksgateError,
    NotFound,
    OtherLog,
    PermissionDenied,
    Unsupported,
)
from ._work import Delivery, EverythingIsDown, Handler, HandlersCutOff, Park, RetryAfter
from .v1.log_pb2 import NotificationFilter
from .v1.notification_pb2 import Notification, NotificationKind
from .v1.notification_service_pb2 import Gap

__all__ = [
    "Checkpoint",
    "Client",
    "DataLoss",
    "Delivery",
    "EverythingIsDown",
    "Expired",
    "FileCheckpoint",
    "Gap",
    "Handler",
    "HandlersCutOff",
    "InvalidRequest",
    "LinksgateError",
    "MemoryCheckpoint",
    "NotFound",
    "Notification",
    "NotificationFilter",
    "NotificationKind",
    "OtherLog",
    "Park",
    "PermissionDenied",
    "RetryAfter",
    "Unsupported",
    "__version__",
]
