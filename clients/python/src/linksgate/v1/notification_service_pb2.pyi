import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from linksgate.v1 import closing_pb2 as _closing_pb2
from linksgate.v1 import log_pb2 as _log_pb2
from linksgate.v1 import notification_pb2 as _notification_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GapPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GAP_POLICY_UNSPECIFIED: _ClassVar[GapPolicy]
    GAP_POLICY_FAIL: _ClassVar[GapPolicy]
    GAP_POLICY_CONTINUE: _ClassVar[GapPolicy]

class GapReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GAP_REASON_UNSPECIFIED: _ClassVar[GapReason]
    GAP_REASON_EXPIRED: _ClassVar[GapReason]
    GAP_REASON_CORRUPT: _ClassVar[GapReason]
    GAP_REASON_ERASED: _ClassVar[GapReason]

class LogDurability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOG_DURABILITY_UNSPECIFIED: _ClassVar[LogDurability]
    LOG_DURABILITY_FSYNC: _ClassVar[LogDurability]
    LOG_DURABILITY_PROCESS: _ClassVar[LogDurability]
    LOG_DURABILITY_REPLICATED: _ClassVar[LogDurability]
GAP_POLICY_UNSPECIFIED: GapPolicy
GAP_POLICY_FAIL: GapPolicy
GAP_POLICY_CONTINUE: GapPolicy
GAP_REASON_UNSPECIFIED: GapReason
GAP_REASON_EXPIRED: GapReason
GAP_REASON_CORRUPT: GapReason
GAP_REASON_ERASED: GapReason
LOG_DURABILITY_UNSPECIFIED: LogDurability
LOG_DURABILITY_FSYNC: LogDurability
LOG_DURABILITY_PROCESS: LogDurability
LOG_DURABILITY_REPLICATED: LogDurability

class SubscribeRequest(_message.Message):
    __slots__ = ("start", "until_head", "until_token", "filter", "heartbeat_interval", "max_batch", "on_gap", "client_name")
    START_FIELD_NUMBER: _ClassVar[int]
    UNTIL_HEAD_FIELD_NUMBER: _ClassVar[int]
    UNTIL_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_FIELD_NUMBER: _ClassVar[int]
    ON_GAP_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NAME_FIELD_NUMBER: _ClassVar[int]
    start: _log_pb2.Start
    until_head: bool
    until_token: str
    filter: _log_pb2.NotificationFilter
    heartbeat_interval: _duration_pb2.Duration
    max_batch: int
    on_gap: GapPolicy
    client_name: str
    def __init__(self, start: _Optional[_Union[_log_pb2.Start, _Mapping]] = ..., until_head: bool = ..., until_token: _Optional[str] = ..., filter: _Optional[_Union[_log_pb2.NotificationFilter, _Mapping]] = ..., heartbeat_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_batch: _Optional[int] = ..., on_gap: _Optional[_Union[GapPolicy, str]] = ..., client_name: _Optional[str] = ...) -> None: ...

class SubscribeResponse(_message.Message):
    __slots__ = ("token", "confirmed", "batch", "heartbeat", "caught_up", "fell_behind", "gap", "closing")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CONFIRMED_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    CAUGHT_UP_FIELD_NUMBER: _ClassVar[int]
    FELL_BEHIND_FIELD_NUMBER: _ClassVar[int]
    GAP_FIELD_NUMBER: _ClassVar[int]
    CLOSING_FIELD_NUMBER: _ClassVar[int]
    token: str
    confirmed: SubscriptionConfirmed
    batch: NotificationBatch
    heartbeat: SubscriptionHeartbeat
    caught_up: CaughtUp
    fell_behind: FellBehind
    gap: Gap
    closing: _closing_pb2.Closing
    def __init__(self, token: _Optional[str] = ..., confirmed: _Optional[_Union[SubscriptionConfirmed, _Mapping]] = ..., batch: _Optional[_Union[NotificationBatch, _Mapping]] = ..., heartbeat: _Optional[_Union[SubscriptionHeartbeat, _Mapping]] = ..., caught_up: _Optional[_Union[CaughtUp, _Mapping]] = ..., fell_behind: _Optional[_Union[FellBehind, _Mapping]] = ..., gap: _Optional[_Union[Gap, _Mapping]] = ..., closing: _Optional[_Union[_closing_pb2.Closing, _Mapping]] = ...) -> None: ...

