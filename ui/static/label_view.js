// What the desk looks like: the parts that stay. Texts of models and people are set by textContent only.
import { keyOf } from "./label_keys.js";
import { fill } from "./label_text.js";
import { parsed } from "./markdown.js";

const WAITING_MOST = 100; // the server stops counting there
const HINTS = ["submit", "undo", "skip", "why", "edit", "flags", "asks", "marks"];
const VIEWS = ["side", "stacked", "focus"];
export const LETTERS = "ABCDEFGHIJKLMNOP";

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

// {n} is the value of n; {n|pair|pairs} is it with the word for one or for several, as ui/text.py has it.
export function say(strings, key, values = {}) {
  return strings[`label.${key}`].replace(/{(\w+)(?:\|([^{}|]*)\|([^{}|]*))?}/g, (place, name, one, several) => {
    if (values[name] === undefined || values[name] === null) return place;
    return one === undefined ? String(values[name]) : `${values[name]} ${String(values[name]) === "1" ? one : several}`;
  });
}

export const kbd = (key) => (key ? el("kbd", {}, key) : null);

// Builds the parts that stay; `acts` are the functions behind the controls.
export function build(root, strings, acts) {
  const t = (key, values) => say(strings, key, values);
  const view = {
    project: el("select", { "aria-label": t("project"), id: "project", onchange: acts.changeProject }),
    kind: el("span", { class: "chip" }), fill: el("i"), track: null, done: el("span", { id: "done" }), today: el("b"), median: el("b"),
    guidelines: el("button", { type: "button", id: "guidelines", onclick: acts.guidelines }),
    messages: el("div", { class: "body", tabindex: "0", role: "region", "aria-label": t("conversation") }),
    guide: el("div", { class: "body txt", tabindex: "0", role: "region", "aria-label": t("guidelines_title") }),
    answers: el("div", { class: "pair" }), said: el("span", { class: "said", role: "status", id: "said" }),
    told: el("span", { class: "said told", role: "status", id: "told" }),
    alert: el("span", { class: "said alert", role: "alert", id: "alert" }),
    choice: el("div", { class: "choice" }), asks: el("div", { class: "asks", id: "asks" }), hints: el("div", { class: "hints" }),
    rationale: el("textarea", { id: "rationale", maxlength: "20000", oninput: acts.typed }),
  };
  view.track = el("span", { class: "track", role: "progressbar", "aria-label": t("progress"), "aria-valuemin": "0" }, view.fill);
  view.undo = el("button", { type: "button", id: "undo", onclick: acts.undo });
  view.skip = el("button", { type: "button", id: "skip", onclick: acts.skip });
  view.report = el("button", { type: "button", id: "report", onclick: acts.report });
  view.goOn = el("button", { type: "button", id: "go-on", onclick: acts.goOn });
  view.submit = el("button", { type: "button", id: "submit", class: "submit", onclick: acts.submit });
  view.sights = Object.fromEntries(["view", "diff", "plain", "sync"].map((name) =>
    [name, el("button", { type: "button", id: `sight-${name}`, class: "sight", onclick: () => acts.sight(name) })]));
  view.guideCard = el("div", { class: "card guide" }, el("h2", {}, t("guidelines_title")), view.guide);
  view.stage = el("div", { class: "stage" }, el("div", { class: "card case" }, el("h2", {}, t("conversation")), view.messages),
    view.guideCard, view.answers);
  view.work = [
    el("div", { class: "line" }, view.project, view.kind, view.track, view.done, view.guidelines,
      el("span", { class: "sights" }, ...Object.values(view.sights)), el("span", { class: "grow" }), el("span", {}, `${t("today")} `, view.today), el("span", {}, `${t("median")} `, view.median),
      el("button", { type: "button", id: "past", onclick: acts.past }, t("past")),
      el("button", { type: "button", id: "own", onclick: acts.own }, t("own"))),
    view.stage, view.choice, view.asks,
    el("div", { class: "acts" }, view.rationale, view.undo, view.report, view.skip, view.goOn, view.submit),
    view.hints,
  ];
  view.hints.append(view.told, view.said, view.alert);
  root.setAttribute("aria-label", t("desk"));
  root.replaceChildren(...view.work);
  return view;
}

