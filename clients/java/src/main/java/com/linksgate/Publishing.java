package com.linksgate;

import com.linksgate.v1.Notification;
import java.util.concurrent.Flow;
import java.util.concurrent.Semaphore;

/** A subscription on its way to a subscriber, in a thread of its own. */
final class Publishing implements Flow.Subscription, Runnable {
  private final Subscription subscription;
  private final Flow.Subscriber<? super Notification> subscriber;
  private final Semaphore demand = new Semaphore(0);
  private volatile boolean cancelled;
  private volatile Thread thread;

  Publishing(Subscription subscription, Flow.Subscriber<? super Notification> subscriber) {
    this.subscription = subscription;
    this.subscriber = subscriber;
  }

  void begin() {
    thread = new Thread(this, "linksgate-publisher");
    thread.setDaemon(true);
    subscriber.onSubscribe(this);
    thread.start();
  }

  @Override
  public void run() {
    try (subscription) {
      while (!cancelled) {
        demand.acquire();
        if (cancelled || !subscription.hasNext()) {
          break;
        }
        subscriber.onNext(subscription.next());
      }
    } catch (InterruptedException e) {
      return; // was cancelled
    } catch (RuntimeException e) {
      if (!cancelled) {
        subscriber.onError(e);
      }
      return;
    }
    if (!cancelled) {
      subscriber.onComplete();
    }
  }

  @Override
  public void request(long n) {
    if (n <= 0) {
      cancel();
      subscriber.onError(new IllegalArgumentException("request(" + n + ")"));
      return;
    }
    demand.release((int) Math.min(n, Integer.MAX_VALUE - demand.availablePermits()));
  }

  @Override
  public void cancel() {
    cancelled = true;
    thread.interrupt();
  }
}
