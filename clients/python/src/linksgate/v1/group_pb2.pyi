import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from linksgate.v1 import log_pb2 as _log_pb2
from linksgate.v1 import notification_pb2 as _notification_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GroupOrdering(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GROUP_ORDERING_UNSPECIFIED: _ClassVar[GroupOrdering]
    GROUP_ORDERING_NONE: _ClassVar[GroupOrdering]
    GROUP_ORDERING_BY_SIM: _ClassVar[GroupOrdering]

class ParkReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PARK_REASON_UNSPECIFIED: _ClassVar[ParkReason]
    PARK_REASON_REQUESTED: _ClassVar[ParkReason]
    PARK_REASON_REJECTED: _ClassVar[ParkReason]
    PARK_REASON_LEASE_ENDED: _ClassVar[ParkReason]
    PARK_REASON_DISCONNECTED: _ClassVar[ParkReason]
GROUP_ORDERING_UNSPECIFIED: GroupOrdering
GROUP_ORDERING_NONE: GroupOrdering
GROUP_ORDERING_BY_SIM: GroupOrdering
PARK_REASON_UNSPECIFIED: ParkReason
PARK_REASON_REQUESTED: ParkReason
PARK_REASON_REJECTED: ParkReason
PARK_REASON_LEASE_ENDED: ParkReason
PARK_REASON_DISCONNECTED: ParkReason

class Group(_message.Message):
    __slots__ = ("name", "filter", "ordering", "lease_duration", "max_attempts", "back_off", "created_at", "status", "paused")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    ORDERING_FIELD_NUMBER: _ClassVar[int]
    LEASE_DURATION_FIELD_NUMBER: _ClassVar[int]
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    BACK_OFF_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    name: str
    filter: _log_pb2.NotificationFilter
    ordering: GroupOrdering
    lease_duration: _duration_pb2.Duration
    max_attempts: int
    back_off: RetryBackOff
    created_at: _timestamp_pb2.Timestamp
    status: GroupStatus
    paused: bool
    def __init__(self, name: _Optional[str] = ..., filter: _Optional[_Union[_log_pb2.NotificationFilter, _Mapping]] = ..., ordering: _Optional[_Union[GroupOrdering, str]] = ..., lease_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_attempts: _Optional[int] = ..., back_off: _Optional[_Union[RetryBackOff, _Mapping]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., status: _Optional[_Union[GroupStatus, _Mapping]] = ..., paused: bool = ...) -> None: ...

class RetryBackOff(_message.Message):
    __slots__ = ("initial", "maximum")
    INITIAL_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    initial: _duration_pb2.Duration
    maximum: _duration_pb2.Duration
    def __init__(self, initial: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., maximum: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class GroupStatus(_message.Message):
    __slots__ = ("lag", "oldest_unsettled", "in_flight", "retrying", "parked", "members", "missed_record_batches", "held", "blocked", "paused_until")
    LAG_FIELD_NUMBER: _ClassVar[int]
    OLDEST_UNSETTLED_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    RETRYING_FIELD_NUMBER: _ClassVar[int]
    PARKED_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    MISSED_RECORD_BATCHES_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_FIELD_NUMBER: _ClassVar[int]
    PAUSED_UNTIL_FIELD_NUMBER: _ClassVar[int]
    lag: _log_pb2.Lag
    oldest_unsettled: _log_pb2.LogPosition
    in_flight: int
    retrying: int
    parked: int
    members: _containers.RepeatedCompositeFieldContainer[GroupMember]
    missed_record_batches: int
    held: int
    blocked: bool
    paused_until: _timestamp_pb2.Timestamp
    def __init__(self, lag: _Optional[_Union[_log_pb2.Lag, _Mapping]] = ..., oldest_unsettled: _Optional[_Union[_log_pb2.LogPosition, _Mapping]] = ..., in_flight: _Optional[int] = ..., retrying: _Optional[int] = ..., parked: _Optional[int] = ..., members: _Optional[_Iterable[_Union[GroupMember, _Mapping]]] = ..., missed_record_batches: _Optional[int] = ..., held: _Optional[int] = ..., blocked: bool = ..., paused_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GroupMember(_message.Message):
    __slots__ = ("client_name", "joined_at", "in_flight", "max_in_flight")
    CLIENT_NAME_FIELD_NUMBER: _ClassVar[int]
    JOINED_AT_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    client_name: str
    joined_at: _timestamp_pb2.Timestamp
    in_flight: int
    max_in_flight: int
    def __init__(self, client_name: _Optional[str] = ..., joined_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., in_flight: _Optional[int] = ..., max_in_flight: _Optional[int] = ...) -> None: ...

class ParkedNotification(_message.Message):
    __slots__ = ("notification", "parked_at", "reason", "detail", "attempts")
    NOTIFICATION_FIELD_NUMBER: _ClassVar[int]
    PARKED_AT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    notification: _notification_pb2.Notification
    parked_at: _timestamp_pb2.Timestamp
    reason: ParkReason
    detail: str
    attempts: int
    def __init__(self, notification: _Optional[_Union[_notification_pb2.Notification, _Mapping]] = ..., parked_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reason: _Optional[_Union[ParkReason, str]] = ..., detail: _Optional[str] = ..., attempts: _Optional[int] = ...) -> None: ...
