// Markdown as a tree over the text it was written in. Every character shown is a character of the source, at a known place, so
// that highlights and differences keep their places; nothing is ever made into HTML, no address is followed, no image is loaded.
const DEEP_MOST = 24; // of quotes, lists and emphasis within each other; deeper marks stay as they are written
const WIDE_MOST = 1000; // pieces between an opening and its closing mark; more are looked at no further, or hostile texts take seconds
const LONG_MOST = 100000; // characters; longer texts are shown as they are written
const ADDRESS_MOST = 2000;
const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^`\s]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+|$)/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(?:( {1,4})(?=\S)|[ \t]*$)/;
const ROW_RULE = /^[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const WORD = /[\p{L}\p{N}]/u;

// The blocks of a text: {tag, name, start, children}, and leaves {from, to} of characters of `text`.
export function parsed(text) {
  if (text.length > LONG_MOST) return plain(text);
  const lines = [];
  let at = 0;
  for (const line of text.split("\n")) {
    lines.push([at, at + line.length]);
    at += line.length + 1;
  }
  return blocks(text, lines, 0);
}

export const plain = (text) => (text ? [{ from: 0, to: text.length }] : []);

// ---- blocks; a line is [from, to) of the source, without the marks of what it stands in

function blocks(text, lines, depth) {
  const found = [];
  const said = ([from, to]) => text.slice(from, to);
  let at = 0;
  while (at < lines.length) {
    const line = said(lines[at]);
    let next = at + 1;
    if (!line.trim()) {
      at = next;
      continue;
    }
    const fence = FENCE.exec(line);
    const heading = HEADING.exec(line);
    if (fence) {
      const close = new RegExp(`^ {0,3}\\${fence[1][0]}{${fence[1].length},}[ \\t]*$`);
      while (next < lines.length && !close.test(said(lines[next]))) next++;
      found.push(code(text, lines.slice(at + 1, next), lines[at], fence));
      next++;
    } else if (heading) {
      const from = lines[at][0] + heading[0].length;
      const shown = text.slice(from, lines[at][1]).replace(/[ \t]+#+[ \t]*$|^#+[ \t]*$/, "").trimEnd();
      found.push({ tag: "div", name: `md-h md-h${heading[1].length}`, level: heading[1].length, children: inline(text, [[from, from + shown.length]], depth) });
    } else if (RULE.test(line)) {
      found.push({ tag: "hr", children: [] });
    } else if (QUOTE.test(line) && depth < DEEP_MOST) {
      while (next < lines.length && QUOTE.test(said(lines[next]))) next++;
      const inner = lines.slice(at, next).map(([from, to]) => [from + QUOTE.exec(text.slice(from, to))[0].length, to]);
      found.push({ tag: "blockquote", children: blocks(text, inner, depth + 1) });
    } else if (ITEM.test(line) && depth < DEEP_MOST) {
      next = list(text, lines, at, depth, found);
    } else if (line.includes("|") && next < lines.length && said(lines[next]).includes("-") && ROW_RULE.test(said(lines[next]))) {
      while (next < lines.length && said(lines[next]).includes("|") && said(lines[next]).trim()) next++;
      found.push(table(text, [lines[at], ...lines.slice(at + 2, next)], depth));
    } else {
      while (next < lines.length && said(lines[next]).trim() && !opens(said(lines[next]))) next++;
      found.push({ tag: "p", children: inline(text, lines.slice(at, next), depth) });
    }
    at = next;
  }
  return found;
}

const opens = (line) => FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line);

function code(text, lines, [from], [whole, , language]) {
  const at = from + whole.indexOf(language, whole.search(/[^`~ ]|$/));
  const body = lines.flatMap(([start, end], i) => [{ from: start, to: Math.min(text.length, i + 1 < lines.length ? end + 1 : end) }]);
  const name = language ? [{ tag: "span", name: "md-language", children: [{ from: at, to: at + language.length }] }] : [];
  return { tag: "pre", name: "md-code", children: [...name, { tag: "code", children: body }] };
}

