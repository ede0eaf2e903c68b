// Draws the parts that ui/views/drawn.py describes. Texts go in by textContent only: nothing here makes HTML of a string.

import { differing, fill } from "./label_text.js";
import { parsed } from "./markdown.js";
import { button, make } from "./nodes.js";

const cell = (content) => {
  if (content === null || typeof content !== "object") return make("span", "", content ?? "");
  if (content.badge) return make("span", `vw-badge vw-${content.badge}`, content.text);
  if (content.href && content.href.startsWith("/")) {
    const anchor = make("a", "", content.text);
    anchor.href = content.href;
    return anchor;
  }
  const both = make("span", "vw-both", content.text);
  if (content.sub) both.append(make("small", "", content.sub));
  return both;
};

// A box that marks a cell of a table, or a row. What is marked the server knows, so that marks stay while pages are turned.
const markBox = (part, id, arm, trigger) => {
  const box = make("input", "vw-mark");
  const marked = (at) => part.marks.some(([row, column]) => row === id && column === at);
  const several = [...part.letters].map((_, at) => marked(at));
  box.type = "checkbox";
  box.checked = arm === undefined ? several.every(Boolean) : marked(arm);
  box.indeterminate = arm === undefined && !box.checked && several.some(Boolean);
  box.dataset.key = `mark-${id}-${arm ?? "row"}`;
  box.setAttribute("aria-label", `${part.mark} ${id}${arm === undefined ? "" : ` ${part.letters[arm]}`}`);
  box.addEventListener("change", () => trigger("select", { mark: arm === undefined ? { id } : { id, arm } }));
  return box;
};

const svg = (tag, attributes, text) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
};

// A picture of 0 to 100 % upwards or to the right, which says in words what it shows.
const picture = (width, height, part) =>
  svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "vw-picture", role: "img", "aria-label": part.caption });

