/** The translation between messages of protobuf and the values of types.ts, by the contract's descriptors. */

import { type DescEnum, type DescField, type DescMessage, type Message, type MessageShape, ScalarType, create } from "@bufbuild/protobuf";
import { type Timestamp, timestampDate } from "@bufbuild/protobuf/wkt";
import { InvalidArgument } from "./errors.js";
import type { Given, Plain } from "./types.js";

type Values = Record<string, unknown>;

const TIMESTAMP = "google.protobuf.Timestamp";
const EXACT = "seed"; // the one field whose 64 bits do not fit into a number
const INTEGERS = new Map<ScalarType, [bigint, bigint]>([
  [ScalarType.INT32, [-(2n ** 31n), 2n ** 31n - 1n]],
  [ScalarType.INT64, [-(2n ** 63n), 2n ** 63n - 1n]],
  [ScalarType.UINT64, [0n, 2n ** 64n - 1n]],
]);

/** Returns a message of the server as a plain object. */
export function toPlain<Desc extends DescMessage>(schema: Desc, message: MessageShape<Desc>): Plain<MessageShape<Desc>> {
  return plainMessage(schema, message) as Plain<MessageShape<Desc>>;
}

function plainMessage(schema: DescMessage, message: Message): unknown {
  if (schema.typeName === TIMESTAMP) return timestampDate(message as Timestamp);
  const values = message as unknown as Values;
  const fields = schema.fields.filter((field) => values[field.localName] !== undefined);
  return Object.fromEntries(fields.map((field) => [field.localName, plainField(field, values[field.localName])]));
}

function plainField(field: DescField, value: unknown): unknown {
  if (field.fieldKind === "list") return (value as unknown[]).map((item) => plainItem(field, item));
  return plainItem(field, value);
}

function plainItem(field: DescField, value: unknown): unknown {
  if (field.message) return plainMessage(field.message, value as Message);
  if (field.enum) return enumName(field.enum, value as number);
  return typeof value === "bigint" && field.localName !== EXACT ? Number(value) : value;
}

function enumName(description: DescEnum, number: number): string {
  return description.value[number]?.localName.toLowerCase() ?? "unspecified";
}

/**
 * Returns the message with these values; absent and undefined ones stay absent, so that the server's defaults apply.
 *
 * Throws InvalidArgument for an unknown field or enum, and for a value that protobuf cannot encode.
 */
export function toMessage<Desc extends DescMessage>(schema: Desc, given: Given<MessageShape<Desc>>): MessageShape<Desc> {
  return create(schema, wireFields(schema, given as Values) as never);
}

function wireFields(schema: DescMessage, given: Values): Values {
  const wire: Values = {};
  for (const [name, value] of Object.entries(given)) {
    const field = schema.fields.find((one) => one.localName === name);
    if (!field) throw unknownField(schema, name);
    if (value !== undefined) wire[name] = wireField(field, value);
  }
  return wire;
}

function wireField(field: DescField, value: unknown): unknown {
  if (field.fieldKind !== "list") return wireItem(field, value);
  if (!Array.isArray(value)) throw unsendable(field, value, "it must be an array");
  return value.map((item) => wireItem(field, item));
}

function wireItem(field: DescField, value: unknown): unknown {
  if (field.message) {
    if (typeof value !== "object" || value === null) throw unsendable(field, value, "it must be an object");
    return create(field.message, wireFields(field.message, value as Values) as never);
  }
  return field.enum ? enumNumber(field, field.enum, value) : wireScalar(field, value);
}

function enumNumber(field: DescField, description: DescEnum, name: unknown): number {
  const named = description.values.filter((value) => value.number !== 0);
  const found = named.find((value) => value.localName.toLowerCase() === name);
  if (found) return found.number;
  const allowed = named.map((value) => value.localName.toLowerCase()).join(", ");
  const details = { reason: `${field.name.toUpperCase()}_UNKNOWN`, field: field.name, value: shown(name), allowed };
  throw new InvalidArgument(`${field.name} is ${shown(name)}; it must be one of ${allowed}.`, details);
}

function wireScalar(field: DescField, value: unknown): unknown {
  const scalar = (field as { scalar?: ScalarType }).scalar;
  if (scalar === ScalarType.STRING) return wellFormed(field.name, value);
  if (scalar === ScalarType.BOOL) {
    if (typeof value !== "boolean") throw unsendable(field, value, "it must be true or false");
    return value;
  }
  const range = scalar === undefined ? undefined : INTEGERS.get(scalar);
  if (range) return wireInteger(field, value, range);
  if (typeof value !== "number") throw unsendable(field, value, "it must be a number");
  return value;
}

function wireInteger(field: DescField, value: unknown, [min, max]: [bigint, bigint]): number | bigint {
  const whole = typeof value === "bigint" || Number.isSafeInteger(value) ? BigInt(value as number) : undefined;
  const is64Bits = max > 2n ** 32n;
  if (whole === undefined || whole < min || whole > max)
    throw unsendable(field, value, `it must be a whole number from ${min} to ${max}${is64Bits ? ", beyond 2^53 as a bigint" : ""}`);
  return is64Bits ? whole : Number(whole);
}

/** Returns the text. Throws InvalidArgument for another type, and for lone surrogates, which are not Unicode. */
export function wellFormed(name: string, value: unknown): string {
  if (typeof value === "string" && !/\p{Surrogate}/u.test(value)) return value;
  throw invalidValue(name, value, "it must be text of whole Unicode characters");
}

function unsendable(field: DescField, value: unknown, rule: string): InvalidArgument {
  return invalidValue(field.name, value, rule);
}

function invalidValue(field: string, value: unknown, rule: string): InvalidArgument {
  const details = { reason: "VALUE_UNSENDABLE", field, value: shown(value) };
  return new InvalidArgument(`${field} is ${shown(value)}, which cannot be sent: ${rule}.`, details);
}

function unknownField(schema: DescMessage, name: string): InvalidArgument {
  const allowed = schema.fields.map((field) => field.localName).join(", ");
  const details = { reason: "FIELD_UNKNOWN", field: name, allowed };
  return new InvalidArgument(`${schema.name} has no field ${name}; its fields are ${allowed}.`, details);
}

function shown(value: unknown): string {
  return typeof value === "string" ? JSON.stringify(value.slice(0, 100)) : String(value);
}
