import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from linksgate.v1 import notification_pb2 as _notification_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Start(_message.Message):
    __slots__ = ("latest", "earliest", "after", "since")
    LATEST_FIELD_NUMBER: _ClassVar[int]
    EARLIEST_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    latest: bool
    earliest: bool
    after: str
    since: _timestamp_pb2.Timestamp
    def __init__(self, latest: bool = ..., earliest: bool = ..., after: _Optional[str] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class NotificationFilter(_message.Message):
    __slots__ = ("accounts", "kinds", "iccids", "partner_codes")
    ACCOUNTS_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    ICCIDS_FIELD_NUMBER: _ClassVar[int]
    PARTNER_CODES_FIELD_NUMBER: _ClassVar[int]
    accounts: _containers.RepeatedScalarFieldContainer[str]
    kinds: _containers.RepeatedScalarFieldContainer[_notification_pb2.NotificationKind]
    iccids: _containers.RepeatedScalarFieldContainer[str]
    partner_codes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, accounts: _Optional[_Iterable[str]] = ..., kinds: _Optional[_Iterable[_Union[_notification_pb2.NotificationKind, str]]] = ..., iccids: _Optional[_Iterable[str]] = ..., partner_codes: _Optional[_Iterable[str]] = ...) -> None: ...

class LogPosition(_message.Message):
    __slots__ = ("token", "sequence", "written_at")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_AT_FIELD_NUMBER: _ClassVar[int]
    token: str
    sequence: int
    written_at: _timestamp_pb2.Timestamp
    def __init__(self, token: _Optional[str] = ..., sequence: _Optional[int] = ..., written_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Lag(_message.Message):
    __slots__ = ("record_batches", "time")
    RECORD_BATCHES_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    record_batches: int
    time: _duration_pb2.Duration
    def __init__(self, record_batches: _Optional[int] = ..., time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
