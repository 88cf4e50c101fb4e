//! The Rust harness of the conformance suite; see ../../conformance/README.md.

use std::io::Write;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use linksgate::v1::notification_service_client::NotificationServiceClient;
use linksgate::v1::subscribe_request::Until;
use linksgate::v1::subscribe_response::Frame;
use linksgate::v1::{NotificationKind, Start, SubscribeRequest};
use linksgate::v1::{notification::Payload, notification::Raw, start::Position};
use linksgate::{Client, Delivery, Error, Failure, FileCheckpoint};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};
use tokio::sync::watch;

fn say(event: Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{event}");
    let _ = out.flush();
}

fn text<'a>(o: &'a Value, member: &str) -> &'a str {
    o[member].as_str().unwrap_or_default()
}

fn list(o: &Value, member: &str) -> Vec<String> {
    let all = o[member].as_array().cloned().unwrap_or_default();
    all.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

fn ms(o: &Value, member: &str, otherwise: u64) -> Duration {
    Duration::from_millis(o[member].as_u64().unwrap_or(otherwise))
}

#[tokio::main]
async fn main() {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let line = lines.next_line().await.ok().flatten().unwrap_or_default();
    let o: Value = serde_json::from_str(&line).expect("an order");
    if matches!(text(&o, "mode"), "replay" | "bare") {
        measure(&o).await;
    }
    let stop = stopping(lines);
    let result = match text(&o, "mode") {
        "work" => work(&o, stop).await,
        _ => subscribe(&o, stop).await,
    };
    let name = match &result {
        Ok(()) => "",
        Err(Error::Expired(_)) => "Expired",
        Err(Error::DataLoss(_)) => "DataLoss",
        Err(Error::OtherLog(_)) => "OtherLog",
        Err(Error::InvalidRequest(_)) => "InvalidRequest",
        Err(Error::PermissionDenied(_)) => "PermissionDenied",
        Err(Error::NotFound(_)) => "NotFound",
        Err(Error::Unsupported(_)) => "Unsupported",
        Err(_) => "Other",
    };
    let error = result.err();
    let refusal = error.as_ref().and_then(Error::refusal);
    say(json!({
        "event": "stopped", "error": name, "detail": error.as_ref().map(ToString::to_string).unwrap_or_default(),
        "first_available_token": refusal.map(|r| r.first_available_token.clone()).unwrap_or_default(),
    }));
    std::process::exit(0);
}

async fn measure(o: &Value) -> ! {
    let most = o["max_batch"].as_u64().unwrap_or(64) as u16;
    let (mut count, mut began) = (0u64, Instant::now());
    if text(o, "mode") == "replay" {
        let mut stream =
            pin!(client(o).subscribe().earliest().until_head().max_batch(most).stream());
        while let Some(notification) = stream.next().await {
            notification.expect("a notification");
            count += 1;
            if count == 1 {
                began = Instant::now();
            }
        }
    } else {
        let address = format!("http://{}", list(o, "addresses")[0]);
        let mut stub = NotificationServiceClient::connect(address)
            .await
            .expect("a connection")
            .max_decoding_message_size(64 << 20);
        let request = SubscribeRequest {
            start: Some(Start { position: Some(Position::Earliest(true)) }),
            until: Some(Until::UntilHead(true)),
            max_batch: most.into(),
            ..Default::default()
        };
        let mut frames = stub.subscribe(request).await.expect("a stream").into_inner();
        while let Some(response) = frames.message().await.expect("a frame") {
            if let Some(Frame::Batch(batch)) = response.frame {
                if count == 0 {
                    began = Instant::now();
                }
                count += batch.notifications.len() as u64;
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    say(json!({"event": "stopped", "error": "", "count": count, "seconds": seconds}));
    std::process::exit(0);
}

/// Becomes true when the harness is to stop.
fn stopping(mut lines: Lines<BufReader<Stdin>>) -> watch::Receiver<bool> {
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        let kind = tokio::signal::unix::SignalKind::terminate();
        let mut terminated = tokio::signal::unix::signal(kind).expect("a signal handler");
        loop {
            tokio::select! {
                line = lines.next_line() => match line {
                    Ok(Some(line)) if line.contains("\"stop\"") => break,
                    Ok(Some(_)) => {}
                    _ => { terminated.recv().await; break; }
                },
                _ = terminated.recv() => break,
            }
        }
        let _ = stop.send(true);
        std::future::pending::<()>().await;
    });
    stopped
}

fn client(o: &Value) -> Client {
    let mut client = Client::new(list(o, "addresses"));
    if !text(o, "token").is_empty() {
        client = client.token(text(o, "token"));
    }
    if !text(o, "token_file").is_empty() {
        client = client.token_file(text(o, "token_file"));
    }
    if !text(o, "ca_file").is_empty() {
        client = client.ca_file(text(o, "ca_file"));
    }
    if !text(o, "cert_file").is_empty() {
        client = client.certificate(text(o, "cert_file"), text(o, "key_file"));
    }
    client
}

async fn subscribe(o: &Value, mut stop: watch::Receiver<bool>) -> Result<(), Error> {
    let kinds = list(o, "kinds").into_iter().map(|k| {
        NotificationKind::from_str_name(&format!("NOTIFICATION_KIND_{k}")).expect("a kind")
    });
    let mut options = client(o)
        .subscribe()
        .kinds(kinds)
        .accounts(list(o, "accounts"))
        .iccids(list(o, "iccids"))
        .max_batch(o["max_batch"].as_u64().unwrap_or(64) as u16)
        .heartbeat(ms(o, "heartbeat_ms", 10_000))
        .client_name(text(o, "client_name"));
    match text(o, "start") {
        "earliest" => options = options.earliest(),
        start => {
            if let Some(token) = start.strip_prefix("after:") {
                options = options.after(token);
            }
        }
    }
    if !text(o, "checkpoint").is_empty() {
        options = options.checkpoint(FileCheckpoint::new(text(o, "checkpoint")));
    }
    if text(o, "on_gap") == "continue" {
        options = options.continue_after_gaps(|gap| {
            let reason = gap.reason().as_str_name().trim_start_matches("GAP_REASON_");
            say(json!({"event": "gap", "reason": reason}));
        });
    }
    if o["until_head"] == true {
        options = options.until_head();
    }
    let mut stream = pin!(options.stream());
    let mut count = 0;
    loop {
        let next = tokio::select! {
            next = stream.next() => next,
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        let Some(next) = next else { return Ok(()) };
        let n = next?;
        let bytes = match &n.raw {
            Some(Raw::Body(body)) => body.len(),
            Some(Raw::BinaryBody(body)) => body.len(),
            None => 0,
        };
        let sms = match &n.payload {
            Some(Payload::SmsReceived(sms)) => sms.text.as_str(),
            _ => "",
        };
        say(json!({
            "event": "notification", "id": n.id, "sequence": n.sequence, "token": n.token, "text": sms,
            "body_bytes": bytes,
        }));
        count += 1;
        if o["fail_at"].as_u64() == Some(count) {
            std::process::exit(3);
        }
        tokio::select! {
            () = tokio::time::sleep(ms(o, "handler_ms", 0)) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        say(json!({"event": "handled", "id": n.id}));
    }
}

async fn work(o: &Value, mut stop: watch::Receiver<bool>) -> Result<(), Error> {
    client(o)
        .work(text(o, "group"), handle)
        .parallel(o["parallel"].as_u64().unwrap_or(4) as usize)
        .grace(ms(o, "grace_ms", 30_000))
        .heartbeat(ms(o, "heartbeat_ms", 10_000))
        .client_name(text(o, "client_name"))
        .until(async move {
            let _ = stop.wait_for(|stop| *stop).await;
        })
        .run()
        .await
}

/// Says how a handler ended, also when it is dropped.
struct Ending {
    id: String,
    outcome: &'static str,
}

impl Drop for Ending {
    fn drop(&mut self) {
        say(json!({"event": "end", "id": self.id, "outcome": self.outcome}));
    }
}

async fn handle(d: Delivery) -> Result<(), Failure> {
    let sms = match d.notification.payload {
        Some(Payload::SmsReceived(sms)) => sms,
        _ => Default::default(),
    };
    let id = d.notification.id;
    say(
        json!({"event": "begin", "id": id, "attempt": d.attempt, "iccid": sms.iccid, "text": sms.text}),
    );
    let mut ending = Ending { id, outcome: "ok" };
    let (word, argument) = sms.text.split_once(' ').unwrap_or((&sms.text, "0"));
    let lasting = Duration::from_millis(argument.parse().unwrap_or(0));
    let first = d.attempt == 1;
    match word {
        "fail-once" if !first => Ok(()),
        "fail" | "fail-once" => {
            ending.outcome = "fail";
            Err(Failure::Retry("asked to fail".into()))
        }
        "panic" => {
            ending.outcome = "fail";
            panic!("asked to");
        }
        "park" => {
            ending.outcome = "park";
            Err(Failure::Park("asked to".into()))
        }
        "retry" if first => {
            ending.outcome = "retry";
            Err(Failure::RetryAfter(lasting, "asked to".into()))
        }
        "down" if first => {
            ending.outcome = "down";
            Err(Failure::EverythingIsDown(lasting, "asked to".into()))
        }
        "sleep" => {
            ending.outcome = "cancelled";
            tokio::time::sleep(lasting).await;
            ending.outcome = "ok";
            Ok(())
        }
        _ => Ok(()),
    }
}
