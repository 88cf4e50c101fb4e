package com.linksgate;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;

/** An answer of a gateway that ends a subscription or a worker: coming back cannot mend it. */
public class LinksgateException extends RuntimeException {
  private static final long serialVersionUID = 1L;
  private static final String DOMAIN = "linksgate";

  private final Status.Code code;
  private final String reason;
  private final String firstAvailableToken;
  private final HashMap<String, String> fields;

  private LinksgateException(Details details) {
    super(details.message);
    this.code = details.code;
    this.reason = details.reason;
    this.firstAvailableToken = details.firstAvailableToken;
    this.fields = details.fields;
  }

  /** The gRPC code of the call. */
  public Status.Code code() {
    return code;
  }

  /** One of the gateway's reasons ({@code ErrorReason}, without its prefix); empty if it gave none. */
  public String reason() {
    return reason;
  }

  /** Where to go on, if the gateway said so; else empty. */
  public String firstAvailableToken() {
    return firstAvailableToken;
  }

  /** What is wrong with the request, by field. */
  public Map<String, String> fields() {
    return Map.copyOf(fields);
  }

  /** The position is no longer retained; {@link #firstAvailableToken} is where the log begins. */
  public static final class Expired extends LinksgateException {
    private static final long serialVersionUID = 1L;

    Expired(Details details) {
      super(details);
    }
  }

  /** Notifications are corrupt, or the log lost its end, or is a copy that was restored. */
  public static final class DataLoss extends LinksgateException {
    private static final long serialVersionUID = 1L;

    DataLoss(Details details) {
      super(details);
    }
  }

  /** The token is of another log. */
  public static final class OtherLog extends LinksgateException {
    private static final long serialVersionUID = 1L;

    OtherLog(Details details) {
      super(details);
    }
  }

  /** The gateway does not take the request; {@link #fields} says why. */
  public static final class InvalidRequest extends LinksgateException {
    private static final long serialVersionUID = 1L;

    InvalidRequest(Details details) {
      super(details);
    }
  }

  /** The credential is missing, unknown, or lacks a right. */
  public static final class PermissionDenied extends LinksgateException {
    private static final long serialVersionUID = 1L;

    PermissionDenied(Details details) {
      super(details);
    }
  }

  /** There is no such group. */
  public static final class NotFound extends LinksgateException {
    private static final long serialVersionUID = 1L;

    NotFound(Details details) {
      super(details);
    }
  }

  /** What is at the address does not have this service. */
  public static final class Unsupported extends LinksgateException {
    private static final long serialVersionUID = 1L;

    Unsupported(Details details) {
      super(details);
    }
  }

  /** What a gateway says of an error. */
  static final class Details {
    Status.Code code = Status.Code.UNKNOWN;
    String message = "";
    String reason = "";
    String firstAvailableToken = "";
    final HashMap<String, String> fields = new HashMap<>();
    Duration retryAfter = Duration.ZERO;

    static Details of(Status status, Metadata trailers) {
      Details d = new Details();
      d.code = status.getCode();
      d.message = status.getDescription() == null ? "" : status.getDescription();
      com.google.rpc.Status said =
          StatusProto.fromStatusAndTrailers(status, trailers == null ? new Metadata() : trailers);
      try {
        for (Any detail : said.getDetailsList()) {
          d.add(detail);
        }
      } catch (InvalidProtocolBufferException e) {
        d.message += " (its details cannot be read)";
      }
      return d;
    }

    private void add(Any detail) throws InvalidProtocolBufferException {
      if (detail.is(ErrorInfo.class)) {
        ErrorInfo info = detail.unpack(ErrorInfo.class);
        if (info.getDomain().equals(DOMAIN)) {
          reason = info.getReason();
          firstAvailableToken = info.getMetadataOrDefault("first_available_token", "");
        }
      } else if (detail.is(BadRequest.class)) {
        for (var violation : detail.unpack(BadRequest.class).getFieldViolationsList()) {
          fields.put(violation.getField(), violation.getDescription());
        }
      } else if (detail.is(RetryInfo.class)) {
        retryAfter = Times.of(detail.unpack(RetryInfo.class).getRetryDelay());
      }
    }

    /** The exception that a call ends with for good; null if it is to be tried again. */
    LinksgateException refusal() {
      switch (code) {
        case OUT_OF_RANGE:
          return new Expired(this);
        case DATA_LOSS:
          return new DataLoss(this);
        case FAILED_PRECONDITION:
          return new OtherLog(this);
        case INVALID_ARGUMENT:
          return new InvalidRequest(this);
        case UNAUTHENTICATED:
        case PERMISSION_DENIED:
          return new PermissionDenied(this);
        case NOT_FOUND:
          return new NotFound(this);
        case UNIMPLEMENTED:
          return new Unsupported(this);
        default:
          return null;
      }
    }
  }
}