const DRAW = {
  note(part) {
    const node = make("p", `vw-note vw-${part.tone}`, part.text);
    node.setAttribute("role", part.tone === "bad" ? "alert" : "status");
    return node;
  },

  heading(part) {
    const node = make("h2", "vw-heading", part.text);
    if (part.aside) node.append(make("small", "", part.aside));
    return node;
  },

  diff(part) {
    const node = make("div", "vw-diff");
    node.setAttribute("role", "group");
    node.setAttribute("aria-label", part.label);
    node.append(make("span", "vw-label", part.label));
    for (const [kind, text] of part.pieces) node.append(make({ gone: "del", new: "ins" }[kind] ?? "span", "", text));
    return node;
  },

  cards(part) {
    const node = make("dl", "vw-cards");
    for (const item of part.items) {
      const card = make("div", "vw-card");
      card.append(make("dt", "", item.label), make("dd", "vw-value", item.value), make("dd", "vw-hint", item.hint));
      node.append(card);
    }
    return node;
  },

  shelf(part, trigger) {
    const node = make("div", "vw-shelf");
    for (const group of part.groups) {
      const grid = make("ul", "vw-shelf-grid");
      for (const item of group.items) {
        const card = make("li", item.chosen ? "vw-choice vw-chosen" : "vw-choice");
        const title = button(`card-${item.id}`, item.title, "", () => trigger("select", { id: item.id }));
        title.setAttribute("aria-pressed", String(item.chosen));
        const head = make("div", "vw-choice-head");
        head.append(title, make("span", "vw-badge vw-info", item.badge));
        card.append(head, make("p", "", item.text), make("span", "vw-foot", item.foot));
        card.addEventListener("click", (event) => {
          if (!event.target.closest("button")) trigger("select", { id: item.id });
        });
        grid.append(card);
      }
      node.append(make("h2", "vw-heading", group.title), grid);
    }
    return node;
  },

  facts(part) {
    const node = make("dl", "vw-facts");
    for (const [name, content] of part.rows) {
      const value = make("dd");
      value.append(cell(content));
      node.append(make("dt", "", name), value);
    }
    return node;
  },

  table(part, trigger) {
    if (!part.rows.length) return make("p", "vw-empty", part.empty);
    const frame = make("div", part.tall ? "vw-scroll vw-tall" : "vw-scroll");
    frame.tabIndex = 0;
    frame.setAttribute("role", "region");
    frame.setAttribute("aria-label", part.caption);
    const table = make("table", "vw-table");
    table.append(make("caption", "vw-hidden", part.caption));
    const head = make("tr");
    part.columns.forEach((name, at) => {
      const th = make("th", part.numbers.includes(at) ? "vw-number" : "", name);
      th.scope = "col";
      head.append(th);
    });
    const thead = make("thead");
    thead.append(head);
    const body = make("tbody");
    for (const row of part.rows) {
      const tr = make("tr", row.chosen ? "vw-chosen" : "");
      if (row.chosen) tr.setAttribute("aria-current", "true");
      row.cells.forEach((content, at) => {
        const td = make("td", part.numbers.includes(at) ? "vw-number" : "");
        if (part.marks) td.append(at === 0 ? markBox(part, row.id, undefined, trigger) : markBox(part, row.id, at - 1, trigger));
        if (at === 0 && part.selects) {
          td.append(button(`row-${row.id}`, content.text ?? content, "", () => trigger("select", { id: row.id })));
        } else td.append(cell(content));
        tr.append(td);
      });
      if (part.selects === true) {
        tr.addEventListener("click", (event) => {
          if (!event.target.closest("button, a, input")) trigger("select", { id: row.id });
        });
      }
      body.append(tr);
    }
    table.append(thead, body);
    frame.append(table);
    return frame;
  },

  messages(part, trigger) {
    const list = make("ol", "vw-messages");
    for (const item of part.items) {
      const entry = make("li", `vw-message vw-role-${item.role}`);
      entry.append(make("span", "vw-role", item.label), make("div", "vw-text", item.text));
      const foot = make("span", "vw-foot", item.foot);
      if (item.act) foot.append(button(`act-${item.id}`, item.act, "", () => trigger("select", { id: item.id })));
      if (item.foot || item.act) entry.append(foot);
      list.append(entry);
    }
    return list;
  },

  segments(part) {
    const node = make("div", "vw-segments");
    const bar = make("div", "vw-bar");
    const legend = make("ul", "vw-legend");
    let number = 0;
    for (const [kind, name, tokens] of part.parts) {
      const tone = kind === "demonstration" ? `${kind} vw-odd-${number++ % 2}` : kind;
      if (kind !== "dropped") {
        const piece = make("i", `vw-${tone}`);
        piece.style.flexGrow = tokens;
        piece.title = `${name}: ${tokens}`;
        bar.append(piece);
      }
      const entry = make("li", `vw-${tone}`, name);
      entry.append(make("b", "", String(tokens)));
      legend.append(entry);
    }
    const used = part.parts.reduce((sum, [kind, , tokens]) => sum + (kind === "dropped" ? 0 : tokens), 0);
    const free = make("i", "vw-free");
    free.style.flexGrow = Math.max(0, part.of - used);
    bar.append(free);
    bar.setAttribute("aria-hidden", "true"); // the legend says the same in words
    node.append(make("span", "vw-used", part.text), bar, legend);
    return node;
  },

  budget(part) {
    const node = make("div", "vw-budget");
    const bar = make("progress", part.used > part.of * 0.9 ? "vw-full" : "");
    bar.max = part.of || 1;
    bar.value = part.used;
    bar.setAttribute("aria-label", part.text);
    node.append(bar, make("span", "", part.text));
    return node;
  },

  rungs(part) {
    const list = make("ul", "vw-rungs");
    list.setAttribute("aria-label", part.caption);
    for (const [name, value, low, high, said] of part.rows) {
      const row = make("li");
      const track = make("span", "vw-way");
      const bar = make("i", "vw-fill");
      const whisker = make("i", "vw-whisker");
      bar.style.width = `${100 * value}%`;
      whisker.style.left = `${100 * low}%`;
      whisker.style.width = `${100 * (high - low)}%`;
      track.append(bar, whisker);
      row.append(make("span", "vw-name", name), track, make("span", "vw-said", said));
      list.append(row);
    }
    return list;
  },

  command(part) {
    const node = make("div", "vw-command");
    const code = make("code", "", part.text);
    const head = make("span", "vw-label", part.label);
    if (part.copy) {
      head.append(button(`copy-${part.label}`, part.copy, `${part.copy}: ${part.label}`, () => {
        getSelection().selectAllChildren(code); // what a browser without a clipboard leaves to Ctrl+C
        navigator.clipboard?.writeText(part.text);
      }));
    }
    node.append(head, code);
    return node;
  },

  // Shares of labels, a row of bars for each way of reading them; what is right is marked.
  bars(part) {
    const node = make("dl", "vw-bars");
    node.setAttribute("aria-label", part.caption);
    for (const group of part.groups) {
      const bars = make("dd");
      group.bars.forEach(([label, value, isRight]) => {
        const row = make("div", "vw-share");
        const fill = make("i");
        fill.style.width = `${100 * value}%`;
        const track = make("span", "vw-track");
        track.append(fill);
        row.append(make("span", "vw-share-label", label + (isRight ? " ✓" : "")), track, make("b", "", `${(100 * value).toFixed(1)} %`));
        bars.append(row);
      });
      node.append(make("dt", "", group.name), bars);
    }
    return node;
  },

  // One dot for each order at its accuracy; dots of equal accuracy stand above one another.
  strip(part) {
    const [width, left, right] = [640, 12, 12];
    const stacks = new Map();
    const most = Math.max(...part.dots.map(([value]) => stacks.set(value, (stacks.get(value) ?? 0) + 1).get(value)));
    const step = Math.min(11, 110 / most);  // where all agree the dots overlap rather than fill the page
    const [floor, height] = [18 + step * most, 42 + step * most];
    const x = (value) => left + value * (width - left - right);
    const frame = picture(width, height, part);
    frame.append(svg("line", { x1: x(0), x2: x(1), y1: floor, y2: floor, class: "vw-axis" }));
    for (const tick of [0, 0.25, 0.5, 0.75, 1]) {
      const anchor = { 0: "start", 1: "end" }[tick] ?? "middle";
      frame.append(svg("text", { x: x(tick), y: floor + 17, "text-anchor": anchor, class: "vw-tick" }, `${100 * tick} %`));
    }
    const placed = new Map();
    for (const [value, kind, hint] of part.dots) {
      const above = placed.get(value) ?? 0;
      placed.set(value, above + 1);
      const dot = svg("circle", { cx: x(value), cy: floor - 8 - step * above, r: 4.6, class: `vw-dot vw-dot-${kind}` });
      dot.append(svg("title", {}, hint));
      frame.append(dot);
    }
    return frame;
  },

  // A line with a band for its interval, and whiskers for the range over draws; x is one place per point.
  curve(part) {
    const [width, height, left, right, top, bottom] = [640, 250, 46, 14, 10, 40];
    const gap = (width - left - right) / Math.max(1, part.points.length - 1);
    const x = (at) => left + gap * at;
    const y = (value) => top + (1 - value) * (height - top - bottom);
    const frame = picture(width, height, part);
    for (const tick of [0, 0.25, 0.5, 0.75, 1]) {
      frame.append(svg("line", { x1: left, x2: width - right, y1: y(tick), y2: y(tick), class: "vw-axis" }));
      frame.append(svg("text", { x: left - 8, y: y(tick) + 4, "text-anchor": "end", class: "vw-tick" }, `${100 * tick} %`));
    }
    const along = (name) => part.points.map((point, at) => `${x(at)},${y(point[name])}`);
    frame.append(svg("polygon", { points: [...along("high"), ...along("low").reverse()].join(" "), class: "vw-band" }));
    frame.append(svg("polyline", { points: along("value").join(" "), class: "vw-line" }));
    part.points.forEach((point, at) => {
      frame.append(svg("line", { x1: x(at), x2: x(at), y1: y(point.lowest), y2: y(point.highest), class: "vw-whisker" }));
      const dot = svg("circle", { cx: x(at), cy: y(point.value), r: 4.4, class: `vw-dot${point.chosen ? " vw-dot-best" : ""}` });
      dot.append(svg("title", {}, point.hint));
      frame.append(dot, svg("text", { x: x(at), y: height - 22, "text-anchor": "middle", class: "vw-tick" }, point.name));
    });
    frame.append(svg("text", { x: (left + width) / 2, y: height - 4, "text-anchor": "middle", class: "vw-tick" }, part.x));
    return frame;
  },

  panes(part, trigger) {
    const frame = make("div", "vw-frame");
    frame.sight = {};
    frame.trigger = trigger;
    if (part.words?.diff) frame.append(sights(frame, part));
    const node = make("div", "vw-panes");
    node.dataset.count = part.items.length;
    part.items.forEach((item, at) => {
      const pane = make("section", "vw-pane");
      pane.setAttribute("aria-label", `${item.badge} ${item.title}`);
      const head = make("header", "");
      head.append(make("b", `vw-letter vw-letter-${at}`, item.badge), make("span", "vw-title", item.title));
      const body = make("div", "vw-text");
      body.tabIndex = 0;
      body.setAttribute("role", "region");
      body.setAttribute("aria-label", item.badge);
      const foot = make("footer", "");
      foot.append(make("span", ""), make("span", "vw-acts"));
      pane.append(head, body, foot);
      node.append(pane);
    });
    frame.append(node);
    fillPanes(frame, part);
    return frame;
  },
};

