// What the client does on every transport, against servers of the fake engine. They run in Node and in Chromium, so they
// import nothing. `world` is {mynah, fast, key, slow, pair, kill}: the client's module; the address of a server that
// speaks at once, and its API key; that of one that speaks in real time on one stream; and those of two servers of which
// the first never gets to its first audio, and kill(index), which ends one of them.

const SAMPLES_PER_CHAR = 960; // the fake engine's: a speech token for each char
const LONG = "This sentence is said again and again, until the stream is cancelled. ".repeat(20);

function equal(actual, expected, what = "value") {
  const [shown, wanted] = [actual, expected].map((value) => JSON.stringify(value, (_, v) => (typeof v === "bigint" ? `${v}n` : v)));
  if (shown !== wanted) throw new Error(`${what} is ${shown}; it must be ${wanted}`);
}

function check(condition, what) {
  if (!condition) throw new Error(what);
}

async function all(iterable) {
  const items = [];
  for await (const item of iterable) items.push(item);
  return items;
}

const ofType = (events, type) => events.filter((event) => event.type === type);
const total = (audio) => audio.reduce((sum, chunk) => sum + chunk.sampleCount, 0);

// Runs `use` with a client, which is closed behind it.
async function using(world, server, use, options = { apiKey: world.key }) {
  const client = new world.mynah.Client(server, options);
  try {
    return await use(client);
  } finally {
    client.close();
  }
}

// Returns the error that a promise rejects with.
async function failure({ MynahError }, promise) {
  try {
    await promise;
  } catch (error) {
    if (error instanceof MynahError) return error;
    throw error;
  }
  throw new Error("it did not fail");
}

const shape = ({ name, reason, field, retryable }) => ({ name, reason, field, retryable });

export async function words_go_in_and_events_come_out(world) {
  await using(world, world.fast, async (client) => {
    const stream = await client.stream({ audioFormat: "pcm_s16le", sampling: { seed: 2n ** 60n + 1n, topK: 50 } });
    const { settings, limits, streamId } = stream.opened;
    equal([settings.voiceId, settings.audioFormat, settings.sampleRateHz], ["default", "pcm_s16le", 24000]);
    equal([settings.sampling.seed, settings.sampling.topK], [2n ** 60n + 1n, 50]);
    check(streamId && limits.maxPendingTextCharCount > 0, "the opened stream has an id and limits");
    for (const word of ["Hello ", "there. ", "And ", "more 🐦"]) await stream.send(word);
    const flushId = await stream.flush();
    await stream.end();
    const events = await all(stream.events());
    const audio = ofType(events, "audio");
    equal(ofType(events, "segmentStarted").map((one) => one.text), ["Hello there.", "And more 🐦"]);
    equal(ofType(events, "flushed").map((one) => one.flushId), [flushId]);
    equal(ofType(events, "segmentDone").map((one) => one.endReason), ["spoken", "spoken"]);
    equal(audio.map((chunk) => chunk.sequenceNumber), audio.map((_, i) => i));
    let offset = 0;
    for (const chunk of audio) {
      equal([chunk.offsetSamples, chunk.data.length], [offset, 2 * chunk.sampleCount], "a chunk");
      offset += chunk.sampleCount;
    }
    equal(total(ofType(events, "segmentDone")), offset, "the samples of all segments");
    check(audio.some((chunk) => chunk.data.some((byte) => byte !== 0)), "the audio is not silent");
    equal([stream.pendingChars, await all(stream.events())], [0, []]);
  });
}

export async function reading_can_be_left_and_taken_up_again(world) {
  await using(world, world.fast, async (client) => {
    const stream = await client.stream();
    await stream.send("One sentence here. ".repeat(10));
    await stream.end();
    let samples = 0;
    for await (const chunk of stream) {
      samples += chunk.sampleCount;
      break;
    }
    equal(samples + total(await all(stream)), 10 * 18 * SAMPLES_PER_CHAR, "all samples");
  });
}

