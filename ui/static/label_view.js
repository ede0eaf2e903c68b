// What the desk looks like. Texts of models and people are set by textContent only.
export const VERDICTS = [
  { id: "a2", key: "1", ranks: [1, 2], strength: 2, color: "var(--a)", side: 0 },
  { id: "a1", key: "2", ranks: [1, 2], strength: 1, color: "var(--a)", side: 0 },
  { id: "tie", key: "T", ranks: [1, 1], strength: null, color: "var(--tie)", side: -1 },
  { id: "b1", key: "3", ranks: [2, 1], strength: 1, color: "var(--b)", side: 1 },
  { id: "b2", key: "4", ranks: [2, 1], strength: 2, color: "var(--b)", side: 1 },
  { id: "bad", key: "B", ranks: [1, 1], strength: null, both_bad: true, color: "var(--tie)", side: -1 },
];
const WAITING_MOST = 100; // the server stops counting there
export const SKIP_REASONS = ["unclear", "needs_knowledge", "personal", "broken"];
const KEYS = [
  [["1", "2", "3", "4"], "verdict"], [["←", "→"], "move"], [["T"], "tie"], [["B"], "bad"], [["Enter"], "submit"], [["Z"], "undo"],
  [["S"], "skip"], [["R"], "rationale"],
];
const SHEET = [...KEYS, [["G"], "guidelines"], [["Esc"], "leave"], [["Ctrl", "Enter"], "submit_text"], [["?"], "help"]];

export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") node.style.cssText = value;
    else if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

export function say(strings, key, values = {}) {
  return strings[`label.${key}`].replace(/{(\w+)}/g, (place, name) => String(values[name] ?? place));
}

const kbd = (key) => el("kbd", {}, key);
const keys = (list) => list.flatMap((key, i) => (i ? [" ", kbd(key)] : [kbd(key)]));

// Builds the parts that stay; `acts` are the functions behind the controls.
export function build(root, strings, acts) {
  const t = (key, values) => say(strings, key, values);
  const view = {
    project: el("select", { "aria-label": t("project"), id: "project", onchange: acts.changeProject }),
    fill: el("i"), track: null, done: el("span", { id: "done" }), today: el("b"), median: el("b"),
    guidelines: el("button", { type: "button", id: "guidelines", onclick: acts.showGuidelines }),
    messages: el("div", { class: "body", tabindex: "0", role: "region", "aria-label": t("conversation") }),
    answers: ["A", "B"].map((letter, i) => answerCard(t, letter, i)),
    radios: {}, said: el("span", { class: "said", role: "status", id: "said" }),
    alert: el("span", { class: "said alert", role: "alert", id: "alert" }),
    rationale: el("textarea", { id: "rationale", "aria-label": t("rationale"), placeholder: t("rationale_hint"),
      maxlength: "20000", oninput: acts.typed }),
    verdict: el("fieldset", { class: "verdict", role: "radiogroup", "aria-label": t("verdict") }),
  };
  view.track = el("span", { class: "track", role: "progressbar", "aria-label": t("progress"), "aria-valuemin": "0" }, view.fill);
  for (const verdict of VERDICTS) {
    const radio = el("input", { type: "radio", name: "verdict", value: verdict.id, onchange: () => acts.choose(verdict.id) });
    view.radios[verdict.id] = radio;
    view.verdict.append(el("label", { style: `--c: ${verdict.color}` }, radio, kbd(verdict.key), el("span", {}, t(`verdict.${verdict.id}`))));
  }
  view.work = [
    el("div", { class: "line" }, view.project, el("span", { class: "chip" }, t("blind")), view.track, view.done, view.guidelines,
      el("span", { class: "grow" }), el("span", {}, `${t("today")} `, view.today), el("span", {}, `${t("median")} `, view.median)),
    el("div", { class: "card case" }, el("h2", {}, t("conversation")), view.messages),
    el("div", { class: "pair" }, ...view.answers.map((answer) => answer.card)),
    view.verdict,
    el("div", { class: "acts" }, view.rationale,
      el("button", { type: "button", id: "undo", onclick: acts.undo }, kbd("Z"), t("undo")),
      el("button", { type: "button", id: "skip", onclick: acts.skip }, kbd("S"), t("skip")),
      el("button", { type: "button", id: "submit", class: "submit", onclick: acts.submit }, t("submit"), kbd("Enter"))),
    el("div", { class: "hints" }, ...KEYS.map(([list, name]) => el("span", { class: "key" }, ...keys(list), ` ${t(`key.${name}`)}`)),
      el("span", { class: "key" }, kbd("?"), ` ${t("help")}`), view.said, view.alert),
  ];
  root.setAttribute("aria-label", t("desk"));
  root.replaceChildren(...view.work);
  return view;
}

