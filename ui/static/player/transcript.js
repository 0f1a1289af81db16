// The text of a recording: spoken, being played, and waiting for the end of its sentence.

const BEFORE = 20, AFTER = 20, WAITING_CHARS = 2000; // around the segment that plays: a long text has thousands

export function drawTranscript(element, recording, position_s) {
  element.hidden = !recording?.sent;
  if (!recording?.sent) return;
  const { name, started, sent, segments, typed } = recording;
  const current = position_s > 0 ? segments.findLast((one) => one.offset_s <= position_s) : null;
  const key = `${name}${started}/${sent.length}/${segments.length}/${current?.index}/${typed}`;
  if (element.dataset.key === key) return;
  element.dataset.key = key;
  const consumed = segments.at(-1)?.to ?? 0;
  const at = current ? segments.indexOf(current) : segments.length - 1;
  const near = segments.slice(Math.max(0, at - BEFORE), Math.max(0, at) + AFTER);
  const spans = near.map((one) => span(sent.slice(one.from, one.to), one === current ? "current" : "spoken"));
  if (consumed < sent.length) spans.push(span(sent.slice(consumed, consumed + WAITING_CHARS), "waiting"));
  if (!typed) spans.push(span("", "caret"));
  element.replaceChildren(...spans);
}

function span(text, kind) {
  const element = document.createElement("span");
  element.className = kind;
  element.textContent = text;
  return element;
}
