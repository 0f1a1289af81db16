// The page's own routes. Returns the answer, or {message, field} if it did not work.

export async function request(path, { as = "json", ...options } = {}) {
  try {
    const answer = await fetch(new URL(`../${path}`, import.meta.url), { cache: "no-store", ...options });
    if (as === "blob" && answer.ok) return await answer.blob();
    const content = await answer.json();
    return answer.ok || content.message ? content : { message: "The page failed. Try again.", field: "" };
  } catch {
    return { message: "The connection to this page was lost. Try again in a moment.", field: "" };
  }
}
