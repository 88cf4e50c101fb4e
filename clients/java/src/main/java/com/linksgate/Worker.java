package com.linksgate;

import com.linksgate.v1.AcknowledgeRequest;
import com.linksgate.v1.Closing;
import com.linksgate.v1.ClosingReason;
import com.linksgate.v1.ConsumeRequest;
import com.linksgate.v1.ConsumeResponse;
import com.linksgate.v1.ExtendLeasesRequest;
import com.linksgate.v1.GroupJoined;
import com.linksgate.v1.Lease;
import com.linksgate.v1.LeaseOutcome;
import com.linksgate.v1.LeaseResult;
import com.linksgate.v1.LeaveRequest;
import com.linksgate.v1.RejectRequest;
import com.linksgate.v1.WorkerServiceGrpc;
import com.linksgate.v1.WorkerServiceGrpc.WorkerServiceBlockingStub;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * A member of a group, over any number of streams.
 *
 * <p>A notification that it was leased is a job: it waits for its turn, is handled, and is settled,
 * which is to tell the gateway and hear that it knows. Jobs that wait are dropped when the stream
 * breaks, because the gateway then gives them to others. Those that were begun go on, and are settled
 * with whichever gateway answers.
 */
public final class Worker {
  private static final System.Logger logger = System.getLogger("com.linksgate");
  private static final int MAX_LEASES = 1024; // in flight, and in one call
  private static final long CALL_TIME = 10_000; // ms for a call that settles or extends leases
  private static final long SETTLE_TIME = 5_000; // to settle what is left after the grace time
  private static final long LEAVE_TIME = 2_000; // for the gateway to end the stream
  private static final long NEWLY_JOINED = 2_000; // how old "the lease is over" may be
  private static final long DOUBT_TIME = 500;
  private static final long LOOK = 50; // ms between two looks at what is to be extended

  private final LinksgateClient client;
  private final Handler handler;
  private final ConsumeRequest request;
  private final int parallel;
  private final Duration grace;
  private final Duration silence;
  private final Link link;
  private final ExecutorService handlers;
  private final CountDownLatch stop = new CountDownLatch(1);
  private final CountDownLatch over = new CountDownLatch(1); // there will be no stream any more
  private final CountDownLatch done = new CountDownLatch(1); // ends everything in the background

  // All of these belong to the lock of this.
  private final Map<String, Job> jobs = new HashMap<>();
  private final ArrayDeque<Job> waiting = new ArrayDeque<>();
  private final ArrayList<Job> finished = new ArrayList<>();
  private int running;
  private Duration lease = Duration.ofSeconds(30);
  private String member = "";
  private long joinedAt;
  private boolean leaving;
  private boolean holding; // what is given back now would come again at once
  private RuntimeException fatal;

  private Worker(Builder b, Handler handler) {
    this.client = b.client;
    this.handler = handler;
    this.parallel = b.parallel;
    this.grace = b.grace;
    this.silence = b.heartbeat.multipliedBy(3);
    this.link = new Link(b.client);
    this.handlers = Executors.newFixedThreadPool(b.parallel);
    this.request =
        ConsumeRequest.newBuilder()
            .setGroupName(b.group)
            .setMaxInFlight(Math.min(2 * b.parallel, MAX_LEASES))
            .setHeartbeatInterval(Times.of(b.heartbeat))
            .setClientName(b.clientName)
            .build();
  }

  /** Options of a worker. */
  public static final class Builder {
    private final LinksgateClient client;
    private final String group;
    private int parallel = 4;
    private Duration grace = Duration.ofSeconds(30);
    private Duration heartbeat = Duration.ofSeconds(10);
    private String clientName = "";

    Builder(LinksgateClient client, String group) {
      this.client = client;
      this.group = group;
    }

    /** How many handlers may run at once, from 1 to 1024. It has up to twice as many leases. */
    public Builder parallel(int n) {
      if (n < 1 || n > MAX_LEASES) {
        throw new IllegalArgumentException("parallel is " + n + "; it must be from 1 to 1024");
      }
      parallel = n;
      return this;
    }

    /** How long handlers may take to end when it stops; default 30 s. Then they are interrupted. */
    public Builder grace(Duration time) {
      grace = time;
      return this;
    }

