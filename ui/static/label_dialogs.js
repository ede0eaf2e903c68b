// What opens over the desk: the keys, one's own figures and judgements, why something is skipped, what is said next.
import { choiceKey, choiceOf, keyOf } from "./label_keys.js";
import { LETTERS, el, kbd, say } from "./label_view.js";

const SKIP_REASONS = ["unclear", "needs_knowledge", "personal", "broken"];
const REPORT_CATEGORIES = ["unclear", "broken", "personal", "harmful", "guidelines", "other"];
const SHEET = ["submit", "left", "tie", "bad", "good", "equal", "back", "undo", "skip", "report", "go_on", "why", "edit", "flags", "asks", "marks", "diff",
  "view", "plain", "sync", "guidelines", "history", "help"];

// ---- dialogs: native, so that focus stays inside and Esc closes

export function dialog(root, title, ...children) {
  const box = el("dialog", { class: "wh-dialog", "aria-label": title }, el("h2", {}, title), ...children);
  box.addEventListener("close", () => { box.remove(); root.focus({ preventScroll: true }); });
  document.body.append(box);
  box.showModal();
  return box;
}

// The keys of this desk, and which layout of them this person wants.
export function showKeySheet(root, strings, layout, desk, choose) {
  const { steps } = desk?.form || { steps: 4 };
  const isPair = desk?.kind !== "rank";
  const sides = layout === "home" ? { 2: "F J", 4: "D F J K", 6: "S D F J K L" }[steps] : `1 – ${steps}`;
  const first = isPair ? sides : layout === "home" ? "A … ;" : "1 – 9, 0";
  const keys = (act) => (act === "left" ? [keyOf(layout, "left"), keyOf(layout, "right")] : [keyOf(layout, act)]);
  const rows = SHEET.map((act) => [keys(act), say(strings, `key.${act}`)]).filter(([names]) => names[0]);
  const fixed = [[["Esc"], say(strings, "key.leave")], [["Ctrl", "Enter"], say(strings, "key.submit_text")]];
  const main = [[first], say(strings, isPair ? "key.verdict" : "key.rank")];
  showSheet(root, strings, layout, layout === "off" ? fixed : [main, ...rows, ...fixed], choose);
}

function showSheet(root, strings, layout, rows, choose) {
  const t = (key, values) => say(strings, key, values);
  const list = el("dl", {}, ...rows.flatMap(([names, text]) => [
    el("dt", {}, ...names.flatMap((name, i) => (i ? [" ", kbd(name)] : [kbd(name)]))), el("dd", {}, text)]));
  const layouts = el("fieldset", { class: "layouts" }, el("legend", {}, t("layout")), ...["digits", "home", "off"].map((name) => {
    const radio = el("input", { type: "radio", name: "layout", value: name, onchange: () => { box.close(); choose(name); } });
    radio.checked = name === layout;
    return el("label", {}, radio, ` ${t(`layout.${name}`)}`);
  }));
  const box = dialog(root, t("help"), list, layouts, el("button", { type: "button", onclick: () => box.close() }, t("close")));
}

// One's own figures, each with what it means, its interval and what it rests on.
export function showOwn(root, strings, { judged, seconds, figures }) {
  const t = (key, values) => say(strings, key, values);
  const rows = ["gold", "consistency", "agrees", "left", "longer"].flatMap((name) => [
    el("dt", {}, figures[name] ? t("share", figures[name]) : "–"), el("dd", {}, t(`own.${name}`))]);
  const time = seconds === null ? "" : t("own.seconds", { n: Math.round(seconds.value), low: Math.round(seconds.low), high: Math.round(seconds.high), of: seconds.n });
  const box = dialog(root, t("own_title"), el("p", {}, `${t("own.judged", { n: judged })} ${time}`), el("dl", {}, ...rows),
    el("p", {}, t("own.hint")), el("button", { type: "button", onclick: () => box.close() }, t("close")));
}

