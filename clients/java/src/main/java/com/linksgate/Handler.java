package com.linksgate;

import com.linksgate.v1.Notification;
import java.time.Duration;

/**
 * Handles a notification. When it returns, the notification is acknowledged. What it throws makes it
 * come again after the group's back-off; {@link Park}, {@link RetryAfter} and {@link EverythingIsDown}
 * say otherwise. Its thread is interrupted when the lease is lost, or the grace time is over.
 */
@FunctionalInterface
public interface Handler {
  /** Handles a notification that was leased. */
  void handle(Delivery delivery) throws Exception;

  /** A handler that needs no more than the notification. */
  static Handler of(Simple handler) {
    return delivery -> handler.handle(delivery.notification());
  }

  /** Handles a notification. */
  @FunctionalInterface
  interface Simple {
    /** Handles it. */
    void handle(Notification notification) throws Exception;
  }

  /** Thrown by a handler: the notification is set aside, for a person to look at. */
  final class Park extends Exception {
    private static final long serialVersionUID = 1L;

    /** With the reason. */
    public Park(String reason) {
      super(reason);
    }
  }

  /** Thrown by a handler: it comes again after a time, unless its attempts are used up. */
  final class RetryAfter extends Exception {
    private static final long serialVersionUID = 1L;
    final transient Duration time;

    /** After a time of up to 24 h. */
    public RetryAfter(Duration time, String reason) {
      super(reason);
      this.time = time;
    }
  }

  /**
   * Thrown by a handler: nothing is wrong with the notification. The whole group is paused for a time,
   * and the attempt does not count.
   */
  final class EverythingIsDown extends Exception {
    private static final long serialVersionUID = 1L;
    final transient Duration time;

    /** For a time from 1 s to 1 h. */
    public EverythingIsDown(Duration time, String reason) {
      super(reason);
      this.time = time;
    }
  }
}
