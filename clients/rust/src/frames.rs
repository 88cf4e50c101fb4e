use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tonic::{Status, Streaming};

const READ_AHEAD: usize = 2;

/// Reads the frames of a stream ahead, within a bound. Only the wait for a frame is timed: a handler
/// that is slow says nothing about the gateway.
pub(crate) struct Frames<T> {
    received: mpsc::Receiver<Result<T, Status>>,
    silence: watch::Sender<Duration>,
    reading: JoinHandle<()>,
}

impl<T: Send + 'static> Frames<T> {
    pub(crate) fn new(
        call: impl Future<Output = Result<tonic::Response<Streaming<T>>, Status>> + Send + 'static,
        silence: Duration,
    ) -> Self {
        let (frames, received) = mpsc::channel(READ_AHEAD);
        let (silence, longest) = watch::channel(silence);
        let reading = tokio::spawn(async move {
            let silent =
                || Status::unavailable(format!("no frame came for {:?}", *longest.borrow()));
            let limit = *longest.borrow();
            let mut stream = match tokio::time::timeout(limit, call).await {
                Ok(Ok(response)) => response.into_inner(),
                failed => {
                    let status =
                        failed.map_or_else(|_| silent(), |r| r.err().unwrap_or_else(silent));
                    let _ = frames.send(Err(status)).await;
                    return;
                }
            };
            loop {
                let limit = *longest.borrow();
                let frame = match tokio::time::timeout(limit, stream.message()).await {
                    Ok(Ok(Some(frame))) => Ok(frame),
                    Ok(Ok(None)) => return,
                    Ok(Err(status)) => Err(status),
                    Err(_) => Err(silent()),
                };
                let ended = frame.is_err();
                if frames.send(frame).await.is_err() || ended {
                    return;
                }
            }
        });
        Self { received, silence, reading }
    }

    pub(crate) fn set_silence(&self, silence: Duration) {
        let _ = self.silence.send(silence);
    }

    /// The next frame; None when the stream ended with OK.
    pub(crate) async fn next(&mut self) -> Option<Result<T, Status>> {
        self.received.recv().await
    }
}

impl<T> Drop for Frames<T> {
    fn drop(&mut self) {
        self.reading.abort();
    }
}
