use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::connection::Client;
use crate::error::Error;
use crate::v1::{ConsumeRequest, LeaseRejection, Notification, lease_rejection::Action};
use crate::worker::Worker;

pub(crate) const MAX_LEASES: usize = 1024; // in flight, and in one call
const MAX_REASON: usize = 1000; // bytes

/// A notification that was leased to this worker.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The notification.
    pub notification: Notification,
    /// Which attempt this is, from 1.
    pub attempt: i32,
}

/// What a handler says of a notification that it did not handle.
#[derive(Debug, Clone, PartialEq)]
pub enum Failure {
    /// It comes again after the group's back-off, for this reason. Any error becomes one.
    Retry(String),
    /// It comes again after this time, up to 24 h, unless its attempts are used up.
    RetryAfter(Duration, String),
    /// It is set aside, for a person to look at.
    Park(String),
    /// Nothing is wrong with it. The whole group is paused for this time, from 1 s to 1 h, and the
    /// attempt does not count.
    EverythingIsDown(Duration, String),
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Retry(error.to_string())
    }
}

/// What becomes of a notification that was not handled; None: it was not begun.
pub(crate) fn rejection(token: String, failure: Option<&Failure>) -> LeaseRejection {
    let after = |d: &Duration| prost_types::Duration::try_from(*d).unwrap_or_default();
    let (reason, action) = match failure {
        None => ("", Some(Action::Release(true))),
        Some(Failure::Retry(reason)) => (reason.as_str(), None),
        Some(Failure::RetryAfter(d, reason)) => {
            (reason.as_str(), Some(Action::RetryAfter(after(d))))
        }
        Some(Failure::Park(reason)) => (reason.as_str(), Some(Action::Park(true))),
        Some(Failure::EverythingIsDown(d, reason)) => {
            let pause = after(d.max(&Duration::from_secs(1)));
            (reason.as_str(), Some(Action::PauseGroup(pause)))
        }
    };
    let end = (0..=reason.len().min(MAX_REASON)).rev().find(|&i| reason.is_char_boundary(i));
    LeaseRejection { lease_token: token, reason: reason[..end.unwrap_or(0)].to_owned(), action }
}

type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;
pub(crate) type Handling = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;
pub(crate) type Handler = Arc<dyn Fn(Delivery) -> Handling + Send + Sync>;

/// Work in a group. [`Work::run`] begins.
///
/// What the handler returns `Ok` for is acknowledged, and does not come again. When a lease is lost the
/// handler's future is dropped, and another worker may have the notification.
pub struct Work<F> {
    client: Client,
    group: String,
    handler: F,
    parallel: usize,
    grace: Duration,
    heartbeat: Duration,
    client_name: String,
    stop: BoxFuture,
}

impl<F> Work<F> {
    pub(crate) fn new(client: Client, group: String, handler: F) -> Self {
        Self {
            client,
            group,
            handler,
            parallel: 4,
            grace: Duration::from_secs(30),
            heartbeat: Duration::from_secs(10),
            client_name: String::new(),
            stop: Box::pin(std::future::pending()),
        }
    }

    /// How many handlers may run at once, from 1 to 1024; default 4. The worker has up to twice as many
    /// leases.
    pub fn parallel(mut self, n: usize) -> Self {
        self.parallel = n;
        self
    }

    /// How long handlers may take to end when the worker stops; default 30 s. Then they are dropped.
    pub fn grace(mut self, d: Duration) -> Self {
        self.grace = d;
        self
    }

    /// Stops the worker when this is ready.
    pub fn until(mut self, stop: impl Future<Output = ()> + Send + 'static) -> Self {
        self.stop = Box::pin(stop);
        self
    }

    /// As of a subscription.
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.heartbeat = interval;
        self
    }

    /// Is shown by the gateway. At most 100 bytes of printable ASCII.
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.client_name = name.into();
        self
    }

    /// Is a member of the group until it is stopped, or what coming back cannot mend. Either way it
    /// begins nothing more, lets handlers end within the grace time, and settles what they did.
    pub async fn run<R>(self) -> Result<(), Error>
    where
        F: Fn(Delivery) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        self.client.check()?;
        if !(1..=MAX_LEASES).contains(&self.parallel) {
            let text = format!("parallel is {}; it must be from 1 to {MAX_LEASES}", self.parallel);
            return Err(Error::Options(text));
        }
        let handler = self.handler;
        let handler: Handler = Arc::new(move |delivery| Box::pin(handler(delivery)));
        let request = ConsumeRequest {
            group_name: self.group,
            max_in_flight: (2 * self.parallel).min(MAX_LEASES) as i32,
            heartbeat_interval: crate::connection::to_proto(self.heartbeat),
            client_name: self.client_name,
        };
        Worker::new(self.client, request, handler, self.parallel, self.grace, 3 * self.heartbeat)
            .run(self.stop)
            .await
    }
}