// The ways of looking at columns: they are this browser's alone.
const sights = (frame, part) => {
  const row = make("div", "vw-sights");
  for (const name of ["diff", "logps", "markdown"]) {
    const toggle = button(`sight-${name}`, part.words[name], "", () => {
      frame.sight = { ...frame.sight, [name]: !frame.sight[name] };
      toggle.setAttribute("aria-pressed", String(frame.sight[name]));
      fillPanes(frame, frame.shows);
    });
    toggle.setAttribute("aria-pressed", "false");
    row.append(toggle);
  }
  return row;
};

// A token as its share of the light: the less likely it was, the darker its ground.
const likelihoods = (logps) => logps.map(([text, logp]) => {
  const token = make("mark", "vw-token", text);
  token.style.setProperty("--doubt", String(Math.round(100 * (1 - Math.exp(logp)))));
  token.title = `${logp.toFixed(2)} · ${(100 * Math.exp(logp)).toFixed(1)} %`;
  return token;
});

const fillText = (body, item, first, sight) => {
  const differs = sight.diff && first && item !== first && !item.void && item.state !== "streaming" && first.state !== "streaming";
  const shown = item.problem || item.text;
  const key = JSON.stringify([shown, sight.markdown, differs && first.text, sight.logps && item.logps]);
  if (body.drawn === key) return;
  body.drawn = key;
  if (item.problem) body.textContent = shown;
  else if (sight.logps && item.logps?.length) body.replaceChildren(...likelihoods(item.logps));
  else if (differs || sight.markdown) {
    const marks = differs ? differing(shown, first.text).map(([start, end]) => ({ start, end, name: "vw-differs" })) : [];
    fill(body, shown, marks, sight.markdown ? parsed(shown) : undefined);
  } else body.textContent = shown;
};

