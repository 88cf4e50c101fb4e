package com.linksgate;

import java.io.IOException;
import java.util.Optional;

/**
 * Remembers the resume token up to which everything was handled.
 *
 * <p>To have it together with the effect, in one transaction of a database, do without: store {@code
 * notification.getToken()} in the transaction, and pass the stored token with {@link
 * SubscribeOptions.Builder#after}.
 */
public interface Checkpoint {
  /** The token; empty if none was stored. */
  Optional<String> load() throws IOException;

  /** Returns only when the token will be loaded, also after a crash. */
  void store(String token) throws IOException;

  /** Keeps the token for as long as it is referred to. */
  static Checkpoint inMemory() {
    return new Checkpoint() {
      private volatile String token;

      @Override
      public Optional<String> load() {
        return Optional.ofNullable(token);
      }

      @Override
      public void store(String token) {
        this.token = token;
      }
    };
  }
}
