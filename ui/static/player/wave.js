// The waveform of a recording with the playback position, and its spectrogram when it is complete.

import { Canvas } from "./canvas.js";
import { spectrogram } from "./spectrum.js";

const BAR = 3; // pixels from one bar to the next

export class Wave {
  constructor(waveform, spectrum) {
    this.waveform = new Canvas(waveform);
    this.spectrum = new Canvas(spectrum);
  }

  draw(recording, position_s) {
    const { pen } = this.waveform;
    const { width, height } = this.waveform.clear();
    const middle = height / 2;
    pen.fillStyle = this.waveform.colour("--line");
    pen.fillRect(0, middle - 0.5, width, 1);
    if (!recording) return;
    const shown_s = this.shownSeconds(recording);
    const played = (position_s / shown_s) * width;
    const peaks = peaksOf(recording, Math.floor(width / BAR), shown_s);
    const loudest = Math.max(0.2, ...peaks);
    for (const [i, peak] of peaks.entries()) {
      if (peak === null) continue;
      const tall = Math.max(1.5, (peak / loudest) * (height - 4));
      pen.fillStyle = this.waveform.colour(i * BAR < played ? "--beak" : "--sheen-soft");
      pen.beginPath();
      pen.roundRect(i * BAR, middle - tall / 2, BAR - 1, tall, 1);
      pen.fill();
    }
    if (recording.length_s && position_s > 0) {
      pen.fillStyle = this.waveform.colour("--ink");
      pen.fillRect(Math.min(width - 1.5, played), 0, 1.5, height);
    }
  }

  // The seconds across the width, in steps of four so that a growing wave is redrawn rarely.
  shownSeconds(recording) {
    if (!recording.running) return recording.length_s || 1;
    return Math.max(4, Math.ceil((recording.length_s + 0.5) / 4) * 4);
  }

  drawSpectrum(recording) {
    const { pen } = this.spectrum;
    const { width, height } = this.spectrum.clear();
    if (!recording?.length_s || width < 1) return;
    const image = spectrogram(recording.samples, Math.round(width), Math.round(height));
    const small = new OffscreenCanvas(image.width, image.height);
    small.getContext("2d").putImageData(image, 0, 0);
    pen.imageSmoothingEnabled = true;
    pen.drawImage(small, 0, 0, width, height);
  }
}

// The peak under each bar, or null without audio. They are cached in the recording, so only new samples are read.
function peaksOf(recording, bars, shown_s) {
  const key = `${bars}/${shown_s}`;
  if (recording.peaks?.key !== key) recording.peaks = { key, bars: new Array(bars).fill(null), pieces: 0 };
  const peaks = recording.peaks;
  for (; peaks.pieces < recording.pieces.length; peaks.pieces++) {
    const piece = recording.pieces[peaks.pieces];
    const first = recording.chunks[peaks.pieces].offset_s;
    for (let i = 0; i < piece.length; i++) {
      const bar = Math.min(bars - 1, Math.floor(((first + i / recording.rate) / shown_s) * bars));
      const loud = Math.abs(piece[i]) / 32768;
      if (peaks.bars[bar] === null || loud > peaks.bars[bar]) peaks.bars[bar] = loud;
    }
  }
  return peaks.bars;
}
