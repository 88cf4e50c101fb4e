import { create } from "@bufbuild/protobuf";
import { durationFromMs, durationMs, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Code, createClient } from "@connectrpc/connect";

import type { Checkpoint } from "./checkpoint.js";
import { backOff, type Connection, Link, type Settings, sleep } from "./connection.js";
import { DataLoss, Expired, type LinksgateError } from "./errors.js";
import { ClosingReason } from "./gen/linksgate/v1/closing_pb.js";
import { type Start, StartSchema } from "./gen/linksgate/v1/log_pb.js";
import type { Notification, NotificationKind } from "./gen/linksgate/v1/notification_pb.js";
import {
  type Gap,
  GapPolicy,
  GapReason,
  NotificationService,
  type SubscribeRequest,
  SubscribeRequestSchema,
  type SubscribeResponse,
  type SubscriptionConfirmed,
} from "./gen/linksgate/v1/notification_service_pb.js";
import { End, Frames } from "./streams.js";

const storePause = 1000; // ms between two stores of a checkpoint

/** What to subscribe to. */
export interface SubscribeOptions {
  /** Goes on after the token in it, and stores there how far the subscription has come. */
  checkpoint?: Checkpoint;
  /** Starts after a resume token, if there is none in the checkpoint. */
  after?: string;
  /** Starts with the oldest notification that is retained, if no token is given. */
  earliest?: boolean;
  /** Starts with the first notification written at or after this time. Default: with what comes. */
  since?: Date;
  /** Ends when everything was delivered that the log holds when the subscription begins. */
  untilHead?: boolean;
  kinds?: NotificationKind[];
  accounts?: string[];
  iccids?: string[];
  partnerCodes?: string[];
  /** Goes on where notifications have expired or are corrupt, instead of ending with an error. */
  continueAfterGaps?: boolean;
  /** Is told of each gap, also of what was erased on purpose. */
  onGap?: (gap: Gap) => void;
  /** How many notifications come in one frame, up to 512; default 64. Two frames are read ahead. */
  maxBatch?: number;
  /** Longest silence in ms, from 1000 to 600000; default 10000. After three the connection is dead. */
  heartbeat?: number;
  /** Shown by the gateway. */
  clientName?: string;
  /** Ends the subscription, without an error. */
  signal?: AbortSignal;
}

function requestOf(o: SubscribeOptions): SubscribeRequest {
  return create(SubscribeRequestSchema, {
    filter: {
      kinds: o.kinds ?? [],
      accounts: o.accounts ?? [],
      iccids: o.iccids ?? [],
      partnerCodes: o.partnerCodes ?? [],
    },
    until: o.untilHead ? { case: "untilHead", value: true } : { case: undefined },
    onGap: o.continueAfterGaps ? GapPolicy.CONTINUE : GapPolicy.UNSPECIFIED,
    maxBatch: o.maxBatch ?? 64,
    heartbeatInterval: durationFromMs(o.heartbeat ?? 10_000),
    clientName: o.clientName ?? "",
  });
}

function startOf(token: string | undefined, o: SubscribeOptions): Start["position"] {
  const after = token ?? o.after;
  if (after) return { case: "after", value: after };
  if (o.earliest) return { case: "earliest", value: true };
  if (o.since) return { case: "since", value: timestampFromDate(o.since) };
  return { case: "latest", value: true };
}

/** A subscription, over any number of streams. */
export class Subscription {
  private readonly link: Link;
  private readonly request: SubscribeRequest;
  private silence: number;
  private handled: string | undefined; // token up to which everything was handled
  private stored: string | undefined;
  private storedAt = 0;
  private complete = false;

  constructor(
    private readonly settings: Settings,
    private readonly options: SubscribeOptions,
  ) {
    this.link = new Link(settings);
    this.request = requestOf(options);
    this.silence = 3 * (options.heartbeat ?? 10_000);
  }

