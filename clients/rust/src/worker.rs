//! A member of a group, over any number of streams.
//!
//! A notification that it was leased is a job: it waits for its turn, is handled, and is settled, which
//! is to tell the gateway and hear that it knows. Jobs that wait are dropped when the stream breaks,
//! because the gateway then gives them to others. Those that were begun go on, and are settled with
//! whichever gateway answers.
//!
//! One task owns all of it. What waits for something else (the stream, a handler, a call) is a task of
//! its own, and reports by a message.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::connection::{Client, Link, MAX_MESSAGE, back_off, duration};
use crate::error::{Error, refused};
use crate::frames::Frames;
use crate::subscribe::End;
use crate::v1::consume_response::Frame;
use crate::v1::worker_service_client::WorkerServiceClient;
use crate::v1::{
    AcknowledgeRequest, ClosingReason, ConsumeRequest, ExtendLeasesRequest, GroupJoined, Lease,
    LeaseOutcome, LeaseResult, LeaveRequest, RejectRequest,
};
use crate::work::{Delivery, Failure, Handler, MAX_LEASES, rejection};

const CALL_TIME: Duration = Duration::from_secs(10);
/// To settle what is left when the grace time is over.
const SETTLE_TIME: Duration = Duration::from_secs(5);
/// For the gateway to end the stream of a member that leaves.
const LEAVE_TIME: Duration = Duration::from_secs(2);
/// How long the word that a lease is over may be older than a new lease.
const NEWLY_JOINED: Duration = Duration::from_secs(2);
const DOUBT_TIME: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(50);

enum Event {
    Joined(Box<GroupJoined>),
    Leases(Vec<Lease>),
    Parted {
        planned: bool,
    },
    /// There will be no stream any more.
    Over(Option<Error>),
    Left,
    Handled {
        id: String,
        number: u64,
        result: Result<(), Failure>,
    },
    Settled {
        ids: Vec<String>,
        results: Vec<LeaseResult>,
        error: Option<Status>,
    },
    Extended {
        leases: Vec<(String, String)>,
        results: Vec<LeaseResult>,
    },
}

#[derive(PartialEq)]
enum State {
    Waiting,
    Running,
    Finished(Result<(), Failure>),
    /// It was not begun.
    Released,
}

struct Job {
    delivery: Delivery,
    number: u64,
    token: String,
    expires: Instant,
    extend_at: Instant,
    state: State,
    handling: Option<AbortHandle>,
    /// The lease is over.
    lost: bool,
    doubted: bool,
    /// Came while this was handled or settled.
    next: Option<Lease>,
}

impl Job {
    fn adopt(&mut self, lease: &Lease) {
        self.token.clone_from(&lease.lease_token);
        self.expires = local_time(lease.expires_at);
        self.doubted = false;
    }

    fn is_finished(&self) -> bool {
        matches!(self.state, State::Finished(_) | State::Released)
    }

    fn acknowledges(&self) -> bool {
        self.state == State::Finished(Ok(()))
    }
}

/// A time of the gateway's clock, by the clock of this process.
fn local_time(t: Option<prost_types::Timestamp>) -> Instant {
    let at = t.and_then(|t| SystemTime::try_from(t).ok()).unwrap_or(SystemTime::UNIX_EPOCH);
    Instant::now() + at.duration_since(SystemTime::now()).unwrap_or_default()
}

pub(crate) struct Worker {
    client: Client,
    request: ConsumeRequest,
    handler: Handler,
    parallel: usize,
    grace: Duration,
    silence: Duration,

    events: mpsc::UnboundedReceiver<Event>,
    report: mpsc::UnboundedSender<Event>,
    /// The connection of the newest stream, for the calls.
    channel: watch::Receiver<Option<Channel>>,
    channels: watch::Sender<Option<Channel>>,
    leaving_stream: watch::Sender<bool>,

    jobs: HashMap<String, Job>,
    waiting: VecDeque<String>,
    finished: VecDeque<String>,
    running: usize,
    numbers: u64,
    lease: Duration,
    member: String,
    joined_at: Instant,
    leaving: bool,
    /// What is given back now would come again at once.
    holding: bool,
    settling: bool,
    settle_again: Instant,
    failures: u32,
    extending: bool,
}

