import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from linksgate.v1 import closing_pb2 as _closing_pb2
from linksgate.v1 import group_pb2 as _group_pb2
from linksgate.v1 import notification_pb2 as _notification_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LeaseOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEASE_OUTCOME_UNSPECIFIED: _ClassVar[LeaseOutcome]
    LEASE_OUTCOME_OK: _ClassVar[LeaseOutcome]
    LEASE_OUTCOME_STALE: _ClassVar[LeaseOutcome]
    LEASE_OUTCOME_INVALID: _ClassVar[LeaseOutcome]
    LEASE_OUTCOME_UNAVAILABLE: _ClassVar[LeaseOutcome]
LEASE_OUTCOME_UNSPECIFIED: LeaseOutcome
LEASE_OUTCOME_OK: LeaseOutcome
LEASE_OUTCOME_STALE: LeaseOutcome
LEASE_OUTCOME_INVALID: LeaseOutcome
LEASE_OUTCOME_UNAVAILABLE: LeaseOutcome

class ConsumeRequest(_message.Message):
    __slots__ = ("group_name", "max_in_flight", "heartbeat_interval", "client_name")
    GROUP_NAME_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NAME_FIELD_NUMBER: _ClassVar[int]
    group_name: str
    max_in_flight: int
    heartbeat_interval: _duration_pb2.Duration
    client_name: str
    def __init__(self, group_name: _Optional[str] = ..., max_in_flight: _Optional[int] = ..., heartbeat_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., client_name: _Optional[str] = ...) -> None: ...

class ConsumeResponse(_message.Message):
    __slots__ = ("joined", "leases", "heartbeat", "closing")
    JOINED_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    CLOSING_FIELD_NUMBER: _ClassVar[int]
    joined: GroupJoined
    leases: LeaseBatch
    heartbeat: GroupHeartbeat
    closing: _closing_pb2.Closing
    def __init__(self, joined: _Optional[_Union[GroupJoined, _Mapping]] = ..., leases: _Optional[_Union[LeaseBatch, _Mapping]] = ..., heartbeat: _Optional[_Union[GroupHeartbeat, _Mapping]] = ..., closing: _Optional[_Union[_closing_pb2.Closing, _Mapping]] = ...) -> None: ...

class GroupJoined(_message.Message):
    __slots__ = ("group", "max_in_flight", "heartbeat_interval", "member_id")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    group: _group_pb2.Group
    max_in_flight: int
    heartbeat_interval: _duration_pb2.Duration
    member_id: str
    def __init__(self, group: _Optional[_Union[_group_pb2.Group, _Mapping]] = ..., max_in_flight: _Optional[int] = ..., heartbeat_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., member_id: _Optional[str] = ...) -> None: ...

class LeaseBatch(_message.Message):
    __slots__ = ("leases",)
    LEASES_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedCompositeFieldContainer[Lease]
    def __init__(self, leases: _Optional[_Iterable[_Union[Lease, _Mapping]]] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("lease_token", "attempt", "expires_at", "notification")
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    NOTIFICATION_FIELD_NUMBER: _ClassVar[int]
    lease_token: str
    attempt: int
    expires_at: _timestamp_pb2.Timestamp
    notification: _notification_pb2.Notification
    def __init__(self, lease_token: _Optional[str] = ..., attempt: _Optional[int] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., notification: _Optional[_Union[_notification_pb2.Notification, _Mapping]] = ...) -> None: ...

class GroupHeartbeat(_message.Message):
    __slots__ = ("now",)
    NOW_FIELD_NUMBER: _ClassVar[int]
    now: _timestamp_pb2.Timestamp
    def __init__(self, now: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class LeaveRequest(_message.Message):
    __slots__ = ("group_name", "member_id")
    GROUP_NAME_FIELD_NUMBER: _ClassVar[int]
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    group_name: str
    member_id: str
    def __init__(self, group_name: _Optional[str] = ..., member_id: _Optional[str] = ...) -> None: ...

class LeaveResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("group_name", "max_leases", "wait", "client_name")
    GROUP_NAME_FIELD_NUMBER: _ClassVar[int]
    MAX_LEASES_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NAME_FIELD_NUMBER: _ClassVar[int]
    group_name: str
    max_leases: int
    wait: _duration_pb2.Duration
    client_name: str
    def __init__(self, group_name: _Optional[str] = ..., max_leases: _Optional[int] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., client_name: _Optional[str] = ...) -> None: ...

class FetchResponse(_message.Message):
    __slots__ = ("leases",)
    LEASES_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedCompositeFieldContainer[Lease]
    def __init__(self, leases: _Optional[_Iterable[_Union[Lease, _Mapping]]] = ...) -> None: ...

class AcknowledgeRequest(_message.Message):
    __slots__ = ("group_name", "lease_tokens")
    GROUP_NAME_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    group_name: str
    lease_tokens: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, group_name: _Optional[str] = ..., lease_tokens: _Optional[_Iterable[str]] = ...) -> None: ...

class AcknowledgeResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[LeaseResult]
    def __init__(self, results: _Optional[_Iterable[_Union[LeaseResult, _Mapping]]] = ...) -> None: ...

class LeaseResult(_message.Message):
    __slots__ = ("outcome", "detail", "expires_at")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    outcome: LeaseOutcome
    detail: str
    expires_at: _timestamp_pb2.Timestamp
    def __init__(self, outcome: _Optional[_Union[LeaseOutcome, str]] = ..., detail: _Optional[str] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class RejectRequest(_message.Message):
    __slots__ = ("group_name", "rejections")
    GROUP_NAME_FIELD_NUMBER: _ClassVar[int]
    REJECTIONS_FIELD_NUMBER: _ClassVar[int]
    group_name: str
    rejections: _containers.RepeatedCompositeFieldContainer[LeaseRejection]
    def __init__(self, group_name: _Optional[str] = ..., rejections: _Optional[_Iterable[_Union[LeaseRejection, _Mapping]]] = ...) -> None: ...

class LeaseRejection(_message.Message):
    __slots__ = ("lease_token", "retry_after", "park", "release", "pause_group", "reason")
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    PARK_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    PAUSE_GROUP_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    lease_token: str
    retry_after: _duration_pb2.Duration
    park: bool
    release: bool
    pause_group: _duration_pb2.Duration
    reason: str
    def __init__(self, lease_token: _Optional[str] = ..., retry_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., park: bool = ..., release: bool = ..., pause_group: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class RejectResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[LeaseResult]
    def __init__(self, results: _Optional[_Iterable[_Union[LeaseResult, _Mapping]]] = ...) -> None: ...

class ExtendLeasesRequest(_message.Message):
    __slots__ = ("group_name", "lease_tokens", "duration")
    GROUP_NAME_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    group_name: str
    lease_tokens: _containers.RepeatedScalarFieldContainer[str]
    duration: _duration_pb2.Duration
    def __init__(self, group_name: _Optional[str] = ..., lease_tokens: _Optional[_Iterable[str]] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ExtendLeasesResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[LeaseResult]
    def __init__(self, results: _Optional[_Iterable[_Union[LeaseResult, _Mapping]]] = ...) -> None: ...
