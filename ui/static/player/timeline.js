// The timeline of a recording: text, speech tokens, windows, chunks, playback and buffer over wall-clock time.

import { Canvas } from "./canvas.js";
import { now } from "./recording.js";

const LABELS = ["Text", "Speech tokens", "Windows", "Chunks", "Played", "Buffer"];
const LANE = 26;
const LEFT = 92;
const BOTTOM = 20;

export class Timeline {
  constructor(canvas) {
    this.canvas = new Canvas(canvas);
    canvas.style.height = `${LABELS.length * LANE + BOTTOM}px`;
  }

  draw(recording) {
    if (!this.canvas.visible) return;
    const { pen } = this.canvas;
    const { width } = this.canvas.clear();
    pen.font = "12px system-ui, sans-serif";
    pen.textBaseline = "middle";
    for (const [lane, label] of LABELS.entries()) {
      pen.fillStyle = this.canvas.colour("--line");
      pen.fillRect(LEFT, (lane + 1) * LANE - 1, width - LEFT, 1);
      pen.fillStyle = this.canvas.colour("--ink-soft");
      pen.fillText(label, 0, (lane + 0.5) * LANE);
    }
    const end_s = recording ? this.#end(recording) : 5;
    const x = (at) => LEFT + ((at - (recording?.started ?? 0)) / end_s) * (width - LEFT - 2);
    this.#axis(end_s, width);
    if (!recording) return;
    this.#text(recording, x);
    this.#tokens(recording, x);
    this.#windows(recording, x);
    this.#chunks(recording, x);
    this.#played(recording, x);
    this.#buffer(recording, x);
  }

  // The seconds across the width; they grow while the recording runs.
  #end(recording) {
    const last = Math.max(recording.chunks.at(-1)?.arrived ?? 0, recording.leads.at(-1)?.at ?? 0, recording.started);
    const passed = (recording.running ? now() : last) - recording.started;
    return Math.max(2, passed * 1.05);
  }

  #bar(lane, from, to, colour, inset = 6) {
    this.canvas.pen.fillStyle = this.canvas.colour(colour);
    this.canvas.pen.beginPath();
    this.canvas.pen.roundRect(from, lane * LANE + inset, Math.max(2, to - from), LANE - 2 * inset, 2.5);
    this.canvas.pen.fill();
  }

  #axis(end_s, width) {
    const { pen } = this.canvas;
    const step = [0.25, 0.5, 1, 2, 5, 10, 20, 60].find((one) => end_s / one <= 8) ?? 120;
    pen.fillStyle = this.canvas.colour("--ink-soft");
    pen.textAlign = "center";
    for (let at = 0; at <= end_s; at += step) {
      const left = LEFT + (at / end_s) * (width - LEFT - 2);
      pen.fillRect(left, LABELS.length * LANE, 1, 4);
      pen.fillText(`${at} s`, Math.min(Math.max(left, LEFT + 8), width - 16), LABELS.length * LANE + 13);
    }
    pen.textAlign = "left";
  }

  #text(recording, x) {
    for (const one of recording.segments) this.#bar(0, x(one.began), x(one.ended ?? this.#now(recording)), "--sheen-faint", 5);
    for (const at of recording.words) this.#bar(0, x(at), x(at) + 2, "--sheen", 8);
  }

  #tokens(recording, x) {
    const { pen } = this.canvas;
    const max = Math.max(50, recording.tokens);
    const floor = 2 * LANE - 1;
    pen.fillStyle = this.canvas.colour("--leaf");
    pen.beginPath();
    pen.moveTo(x(recording.segments[0]?.began ?? recording.started), floor);
    let height = 0;
    for (const one of recording.chunks) {
      pen.lineTo(x(one.arrived), floor - height);
      height = (one.tokens / max) * (LANE - 5);
      pen.lineTo(x(one.arrived), floor - height);
    }
    pen.lineTo(x(this.#now(recording)), floor - height);
    pen.lineTo(x(this.#now(recording)), floor);
    pen.fill();
  }

  #windows(recording, x) {
    for (const one of recording.chunks) {
      if (!one.window) continue;
      const decoded = one.arrived - one.window.decode_s;
      this.#bar(2, x(decoded - one.window.queue_s), x(decoded), "--sheen-faint");
      this.#bar(2, x(decoded), x(one.arrived), "--sheen");
    }
  }

  #chunks(recording, x) {
    const { pen } = this.canvas;
    pen.fillStyle = this.canvas.colour("--beak-ink");
    for (const one of recording.chunks) {
      pen.beginPath();
      pen.arc(x(one.arrived), 3.5 * LANE, Math.min(8, 2.5 + 3 * Math.sqrt(one.length_s)), 0, 2 * Math.PI);
      pen.fill();
    }
  }

  #played(recording, x) {
    if (recording.firstSound && recording.leads.length) this.#bar(4, x(recording.firstSound), x(recording.leads.at(-1).at), "--beak");
    for (const one of recording.underruns) this.#bar(4, x(one.at - one.gap_s), x(one.at), "--alarm", 3);
  }

  #buffer(recording, x) {
    const { pen } = this.canvas;
    const max = recording.leads.reduce((high, one) => Math.max(high, one.lead_s), 1);
    const floor = 6 * LANE - 1;
    if (!recording.leads.length) return;
    pen.fillStyle = this.canvas.colour("--beak-faint");
    pen.beginPath();
    pen.moveTo(x(recording.leads[0].at), floor);
    for (const one of recording.leads) pen.lineTo(x(one.at), floor - (one.lead_s / max) * (LANE - 5));
    pen.lineTo(x(recording.leads.at(-1).at), floor);
    pen.fill();
    pen.fillStyle = this.canvas.colour("--ink-soft");
    pen.textAlign = "right";
    pen.fillText(`${max.toFixed(1)} s`, LEFT - 6, floor - LANE / 2 + 1);
    pen.textAlign = "left";
  }

  #now(recording) {
    return recording.running ? now() : (recording.chunks.at(-1)?.arrived ?? recording.started);
  }
}
