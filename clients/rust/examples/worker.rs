//! Takes part in the group "sms". Create it first:
//! linksgate group create sms --kind sms-received --ordering by-sim

use std::time::Duration;

use linksgate::v1::notification::Payload;
use linksgate::{Client, Delivery, Error, Failure};

#[tokio::main]
async fn main() -> Result<(), Error> {
    Client::new(["localhost:9090"])
        .work("sms", handle)
        .parallel(8)
        .until(async {
            let _ = tokio::signal::ctrl_c().await;
        })
        .run()
        .await
}

async fn handle(d: Delivery) -> Result<(), Failure> {
    let Some(Payload::SmsReceived(sms)) = d.notification.payload else {
        return Err(Failure::Park("not an SMS".into()));
    };
    match answer(&sms.iccid, &sms.text).await {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Err(Failure::EverythingIsDown(Duration::from_secs(30), error.to_string()))
        }
        other => Ok(other?), // an error: it comes again after the group's back-off
    }
}

/// Stands for what your service does.
async fn answer(iccid: &str, text: &str) -> std::io::Result<()> {
    println!("{iccid} {text}");
    Ok(())
}
