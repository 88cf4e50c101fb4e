use std::time::{Duration, Instant, SystemTime};

use async_stream::stream;
use futures_core::Stream;
use tonic::Status;

use crate::checkpoint::Checkpoint;
use crate::connection::{Client, Link, MAX_MESSAGE, back_off, duration, to_proto};
use crate::error::{Error, Refusal, asked_delay, refused};
use crate::frames::Frames;
use crate::v1::notification_service_client::NotificationServiceClient;
use crate::v1::subscribe_request::Until;
use crate::v1::subscribe_response::Frame;
use crate::v1::{
    ClosingReason, Gap, GapPolicy, GapReason, Notification, NotificationFilter, NotificationKind,
    Start, SubscribeRequest, SubscribeResponse, SubscriptionConfirmed, start::Position,
};

type OnGap = Box<dyn FnMut(&Gap) + Send>;

const STORE_PAUSE: Duration = Duration::from_secs(1);

/// What to subscribe to. [`Subscribe::stream`] begins.
pub struct Subscribe {
    client: Client,
    request: SubscribeRequest,
    checkpoint: Option<Box<dyn Checkpoint>>,
    on_gap: Option<OnGap>,
    heartbeat: Duration,
}

impl Subscribe {
    pub(crate) fn new(client: Client) -> Self {
        let request = SubscribeRequest {
            start: Some(Start { position: Some(Position::Latest(true)) }),
            max_batch: 64,
            ..Default::default()
        };
        let heartbeat = Duration::from_secs(10);
        Self { client, request, checkpoint: None, on_gap: None, heartbeat }
    }

    fn start(mut self, position: Position) -> Self {
        self.request.start = Some(Start { position: Some(position) });
        self
    }

    fn filter(&mut self) -> &mut NotificationFilter {
        self.request.filter.get_or_insert_default()
    }

    /// Goes on after the token in a checkpoint, and stores there how far the subscription has come:
    /// at most every second, and when the stream is dropped. Without a token in it the start that was
    /// asked for applies.
    pub fn checkpoint(mut self, checkpoint: impl Checkpoint + 'static) -> Self {
        self.checkpoint = Some(Box::new(checkpoint));
        self
    }

    /// Starts with the oldest notification that is retained; by default with what comes from now on.
    pub fn earliest(self) -> Self {
        self.start(Position::Earliest(true))
    }

    /// Starts after the position of a resume token.
    pub fn after(self, token: impl Into<String>) -> Self {
        self.start(Position::After(token.into()))
    }

    /// Starts with the first notification that was written at or after a time.
    pub fn since(self, time: SystemTime) -> Self {
        self.start(Position::Since(time.into()))
    }

    /// Ends when everything was delivered that the log holds when the subscription begins.
    pub fn until_head(mut self) -> Self {
        self.request.until = Some(Until::UntilHead(true));
        self
    }

    /// Selects notifications of some kinds.
    pub fn kinds(mut self, kinds: impl IntoIterator<Item = NotificationKind>) -> Self {
        self.filter().kinds = kinds.into_iter().map(i32::from).collect();
        self
    }

    /// Selects notifications of some accounts.
    pub fn accounts<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.filter().accounts = names.into_iter().map(Into::into).collect();
        self
    }

    /// Selects notifications about some SIMs.
    pub fn iccids<S: Into<String>>(mut self, iccids: impl IntoIterator<Item = S>) -> Self {
        self.filter().iccids = iccids.into_iter().map(Into::into).collect();
        self
    }

    /// Goes on where notifications have expired or are corrupt, instead of ending with an error; it is
    /// told of each gap, also of what was erased on purpose.
    pub fn continue_after_gaps(mut self, told: impl FnMut(&Gap) + Send + 'static) -> Self {
        self.request.on_gap = GapPolicy::Continue.into();
        self.on_gap = Some(Box::new(told));
        self
    }

    /// How many notifications come in one frame, from 1 to 512; default 64. At most two frames are read
    /// ahead.
    pub fn max_batch(mut self, most: u16) -> Self {
        self.request.max_batch = most.into();
        self
    }

    /// Longest silence on the stream, from 1 s to 10 min; default 10 s. After three of them the
    /// connection counts as dead.
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.heartbeat = interval;
        self
    }

    /// Is shown by the gateway. At most 100 bytes of printable ASCII.
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.request.client_name = name.into();
        self
    }

    /// Yields notifications in the order of the log, and comes back over broken connections, frozen and
    /// restarted gateways. A notification counts as handled when the next one is polled for. It ends
    /// with an error when coming back cannot mend it.
    pub fn stream(mut self) -> impl Stream<Item = Result<Notification, Error>> + Send {
        self.request.heartbeat_interval = to_proto(self.heartbeat);
        let silence = 3 * self.heartbeat;
        let mut s = Subscription {
            link: Link::new(self.client),
            request: self.request,
            checkpoint: self.checkpoint,
            on_gap: self.on_gap,
            silence,
            handled: None,
            stored: None,
            stored_at: None,
            complete: false,
        };
        stream! {
            if let Err(error) = s.begin() {
                yield Err(error);
                return;
            }
            let mut failures = 0;
            while !s.complete {
                let mut end = End::default();
                match s.open() {
                    Err(status) => end.by(&status),
                    Ok(mut frames) => loop {
                        let frame = tokio::select! {
                            frame = frames.next() => frame,
                            () = tokio::time::sleep(STORE_PAUSE / 4) => match s.store(false) {
                                Ok(()) => continue,
                                Err(error) => { yield Err(error); return; }
                            },
                        };
                        let response = match frame {
                            Some(Ok(response)) => response,
                            Some(Err(status)) => { end.by(&status); break; }
                            None => break,
                        };
                        end.progressed = true;
                        if let Err(error) = s.store(false) {
                            yield Err(error);
                            return;
                        }
                        let (token, frame) = (response.token, response.frame);
                        let frame = match frame {
                            Some(Frame::Batch(batch)) => {
                                for notification in batch.notifications {
                                    let token = notification.token.clone();
                                    yield Ok(notification);
                                    s.handled = Some(token); // the next one is polled for
                                }
                                None
                            }
                            other => other,
                        };
                        s.take(token, frame, &frames, &mut end);
                        if s.complete || end.fatal.is_some() {
                            break;
                        }
                    },
                }
                if let Some(error) = end.fatal {
                    yield Err(error);
                    return;
                }
                if s.complete {
                    break;
                }
                s.link.next();
                failures = if end.progressed { 0 } else { failures + 1 };
                let delay = end.delay.max(back_off(failures));
                tracing::info!(cause = end.cause, ?delay, "subscribing again");
                tokio::time::sleep(delay).await;
            }
        }
    }
}

