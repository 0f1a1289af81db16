// What the system did while one spoke, over the clock on the wall: text, speech tokens, windows, chunks, the listener.

import { Sheet } from "./canvas.js";
import { now } from "./take.js";

const LABELS = ["Text", "Speech tokens", "Windows", "Chunks", "Played", "Buffer"];
const LANE = 26;
const LEFT = 92;
const BOTTOM = 20;

export class Timeline {
  constructor(canvas) {
    this.sheet = new Sheet(canvas);
    canvas.style.height = `${LABELS.length * LANE + BOTTOM}px`;
  }

  draw(take) {
    const { pen } = this.sheet;
    const { width } = this.sheet.fresh();
    pen.font = "12px system-ui, sans-serif";
    pen.textBaseline = "middle";
    for (const [lane, label] of LABELS.entries()) {
      pen.fillStyle = this.sheet.colour("--line");
      pen.fillRect(LEFT, (lane + 1) * LANE - 1, width - LEFT, 1);
      pen.fillStyle = this.sheet.colour("--ink-soft");
      pen.fillText(label, 0, (lane + 0.5) * LANE);
    }
    const end_s = take ? this.#end(take) : 5;
    const x = (at) => LEFT + ((at - (take?.started ?? 0)) / end_s) * (width - LEFT - 2);
    this.#axis(end_s, width);
    if (!take) return;
    this.#text(take, x);
    this.#tokens(take, x);
    this.#windows(take, x);
    this.#chunks(take, x);
    this.#played(take, x);
    this.#buffer(take, x);
  }

  // Seconds that the width stands for: grows in steps while it runs.
  #end(take) {
    const last = Math.max(take.chunks.at(-1)?.arrived ?? 0, take.leads.at(-1)?.at ?? 0, take.started);
    const passed = (take.state === "waiting" || take.state === "speaking" ? now() : last) - take.started;
    return Math.max(2, passed * 1.05);
  }

  #bar(lane, from, to, colour, inset = 6) {
    this.sheet.pen.fillStyle = this.sheet.colour(colour);
    this.sheet.pen.beginPath();
    this.sheet.pen.roundRect(from, lane * LANE + inset, Math.max(2, to - from), LANE - 2 * inset, 2.5);
    this.sheet.pen.fill();
  }

  #axis(end_s, width) {
    const { pen } = this.sheet;
    const step = [0.25, 0.5, 1, 2, 5, 10, 20, 60].find((one) => end_s / one <= 8) ?? 120;
    pen.fillStyle = this.sheet.colour("--ink-soft");
    pen.textAlign = "center";
    for (let at = 0; at <= end_s; at += step) {
      const left = LEFT + (at / end_s) * (width - LEFT - 2);
      pen.fillRect(left, LABELS.length * LANE, 1, 4);
      pen.fillText(`${at} s`, Math.min(Math.max(left, LEFT + 8), width - 16), LABELS.length * LANE + 13);
    }
    pen.textAlign = "left";
  }

  #text(take, x) {
    for (const one of take.segments) this.#bar(0, x(one.began), x(one.ended ?? this.#now(take)), "--sheen-faint", 5);
    for (const at of take.words) this.#bar(0, x(at), x(at) + 2, "--sheen", 8);
  }

  #tokens(take, x) {
    const { pen } = this.sheet;
    const most = Math.max(50, take.tokens);
    const floor = 2 * LANE - 1;
    pen.fillStyle = this.sheet.colour("--leaf");
    pen.beginPath();
    pen.moveTo(x(take.segments[0]?.began ?? take.started), floor);
    let height = 0;
    for (const one of take.chunks) {
      pen.lineTo(x(one.arrived), floor - height);
      height = (one.tokens / most) * (LANE - 5);
      pen.lineTo(x(one.arrived), floor - height);
    }
    pen.lineTo(x(this.#now(take)), floor - height);
    pen.lineTo(x(this.#now(take)), floor);
    pen.fill();
  }

  #windows(take, x) {
    for (const one of take.chunks) {
      if (!one.window) continue;
      const decoded = one.arrived - one.window.decode_s;
      this.#bar(2, x(decoded - one.window.queue_s), x(decoded), "--sheen-faint");
      this.#bar(2, x(decoded), x(one.arrived), "--sheen");
    }
  }

  #chunks(take, x) {
    const { pen } = this.sheet;
    pen.fillStyle = this.sheet.colour("--beak-ink");
    for (const one of take.chunks) {
      pen.beginPath();
      pen.arc(x(one.arrived), 3.5 * LANE, Math.min(8, 2.5 + 3 * Math.sqrt(one.length_s)), 0, 2 * Math.PI);
      pen.fill();
    }
  }

  #played(take, x) {
    if (take.firstHeard && take.leads.length) this.#bar(4, x(take.firstHeard), x(take.leads.at(-1).at), "--beak");
    for (const one of take.underruns) this.#bar(4, x(one.at - one.gap_s), x(one.at), "--alarm", 3);
  }

  #buffer(take, x) {
    const { pen } = this.sheet;
    const most = take.leads.reduce((high, one) => Math.max(high, one.lead_s), 1);
    const floor = 6 * LANE - 1;
    if (!take.leads.length) return;
    pen.fillStyle = this.sheet.colour("--beak-faint");
    pen.beginPath();
    pen.moveTo(x(take.leads[0].at), floor);
    for (const one of take.leads) pen.lineTo(x(one.at), floor - (one.lead_s / most) * (LANE - 5));
    pen.lineTo(x(take.leads.at(-1).at), floor);
    pen.fill();
    pen.fillStyle = this.sheet.colour("--ink-soft");
    pen.textAlign = "right";
    pen.fillText(`${most.toFixed(1)} s`, LEFT - 6, floor - LANE / 2 + 1);
    pen.textAlign = "left";
  }

  #now(take) {
    return take.state === "speaking" || take.state === "waiting" ? now() : (take.chunks.at(-1)?.arrived ?? take.started);
  }
}
