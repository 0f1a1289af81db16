// A take's sound over its own seconds: waveform with the place that is heard, and the spectrogram once it is whole.

import { Sheet } from "./canvas.js";
import { spectrogram } from "./spectrum.js";

const BAR = 3; // pixels from one bar to the next

export class Wave {
  constructor(waveform, spectrum) {
    this.waveform = new Sheet(waveform);
    this.spectrum = new Sheet(spectrum);
  }

  draw(take, position_s) {
    const { pen } = this.waveform;
    const { width, height } = this.waveform.fresh();
    const middle = height / 2;
    pen.fillStyle = this.waveform.colour("--line");
    pen.fillRect(0, middle - 0.5, width, 1);
    if (!take) return;
    const shown_s = this.shown(take);
    const heard = (position_s / shown_s) * width;
    const peaks = peaksOf(take, Math.floor(width / BAR), shown_s);
    const loudest = Math.max(0.2, ...peaks);
    for (const [i, peak] of peaks.entries()) {
      if (peak === null) continue;
      const tall = Math.max(1.5, (peak / loudest) * (height - 4));
      pen.fillStyle = this.waveform.colour(i * BAR < heard ? "--beak" : "--sheen-soft");
      pen.beginPath();
      pen.roundRect(i * BAR, middle - tall / 2, BAR - 1, tall, 1);
      pen.fill();
    }
    if (take.length_s && position_s > 0) {
      pen.fillStyle = this.waveform.colour("--ink");
      pen.fillRect(Math.min(width - 1.5, heard), 0, 1.5, height);
    }
  }

  // Seconds that the whole width stands for: in steps of four, so that a growing wave does not jump about.
  shown(take) {
    if (take.state !== "speaking" && take.state !== "waiting") return take.length_s || 1;
    return Math.max(4, Math.ceil((take.length_s + 0.5) / 4) * 4);
  }

  drawSpectrum(take) {
    const { pen } = this.spectrum;
    const { width, height } = this.spectrum.fresh();
    if (!take?.length_s || width < 1) return;
    const image = spectrogram(take.samples, Math.round(width), Math.round(height));
    const small = new OffscreenCanvas(image.width, image.height);
    small.getContext("2d").putImageData(image, 0, 0);
    pen.imageSmoothingEnabled = true;
    pen.drawImage(small, 0, 0, width, height);
  }
}

// The loudest sample under each bar; null where nothing has arrived. Kept with the take, so only new bars cost.
function peaksOf(take, bars, shown_s) {
  const key = `${bars}/${shown_s}`;
  if (take.peaks?.key !== key) take.peaks = { key, bars: new Array(bars).fill(null), pieces: 0 };
  const kept = take.peaks;
  for (; kept.pieces < take.pieces.length; kept.pieces++) {
    const piece = take.pieces[kept.pieces];
    const first = take.chunks[kept.pieces].offset_s;
    for (let i = 0; i < piece.length; i++) {
      const bar = Math.min(bars - 1, Math.floor(((first + i / take.rate) / shown_s) * bars));
      const loud = Math.abs(piece[i]);
      if (kept.bars[bar] === null || loud > kept.bars[bar]) kept.bars[bar] = loud;
    }
  }
  return kept.bars;
}