class SubscriptionConfirmed(_message.Message):
    __slots__ = ("log_id", "first", "head", "heartbeat_interval", "max_batch", "on_gap", "lag", "unknown_accounts")
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_FIELD_NUMBER: _ClassVar[int]
    ON_GAP_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_ACCOUNTS_FIELD_NUMBER: _ClassVar[int]
    log_id: str
    first: _log_pb2.LogPosition
    head: _log_pb2.LogPosition
    heartbeat_interval: _duration_pb2.Duration
    max_batch: int
    on_gap: GapPolicy
    lag: _log_pb2.Lag
    unknown_accounts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, log_id: _Optional[str] = ..., first: _Optional[_Union[_log_pb2.LogPosition, _Mapping]] = ..., head: _Optional[_Union[_log_pb2.LogPosition, _Mapping]] = ..., heartbeat_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_batch: _Optional[int] = ..., on_gap: _Optional[_Union[GapPolicy, str]] = ..., lag: _Optional[_Union[_log_pb2.Lag, _Mapping]] = ..., unknown_accounts: _Optional[_Iterable[str]] = ...) -> None: ...

class NotificationBatch(_message.Message):
    __slots__ = ("notifications",)
    NOTIFICATIONS_FIELD_NUMBER: _ClassVar[int]
    notifications: _containers.RepeatedCompositeFieldContainer[_notification_pb2.Notification]
    def __init__(self, notifications: _Optional[_Iterable[_Union[_notification_pb2.Notification, _Mapping]]] = ...) -> None: ...

class SubscriptionHeartbeat(_message.Message):
    __slots__ = ("now", "head", "lag")
    NOW_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    now: _timestamp_pb2.Timestamp
    head: _log_pb2.LogPosition
    lag: _log_pb2.Lag
    def __init__(self, now: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., head: _Optional[_Union[_log_pb2.LogPosition, _Mapping]] = ..., lag: _Optional[_Union[_log_pb2.Lag, _Mapping]] = ...) -> None: ...

class CaughtUp(_message.Message):
    __slots__ = ("head",)
    HEAD_FIELD_NUMBER: _ClassVar[int]
    head: _log_pb2.LogPosition
    def __init__(self, head: _Optional[_Union[_log_pb2.LogPosition, _Mapping]] = ...) -> None: ...

class FellBehind(_message.Message):
    __slots__ = ("lag",)
    LAG_FIELD_NUMBER: _ClassVar[int]
    lag: _log_pb2.Lag
    def __init__(self, lag: _Optional[_Union[_log_pb2.Lag, _Mapping]] = ...) -> None: ...

class Gap(_message.Message):
    __slots__ = ("reason", "record_batches", "notifications")
    REASON_FIELD_NUMBER: _ClassVar[int]
    RECORD_BATCHES_FIELD_NUMBER: _ClassVar[int]
    NOTIFICATIONS_FIELD_NUMBER: _ClassVar[int]
    reason: GapReason
    record_batches: int
    notifications: int
    def __init__(self, reason: _Optional[_Union[GapReason, str]] = ..., record_batches: _Optional[int] = ..., notifications: _Optional[int] = ...) -> None: ...