impl Worker {
    pub(crate) fn new(
        client: Client,
        request: ConsumeRequest,
        handler: Handler,
        parallel: usize,
        grace: Duration,
        silence: Duration,
    ) -> Self {
        let (report, events) = mpsc::unbounded_channel();
        let (channels, channel) = watch::channel(None);
        let now = Instant::now();
        Self {
            client,
            request,
            handler,
            parallel,
            grace,
            silence,
            events,
            report,
            channel,
            channels,
            leaving_stream: watch::channel(false).0,
            jobs: HashMap::new(),
            waiting: VecDeque::new(),
            finished: VecDeque::new(),
            running: 0,
            numbers: 0,
            lease: Duration::from_secs(30),
            member: String::new(),
            joined_at: now,
            leaving: false,
            holding: false,
            settling: false,
            settle_again: now,
            failures: 0,
            extending: false,
        }
    }

    pub(crate) async fn run(
        mut self,
        mut stop: Pin<Box<dyn Future<Output = ()> + Send>>,
    ) -> Result<(), Error> {
        let mut streaming = AbortOnDrop(self.stream());
        let mut over = false;
        let mut cause = None;
        let (mut stopping, mut part_by) = (false, None);
        let (mut deadline, mut give_up): (Option<Instant>, Option<Instant>) = (None, None);
        let mut cut = 0;
        loop {
            let now = Instant::now();
            self.begin();
            self.settle(now);
            self.extend(now);
            if self.leaving && deadline.is_none() {
                deadline = Some(now + self.grace);
            }
            if let Some(end) = deadline.filter(|end| now >= *end && self.running > 0 && cut == 0) {
                cut = self.running;
                self.cut_off();
                give_up = Some(end + SETTLE_TIME);
            }
            let parted = over || part_by.is_none_or(|by| now >= by);
            if self.leaving && self.running == 0 && parted {
                let give_up = *give_up.get_or_insert(now + SETTLE_TIME);
                if self.jobs.is_empty() || now >= give_up {
                    break;
                }
            }
            if give_up.is_some_and(|at| now >= at) {
                break;
            }
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(Event::Over(error)) => {
                        over = true;
                        cause = cause.or(error);
                        self.stop_beginning();
                    }
                    Some(event) => self.take_in(event),
                    None => {}
                },
                () = &mut stop, if !stopping => {
                    stopping = true;
                    part_by = Some(Instant::now() + LEAVE_TIME);
                    self.leave();
                }
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        streaming.0.abort();
        let _ = (&mut streaming.0).await;
        match (cause, cut, self.jobs.len()) {
            (Some(error), ..) => Err(error),
            (None, 0, 0) => Ok(()),
            (None, 0, left) => Err(Error::Unsettled(left)),
            (None, cut, _) => Err(Error::HandlersCutOff(cut)),
        }
    }

    fn take_in(&mut self, event: Event) {
        match event {
            Event::Joined(joined) => self.joined(&joined),
            Event::Leases(leases) => {
                for lease in leases {
                    self.take(lease);
                }
                if self.leaving {
                    self.release_waiting();
                }
            }
            Event::Parted { planned } => self.parted(planned),
            Event::Left => {
                self.holding = false;
                self.stop_beginning();
            }
            Event::Handled { id, number, result } => self.handled(&id, number, result),
            Event::Settled { ids, results, error } => self.said(ids, results, error),
            Event::Extended { leases, results } => self.extended(leases, results),
            Event::Over(_) => {}
        }
    }

    // Leaving.

    fn leave(&mut self) {
        self.leaving = true;
        let _ = self.leaving_stream.send(true);
        let channel = self.channel.borrow().clone();
        let Some(channel) = channel.filter(|_| !self.member.is_empty()) else {
            self.stop_beginning();
            return;
        };
        self.holding = true;
        let message = LeaveRequest {
            group_name: self.request.group_name.clone(),
            member_id: self.member.clone(),
        };
        let (client, report) = (self.client.clone(), self.report.clone());
        tokio::spawn(async move {
            let call =
                async { WorkerServiceClient::new(channel).leave(client.request(message)?).await };
            if let Err(status) = timely(LEAVE_TIME, call).await {
                // The gateway is gone, and with it the membership.
                tracing::info!(%status, "leaving without the gateway's word");
            }
            let _ = report.send(Event::Left);
        });
    }

    fn stop_beginning(&mut self) {
        self.leaving = true;
        let _ = self.leaving_stream.send(true);
        self.release_waiting();
    }