function answerCard(t, letter, i) {
  const text = el("div", { class: "txt" });
  const size = el("small");
  const body = el("div", { class: "body", tabindex: "0", role: "region", "aria-label": t("answer", { letter }) }, text);
  const card = el("div", { class: "card answer", style: `--c: var(--${i ? "b" : "a"})`, "data-side": letter },
    el("h2", {}, el("span", { class: "letter", "aria-hidden": "true" }, letter), t("answer", { letter }), size), body);
  return { card, body, text, size };
}

export function showDesk(view, strings, desk) {
  const t = (key, values) => say(strings, key, values);
  view.messages.replaceChildren(...desk.conversation.flatMap(({ role, text }) => [
    el("div", { class: "who" }, strings[`label.role.${role}`] || role), el("div", { class: "txt" }, text)]));
  view.answers.forEach(({ text, size, body }, i) => {
    text.textContent = desk.answers[i];
    size.textContent = t("characters", { n: [...desk.answers[i]].length });
    body.scrollTop = 0;
  });
  view.messages.scrollTop = 0;
  view.guidelines.hidden = !desk.guideline;
  view.guidelines.textContent = t("guidelines", { version: desk.guideline_version ?? "" });
  for (const [id, part] of [["tie", "tie"], ["bad", "both_bad"]]) view.radios[id].parentElement.hidden = desk.form[part] === false;
  scrollTo(0, 0);
}

export function showProgress(view, strings, { mine, today, median_seconds }, waiting, onDesk) {
  const all = mine + waiting + onDesk;
  view.fill.style.width = `${all ? (100 * mine) / all : 0}%`;
  view.track.setAttribute("aria-valuemax", String(all));
  view.track.setAttribute("aria-valuenow", String(mine));
  view.done.textContent = `${mine} / ${all}${waiting >= WAITING_MOST ? "+" : ""}`;
  view.today.textContent = String(today);
  view.median.textContent = median_seconds === null ? "–" : say(strings, "seconds", { n: Math.round(median_seconds) });
}

export function showVerdict(view, id) {
  const verdict = VERDICTS.find((one) => one.id === id);
  for (const [name, radio] of Object.entries(view.radios)) radio.checked = name === id;
  view.answers.forEach(({ card }, i) => card.classList.toggle("chosen", verdict?.side === i));
}

export function showEmpty(root, strings, progress, lookAgain, project) {
  const t = (key, values) => say(strings, key, values);
  const text = progress ? t("done_today", { n: progress.today, all: progress.mine }) : "";
  root.replaceChildren(
    el("div", { class: "line" }, project),
    el("div", { class: "empty" }, el("h2", {}, progress ? t("empty") : t("no_project")),
      progress ? el("p", {}, t("empty_text")) : null, el("p", {}, text),
      el("button", { type: "button", id: "look-again", class: "submit", onclick: lookAgain }, t("look_again"))));
}

// ---- dialogs: native, so that focus stays inside and Esc closes

function dialog(root, title, ...children) {
  const box = el("dialog", { class: "wh-dialog", "aria-label": title }, el("h2", {}, title), ...children);
  box.addEventListener("close", () => { box.remove(); root.focus({ preventScroll: true }); });
  document.body.append(box);
  box.showModal();
  return box;
}

export function showSheet(root, strings) {
  const t = (key) => say(strings, key);
  const list = el("dl", {}, ...SHEET.flatMap(([which, name]) => [el("dt", {}, ...keys(which)), el("dd", {}, t(`key.${name}`))]));
  const box = dialog(root, t("help"), list, el("button", { type: "button", onclick: () => box.close() }, t("close")));
}

export function showGuidelines(root, strings, desk) {
  const t = (key) => say(strings, key);
  const box = dialog(root, t("guidelines_title"), el("div", { class: "txt" }, desk.guideline),
    el("button", { type: "button", onclick: () => box.close() }, t("close")));
}

// Resolves to a reason, "" for none, or null when the person thought better of it.
export function askSkip(root, strings) {
  const t = (key) => say(strings, key);
  return new Promise((done) => {
    const finish = (reason) => { done(reason); box.close(); };
    const reasons = el("ol", {}, ...SKIP_REASONS.map((reason, i) =>
      el("li", {}, el("button", { type: "button", onclick: () => finish(reason) }, kbd(String(i + 1)), t(`skip.${reason}`)))));
    const none = el("button", { type: "button", class: "submit", onclick: () => finish("") }, t("skip.none"), " ", kbd("Enter"));
    const box = dialog(root, t("skip_title"), el("p", {}, t("skip_text")), reasons, none, " ",
      el("button", { type: "button", onclick: () => finish(null) }, t("cancel"), " ", kbd("Esc")));
    none.focus();
    box.addEventListener("keydown", (event) => {
      const reason = SKIP_REASONS[Number(event.key) - 1];
      if (reason && !event.isComposing) finish(reason);
    });
    box.addEventListener("close", () => done(null));
  });
}
