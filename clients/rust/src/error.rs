use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::StatusExt;

const DOMAIN: &str = "linksgate";

/// What a gateway says with an error that coming back cannot mend.
#[derive(Debug, Clone, Default)]
pub struct Refusal {
    /// For a person to read.
    pub message: String,
    /// One of the gateway's reasons (`ErrorReason`, without its prefix); empty if it gave none.
    pub reason: String,
    /// Where to go on, if the gateway said so; else empty.
    pub first_available_token: String,
    /// What is wrong with the request, by field.
    pub fields: HashMap<String, String>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        if !self.first_available_token.is_empty() {
            write!(f, "; the first available token is {}", self.first_available_token)?;
        }
        Ok(())
    }
}

/// Ends a subscription or a worker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The position is no longer retained; `first_available_token` is where the log begins.
    #[error("expired: {0}")]
    Expired(Box<Refusal>),
    /// Notifications are corrupt, or the log lost its end, or is a copy that was restored.
    #[error("data loss: {0}")]
    DataLoss(Box<Refusal>),
    /// The token is of another log.
    #[error("another log: {0}")]
    OtherLog(Box<Refusal>),
    /// The gateway does not take the request; `fields` says why.
    #[error("invalid request: {0}")]
    InvalidRequest(Box<Refusal>),
    /// The credential is missing, unknown, or lacks a right.
    #[error("permission denied: {0}")]
    PermissionDenied(Box<Refusal>),
    /// There is no such group.
    #[error("not found: {0}")]
    NotFound(Box<Refusal>),
    /// What is at the address does not have this service.
    #[error("unsupported: {0}")]
    Unsupported(Box<Refusal>),
    /// The options cannot be meant.
    #[error("{0}")]
    Options(String),
    /// The checkpoint could not be loaded or stored.
    #[error("checkpoint: {0}")]
    Checkpoint(#[from] std::io::Error),
    /// Handlers took longer than the grace time; their notifications come again.
    #[error("{0} handlers took longer than the grace time")]
    HandlersCutOff(usize),
    /// The gateway could not be told of so many notifications; they come again.
    #[error("the gateway could not be told of {0} notifications: they come again")]
    Unsettled(usize),
}

impl Error {
    /// What the gateway said, if it was the gateway.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Error::Expired(r)
            | Error::DataLoss(r)
            | Error::OtherLog(r)
            | Error::InvalidRequest(r)
            | Error::PermissionDenied(r)
            | Error::NotFound(r)
            | Error::Unsupported(r) => Some(r),
            _ => None,
        }
    }
}

/// The error that a call ends with for good; None if it is to be tried again.
pub(crate) fn refused(status: &Status) -> Option<Error> {
    let kind = match status.code() {
        Code::OutOfRange => Error::Expired,
        Code::DataLoss => Error::DataLoss,
        Code::FailedPrecondition => Error::OtherLog,
        Code::InvalidArgument => Error::InvalidRequest,
        Code::Unauthenticated | Code::PermissionDenied => Error::PermissionDenied,
        Code::NotFound => Error::NotFound,
        Code::Unimplemented => Error::Unsupported,
        _ => return None,
    };
    let details = status.get_error_details();
    let info = details.error_info().filter(|info| info.domain == DOMAIN);
    let metadata = info.map(|info| &info.metadata);
    let violations = details.bad_request().map(|r| r.field_violations.as_slice());
    Some(kind(Box::new(Refusal {
        message: status.message().to_owned(),
        reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
        first_available_token: metadata
            .and_then(|m| m.get("first_available_token").cloned())
            .unwrap_or_default(),
        fields: violations
            .unwrap_or_default()
            .iter()
            .map(|v| (v.field.clone(), v.description.clone()))
            .collect(),
    })))
}

/// How long a gateway asks to wait, by an error.
pub(crate) fn asked_delay(status: &Status) -> std::time::Duration {
    let details = status.get_error_details();
    let retry = details.retry_info().and_then(|r| r.retry_delay);
    retry.unwrap_or_default()
}