// Resolves to a reason, "" for none, or null when the person thought better of it.
export function askSkip(root, strings, layout) {
  const t = (key) => say(strings, key);
  return new Promise((done) => {
    const finish = (reason) => { done(reason); box.close(); };
    const reasons = el("ol", {}, ...SKIP_REASONS.map((reason, i) =>
      el("li", {}, el("button", { type: "button", onclick: () => finish(reason) }, kbd(choiceKey(layout, i)) ?? "", t(`skip.${reason}`)))));
    const none = el("button", { type: "button", class: "submit", onclick: () => finish("") }, t("skip.none"), " ", kbd("Enter"));
    const box = dialog(root, t("skip_title"), el("p", {}, t("skip_text")), reasons, none, " ",
      el("button", { type: "button", onclick: () => finish(null) }, t("cancel"), " ", kbd("Esc")));
    none.focus();
    box.addEventListener("keydown", (event) => {
      const reason = SKIP_REASONS[choiceOf(layout, event)];
      if (!reason) return;
      event.preventDefault();
      finish(reason);
    });
    box.addEventListener("close", () => done(null));
  });
}

// Resolves to {category, note}, or null when the person thought better of it; `keep` hears every change, `known` is what it heard last.
export function askReport(root, strings, layout, known, keep) {
  const t = (key, values) => say(strings, key, values);
  return new Promise((done) => {
    const told = { category: known?.category || "", note: known?.note || "" };
    const alert = el("p", { class: "said alert", role: "alert" });
    const note = el("textarea", { id: "report-note", maxlength: "2000", rows: "3", oninput: () => { told.note = note.value; keep(told); } });
    note.value = told.note;
    const choose = (category) => {
      told.category = category;
      radios.forEach((radio) => { radio.checked = radio.value === category; });
      const asked = t(category === "other" ? "report.note_required" : "report.note");
      note.setAttribute("aria-label", asked);
      note.placeholder = asked;
      alert.textContent = "";
    };
    const radios = REPORT_CATEGORIES.map((category) => el("input", { type: "radio", name: "report", value: category, onchange: () => { choose(category); keep(told); } }));
    const set = el("fieldset", { class: "layouts" }, el("legend", {}, t("report_title")), ...radios.map((radio, i) =>
      el("label", {}, radio, " ", kbd(choiceKey(layout, i)) ?? "", ` ${t(`report.${radio.value}`)}`)));
    const finish = () => {
      const lacks = !told.category ? "report.choose" : told.category === "other" && !told.note.trim() ? "report.note_required" : "";
      if (lacks) {
        alert.textContent = t(lacks);
        (told.category ? note : radios[0]).focus();
        return;
      }
      done(told);
      box.close();
    };
    const box = dialog(root, t("report"), el("p", {}, t("report_text")), set, note, alert,
      el("div", { class: "row" }, el("button", { type: "button", class: "submit", id: "send-report", onclick: finish }, t("report.send"), " ", kbd("Ctrl+Enter")),
        el("button", { type: "button", onclick: () => box.close() }, t("cancel"), " ", kbd("Esc"))));
    box.addEventListener("keydown", (event) => {
      const isText = event.target === note;
      if (event.key === "Enter" && !event.isComposing && (event.ctrlKey || event.metaKey || event.target.matches("input"))) finish();
      else if (!isText && REPORT_CATEGORIES[choiceOf(layout, event)]) {
        choose(REPORT_CATEGORIES[choiceOf(layout, event)]);
        keep(told);
        note.focus();
      } else return;
      event.preventDefault();
    });
    box.addEventListener("close", () => done(null));
    choose(told.category);
    (radios.find((radio) => radio.checked) || radios[0]).focus();
  });
}

// ---- one's own judgements

