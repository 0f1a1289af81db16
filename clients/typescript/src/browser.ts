/** The client for browsers, over the WebSocket and the JSON endpoints of the server's HTTP port. */

import { BaseClient, type ClientOptions } from "./client.js";
import { WebConnection } from "./web.js";

export * from "./common.js";

/** The client of servers at "https://HOST:PORT", or at the page's own address; see BaseClient. */
export class Client extends BaseClient {
  constructor(server: string | readonly string[] = globalThis.location?.origin ?? "", options: ClientOptions = {}) {
    super(server, (address) => new WebConnection(address, options.apiKey), options);
  }
}