// What depends on the key layout: the names of keys on buttons, and the hints.
export function showKeys(view, strings, layout, desk, openSheet) {
  const t = (key, values) => say(strings, key, values);
  const key = (act) => kbd(keyOf(layout, act));
  const named = (act, text) => (key(act) ? [key(act), " ", text] : [text]); // the space is for who hears it
  view.undo.replaceChildren(...named("undo", t("undo")));
  view.undo.hidden = Boolean(desk.corrects);
  view.skip.replaceChildren(...named("skip", t(desk.corrects ? "leave_it" : "skip")));
  view.report.replaceChildren(...named("report", t("report")));
  view.goOn.replaceChildren(...named("go_on", t("go_on")));
  view.goOn.hidden = !desk.form.continues || Boolean(desk.corrects) || !["pair", "rank"].includes(desk.kind);
  view.submit.replaceChildren(...named("submit", t("submit")).reverse());
  const isAsked = { why: desk.form.rationale !== "off", edit: desk.form.edit, flags: desk.form.flags.length, asks: Boolean(view.asks.querySelector("input")),
    marks: desk.form.span_tags.length };
  const shown = HINTS.filter((act) => layout !== "off" && isAsked[act] !== false && isAsked[act] !== 0);
  const sheet = el("button", { type: "button", id: "keys", class: "plain", onclick: openSheet }, kbd("?"), ` ${t("help")}`);
  view.hints.replaceChildren(...shown.map((act) => el("span", { class: "key" }, key(act), ` ${t(`key.${act}`)}`)), sheet, view.told, view.said, view.alert);
}

export function showDesk(view, strings, desk) {
  const t = (key, values) => say(strings, key, values);
  view.kind.textContent = desk.corrects ? t("correcting", { id: desk.corrects }) : t(`kind.${desk.kind}`);
  view.kind.classList.toggle("corrects", Boolean(desk.corrects));
  view.messages.scrollTop = 0;
  view.guidelines.textContent = desk.guideline ? t("guidelines", { version: desk.guideline_version ?? "" }) : t("beside");
  view.guideCard.hidden = !desk.guideline;
  const asked = desk.form.rationale;
  view.rationale.hidden = asked === "off";
  view.rationale.setAttribute("aria-label", t(asked === "required" ? "rationale_required" : "rationale"));
  view.rationale.placeholder = t(asked === "required" ? "rationale_required" : "rationale_hint");
  scrollTo(0, 0);
}

// What is asked and what to look for: read as Markdown, unless the project or the person wants texts as they are written.
export function showAsked(view, strings, desk, isPlain) {
  view.messages.replaceChildren(...desk.conversation.flatMap(({ role, text }) => {
    const shown = el("div", { class: "txt" });
    fill(shown, text, [], isPlain ? undefined : parsed(text));
    return [el("div", { class: "who" }, strings[`label.role.${role}`] || role), shown];
  }));
  fill(view.guide, desk.guideline, [], isPlain ? undefined : parsed(desk.guideline));
}

// How the desk is looked at: answers side by side, one under the other, or one at a time; what is asked above them or beside.
export function showSight(view, strings, desk, sight, focused) {
  const name = VIEWS.includes(sight.view) ? sight.view : VIEWS[0];
  view.answers.dataset.view = name;
  view.stage.dataset.beside = String(sight.beside);
  [...view.answers.children].forEach((card, i) => card.classList.toggle("away", name === "focus" && i !== focused));
  view.guidelines.setAttribute("aria-pressed", String(sight.beside));
  view.sights.view.textContent = say(strings, `view.${name}`);
  view.sights.view.hidden = desk.answers.length < 2;
  for (const one of ["diff", "plain", "sync"]) {
    view.sights[one].textContent = say(strings, `sight.${one}`);
    view.sights[one].setAttribute("aria-pressed", String(sight[one]));
  }
  view.sights.diff.hidden = desk.answers.length !== 2;
  view.sights.plain.hidden = !desk.form.markdown;
  view.sights.sync.hidden = desk.answers.length < 2 || name === "focus";
}

export const nextLayout = (name) => VIEWS[(VIEWS.indexOf(name) + 1) % VIEWS.length];

export function showProgress(view, strings, { mine, today, median_seconds }, waiting, onDesk) {
  const all = mine + waiting + onDesk;
  view.fill.style.width = `${all ? (100 * mine) / all : 0}%`;
  view.track.setAttribute("aria-valuemax", String(all));
  view.track.setAttribute("aria-valuenow", String(mine));
  view.done.textContent = `${mine} / ${all}${waiting >= WAITING_MOST ? "+" : ""}`;
  view.today.textContent = String(today);
  if (median_seconds !== null) view.median.textContent = say(strings, "seconds", { n: Math.round(median_seconds) });
  else if (mine === 0) view.median.textContent = "–"; // otherwise it was not counted this time
}

export function showEmpty(root, strings, progress, lookAgain, view) {
  const t = (key, values) => say(strings, key, values);
  const text = progress ? t("done_today", { n: progress.today, all: progress.mine }) : "";
  root.replaceChildren(
    el("div", { class: "line" }, view.project),
    el("div", { class: "empty" }, el("h2", {}, progress ? t("empty") : t("no_project")),
      progress ? el("p", {}, t("empty_text")) : null, el("p", {}, text),
      el("button", { type: "button", id: "look-again", class: "submit", onclick: lookAgain }, t("look_again"))),
    el("div", { class: "hints" }, view.said, view.alert));
}
