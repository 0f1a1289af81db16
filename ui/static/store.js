// What the page remembers in this browser: the text, the voices chosen, the view, the colours. Private windows may refuse.

const PREFIX = "mynah.";

export function remember(name, value) {
  try {
    localStorage.setItem(PREFIX + name, value);
  } catch { /* full or forbidden: the page works without */ }
}

export function remembered(name) {
  try {
    return localStorage.getItem(PREFIX + name);
  } catch {
    return null;
  }
}