    fn release_waiting(&mut self) {
        for id in std::mem::take(&mut self.waiting) {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.state = State::Released;
                self.finished.push_back(id);
            }
        }
    }

    /// Drops the handlers that still run.
    fn cut_off(&mut self) {
        for job in self.jobs.values_mut() {
            if let (State::Running, Some(handling)) = (&job.state, &job.handling) {
                handling.abort();
            }
        }
    }

    // Streams.

    fn stream(&self) -> JoinHandle<()> {
        let mut link = Link::new(self.client.clone());
        let (request, silence) = (self.request.clone(), self.silence);
        let (report, channels) = (self.report.clone(), self.channels.clone());
        let leaving = self.leaving_stream.subscribe();
        tokio::spawn(async move {
            let mut failures = 0;
            loop {
                let mut end = End::default();
                let mut planned = false;
                match open(&mut link, &request, silence, &channels) {
                    Err(status) => end.by(&status),
                    Ok(mut frames) => {
                        while let Some(frame) = frames.next().await {
                            match frame {
                                Ok(response) => {
                                    end.progressed = true;
                                    pass_on(response.frame, &report, &mut end, &mut planned);
                                }
                                Err(status) => end.by(&status),
                            }
                        }
                    }
                }
                let _ = report.send(Event::Parted { planned });
                let fatal = end.fatal.take();
                if fatal.is_some() || *leaving.borrow() {
                    let _ = report.send(Event::Over(fatal));
                    return;
                }
                link.next();
                failures = if end.progressed { 0 } else { failures + 1 };
                let delay = end.delay.max(back_off(failures));
                tracing::info!(cause = end.cause, ?delay, "joining again");
                tokio::time::sleep(delay).await;
            }
        })
    }

    fn joined(&mut self, joined: &GroupJoined) {
        self.member.clone_from(&joined.member_id);
        self.joined_at = Instant::now();
        let lease = duration(joined.group.as_ref().and_then(|g| g.lease_duration));
        if !lease.is_zero() {
            self.lease = lease;
        }
        for job in self.jobs.values_mut() {
            job.extend_at = self.joined_at; // whether it is still ours is for the gateway to say
        }
    }

    /// Without a planned end, what was not begun has gone back to the group.
    fn parted(&mut self, planned: bool) {
        self.member.clear();
        if !planned {
            for id in std::mem::take(&mut self.waiting) {
                self.jobs.remove(&id);
            }
        }
    }

    /// Adds a job. A notification that is one already was leased to us again because the gateway did
    /// not know that it is ours: then the job settles the new lease.
    fn take(&mut self, lease: Lease) {
        let Some(notification) = lease.notification.clone() else { return };
        let id = notification.id.clone();
        let now = Instant::now();
        let longest = self.lease;
        let half = |expires: Instant| {
            expires.saturating_duration_since(now).max(Duration::from_secs(1)).min(longest) / 2
        };
        if let Some(job) = self.jobs.get_mut(&id) {
            if job.lost || job.is_finished() {
                job.next = Some(lease);
                return;
            }
            job.adopt(&lease);
            job.extend_at = now + half(job.expires);
            return;
        }
        self.numbers += 1;
        let expires = local_time(lease.expires_at);
        let job = Job {
            delivery: Delivery { notification, attempt: lease.attempt },
            number: self.numbers,
            token: lease.lease_token,
            expires,
            extend_at: now + half(expires),
            state: State::Waiting,
            handling: None,
            lost: false,
            doubted: false,
            next: None,
        };
        self.jobs.insert(id.clone(), job);
        self.waiting.push_back(id);
    }

    // Handlers.

    fn begin(&mut self) {
        while self.running < self.parallel && !self.leaving {
            let Some(id) = self.waiting.pop_front() else { return };
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            job.state = State::Running;
            self.running += 1;
            let handling = tokio::spawn((self.handler)(job.delivery.clone()));
            job.handling = Some(handling.abort_handle());
            let (number, report) = (job.number, self.report.clone());
            tokio::spawn(async move {
                let result = handling.await.unwrap_or_else(|error| {
                    let what = if error.is_panic() { "panic" } else { "the handler was dropped" };
                    Err(Failure::Retry(what.to_owned()))
                });
                let _ = report.send(Event::Handled { id, number, result });
            });
        }
    }

    fn handled(&mut self, id: &str, number: u64, result: Result<(), Failure>) {
        self.running -= 1;
        let Some(job) = self.jobs.get_mut(id).filter(|job| job.number == number) else { return };
        job.state = State::Finished(result);
        if job.lost {
            self.forget(id);
        } else {
            self.finished.push_back(id.to_owned());
        }
    }

    fn forget(&mut self, id: &str) {
        if let Some(next) = self.jobs.remove(id).and_then(|job| job.next) {
            self.take(next);
            if self.leaving {
                self.release_waiting();
            }
        }
    }

    // Settling.

    fn settle(&mut self, now: Instant) {
        let idle = self.finished.is_empty() || self.settling || self.holding;
        if idle || now < self.settle_again {
            return;
        }
        let Some(channel) = self.channel.borrow().clone() else {
            self.settle_again = now + Duration::from_millis(100);
            return;
        };
        let count = self.finished.len().min(MAX_LEASES);
        let mut ids: Vec<String> = self.finished.drain(..count).collect();
        ids.retain(|id| self.jobs.contains_key(id));
        ids.sort_by_key(|id| !self.jobs[id].acknowledges());
        let group_name = self.request.group_name.clone();
        let mut acknowledge =
            AcknowledgeRequest { group_name: group_name.clone(), ..Default::default() };
        let mut reject = RejectRequest { group_name, ..Default::default() };
        for id in &ids {
            let job = &self.jobs[id];
            let token = job.token.clone();
            match &job.state {
                State::Finished(Ok(())) => acknowledge.lease_tokens.push(token),
                State::Finished(Err(failure)) => {
                    reject.rejections.push(rejection(token, Some(failure)));
                }
                _ => reject.rejections.push(rejection(token, None)),
            }
        }
        self.settling = true;
        let (client, report) = (self.client.clone(), self.report.clone());
        tokio::spawn(async move {
            let mut calls = WorkerServiceClient::new(channel);
            let mut results = Vec::new();
            let done = timely(CALL_TIME, async {
                if !acknowledge.lease_tokens.is_empty() {
                    let answer = calls.acknowledge(client.request(acknowledge)?).await?;
                    results.extend(answer.into_inner().results);
                }
                if !reject.rejections.is_empty() {
                    let answer = calls.reject(client.request(reject)?).await?;
                    results.extend(answer.into_inner().results);
                }
                Ok(())
            });
            let error = done.await.err();
            let _ = report.send(Event::Settled { ids, results, error });
        });
    }

    /// Takes in what the gateway said of jobs.
    fn said(&mut self, ids: Vec<String>, results: Vec<LeaseResult>, error: Option<Status>) {
        self.settling = false;
        let mut gone = false; // the group is: there is nothing to settle
        if let Some(status) = &error {
            gone = refused(status).is_some();
            tracing::warn!(%status, "leases not settled");
        }
        let mut again = false;
        for (i, id) in ids.iter().enumerate() {
            let said = match results.get(i) {
                Some(result) => result.outcome(),
                None if gone => LeaseOutcome::Invalid,
                None => LeaseOutcome::Unavailable,
            };
            again |= !self.settled(id, said);
        }
        if again {
            let delay = Duration::from_millis(10) + back_off(self.failures);
            self.settle_again = Instant::now() + delay.min(Duration::from_secs(1));
            self.failures += 1;
        } else {
            self.failures = 0;
        }
    }

    /// Takes in what the gateway said of a job: false if it is to be settled again.
    fn settled(&mut self, id: &str, said: LeaseOutcome) -> bool {
        let now = Instant::now();
        let doubted = self.doubts(said, now);
        let longest = self.lease;
        let Some(job) = self.jobs.get_mut(id) else { return true };
        let unavailable = said == LeaseOutcome::Unavailable;
        if said == LeaseOutcome::Ok {
            if job.acknowledges() {
                job.next = None;
            }
            self.forget(id); // for another attempt, if it came
            return true;
        }
        if let Some(next) = job.next.take_if(|_| !unavailable) {
            job.adopt(&next); // leased to us again, as it was not known
        } else if unavailable && now < job.expires + longest {
        } else if doubted && !job.doubted {
            job.doubted = true;
        } else {
            if job.state != State::Released {
                tracing::warn!(id, ?said, "settled too late: it comes again");
            }
            self.jobs.remove(id);
            return true;
        }
        self.finished.push_back(id.to_owned());
        false
    }

    /// Whether to ask again before a lease counts as over. A gateway that was restarted leases to a
    /// member, as soon as it has joined, what the member is working on; the word of that may come after
    /// the word that the lease before it is over.
    fn doubts(&self, said: LeaseOutcome, now: Instant) -> bool {
        let long_ago = !self.member.is_empty() && now - self.joined_at > NEWLY_JOINED;
        said == LeaseOutcome::Stale && !long_ago && !self.leaving
    }

    fn extend(&mut self, now: Instant) {
        if self.extending {
            return;
        }
        let due = |job: &&Job| !job.is_finished() && !job.lost && now >= job.extend_at;
        let leases: Vec<(String, String)> = (self.jobs.values().filter(due).take(MAX_LEASES))
            .map(|job| (job.delivery.notification.id.clone(), job.token.clone()))
            .collect();
        let Some(channel) = self.channel.borrow().clone().filter(|_| !leases.is_empty()) else {
            return;
        };
        self.extending = true;
        let message = ExtendLeasesRequest {
            group_name: self.request.group_name.clone(),
            lease_tokens: leases.iter().map(|(_, token)| token.clone()).collect(),
            duration: None,
        };
        let (client, report) = (self.client.clone(), self.report.clone());
        tokio::spawn(async move {
            let call = async {
                WorkerServiceClient::new(channel).extend_leases(client.request(message)?).await
            };
            let results = match timely(CALL_TIME, call).await.map(Response::into_inner) {
                Ok(answer) => answer.results,
                Err(status) => {
                    tracing::warn!(%status, "leases not extended");
                    Vec::new()
                }
            };
            let _ = report.send(Event::Extended { leases, results });
        });
    }

    fn extended(&mut self, leases: Vec<(String, String)>, results: Vec<LeaseResult>) {
        self.extending = false;
        let now = Instant::now();
        let longest = self.lease;
        for (i, (id, token)) in leases.into_iter().enumerate() {
            let result = results.get(i);
            let said = result.map_or(LeaseOutcome::Unavailable, |r| r.outcome());
            let doubted = self.doubts(said, now);
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            if job.is_finished() || job.token != token {
                continue; // finished, or leased again meanwhile
            }
            match said {
                LeaseOutcome::Ok => {
                    job.expires = local_time(result.and_then(|r| r.expires_at));
                    let left = job.expires.saturating_duration_since(now);
                    job.extend_at = now + left.max(Duration::from_secs(1)).min(longest) / 2;
                }
                LeaseOutcome::Unavailable => job.extend_at = now + (longest / 16).max(LOOK),
                _ if doubted && !job.doubted => {
                    job.doubted = true;
                    job.extend_at = now + DOUBT_TIME;
                }
                _ => self.lose(&id),
            }
        }
    }

    fn lose(&mut self, id: &str) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        if job.state == State::Waiting {
            self.waiting.retain(|other| other != id);
            self.jobs.remove(id);
            return;
        }
        tracing::warn!(id, "the lease is over: another worker may have the notification");
        job.lost = true;
        if let Some(handling) = &job.handling {
            handling.abort();
        }
    }
}

