/** The client for Node, over gRPC. */

import { BaseClient, type ClientOptions } from "./client.js";
import { GrpcConnection, type Tls } from "./grpc.js";

export * from "./common.js";
export type { Tls } from "./grpc.js";

export interface NodeOptions extends ClientOptions {
  /** True encrypts and trusts Node's certificates; an object names others. */
  tls?: boolean | Tls;
}

/** The client of servers at "HOST:PORT"; see BaseClient. */
export class Client extends BaseClient {
  constructor(server: string | readonly string[] = "127.0.0.1:50051", options: NodeOptions = {}) {
    const tls = options.tls === true ? {} : options.tls || undefined;
    super(server, (address) => new GrpcConnection(address, tls, options.apiKey), options);
  }
}