  async *run(): AsyncGenerator<Notification, void, undefined> {
    const { signal } = this.options;
    this.stored = await this.options.checkpoint?.load();
    this.request.start = create(StartSchema, { position: startOf(this.stored, this.options) });
    try {
      for (let failures = 0; ; failures++) {
        const end = new End();
        yield* this.stream(end);
        if (end.fatal) throw end.fatal;
        if (this.complete || signal?.aborted) return;
        if (end.progressed) failures = 0;
        const delay = Math.max(end.delay, backOff(failures));
        this.settings.logger.info(`subscribing again in ${Math.round(delay)} ms: ${end.cause}`);
        await sleep(delay, signal);
        if (signal?.aborted) return;
      }
    } finally {
      try {
        await this.store(true);
      } finally {
        this.link.close();
      }
    }
  }

  private async *stream(end: End): AsyncGenerator<Notification, void, undefined> {
    let connection: Connection | undefined;
    const abort = new AbortController();
    const stop = () => abort.abort();
    this.options.signal?.addEventListener("abort", stop);
    try {
      connection = await this.link.get();
      const client = createClient(NotificationService, connection.transport);
      const frames = new Frames(client.subscribe(this.request, { signal: abort.signal }), abort, this.silence);
      try {
        while (!this.complete && !end.fatal && !this.options.signal?.aborted) {
          const frame = await frames.get(storePause / 4);
          await this.store(false);
          if (frame === "late") continue;
          if (frame === undefined) {
            if (end.cause === undefined) end.by(frames.error);
            break;
          }
          end.progressed = true;
          if (frame.frame.case === "batch") {
            for (const notification of frame.frame.value.notifications) {
              if (this.options.signal?.aborted) return;
              yield notification;
              this.handled = notification.token; // the caller asks for the next one
            }
          }
          this.take(frame, frames, end);
        }
      } finally {
        frames.close();
      }
    } catch (error) {
      // A file of a certificate that cannot be read now may be later; a checkpoint that cannot be
      // stored is for the caller to know.
      if (connection !== undefined) throw error;
      end.cause = String(error);
    } finally {
      this.options.signal?.removeEventListener("abort", stop);
    }
    if (!this.complete && !end.fatal) await this.link.next(connection);
  }

  private take(response: SubscribeResponse, frames: Frames<SubscribeResponse>, end: End): void {
    const { frame, token } = response;
    switch (frame.case) {
      case "confirmed":
        this.confirm(frame.value, frames);
        break;
      case "gap":
        if (!this.options.continueAfterGaps && frame.value.reason !== GapReason.ERASED) {
          end.fatal = gapError(frame.value, token);
          return;
        }
        this.options.onGap?.(frame.value);
        break;
      case "closing":
        this.complete = frame.value.reason === ClosingReason.COMPLETED;
        end.delay = frame.value.reconnectAfter ? durationMs(frame.value.reconnectAfter) : 0;
        end.cause = "the gateway ends the stream";
        break;
    }
    if (token !== "") {
      this.handled = token;
      this.request.start = create(StartSchema, { position: { case: "after", value: token } });
    }
  }

  private confirm(confirmed: SubscriptionConfirmed, frames: Frames<SubscribeResponse>): void {
    const interval = confirmed.heartbeatInterval ? durationMs(confirmed.heartbeatInterval) : 0;
    if (interval > 0) this.silence = frames.silence = 3 * interval;
    if (confirmed.unknownAccounts.length > 0) {
      this.settings.logger.warn(`the gateway does not have these accounts: ${confirmed.unknownAccounts.join(", ")}`);
    }
    if (this.request.until.case !== "untilHead") return;
    if (confirmed.head === undefined) this.complete = true; // the log is empty
    else this.request.until = { case: "untilToken", value: confirmed.head.token };
  }

  private async store(now: boolean): Promise<void> {
    const { checkpoint } = this.options;
    if (checkpoint === undefined || this.handled === undefined || this.handled === this.stored) return;
    if (!now && performance.now() - this.storedAt < storePause && this.storedAt > 0) return;
    const token = this.handled;
    await checkpoint.store(token);
    this.stored = token;
    this.storedAt = performance.now();
  }
}

function gapError(gap: Gap, token: string): LinksgateError {
  return gap.reason === GapReason.EXPIRED
    ? new Expired("notifications have expired", { code: Code.OutOfRange, reason: "EXPIRED", firstAvailableToken: token })
    : new DataLoss("notifications are corrupt", { code: Code.DataLoss, reason: "CORRUPT", firstAvailableToken: token });
}
