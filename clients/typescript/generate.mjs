// Generates src/gen from the contract: `node generate.mjs`. Needs the Python environment, which has protoc.

import { execFileSync } from "node:child_process";
import { argv } from "node:process";
import { fileURLToPath } from "node:url";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const PROTOS = `${HERE}../../protos`;
const PYTHON = process.env.MYNAH_PYTHON ?? `${HERE}../../.venv/bin/python`;
export const GENERATED = `${HERE}src/gen`;

// Writes the types of speech.proto and voices.proto, and those of the errors' details, below `folder`.
export function generate(folder) {
  const find = "import google.rpc.status_pb2 as it; print(it.__file__.removesuffix('google/rpc/status_pb2.py'))";
  const googleapis = execFileSync(PYTHON, ["-c", find], { encoding: "utf8" }).trim();
  const files = ["mynah/v1/speech.proto", "mynah/v1/voices.proto", "google/rpc/status.proto", "google/rpc/error_details.proto"];
  const plugin = `--plugin=protoc-gen-es=${HERE}node_modules/.bin/protoc-gen-es`;
  const options = [`-I${PROTOS}`, `-I${googleapis}`, plugin, `--es_out=${folder}`, "--es_opt=target=ts,import_extension=js"];
  execFileSync(PYTHON, ["-m", "grpc_tools.protoc", ...options, ...files], { stdio: "inherit" });
}

if (argv[1] === fileURLToPath(import.meta.url)) generate(GENERATED);
