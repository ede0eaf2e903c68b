// The parts of a desk that its form asks for: answers with their tools, the choice of a pair, ranks, questions, highlights.
import { placeKey, sideKey, keyOf } from "./label_keys.js";
import { LETTERS, el, kbd, say } from "./label_view.js";
import { differing, fill, points, rangeOf } from "./label_text.js";
import { parsed } from "./markdown.js";
import { tiersOf, verdictOf, verdictsOf } from "./label_said.js";

const CONFIDENCE = [1, 2, 3];
const POINTS = [1, 2, 3, 4, 5];

// Draws a new desk's form into the view; `acts` are choose, place, drop, answer, flag, edit, mended, unmend.
export function buildForm(view, strings, layout, desk, acts) {
  const t = (key, values) => say(strings, key, values);
  const form = { t, layout, desk, acts, cards: [], radios: {}, rows: [] };
  form.cards = desk.kind === "demonstration" ? [written(form)] : desk.answers.map((text, place) => card(form, text, place));
  view.answers.dataset.count = String(form.cards.length);
  view.answers.replaceChildren(...form.cards.map((one) => one.card));
  view.choice.replaceChildren(...(desk.kind === "pair" ? [verdicts(form)] : desk.kind === "rank" ? [strip(form)] : []));
  form.rows = questions(form);
  view.asks.replaceChildren(...form.rows.map((row) => row.element));
  return form;
}

// ---- one answer

function card(form, text, place) {
  const { t, desk, acts, layout } = form;
  const letter = LETTERS[place];
  const name = t("answer", { letter });
  const body = el("div", { class: "body", tabindex: "0", role: "region", "aria-label": name, onscroll: () => acts.scrolled(place) });
  const shown = el("div", { class: "txt" }, text);
  const editor = el("textarea", { class: "editor", "aria-label": t("edited", { letter }), maxlength: "20000",
    oninput: (event) => acts.mended(place, event.target.value) });
  const change = el("div", { class: "txt change", "aria-label": t("change") });
  const cancel = el("button", { type: "button", class: "plain", onclick: () => acts.unmend() }, t("edit_cancel"));
  const edit = el("div", { class: "edit" }, editor, cancel, change);
  edit.hidden = true;
  body.append(shown, edit);
  const chip = desk.kind === "rank"
    ? el("button", { type: "button", class: "rank", onclick: () => acts.place(place) }, kbd(placeKey(layout, place)), el("span"))
    : null;
  const flags = desk.form.flags.filter((flag) => flag !== "bad_prompt").map((flag) => flagButton(form, `${flag}:${place}`, flag, letter));
  const mend = desk.form.edit ? el("button", { type: "button", class: "plain", onclick: () => acts.edit(place) }, t("edit")) : null;
  const tools = el("div", { class: "tools" }, ...flags, ...(mend ? [mend] : []));
  const color = `var(--${["a", "b"][place] && desk.answers.length === 2 ? ["a", "b"][place] : "tie"})`;
  const head = el("h2", {}, el("span", { class: "letter", "aria-hidden": "true" }, letter), name, el("small", {}, t("characters", { n: points(text) })));
  const element = el("div", { class: "card answer", style: `--c: ${color}`, "data-side": letter }, head, ...(chip ? [chip] : []), body,
    ...(tools.children.length ? [tools] : []));
  return { card: element, body, shown, edit, editor, change, chip, text };
}

// Where nothing is shown: the answer is written here.
function written(form) {
  const { t, acts } = form;
  const editor = el("textarea", { class: "editor", "aria-label": t("write"), placeholder: t("write_hint"), maxlength: "20000",
    oninput: (event) => acts.mended(0, event.target.value) });
  const body = el("div", { class: "body write" }, editor);
  const element = el("div", { class: "card answer", style: "--c: var(--a)" }, el("h2", {}, t("write")), body);
  return { card: element, body, shown: el("div"), edit: el("div"), editor, change: el("div"), chip: null, text: "", isWritten: true };
}

function flagButton(form, flag, name, letter) {
  const label = form.t(`flag.${name}`);
  return el("button", { type: "button", class: "flag", "aria-pressed": "false", "data-flag": flag, onclick: () => form.acts.flag(flag),
    "aria-label": letter ? `${label}: ${letter}` : label }, label);
}

// ---- the choice of a pair

