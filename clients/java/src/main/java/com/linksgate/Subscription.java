package com.linksgate;

import com.linksgate.v1.Closing;
import com.linksgate.v1.ClosingReason;
import com.linksgate.v1.Gap;
import com.linksgate.v1.GapPolicy;
import com.linksgate.v1.GapReason;
import com.linksgate.v1.Notification;
import com.linksgate.v1.NotificationServiceGrpc;
import com.linksgate.v1.Start;
import com.linksgate.v1.SubscribeRequest;
import com.linksgate.v1.SubscribeResponse;
import com.linksgate.v1.SubscriptionConfirmed;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.Optional;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/**
 * A subscription, over any number of streams. See {@link LinksgateClient#subscribe}.
 *
 * <p>An interrupt of the thread that iterates ends the iteration, with the interrupt still set.
 */
public final class Subscription
    implements Iterable<Notification>, Iterator<Notification>, AutoCloseable {
  private static final long STORE_PAUSE = 1_000_000_000L; // ns between two stores of a checkpoint
  private static final System.Logger logger = System.getLogger("com.linksgate");

  private final LinksgateClient client;
  private final SubscribeOptions options;
  private final SubscribeRequest.Builder request;
  private final Link link;
  private final CountDownLatch closed = new CountDownLatch(1);
  private Duration silence;

  private Frames<SubscribeResponse> frames; // of the open stream; null if there is none
  private ManagedChannel channel; // of the open stream
  private StreamEnd end = new StreamEnd();
  private int failures;
  private SubscribeResponse batch; // whose notifications are being handled
  private final ArrayDeque<Notification> waiting = new ArrayDeque<>();
  private Notification handling; // was given out, and is handled when the next one is asked for

  private volatile String handled; // token up to which everything was handled; null: none yet
  private String stored;
  private long storedAt;
  private boolean begun;
  private boolean complete;

  Subscription(LinksgateClient client, SubscribeOptions options) {
    this.client = client;
    this.options = options;
    this.request = options.request.toBuilder();
    this.silence = options.heartbeat.multipliedBy(3);
    this.link = new Link(client);
  }

  @Override
  public Iterator<Notification> iterator() {
    return this;
  }

  @Override
  public Notification next() {
    if (!hasNext()) {
      throw new NoSuchElementException();
    }
    handling = waiting.poll();
    return handling;
  }

  /** Waits for the next notification. False: the subscription has reached its end, or is closed. */
  @Override
  public boolean hasNext() {
    if (handling != null) {
      handled = handling.getToken();
      handling = null;
    }
    try {
      return advance();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      return false;
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    } catch (RuntimeException e) {
      throw e;
    } catch (Exception e) {
      throw new IllegalStateException(e);
    }
  }

  private boolean advance() throws Exception {
    if (!begun) {
      begin();
    }
    for (; ; ) {
      if (!waiting.isEmpty()) {
        return true;
      }
      if (batch != null) {
        moveOn(batch.getToken());
        batch = null;
      }
      if (isClosed()) {
        return false;
      }
      if (complete) {
        store(true);
        return false;
      }
      if (frames == null && !open()) {
        continue;
      }
      store(false);
      Frames.Item<SubscribeResponse> item = frames.next(() -> meanwhile());
      if (item.status() != null) {
        ended(item);
        continue;
      }
      end.progressed = true;
      take(item.frame());
    }
  }

  private void meanwhile() throws IOException, InterruptedException {
    store(false);
    if (isClosed()) {
      throw new InterruptedException("closed");
    }
  }

  private boolean isClosed() {
    return closed.getCount() == 0;
  }

  private void begin() throws IOException {
    begun = true;
    if (options.checkpoint == null) {
      return;
    }
    Optional<String> token = options.checkpoint.load();
    if (token.isPresent()) {
      stored = token.get();
      request.setStart(Start.newBuilder().setAfter(stored));
    }
  }

  /** Opens a stream. False: it could not be, and is to be tried again. */
  private boolean open() throws InterruptedException {
    end = new StreamEnd();
    try {
      channel = link.get();
    } catch (IOException e) { // a file of a certificate
      end.cause = e.toString();
      again();
      return false;
    }
    frames =
        new Frames<>(
            channel, client, NotificationServiceGrpc.getSubscribeMethod(), request.build(), silence);
    return true;
  }

  /** Takes in the end of a stream. */
  private void ended(Frames.Item<SubscribeResponse> item) throws InterruptedException {
    end.by(item.status().isOk() ? new Frames.Item<>(null, Status.UNAVAILABLE, null) : item);
    frames.close();
    frames = null;
    if (complete || isClosed()) {
      return;
    }
    if (end.fatal != null) {
      throw end.fatal;
    }
    again();
  }

  /** Waits before the next stream, to the next address. */
  private void again() throws InterruptedException {
    link.next(channel);
    channel = null;
    failures = end.progressed ? 0 : failures + 1;
    long wait = end.waitMillis(failures);
    logger.log(System.Logger.Level.INFO, "subscribing again in {0} ms: {1}", wait, end.cause);
    closed.await(wait, TimeUnit.MILLISECONDS);
  }

  private void take(SubscribeResponse frame) {
    switch (frame.getFrameCase()) {
      case BATCH:
        waiting.addAll(frame.getBatch().getNotificationsList());
        batch = frame;
        return;
      case CONFIRMED:
        confirm(frame.getConfirmed());
        break;
      case GAP:
        gap(frame.getGap(), frame.getToken());
        break;
      case CLOSING:
        Closing closing = frame.getClosing();
        complete = closing.getReason() == ClosingReason.CLOSING_REASON_COMPLETED;
        end.delay = Times.of(closing.getReconnectAfter());
        end.cause = "the gateway ends the stream";
        break;
      default:
        break;
    }
    moveOn(frame.getToken());
  }

  private void gap(Gap gap, String token) {
    boolean goesOn = request.getOnGap() == GapPolicy.GAP_POLICY_CONTINUE;
    if (!goesOn && gap.getReason() != GapReason.GAP_REASON_ERASED) {
      boolean expired = gap.getReason() == GapReason.GAP_REASON_EXPIRED;
      LinksgateException.Details said = new LinksgateException.Details();
      said.code = expired ? Status.Code.OUT_OF_RANGE : Status.Code.DATA_LOSS;
      said.reason = expired ? "EXPIRED" : "CORRUPT";
      said.message = expired ? "notifications have expired" : "notifications are corrupt";
      said.firstAvailableToken = token;
      throw said.refusal();
    }
    options.onGap.accept(gap);
  }

  /** Fixes what must not change from one stream to the next. */
  private void confirm(SubscriptionConfirmed confirmed) {
    Duration interval = Times.of(confirmed.getHeartbeatInterval());
    if (!interval.isZero()) {
      silence = interval.multipliedBy(3);
      frames.setSilence(silence);
    }
    if (confirmed.getUnknownAccountsCount() > 0) {
      String accounts = String.join(", ", confirmed.getUnknownAccountsList());
      logger.log(
          System.Logger.Level.WARNING, "the gateway does not have these accounts: {0}", accounts);
    }
    if (!request.getUntilHead()) {
      return;
    }
    if (!confirmed.hasHead()) {
      complete = true; // the log is empty
    } else {
      request.setUntilToken(confirmed.getHead().getToken());
    }
  }

  private void moveOn(String token) {
    if (!token.isEmpty()) {
      handled = token;
      request.setStart(Start.newBuilder().setAfter(token));
    }
  }

  private synchronized void store(boolean now) throws IOException {
    String token = handled; // the thread that iterates may go on while another one closes
    if (options.checkpoint == null || token == null || token.equals(stored)) {
      return;
    }
    if (!now && storedAt != 0 && System.nanoTime() - storedAt < STORE_PAUSE) {
      return;
    }
    options.checkpoint.store(token);
    stored = token;
    storedAt = System.nanoTime();
  }

  /** Ends the subscription, and stores its checkpoint. */
  @Override
  public void close() {
    closed.countDown();
    try {
      store(true);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    } finally {
      link.close();
    }
  }
}
