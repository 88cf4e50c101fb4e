import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NotificationKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NOTIFICATION_KIND_UNSPECIFIED: _ClassVar[NotificationKind]
    NOTIFICATION_KIND_DATA_USAGE_ALERT: _ClassVar[NotificationKind]
    NOTIFICATION_KIND_SMS_DELIVERY: _ClassVar[NotificationKind]
    NOTIFICATION_KIND_SMS_RECEIVED: _ClassVar[NotificationKind]
    NOTIFICATION_KIND_PLAN_ORDER_STATUS: _ClassVar[NotificationKind]
    NOTIFICATION_KIND_MALL_DEVICE_WARNING: _ClassVar[NotificationKind]
    NOTIFICATION_KIND_MALL_RECHARGE_SUCCESS: _ClassVar[NotificationKind]
    NOTIFICATION_KIND_CUBE: _ClassVar[NotificationKind]
    NOTIFICATION_KIND_MARKETPLACE_ALARM: _ClassVar[NotificationKind]

class VerificationStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERIFICATION_STATUS_UNSPECIFIED: _ClassVar[VerificationStatus]
    VERIFICATION_STATUS_VERIFIED: _ClassVar[VerificationStatus]
    VERIFICATION_STATUS_UNSIGNED: _ClassVar[VerificationStatus]
    VERIFICATION_STATUS_FORCED: _ClassVar[VerificationStatus]

