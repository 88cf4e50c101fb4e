import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from linksgate.v1 import notification_pb2 as _notification_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class QuarantineReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    QUARANTINE_REASON_UNSPECIFIED: _ClassVar[QuarantineReason]
    QUARANTINE_REASON_SIGNATURE_MISSING: _ClassVar[QuarantineReason]
    QUARANTINE_REASON_SIGNATURE_MALFORMED: _ClassVar[QuarantineReason]
    QUARANTINE_REASON_UNKNOWN_KEY: _ClassVar[QuarantineReason]
    QUARANTINE_REASON_SIGNATURE_MISMATCH: _ClassVar[QuarantineReason]
    QUARANTINE_REASON_UNREADABLE: _ClassVar[QuarantineReason]
    QUARANTINE_REASON_NO_SUCH_URL: _ClassVar[QuarantineReason]
    QUARANTINE_REASON_SOURCE_NOT_ALLOWED: _ClassVar[QuarantineReason]

class ReleaseOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RELEASE_OUTCOME_UNSPECIFIED: _ClassVar[ReleaseOutcome]
    RELEASE_OUTCOME_RELEASED: _ClassVar[ReleaseOutcome]
    RELEASE_OUTCOME_ALREADY_RELEASED: _ClassVar[ReleaseOutcome]
    RELEASE_OUTCOME_DUPLICATE: _ClassVar[ReleaseOutcome]
    RELEASE_OUTCOME_REFUSED: _ClassVar[ReleaseOutcome]
QUARANTINE_REASON_UNSPECIFIED: QuarantineReason
QUARANTINE_REASON_SIGNATURE_MISSING: QuarantineReason
QUARANTINE_REASON_SIGNATURE_MALFORMED: QuarantineReason
QUARANTINE_REASON_UNKNOWN_KEY: QuarantineReason
QUARANTINE_REASON_SIGNATURE_MISMATCH: QuarantineReason
QUARANTINE_REASON_UNREADABLE: QuarantineReason
QUARANTINE_REASON_NO_SUCH_URL: QuarantineReason
QUARANTINE_REASON_SOURCE_NOT_ALLOWED: QuarantineReason
RELEASE_OUTCOME_UNSPECIFIED: ReleaseOutcome
RELEASE_OUTCOME_RELEASED: ReleaseOutcome
RELEASE_OUTCOME_ALREADY_RELEASED: ReleaseOutcome
RELEASE_OUTCOME_DUPLICATE: ReleaseOutcome
RELEASE_OUTCOME_REFUSED: ReleaseOutcome

class QuarantineEntry(_message.Message):
    __slots__ = ("id", "received_at", "account", "kind", "reason", "detail", "source_address", "headers", "body", "binary_body", "content_digest", "trace_context", "attempts", "path")
    ID_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_AT_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    BINARY_BODY_FIELD_NUMBER: _ClassVar[int]
    CONTENT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TRACE_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    id: str
    received_at: _timestamp_pb2.Timestamp
    account: str
    kind: _notification_pb2.NotificationKind
    reason: QuarantineReason
    detail: str
    source_address: str
    headers: _containers.RepeatedCompositeFieldContainer[_notification_pb2.RequestHeader]
    body: str
    binary_body: bytes
    content_digest: str
    trace_context: _notification_pb2.TraceContext
    attempts: _containers.RepeatedCompositeFieldContainer[SignatureAttempt]
    path: str
    def __init__(self, id: _Optional[str] = ..., received_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., account: _Optional[str] = ..., kind: _Optional[_Union[_notification_pb2.NotificationKind, str]] = ..., reason: _Optional[_Union[QuarantineReason, str]] = ..., detail: _Optional[str] = ..., source_address: _Optional[str] = ..., headers: _Optional[_Iterable[_Union[_notification_pb2.RequestHeader, _Mapping]]] = ..., body: _Optional[str] = ..., binary_body: _Optional[bytes] = ..., content_digest: _Optional[str] = ..., trace_context: _Optional[_Union[_notification_pb2.TraceContext, _Mapping]] = ..., attempts: _Optional[_Iterable[_Union[SignatureAttempt, _Mapping]]] = ..., path: _Optional[str] = ...) -> None: ...

