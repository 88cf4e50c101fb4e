package com.linksgate;

import io.grpc.ManagedChannel;
import java.io.IOException;

/** The connection of one subscription or worker: to one gateway at a time. */
final class Link implements AutoCloseable {
  private final LinksgateClient client;
  private ManagedChannel channel;
  private int at;
  private boolean closed;

  Link(LinksgateClient client) {
    this.client = client;
  }

  synchronized ManagedChannel get() throws IOException {
    if (closed) {
      throw new IOException("closed");
    }
    if (channel == null) {
      channel = client.connect(client.addresses().get(at % client.addresses().size()));
    }
    return channel;
  }

  /** Leaves a connection for a new one, to the next address; once for each. */
  synchronized void next(ManagedChannel seen) {
    if (channel != seen) {
      return;
    }
    at++;
    drop();
  }

  private void drop() {
    if (channel != null) {
      channel.shutdownNow();
      channel = null;
    }
  }

  @Override
  public synchronized void close() {
    closed = true;
    drop();
  }
}
