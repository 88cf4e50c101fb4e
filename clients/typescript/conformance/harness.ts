// The TypeScript harness of the conformance suite; see ../../conformance/README.md.
import { createInterface } from "node:readline";

import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

import { NotificationService } from "../src/gen/linksgate/v1/notification_service_pb.js";
import * as linksgate from "../src/index.js";

const controller = new AbortController();
const { signal } = controller;
process.on("SIGTERM", () => controller.abort());

function say(event: string, members: Record<string, unknown>): void {
  process.stdout.write(JSON.stringify({ event, ...members }) + "\n");
}

function wait(ms: number, until?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    until?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new Error("aborted"));
    });
  });
}

// The order is what the suite says it is.
type Order = any;

function textOf(n: linksgate.Notification): { iccid: string; text: string } {
  return n.payload.case === "smsReceived" ? n.payload.value : { iccid: "", text: "" };
}

async function subscribe(client: linksgate.LinksgateClient, o: Order): Promise<void> {
  const start: string = o.start ?? "latest";
  const kinds = (o.kinds ?? []).map((k: string) => linksgate.NotificationKind[k as keyof typeof linksgate.NotificationKind]);
  let count = 0;
  for await (const n of client.subscribe({
    checkpoint: o.checkpoint ? new linksgate.FileCheckpoint(o.checkpoint) : undefined,
    after: start.startsWith("after:") ? start.slice("after:".length) : undefined,
    earliest: start === "earliest",
    untilHead: o.until_head ?? false,
    kinds,
    accounts: o.accounts ?? [],
    iccids: o.iccids ?? [],
    continueAfterGaps: o.on_gap === "continue",
    onGap: (gap) => say("gap", { reason: linksgate.GapReason[gap.reason] }),
    maxBatch: o.max_batch ?? 64,
    heartbeat: o.heartbeat_ms ?? 10_000,
    clientName: o.client_name ?? "",
    signal,
  })) {
    const bytes = n.raw.case === "body" ? Buffer.byteLength(n.raw.value) : (n.raw.value?.length ?? 0);
    say("notification", { id: n.id, sequence: Number(n.sequence), token: n.token, text: textOf(n).text, body_bytes: bytes });
    if (++count === o.fail_at) process.exit(3);
    if (o.handler_ms) await wait(o.handler_ms, signal).catch(() => {});
    say("handled", { id: n.id });
  }
}

async function handle(d: linksgate.Delivery, lease: AbortSignal): Promise<void> {
  const { iccid, text } = textOf(d.notification);
  const { id } = d.notification;
  say("begin", { id, attempt: d.attempt, iccid, text });
  const [word, argument] = text.split(" ");
  const first = d.attempt === 1;
  let outcome = "ok";
  try {
    if (word === "fail" || word === "panic" || (word === "fail-once" && first)) {
      outcome = "fail";
      throw new Error("asked to fail");
    }
    if (word === "park") {
      outcome = "park";
      throw new linksgate.Park("asked to");
    }
    if (word === "retry" && first) {
      outcome = "retry";
      throw new linksgate.RetryAfter(Number(argument));
    }
    if (word === "down" && first) {
      outcome = "down";
      throw new linksgate.EverythingIsDown(Number(argument));
    }
    if (word === "sleep") {
      await wait(Number(argument), lease).catch((error: unknown) => {
        outcome = "cancelled";
        throw error;
      });
    }
  } finally {
    say("end", { id, outcome });
  }
}

async function measure(client: linksgate.LinksgateClient, o: Order): Promise<never> {
  let count = 0;
  let began = 0;
  const handled = () => {
    if (count++ === 0) began = performance.now();
  };
  if (o.mode === "replay") {
    for await (const _ of client.subscribe({ earliest: true, untilHead: true, maxBatch: o.max_batch })) handled();
  } else {
    const transport = createGrpcTransport({ baseUrl: `http://${o.addresses[0]}` });
    const request = {
      start: { position: { case: "earliest", value: true } },
      until: { case: "untilHead", value: true },
      maxBatch: o.max_batch,
    } as const;
    for await (const { frame } of createClient(NotificationService, transport).subscribe(request)) {
      if (frame.case === "batch") for (const _ of frame.value.notifications) handled();
    }
  }
  say("stopped", { error: "", count, seconds: (performance.now() - began) / 1000 });
  return process.stdout.write("", () => process.exit(0)) as never;
}

async function run(o: Order): Promise<void> {
  const client = new linksgate.LinksgateClient({
    addresses: o.addresses,
    caFile: o.ca_file,
    certFile: o.cert_file,
    keyFile: o.key_file,
    token: o.token,
    tokenFile: o.token_file,
    logger: { info: (m) => console.error(m), warn: (m) => console.error(m) },
  });
  if (o.mode === "replay" || o.mode === "bare") return measure(client, o);
  if (o.mode !== "work") return subscribe(client, o);
  return client.work(o.group, handle, {
    parallel: o.parallel ?? 4,
    grace: o.grace_ms ?? 30_000,
    heartbeat: o.heartbeat_ms ?? 10_000,
    clientName: o.client_name ?? "",
    signal,
  });
}

const lines = createInterface({ input: process.stdin });
let begun = false;
lines.on("line", (line) => {
  if (begun) {
    if (line.includes('"stop"')) controller.abort();
    return;
  }
  begun = true;
  run(JSON.parse(line))
    .then(() => undefined, (error: unknown) => error)
    .then((error) => {
      const typed = error instanceof linksgate.LinksgateError;
      say("stopped", {
        error: error === undefined ? "" : typed ? error.name : "Other",
        detail: error === undefined ? "" : String(error),
        first_available_token: typed ? error.firstAvailableToken : "",
      });
      process.exitCode = 0;
      process.stdout.write("", () => process.exit(0));
    });
});
