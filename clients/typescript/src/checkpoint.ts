import { randomBytes } from "node:crypto";
import { open, readFile, rename, unlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

/**
 * Remembers the resume token up to which everything was handled.
 *
 * To have it together with the effect, in one transaction of a database, do without: store
 * `notification.token` in the transaction, and pass the stored token as `after`.
 */
export interface Checkpoint {
  /** The token; undefined if none was stored. */
  load(): Promise<string | undefined>;
  /** Resolves only when the token will be loaded, also after a crash. */
  store(token: string): Promise<void>;
}

/** Keeps the token in a file, which is replaced, never rewritten. */
export class FileCheckpoint implements Checkpoint {
  constructor(private readonly path: string) {}

  async load(): Promise<string | undefined> {
    let token: string;
    try {
      token = (await readFile(this.path, "utf8")).trim();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw error;
    }
    if (token === "") {
      // To take it for none would leave notifications out unseen.
      throw new Error(`the checkpoint ${this.path} is empty; remove it to start anew`);
    }
    return token;
  }

  async store(token: string): Promise<void> {
    const directory = dirname(this.path);
    const name = join(directory, `.${basename(this.path)}.${randomBytes(6).toString("hex")}`);
    const file = await open(name, "wx", 0o600);
    try {
      try {
        await file.writeFile(token + "\n");
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(name, this.path);
    } catch (error) {
      await unlink(name).catch(() => {});
      throw error;
    }
    const opened = await open(directory, "r");
    try {
      await opened.sync();
    } finally {
      await opened.close();
    }
  }
}

/** Keeps the token for as long as it is referred to. */
export class MemoryCheckpoint implements Checkpoint {
  private token: string | undefined;

  async load(): Promise<string | undefined> {
    return this.token;
  }

  async store(token: string): Promise<void> {
    this.token = token;
  }
}