class SignatureScheme(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SIGNATURE_SCHEME_UNSPECIFIED: _ClassVar[SignatureScheme]
    SIGNATURE_SCHEME_MD5: _ClassVar[SignatureScheme]
    SIGNATURE_SCHEME_HMAC_SHA1: _ClassVar[SignatureScheme]

class SmsMessageType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SMS_MESSAGE_TYPE_UNSPECIFIED: _ClassVar[SmsMessageType]
    SMS_MESSAGE_TYPE_TEXT: _ClassVar[SmsMessageType]
    SMS_MESSAGE_TYPE_BINARY: _ClassVar[SmsMessageType]

class PlanOrderStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PLAN_ORDER_STATUS_UNSPECIFIED: _ClassVar[PlanOrderStatus]
    PLAN_ORDER_STATUS_CREATED: _ClassVar[PlanOrderStatus]
    PLAN_ORDER_STATUS_ENDED_EARLY: _ClassVar[PlanOrderStatus]
    PLAN_ORDER_STATUS_CANCELLED: _ClassVar[PlanOrderStatus]
    PLAN_ORDER_STATUS_PAUSED: _ClassVar[PlanOrderStatus]
    PLAN_ORDER_STATUS_RESTARTED: _ClassVar[PlanOrderStatus]
    PLAN_ORDER_STATUS_STARTED: _ClassVar[PlanOrderStatus]
    PLAN_ORDER_STATUS_STARTED_OTA: _ClassVar[PlanOrderStatus]
    PLAN_ORDER_STATUS_EXPIRED: _ClassVar[PlanOrderStatus]
    PLAN_ORDER_STATUS_EXTENDED: _ClassVar[PlanOrderStatus]
    PLAN_ORDER_STATUS_CYCLES_REDUCED: _ClassVar[PlanOrderStatus]
    PLAN_ORDER_STATUS_IMSI_DOWNLOADED_AGAIN: _ClassVar[PlanOrderStatus]

class DeviceWarningCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEVICE_WARNING_CODE_UNSPECIFIED: _ClassVar[DeviceWarningCode]
    DEVICE_WARNING_CODE_NO_PLAN: _ClassVar[DeviceWarningCode]
    DEVICE_WARNING_CODE_EXPIRES_SOON: _ClassVar[DeviceWarningCode]
    DEVICE_WARNING_CODE_EXPIRED: _ClassVar[DeviceWarningCode]
    DEVICE_WARNING_CODE_TRIAL_DATA_USED_UP: _ClassVar[DeviceWarningCode]
NOTIFICATION_KIND_UNSPECIFIED: NotificationKind
NOTIFICATION_KIND_DATA_USAGE_ALERT: NotificationKind
NOTIFICATION_KIND_SMS_DELIVERY: NotificationKind
NOTIFICATION_KIND_SMS_RECEIVED: NotificationKind
NOTIFICATION_KIND_PLAN_ORDER_STATUS: NotificationKind
NOTIFICATION_KIND_MALL_DEVICE_WARNING: NotificationKind
NOTIFICATION_KIND_MALL_RECHARGE_SUCCESS: NotificationKind
NOTIFICATION_KIND_CUBE: NotificationKind
NOTIFICATION_KIND_MARKETPLACE_ALARM: NotificationKind
VERIFICATION_STATUS_UNSPECIFIED: VerificationStatus
VERIFICATION_STATUS_VERIFIED: VerificationStatus
VERIFICATION_STATUS_UNSIGNED: VerificationStatus
VERIFICATION_STATUS_FORCED: VerificationStatus
SIGNATURE_SCHEME_UNSPECIFIED: SignatureScheme
SIGNATURE_SCHEME_MD5: SignatureScheme
SIGNATURE_SCHEME_HMAC_SHA1: SignatureScheme
SMS_MESSAGE_TYPE_UNSPECIFIED: SmsMessageType
SMS_MESSAGE_TYPE_TEXT: SmsMessageType
SMS_MESSAGE_TYPE_BINARY: SmsMessageType
PLAN_ORDER_STATUS_UNSPECIFIED: PlanOrderStatus
PLAN_ORDER_STATUS_CREATED: PlanOrderStatus
PLAN_ORDER_STATUS_ENDED_EARLY: PlanOrderStatus
PLAN_ORDER_STATUS_CANCELLED: PlanOrderStatus
PLAN_ORDER_STATUS_PAUSED: PlanOrderStatus
PLAN_ORDER_STATUS_RESTARTED: PlanOrderStatus
PLAN_ORDER_STATUS_STARTED: PlanOrderStatus
PLAN_ORDER_STATUS_STARTED_OTA: PlanOrderStatus
PLAN_ORDER_STATUS_EXPIRED: PlanOrderStatus
PLAN_ORDER_STATUS_EXTENDED: PlanOrderStatus
PLAN_ORDER_STATUS_CYCLES_REDUCED: PlanOrderStatus
PLAN_ORDER_STATUS_IMSI_DOWNLOADED_AGAIN: PlanOrderStatus
DEVICE_WARNING_CODE_UNSPECIFIED: DeviceWarningCode
DEVICE_WARNING_CODE_NO_PLAN: DeviceWarningCode
DEVICE_WARNING_CODE_EXPIRES_SOON: DeviceWarningCode
DEVICE_WARNING_CODE_EXPIRED: DeviceWarningCode
DEVICE_WARNING_CODE_TRIAL_DATA_USED_UP: DeviceWarningCode

class Notification(_message.Message):
    __slots__ = ("id", "token", "sequence", "account", "kind", "received_at", "verification", "headers", "body", "binary_body", "content_digest", "trace_context", "iccids", "partner_code", "duplicate_key", "quarantine_id", "released_at", "found_iccids", "damaged_iccids", "imsis", "occurred_at", "data_usage_alert", "sms_delivery_report", "sms_received", "plan_order_status_change", "device_warning", "recharge_success", "cube_event", "platform_alarm", "unrecognized")
    ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_AT_FIELD_NUMBER: _ClassVar[int]
    VERIFICATION_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    BINARY_BODY_FIELD_NUMBER: _ClassVar[int]
    CONTENT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TRACE_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    ICCIDS_FIELD_NUMBER: _ClassVar[int]
    PARTNER_CODE_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_KEY_FIELD_NUMBER: _ClassVar[int]
    QUARANTINE_ID_FIELD_NUMBER: _ClassVar[int]
    RELEASED_AT_FIELD_NUMBER: _ClassVar[int]
    FOUND_ICCIDS_FIELD_NUMBER: _ClassVar[int]
    DAMAGED_ICCIDS_FIELD_NUMBER: _ClassVar[int]
    IMSIS_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    DATA_USAGE_ALERT_FIELD_NUMBER: _ClassVar[int]
    SMS_DELIVERY_REPORT_FIELD_NUMBER: _ClassVar[int]
    SMS_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    PLAN_ORDER_STATUS_CHANGE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_WARNING_FIELD_NUMBER: _ClassVar[int]
    RECHARGE_SUCCESS_FIELD_NUMBER: _ClassVar[int]
    CUBE_EVENT_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_ALARM_FIELD_NUMBER: _ClassVar[int]
    UNRECOGNIZED_FIELD_NUMBER: _ClassVar[int]
    id: str
    token: str
    sequence: int
    account: str
    kind: NotificationKind
    received_at: _timestamp_pb2.Timestamp
    verification: Verification
    headers: _containers.RepeatedCompositeFieldContainer[RequestHeader]
    body: str
    binary_body: bytes
    content_digest: str
    trace_context: TraceContext
    iccids: _containers.RepeatedScalarFieldContainer[str]
    partner_code: str
    duplicate_key: bytes
    quarantine_id: str
    released_at: _timestamp_pb2.Timestamp
    found_iccids: _containers.RepeatedScalarFieldContainer[str]
    damaged_iccids: _containers.RepeatedScalarFieldContainer[str]
    imsis: _containers.RepeatedScalarFieldContainer[str]
    occurred_at: _timestamp_pb2.Timestamp
    data_usage_alert: DataUsageAlert
    sms_delivery_report: SmsDeliveryReport
    sms_received: SmsReceived
    plan_order_status_change: PlanOrderStatusChange
    device_warning: DeviceWarning
    recharge_success: RechargeSuccess
    cube_event: CubeEvent
    platform_alarm: PlatformAlarm
    unrecognized: UnrecognizedPayload
    def __init__(self, id: _Optional[str] = ..., token: _Optional[str] = ..., sequence: _Optional[int] = ..., account: _Optional[str] = ..., kind: _Optional[_Union[NotificationKind, str]] = ..., received_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., verification: _Optional[_Union[Verification, _Mapping]] = ..., headers: _Optional[_Iterable[_Union[RequestHeader, _Mapping]]] = ..., body: _Optional[str] = ..., binary_body: _Optional[bytes] = ..., content_digest: _Optional[str] = ..., trace_context: _Optional[_Union[TraceContext, _Mapping]] = ..., iccids: _Optional[_Iterable[str]] = ..., partner_code: _Optional[str] = ..., duplicate_key: _Optional[bytes] = ..., quarantine_id: _Optional[str] = ..., released_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., found_iccids: _Optional[_Iterable[str]] = ..., damaged_iccids: _Optional[_Iterable[str]] = ..., imsis: _Optional[_Iterable[str]] = ..., occurred_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., data_usage_alert: _Optional[_Union[DataUsageAlert, _Mapping]] = ..., sms_delivery_report: _Optional[_Union[SmsDeliveryReport, _Mapping]] = ..., sms_received: _Optional[_Union[SmsReceived, _Mapping]] = ..., plan_order_status_change: _Optional[_Union[PlanOrderStatusChange, _Mapping]] = ..., device_warning: _Optional[_Union[DeviceWarning, _Mapping]] = ..., recharge_success: _Optional[_Union[RechargeSuccess, _Mapping]] = ..., cube_event: _Optional[_Union[CubeEvent, _Mapping]] = ..., platform_alarm: _Optional[_Union[PlatformAlarm, _Mapping]] = ..., unrecognized: _Optional[_Union[UnrecognizedPayload, _Mapping]] = ...) -> None: ...

class Verification(_message.Message):
    __slots__ = ("status", "scheme", "key_id", "secret_name", "reading")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SCHEME_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    SECRET_NAME_FIELD_NUMBER: _ClassVar[int]
    READING_FIELD_NUMBER: _ClassVar[int]
    status: VerificationStatus
    scheme: SignatureScheme
    key_id: str
    secret_name: str
    reading: str
    def __init__(self, status: _Optional[_Union[VerificationStatus, str]] = ..., scheme: _Optional[_Union[SignatureScheme, str]] = ..., key_id: _Optional[str] = ..., secret_name: _Optional[str] = ..., reading: _Optional[str] = ...) -> None: ...

class RequestHeader(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class TraceContext(_message.Message):
    __slots__ = ("traceparent", "tracestate")
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    TRACESTATE_FIELD_NUMBER: _ClassVar[int]
    traceparent: str
    tracestate: str
    def __init__(self, traceparent: _Optional[str] = ..., tracestate: _Optional[str] = ...) -> None: ...

class DataUsageAlert(_message.Message):
    __slots__ = ("fields",)
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    fields: _containers.ScalarMap[str, str]
    def __init__(self, fields: _Optional[_Mapping[str, str]] = ...) -> None: ...

class SmsDeliveryReport(_message.Message):
    __slots__ = ("fields",)
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    fields: _containers.ScalarMap[str, str]
    def __init__(self, fields: _Optional[_Mapping[str, str]] = ...) -> None: ...

class SmsReceived(_message.Message):
    __slots__ = ("iccid", "imsi", "partner_code", "message_type", "message_type_text", "text", "received_at", "received_at_text", "fields")
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ICCID_FIELD_NUMBER: _ClassVar[int]
    IMSI_FIELD_NUMBER: _ClassVar[int]
    PARTNER_CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_TYPE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_TYPE_TEXT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_AT_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_AT_TEXT_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    iccid: str
    imsi: str
    partner_code: str
    message_type: SmsMessageType
    message_type_text: str
    text: str
    received_at: _timestamp_pb2.Timestamp
    received_at_text: str
    fields: _containers.ScalarMap[str, str]
    def __init__(self, iccid: _Optional[str] = ..., imsi: _Optional[str] = ..., partner_code: _Optional[str] = ..., message_type: _Optional[_Union[SmsMessageType, str]] = ..., message_type_text: _Optional[str] = ..., text: _Optional[str] = ..., received_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., received_at_text: _Optional[str] = ..., fields: _Optional[_Mapping[str, str]] = ...) -> None: ...

class PlanOrderStatusChange(_message.Message):
    __slots__ = ("status", "status_code", "order_id", "asset_id", "imsis", "order_created_at", "order_created_at_text", "fields")
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    STATUS_FIELD_NUMBER: _ClassVar[int]
    STATUS_CODE_FIELD_NUMBER: _ClassVar[int]
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    ASSET_ID_FIELD_NUMBER: _ClassVar[int]
    IMSIS_FIELD_NUMBER: _ClassVar[int]
    ORDER_CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    ORDER_CREATED_AT_TEXT_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    status: PlanOrderStatus
    status_code: str
    order_id: str
    asset_id: str
    imsis: _containers.RepeatedScalarFieldContainer[str]
    order_created_at: _timestamp_pb2.Timestamp
    order_created_at_text: str
    fields: _containers.ScalarMap[str, str]
    def __init__(self, status: _Optional[_Union[PlanOrderStatus, str]] = ..., status_code: _Optional[str] = ..., order_id: _Optional[str] = ..., asset_id: _Optional[str] = ..., imsis: _Optional[_Iterable[str]] = ..., order_created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., order_created_at_text: _Optional[str] = ..., fields: _Optional[_Mapping[str, str]] = ...) -> None: ...

class DeviceWarning(_message.Message):
    __slots__ = ("devices", "fields")
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    devices: _containers.RepeatedCompositeFieldContainer[DeviceWarningItem]
    fields: _containers.ScalarMap[str, str]
    def __init__(self, devices: _Optional[_Iterable[_Union[DeviceWarningItem, _Mapping]]] = ..., fields: _Optional[_Mapping[str, str]] = ...) -> None: ...

class DeviceWarningItem(_message.Message):
    __slots__ = ("iccid", "warning", "warning_code", "expires_at", "expires_at_text", "fields")
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ICCID_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    WARNING_CODE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_TEXT_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    iccid: str
    warning: DeviceWarningCode
    warning_code: str
    expires_at: _timestamp_pb2.Timestamp
    expires_at_text: str
    fields: _containers.ScalarMap[str, str]
    def __init__(self, iccid: _Optional[str] = ..., warning: _Optional[_Union[DeviceWarningCode, str]] = ..., warning_code: _Optional[str] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expires_at_text: _Optional[str] = ..., fields: _Optional[_Mapping[str, str]] = ...) -> None: ...

class RechargeSuccess(_message.Message):
    __slots__ = ("fields",)
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    fields: _containers.ScalarMap[str, str]
    def __init__(self, fields: _Optional[_Mapping[str, str]] = ...) -> None: ...

class CubeEvent(_message.Message):
    __slots__ = ("sent_at", "fields")
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SENT_AT_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    sent_at: _timestamp_pb2.Timestamp
    fields: _containers.ScalarMap[str, str]
    def __init__(self, sent_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., fields: _Optional[_Mapping[str, str]] = ...) -> None: ...

class PlatformAlarm(_message.Message):
    __slots__ = ("fields",)
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    fields: _containers.ScalarMap[str, str]
    def __init__(self, fields: _Optional[_Mapping[str, str]] = ...) -> None: ...

class UnrecognizedPayload(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...