class SignatureAttempt(_message.Message):
    __slots__ = ("scheme", "key_id", "secret_name", "reading")
    SCHEME_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    SECRET_NAME_FIELD_NUMBER: _ClassVar[int]
    READING_FIELD_NUMBER: _ClassVar[int]
    scheme: _notification_pb2.SignatureScheme
    key_id: str
    secret_name: str
    reading: str
    def __init__(self, scheme: _Optional[_Union[_notification_pb2.SignatureScheme, str]] = ..., key_id: _Optional[str] = ..., secret_name: _Optional[str] = ..., reading: _Optional[str] = ...) -> None: ...

class ListQuarantineEntriesRequest(_message.Message):
    __slots__ = ("reasons", "accounts", "kinds", "since", "page_size", "page_token")
    REASONS_FIELD_NUMBER: _ClassVar[int]
    ACCOUNTS_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    reasons: _containers.RepeatedScalarFieldContainer[QuarantineReason]
    accounts: _containers.RepeatedScalarFieldContainer[str]
    kinds: _containers.RepeatedScalarFieldContainer[_notification_pb2.NotificationKind]
    since: _timestamp_pb2.Timestamp
    page_size: int
    page_token: str
    def __init__(self, reasons: _Optional[_Iterable[_Union[QuarantineReason, str]]] = ..., accounts: _Optional[_Iterable[str]] = ..., kinds: _Optional[_Iterable[_Union[_notification_pb2.NotificationKind, str]]] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListQuarantineEntriesResponse(_message.Message):
    __slots__ = ("entries", "next_page_token")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[QuarantineEntry]
    next_page_token: str
    def __init__(self, entries: _Optional[_Iterable[_Union[QuarantineEntry, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetQuarantineEntryRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class GetQuarantineEntryResponse(_message.Message):
    __slots__ = ("entry",)
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    entry: QuarantineEntry
    def __init__(self, entry: _Optional[_Union[QuarantineEntry, _Mapping]] = ...) -> None: ...

class ReleaseQuarantineEntryRequest(_message.Message):
    __slots__ = ("id", "force", "dry_run", "as_account", "as_kind")
    ID_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    AS_ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    AS_KIND_FIELD_NUMBER: _ClassVar[int]
    id: str
    force: bool
    dry_run: bool
    as_account: str
    as_kind: _notification_pb2.NotificationKind
    def __init__(self, id: _Optional[str] = ..., force: bool = ..., dry_run: bool = ..., as_account: _Optional[str] = ..., as_kind: _Optional[_Union[_notification_pb2.NotificationKind, str]] = ...) -> None: ...

class ReleaseQuarantineEntryResponse(_message.Message):
    __slots__ = ("outcome", "notification_id", "detail", "verification")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    NOTIFICATION_ID_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    VERIFICATION_FIELD_NUMBER: _ClassVar[int]
    outcome: ReleaseOutcome
    notification_id: str
    detail: str
    verification: _notification_pb2.Verification
    def __init__(self, outcome: _Optional[_Union[ReleaseOutcome, str]] = ..., notification_id: _Optional[str] = ..., detail: _Optional[str] = ..., verification: _Optional[_Union[_notification_pb2.Verification, _Mapping]] = ...) -> None: ...

class PurgeQuarantineEntryRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class PurgeQuarantineEntryResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetQuarantineInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetQuarantineInfoResponse(_message.Message):
    __slots__ = ("entries", "bytes", "max_bytes", "max_age", "oldest_received_at")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_FIELD_NUMBER: _ClassVar[int]
    OLDEST_RECEIVED_AT_FIELD_NUMBER: _ClassVar[int]
    entries: int
    bytes: int
    max_bytes: int
    max_age: _duration_pb2.Duration
    oldest_received_at: _timestamp_pb2.Timestamp
    def __init__(self, entries: _Optional[int] = ..., bytes: _Optional[int] = ..., max_bytes: _Optional[int] = ..., max_age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., oldest_received_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
