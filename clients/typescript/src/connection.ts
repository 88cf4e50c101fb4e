import { readFile } from "node:fs/promises";
import { isIP } from "node:net";

import type { Interceptor, Transport } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";

/** Version of this client. */
export const version = "0.1.0";

const maxMessage = 64 << 20; // bytes; 512 of the largest notifications fit

/** What is told what happens between streams: `console` is one. */
export interface Logger {
  info(message: string): void;
  warn(message: string): void;
}

/** How to reach the gateways of one log. */
export interface ClientOptions {
  /** `HOST:PORT`, one or several, which are tried one after the other. */
  addresses: string | string[];
  /** Connect with TLS and the system's certificate authorities. */
  tls?: boolean;
  /** PEM certificates to trust instead; read again for each new connection, as are the next two. */
  caFile?: string;
  /** A client certificate, and its key. */
  certFile?: string;
  keyFile?: string;
  /**
   * A bearer token, or what to ask for that of each call. Over plain text it is refused, unless all
   * addresses are of the loopback interface.
   */
  token?: string | (() => string | Promise<string>);
  /** The file that holds the bearer token. It is read for each call. */
  tokenFile?: string;
  /** Default: nothing is told. */
  logger?: Logger;
  /** Of Connect, for example OpenTelemetry's. */
  interceptors?: Interceptor[];
}

/** Options that were checked. */
export class Settings {
  readonly addresses: string[];
  readonly tls: boolean;
  readonly logger: Logger;

  constructor(readonly options: ClientOptions) {
    this.addresses = typeof options.addresses === "string" ? [options.addresses] : options.addresses;
    this.tls = Boolean(options.tls || options.caFile || options.certFile);
    this.logger = options.logger ?? { info: () => {}, warn: () => {} };
    if (this.addresses.length === 0) throw new TypeError("no address");
    for (const address of this.addresses) {
      const [, host] = /^(.+):\d+$/.exec(address) ?? [];
      if (host === undefined) throw new TypeError(`${JSON.stringify(address)} is not HOST:PORT`);
      if ((options.token || options.tokenFile) && !this.tls && !isLoopback(host)) {
        throw new TypeError(`a token would go to ${address} in plain text; use TLS`);
      }
    }
  }

  private async token(): Promise<string | undefined> {
    const { token, tokenFile } = this.options;
    if (tokenFile !== undefined) return (await readFile(tokenFile, "utf8")).trim();
    return typeof token === "function" ? token() : token;
  }

  /** A new connection, with what the files hold now. */
  async connect(address: string): Promise<Connection> {
    const { caFile, certFile, keyFile } = this.options;
    const read = async (file?: string) => (file === undefined ? undefined : readFile(file));
    const [ca, cert, key] = await Promise.all([read(caFile), read(certFile), read(keyFile)]);
    const given = { ca, cert, key };
    const nodeOptions = Object.fromEntries(Object.entries(given).filter(([, value]) => value));
    const baseUrl = `${this.tls ? "https" : "http"}://${address}`;
    const sessionManager = new Http2SessionManager(
      baseUrl,
      { pingIntervalMs: 30_000, pingTimeoutMs: 10_000 },
      nodeOptions,
    );
    const identify: Interceptor = (next) => async (request) => {
      request.header.set("User-Agent", `linksgate-typescript/${version}`);
      const token = await this.token();
      if (token) request.header.set("Authorization", `Bearer ${token}`);
      return next(request);
    };
    const transport = createGrpcTransport({
      baseUrl,
      sessionManager,
      nodeOptions,
      readMaxBytes: maxMessage,
      interceptors: [...(this.options.interceptors ?? []), identify],
    });
    return { transport, close: () => sessionManager.abort() };
  }
}

function isLoopback(host: string): boolean {
  const bare = host.replace(/^\[|\]$/g, "");
  return bare === "localhost" || bare === "::1" || (isIP(bare) === 4 && bare.startsWith("127."));
}

/** A connection to one gateway. */
export interface Connection {
  transport: Transport;
  close(): void;
}

/** The connection of one subscription or worker: to one gateway at a time. */
export class Link {
  private connection: Promise<Connection> | undefined;
  private at = 0;

  constructor(readonly settings: Settings) {}

  get(): Promise<Connection> {
    const { addresses } = this.settings;
    this.connection ??= this.settings.connect(addresses[this.at % addresses.length] as string);
    return this.connection;
  }

  /** Leaves a connection for a new one, to the next address; once for each. */
  async next(seen: Connection | undefined): Promise<void> {
    const current = await this.connection?.catch(() => undefined);
    if (current !== seen) return;
    this.at++;
    this.close();
  }

  close(): void {
    this.connection?.then((c) => c.close()).catch(() => {});
    this.connection = undefined;
  }
}

/** Milliseconds before the next try after a number of failures in a row, all of it by chance. */
export function backOff(failures: number): number {
  return 1 + Math.random() * Math.min(100 * 2 ** Math.min(failures, 20), 10_000);
}

/** Resolves after a time, or when a signal aborts. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal?.addEventListener("abort", end);
  });
}
