from google.protobuf import field_mask_pb2 as _field_mask_pb2
from linksgate.v1 import group_pb2 as _group_pb2
from linksgate.v1 import log_pb2 as _log_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateGroupRequest(_message.Message):
    __slots__ = ("group", "start")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    group: _group_pb2.Group
    start: _log_pb2.Start
    def __init__(self, group: _Optional[_Union[_group_pb2.Group, _Mapping]] = ..., start: _Optional[_Union[_log_pb2.Start, _Mapping]] = ...) -> None: ...

class CreateGroupResponse(_message.Message):
    __slots__ = ("group",)
    GROUP_FIELD_NUMBER: _ClassVar[int]
    group: _group_pb2.Group
    def __init__(self, group: _Optional[_Union[_group_pb2.Group, _Mapping]] = ...) -> None: ...

class GetGroupRequest(_message.Message):
    __slots__ = ("group_name",)
    GROUP_NAME_FIELD_NUMBER: _ClassVar[int]
    group_name: str
    def __init__(self, group_name: _Optional[str] = ...) -> None: ...

class GetGroupResponse(_message.Message):
    __slots__ = ("group",)
    GROUP_FIELD_NUMBER: _ClassVar[int]
    group: _group_pb2.Group
    def __init__(self, group: _Optional[_Union[_group_pb2.Group, _Mapping]] = ...) -> None: ...

class ListGroupsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListGroupsResponse(_message.Message):
    __slots__ = ("groups", "next_page_token")
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[_group_pb2.Group]
    next_page_token: str
    def __init__(self, groups: _Optional[_Iterable[_Union[_group_pb2.Group, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class UpdateGroupRequest(_message.Message):
    __slots__ = ("group_name", "group", "update_mask")
    GROUP_NAME_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    group_name: str
    group: _group_pb2.Group
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, group_name: _Optional[str] = ..., group: _Optional[_Union[_group_pb2.Group, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class UpdateGroupResponse(_message.Message):
    __slots__ = ("group",)
    GROUP_FIELD_NUMBER: _ClassVar[int]
    group: _group_pb2.Group
    def __init__(self, group: _Optional[_Union[_group_pb2.Group, _Mapping]] = ...) -> None: ...

class DeleteGroupRequest(_message.Message):
    __slots__ = ("group_name",)
    GROUP_NAME_FIELD_NUMBER: _ClassVar[int]
    group_name: str
    def __init__(self, group_name: _Optional[str] = ...) -> None: ...

class DeleteGroupResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SeekGroupRequest(_message.Message):
    __slots__ = ("group_name", "to")
    GROUP_NAME_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    group_name: str
    to: _log_pb2.Start
    def __init__(self, group_name: _Optional[str] = ..., to: _Optional[_Union[_log_pb2.Start, _Mapping]] = ...) -> None: ...

class SeekGroupResponse(_message.Message):
    __slots__ = ("group",)
    GROUP_FIELD_NUMBER: _ClassVar[int]
    group: _group_pb2.Group
    def __init__(self, group: _Optional[_Union[_group_pb2.Group, _Mapping]] = ...) -> None: ...

class ListParkedRequest(_message.Message):
    __slots__ = ("group_name", "page_size", "page_token")
    GROUP_NAME_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    group_name: str
    page_size: int
    page_token: str
    def __init__(self, group_name: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListParkedResponse(_message.Message):
    __slots__ = ("parked", "next_page_token")
    PARKED_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    parked: _containers.RepeatedCompositeFieldContainer[_group_pb2.ParkedNotification]
    next_page_token: str
    def __init__(self, parked: _Optional[_Iterable[_Union[_group_pb2.ParkedNotification, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ReplayParkedRequest(_message.Message):
    __slots__ = ("group_name", "notification_ids", "all")
    GROUP_NAME_FIELD_NUMBER: _ClassVar[int]
    NOTIFICATION_IDS_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    group_name: str
    notification_ids: _containers.RepeatedScalarFieldContainer[str]
    all: bool
    def __init__(self, group_name: _Optional[str] = ..., notification_ids: _Optional[_Iterable[str]] = ..., all: bool = ...) -> None: ...

class ReplayParkedResponse(_message.Message):
    __slots__ = ("replayed", "not_parked")
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    NOT_PARKED_FIELD_NUMBER: _ClassVar[int]
    replayed: int
    not_parked: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, replayed: _Optional[int] = ..., not_parked: _Optional[_Iterable[str]] = ...) -> None: ...

class PurgeParkedRequest(_message.Message):
    __slots__ = ("group_name", "notification_ids", "all")
    GROUP_NAME_FIELD_NUMBER: _ClassVar[int]
    NOTIFICATION_IDS_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    group_name: str
    notification_ids: _containers.RepeatedScalarFieldContainer[str]
    all: bool
    def __init__(self, group_name: _Optional[str] = ..., notification_ids: _Optional[_Iterable[str]] = ..., all: bool = ...) -> None: ...

class PurgeParkedResponse(_message.Message):
    __slots__ = ("purged", "not_parked")
    PURGED_FIELD_NUMBER: _ClassVar[int]
    NOT_PARKED_FIELD_NUMBER: _ClassVar[int]
    purged: int
    not_parked: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, purged: _Optional[int] = ..., not_parked: _Optional[_Iterable[str]] = ...) -> None: ...