class ListNotificationsRequest(_message.Message):
    __slots__ = ("start", "filter", "page_size", "page_token")
    START_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    start: _log_pb2.Start
    filter: _log_pb2.NotificationFilter
    page_size: int
    page_token: str
    def __init__(self, start: _Optional[_Union[_log_pb2.Start, _Mapping]] = ..., filter: _Optional[_Union[_log_pb2.NotificationFilter, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListNotificationsResponse(_message.Message):
    __slots__ = ("notifications", "next_page_token", "end_token")
    NOTIFICATIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    END_TOKEN_FIELD_NUMBER: _ClassVar[int]
    notifications: _containers.RepeatedCompositeFieldContainer[_notification_pb2.Notification]
    next_page_token: str
    end_token: str
    def __init__(self, notifications: _Optional[_Iterable[_Union[_notification_pb2.Notification, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., end_token: _Optional[str] = ...) -> None: ...

class GetNotificationRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class GetNotificationResponse(_message.Message):
    __slots__ = ("notification",)
    NOTIFICATION_FIELD_NUMBER: _ClassVar[int]
    notification: _notification_pb2.Notification
    def __init__(self, notification: _Optional[_Union[_notification_pb2.Notification, _Mapping]] = ...) -> None: ...

class GetLogInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetLogInfoResponse(_message.Message):
    __slots__ = ("log_id", "first", "head", "record_batches", "bytes", "max_age", "max_bytes", "durability", "writable", "unwritable_reason", "gateway_version", "spool")
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    RECORD_BATCHES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    WRITABLE_FIELD_NUMBER: _ClassVar[int]
    UNWRITABLE_REASON_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_VERSION_FIELD_NUMBER: _ClassVar[int]
    SPOOL_FIELD_NUMBER: _ClassVar[int]
    log_id: str
    first: _log_pb2.LogPosition
    head: _log_pb2.LogPosition
    record_batches: int
    bytes: int
    max_age: _duration_pb2.Duration
    max_bytes: int
    durability: LogDurability
    writable: bool
    unwritable_reason: str
    gateway_version: str
    spool: LogSpool
    def __init__(self, log_id: _Optional[str] = ..., first: _Optional[_Union[_log_pb2.LogPosition, _Mapping]] = ..., head: _Optional[_Union[_log_pb2.LogPosition, _Mapping]] = ..., record_batches: _Optional[int] = ..., bytes: _Optional[int] = ..., max_age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_bytes: _Optional[int] = ..., durability: _Optional[_Union[LogDurability, str]] = ..., writable: bool = ..., unwritable_reason: _Optional[str] = ..., gateway_version: _Optional[str] = ..., spool: _Optional[_Union[LogSpool, _Mapping]] = ...) -> None: ...

class LogSpool(_message.Message):
    __slots__ = ("record_batches", "bytes", "since")
    RECORD_BATCHES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    record_batches: int
    bytes: int
    since: _timestamp_pb2.Timestamp
    def __init__(self, record_batches: _Optional[int] = ..., bytes: _Optional[int] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListSubscriptionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListSubscriptionsResponse(_message.Message):
    __slots__ = ("subscriptions",)
    SUBSCRIPTIONS_FIELD_NUMBER: _ClassVar[int]
    subscriptions: _containers.RepeatedCompositeFieldContainer[Subscription]
    def __init__(self, subscriptions: _Optional[_Iterable[_Union[Subscription, _Mapping]]] = ...) -> None: ...

class Subscription(_message.Message):
    __slots__ = ("client_name", "peer", "user_agent", "started_at", "filter", "token", "lag", "live", "sent", "blocked", "caller")
    CLIENT_NAME_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    USER_AGENT_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    SENT_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    client_name: str
    peer: str
    user_agent: str
    started_at: _timestamp_pb2.Timestamp
    filter: _log_pb2.NotificationFilter
    token: str
    lag: _log_pb2.Lag
    live: bool
    sent: int
    blocked: _duration_pb2.Duration
    caller: str
    def __init__(self, client_name: _Optional[str] = ..., peer: _Optional[str] = ..., user_agent: _Optional[str] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., filter: _Optional[_Union[_log_pb2.NotificationFilter, _Mapping]] = ..., token: _Optional[str] = ..., lag: _Optional[_Union[_log_pb2.Lag, _Mapping]] = ..., live: bool = ..., sent: _Optional[int] = ..., blocked: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., caller: _Optional[str] = ...) -> None: ...
