//! Writes each SMS into a database, exactly once: the resume token is stored in the transaction of the
//! row.

use futures_util::StreamExt;
use linksgate::Client;
use linksgate::v1::{NotificationKind, notification::Payload};
use rusqlite::{Connection, OptionalExtension, params};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut database = Connection::open("sms.db")?;
    database.execute_batch(
        "CREATE TABLE IF NOT EXISTS sms (id TEXT PRIMARY KEY, iccid TEXT, text TEXT);
         CREATE TABLE IF NOT EXISTS position (one INTEGER PRIMARY KEY, token TEXT)",
    )?;
    let token: Option<String> =
        database.query_row("SELECT token FROM position", [], |row| row.get(0)).optional()?;
    let mut options = Client::new(["localhost:9090"])
        .subscribe()
        .earliest()
        .kinds([NotificationKind::SmsReceived]);
    if let Some(token) = token {
        options = options.after(token);
    }
    let mut subscription = std::pin::pin!(options.stream());
    while let Some(notification) = subscription.next().await {
        let n = notification?;
        let Some(Payload::SmsReceived(sms)) = n.payload else { continue };
        let transaction = database.transaction()?;
        let row = params![n.id, sms.iccid, sms.text];
        transaction.execute("INSERT INTO sms VALUES (?, ?, ?)", row)?;
        transaction.execute("INSERT OR REPLACE INTO position VALUES (1, ?)", [n.token])?;
        transaction.commit()?;
    }
    Ok(())
}