const fillActs = (box, item, at, words, key, trigger) => {
  const wanted = item.acts ?? "";
  if (box.dataset.acts === wanted) return;
  box.dataset.acts = wanted;
  box.replaceChildren(...wanted.split(" ").filter(Boolean).map((act) =>
    button(`${act}-${at}`, words[act], `${words[act]}: ${item.badge}`, () => trigger("select", { act, at, key: key() }))));
};

// The texts of panes change many times a second: the nodes stay, so that selection and scroll stay too.
const fillPanes = (frame, part) => {
  frame.shows = part;
  const node = frame.querySelector(".vw-panes");
  node.dataset.key = part.key ?? "";
  const compared = part.items.find((item) => !item.void);
  part.items.forEach((item, at) => {
    const pane = node.children[at];
    const body = pane.querySelector(".vw-text");
    const atEnd = body.scrollTop + body.clientHeight > body.scrollHeight - 24;
    pane.dataset.state = item.state;
    const title = pane.querySelector(".vw-title");
    if (title.textContent !== item.title) title.textContent = item.title;
    fillText(body, item, compared, frame.sight);
    body.classList.toggle("vw-problem", Boolean(item.problem));
    pane.querySelector("footer").firstChild.textContent = item.foot;
    fillActs(pane.querySelector(".vw-acts"), item, at, part.words ?? {}, () => node.dataset.key, frame.trigger);
    if (atEnd && item.state === "streaming") body.scrollTop = body.scrollHeight;
  });
};

// Parts that did not change keep their nodes; focus returns to the button of the same name.
export const parts = (root, props, watch, trigger) => {
  let drawn = [];
  const draw = () => {
    const wanted = props.value?.parts ?? [];
    const focused = root.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
    const next = wanted.map((part, at) => {
      const text = JSON.stringify(part);
      const before = drawn[at];
      if (before?.text === text) return before;
      if (before && part.t === "panes" && before.t === "panes" && before.node.shows.items.length === part.items.length) {
        fillPanes(before.node, part);
        return { text, t: part.t, node: before.node };
      }
      return { text, t: part.t, node: DRAW[part.t](part, trigger) };
    });
    const same = next.length === drawn.length && next.every((one, at) => one.node === drawn[at].node);
    if (!same) {
      const scrolled = drawn.map((one) => one.node.scrollTop);
      root.replaceChildren(...next.map((one) => one.node));
      next.forEach((one, at) => { // a table that grows under the reader's eyes stays where it was scrolled to
        if (scrolled[at] && drawn[at].t === one.t) one.node.scrollTop = scrolled[at];
      });
    }
    drawn = next;
    if (focused && !same) root.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
    root.dataset.ready = "true";
  };
  watch("value", draw);
  draw();
};

