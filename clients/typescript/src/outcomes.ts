import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";

import { type LeaseRejection, LeaseRejectionSchema } from "./gen/linksgate/v1/worker_service_pb.js";

const maxReason = 1000; // bytes

/** Thrown by a handler: the notification comes again after so many ms, unless its attempts are used up. */
export class RetryAfter extends Error {
  constructor(
    readonly ms: number,
    reason = "not now",
  ) {
    super(reason);
  }
}

/** Thrown by a handler: the notification is set aside, for a person to look at. */
export class Park extends Error {}

/**
 * Thrown by a handler: nothing is wrong with the notification. The whole group is paused for so many
 * ms, from 1 s to 1 h, and the attempt does not count.
 */
export class EverythingIsDown extends Error {
  constructor(
    readonly ms: number,
    reason = "everything is down",
  ) {
    super(reason);
  }
}

/** Handlers took longer than the grace time; their notifications come again. */
export class HandlersCutOff extends Error {}

/** What becomes of a notification that was not handled; released: it was not begun. */
export function rejectionOf(token: string, error: unknown, released: boolean): LeaseRejection {
  const rejection = create(LeaseRejectionSchema, { leaseToken: token });
  if (released) {
    rejection.action = { case: "release", value: true };
    return rejection;
  }
  const text = error instanceof Error ? error.message || error.name : String(error);
  rejection.reason = new TextDecoder().decode(new TextEncoder().encode(text).slice(0, maxReason)).replace(/\uFFFD+$/, "");
  if (error instanceof Park) rejection.action = { case: "park", value: true };
  else if (error instanceof RetryAfter) rejection.action = { case: "retryAfter", value: durationFromMs(error.ms) };
  else if (error instanceof EverythingIsDown) {
    rejection.action = { case: "pauseGroup", value: durationFromMs(Math.max(error.ms, 1000)) };
  }
  return rejection;
}
