//! Prints each SMS that a SIM sends, and goes on where it stopped.

use futures_util::StreamExt;
use linksgate::v1::{NotificationKind, notification::Payload};
use linksgate::{Client, Error, FileCheckpoint};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let subscription = Client::new(["localhost:9090"])
        .subscribe()
        .checkpoint(FileCheckpoint::new("print.token"))
        .earliest()
        .kinds([NotificationKind::SmsReceived])
        .stream();
    let mut subscription = std::pin::pin!(subscription);
    while let Some(notification) = subscription.next().await {
        if let Some(Payload::SmsReceived(sms)) = notification?.payload {
            println!("{} {}", sms.iccid, sms.text);
        }
    }
    Ok(())
}