// The bank of demonstrations: choosing and ordering happen here at once; the ids go to the server with the next event.
export const bank = (root, props, watch, trigger) => {
  let shown = { rows: [], picked: [], words: {}, picks: false };
  let dragged = null;
  const tell = (picked) => {
    shown = { ...shown, picked };
    props.value = { picked };
    draw();
    trigger("select", { picked });
  };
  const move = (id, by) => {
    const to = shown.picked.indexOf(id) + by;
    if (shown.picked.includes(id) && to >= 0 && to < shown.picked.length) place(id, shown.picked[to]);
  };
  const place = (id, where) => {
    const to = shown.picked.indexOf(where);
    const picked = shown.picked.filter((one) => one !== id);
    picked.splice(to, 0, id);
    tell(picked);
  };
  const controls = (row) => {
    const { words, picked } = shown;
    const box = make("span", "vw-picks");
    const check = make("input");
    check.type = "checkbox";
    check.checked = picked.includes(row.id);
    check.dataset.key = `use-${row.id}`;
    check.setAttribute("aria-label", `${words.use} ${row.id}`);
    check.addEventListener("change", () =>
      tell(check.checked ? [...picked, row.id] : picked.filter((id) => id !== row.id)));
    box.append(check);
    if (check.checked) {
      box.append(button(`up-${row.id}`, "↑", `${words.up} ${row.id}`, () => move(row.id, -1)));
      box.append(button(`down-${row.id}`, "↓", `${words.down} ${row.id}`, () => move(row.id, 1)));
    }
    return box;
  };
  // A chosen row is dragged to its place by mouse, or moved with Alt and an arrow from any of its controls.
  const arrange = (tr, row) => {
    if (!shown.picked.includes(row.id)) return;
    tr.draggable = true;
    tr.classList.add("vw-drag");
    tr.addEventListener("dragstart", (event) => {
      dragged = row.id;
      event.dataTransfer.effectAllowed = "move";
      event.dataTransfer.setData("text/plain", String(row.id));
    });
    tr.addEventListener("dragover", (event) => {
      if (dragged === null || dragged === row.id) return;
      event.preventDefault();
      tr.classList.add("vw-over");
    });
    tr.addEventListener("dragleave", () => tr.classList.remove("vw-over"));
    tr.addEventListener("dragend", () => { dragged = null; });
    tr.addEventListener("drop", (event) => {
      event.preventDefault();
      if (dragged !== null && dragged !== row.id) place(dragged, row.id);
      dragged = null;
    });
    tr.addEventListener("keydown", (event) => {
      const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
      if (!event.altKey || !by) return;
      event.preventDefault();
      move(row.id, by);
    });
  };
  const draw = () => {
    const focused = root.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
    const { rows, words, picked, picks } = shown;
    const known = new Map(rows.map((row) => [row.id, row]));
    const first = picks ? picked.filter((id) => known.has(id)).map((id) => known.get(id)) : [];
    const ordered = [...first, ...rows.filter((row) => !first.includes(row))];
    const part = {
      caption: words.caption ?? "", empty: words.empty ?? "", numbers: [], selects: false,
      columns: [...(picks ? [words.use] : []), "#", ...["input", "output", "label", "tags", "judged"].map((name) => words[name])],
      rows: ordered.map((row) => ({
        id: row.id, chosen: picks && picked.includes(row.id),
        cells: [
          ...(picks ? [""] : []), "", row.input, row.output, row.label, { text: row.tags, sub: row.source }, row.judged,
        ],
      })),
    };
    const table = DRAW.table(part, trigger);
    const edit = (row) => button(`edit-${row.id}`, String(row.id), `${words.edit} ${row.id}`, () => trigger("select", { edit: row.id }));
    table.querySelectorAll("tbody tr").forEach((tr, at) => {
      tr.children[picks ? 1 : 0].replaceChildren(edit(ordered[at]));
      if (!picks) return;
      tr.firstChild.replaceChildren(controls(ordered[at]));
      arrange(tr, ordered[at]);
    });
    root.replaceChildren(table);
    if (focused) root.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
    root.dataset.ready = "true";
  };
  const take = () => {
    const value = props.value ?? {};
    shown = { ...shown, ...value };
    draw();
  };
  watch("value", take);
  take();
};

// One key per click; a second click within two seconds is a double click and has the same key.
const clicks = {};
export const clickKey = (name) => {
  const now = Date.now();
  const last = clicks[name] ?? { at: 0, key: "" };
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const key = now - last.at < 2000 ? last.key : Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  clicks[name] = { at: now, key };
  return key;
};