function verdicts(form) {
  const { t, layout, desk, acts } = form;
  const set = el("fieldset", { class: "verdict", role: "radiogroup", "aria-label": t("verdict") });
  let side = 0;
  for (const verdict of verdictsOf(desk.form)) {
    const key = verdict.act ? keyOf(layout, verdict.act) : sideKey(layout, desk.form.steps, side++);
    const radio = el("input", { type: "radio", name: "verdict", value: verdict.id, onchange: () => acts.choose(verdict.id) });
    form.radios[verdict.id] = radio;
    set.append(el("label", { style: `--c: ${verdict.color}` }, radio, kbd(key) || "", el("span", {}, t(`verdict.${verdict.id}`))));
  }
  return set;
}

// ---- ranks: a strip of tiers, best first; chips are dragged, or clicked to be taken out

function strip(form) {
  form.strip = el("ol", { class: "strip", "aria-label": form.t("order") });
  return el("div", { class: "rankbar" }, el("span", {}, form.t("best")), form.strip, el("span", {}, form.t("worst")));
}

function showStrip(form, said) {
  const { t, acts } = form;
  const tiers = tiersOf(said.ranks, form.desk.answers.length);
  const chipOf = (place) => {
    const chip = el("button", { type: "button", class: "letter", "data-place": String(place), "aria-label": t("take_out", { letter: LETTERS[place] }),
      onclick: () => acts.drop(place) }, LETTERS[place]);
    chip.addEventListener("pointerdown", (event) => dragged(form, event, chip, place));
    return chip;
  };
  form.strip.replaceChildren(...tiers.map((tier) => el("li", { class: "tier" }, ...tier.map(chipOf))));
  if (!tiers.length) form.strip.append(el("li", { class: "none" }, t("order_empty")));
  form.cards.forEach(({ card: element, chip }, place) => {
    const rank = tiers.findIndex((tier) => tier.includes(place)) + 1;
    chip.lastChild.textContent = rank ? t("rank", { n: rank }) : t("not_ranked");
    element.classList.toggle("chosen", rank === 1);
  });
}

// A chip that is moved further than a click: onto a tier it ties, between two it stands alone.
function dragged(form, down, chip, place) {
  const from = [down.clientX, down.clientY];
  let moves = false;
  const follow = (event) => {
    moves ||= Math.hypot(event.clientX - from[0], event.clientY - from[1]) > 6;
    if (moves) chip.style.transform = `translate(${event.clientX - from[0]}px, ${event.clientY - from[1]}px)`;
  };
  const drop = (event) => {
    for (const [name, act] of [["pointermove", follow], ["pointerup", drop], ["pointercancel", drop]]) removeEventListener(name, act);
    chip.style.transform = "";
    if (!moves || event.type === "pointercancel") return;
    chip.addEventListener("click", (click) => click.stopImmediatePropagation(), { capture: true, once: true });
    setTimeout(() => form.acts.move(place, ...target(form.strip, event.clientX)));
  };
  for (const [name, act] of [["pointermove", follow], ["pointerup", drop], ["pointercancel", drop]]) addEventListener(name, act);
}

function target(strip, x) {
  const boxes = [...strip.children].map((one) => one.getBoundingClientRect());
  const onto = boxes.findIndex(({ left, right }) => x > left && x < right);
  return onto >= 0 ? [onto, true] : [boxes.filter(({ right }) => right <= x).length, false];
}

// ---- questions: points, aspects, confidence, and whether the prompt itself is bad

function questions(form) {
  const { t, desk } = form;
  const letters = desk.answers.map((_, place) => LETTERS[place]);
  const rows = [];
  if (desk.form.points || desk.kind === "rate") {
    letters.forEach((letter, place) => rows.push(question(form, "points", place, t("points", { letter }), POINTS.map((n) => [n, String(n)]))));
  }
  for (const aspect of desk.form.aspects) {
    if (desk.kind === "pair") {
      rows.push(question(form, "aspect", aspect, aspect, [[1, "A"], [2, t("verdict.tie")], [3, "B"]]));
    } else {
      letters.forEach((letter, place) => rows.push(question(form, "aspect", [aspect, place], `${aspect}: ${letter}`, POINTS.map((n) => [n, String(n)]))));
    }
  }
  if (desk.form.confidence) rows.push(question(form, "confidence", null, t("confidence"), CONFIDENCE.map((n) => [n, t(`confidence.${n}`)])));
  if (desk.form.flags.includes("bad_prompt")) {
    rows.push({ element: el("div", { class: "ask" }, flagButton(form, "bad_prompt", "bad_prompt", "")), radios: null });
  }
  return rows;
}