fn open(
    link: &mut Link,
    request: &ConsumeRequest,
    silence: Duration,
    channels: &watch::Sender<Option<Channel>>,
) -> Result<Frames<crate::v1::ConsumeResponse>, Status> {
    let channel = link.get()?;
    let _ = channels.send(Some(channel.clone()));
    let mut calls = WorkerServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
    let request = link.client.request(request.clone())?;
    Ok(Frames::new(async move { calls.consume(request).await }, silence))
}

fn pass_on(
    frame: Option<Frame>,
    report: &mpsc::UnboundedSender<Event>,
    end: &mut End,
    planned: &mut bool,
) {
    let _ = match frame {
        Some(Frame::Joined(joined)) => report.send(Event::Joined(Box::new(joined))),
        Some(Frame::Leases(batch)) => report.send(Event::Leases(batch.leases)),
        Some(Frame::Closing(closing)) => {
            *planned = closing.reason() != ClosingReason::GroupMoved;
            end.delay = duration(closing.reconnect_after);
            end.cause = "the gateway ends the stream".into();
            Ok(())
        }
        _ => Ok(()),
    };
}

/// A call that takes no longer than a time.
async fn timely<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let late = |_| Err(Status::deadline_exceeded(format!("no answer within {limit:?}")));
    tokio::time::timeout(limit, call).await.unwrap_or_else(late)
}

/// Ends a task when it is not waited for any more.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
