// The buttons for paralinguistic tags. Each inserts its tag at the cursor.

export function mount(element) {
  element.addEventListener("click", (event) => {
    const tag = event.target.closest("button")?.dataset.tag;
    const text = document.querySelector("#text textarea");
    if (!tag || !text) return;
    const { selectionStart: from, selectionEnd: to, value } = text;
    const before = from > 0 && !/\s$/.test(value.slice(0, from)) ? " " : "";
    const after = /^\s/.test(value.slice(to)) ? "" : " ";
    text.setRangeText(`${before}${tag}${after}`, from, to, "end");
    text.dispatchEvent(new Event("input", { bubbles: true }));
    text.focus();
  });
  for (const button of element.querySelectorAll("button")) button.disabled = false;
}
