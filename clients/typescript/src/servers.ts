/** Load balancing over the servers of a client: their load, and the choice for a new stream. */

import type { MynahError } from "./errors.js";
import type { Connection } from "./transport.js";

const POLL_EVERY_S = 2;
const POLL_TIMEOUT_S = 1;
const COOLDOWN_S = 1; // after an error without a wait that the server suggests

/** One server. `capacity` is the number of streams it admits; 0 while unknown. Times are seconds of `nowS`. */
export class Server {
  ownStreams = 0;
  openStreams = 0; // of all clients, at the last poll
  ownStreamsAtPoll = 0;
  capacity = 0;
  coolingUntilS = 0;

  constructor(readonly connection: Connection) {}

  get address(): string {
    return this.connection.address;
  }

  /** Streams per unit of capacity: the last polled count plus this client's changes since. */
  get load(): number {
    const streams = Math.max(0, this.openStreams + this.ownStreams - this.ownStreamsAtPoll);
    return this.capacity ? streams / this.capacity : streams;
  }

  /** Starts the cooldown after a failed call. Other servers are preferred until it ends. */
  failed(error: MynahError): void {
    this.coolingUntilS = nowS() + (error.retryAfterS ?? COOLDOWN_S);
  }

  async poll(): Promise<void> {
    try {
      const info = await this.connection.info(POLL_TIMEOUT_S);
      this.openStreams = info.openStreamCount;
      this.ownStreamsAtPoll = this.ownStreams;
      this.capacity = info.limits?.maxOpenStreamCount ?? 0;
    } catch (error) {
      this.failed(error as MynahError);
    }
  }
}

/**
 * Returns the less loaded of two random servers, so that many clients do not all overrun the emptiest one.
 *
 * Servers in `avoid` are used only if all others are cooling down, and servers that are cooling down only if there are
 * no others. `draw` returns a number from 0 to below 1.
 */
export function chooseServer(servers: readonly Server[], nowS: number, draw: () => number, avoid: readonly string[] = []): Server {
  const available = servers.filter((one) => one.coolingUntilS <= nowS);
  const preferred = available.filter((one) => !avoid.includes(one.address));
  const candidates = [preferred, available, servers].find((some) => some.length > 0) ?? [];
  const first = Math.floor(draw() * candidates.length);
  const second = (first + 1 + Math.floor(draw() * (candidates.length - 1))) % candidates.length;
  const [one, other] = [candidates[first]!, candidates[second]!];
  return other.load < one.load ? other : one;
}

/** A fixed list of servers. With several, their load is asked for at the first stream and then every two seconds. */
export class Servers {
  readonly #servers: Server[];
  #polled: Promise<unknown> | undefined;
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(connections: readonly Connection[]) {
    this.#servers = connections.map((connection) => new Server(connection));
  }

  get count(): number {
    return this.#servers.length;
  }

  /** Returns the server for a new stream or call; see `chooseServer`. */
  async pick(avoid: readonly string[] = []): Promise<Server> {
    if (this.count > 1) await (this.#polled ??= this.#startPolling());
    return chooseServer(this.#servers, nowS(), Math.random, avoid);
  }

  /** The seconds until the first server has cooled down; 0 if one is available now. */
  get cooldownS(): number {
    return Math.max(0, Math.min(...this.#servers.map((one) => one.coolingUntilS)) - nowS());
  }

  close(): void {
    clearInterval(this.#timer);
    for (const { connection } of this.#servers) connection.close();
  }

  #startPolling(): Promise<unknown> {
    const poll = () => Promise.all(this.#servers.map((one) => one.poll()));
    this.#timer = setInterval(() => void poll(), POLL_EVERY_S * 1000);
    (this.#timer as { unref?: () => void }).unref?.(); // does not keep Node alive
    return poll();
  }
}

function nowS(): number {
  return performance.now() / 1000;
}
