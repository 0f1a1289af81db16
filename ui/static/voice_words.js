// A voice in plain words: how near it comes to the recording, whether it is kept, what was wrong with the recording.

const NEAR = 0.85, FAR = 0.7; // similarities, as the command line words them

// Returns [verdict, sentence] pairs about a voice that was just made; "yes", "perhaps" and "no" are colours.
export function aboutNew(voice) {
  const found = [nearness(voice)];
  if (voice.used_from_s > 0) found.push(["", `${seconds(voice.used_s)} of the recording were used, from ${seconds(voice.used_from_s)} on.`]);
  for (const { message } of voice.warnings ?? []) found.push(["perhaps", message]);
  if (voice.kept === true) found.push(["", "The server keeps this voice, also over a restart."]);
  if (voice.kept === false) found.push(["perhaps", "This voice is lost when the server stops. Keep the recording."]);
  if (voice.recording_kept) found.push(["", "The server keeps the recording with it."]);
  return found;
}

function nearness({ name, similarity, similarity_skipped }) {
  const use = "Press Listen or Use in the list.";
  if (typeof similarity !== "number") return ["yes", [`“${name}” is ready. ${use}`, similarity_skipped].filter(Boolean).join(" ")];
  const figure = `(similarity ${similarity.toFixed(2)} of 1)`;
  if (similarity >= NEAR) return ["yes", `“${name}” is ready and sounds much like the recording ${figure}. ${use}`];
  if (similarity >= FAR) return ["perhaps", `“${name}” is ready and sounds somewhat like the recording ${figure}. ${use}`];
  return ["no", `“${name}” is ready, but sounds like another person than the recording ${figure}. ${use}`];
}

// The short line below a voice's name in the list.
export function aboutListed(voice) {
  const found = [voice.built_in ? "comes with the model" : when(voice.created)];
  if (voice.seconds) found.push(`${voice.seconds} s recording`);
  if (typeof voice.similarity === "number") found.push(`similarity ${voice.similarity.toFixed(2)}`);
  if (!voice.built_in && voice.kept === false) found.push("lost when the server stops");
  return found.filter(Boolean).join(" · ");
}

function when(created) {
  return created ? `created ${new Date(created).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })}` : "";
}

const seconds = (s) => `${s.toFixed(1)} s`;
