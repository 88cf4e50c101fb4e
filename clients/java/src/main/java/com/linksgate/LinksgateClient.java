package com.linksgate;

import com.linksgate.v1.Notification;
import io.grpc.CallCredentials;
import io.grpc.ChannelCredentials;
import io.grpc.ClientInterceptor;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.TlsChannelCredentials;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.Executor;
import java.util.concurrent.Flow;
import java.util.concurrent.TimeUnit;

/**
 * How to reach the gateways of one log. Each subscription and each worker has a connection of its own,
 * so there is nothing to close here.
 */
public final class LinksgateClient {
  /** Version of this client. */
  public static final String VERSION = "0.1.0";

  private static final int MAX_MESSAGE = 64 << 20; // 512 of the largest notifications fit
  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  private final Builder options;

  private LinksgateClient(Builder options) {
    this.options = options;
  }

  /** A client of the gateways at some addresses, {@code HOST:PORT} each, in plain text. */
  public static LinksgateClient of(String... addresses) {
    return builder().addresses(List.of(addresses)).build();
  }

  /** A client with more options. */
  public static Builder builder() {
    return new Builder();
  }

  /**
   * Notifications in the order of the log. It comes back over broken connections, frozen and restarted
   * gateways. A notification counts as handled when the next one is asked for; one at which a loop
   * breaks off does not. It throws a {@link LinksgateException} when coming back cannot mend it.
   *
   * <p>Close it. It is for one thread, but may be closed from another one.
   */
  public Subscription subscribe(SubscribeOptions options) {
    return new Subscription(this, options);
  }

  /** The same as a publisher: each subscriber has a subscription, and a thread, of its own. */
  public Flow.Publisher<Notification> publisher(SubscribeOptions options) {
    return subscriber -> new Publishing(subscribe(options), subscriber).begin();
  }

  /** Work in a group. */
  public Worker.Builder worker(String group) {
    return new Worker.Builder(this, group);
  }

  List<String> addresses() {
    return options.addresses;
  }

  /** A new connection, with what the files hold now. It connects at the first call. */
  ManagedChannel connect(String address) throws IOException {
    ChannelCredentials credentials = InsecureChannelCredentials.create();
    if (options.tls) {
      TlsChannelCredentials.Builder tls = TlsChannelCredentials.newBuilder();
      if (options.caFile != null) {
        tls.trustManager(options.caFile.toFile());
      }
      if (options.certFile != null) {
        tls.keyManager(options.certFile.toFile(), options.keyFile.toFile());
      }
      credentials = tls.build();
    }
    return Grpc.newChannelBuilder(address, credentials)
        .userAgent("linksgate-java/" + VERSION)
        .maxInboundMessageSize(MAX_MESSAGE)
        .keepAliveTime(30, TimeUnit.SECONDS)
        .keepAliveTimeout(10, TimeUnit.SECONDS)
        .intercept(options.interceptors)
        .build();
  }

  /** The credential of each call; null if there is none. */
  CallCredentials credentials() {
    return options.token == null ? null : new Bearer(options.token);
  }

  private static final class Bearer extends CallCredentials {
    private final Callable<String> token;

    Bearer(Callable<String> token) {
      this.token = token;
    }

    @Override
    public void applyRequestMetadata(RequestInfo info, Executor executor, MetadataApplier applier) {
      executor.execute(
          () -> {
            try {
              Metadata headers = new Metadata();
              headers.put(AUTHORIZATION, "Bearer " + token.call());
              applier.apply(headers);
            } catch (Exception e) { // a file that cannot be read now may be later
              applier.fail(Status.UNAVAILABLE.withDescription("token: " + e).withCause(e));
            }
          });
    }
  }

  /** Options of a client. */
  public static final class Builder {
    private List<String> addresses = List.of();
    private boolean tls;
    private Path caFile;
    private Path certFile;
    private Path keyFile;
    private Callable<String> token;
    private final List<ClientInterceptor> interceptors = new ArrayList<>();

    private Builder() {}

    /** {@code HOST:PORT}, one or several, which are tried one after the other. */
    public Builder addresses(List<String> addresses) {
      this.addresses = List.copyOf(addresses);
      return this;
    }

    /** Connects with TLS and the system's certificate authorities. */
    public Builder tls() {
      tls = true;
      return this;
    }

    /** Connects with TLS and trusts the PEM certificates of a file, read for each connection. */
    public Builder caFile(Path file) {
      caFile = file;
      return tls();
    }

    /** Connects with TLS and a client certificate; the files are read for each connection. */
    public Builder certificate(Path certFile, Path keyFile) {
      this.certFile = certFile;
      this.keyFile = keyFile;
      return tls();
    }

    /**
     * Sends a bearer token. Over plain text it is refused, unless all addresses are of the loopback
     * interface.
     */
    public Builder token(String token) {
      return tokenSource(() -> token);
    }

    /** Sends the bearer token that is in a file, which is read for each call. */
    public Builder tokenFile(Path file) {
      return tokenSource(() -> Files.readString(file).strip());
    }

    /** Asks for the bearer token of each call. */
    public Builder tokenSource(Callable<String> source) {
      token = source;
      return this;
    }

    /** Adds an interceptor, such as OpenTelemetry's. */
    public Builder intercept(ClientInterceptor interceptor) {
      interceptors.add(interceptor);
      return this;
    }

    /** Throws IllegalArgumentException if the options cannot be meant. */
    public LinksgateClient build() {
      if (addresses.isEmpty()) {
        throw new IllegalArgumentException("no address");
      }
      for (String address : addresses) {
        if (!address.matches(".+:\\d+")) {
          throw new IllegalArgumentException("\"" + address + "\" is not HOST:PORT");
        }
        if (token != null && !tls && !isLoopback(address)) {
          throw new IllegalArgumentException(
              "a token would go to " + address + " in plain text; use TLS");
        }
      }
      return new LinksgateClient(this);
    }

    private static boolean isLoopback(String address) {
      String host = address.substring(0, address.lastIndexOf(':'));
      return host.equals("localhost") || host.equals("[::1]") || host.matches("127(\\.\\d+){3}");
    }
  }
}