/// How a stream ended.
#[derive(Default)]
pub(crate) struct End {
    pub(crate) cause: String,
    pub(crate) fatal: Option<Error>,
    pub(crate) delay: Duration,
    pub(crate) progressed: bool,
}

impl End {
    pub(crate) fn by(&mut self, status: &Status) {
        if self.cause.is_empty() {
            self.fatal = refused(status);
            self.cause = format!("{:?}: {}", status.code(), status.message());
        }
        self.delay = self.delay.max(asked_delay(status));
    }
}

/// A subscription, over any number of streams.
struct Subscription {
    link: Link,
    request: SubscribeRequest,
    checkpoint: Option<Box<dyn Checkpoint>>,
    on_gap: Option<OnGap>,
    silence: Duration,
    /// Token up to which everything was handled.
    handled: Option<String>,
    stored: Option<String>,
    stored_at: Option<Instant>,
    complete: bool,
}

impl Subscription {
    fn begin(&mut self) -> Result<(), Error> {
        self.link.client.check()?;
        if let Some(checkpoint) = &mut self.checkpoint {
            self.stored = checkpoint.load()?;
        }
        if let Some(token) = self.stored.clone() {
            self.request.start = Some(Start { position: Some(Position::After(token)) });
        }
        Ok(())
    }

    fn open(&mut self) -> Result<Frames<SubscribeResponse>, Status> {
        let mut client =
            NotificationServiceClient::new(self.link.get()?).max_decoding_message_size(MAX_MESSAGE);
        let request = self.link.client.request(self.request.clone())?;
        Ok(Frames::new(async move { client.subscribe(request).await }, self.silence))
    }

    /// Takes in a frame that was handled.
    fn take(
        &mut self,
        token: String,
        frame: Option<Frame>,
        frames: &Frames<SubscribeResponse>,
        end: &mut End,
    ) {
        match frame {
            Some(Frame::Confirmed(confirmed)) => self.confirm(&confirmed, frames),
            Some(Frame::Gap(gap)) => {
                let goes_on = self.request.on_gap() == GapPolicy::Continue;
                if !goes_on && gap.reason() != GapReason::Erased {
                    end.fatal = Some(gap_error(&gap, token));
                    return;
                }
                if let Some(told) = &mut self.on_gap {
                    told(&gap);
                }
            }
            Some(Frame::Closing(closing)) => {
                self.complete = closing.reason() == ClosingReason::Completed;
                end.delay = duration(closing.reconnect_after);
                end.cause = "the gateway ends the stream".into();
            }
            _ => {}
        }
        if !token.is_empty() {
            self.handled = Some(token.clone());
            self.request.start = Some(Start { position: Some(Position::After(token)) });
        }
    }

    /// Fixes what must not change from one stream to the next.
    fn confirm(&mut self, confirmed: &SubscriptionConfirmed, frames: &Frames<SubscribeResponse>) {
        let interval = duration(confirmed.heartbeat_interval);
        if !interval.is_zero() {
            self.silence = 3 * interval;
            frames.set_silence(self.silence);
        }
        if !confirmed.unknown_accounts.is_empty() {
            let accounts = confirmed.unknown_accounts.join(", ");
            tracing::warn!(accounts, "the gateway does not have these accounts");
        }
        if let Some(Until::UntilHead(true)) = self.request.until {
            match &confirmed.head {
                None => self.complete = true, // the log is empty
                Some(head) => self.request.until = Some(Until::UntilToken(head.token.clone())),
            }
        }
    }

    fn store(&mut self, now: bool) -> Result<(), Error> {
        let (Some(checkpoint), Some(handled)) = (&mut self.checkpoint, &self.handled) else {
            return Ok(());
        };
        let lately = self.stored_at.is_some_and(|at| at.elapsed() < STORE_PAUSE);
        if self.stored.as_ref() == Some(handled) || !now && lately {
            return Ok(());
        }
        checkpoint.store(handled)?;
        self.stored = Some(handled.clone());
        self.stored_at = Some(Instant::now());
        Ok(())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Err(error) = self.store(true) {
            tracing::warn!(%error, "the checkpoint was not stored");
        }
    }
}

fn gap_error(gap: &Gap, token: String) -> Error {
    let refusal = |message: &str, reason: &str| Refusal {
        message: message.into(),
        reason: reason.into(),
        first_available_token: token.clone(),
        ..Default::default()
    };
    match gap.reason() {
        GapReason::Expired => {
            Error::Expired(Box::new(refusal("notifications have expired", "EXPIRED")))
        }
        _ => Error::DataLoss(Box::new(refusal("notifications are corrupt", "CORRUPT"))),
    }
}
