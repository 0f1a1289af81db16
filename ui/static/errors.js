// Errors in words, beside the control that they are about.

const PLACES = {
  text: "#text",
  name: "#voice-name",
  consent: "#consent",
  clip: "#clip",
};

// `field` as the server names it, `setting` "a" or "b". What belongs to no control stands at `elsewhere`.
export function show({ field, message }, setting, elsewhere) {
  const control = field ? document.querySelector(PLACES[field] ?? `#${field.replaceAll("_", "-")}-${setting}`) : null;
  const place = control || elsewhere;
  const words = document.createElement("p");
  words.className = "wrong";
  words.setAttribute("role", "alert");
  words.id = `wrong-${place.id || "player"}`;
  words.textContent = message;
  place.append(words);
  const input = control?.querySelector("textarea, input");
  input?.setAttribute("aria-invalid", "true");
  input?.setAttribute("aria-describedby", words.id);
  if (control?.offsetParent === null) document.querySelector(`#settings [role=tablist] [data-tab-id=${setting}]`)?.click();
  words.scrollIntoView({ block: "nearest", behavior: "smooth" });
}

export function clear(within = document) {
  for (const words of within.querySelectorAll(".wrong")) words.remove();
  for (const input of within.querySelectorAll("[aria-invalid]")) {
    input.removeAttribute("aria-invalid");
    input.removeAttribute("aria-describedby");
  }
}
