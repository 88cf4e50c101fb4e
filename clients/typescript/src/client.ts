import { type ClientOptions, Settings } from "./connection.js";
import type { Notification } from "./gen/linksgate/v1/notification_pb.js";
import { type SubscribeOptions, Subscription } from "./subscribe.js";
import { type Handler, Worker, type WorkOptions } from "./work.js";

/** The gateways of one log. Each subscription and each worker has a connection of its own. */
export class LinksgateClient {
  private readonly settings: Settings;

  /** Throws a TypeError if the options cannot be meant. */
  constructor(options: ClientOptions | string) {
    this.settings = new Settings(typeof options === "string" ? { addresses: options } : options);
  }

  /**
   * Yields notifications in the order of the log, and comes back over broken connections, frozen and
   * restarted gateways. A notification counts as handled when the next one is asked for; one at which
   * the loop breaks off does not. Throws a LinksgateError when coming back cannot mend it.
   */
  subscribe(options: SubscribeOptions = {}): AsyncGenerator<Notification, void, undefined> {
    return new Subscription(this.settings, options).run();
  }

  /**
   * Is a member of a group until the signal aborts, or what coming back cannot mend: then it rejects
   * with a LinksgateError. Either way it begins nothing more, lets handlers end within the grace time,
   * and settles what they did.
   *
   * What the handler resolves is acknowledged. What it throws makes the notification come again after
   * the group's back-off; Park, RetryAfter and EverythingIsDown say otherwise.
   */
  work(group: string, handler: Handler, options: WorkOptions = {}): Promise<void> {
    return new Worker(this.settings, group, handler, options).run();
  }
}
