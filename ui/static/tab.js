// The end of every tab: keeps the tab hidden (page.css) until Gradio is done with it. Some frames after it has drawn a
// tab, Gradio sets all of its controls to their first values again, and so undoes what a quick visitor did meanwhile.
// It does that to this part too, which thereby learns of it. Not a module: it must be quicker than Gradio.
const tab = element.closest("[role=tabpanel]");
const show = () => { tab.dataset.settled = ""; };
watch("value", show);
props.value = "as drawn";
setTimeout(show, 5000); // should a Gradio ever leave the value alone
