// What the compiler must know of the derived types: `tsc -p tsconfig.test.json` runs nothing of this.

import type { AudioFormat, Event, SegmentDone, ServerInfo, SpeechSettings, StreamOpened, Voice } from "../src/node.js";

/** The fields of a type for which it allows no value: enums that types.ts does not name. */
type Lost<T> =
  T extends readonly (infer Item)[] ? Lost<Item>
  : T extends Uint8Array | Date ? never
  : T extends object ? { [Name in keyof T]-?: [NonNullable<T[Name]>] extends [never] ? Name : Lost<NonNullable<T[Name]>> }[keyof T]
  : never;
type None<T> = [Lost<T>] extends [never] ? true : Lost<T>;

export const nothingIsLost: None<SpeechSettings | StreamOpened | ServerInfo | Voice | Event> = true;

export const settings: SpeechSettings = {
  audioFormat: "mp3",
  firstSegment: "clause",
  sampling: { seed: 3, topK: 4 },
  text: { markup: "ssml", emoji: "name", dictionary: [{ word: "nginx", respelling: "engine ex" }] },
};
// @ts-expect-error: no format of this name
export const format: AudioFormat = "mp4";
// @ts-expect-error: the field is voiceId
export const field: SpeechSettings = { voice: "default" };

export function seconds(opened: StreamOpened, event: Event): number {
  const seed: bigint | undefined = opened.settings?.sampling?.seed;
  if (event.type !== "audio") return seed === undefined ? 0 : 1;
  const data: Uint8Array = event.data;
  return data.length / 2 + event.offsetSamples + (event.window?.decodeS ?? 0);
}

export const reason = (done: SegmentDone): "spoken" | "skipped" | "token_limit" | "runaway" | "unspecified" => done.endReason;
export const created = (voice: Voice): Date | undefined => voice.createTime;
