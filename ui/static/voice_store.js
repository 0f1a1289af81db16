// The voices of the server, as last listed. Dispatches "mynah-voices" on the document when the list has changed.

import { request } from "./api.js";

const voices = [];

export const all = () => voices;
export const named = (id) => voices.find((one) => one.id === id);

export async function refresh() {
  const answer = await request("voices");
  if (!answer.voices) return;
  voices.splice(0, voices.length, ...answer.voices);
  document.dispatchEvent(new CustomEvent("mynah-voices"));
}

// A server that comes back may have other voices.
let up = false;
const onServer = (state) => {
  if (state?.up && !up) refresh();
  up = Boolean(state?.up);
};
document.addEventListener("mynah-server", ({ detail }) => onServer(detail));
onServer(window.mynahServer);