// One list from `at` on, pushed onto `found`; returns where it ends.
function list(text, lines, at, depth, found) {
  const said = (i) => text.slice(...lines[i]);
  const first = ITEM.exec(said(at));
  const isOrdered = /\d/.test(first[2]);
  const kind = first[2].at(-1);
  const items = [];
  while (at < lines.length) {
    const mark = ITEM.exec(said(at));
    if (!mark || mark[2].at(-1) !== kind || /\d/.test(mark[2]) !== isOrdered || RULE.test(said(at))) break;
    const inset = mark[1].length + mark[2].length + (mark[3]?.length ?? 1);
    const own = [[Math.min(lines[at][0] + inset, lines[at][1]), lines[at][1]]];
    at++;
    while (at < lines.length) {
      const line = said(at);
      const indent = line.length - line.trimStart().length;
      const isBlank = !line.trim();
      if (isBlank && !(at + 1 < lines.length && said(at + 1).trim() && said(at + 1).search(/\S/) > mark[1].length + 1)) break;
      const isLazy = said(at - 1).trim() && !opens(line) && !isBlank;
      if (!isBlank && indent < mark[1].length + 2 && !isLazy) break;
      own.push([lines[at][0] + Math.min(indent, inset), lines[at][1]]);
      at++;
    }
    items.push({ tag: "li", children: blocks(text, own, depth + 1) });
    const ahead = at + 1;
    if (at < lines.length && !said(at).trim() && ahead < lines.length && ITEM.test(said(ahead))) at = ahead; // a loose list
  }
  found.push({ tag: isOrdered ? "ol" : "ul", start: isOrdered ? parseInt(first[2], 10) : null, children: items });
  return at;
}

function table(text, lines, depth) {
  const rows = lines.map((line, i) => ({
    tag: "tr", children: cells(text, line).map((cell) => ({ tag: i ? "td" : "th", children: inline(text, [cell], depth) })),
  }));
  return { tag: "div", name: "md-table", children: [{ tag: "table", children: rows }] };
}

function cells(text, [from, to]) {
  const edges = [];
  for (let i = from; i < to; i++) if (text[i] === "|" && text[i - 1] !== "\\") edges.push(i);
  if (!text.slice(from, edges[0]).trim()) from = edges.shift() + 1;
  if (edges.length && !text.slice(edges.at(-1) + 1, to).trim()) to = edges.pop();
  const starts = [from, ...edges.map((edge) => edge + 1)];
  return starts.map((start, i) => {
    const cell = text.slice(start, edges[i] ?? to);
    const inset = cell.length - cell.trimStart().length;
    return [start + inset, start + Math.max(inset, cell.trimEnd().length)];
  });
}

// ---- within a block: one pass, with the marks that are still open on a stack

function inline(text, lines, depth) {
  const whole = lines.map(([from, to]) => text.slice(from, to)).join("\n");
  const places = [];
  lines.forEach(([from, to]) => { for (let i = from; i <= to; i++) places.push(i); });
  const run = { whole, places, out: [], open: [], unclosed: new Set(), count: {}, depth, from: 0 };
  let at = 0;
  while (at < whole.length) {
    const sign = whole[at];
    const read = READERS[sign];
    at = read ? read(run, at, sign) : at + 1;
  }
  textUntil(run, whole.length);
  return run.out.filter((node) => node.tag || node.to > node.from);
}

// Leaves for what was read as plain text up to here; the source may have marks of quotes between two lines.
function textUntil(run, to) {
  run.out.push(...leaves(run, run.from, to));
  run.from = to;
}

function leaves({ places }, from, to) {
  const found = [];
  for (let at = from; at < to;) {
    let end = at + 1;
    while (end < to && places[end] === places[end - 1] + 1) end++;
    found.push({ from: places[at], to: places[end - 1] + 1 });
    at = end;
  }
  return found;
}

const deep = (nodes) => nodes.reduce((most, node) => Math.max(most, node.deep ?? 0), 0) + 1;

