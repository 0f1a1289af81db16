// The spectrogram of samples as an image, with a mel-like frequency scale.

const SIZE = 1024; // samples in one transform, 43 ms at 24 kHz
const RANGE_DB = 72;

export function spectrogram(samples, width, height) {
  const image = new ImageData(width, height);
  const window = Float32Array.from({ length: SIZE }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / SIZE));
  const rows = Array.from({ length: height }, (_, y) => melBin(1 - (y + 0.5) / height));
  const columns = [];
  let loudest = -Infinity;
  for (let x = 0; x < width; x++) {
    const start = Math.round((x / width) * samples.length - SIZE / 2);
    const real = Float32Array.from(window, (weight, i) => weight * (samples[start + i] ?? 0));
    const imaginary = new Float32Array(SIZE);
    fft(real, imaginary);
    const levels = rows.map((bin) => 10 * Math.log10(real[bin] ** 2 + imaginary[bin] ** 2 + 1e-9));
    loudest = levels.reduce((max, level) => Math.max(max, level), loudest);
    columns.push(levels);
  }
  for (const [x, levels] of columns.entries())
    for (const [y, level] of levels.entries())
      image.data.set(light(1 + (level - loudest) / RANGE_DB), (y * width + x) * 4);
  return image;
}

// Returns the FFT bin at a share of the mel scale from 0 to 12 kHz.
function melBin(share) {
  const top = Math.log(1 + 12000 / 700);
  return Math.round(((700 * (Math.exp(share * top) - 1)) / 12000) * (SIZE / 2 - 1));
}

// Maps 0 to black and 1 to light, over violet and amber.
const STOPS = [[20, 18, 28], [64, 48, 130], [168, 72, 120], [240, 160, 40], [255, 244, 214]];
function light(share) {
  const at = Math.max(0, Math.min(0.9999, share)) * (STOPS.length - 1);
  const low = STOPS[Math.floor(at)], high = STOPS[Math.floor(at) + 1], part = at % 1;
  return [...low.map((value, i) => value + (high[i] - value) * part), 255];
}

// An in-place radix-2 FFT.
function fft(real, imaginary) {
  const n = real.length;
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) [real[i], real[j]] = [real[j], real[i]];
  }
  for (let size = 2; size <= n; size *= 2) {
    for (let k = 0; k < size / 2; k++) {
      const angle = (-2 * Math.PI * k) / size, cos = Math.cos(angle), sin = Math.sin(angle);
      for (let a = k, b = k + size / 2; a < n; a += size, b += size) {
        const re = real[b] * cos - imaginary[b] * sin, im = real[b] * sin + imaginary[b] * cos;
        real[b] = real[a] - re; imaginary[b] = imaginary[a] - im;
        real[a] += re; imaginary[a] += im;
      }
    }
  }
}