    /** As of a subscription. */
    public Builder heartbeat(Duration interval) {
      heartbeat = interval;
      return this;
    }

    /** Is shown by the gateway. At most 100 bytes of printable ASCII. */
    public Builder clientName(String name) {
      clientName = name;
      return this;
    }

    /** Works with this handler: {@link Worker#run} begins. */
    public Worker with(Handler handler) {
      return new Worker(this, handler);
    }

    /** Works with this handler until the thread is interrupted. */
    public void handle(Handler.Simple handler) throws InterruptedException, TimeoutException {
      with(Handler.of(handler)).run();
    }
  }

  /** Has {@link #run} stop gracefully, and return. May be called from any thread. */
  public void stop() {
    stop.countDown();
  }

  /**
   * Is a member of the group until {@link #stop}, an interrupt, or what coming back cannot mend: then it
   * throws that {@link LinksgateException}. Either way it begins nothing more, lets handlers end within
   * the grace time, and settles what they did.
   *
   * @throws InterruptedException after having stopped gracefully
   * @throws TimeoutException if handlers took longer than the grace time, or the gateway could not be
   *     told of everything: then that comes again
   */
  public void run() throws InterruptedException, TimeoutException {
    List<Thread> background =
        List.of(thread("stream", this::stream), thread("settle", this::settleAll),
            thread("extend", this::extendAll));
    background.forEach(Thread::start);
    boolean interrupted = false;
    try {
      while (stop.getCount() > 0 && over.getCount() > 0) {
        stop.await(20, TimeUnit.MILLISECONDS);
      }
    } catch (InterruptedException e) {
      interrupted = true;
    }
    int cut;
    int left;
    try {
      if (over.getCount() > 0) {
        leave();
        over.await(LEAVE_TIME, TimeUnit.MILLISECONDS);
      }
      stopBeginning();
      cut = awaitHandlers();
      left = awaitSettled();
    } finally {
      done.countDown();
      link.close();
      handlers.shutdownNow();
      background.forEach(Thread::interrupt);
    }
    synchronized (this) {
      if (fatal != null) {
        throw fatal;
      }
    }
    if (interrupted) {
      throw new InterruptedException("stopped");
    }
    if (cut > 0) {
      throw new TimeoutException(cut + " handlers took longer than " + grace);
    }
    if (left > 0) {
      throw new TimeoutException(
          "the gateway could not be told of " + left + " notifications: they come again");
    }
  }

  private interface Body {
    void run() throws InterruptedException;
  }

  private static Thread thread(String name, Body body) {
    Thread thread =
        new Thread(
            () -> {
              try {
                body.run();
              } catch (InterruptedException e) {
                return; // the worker has ended
              }
            },
            "linksgate-" + name);
    thread.setDaemon(true);
    return thread;
  }

  private boolean sleep(long millis) throws InterruptedException {
    return !done.await(millis, TimeUnit.MILLISECONDS);
  }

  private WorkerServiceBlockingStub calls(ManagedChannel channel, long millis) {
    return WorkerServiceGrpc.newBlockingStub(channel)
        .withCallCredentials(client.credentials())
        .withDeadlineAfter(millis, TimeUnit.MILLISECONDS);
  }

  // Leaving.

  private void leave() {
    String id;
    synchronized (this) {
      leaving = holding = true;
      id = member;
    }
    if (!id.isEmpty()) {
      LeaveRequest leave =
          LeaveRequest.newBuilder().setGroupName(request.getGroupName()).setMemberId(id).build();
      try {
        calls(link.get(), LEAVE_TIME).leave(leave);
      } catch (IOException | StatusRuntimeException e) { // gone, and with it the membership
        logger.log(System.Logger.Level.INFO, "leaving without the gateway''s word: {0}", e);
      }
    }
    synchronized (this) {
      holding = false;
    }
    stopBeginning();
  }

  private synchronized void stopBeginning() {
    leaving = true;
    releaseWaiting();
  }

  private void releaseWaiting() {
    for (Job job : waiting) {
      job.state = Job.State.FINISHED;
      job.released = true;
      finished.add(job);
    }
    waiting.clear();
    notifyAll();
  }

