// Elements made in JavaScript.

export function make(tag, text = "", { label, className } = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  if (tag === "button") element.type = "button";
  if (label) element.setAttribute("aria-label", label);
  if (className) element.className = className;
  return element;
}
