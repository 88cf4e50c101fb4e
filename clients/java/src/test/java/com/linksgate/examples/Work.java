package com.linksgate.examples;

import com.linksgate.Delivery;
import com.linksgate.Handler;
import com.linksgate.LinksgateClient;
import com.linksgate.Worker;
import com.linksgate.v1.SmsReceived;
import java.io.IOException;
import java.net.ConnectException;
import java.time.Duration;

/**
 * Takes part in the group "sms". Create it first: {@code linksgate group create sms --kind sms-received
 * --ordering by-sim}
 */
public final class Work {
  /** Runs it. */
  public static void main(String[] args) throws Exception {
    Worker worker =
        LinksgateClient.of("localhost:9090").worker("sms").parallel(8).with(Work::handle);
    Thread main = Thread.currentThread();
    Runtime.getRuntime()
        .addShutdownHook(
            new Thread(
                () -> {
                  worker.stop();
                  try {
                    main.join();
                  } catch (InterruptedException e) {
                    return;
                  }
                }));
    worker.run();
  }

  private static void handle(Delivery d) throws Exception {
    SmsReceived sms = d.notification().getSmsReceived();
    if (sms.getText().isEmpty()) {
      throw new Handler.Park("an SMS without a text");
    }
    try {
      answer(sms.getIccid(), sms.getText());
    } catch (ConnectException e) {
      throw new Handler.EverythingIsDown(Duration.ofSeconds(30), e.getMessage());
    }
  }

  /** Stands for what your service does. */
  private static void answer(String iccid, String text) throws IOException {
    System.out.println(iccid + " " + text);
  }
}
