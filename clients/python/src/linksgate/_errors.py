"""What coming back cannot mend, typed."""

from __future__ import annotations

from typing import Any

from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode, aio

_DOMAIN = "linksgate"


class LinksgateError(Exception):
    """An answer of a gateway that ends a subscription or a worker."""

    def __init__(
        self,
        message: str,
        *,
        code: StatusCode | None = None,
        reason: str = "",
        first_available_token: str = "",
        fields: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        #: The gRPC code of the call.
        self.code = code
        #: One of the gateway's (``ErrorReason``, without its prefix); empty if it gave none.
        self.reason = reason
        #: Where to go on, if the gateway said so.
        self.first_available_token = first_available_token
        #: What is wrong with the request, by field.
        self.fields = fields or {}


class Expired(LinksgateError):
    """The position is no longer retained; ``first_available_token`` is where the log begins."""


class DataLoss(LinksgateError):
    """Notifications are corrupt, or the log lost its end, or is a copy that was restored."""


class OtherLog(LinksgateError):
    """The token is of another log."""


class InvalidRequest(LinksgateError):
    """The gateway does not take the request; ``fields`` says why."""


class PermissionDenied(LinksgateError):
    """The credential is missing, unknown, or lacks a right."""


class NotFound(LinksgateError):
    """There is no such group."""


class Unsupported(LinksgateError):
    """What is at the address does not have this service."""


_FINAL: dict[StatusCode, type[LinksgateError]] = {
    StatusCode.OUT_OF_RANGE: Expired,
    StatusCode.DATA_LOSS: DataLoss,
    StatusCode.FAILED_PRECONDITION: OtherLog,
    StatusCode.INVALID_ARGUMENT: InvalidRequest,
    StatusCode.UNAUTHENTICATED: PermissionDenied,
    StatusCode.PERMISSION_DENIED: PermissionDenied,
    StatusCode.NOT_FOUND: NotFound,
    StatusCode.UNIMPLEMENTED: Unsupported,
}


def final(error: BaseException | None) -> LinksgateError | None:
    """The error that a call ends with for good; None if it is to be tried again."""
    if not isinstance(error, aio.AioRpcError):
        return None
    kind = _FINAL.get(error.code())
    if kind is None:
        return None
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in _details(error):
        detail.Unpack(info)
        detail.Unpack(request)
    if info.domain != _DOMAIN:  # of a proxy
        info.Clear()
    return kind(
        error.details() or "",
        code=error.code(),
        reason=info.reason,
        first_available_token=info.metadata.get("first_available_token", ""),
        fields={v.field: v.description for v in request.field_violations},
    )


def asked_delay(error: BaseException | None) -> float:
    """How many seconds a gateway asks to wait, by an error."""
    retry = error_details_pb2.RetryInfo()
    if isinstance(error, aio.AioRpcError):
        for detail in _details(error):
            detail.Unpack(retry)
    return float(retry.retry_delay.ToTimedelta().total_seconds())


def _details(error: aio.AioRpcError) -> list[Any]:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            return list(status_pb2.Status.FromString(value).details)
    return []