// `acts.open(judgement)` puts one on the desk again; `acts.more()` fetches those before, or is null when there are none.
export function showPast(root, strings, found, acts) {
  const t = (key, values) => say(strings, key, values);
  const list = el("ol", { class: "past" }, ...found.past.map((one) => line(t, one, () => { box.close(); acts.open(one.judgement); })));
  const more = found.before ? el("button", { type: "button", id: "more-past", onclick: async () => {
    const next = await acts.more(found.before);
    if (!next) return;
    found = next;
    list.append(...next.past.map((one) => line(t, one, () => { box.close(); acts.open(one.judgement); })));
    if (!next.before) more.remove();
  } }, t("past.more")) : null;
  const box = dialog(root, t("past_title"), el("p", {}, found.past.length ? t("past.hint") : t("past.none")), list,
    ...[more, el("button", { type: "button", onclick: () => box.close() }, t("close"))].filter(Boolean));
  list.querySelector("button")?.focus();
}

function line(t, one, open) {
  const when = new Date(one.at / 1000).toLocaleString(document.documentElement.lang, { dateStyle: "short", timeStyle: "short" });
  const marks = [when, one.revision ? t("past.corrected") : "", one.after_reveal ? t("past.after_reveal") : ""].filter(Boolean).join(" · ");
  return el("li", {}, el("button", { type: "button", "data-judgement": String(one.judgement), onclick: open },
    el("b", {}, verdictIn(t, one)), el("small", {}, `${one.judgement} · ${marks}`), el("span", {}, one.asked),
    ...[one.rationale, one.edited].filter(Boolean).map((text) => el("i", {}, text))));
}

// A verdict in words: of a pair as its button says it, of more the order.
export function verdictIn(t, { kind, ranks, strength, both_bad, both_good }) {
  if (kind === "demonstration") return t("past.wrote");
  if (both_bad || both_good) return t(`verdict.${both_bad ? "bad" : "good"}`);
  if (new Set(ranks).size === 1 && ranks.length > 1) return t("verdict.tie");
  if (kind === "pair") return t(`verdict.${ranks[0] < ranks[1] ? "a" : "b"}${strength || 1}`);
  return [...new Set(ranks)].sort((a, b) => a - b).map((rank) =>
    ranks.flatMap((one, place) => (one === rank ? [LETTERS[place]] : [])).join(" = ")).join(" > ");
}

// ---- what is told after the vote

export function toldIn(t, told, ranks) {
  if (told.kind === "others") {
    const first = told.first.map((n, place) => `${LETTERS[place]} ${n}`).join(" · ");
    return t("told.others", { n: told.n, first, none: told.n - told.first.reduce((sum, n) => sum + n, 0) });
  }
  const order = told.scores.map((_, place) => place).sort((a, b) => told.scores[b] - told.scores[a]);
  const margin = (told.scores[order[0]] - told.scores[order[1]]).toFixed(2);
  return t(ranks && ranks[order[0]] === 1 ? "told.same" : "told.other", { letter: LETTERS[order[0]], margin });
}

// ---- going on: resolves to what is said next, or null; `keep` hears every letter

export function askNext(root, strings, place, text, keep) {
  const t = (key, values) => say(strings, key, values);
  return new Promise((done) => {
    const field = el("textarea", { "aria-label": t("go_on.said"), maxlength: "4000", id: "said-next", rows: "4", oninput: () => keep(field.value) });
    field.value = text;
    const finish = () => {
      if (!field.value.trim()) return;
      done(field.value);
      box.close();
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing) finish();
    });
    const box = dialog(root, t("go_on.title", { letter: LETTERS[place] }), el("p", {}, t("go_on.hint")), field,
      el("div", { class: "row" }, el("button", { type: "button", class: "submit", id: "say-next", onclick: finish }, t("go_on.send"), " ", kbd("Ctrl+Enter")),
        el("button", { type: "button", onclick: () => box.close() }, t("cancel"), " ", kbd("Esc"))));
    box.addEventListener("close", () => done(null));
    field.focus();
  });
}
