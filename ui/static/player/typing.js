// Sends text word by word, as a language model writes it. Returns a function that stops it.

export function type(text, wordsPerSecond, send, done) {
  const words = text.match(/\s*\S+\s*/g) ?? [];
  const started = performance.now();
  let next = 0;
  const step = () => {
    // counted from the start, so that a throttled timer catches up
    const due = Math.floor(((performance.now() - started) / 1000) * wordsPerSecond) + 1;
    while (next < Math.min(due, words.length)) send(words[next++]);
    if (next < words.length) return;
    clearInterval(timer);
    done();
  };
  const timer = setInterval(step, 1000 / wordsPerSecond);
  step();
  return () => clearInterval(timer);
}
