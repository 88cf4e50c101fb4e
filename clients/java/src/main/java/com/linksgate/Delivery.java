package com.linksgate;

import com.linksgate.v1.Notification;

/**
 * A notification that was leased to a worker.
 *
 * @param notification the notification
 * @param attempt from 1
 */
public record Delivery(Notification notification, int attempt) {}