export async function after_a_cancel_no_older_audio_comes_and_the_stream_speaks_on(world) {
  await using(world, world.slow, async (client) => {
    const stream = await slot(world, client);
    await stream.send(LONG);
    await stream.flush();
    const reading = stream[Symbol.asyncIterator]();
    await reading.next();
    await stream.cancel();
    await stream.send("New.");
    await stream.end();
    const events = await all(stream.events());
    const [cancelled, ...more] = ofType(events, "cancelled");
    const audio = ofType(events, "audio");
    equal([more.length, cancelled.droppedFlushIds], [0, [1]]);
    check(events.indexOf(cancelled) < events.indexOf(audio[0]), "audio comes behind the cancel's answer");
    equal([total(audio), audio[0].offsetSamples], [4 * SAMPLES_PER_CHAR, cancelled.deliveredSampleCount]);
    equal(stream.pendingChars, 0, "the waiting chars");
  });
}

export async function audio_that_has_arrived_and_was_not_read_is_dropped_by_a_cancel(world) {
  await using(world, world.fast, async (client) => {
    const stream = await client.stream();
    await stream.send(LONG.slice(0, 700));
    await stream.flush();
    await stream[Symbol.asyncIterator]().next();
    await all(client.synthesize("Meanwhile more arrives."));
    await stream.cancel();
    await stream.send("New.");
    await stream.end();
    const events = await all(stream.events());
    const cancelled = events.findIndex((event) => event.type === "cancelled");
    const audio = ofType(events, "audio");
    equal(ofType(events.slice(0, cancelled), "audio").length, 0, "the chunks before the cancel's answer");
    equal([total(audio), audio[0].offsetSamples], [4 * SAMPLES_PER_CHAR, events[cancelled].deliveredSampleCount]);
  });
}

export async function a_closed_stream_frees_its_slot_at_once(world) {
  await using(world, world.slow, async (client) => {
    for (let i = 0; i < 3; i++) {
      const stream = await slot(world, client); // the server has one; its text would take a minute
      await stream.send(LONG);
      await stream[Symbol.asyncIterator]().next();
      const late = await failure(world.mynah, client.stream());
      equal(shape(late), { name: "ServerBusy", reason: "STREAMS_EXHAUSTED", field: "", retryable: true });
      stream.close();
      for (const call of [() => all(stream), () => stream.send("x")])
        equal((await failure(world.mynah, call())).reason, "STREAM_CLOSED");
    }
    (await slot(world, client)).close();
    for await (const chunk of slotted(world, client, LONG)) {
      check(chunk.sampleCount > 0, "a chunk has samples");
      break; // ends the call, too
    }
    (await slot(world, client)).close();
  });
}

// Opens a stream as soon as the server has a slot: the end of a stream reaches it behind the next request.
async function slot(world, client) {
  for (;;) {
    try {
      return await client.stream();
    } catch (error) {
      if (error.reason !== "STREAMS_EXHAUSTED") throw error;
    }
  }
}

async function* slotted(world, client, text) {
  (await slot(world, client)).close();
  for (;;) {
    try {
      yield* client.synthesize(text);
      return;
    } catch (error) {
      if (error.reason !== "STREAMS_EXHAUSTED") throw error;
    }
  }
}

export async function speed_words_and_marks_are_on_the_timeline(world) {
  await using(world, world.fast, async (client) => {
    const stream = await client.stream({ speed: 2, wordTimes: true, continuity: true, text: { markup: "ssml" } });
    equal(stream.opened.settings.continuity, true);
    await stream.send('Quick words. <mark name="here"/>');
    await stream.flush();
    const first = [];
    for await (const event of stream.events()) {
      first.push(event);
      if (event.type === "flushed") break;
    }
    await stream.setSpeed(1);
    await stream.send("Slow words.");
    await stream.end();
    const second = await all(stream.events());
    equal(ofType(first, "segmentStarted").map((one) => one.speed), [2]);
    equal(ofType(second, "segmentStarted").map((one) => one.speed), [1]);
    const spoken = [...first, ...second];
    equal(ofType(spoken, "words").flatMap((one) => one.words.map((word) => word.text)), ["Quick", "words", "Slow", "words"]);
    const ends = ofType(spoken, "segmentDone").map((one) => one.offsetSamples + one.sampleCount);
    equal(ofType(spoken, "markReached").map(({ name, offsetSamples }) => ({ name, offsetSamples })), [{ name: "here", offsetSamples: ends[0] }]);
  });
}

