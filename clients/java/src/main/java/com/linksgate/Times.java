package com.linksgate;

import com.google.protobuf.Timestamp;
import java.time.Duration;
import java.time.Instant;
import java.util.concurrent.ThreadLocalRandom;

/** Durations and times of the API, and how long to wait before coming back. */
final class Times {
  private Times() {}

  static Duration of(com.google.protobuf.Duration d) {
    return Duration.ofSeconds(d.getSeconds(), d.getNanos());
  }

  static com.google.protobuf.Duration of(Duration d) {
    return com.google.protobuf.Duration.newBuilder()
        .setSeconds(d.getSeconds())
        .setNanos(d.getNano())
        .build();
  }

  static Instant of(Timestamp t) {
    return Instant.ofEpochSecond(t.getSeconds(), t.getNanos());
  }

  /** Milliseconds before the next try after a number of failures in a row, all of it by chance. */
  static long backOff(int failures) {
    long most = Math.min(100L << Math.min(failures, 20), 10_000);
    return 1 + ThreadLocalRandom.current().nextLong(most);
  }
}
