// Writes each SMS into a database, exactly once: the resume token is stored in the transaction of the row.
import Database from "better-sqlite3";
import { LinksgateClient, NotificationKind } from "linksgate";

const database = new Database("sms.db");
database.exec(`CREATE TABLE IF NOT EXISTS sms (id TEXT PRIMARY KEY, iccid TEXT, text TEXT);
  CREATE TABLE IF NOT EXISTS position (one INTEGER PRIMARY KEY, token TEXT)`);
const insert = database.prepare("INSERT INTO sms VALUES (?, ?, ?)");
const move = database.prepare("INSERT OR REPLACE INTO position VALUES (1, ?)");
const store = database.transaction((n, sms) => {
  insert.run(n.id, sms.iccid, sms.text);
  move.run(n.token);
});

const client = new LinksgateClient("localhost:9090");
for await (const n of client.subscribe({
  after: database.prepare("SELECT token FROM position").pluck().get(),
  earliest: true,
  kinds: [NotificationKind.SMS_RECEIVED],
})) {
  if (n.payload.case === "smsReceived") store(n, n.payload.value);
}
