import { ConnectError } from "@connectrpc/connect";

import { askedDelay, final, type LinksgateError } from "./errors.js";

const readAhead = 2; // frames

/** No frame came for three heartbeat intervals. */
export class Silence extends Error {}

/** How a stream ended. */
export class End {
  cause: string | undefined;
  fatal: LinksgateError | Error | undefined;
  delay = 0; // ms
  progressed = false;

  by(error: unknown): void {
    this.fatal = final(error);
    this.delay = Math.max(this.delay, askedDelay(error));
    this.cause =
      error === undefined
        ? "the gateway ended the stream"
        : error instanceof ConnectError || error instanceof Error
          ? error.message
          : String(error);
  }
}

/**
 * Reads frames ahead, within a bound. Only the wait for a frame is timed: a handler that is slow
 * says nothing about the gateway.
 */
export class Frames<T> {
  private readonly queue: T[] = [];
  private ended = false;
  private wake: () => void = () => {};
  private room: () => void = () => {};
  /** Why the stream ended; undefined: with OK. */
  error: unknown;

  constructor(
    stream: AsyncIterable<T>,
    private readonly abort: AbortController,
    public silence: number,
  ) {
    void this.read(stream[Symbol.asyncIterator]());
  }

  private async read(stream: AsyncIterator<T>): Promise<void> {
    try {
      for (;;) {
        let timer: NodeJS.Timeout | undefined;
        const silent = new Promise<never>((_, reject) => {
          timer = setTimeout(() => {
            reject(new Silence(`no frame came for ${this.silence} ms`));
            this.abort.abort();
          }, this.silence);
        });
        const step = stream.next();
        step.catch(() => {}); // when it loses the race
        const { done, value } = await Promise.race([step, silent]).finally(() => clearTimeout(timer));
        if (done) break;
        this.queue.push(value);
        this.wake();
        while (this.queue.length >= readAhead && !this.abort.signal.aborted) {
          await new Promise<void>((resolve) => {
            this.room = resolve;
          });
        }
      }
    } catch (error) {
      this.error = error;
    }
    this.ended = true;
    this.wake();
  }

  /** The next frame; "late" if none came in time; undefined at the end. */
  async get(timeout?: number): Promise<T | "late" | undefined> {
    if (this.queue.length === 0 && !this.ended) {
      let timer: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        this.wake = resolve;
        if (timeout !== undefined) timer = setTimeout(resolve, timeout);
      });
      clearTimeout(timer);
    }
    const frame = this.queue.shift();
    this.room();
    if (frame !== undefined) return frame;
    return this.ended ? undefined : "late";
  }

  close(): void {
    this.abort.abort();
    this.room();
  }
}
