// Loudness after ITU-R BS.1770-4 (K-weighting, 0.4 s blocks, two gates) of mono samples at 48 kHz.

const SHELF = { b: [1.53512485958697, -2.69169618940638, 1.19839281085285], a: [-1.69065929318241, 0.73248077421585] };
const HIGHPASS = { b: [1, -2, 1], a: [-1.99004745483398, 0.99007225036621] };
const BLOCK = 19200;
const HOP = 4800;

export function loudness(samples) {
  const weighted = filtered(filtered(samples, SHELF), HIGHPASS);
  const powers = [];
  for (let start = 0; start + BLOCK <= weighted.length; start += HOP) {
    let sum = 0;
    for (let i = start; i < start + BLOCK; i++) sum += weighted[i] ** 2;
    powers.push(sum / BLOCK);
  }
  const loud = powers.filter((power) => lufs(power) > -70);
  const gate = lufs(mean(loud)) - 10;
  return lufs(mean(loud.filter((power) => lufs(power) > gate)));
}

function filtered(samples, { b, a }) {
  const out = new Float64Array(samples.length);
  let x1 = 0, x2 = 0, y1 = 0, y2 = 0;
  for (let i = 0; i < samples.length; i++) {
    const x = samples[i];
    const y = b[0] * x + b[1] * x1 + b[2] * x2 - a[0] * y1 - a[1] * y2;
    [x2, x1, y2, y1] = [x1, x, y1, y];
    out[i] = y;
  }
  return out;
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length; // NaN for none
const lufs = (power) => (power > 0 ? -0.691 + 10 * Math.log10(power) : -Infinity);
