/** Reads notifications from a Linksgate gateway, and works on them in groups. */
export { type Checkpoint, FileCheckpoint, MemoryCheckpoint } from "./checkpoint.js";
export { LinksgateClient } from "./client.js";
export { type ClientOptions, type Logger, version } from "./connection.js";
export {
  DataLoss,
  Expired,
  InvalidRequest,
  LinksgateError,
  NotFound,
  OtherLog,
  PermissionDenied,
  Unsupported,
} from "./errors.js";
export { type Notification, NotificationKind } from "./gen/linksgate/v1/notification_pb.js";
export { type Gap, GapReason } from "./gen/linksgate/v1/notification_service_pb.js";
export { EverythingIsDown, HandlersCutOff, Park, RetryAfter } from "./outcomes.js";
export type { SubscribeOptions } from "./subscribe.js";
export type { Delivery, Handler, WorkOptions } from "./work.js";
