// Nodes of a page. Texts go in by textContent only: nothing here makes HTML of a string.

export const make = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined && text !== null) node.textContent = text;
  return node;
};

// `key` names what a press means; `label` is what a screen reader says where the text alone does not do.
export const button = (key, text, label, act) => {
  const node = make("button", "vw-button", text);
  node.type = "button";
  node.dataset.key = key;
  if (label) node.setAttribute("aria-label", label);
  node.addEventListener("click", act);
  return node;
};
