// Error messages beside the controls that they belong to.

const PLACES = {
  text: "#text",
  name: "#voice-name",
  consent: "#consent",
  clip: "#clip",
  respellings: "#respellings",
  speed: "#voice-speed",
  language: "#language-field",
  model: "#model-field",
};

// `field` is the server's name, `settings` "a" or "b". Errors without a control go to `fallback`.
export function show({ field, message }, settings, fallback) {
  const control = field ? document.querySelector(PLACES[field] ?? `#${field.replaceAll("_", "-")}-${settings}`) : null;
  const place = control || fallback;
  const text = document.createElement("p");
  text.className = "field-error";
  text.setAttribute("role", "alert");
  text.id = `error-${place.id || "player"}`;
  text.textContent = message;
  place.append(text);
  const input = control?.querySelector("textarea, input:not([type=file]), select");
  input?.setAttribute("aria-invalid", "true");
  input?.setAttribute("aria-describedby", text.id);
  if (control?.closest(".expert")) document.dispatchEvent(new CustomEvent("mynah-expert"));
  if (control?.offsetParent === null) document.querySelector(`#settings [role=tablist] [data-tab-id=${settings}]`)?.click();
  text.scrollIntoView({ block: "nearest", behavior: "smooth" });
}

export function clear(within = document) {
  for (const text of within.querySelectorAll(".field-error")) text.remove();
  for (const input of within.querySelectorAll("[aria-invalid]")) {
    input.removeAttribute("aria-invalid");
    input.removeAttribute("aria-describedby");
  }
}