  /** Waits until nothing is handled any more, and returns how many handlers were cut off. */
  private int awaitHandlers() throws InterruptedException {
    if (awaitIdle(grace.toMillis())) {
      return 0;
    }
    int cut;
    synchronized (this) {
      cut = running;
      for (Job job : jobs.values()) {
        if (job.state == Job.State.RUNNING) {
          job.handling.cancel(true);
        }
      }
    }
    awaitIdle(SETTLE_TIME);
    synchronized (this) {
      for (Job job : jobs.values()) {
        if (job.state == Job.State.RUNNING) {
          finish(job, new TimeoutException("the grace time is over"));
        }
      }
    }
    return cut;
  }

  private synchronized boolean awaitIdle(long millis) throws InterruptedException {
    long deadline = System.nanoTime() + millis * 1_000_000;
    while (running > 0) {
      long left = (deadline - System.nanoTime()) / 1_000_000;
      if (left <= 0) {
        return false;
      }
      wait(left);
    }
    return true;
  }

  private synchronized int awaitSettled() throws InterruptedException {
    long deadline = System.nanoTime() + SETTLE_TIME * 1_000_000;
    while (!jobs.isEmpty() && System.nanoTime() < deadline) {
      wait(10);
    }
    return jobs.size();
  }

  // Streams.

  private void stream() throws InterruptedException {
    try {
      for (int failures = 0; ; ) {
        StreamEnd end = new StreamEnd();
        streamOnce(end);
        synchronized (this) {
          if (end.fatal != null || leaving) {
            fatal = end.fatal;
            return;
          }
        }
        failures = end.progressed ? 0 : failures + 1;
        long wait = end.waitMillis(failures);
        logger.log(System.Logger.Level.INFO, "joining again in {0} ms: {1}", wait, end.cause);
        if (!sleep(wait)) {
          return;
        }
      }
    } finally {
      over.countDown();
    }
  }

  private void streamOnce(StreamEnd end) throws InterruptedException {
    ManagedChannel channel = null;
    boolean planned = false;
    try {
      channel = link.get();
      try (Frames<ConsumeResponse> frames =
          new Frames<>(channel, client, WorkerServiceGrpc.getConsumeMethod(), request, silence)) {
        for (; ; ) {
          Frames.Item<ConsumeResponse> item = frames.next(() -> {});
          if (item.status() != null) {
            end.by(item.status().isOk() ? new Frames.Item<>(null, Status.UNAVAILABLE, null) : item);
            break;
          }
          end.progressed = true;
          ConsumeResponse response = item.frame();
          switch (response.getFrameCase()) {
            case JOINED:
              joined(response.getJoined());
              break;
            case LEASES:
              takeAll(response.getLeases().getLeasesList());
              break;
            case CLOSING:
              Closing closing = response.getClosing();
              planned = closing.getReason() != ClosingReason.CLOSING_REASON_GROUP_MOVED;
              end.delay = Times.of(closing.getReconnectAfter());
              end.cause = "the gateway ends the stream";
              break;
            default:
              break;
          }
        }
      }
    } catch (InterruptedException e) {
      throw e;
    } catch (Exception e) {
      end.cause = e.toString();
    }
    parted(planned);
    synchronized (this) {
      if (leaving) {
        return;
      }
    }
    link.next(channel);
  }

  private synchronized void joined(GroupJoined joined) {
    member = joined.getMemberId();
    joinedAt = System.nanoTime();
    if (joined.getGroup().hasLeaseDuration()) {
      lease = Times.of(joined.getGroup().getLeaseDuration());
    }
    for (Job job : jobs.values()) { // whether they are still ours is for the gateway to say
      job.extendAt = joinedAt;
    }
  }

  /** Without a planned end, what was not begun has gone back to the group. */
  private synchronized void parted(boolean planned) {
    member = "";
    if (!planned) {
      waiting.forEach(job -> jobs.remove(job.id()));
      waiting.clear();
    }
  }

  private synchronized void takeAll(List<Lease> leases) {
    leases.forEach(this::take);
    if (leaving) {
      releaseWaiting();
    }
    begin();
  }

