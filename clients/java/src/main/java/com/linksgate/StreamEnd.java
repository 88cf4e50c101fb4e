package com.linksgate;

import java.time.Duration;

/** How a stream ended. */
final class StreamEnd {
  String cause;
  LinksgateException fatal;
  Duration delay = Duration.ZERO;
  boolean progressed;

  void by(Frames.Item<?> item) {
    LinksgateException.Details said =
        LinksgateException.Details.of(item.status(), item.trailers());
    if (cause == null) {
      fatal = said.refusal();
      cause = said.code + ": " + said.message;
    }
    if (said.retryAfter.compareTo(delay) > 0) {
      delay = said.retryAfter;
    }
  }

  long waitMillis(int failures) {
    return Math.max(delay.toMillis(), Times.backOff(failures));
  }
}
