//! Reads notifications from a Linksgate gateway, and works on them in groups.
//!
//! ```no_run
//! use futures_util::StreamExt;
//! use linksgate::{Client, FileCheckpoint, v1::NotificationKind};
//!
//! # async fn example() -> Result<(), linksgate::Error> {
//! let client = Client::new(["localhost:9090"]);
//! let subscription = client
//!     .subscribe()
//!     .checkpoint(FileCheckpoint::new("sms.token"))
//!     .earliest()
//!     .kinds([NotificationKind::SmsReceived])
//!     .stream();
//! let mut subscription = std::pin::pin!(subscription);
//! while let Some(notification) = subscription.next().await {
//!     println!("{}", notification?.content_digest);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A notification counts as handled when the next one is polled for. Over broken connections, frozen and
//! restarted gateways the subscription comes back and goes on after the last one that was handled.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod checkpoint;
mod connection;
mod error;
mod frames;
mod subscribe;
mod work;
mod worker;

pub use checkpoint::{Checkpoint, FileCheckpoint, MemoryCheckpoint};
pub use connection::Client;
pub use error::{Error, Refusal};
pub use subscribe::Subscribe;
pub use work::{Delivery, Failure, Work};

/// The messages of the API, and clients of its services, as they are generated.
#[allow(missing_docs, clippy::all, rustdoc::all)]
pub mod v1 {
    tonic::include_proto!("linksgate.v1");
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