  /**
   * Adds a job. A notification that is one already was leased to us again because the gateway did not
   * know that it is ours: then the job settles the new lease.
   */
  private void take(Lease lease) {
    Job job = jobs.get(lease.getNotification().getId());
    if (job == null) {
      job = new Job(lease);
      jobs.put(job.id(), job);
      waiting.add(job);
    } else if (job.lost || job.state == Job.State.FINISHED) {
      job.next = lease;
      return;
    } else {
      job.adopt(lease);
    }
    job.extendAt = System.nanoTime() + half(job);
  }

  /**
   * Nanoseconds to the middle of a lease. The gateway's clock may differ from ours, so the shorter of
   * what both say counts.
   */
  private long half(Job job) {
    long left = Math.max(Duration.between(Instant.now(), job.expires).toNanos(), 1_000_000_000L);
    return Math.min(left, lease.toNanos()) / 2;
  }

  // Handlers.

  private void begin() {
    while (!waiting.isEmpty() && running < parallel && !leaving) {
      Job job = waiting.poll();
      job.state = Job.State.RUNNING;
      running++;
      job.handling = handlers.submit(() -> handle(job));
    }
  }

  private void handle(Job job) {
    Throwable error = null;
    try {
      handler.handle(job.delivery);
    } catch (Throwable e) { // one notification must not end the work on all others
      error = e;
    }
    synchronized (this) {
      running--;
      if (job.state == Job.State.RUNNING) {
        finish(job, error);
      }
      begin();
      notifyAll();
    }
  }

  private void finish(Job job, Throwable error) {
    job.state = Job.State.FINISHED;
    job.error = error;
    if (job.lost) {
      forget(job);
    } else {
      finished.add(job);
    }
    notifyAll();
  }

  private void forget(Job job) {
    jobs.remove(job.id());
    if (job.next != null) {
      take(job.next);
    }
  }

  // Settling.

  private void settleAll() throws InterruptedException {
    int failures = 0;
    while (done.getCount() > 0) {
      List<Job> some;
      synchronized (this) {
        if (finished.isEmpty() || holding) {
          wait(100);
          continue;
        }
        List<Job> first = finished.subList(0, Math.min(finished.size(), MAX_LEASES));
        some = new ArrayList<>(first);
        first.clear();
      }
      some.sort(Comparator.comparing(job -> !job.acknowledges()));
      if (settle(some)) {
        failures = 0;
      } else if (!sleep(Math.min(10 + Times.backOff(failures++), 1000))) {
        return;
      }
    }
  }

  private boolean settle(List<Job> some) {
    AcknowledgeRequest.Builder acknowledge =
        AcknowledgeRequest.newBuilder().setGroupName(request.getGroupName());
    RejectRequest.Builder reject = RejectRequest.newBuilder().setGroupName(request.getGroupName());
    synchronized (this) {
      for (Job job : some) {
        if (job.acknowledges()) {
          acknowledge.addLeaseTokens(job.token);
        } else {
          reject.addRejections(job.rejection());
        }
      }
    }
    List<LeaseResult> results = new ArrayList<>();
    boolean refused = false;
    ManagedChannel channel = null;
    try {
      channel = link.get();
      if (acknowledge.getLeaseTokensCount() > 0) {
        var answer = calls(channel, CALL_TIME).acknowledge(acknowledge.build());
        results.addAll(answer.getResultsList());
      }
      if (reject.getRejectionsCount() > 0) {
        results.addAll(calls(channel, CALL_TIME).reject(reject.build()).getResultsList());
      }
    } catch (IOException | StatusRuntimeException e) {
      refused = isRefusal(e);
      logger.log(System.Logger.Level.WARNING, "leases not settled: {0}", e);
      synchronized (this) {
        if (member.isEmpty() && !refused) { // nobody else looks for a gateway that answers
          link.next(channel);
        }
      }
    }
    boolean all = true;
    synchronized (this) {
      for (int i = 0; i < some.size(); i++) {
        LeaseOutcome said = // when the group is gone there is nothing to settle
            i < results.size()
                ? results.get(i).getOutcome()
                : refused
                    ? LeaseOutcome.LEASE_OUTCOME_INVALID
                    : LeaseOutcome.LEASE_OUTCOME_UNAVAILABLE;
        all &= settled(some.get(i), said);
      }
      begin();
      notifyAll();
    }
    return all;
  }

