// The rows of a chat template: written, added, moved and deleted here at once; the server gets them with the next event.
// Texts go in by value and textContent only: nothing here makes HTML of a string.

import { button, make } from "./nodes.js";

const PLACES = ["demonstrations", "turns"];
const PAUSE_MS = 200; // of typing, before the prompt is drawn anew

const clean = (row) => (PLACES.includes(row.role) ? { role: row.role } : { role: row.role, text: row.text ?? "" });

export const rows = (root, props, watch, trigger) => {
  let words = { roles: {}, places: {} };
  let shown = []; // a place keeps the text it had as a turn, so that another choice of role brings it back
  let gone = null; // the row that was deleted last: {row, at}
  let dragged = null;
  let waiting = 0;
  const list = make("ol", "vw-rows");
  const foot = make("div", "vw-rows-foot");
  const told = make("p", "vw-hidden");
  told.setAttribute("role", "status");

  const tell = (at = 0) => {
    props.value = { rows: shown.map(clean) };
    clearTimeout(waiting);
    waiting = setTimeout(() => trigger("select", {}), at);
  };

  const named = (at) => `${words.row} ${at + 1}`;
  const change = (next, focus, said) => {
    shown = next;
    draw(focus);
    told.textContent = said ?? "";
    tell();
  };
  const move = (at, to, part) => {
    if (to < 0 || to >= shown.length || at === to) return;
    const next = shown.filter((_, place) => place !== at);
    next.splice(to, 0, shown[at]);
    change(next, `${part}-${to}`, `${named(at)} → ${to + 1}`);
  };
  const remove = (at) => {
    gone = { row: shown[at], at };
    change(shown.filter((_, place) => place !== at), "undo", `${words.delete} ${named(at)}`);
  };
  const restore = () => {
    const next = [...shown];
    next.splice(Math.min(gone.at, next.length), 0, gone.row);
    const at = Math.min(gone.at, shown.length);
    gone = null;
    change(next, `role-${at}`, words.undo);
  };
  const add = () => {
    const before = shown.at(-1)?.role;
    change([...shown, { role: before === "user" ? "assistant" : "user", text: "" }], `text-${shown.length}`);
  };

  const roleOf = (row, at) => {
    const select = make("select", "vw-rows-role");
    select.dataset.key = `role-${at}`;
    select.setAttribute("aria-label", `${words.role}: ${named(at)}`);
    for (const [role, name] of Object.entries(words.roles)) {
      const option = make("option", "", name);
      option.value = role;
      option.selected = role === row.role;
      option.disabled = PLACES.includes(role) && shown.some((one, place) => place !== at && one.role === role);
      select.append(option);
    }
    select.addEventListener("change", () =>
      change(shown.map((one, place) => (place === at ? { ...one, role: select.value } : one)), `role-${at}`));
    return select;
  };

  const textOf = (row, at) => {
    if (PLACES.includes(row.role)) return make("p", "vw-rows-place", words.places[row.role]);
    const area = make("textarea", "vw-rows-text");
    area.value = row.text ?? "";
    area.rows = Math.min(12, Math.max(row.role === "user" ? 2 : 1, area.value.split("\n").length));
    area.dataset.key = `text-${at}`;
    area.spellcheck = false;
    area.setAttribute("aria-label", `${named(at)}: ${words.roles[row.role] ?? row.role}`);
    area.addEventListener("input", () => {
      shown[at] = { ...shown[at], text: area.value };
      tell(PAUSE_MS);
    });
    return area;
  };

  // A row is dragged by its number, so that text in it can still be selected; Alt and an arrow move it from any of its controls.
  const gripOf = (item, at) => {
    const grip = make("span", "vw-rows-grip", String(at + 1));
    grip.draggable = true;
    grip.title = words.drag;
    grip.addEventListener("dragstart", (event) => {
      dragged = at;
      event.dataTransfer.effectAllowed = "move";
      event.dataTransfer.setData("text/plain", String(at));
      event.dataTransfer.setDragImage(item, 10, 10);
    });
    grip.addEventListener("dragend", () => { dragged = null; });
    return grip;
  };
  const takesDrops = (item, at) => {
    item.addEventListener("dragover", (event) => {
      if (dragged === null || dragged === at) return;
      event.preventDefault();
      item.classList.add("vw-over");
    });
    item.addEventListener("dragleave", () => item.classList.remove("vw-over"));
    item.addEventListener("drop", (event) => {
      if (dragged === null) return;
      event.preventDefault();
      item.classList.remove("vw-over");
      move(dragged, at, "role");
      dragged = null;
    });
    item.addEventListener("keydown", (event) => {
      const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
      if (!event.altKey || !by) return;
      event.preventDefault();
      move(at, at + by, event.target.dataset.key?.split("-")[0] ?? "role");
    });
  };

  const itemOf = (row, at) => {
    const item = make("li", `vw-rows-item vw-role-${row.role}`);
    const acts = make("span", "vw-rows-acts");
    acts.append(
      button(`up-${at}`, "↑", `${words.up}: ${named(at)}`, () => move(at, at - 1, "up")),
      button(`down-${at}`, "↓", `${words.down}: ${named(at)}`, () => move(at, at + 1, "down")),
      button(`delete-${at}`, "✕", `${words.delete}: ${named(at)}`, () => remove(at)),
    );
    acts.firstChild.disabled = at === 0;
    acts.children[1].disabled = at === shown.length - 1;
    const head = make("div", "vw-rows-head");
    head.append(gripOf(item, at), roleOf(row, at), acts);
    item.append(head, textOf(row, at));
    takesDrops(item, at);
    return item;
  };

  const draw = (focus) => {
    const wanted = focus ?? (root.contains(document.activeElement) ? document.activeElement.dataset.key : undefined);
    list.replaceChildren(...shown.map(itemOf));
    foot.replaceChildren(button("add", words.add ?? "", "", add));
    if (gone) foot.append(button("undo", words.undo ?? "", "", restore));
    foot.append(make("span", "vw-rows-hint", words.hint));
    const found = (key) => key && root.querySelector(`[data-key="${CSS.escape(key)}"]:not(:disabled)`);
    if (wanted) (found(wanted) ?? found(`role-${wanted.split("-")[1]}`) ?? found("add"))?.focus();
    root.dataset.ready = "true";
  };

  const take = () => {
    const value = props.value ?? {};
    const next = value.rows ?? [];
    const same = JSON.stringify(next) === JSON.stringify(shown.map(clean));
    if (same && !value.words) return; // our own
    words = value.words ?? words;
    if (!same) gone = null;
    if (!same || !list.childElementCount) shown = next.map((row) => ({ ...row }));
    draw();
  };
  root.classList.add("vw-rows-frame");
  root.append(make("span", "vw-rows-label"), list, foot, told);
  watch("value", () => {
    take();
    root.firstChild.textContent = words.label ?? "";
  });
  take();
  root.firstChild.textContent = words.label ?? "";
};
