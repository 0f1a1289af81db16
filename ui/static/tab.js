// The last component of each tab. It keeps the tab hidden (page.css) until Gradio has finished it: some frames after
// drawing a tab, Gradio resets all its controls, and would undo a quick visitor's input. Gradio resets this component
// too, which is the signal. It is not a module, because it must run before Gradio.
const tab = element.closest("[role=tabpanel]");
const show = () => {
  tab.dataset.settled = "";
  document.dispatchEvent(new CustomEvent("mynah-settled", { detail: tab.id }));
};
watch("value", show);
props.value = "as drawn";
setTimeout(show, 5000); // in case a version of Gradio does not reset the value