  private static boolean isRefusal(Exception e) {
    return e instanceof StatusRuntimeException s
        && LinksgateException.Details.of(s.getStatus(), s.getTrailers()).refusal() != null;
  }

  /** Takes in what the gateway said of a job: false if it is to be settled again. */
  private boolean settled(Job job, LeaseOutcome said) {
    boolean unavailable = said == LeaseOutcome.LEASE_OUTCOME_UNAVAILABLE;
    if (said == LeaseOutcome.LEASE_OUTCOME_OK) {
      if (job.acknowledges()) {
        job.next = null;
      }
      forget(job); // for another attempt, if it came
      return true;
    }
    if (!unavailable && job.next != null) { // leased to us again, as it was not known
      job.adopt(job.next);
      job.next = null;
    } else if (!(unavailable && Instant.now().isBefore(job.expires.plus(lease)))
        && !doubt(job, said)) {
      if (!job.released) {
        logger.log(
            System.Logger.Level.WARNING, "{0} was settled too late: it comes again", job.id());
      }
      jobs.remove(job.id());
      return true;
    }
    finished.add(job);
    return false;
  }

  /**
   * Whether to ask again before a lease counts as over. A gateway that was restarted leases to a member,
   * as soon as it has joined, what the member is working on; the word of that may come after the word
   * that the lease before it is over.
   */
  private boolean doubt(Job job, LeaseOutcome said) {
    boolean longAgo =
        !member.isEmpty() && System.nanoTime() - joinedAt > NEWLY_JOINED * 1_000_000;
    if (said != LeaseOutcome.LEASE_OUTCOME_STALE || job.doubted || longAgo || leaving) {
      return false;
    }
    job.doubted = true;
    return true;
  }

  private void extendAll() throws InterruptedException {
    while (sleep(LOOK)) {
      List<Job> due = new ArrayList<>();
      List<String> tokens = new ArrayList<>();
      synchronized (this) {
        long now = System.nanoTime();
        for (Job job : jobs.values()) {
          boolean open = job.state != Job.State.FINISHED && !job.lost;
          if (open && now - job.extendAt >= 0 && due.size() < MAX_LEASES) {
            due.add(job);
            tokens.add(job.token);
          }
        }
      }
      if (!due.isEmpty()) {
        extend(due, tokens);
      }
    }
  }

  private void extend(List<Job> due, List<String> tokens) {
    ExtendLeasesRequest extend =
        ExtendLeasesRequest.newBuilder()
            .setGroupName(request.getGroupName())
            .addAllLeaseTokens(tokens)
            .build();
    List<LeaseResult> results = List.of();
    try {
      results = calls(link.get(), CALL_TIME).extendLeases(extend).getResultsList();
    } catch (IOException | StatusRuntimeException e) {
      logger.log(System.Logger.Level.WARNING, "leases not extended: {0}", e);
    }
    synchronized (this) {
      long now = System.nanoTime();
      for (int i = 0; i < due.size(); i++) {
        Job job = due.get(i);
        boolean stays = jobs.get(job.id()) == job && job.state != Job.State.FINISHED;
        if (!stays || !job.token.equals(tokens.get(i))) {
          continue; // leased again, finished or gone meanwhile
        }
        LeaseOutcome said =
            i < results.size()
                ? results.get(i).getOutcome()
                : LeaseOutcome.LEASE_OUTCOME_UNAVAILABLE;
        if (said == LeaseOutcome.LEASE_OUTCOME_OK) {
          job.expires = Times.of(results.get(i).getExpiresAt());
          job.extendAt = now + half(job);
        } else if (said == LeaseOutcome.LEASE_OUTCOME_UNAVAILABLE) {
          job.extendAt = now + Math.max(lease.toNanos() / 16, LOOK * 1_000_000);
        } else if (doubt(job, said)) {
          job.extendAt = now + DOUBT_TIME * 1_000_000;
        } else {
          lose(job);
        }
      }
    }
  }

  private void lose(Job job) {
    if (job.state == Job.State.WAITING) {
      waiting.remove(job);
      jobs.remove(job.id());
      return;
    }
    logger.log(
        System.Logger.Level.WARNING,
        "the lease of {0} is over: another worker may have it",
        job.id());
    job.lost = true;
    job.handling.cancel(true);
  }
}
