package com.linksgate;

import com.linksgate.v1.Lease;
import com.linksgate.v1.LeaseRejection;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.concurrent.Future;

/** A notification between being leased and being settled. Everything belongs to its worker's lock. */
final class Job {
  private static final int MAX_REASON = 1000; // bytes

  enum State {
    WAITING,
    RUNNING,
    FINISHED
  }

  final Delivery delivery;
  String token;
  Instant expires;
  long extendAt; // by System.nanoTime
  State state = State.WAITING;
  Future<?> handling;
  Throwable error;
  boolean released; // it was not begun
  boolean lost; // the lease is over
  boolean doubted;
  Lease next; // came while this was handled or settled

  Job(Lease lease) {
    delivery = new Delivery(lease.getNotification(), lease.getAttempt());
    adopt(lease);
  }

  String id() {
    return delivery.notification().getId();
  }

  void adopt(Lease lease) {
    token = lease.getLeaseToken();
    expires = Times.of(lease.getExpiresAt());
    doubted = false;
  }

  boolean acknowledges() {
    return !released && error == null;
  }

  /** What is to become of a notification that was not handled. */
  LeaseRejection rejection() {
    LeaseRejection.Builder r = LeaseRejection.newBuilder().setLeaseToken(token);
    if (released) {
      return r.setRelease(true).build();
    }
    r.setReason(cut(error.getMessage() == null ? error.toString() : error.getMessage()));
    if (error instanceof Handler.Park) {
      r.setPark(true);
    } else if (error instanceof Handler.RetryAfter said) {
      r.setRetryAfter(Times.of(said.time));
    } else if (error instanceof Handler.EverythingIsDown said) {
      Duration least = Duration.ofSeconds(1);
      r.setPauseGroup(Times.of(said.time.compareTo(least) < 0 ? least : said.time));
    }
    return r.build();
  }

  private static String cut(String reason) {
    int end = Math.min(reason.length(), MAX_REASON);
    while (reason.substring(0, end).getBytes(StandardCharsets.UTF_8).length > MAX_REASON) {
      end--;
    }
    return reason.substring(0, end);
  }
}