function question(form, kind, about, title, options) {
  const row = { kind, about, radios: [] };
  const group = `ask-${form.rowCount = (form.rowCount || 0) + 1}`;
  row.element = el("fieldset", { class: "ask" }, el("legend", {}, title), ...options.map(([value, text]) => {
    const radio = el("input", { type: "radio", name: group, value: String(value), onchange: () => form.acts.answer(row, value) });
    row.radios.push(radio);
    return el("label", {}, radio, el("span", {}, text));
  }));
  return row;
}

const SIDES = { "1,2": 1, "1,1": 2, "2,1": 3 };
export const RANKS_OF_SIDE = { 1: [1, 2], 2: [1, 1], 3: [2, 1] };

export function answerTo(row, said) {
  if (row.kind === "points") return said.points?.[row.about] || 0;
  if (row.kind === "confidence") return said.confidence || 0;
  if (Array.isArray(row.about)) return said.aspects[row.about[0]]?.[row.about[1]] || 0;
  return SIDES[String(said.aspects[row.about] || "")] || 0;
}

// The said with a question answered.
export function withAnswer(said, row, value, size) {
  const filled = (list, place) => Array.from({ length: size }, (_, i) => (i === place ? value : list?.[i] || 0));
  if (row.kind === "points") return { ...said, points: filled(said.points, row.about) };
  if (row.kind === "confidence") return { ...said, confidence: value };
  if (!Array.isArray(row.about)) return { ...said, aspects: { ...said.aspects, [row.about]: RANKS_OF_SIDE[value] } };
  const [name, place] = row.about;
  return { ...said, aspects: { ...said.aspects, [name]: filled(said.aspects[name], place) } };
}

// ---- everything that was said, as it stands now

export function showSaid(form, said, { sight, mark }) {
  const { desk } = form;
  if (desk.kind === "pair") {
    const verdict = verdictOf(said, desk.form);
    for (const [id, radio] of Object.entries(form.radios)) radio.checked = id === verdict?.id;
    form.cards.forEach((one, place) => one.card.classList.toggle("chosen", verdict?.side === place));
  } else if (desk.kind === "rank") showStrip(form, said);
  for (const row of form.rows.filter(({ radios }) => radios)) {
    const given = answerTo(row, said);
    row.radios.forEach((radio) => { radio.checked = Number(radio.value) === given; });
  }
  for (const button of document.querySelectorAll("#desk [data-flag]")) button.setAttribute("aria-pressed", String(said.flags.includes(button.dataset.flag)));
  form.cards.forEach((one, place) => {
    showText(form, one, place, said, sight, mark);
    const mends = one.isWritten || (said.edited_place === place && said.edited_text !== null);
    one.edit.hidden = !mends;
    if (mends && one.editor.value !== (said.edited_text ?? "")) one.editor.value = said.edited_text ?? "";
    if (mends && !one.isWritten) showChange(one, said.edited_text);
  });
}

function showText(form, one, place, said, sight, mark) {
  const marks = said.spans.filter((span) => span.place === place).map((span) => {
    const [start, end] = rangeOf(span, one.text);
    return { start, end, name: "span", title: span.tag };
  });
  if (sight.diff && form.cards.length === 2) {
    marks.push(...differing(one.text, form.cards[1 - place].text).map(([start, end]) => ({ start, end, name: "differs" })));
  }
  if (mark?.place === place) marks.push({ start: mark.range[0], end: mark.range[1], name: "here" });
  const isPlain = sight.plain || !form.desk.form.markdown;
  const key = JSON.stringify([marks, isPlain]);
  if (one.marks !== key) fill(one.shown, one.text, marks, isPlain ? undefined : (one.tree ??= parsed(one.text)));
  one.marks = key;
}

// What was taken out and what was written, word by word.
function showChange(one, text) {
  const gone = differing(one.text, text).map(([start, end]) => el("del", {}, one.text.slice(start, end)));
  const added = document.createElement("span");
  fill(added, text, differing(text, one.text).map(([start, end]) => ({ start, end, name: "added" })));
  one.change.replaceChildren(added, ...gone.flatMap((piece) => [" ", piece]));
}
