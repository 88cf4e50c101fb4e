package com.linksgate.examples;

import com.linksgate.FileCheckpoint;
import com.linksgate.LinksgateClient;
import com.linksgate.SubscribeOptions;
import com.linksgate.Subscription;
import com.linksgate.v1.Notification;
import com.linksgate.v1.NotificationKind;
import java.nio.file.Path;

/** Prints each SMS that a SIM sends, and goes on where it stopped. */
public final class Print {
  /** Runs it. */
  public static void main(String[] args) {
    SubscribeOptions options =
        SubscribeOptions.builder()
            .checkpoint(new FileCheckpoint(Path.of("print.token")))
            .earliest()
            .kinds(NotificationKind.NOTIFICATION_KIND_SMS_RECEIVED)
            .build();
    try (Subscription subscription = LinksgateClient.of("localhost:9090").subscribe(options)) {
      for (Notification n : subscription) {
        System.out.println(n.getSmsReceived().getIccid() + " " + n.getSmsReceived().getText());
      }
    }
  }
}
