from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_REASON_UNSPECIFIED: _ClassVar[ErrorReason]
    ERROR_REASON_INVALID_ARGUMENT: _ClassVar[ErrorReason]
    ERROR_REASON_EXPIRED: _ClassVar[ErrorReason]
    ERROR_REASON_OTHER_LOG: _ClassVar[ErrorReason]
    ERROR_REASON_AHEAD_OF_HEAD: _ClassVar[ErrorReason]
    ERROR_REASON_CORRUPT: _ClassVar[ErrorReason]
    ERROR_REASON_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_TOO_LARGE: _ClassVar[ErrorReason]
    ERROR_REASON_TOO_MANY_STREAMS: _ClassVar[ErrorReason]
    ERROR_REASON_CLIENT_NOT_READING: _ClassVar[ErrorReason]
    ERROR_REASON_NO_SUCH_GROUP: _ClassVar[ErrorReason]
    ERROR_REASON_GROUP_EXISTS: _ClassVar[ErrorReason]
    ERROR_REASON_GROUP_CHANGED: _ClassVar[ErrorReason]
    ERROR_REASON_TOO_MANY_GROUPS: _ClassVar[ErrorReason]
    ERROR_REASON_GROUP_MOVED: _ClassVar[ErrorReason]
    ERROR_REASON_GROUP_TAKEN_OVER: _ClassVar[ErrorReason]
    ERROR_REASON_LOG_UNAVAILABLE: _ClassVar[ErrorReason]
    ERROR_REASON_LOG_FROZEN: _ClassVar[ErrorReason]
    ERROR_REASON_NO_SPACE: _ClassVar[ErrorReason]
    ERROR_REASON_DRAINING: _ClassVar[ErrorReason]
    ERROR_REASON_CANCELLED: _ClassVar[ErrorReason]
    ERROR_REASON_DEADLINE_EXCEEDED: _ClassVar[ErrorReason]
    ERROR_REASON_INTERNAL: _ClassVar[ErrorReason]
    ERROR_REASON_UNIMPLEMENTED: _ClassVar[ErrorReason]
    ERROR_REASON_NO_SUCH_PATH: _ClassVar[ErrorReason]
    ERROR_REASON_METHOD_NOT_ALLOWED: _ClassVar[ErrorReason]
    ERROR_REASON_NOT_ACCEPTABLE: _ClassVar[ErrorReason]
    ERROR_REASON_BODY_TOO_SLOW: _ClassVar[ErrorReason]
    ERROR_REASON_UNSUPPORTED_MEDIA_TYPE: _ClassVar[ErrorReason]
    ERROR_REASON_CROSS_ORIGIN: _ClassVar[ErrorReason]
    ERROR_REASON_HOST_NOT_ALLOWED: _ClassVar[ErrorReason]
ERROR_REASON_UNSPECIFIED: ErrorReason
ERROR_REASON_INVALID_ARGUMENT: ErrorReason
ERROR_REASON_EXPIRED: ErrorReason
ERROR_REASON_OTHER_LOG: ErrorReason
ERROR_REASON_AHEAD_OF_HEAD: ErrorReason
ERROR_REASON_CORRUPT: ErrorReason
ERROR_REASON_NOT_FOUND: ErrorReason
ERROR_REASON_TOO_LARGE: ErrorReason
ERROR_REASON_TOO_MANY_STREAMS: ErrorReason
ERROR_REASON_CLIENT_NOT_READING: ErrorReason
ERROR_REASON_NO_SUCH_GROUP: ErrorReason
ERROR_REASON_GROUP_EXISTS: ErrorReason
ERROR_REASON_GROUP_CHANGED: ErrorReason
ERROR_REASON_TOO_MANY_GROUPS: ErrorReason
ERROR_REASON_GROUP_MOVED: ErrorReason
ERROR_REASON_GROUP_TAKEN_OVER: ErrorReason
ERROR_REASON_LOG_UNAVAILABLE: ErrorReason
ERROR_REASON_LOG_FROZEN: ErrorReason
ERROR_REASON_NO_SPACE: ErrorReason
ERROR_REASON_DRAINING: ErrorReason
ERROR_REASON_CANCELLED: ErrorReason
ERROR_REASON_DEADLINE_EXCEEDED: ErrorReason
ERROR_REASON_INTERNAL: ErrorReason
ERROR_REASON_UNIMPLEMENTED: ErrorReason
ERROR_REASON_NO_SUCH_PATH: ErrorReason
ERROR_REASON_METHOD_NOT_ALLOWED: ErrorReason
ERROR_REASON_NOT_ACCEPTABLE: ErrorReason
ERROR_REASON_BODY_TOO_SLOW: ErrorReason
ERROR_REASON_UNSUPPORTED_MEDIA_TYPE: ErrorReason
ERROR_REASON_CROSS_ORIGIN: ErrorReason
ERROR_REASON_HOST_NOT_ALLOWED: ErrorReason
