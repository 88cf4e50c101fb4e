package com.linksgate;

import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.time.Duration;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/**
 * Reads the frames of a stream ahead, within a bound. Only the wait for a frame is timed: a handler that
 * is slow says nothing about the gateway.
 */
final class Frames<T> implements AutoCloseable {
  private static final int READ_AHEAD = 2;

  /** A frame, or how the stream ended. */
  record Item<T>(T frame, Status status, Metadata trailers) {}

  private final LinkedBlockingQueue<Item<T>> queue = new LinkedBlockingQueue<>();
  private final ClientCall<?, T> call;
  private volatile Duration silence;

  <Q> Frames(
      ManagedChannel channel,
      LinksgateClient client,
      MethodDescriptor<Q, T> method,
      Q request,
      Duration silence) {
    this.silence = silence;
    CallOptions options = CallOptions.DEFAULT.withCallCredentials(client.credentials());
    ClientCall<Q, T> call = channel.newCall(method, options);
    this.call = call;
    call.start(
        new ClientCall.Listener<T>() {
          @Override
          public void onMessage(T frame) {
            queue.add(new Item<>(frame, null, null));
          }

          @Override
          public void onClose(Status status, Metadata trailers) {
            queue.add(new Item<>(null, status, trailers));
          }
        },
        new Metadata());
    call.sendMessage(request);
    call.halfClose();
    call.request(READ_AHEAD);
  }

  void setSilence(Duration silence) {
    this.silence = silence;
  }

  /**
   * Waits for the next frame, or the end. {@code meanwhile} is called from time to time while it waits.
   */
  Item<T> next(Meanwhile meanwhile) throws Exception {
    long began = System.nanoTime();
    for (; ; ) {
      Item<T> item = queue.poll(250, TimeUnit.MILLISECONDS);
      if (item != null) {
        if (item.status() == null) {
          call.request(1);
        }
        return item;
      }
      meanwhile.call();
      if (System.nanoTime() - began > silence.toNanos()) {
        return new Item<>(
            null, Status.UNAVAILABLE.withDescription("no frame came for " + silence), null);
      }
    }
  }

  /** What is to be done while a frame is waited for. */
  interface Meanwhile {
    void call() throws Exception;
  }

  @Override
  public void close() {
    call.cancel("no more is wanted", null);
  }
}
