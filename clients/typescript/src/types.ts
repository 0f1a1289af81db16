/**
 * The contract's values as TypeScript has them, derived from the generated types: names in camelCase, enums as strings
 * such as "pcm_s16le", 64-bit integers as numbers (the seed alone, any uint64, is a bigint), times as Date.
 */

import type { Message } from "@bufbuild/protobuf";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import type * as pb from "./gen/mynah/v1/speech_pb.js";
import type * as voices from "./gen/mynah/v1/voices_pb.js";

type NamesOf<Enum> = Lowercase<Exclude<Extract<keyof Enum, string>, "UNSPECIFIED">>;

/** The encoding of audio; the chunks of a stream, joined, are one playable file. */
export type AudioFormat = NamesOf<typeof pb.AudioFormat>;
/** Where the first segment of a silent stream may end. */
export type FirstSegment = NamesOf<typeof pb.FirstSegment>;
/** What markup in a text becomes. */
export type Markup = NamesOf<typeof pb.Markup>;
/** Whether emoji are left out or their names are spoken. */
export type Emoji = NamesOf<typeof pb.Emoji>;
/** What becomes of a segment in a script that the model does not speak. */
export type UnspeakableText = NamesOf<typeof pb.UnspeakableText>;
/** How the speech of a segment ended. */
export type EndReason = NamesOf<typeof pb.EndReason>;
/** Why a segment was skipped. */
export type SkipReason = NamesOf<typeof pb.SkipReason>;
/** What can be wrong with the words of a segment. */
export type WordFault = NamesOf<typeof pb.WordFault>;
/** What the guard on words did. */
export type WordGuardAction = NamesOf<typeof pb.WordGuardAction>;

type EnumNames<E> =
  E extends pb.AudioFormat ? AudioFormat
  : E extends pb.FirstSegment ? FirstSegment
  : E extends pb.Markup ? Markup
  : E extends pb.Emoji ? Emoji
  : E extends pb.UnspeakableText ? UnspeakableText
  : E extends pb.EndReason ? EndReason
  : E extends pb.SkipReason ? SkipReason
  : E extends pb.WordFault ? WordFault
  : E extends pb.WordGuardAction ? WordGuardAction
  : never;
// TypeScript lets any number stand for an enum's, but a fraction is a value of numbers only
type NumberOr<T, Names> = 0.5 extends T ? number : Names;
type Fields<T> = Exclude<keyof T, "$typeName" | "$unknown">;

/** A message of the server. Enums of a newer server are "unspecified". */
export type Plain<T> =
  T extends Uint8Array ? T
  : T extends Timestamp ? Date
  : T extends bigint ? number
  : T extends number ? NumberOr<T, EnumNames<T> | "unspecified">
  : T extends (infer Item)[] ? Plain<Item>[]
  : T extends Message ? { [Name in Fields<T>]: Name extends "seed" ? T[Name] : Plain<T[Name]> }
  : T;

/** A message of the client. What is absent or undefined is the server's choice. */
export type Given<T> =
  T extends bigint ? number | bigint
  : T extends number ? NumberOr<T, EnumNames<T>>
  : T extends (infer Item)[] ? readonly Given<Item>[]
  : T extends Message ? { readonly [Name in Fields<T>]?: Given<T[Name]> | undefined }
  : T;

/** The voice, format, rate, speed, sampling and reading of a stream. The server checks the ranges, speech.proto has them. */
export type SpeechSettings = Given<pb.SpeechSettings>;
export type Sampling = Given<pb.Sampling>;
export type TextSettings = Given<pb.TextSettings>;
export type DictionaryEntry = Given<pb.DictionaryEntry>;

/** The stream is open; `settings` has all defaults filled in, including the seed. */
export type StreamOpened = Plain<pb.StreamOpened>;
export type Limits = Plain<pb.Limits>;
/** A model of the server, and what a stream of it may ask for. */
export type ModelInfo = Plain<pb.ModelInfo>;
export type ServerInfo = Plain<pb.GetServerInfoResponse>;
export type Voice = Plain<voices.Voice>;
export type VoiceWarning = Plain<voices.VoiceWarning>;

type Tagged<Case extends string, T> = { type: Case } & Plain<T>;
/** A piece of final, gapless audio. `offsetSamples` is its position on the stream's timeline. */
export type AudioChunk = Tagged<"audio", pb.AudioChunk>;
/** Words that end in the chunks received so far and were not reported before, in order. */
export type Words = Tagged<"words", pb.Words>;
export type WordTime = Plain<pb.WordTime>;
/** A segment begins. Its audio follows. */
export type SegmentStarted = Tagged<"segmentStarted", pb.SegmentStarted>;
/** A segment is complete. */
export type SegmentDone = Tagged<"segmentDone", pb.SegmentDone>;
/** All text before a mark of the SSML has been spoken. */
export type MarkReached = Tagged<"markReached", pb.MarkReached>;
/** All text before the flush has been spoken and sent. */
export type Flushed = Tagged<"flushed", pb.Flushed>;
/** All text before the cancel was dropped. */
export type Cancelled = Tagged<"cancelled", pb.Cancelled>;
/** An event of a stream; `type` says which. */
export type Event = AudioChunk | Words | SegmentStarted | SegmentDone | MarkReached | Flushed | Cancelled;