const READERS = {
  "\\": (run, at) => {
    if (!PUNCTUATION.test(run.whole[at + 1] ?? "")) return at + 1;
    textUntil(run, at);
    run.from = at + 1;
    return at + 2;
  },
  "`": (run, at) => {
    const length = /^`+/.exec(run.whole.slice(at, at + 200))[0].length;
    const to = run.unclosed.has(length) ? -1 : closing(run.whole, at + length, length);
    if (to < 0) {
      run.unclosed.add(length); // looked for once, or many open ticks would be looked for over and over
      return at + length;
    }
    textUntil(run, at);
    run.out.push({ tag: "code", children: leaves(run, at + length, to) });
    run.from = to + length;
    return run.from;
  },
  "*": emphasis,
  "_": emphasis,
  "~": emphasis,
  "[": (run, at) => {
    const isImage = run.whole[at - 1] === "!" && at - 1 >= run.from;
    const from = isImage ? at - 1 : at;
    textUntil(run, from);
    run.open.push({ sign: "[", place: run.out.length, isImage });
    run.count["["] = (run.count["["] ?? 0) + 1;
    run.out.push(...leaves(run, from, at + 1));
    run.from = at + 1;
    return at + 1;
  },
  "]": (run, at) => {
    if (!run.count["["]) return at + 1;
    const opener = backTo(run, "[");
    const to = run.whole[at + 1] === "(" ? address(run.whole, at + 2) : -1;
    if (to < 0) return at + 1;
    textUntil(run, at);
    const children = run.out.splice(opener.place).slice(1); // without the bracket itself
    const where = { tag: "span", name: "md-address", children: leaves(run, at + 2, to) };
    run.out.push({ tag: "span", name: opener.isImage ? "md-image" : "md-link", children: [...children, where], deep: deep(children) });
    run.from = to + 1;
    return run.from;
  },
};

function closing(whole, from, length) {
  for (let at = whole.indexOf("`", from); at >= 0; at = whole.indexOf("`", at)) {
    let end = at;
    while (whole[end] === "`") end++;
    if (end - at === length) return at;
    at = end;
  }
  return -1;
}

// Where an address ends that begins at `from`; -1 when it is none.
function address(whole, from) {
  let open = 0;
  for (let at = from; at < Math.min(whole.length, from + ADDRESS_MOST); at++) {
    if (whole[at] === "\n") return -1;
    if (whole[at] === "(") open++;
    else if (whole[at] === ")" && open-- === 0) return at;
  }
  return -1;
}

// Takes the newest open mark of this sign from the stack; those opened after it are text from now on.
function backTo(run, sign) {
  for (;;) {
    const opener = run.open.pop();
    run.count[opener.sign]--;
    if (opener.sign === sign) return opener;
  }
}

function emphasis(run, at, sign) {
  let end = at;
  while (run.whole[end] === sign) end++;
  const [before, after] = [run.whole[at - 1] ?? " ", run.whole[end] ?? " "];
  const isTight = sign === "_" ? [WORD.test(before), WORD.test(after)] : [false, false];
  let left = end - at;
  if (sign === "~" && left !== 2) return end;
  let from = at;
  if (before.trim() && !isTight[1]) {
    while (left && run.count[sign]) {
      const opener = backTo(run, sign);
      const width = Math.min(2, left, opener.left);
      if (sign === "~" && width < 2) break;
      if (run.out.length - opener.place > WIDE_MOST) break;
      textUntil(run, from);
      const inner = run.out.slice(opener.place + 1);
      if (!inner.length || deep(inner) > DEEP_MOST) break;
      run.out.length = opener.place + 1;
      const mark = run.out.pop(); // the open marks; what is left of them stays
      opener.left -= width;
      if (opener.left) run.out.push({ ...mark, to: mark.to - width });
      run.out.push({ tag: sign === "~" ? "s" : width === 2 ? "strong" : "em", children: inner, deep: deep(inner) });
      from += width;
      left -= width;
      run.from = from;
      if (opener.left) {
        run.open.push(opener);
        run.count[sign]++;
      }
    }
  }
  if (left && after.trim() && !isTight[0]) {
    textUntil(run, from);
    run.open.push({ sign, place: run.out.length, left });
    run.count[sign] = (run.count[sign] ?? 0) + 1;
    run.out.push(...leaves(run, from, end));
    run.from = end;
  }
  return end;
}