export async function a_long_text_waits_for_room(world) {
  await using(world, world.fast, async (client) => {
    const text = LONG.repeat(4); // more than the server keeps waiting
    const stream = await client.stream();
    const max = stream.opened.limits.maxPendingTextCharCount;
    check(text.length > max, "the text is long");
    const writing = stream.sendLong(text).then(() => stream.end());
    const samples = total(await all(stream));
    await writing;
    equal(samples, 4 * 20 * (LONG.length / 20 - 1) * SAMPLES_PER_CHAR, "all samples");
    const synthesized = total(await all(client.synthesize("All is well.")));
    equal(synthesized, 12 * SAMPLES_PER_CHAR, "the samples of one text");
    const late = await client.stream();
    equal(shape(await failure(world.mynah, late.room(max))), { name: "InvalidArgument", reason: "TEXT_TOO_LONG", field: "chars", retryable: false });
    late.close();
  });
}

export async function errors_are_typed(world) {
  const { mynah, fast } = world;
  const refused = (name, reason, field) => ({ name, reason, field, retryable: false });
  const openings = [
    [{ sampleRateHz: 12345 }, refused("InvalidArgument", "SAMPLE_RATE_UNSUPPORTED", "settings.sample_rate_hz")],
    [{ speed: 3 }, refused("InvalidArgument", "SPEED_OUT_OF_RANGE", "settings.speed")],
    [{ sampling: { topP: 2 } }, refused("InvalidArgument", "SAMPLING_OUT_OF_RANGE", "sampling.top_p")],
    [{ schedule: "slow" }, refused("InvalidArgument", "SCHEDULE_UNKNOWN", "settings.schedule")],
    [{ voiceId: "not-made" }, refused("NotFound", "VOICE_NOT_FOUND", "voice_id")],
    [{ audioFormat: "mp4" }, refused("InvalidArgument", "AUDIO_FORMAT_UNKNOWN", "audio_format")],
    [{ text: { markup: "html" } }, refused("InvalidArgument", "MARKUP_UNKNOWN", "markup")],
    [{ sampling: { seed: 2n ** 64n } }, refused("InvalidArgument", "VALUE_UNSENDABLE", "seed")],
    [{ sampling: { topK: 1.5 } }, refused("InvalidArgument", "VALUE_UNSENDABLE", "top_k")],
    [{ voice: "default" }, refused("InvalidArgument", "FIELD_UNKNOWN", "voice")],
  ];
  await using(world, fast, async (client) => {
    for (const [settings, expected] of openings) equal(shape(await failure(mynah, client.stream(settings))), expected, JSON.stringify(expected));
    const rate = await failure(mynah, client.stream({ sampleRateHz: 12345 }));
    check(rate.allowed.includes("24000") && rate.value === "12345" && rate.message.includes("12345"), "it says what is allowed");
    const stream = await client.stream({ text: { unspeakableText: "refuse", markup: "refuse" } });
    equal(shape(await failure(mynah, stream.send("half a sign: \ud800"))), refused("InvalidArgument", "VALUE_UNSENDABLE", "content"));
    await stream.send("<speak>Hello.</speak>");
    equal(shape(await failure(mynah, all(stream))), refused("InvalidArgument", "MARKUP_UNSUPPORTED", "text.content"));
    equal(shape(await failure(mynah, stream.flush())), refused("InvalidArgument", "MARKUP_UNSUPPORTED", "text.content"));
    const ended = await client.stream();
    await ended.end();
    await ended.end();
    for (const call of [() => ended.send("x"), () => ended.flush(), () => ended.cancel(), () => ended.setSpeed(1)])
      equal((await failure(mynah, call())).reason, "STREAM_ENDED");
    equal(await all(ended.events()), []);
  });
  for (const options of [{}, { apiKey: "wrong" }])
    await using(world, world.fast, async (client) => {
      for (const call of [() => client.stream(), () => client.info(), () => client.voices.list()])
        equal(shape(await failure(mynah, call())), refused("NotAllowed", "API_KEY_INVALID", "authorization"));
      equal(await client.ready(), true); // needs no key
    }, options);
  await using(world, world.nowhere, async (client) => {
    for (const call of [() => client.stream(), () => client.info(), () => client.voices.list()])
      equal(shape(await failure(mynah, call())), { name: "Unavailable", reason: "UNAVAILABLE", field: "", retryable: true });
  });
}

