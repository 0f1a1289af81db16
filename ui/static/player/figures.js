// The figures below the player; with two recordings, A's above B's.

// `recordings` is [[name, figures], ...].
export function drawFigures(element, recordings) {
  for (const place of element.querySelectorAll("[data-figure]")) {
    const values = recordings.map(([name, figures]) => [name, figures[place.dataset.figure] ?? "–"]);
    const lines = values.map(([name, value]) => (values.length > 1 ? `${name.toUpperCase()} ${value}` : value));
    const text = lines.join("\n") || "–";
    if (place.textContent !== text) place.textContent = text;
  }
}
