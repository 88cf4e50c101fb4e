package com.linksgate;

import com.linksgate.v1.Gap;
import com.linksgate.v1.GapPolicy;
import com.linksgate.v1.NotificationKind;
import com.linksgate.v1.Start;
import com.linksgate.v1.SubscribeRequest;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.function.Consumer;

/** What to subscribe to. */
public final class SubscribeOptions {
  final SubscribeRequest request;
  final Checkpoint checkpoint; // may be null
  final Consumer<Gap> onGap;
  final Duration heartbeat;

  private SubscribeOptions(Builder b) {
    request = b.request.setHeartbeatInterval(Times.of(b.heartbeat)).build();
    checkpoint = b.checkpoint;
    onGap = b.onGap;
    heartbeat = b.heartbeat;
  }

  /** Without more: what is received from now on. */
  public static Builder builder() {
    return new Builder();
  }

  /** Makes options. */
  public static final class Builder {
    private final SubscribeRequest.Builder request =
        SubscribeRequest.newBuilder()
            .setMaxBatch(64)
            .setStart(Start.newBuilder().setLatest(true));
    private Checkpoint checkpoint;
    private Consumer<Gap> onGap = gap -> {};
    private Duration heartbeat = Duration.ofSeconds(10);

    private Builder() {}

    /**
     * Goes on after the token in a checkpoint, and stores there how far the subscription has come: at
     * most every second, and when it ends. Without a token in it the start applies.
     */
    public Builder checkpoint(Checkpoint checkpoint) {
      this.checkpoint = checkpoint;
      return this;
    }

    /** Starts with the oldest notification that is retained. */
    public Builder earliest() {
      request.setStart(Start.newBuilder().setEarliest(true));
      return this;
    }

    /** Starts after the position of a resume token. */
    public Builder after(String token) {
      request.setStart(Start.newBuilder().setAfter(token));
      return this;
    }

    /** Starts with the first notification that was written at or after a time. */
    public Builder since(Instant time) {
      request
          .getStartBuilder()
          .getSinceBuilder()
          .setSeconds(time.getEpochSecond())
          .setNanos(time.getNano());
      return this;
    }

    /** Ends when everything was delivered that the log holds when the subscription begins. */
    public Builder untilHead() {
      request.setUntilHead(true);
      return this;
    }

    /** Selects notifications of some kinds. */
    public Builder kinds(NotificationKind... kinds) {
      request.getFilterBuilder().addAllKinds(List.of(kinds));
      return this;
    }

    /** Selects notifications of some accounts. */
    public Builder accounts(String... names) {
      request.getFilterBuilder().addAllAccounts(List.of(names));
      return this;
    }

    /** Selects notifications about some SIMs. */
    public Builder iccids(String... iccids) {
      request.getFilterBuilder().addAllIccids(List.of(iccids));
      return this;
    }

    /** Selects notifications about some partners. */
    public Builder partnerCodes(String... codes) {
      request.getFilterBuilder().addAllPartnerCodes(List.of(codes));
      return this;
    }

    /**
     * Goes on where notifications have expired or are corrupt, instead of ending with an exception. It
     * is told of each gap, also of what was erased on purpose.
     */
    public Builder continueAfterGaps(Consumer<Gap> told) {
      request.setOnGap(GapPolicy.GAP_POLICY_CONTINUE);
      onGap = told;
      return this;
    }

    /** How many notifications come in one frame, from 1 to 512; default 64. Two are read ahead. */
    public Builder maxBatch(int most) {
      request.setMaxBatch(most);
      return this;
    }

    /**
     * Longest silence on the stream, from 1 s to 10 min; default 10 s. After three of them the
     * connection counts as dead.
     */
    public Builder heartbeat(Duration interval) {
      heartbeat = interval;
      return this;
    }

    /** Is shown by the gateway. At most 100 bytes of printable ASCII. */
    public Builder clientName(String name) {
      request.setClientName(name);
      return this;
    }

    /** The options. */
    public SubscribeOptions build() {
      return new SubscribeOptions(this);
    }
  }
}
