package com.linksgate.examples;

import com.linksgate.LinksgateClient;
import com.linksgate.SubscribeOptions;
import com.linksgate.Subscription;
import com.linksgate.v1.Notification;
import com.linksgate.v1.NotificationKind;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;

/**
 * Writes each SMS into a database, exactly once: the resume token is stored in the transaction of the
 * row.
 */
public final class Sqlite {
  /** Runs it. */
  public static void main(String[] args) throws SQLException {
    try (Connection database = DriverManager.getConnection("jdbc:sqlite:sms.db")) {
      SubscribeOptions.Builder options =
          SubscribeOptions.builder()
              .earliest()
              .kinds(NotificationKind.NOTIFICATION_KIND_SMS_RECEIVED);
      try (Statement s = database.createStatement()) {
        s.execute("CREATE TABLE IF NOT EXISTS sms (id TEXT PRIMARY KEY, iccid TEXT, text TEXT)");
        s.execute("CREATE TABLE IF NOT EXISTS position (one INTEGER PRIMARY KEY, token TEXT)");
        ResultSet row = s.executeQuery("SELECT token FROM position");
        if (row.next()) {
          options.after(row.getString(1));
        }
      }
      database.setAutoCommit(false);
      LinksgateClient client = LinksgateClient.of("localhost:9090");
      try (Subscription subscription = client.subscribe(options.build())) {
        for (Notification n : subscription) {
          store(database, n);
        }
      }
    }
  }

  private static void store(Connection database, Notification n) throws SQLException {
    try (PreparedStatement insert = database.prepareStatement("INSERT INTO sms VALUES (?, ?, ?)");
        PreparedStatement move =
            database.prepareStatement("INSERT OR REPLACE INTO position VALUES (1, ?)")) {
      insert.setString(1, n.getId());
      insert.setString(2, n.getSmsReceived().getIccid());
      insert.setString(3, n.getSmsReceived().getText());
      insert.executeUpdate();
      move.setString(1, n.getToken());
      move.executeUpdate();
      database.commit();
    }
  }
}
