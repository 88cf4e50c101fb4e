package com.linksgate.conformance;

import com.google.gson.Gson;
import com.google.gson.JsonObject;
import com.linksgate.Delivery;
import com.linksgate.FileCheckpoint;
import com.linksgate.Handler;
import com.linksgate.LinksgateClient;
import com.linksgate.LinksgateException;
import com.linksgate.SubscribeOptions;
import com.linksgate.Subscription;
import com.linksgate.Worker;
import com.linksgate.v1.Notification;
import com.linksgate.v1.NotificationServiceGrpc;
import com.linksgate.v1.Start;
import com.linksgate.v1.SubscribeRequest;
import com.linksgate.v1.SubscribeResponse;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import java.util.Iterator;
import com.linksgate.v1.NotificationKind;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/** The Java harness of the conformance suite; see ../../conformance/README.md. */
public final class Harness {
  private static final Gson gson = new Gson();
  private static final PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
  private static final CountDownLatch stop = new CountDownLatch(1);
  private static final CountDownLatch said = new CountDownLatch(1);

  private final JsonObject order;

  private Harness(JsonObject order) {
    this.order = order;
  }

  /** Runs one scenario. */
  public static void main(String[] args) throws Exception {
    BufferedReader in =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    Harness harness = new Harness(gson.fromJson(in.readLine(), JsonObject.class));
    Thread listening = new Thread(() -> listen(in));
    listening.setDaemon(true);
    listening.start();
    Runtime.getRuntime().addShutdownHook(new Thread(Harness::terminated));
    Throwable error = null;
    try {
      harness.run();
    } catch (Exception e) {
      error = e;
    }
    LinksgateException typed = error instanceof LinksgateException e ? e : null;
    String name = error == null ? "" : typed == null ? "Other" : typed.getClass().getSimpleName();
    say("stopped", "error", name, "detail", error == null ? "" : String.valueOf(error),
        "first_available_token", typed == null ? "" : typed.firstAvailableToken());
    said.countDown();
    Runtime.getRuntime().halt(0);
  }

  private static void listen(BufferedReader in) {
    try {
      for (String line = in.readLine(); line != null; line = in.readLine()) {
        if (line.contains("\"stop\"")) {
          stop.countDown();
        }
      }
    } catch (IOException e) {
      stop.countDown();
    }
  }

  private static void terminated() {
    stop.countDown();
    try {
      said.await(60, TimeUnit.SECONDS);
    } catch (InterruptedException e) {
      return;
    }
  }

  private static synchronized void say(String event, Object... members) {
    Map<String, Object> line = new LinkedHashMap<>();
    line.put("event", event);
    for (int i = 0; i < members.length; i += 2) {
      line.put((String) members[i], members[i + 1]);
    }
    out.println(gson.toJson(line));
  }

  private String text(String member) {
    return order.has(member) ? order.get(member).getAsString() : "";
  }

  private int number(String member, int otherwise) {
    return order.has(member) ? order.get(member).getAsInt() : otherwise;
  }

  private String[] list(String member) {
    List<String> all = new ArrayList<>();
    if (order.has(member)) {
      order.getAsJsonArray(member).forEach(e -> all.add(e.getAsString()));
    }
    return all.toArray(new String[0]);
  }

  private LinksgateClient client() {
    LinksgateClient.Builder b = LinksgateClient.builder().addresses(List.of(list("addresses")));
    if (!text("token").isEmpty()) {
      b.token(text("token"));
    }
    if (!text("token_file").isEmpty()) {
      b.tokenFile(Path.of(text("token_file")));
    }
    if (!text("ca_file").isEmpty()) {
      b.caFile(Path.of(text("ca_file")));
    }
    if (!text("cert_file").isEmpty()) {
      b.certificate(Path.of(text("cert_file")), Path.of(text("key_file")));
    }
    return b.build();
  }

  private void measure() {
    int count = 0;
    long began = 0;
    int most = number("max_batch", 64);
    if (text("mode").equals("replay")) {
      SubscribeOptions options =
          SubscribeOptions.builder().earliest().untilHead().maxBatch(most).build();
      try (Subscription subscription = client().subscribe(options)) {
        while (subscription.hasNext()) {
          subscription.next();
          if (count++ == 0) {
            began = System.nanoTime();
          }
        }
      }
    } else {
      ManagedChannel channel =
          Grpc.newChannelBuilder(list("addresses")[0], InsecureChannelCredentials.create())
              .maxInboundMessageSize(64 << 20)
              .build();
      SubscribeRequest request =
          SubscribeRequest.newBuilder()
              .setStart(Start.newBuilder().setEarliest(true))
              .setUntilHead(true)
              .setMaxBatch(most)
              .build();
      Iterator<SubscribeResponse> frames =
          NotificationServiceGrpc.newBlockingStub(channel).subscribe(request);
      while (frames.hasNext()) {
        int notifications = frames.next().getBatch().getNotificationsCount();
        if (count == 0 && notifications > 0) {
          began = System.nanoTime();
        }
        count += notifications;
      }
    }
    say("stopped", "error", "", "count", count, "seconds", (System.nanoTime() - began) / 1e9);
    Runtime.getRuntime().halt(0);
  }

