from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class EraseSimRequest(_message.Message):
    __slots__ = ("iccid", "dry_run")
    ICCID_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    iccid: str
    dry_run: bool
    def __init__(self, iccid: _Optional[str] = ..., dry_run: bool = ...) -> None: ...

class EraseSimResponse(_message.Message):
    __slots__ = ("notifications", "quarantine_entries", "parked")
    NOTIFICATIONS_FIELD_NUMBER: _ClassVar[int]
    QUARANTINE_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    PARKED_FIELD_NUMBER: _ClassVar[int]
    notifications: int
    quarantine_entries: int
    parked: int
    def __init__(self, notifications: _Optional[int] = ..., quarantine_entries: _Optional[int] = ..., parked: _Optional[int] = ...) -> None: ...
