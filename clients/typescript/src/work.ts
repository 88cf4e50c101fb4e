import { create } from "@bufbuild/protobuf";
import { durationFromMs, durationMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { type CallOptions, type Client, createClient } from "@connectrpc/connect";

import { backOff, type Connection, Link, type Settings, sleep } from "./connection.js";
import { final } from "./errors.js";
import { ClosingReason } from "./gen/linksgate/v1/closing_pb.js";
import type { Notification } from "./gen/linksgate/v1/notification_pb.js";
import {
  type ConsumeRequest,
  ConsumeRequestSchema,
  type GroupJoined,
  type Lease,
  LeaseOutcome,
  type LeaseResult,
  WorkerService,
} from "./gen/linksgate/v1/worker_service_pb.js";
import { HandlersCutOff, rejectionOf } from "./outcomes.js";
import { End, Frames } from "./streams.js";

const maxLeases = 1024; // in flight, and in one call
const callTime = 10_000; // ms for a call that settles or extends leases
const settleTime = 5_000; // to settle what is left when the grace time is over
const leaveTime = 2_000; // for the gateway to end the stream of a member that leaves
const newlyJoined = 2_000; // how long "the lease is over" may be older than a new lease
const doubtTime = 500;

/** A notification that was leased to this worker. */
export interface Delivery {
  notification: Notification;
  /** From 1. */
  attempt: number;
}

/**
 * Handles a notification. The signal aborts when the lease is lost, or the grace time is over: then
 * what the handler says counts for nothing.
 */
export type Handler = (delivery: Delivery, signal: AbortSignal) => Promise<void> | void;

/** How to work. */
export interface WorkOptions {
  /** How many handlers may run at once, from 1 to 1024; default 4. */
  parallel?: number;
  /** Milliseconds that handlers may take to end when the worker stops; default 30000. */
  grace?: number;
  /** Stops the worker gracefully. */
  signal?: AbortSignal;
  /** As for a subscription. */
  heartbeat?: number;
  clientName?: string;
}

/** A notification between being leased and being settled. */
class Job {
  state: "waiting" | "running" | "finished" = "waiting";
  readonly abort = new AbortController();
  error: unknown;
  failed = false;
  released = false; // it was not begun
  lost = false; // the lease is over
  doubted = false;
  next: Lease | undefined; // came while this was handled or settled
  extendAt = 0;
  token = "";
  expires = 0; // by performance.now()
  readonly delivery: Delivery;

  constructor(lease: Lease) {
    this.delivery = { notification: lease.notification as Notification, attempt: lease.attempt };
    this.adopt(lease);
  }

  get id(): string {
    return this.delivery.notification.id;
  }

  get acknowledges(): boolean {
    return !this.released && !this.failed;
  }

  adopt(lease: Lease): void {
    this.token = lease.leaseToken;
    this.expires = localTime(lease);
    this.doubted = false;
  }
}

function localTime(lease: { expiresAt?: Lease["expiresAt"] }): number {
  return performance.now() + (lease.expiresAt ? timestampMs(lease.expiresAt) - Date.now() : 0);
}

/**
 * A member of a group, over any number of streams.
 *
 * A notification that it was leased is a job: it waits for its turn, is handled, and is settled,
 * which is to tell the gateway and hear that it knows. Jobs that wait are dropped when the stream
 * breaks, because the gateway then gives them to others. Those that were begun go on, and are
 * settled with whichever gateway answers.
 */
export class Worker {
  private readonly link: Link;
  private readonly request: ConsumeRequest;
  private readonly parallel: number;
  private readonly jobs = new Map<string, Job>();
  private waiting: Job[] = [];
  private finished: Job[] = [];
  private readonly handlers = new Set<Promise<void>>();
  private running = 0;
  private wakeSettler: () => void = () => {};
  private lease = 30_000;
  private member = "";
  private joinedAt = 0;
  private leaving = false;
  private holding = false; // what is given back now would come again at once
  private readonly over = new AbortController(); // of everything in the background

  constructor(
    private readonly settings: Settings,
    private readonly group: string,
    private readonly handler: Handler,
    private readonly options: WorkOptions,
  ) {
    this.parallel = options.parallel ?? 4;
    if (!(this.parallel >= 1 && this.parallel <= maxLeases)) {
      throw new RangeError(`parallel is ${this.parallel}; it must be from 1 to ${maxLeases}`);
    }
    this.link = new Link(settings);
    this.request = create(ConsumeRequestSchema, {
      groupName: group,
      maxInFlight: Math.min(2 * this.parallel, maxLeases),
      heartbeatInterval: durationFromMs(options.heartbeat ?? 10_000),
      clientName: options.clientName ?? "",
    });
  }

  async run(): Promise<void> {
    const { signal } = this.options;
    let fatal: unknown;
    const streaming = this.stream().catch((error: unknown) => {
      fatal = error;
    });
    const background = [this.settleAll(), this.extendAll()];
    const stopping = new Promise<void>((resolve) => {
      if (signal?.aborted) resolve();
      signal?.addEventListener("abort", () => resolve(), { once: true });
    });
    await Promise.race([streaming, stopping]);
    let cut = 0;
    try {
      if (signal?.aborted) {
        await this.leave();
        await Promise.race([streaming, sleep(leaveTime)]);
      }
      this.stopBeginning();
      cut = await this.awaitHandlers();
      await this.awaitSettled();
    } finally {
      this.over.abort();
      this.wakeSettler();
      await Promise.all([streaming, ...background]);
      this.link.close();
    }
    if (fatal) throw fatal;
    if (cut > 0) throw new HandlersCutOff(`${cut} handlers took longer than the grace time`);
  }

  private async leave(): Promise<void> {
    this.leaving = this.holding = true;
    if (this.member !== "") {
      try {
        const request = { groupName: this.group, memberId: this.member };
        await this.call((client, options) => client.leave(request, options), leaveTime);
      } catch (error) {
        // The gateway is gone, and with it the membership.
        this.settings.logger.info(`leaving without the gateway's word: ${String(error)}`);
      }
    }
    this.holding = false;
    this.stopBeginning();
  }

  private stopBeginning(): void {
    this.leaving = true;
    this.releaseWaiting();
    this.wakeSettler();
  }

  private releaseWaiting(): void {
    for (const job of this.waiting) {
      job.state = "finished";
      job.released = true;
      this.finished.push(job);
    }
    this.waiting = [];
  }

  /** Waits until nothing is handled any more, and returns how many handlers were cut off. */
  private async awaitHandlers(): Promise<number> {
    const ended = Promise.all([...this.handlers]).then(() => true as const);
    const late = (ms: number) => sleep(ms).then(() => false as const);
    if (await Promise.race([ended, late(this.options.grace ?? 30_000)])) return 0;
    const cut = this.running;
    for (const job of this.jobs.values()) if (job.state === "running") job.abort.abort();
    await Promise.race([ended, late(settleTime)]);
    for (const job of this.jobs.values()) {
      if (job.state !== "running") continue;
      this.finish(job, new HandlersCutOff("the grace time is over"));
    }
    return cut;
  }

  private async awaitSettled(): Promise<void> {
    const deadline = performance.now() + settleTime;
    while (this.jobs.size > 0) {
      if (performance.now() > deadline) {
        throw new Error(`the gateway could not be told of ${this.jobs.size} notifications: they come again`);
      }
      this.wakeSettler();
      await sleep(10);
    }
  }

  // Streams.

  private async stream(): Promise<void> {
    for (let failures = 0; ; failures++) {
      const end = new End();
      await this.streamOnce(end);
      if (end.fatal) throw end.fatal;
      if (this.leaving || this.over.signal.aborted) return;
      if (end.progressed) failures = 0;
      const delay = Math.max(end.delay, backOff(failures));
      this.settings.logger.info(`joining ${this.group} again in ${Math.round(delay)} ms: ${end.cause}`);
      await sleep(delay, this.over.signal);
    }
  }

  private async streamOnce(end: End): Promise<void> {
    let connection: Connection | undefined;
    const abort = new AbortController();
    const stop = () => abort.abort();
    this.over.signal.addEventListener("abort", stop);
    let planned = false;
    try {
      connection = await this.link.get();
      const client = createClient(WorkerService, connection.transport);
      const silence = 3 * (this.options.heartbeat ?? 10_000);
      const frames = new Frames(client.consume(this.request, { signal: abort.signal }), abort, silence);
      for (;;) {
        const response = await frames.get();
        if (response === undefined || response === "late") {
          if (end.cause === undefined) end.by(frames.error);
          break;
        }
        end.progressed = true;
        const { frame } = response;
        if (frame.case === "joined") this.joined(frame.value);
        else if (frame.case === "leases") this.takeAll(frame.value.leases);
        else if (frame.case === "closing") {
          planned = frame.value.reason !== ClosingReason.GROUP_MOVED;
          end.delay = frame.value.reconnectAfter ? durationMs(frame.value.reconnectAfter) : 0;
          end.cause = "the gateway ends the stream";
        }
      }
    } catch (error) {
      end.cause = String(error);
    } finally {
      this.over.signal.removeEventListener("abort", stop);
      abort.abort();
    }
    this.parted(planned);
    if (!this.leaving) await this.link.next(connection);
  }

  private joined(joined: GroupJoined): void {
    this.member = joined.memberId;
    this.joinedAt = performance.now();
    const duration = joined.group?.leaseDuration;
    if (duration) this.lease = durationMs(duration);
    // Whether they are still ours is for the gateway to say.
    for (const job of this.jobs.values()) job.extendAt = this.joinedAt;
  }

  /** Without a planned end, what was not begun has gone back to the group. */
  private parted(planned: boolean): void {
    this.member = "";
    if (planned) return;
    for (const job of this.waiting) this.jobs.delete(job.id);
    this.waiting = [];
  }

  private takeAll(leases: Lease[]): void {
    for (const lease of leases) this.take(lease);
    if (this.leaving) {
      this.releaseWaiting();
      this.wakeSettler();
    }
    this.begin();
  }

  /**
   * Adds a job. A notification that is one already was leased to us again because the gateway did
   * not know that it is ours: then the job settles the new lease.
   */
  private take(lease: Lease): void {
    let job = this.jobs.get(lease.notification?.id ?? "");
    if (job === undefined) {
      job = new Job(lease);
      this.jobs.set(job.id, job);
      this.waiting.push(job);
    } else if (job.lost || job.state === "finished") {
      job.next = lease;
      return;
    } else {
      job.adopt(lease);
    }
    job.extendAt = performance.now() + this.half(job);
  }

  /**
   * How long a lease goes until its middle. The gateway's clock may differ from ours, so the shorter
   * of what both say counts.
   */
  private half(job: Job): number {
    return Math.min(Math.max(job.expires - performance.now(), 1000), this.lease) / 2;
  }

  // Handlers.

  private begin(): void {
    while (this.waiting.length > 0 && this.running < this.parallel && !this.leaving) {
      const job = this.waiting.shift() as Job;
      job.state = "running";
      this.running++;
      const handling = (async () => this.handler(job.delivery, job.abort.signal))()
        .then(
          () => this.ended(job, undefined, false),
          (error: unknown) => this.ended(job, error, true),
        )
        .finally(() => this.handlers.delete(handling));
      this.handlers.add(handling);
    }
  }

  private ended(job: Job, error: unknown, failed: boolean): void {
    this.running--;
    if (job.state === "running") this.finish(job, error, failed);
    this.begin();
  }

  private finish(job: Job, error: unknown, failed = true): void {
    job.state = "finished";
    job.error = error;
    job.failed = failed;
    if (job.lost) this.forget(job);
    else this.finished.push(job);
    this.wakeSettler();
  }

  private forget(job: Job): void {
    this.jobs.delete(job.id);
    if (job.next) this.take(job.next);
  }

  // Settling.

  private async settleAll(): Promise<void> {
    for (let failures = 0; !this.over.signal.aborted; ) {
      if (this.finished.length === 0 || this.holding) {
        await new Promise<void>((resolve) => {
          this.wakeSettler = resolve;
        });
        continue;
      }
      const jobs = this.finished.splice(0, maxLeases);
      jobs.sort((a, b) => Number(!a.acknowledges) - Number(!b.acknowledges));
      if (await this.settle(jobs)) {
        failures = 0;
        continue;
      }
      await sleep(Math.min(10 + backOff(failures++), 1000), this.over.signal);
    }
  }

  private async call<T>(
    make: (client: Client<typeof WorkerService>, options: CallOptions) => Promise<T>,
    timeoutMs: number,
  ): Promise<T> {
    const { transport } = await this.link.get();
    return make(createClient(WorkerService, transport), { timeoutMs });
  }

  private async settle(jobs: Job[]): Promise<boolean> {
    const groupName = this.group;
    const leaseTokens = jobs.filter((j) => j.acknowledges).map((j) => j.token);
    const rejections = jobs.filter((j) => !j.acknowledges).map((j) => rejectionOf(j.token, j.error, j.released));
    const results: LeaseResult[] = [];
    let refused = false;
    let connection: Connection | undefined;
    try {
      connection = await this.link.get();
      if (leaseTokens.length > 0) {
        const answer = await this.call((c, o) => c.acknowledge({ groupName, leaseTokens }, o), callTime);
        results.push(...answer.results);
      }
      if (rejections.length > 0) {
        const answer = await this.call((c, o) => c.reject({ groupName, rejections }, o), callTime);
        results.push(...answer.results);
      }
    } catch (error) {
      refused = final(error) !== undefined;
      this.settings.logger.warn(`leases of ${this.group} not settled: ${String(error)}`);
      // Nobody else looks for a gateway that answers.
      if (this.member === "" && !refused) await this.link.next(connection);
    }
    let done = true;
    jobs.forEach((job, i) => {
      // When the group is gone there is nothing to settle.
      const otherwise = refused ? LeaseOutcome.INVALID : LeaseOutcome.UNAVAILABLE;
      if (!this.settled(job, results[i]?.outcome ?? otherwise)) done = false;
    });
    this.begin();
    return done;
  }

  /** Takes in what the gateway said of a job: false if it is to be settled again. */
  private settled(job: Job, said: LeaseOutcome): boolean {
    const unavailable = said === LeaseOutcome.UNAVAILABLE;
    if (said === LeaseOutcome.OK) {
      if (job.acknowledges) job.next = undefined;
      this.forget(job); // for another attempt, if it came
      return true;
    }
    if (!unavailable && job.next) {
      job.adopt(job.next); // leased to us again, as it was not known
      job.next = undefined;
    } else if (!(unavailable && performance.now() < job.expires + this.lease) && !this.doubt(job, said)) {
      if (!job.released) this.settings.logger.warn(`${job.id} was settled too late: it comes again`);
      this.jobs.delete(job.id);
      return true;
    }
    this.finished.push(job);
    return false;
  }

  /**
   * Whether to ask again before a lease counts as over. A gateway that was restarted leases to a
   * member, as soon as it has joined, what the member is working on; the word of that may come after
   * the word that the lease before it is over.
   */
  private doubt(job: Job, said: LeaseOutcome): boolean {
    const longAgo = this.member !== "" && performance.now() - this.joinedAt > newlyJoined;
    if (said !== LeaseOutcome.STALE || job.doubted || longAgo || this.leaving) return false;
    job.doubted = true;
    return true;
  }

  private async extendAll(): Promise<void> {
    while (!this.over.signal.aborted) {
      await sleep(50, this.over.signal);
      const now = performance.now();
      const due = [...this.jobs.values()].filter((j) => j.state !== "finished" && !j.lost && now >= j.extendAt);
      if (due.length > 0) await this.extend(due.slice(0, maxLeases));
    }
  }

  private async extend(jobs: Job[]): Promise<void> {
    const leaseTokens = jobs.map((j) => j.token);
    let results: LeaseResult[] = [];
    try {
      const request = { groupName: this.group, leaseTokens };
      results = (await this.call((c, o) => c.extendLeases(request, o), callTime)).results;
    } catch (error) {
      this.settings.logger.warn(`leases of ${this.group} not extended: ${String(error)}`);
    }
    const now = performance.now();
    jobs.forEach((job, i) => {
      if (this.jobs.get(job.id) !== job || job.state === "finished" || job.token !== leaseTokens[i]) return;
      const result = results[i];
      if (result?.outcome === LeaseOutcome.OK) {
        job.expires = localTime(result);
        job.extendAt = now + this.half(job);
      } else if (result === undefined || result.outcome === LeaseOutcome.UNAVAILABLE) {
        job.extendAt = now + Math.max(this.lease / 16, 50);
      } else if (this.doubt(job, result.outcome)) {
        job.extendAt = now + doubtTime;
      } else {
        this.lose(job);
      }
    });
  }

  private lose(job: Job): void {
    if (job.state === "waiting") {
      this.waiting = this.waiting.filter((other) => other !== job);
      this.jobs.delete(job.id);
      return;
    }
    this.settings.logger.warn(`the lease of ${job.id} is over: another worker may have it`);
    job.lost = true;
    job.abort.abort();
  }
}