  private void run() throws Exception {
    if (text("mode").equals("replay") || text("mode").equals("bare")) {
      measure();
    }
    if (!text("mode").equals("work")) {
      subscribe();
      return;
    }
    Worker worker =
        client()
            .worker(text("group"))
            .parallel(number("parallel", 4))
            .grace(Duration.ofMillis(number("grace_ms", 30_000)))
            .heartbeat(Duration.ofMillis(number("heartbeat_ms", 10_000)))
            .clientName(text("client_name"))
            .with(Harness::handle);
    Thread stopping =
        new Thread(
            () -> {
              try {
                stop.await();
                worker.stop();
              } catch (InterruptedException e) {
                return;
              }
            });
    stopping.setDaemon(true);
    stopping.start();
    worker.run();
  }

  private SubscribeOptions options() {
    SubscribeOptions.Builder b =
        SubscribeOptions.builder()
            .accounts(list("accounts"))
            .iccids(list("iccids"))
            .maxBatch(number("max_batch", 64))
            .heartbeat(Duration.ofMillis(number("heartbeat_ms", 10_000)))
            .clientName(text("client_name"));
    for (String kind : list("kinds")) {
      b.kinds(NotificationKind.valueOf("NOTIFICATION_KIND_" + kind));
    }
    if (text("start").equals("earliest")) {
      b.earliest();
    } else if (text("start").startsWith("after:")) {
      b.after(text("start").substring("after:".length()));
    }
    if (!text("checkpoint").isEmpty()) {
      b.checkpoint(new FileCheckpoint(Path.of(text("checkpoint"))));
    }
    if (text("on_gap").equals("continue")) {
      b.continueAfterGaps(
          gap -> say("gap", "reason", gap.getReason().name().replace("GAP_REASON_", "")));
    }
    if (order.has("until_head") && order.get("until_head").getAsBoolean()) {
      b.untilHead();
    }
    return b.build();
  }

  private void subscribe() throws Exception {
    int count = 0;
    try (Subscription subscription = client().subscribe(options())) {
      Thread stopping =
          new Thread(
              () -> {
                try {
                  stop.await();
                  subscription.close();
                } catch (InterruptedException e) {
                  return;
                }
              });
      stopping.setDaemon(true);
      stopping.start();
      for (Notification n : subscription) {
        int bytes =
            n.hasBody()
                ? n.getBody().getBytes(StandardCharsets.UTF_8).length
                : n.getBinaryBody().size();
        say("notification", "id", n.getId(), "sequence", n.getSequence(), "token", n.getToken(),
            "text", n.getSmsReceived().getText(), "body_bytes", bytes);
        if (++count == number("fail_at", 0)) {
          Runtime.getRuntime().halt(3);
        }
        stop.await(number("handler_ms", 0), TimeUnit.MILLISECONDS);
        say("handled", "id", n.getId());
      }
    }
  }

  private static void handle(Delivery d) throws Exception {
    Notification n = d.notification();
    String text = n.getSmsReceived().getText();
    String iccid = n.getSmsReceived().getIccid();
    say("begin", "id", n.getId(), "attempt", d.attempt(), "iccid", iccid, "text", text);
    String[] words = text.split(" ");
    Duration time = Duration.ofMillis(words.length > 1 ? Integer.parseInt(words[1]) : 0);
    boolean first = d.attempt() == 1;
    String outcome = "ok";
    try {
      if (words[0].equals("fail")
          || words[0].equals("panic")
          || words[0].equals("fail-once") && first) {
        outcome = "fail";
        throw new IllegalStateException("asked to fail");
      }
      if (words[0].equals("park")) {
        outcome = "park";
        throw new Handler.Park("asked to");
      }
      if (words[0].equals("retry") && first) {
        outcome = "retry";
        throw new Handler.RetryAfter(time, "asked to");
      }
      if (words[0].equals("down") && first) {
        outcome = "down";
        throw new Handler.EverythingIsDown(time, "asked to");
      }
      if (words[0].equals("sleep")) {
        Thread.sleep(time.toMillis());
      }
    } catch (InterruptedException e) {
      outcome = "cancelled";
      throw e;
    } finally {
      say("end", "id", n.getId(), "outcome", outcome);
    }
  }
}
