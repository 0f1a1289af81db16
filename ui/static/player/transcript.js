// The text of a recording: spoken, being played, and waiting for the end of its sentence.

const BEFORE = 20, AFTER = 20, WAITING_CHARS = 2000; // around the segment that plays: a long text has thousands

export function drawTranscript(element, recording, position_s) {
  element.hidden = !recording?.sent;
  if (!recording?.sent) return;
  const { name, started, sent, segments, typed } = recording;
  const current = position_s > 0 ? segments.findLast((one) => one.offset_s <= position_s) : null;
  const word = current && recording.wordAt(position_s);
  const key = `${name}${started}/${sent.length}/${segments.length}/${current?.index}/${word?.from}/${typed}`;
  if (element.dataset.key === key) return;
  element.dataset.key = key;
  const consumed = segments.at(-1)?.to ?? 0;
  const at = current ? segments.indexOf(current) : segments.length - 1;
  const near = segments.slice(Math.max(0, at - BEFORE), Math.max(0, at) + AFTER);
  const spans = near.flatMap((one) => one === current ? spoken(sent, one, word) : [span(sent.slice(one.from, one.to), "spoken")]);
  if (consumed < sent.length) spans.push(span(sent.slice(consumed, consumed + WAITING_CHARS), "waiting"));
  if (!typed) spans.push(span("", "caret"));
  element.replaceChildren(...spans);
}

// The segment that plays, with the word that is spoken now marked in it.
function spoken(sent, segment, word) {
  if (word?.segment !== segment.index) return [span(sent.slice(segment.from, segment.to), "current")];
  const parts = [[segment.from, word.from, "current"], [word.from, word.to, "current word"], [word.to, segment.to, "current"]];
  return parts.filter(([from, to]) => from < to).map(([from, to, kind]) => span(sent.slice(from, to), kind));
}

function span(text, kind) {
  const element = document.createElement("span");
  element.className = kind;
  element.textContent = text;
  return element;
}
