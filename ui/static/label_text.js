// Texts of answers as elements: highlights, the words that differ, sentences to walk along. Everything by textContent.
import { plain } from "./markdown.js";

const segment = (text, granularity) => (Intl.Segmenter
  ? [...new Intl.Segmenter(undefined, { granularity }).segment(text)].map((one) => one.segment)
  : text.match(granularity === "word" ? /\w+|\s+|[^\w\s]/gu : /[^.!?。!?\n]+[.!?。!?\n]*/gu) || [text]);
const WORDS_MOST = 1500; // of one answer; longer ones are compared by lines

export const points = (text) => [...text].length; // code points: what the server counts in

// The words that only `text` has, as [start, end) in UTF-16 units, by the longest common sequence with `other`.
export function differing(text, other) {
  let [mine, theirs] = [segment(text, "word"), segment(other, "word")];
  if (Math.max(mine.length, theirs.length) > WORDS_MOST) [mine, theirs] = [text.split(/(?<=\n)/), other.split(/(?<=\n)/)];
  const common = kept(mine, theirs);
  const found = [];
  let at = 0;
  mine.forEach((word, i) => {
    if (!common.has(i) && word.trim()) {
      const last = found.at(-1);
      if (last && !text.slice(last[1], at).trim()) last[1] = at + word.length;
      else found.push([at, at + word.length]);
    }
    at += word.length;
  });
  return found;
}

// Indices of `mine` that stand in a longest common subsequence with `theirs`.
function kept(mine, theirs) {
  const width = theirs.length + 1;
  const longest = new Uint16Array((mine.length + 1) * width);
  for (let i = mine.length - 1; i >= 0; i--) {
    for (let j = theirs.length - 1; j >= 0; j--) {
      longest[i * width + j] = mine[i] === theirs[j] ? longest[(i + 1) * width + j + 1] + 1
        : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
    }
  }
  const found = new Set();
  for (let i = 0, j = 0; i < mine.length && j < theirs.length;) {
    if (mine[i] === theirs[j]) { found.add(i); i++; j++; } else if (longest[(i + 1) * width + j] >= longest[i * width + j + 1]) i++;
    else j++;
  }
  return found;
}

// Ranges of sentences. What has no letter (the number before a line of a list) belongs to what follows it.
export function sentences(text) {
  const found = [];
  let at = 0, from = -1;
  for (const one of segment(text, "sentence")) {
    const end = at + one.trimEnd().length;
    if (from < 0 && one.trim()) from = at + one.length - one.trimStart().length;
    if (/\p{L}/u.test(one)) {
      found.push([from, end]);
      from = -1;
    }
    at += one.length;
  }
  if (from >= 0) found.push([from, text.trimEnd().length]);
  return found;
}

const starts = new WeakMap(); // text node -> where its text begins in what it was made from

// Shows a text: its blocks as markdown.js reads them, or all of it as it is written. `marks`: {start, end, name, title} in UTF-16
// units of the text; they may overlap.
export function fill(node, text, marks, tree = plain(text)) {
  const edges = [...new Set(marks.flatMap(({ start, end }) => [start, end]))].sort((a, b) => a - b);
  const pieces = ({ from, to }) => [from, ...edges.filter((edge) => edge > from && edge < to), to].slice(0, -1).map((start, i, all) => {
    const end = all[i + 1] ?? to;
    const piece = document.createTextNode(text.slice(start, end));
    starts.set(piece, start);
    const over = marks.filter((mark) => mark.start < end && mark.end > start);
    if (!over.length) return piece;
    const element = document.createElement("mark");
    element.className = over.map(({ name }) => name).join(" ");
    const title = over.map((mark) => mark.title).filter(Boolean).join(", ");
    if (title) element.title = title;
    element.append(piece);
    return element;
  });
  const drawn = (one) => {
    if (!one.tag) return pieces(one);
    const element = document.createElement(one.tag);
    if (one.name) element.className = one.name;
    if (one.start > 1) element.start = one.start;
    if (one.level) {
      element.setAttribute("role", "heading");
      element.setAttribute("aria-level", String(Math.min(6, one.level + 2)));
    }
    element.append(...one.children.flatMap(drawn));
    return [element];
  };
  node.replaceChildren(...tree.flatMap(drawn));
}

// UTF-16 range <-> a highlight in code points

export function spanOf(place, text, start, end, tag) {
  return { place, start: points(text.slice(0, start)), end: points(text.slice(0, end)), text: text.slice(start, end), tag };
}

export function rangeOf(span, text) {
  const all = [...text];
  const start = all.slice(0, span.start).join("").length;
  return [start, start + all.slice(span.start, span.end).join("").length];
}

// Where a selection lies in the text that a node shows; null when it lies elsewhere or is empty.
export function selectedIn(node) {
  const selection = getSelection();
  if (!selection.rangeCount || selection.isCollapsed) return null;
  const range = selection.getRangeAt(0);
  if (!node.contains(range.startContainer) || !node.contains(range.endContainer)) return null;
  const walker = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
  let found = null;
  while (walker.nextNode()) {
    const text = walker.currentNode;
    if (!range.intersectsNode(text) || !starts.has(text)) continue;
    const at = starts.get(text);
    const from = at + (text === range.startContainer ? range.startOffset : 0);
    const to = at + (text === range.endContainer ? range.endOffset : text.length);
    if (to > from) found = [found ? found[0] : from, to];
  }
  return found;
}