export async function voices_are_listed_made_and_deleted(world) {
  await using(world, world.fast, async (client) => {
    const recording = new Uint8Array(100_000);
    recording.set([82, 73, 70, 70]); // "RIFF"
    const made = await client.voices.create(recording, { name: "Anna 🐦", consent: true, voiceId: "anna" });
    equal([made.voiceId, made.name, made.builtIn], ["anna", "Anna 🐦", false]);
    check(made.createTime instanceof Date && Math.abs(made.createTime - Date.now()) < 600_000, "it has the time of its making");
    equal((await client.voices.get("anna")).voiceId, "anna");
    const ids = (await client.voices.list()).map((voice) => voice.voiceId);
    equal([...ids].sort(), ids, "the order");
    equal((await client.voices.list({ pageSize: 1 })).map((voice) => voice.voiceId), ids);
    check(ids.includes("anna") && ids.includes("default"), "both are listed");
    const stream = await client.stream({ voiceId: "Anna 🐦" });
    equal(stream.opened.settings.voiceId, "anna");
    stream.close();
    const errors = [
      [() => client.voices.create(recording, { name: "Anna", consent: true, voiceId: "anna" }), "AlreadyExists", "VOICE_EXISTS"],
      [() => client.voices.create(recording, { name: "Anna", consent: false }), "InvalidArgument", "CONSENT_REQUIRED"],
      [() => client.voices.create(new Blob([]), { name: "Anna", consent: true }), "InvalidArgument", "AUDIO_EMPTY"],
      [() => client.voices.delete("default"), "WrongState", "VOICE_BUILT_IN"],
      [() => client.voices.get("not an id"), "InvalidArgument", "VOICE_ID_INVALID"],
    ];
    for (const [call, name, reason] of errors) {
      const error = await failure(world.mynah, call());
      equal([error.name, error.reason, error.retryable], [name, reason, false]);
    }
    await client.voices.delete("anna");
    for (const call of [() => client.voices.get("anna"), () => client.voices.delete("anna")])
      equal((await failure(world.mynah, call())).reason, "VOICE_NOT_FOUND");
  });
}

export async function a_server_says_what_it_is(world) {
  await using(world, world.fast, async (client) => {
    const info = await client.info();
    equal([info.model, info.nativeSampleRateHz, info.wordTimes, info.continuity], ["fake", 24000, true, true]);
    check(info.audioFormats.includes("mp3") && info.sampleRatesHz.includes(8000), "it has formats and rates");
    check(info.limits.maxOpenStreamCount === 3 && info.limits.maxUploadByteCount > 0, "it has limits");
    equal(await client.ready(), true);
    equal(info.models.map((model) => [model.name, model.languageCodes, model.continuity]), [["fake", ["en"], true]]);
    equal([info.missingLanguages, info.models[0].missingLanguages], [[], []]);
    equal(info.models[0].limits.maxSegmentTextCharCount, info.limits.maxSegmentTextCharCount);
    const stream = await client.stream({ model: "fake" });
    equal(stream.opened.settings.model, "fake");
    stream.close();
    const unknown = await failure(world.mynah, client.stream({ model: "turbo" }));
    equal([unknown.reason, unknown.field, unknown.allowed], ["MODEL_NOT_FOUND", "settings.model", "fake"]);
  });
}

// The stream opens on the first of two servers, because the other one has a stream already; then the first one dies.
export async function until_its_first_audio_a_stream_moves_to_another_server(world) {
  const [dying, other] = world.pair;
  await using(world, other, async (occupant) => {
    const held = await occupant.stream();
    await using(world, [dying, other], async (client) => {
      const stream = await client.stream();
      await stream.send("Hello there.");
      await stream.flush();
      const coming = stream.events();
      const { value: begun } = await coming.next(); // the segment, before its audio
      await world.kill(0);
      await stream.end();
      const events = [begun, ...(await all(coming))]; // what was read is not repeated
      equal(ofType(events, "segmentStarted").map((one) => one.text), ["Hello there."]);
      equal(total(ofType(events, "audio")), 12 * SAMPLES_PER_CHAR, "the samples, each once");
    });
    // after it the error comes, although another server has room again
    await using(world, world.fast, async (busy) => {
      const occupying = await Promise.all([1, 2, 3].map(() => busy.stream()));
      await using(world, [other, world.fast], async (client) => {
        const stream = await client.stream();
        for (const each of occupying) each.close();
        await stream.send("One sentence after another. ".repeat(30));
        await stream[Symbol.asyncIterator]().next();
        await world.kill(1);
        const error = await failure(world.mynah, all(stream));
        equal([error.name, error.retryable], ["Unavailable", true]);
      });
    });
    held.close();
  });
}
