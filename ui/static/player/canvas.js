// A canvas at the screen's resolution, with the page's colours.

export class Canvas {
  #colours = new Map();

  constructor(canvas) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d");
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#colours.clear());
    new MutationObserver(() => this.#colours.clear()).observe(document.body, { attributeFilter: ["class"] });
  }

  get visible() {
    return this.canvas.checkVisibility();
  }

  // Clears the canvas and returns its size in CSS pixels.
  clear() {
    const { width, height } = this.canvas.getBoundingClientRect();
    const scale = devicePixelRatio || 1;
    this.canvas.width = Math.max(1, Math.round(width * scale));
    this.canvas.height = Math.max(1, Math.round(height * scale));
    this.pen.setTransform(scale, 0, 0, scale, 0, 0);
    return { width, height };
  }

  // Returns the value of a CSS variable such as "--sheen".
  colour(name) {
    if (!this.#colours.has(name)) this.#colours.set(name, getComputedStyle(this.canvas).getPropertyValue(name).trim());
    return this.#colours.get(name);
  }
}
