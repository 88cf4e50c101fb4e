import { Code, ConnectError } from "@connectrpc/connect";
import { durationMs } from "@bufbuild/protobuf/wkt";

import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";

/** What more a gateway says of an error. */
export interface ErrorDetails {
  /** The gRPC code of the call. */
  code?: Code;
  /** One of the gateway's reasons (ErrorReason, without its prefix); empty if it gave none. */
  reason?: string;
  /** Where to go on, if the gateway said so; else empty. */
  firstAvailableToken?: string;
  /** What is wrong with the request, by field. */
  fields?: Record<string, string>;
}

/** An answer of a gateway that ends a subscription or a worker: coming back cannot mend it. */
export class LinksgateError extends Error {
  readonly code: Code | undefined;
  readonly reason: string;
  readonly firstAvailableToken: string;
  readonly fields: Record<string, string>;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message);
    this.name = new.target.name;
    this.code = details.code;
    this.reason = details.reason ?? "";
    this.firstAvailableToken = details.firstAvailableToken ?? "";
    this.fields = details.fields ?? {};
  }
}

/** The position is no longer retained; `firstAvailableToken` is where the log begins. */
export class Expired extends LinksgateError {}
/** Notifications are corrupt, or the log lost its end, or is a copy that was restored. */
export class DataLoss extends LinksgateError {}
/** The token is of another log. */
export class OtherLog extends LinksgateError {}
/** The gateway does not take the request; `fields` says why. */
export class InvalidRequest extends LinksgateError {}
/** The credential is missing, unknown, or lacks a right. */
export class PermissionDenied extends LinksgateError {}
/** There is no such group. */
export class NotFound extends LinksgateError {}
/** What is at the address does not have this service. */
export class Unsupported extends LinksgateError {}

const kinds = new Map<Code, new (message: string, details: ErrorDetails) => LinksgateError>([
  [Code.OutOfRange, Expired],
  [Code.DataLoss, DataLoss],
  [Code.FailedPrecondition, OtherLog],
  [Code.InvalidArgument, InvalidRequest],
  [Code.Unauthenticated, PermissionDenied],
  [Code.PermissionDenied, PermissionDenied],
  [Code.NotFound, NotFound],
  [Code.Unimplemented, Unsupported],
]);

/** The error that a call ends with for good; undefined if it is to be tried again. */
export function final(error: unknown): LinksgateError | undefined {
  if (!(error instanceof ConnectError)) return undefined;
  const kind = kinds.get(error.code);
  if (kind === undefined) return undefined;
  const info = error.findDetails(ErrorInfoSchema).find((i) => i.domain === "linksgate");
  const fields: Record<string, string> = {};
  for (const request of error.findDetails(BadRequestSchema)) {
    for (const violation of request.fieldViolations) fields[violation.field] = violation.description;
  }
  return new kind(error.rawMessage, {
    code: error.code,
    reason: info?.reason ?? "",
    firstAvailableToken: info?.metadata["first_available_token"] ?? "",
    fields,
  });
}

/** How many milliseconds a gateway asks to wait, by an error. */
export function askedDelay(error: unknown): number {
  if (!(error instanceof ConnectError)) return 0;
  const retry = error.findDetails(RetryInfoSchema)[0];
  return retry?.retryDelay === undefined ? 0 : durationMs(retry.retryDelay);
}
