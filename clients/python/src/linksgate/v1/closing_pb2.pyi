import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ClosingReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CLOSING_REASON_UNSPECIFIED: _ClassVar[ClosingReason]
    CLOSING_REASON_COMPLETED: _ClassVar[ClosingReason]
    CLOSING_REASON_MAX_AGE: _ClassVar[ClosingReason]
    CLOSING_REASON_DRAINING: _ClassVar[ClosingReason]
    CLOSING_REASON_GROUP_MOVED: _ClassVar[ClosingReason]
    CLOSING_REASON_LEFT: _ClassVar[ClosingReason]
    CLOSING_REASON_ACCESS_CHANGED: _ClassVar[ClosingReason]
CLOSING_REASON_UNSPECIFIED: ClosingReason
CLOSING_REASON_COMPLETED: ClosingReason
CLOSING_REASON_MAX_AGE: ClosingReason
CLOSING_REASON_DRAINING: ClosingReason
CLOSING_REASON_GROUP_MOVED: ClosingReason
CLOSING_REASON_LEFT: ClosingReason
CLOSING_REASON_ACCESS_CHANGED: ClosingReason

class Closing(_message.Message):
    __slots__ = ("reason", "reconnect_after")
    REASON_FIELD_NUMBER: _ClassVar[int]
    RECONNECT_AFTER_FIELD_NUMBER: _ClassVar[int]
    reason: ClosingReason
    reconnect_after: _duration_pb2.Duration
    def __init__(self, reason: _Optional[_Union[ClosingReason, str]] = ..., reconnect_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
