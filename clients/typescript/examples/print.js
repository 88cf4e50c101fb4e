// Prints each SMS that a SIM sends, and goes on where it stopped.
import { FileCheckpoint, LinksgateClient, NotificationKind } from "linksgate";

const controller = new AbortController();
process.on("SIGINT", () => controller.abort());

const client = new LinksgateClient("localhost:9090");
for await (const n of client.subscribe({
  checkpoint: new FileCheckpoint("print.token"),
  earliest: true,
  kinds: [NotificationKind.SMS_RECEIVED],
  signal: controller.signal,
})) {
  if (n.payload.case === "smsReceived") console.log(n.payload.value.iccid, n.payload.value.text);
}
