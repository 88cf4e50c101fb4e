// Takes part in the group "sms". Create it first: linksgate group create sms --kind sms-received --ordering by-sim
import { EverythingIsDown, LinksgateClient, Park } from "linksgate";

const controller = new AbortController();
process.on("SIGTERM", () => controller.abort());
process.on("SIGINT", () => controller.abort());

// Stands for what your service does.
async function answer(iccid, text) {
  console.log(iccid, text);
}

async function handle(d) {
  const { payload } = d.notification;
  if (payload.case !== "smsReceived" || payload.value.text === "") throw new Park("not an SMS with a text");
  try {
    await answer(payload.value.iccid, payload.value.text);
  } catch (error) {
    if (error.code === "ECONNREFUSED") throw new EverythingIsDown(30_000, error.message);
    throw error;
  }
}

await new LinksgateClient("localhost:9090").work("sms", handle, { parallel: 8, signal: controller.signal });
