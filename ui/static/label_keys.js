// Which key does what. Three layouts to choose from; nothing free-form, so that nothing typed can become code.
const COMMON = { Enter: "submit", ArrowLeft: "left", ArrowRight: "right", Backspace: "back", "=": "equal", "?": "help" };
const DIGITS = {
  ...COMMON, t: "tie", b: "bad", o: "good", z: "undo", s: "skip", x: "report", r: "why", e: "edit", f: "flags", q: "asks", m: "marks",
  d: "diff", v: "view", g: "guidelines", p: "plain", y: "sync",
  h: "history", c: "go_on",
};
const HOME = {
  ...COMMON, " ": "submit", g: "tie", h: "tie", a: "bad", ";": "good", z: "undo", x: "skip", b: "report", w: "why", e: "edit", i: "flags",
  r: "asks", m: "marks", n: "diff", v: "view", u: "guidelines", p: "plain", y: "sync",
  o: "history", c: "go_on",
};
export const LAYOUTS = { digits: DIGITS, home: HOME, off: {} };
const SIDES = { 2: "fj", 4: "dfjk", 6: "sdfjkl" }; // the fingers that rest there, strongest outside
const PLACES = "asdfghjkl;";
const TIES = { t: "equal" };

// What a key means on this desk: {act} or {verdict: index of a side} or {place}; null when it means nothing.
export function meaning(layout, event, { kind, steps }) {
  if (layout === "off") return null;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const digit = digitOf(event);
  if (kind === "pair") {
    const side = layout === "home" ? SIDES[steps].indexOf(key) : -1;
    if (side >= 0) return { verdict: side };
    if (digit && digit <= steps) return { verdict: digit - 1 };
  } else {
    if (digit) return { place: digit - 1 };
    if (layout === "home" && PLACES.includes(key)) return { place: PLACES.indexOf(key) };
    if (layout === "home" && TIES[key]) return { act: TIES[key] };
  }
  const act = LAYOUTS[layout][key];
  return act ? { act } : null;
}

// 1 to 16: digits, 0 for ten, with Shift from eleven on. By position, since Shift changes the character.
export function digitOf(event) {
  const found = /^(?:Digit|Numpad)(\d)$/.exec(event.code || "") || /^(\d)$/.exec(event.key);
  if (!found || (event.shiftKey && !event.code?.startsWith("Digit"))) return 0;
  const digit = Number(found[1]) || 10;
  return event.shiftKey ? (digit <= 6 ? digit + 10 : 0) : digit;
}

// A number for a question: digits, or the left hand at rest.
export function numberOf(layout, event) {
  const home = layout === "home" ? "asdfg".indexOf(event.key.toLowerCase()) + 1 : 0;
  return home || digitOf(event);
}

// The key of the n-th choice in a dialog; "" where single keys are off.
export function choiceKey(layout, index) {
  return layout === "off" ? "" : layout === "home" ? PLACES[index].toUpperCase() : String(index + 1);
}

// Which choice of a dialog a key means, from 0; -1 for none. Digits are choices in every layout that has keys.
export function choiceOf(layout, event) {
  if (layout === "off" || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return -1;
  const digit = digitOf(event);
  return digit ? digit - 1 : layout === "home" && event.key.length === 1 ? PLACES.indexOf(event.key.toLowerCase()) : -1;
}

// The name on the key of an act, for hints.
export function keyOf(layout, act) {
  const found = Object.entries(LAYOUTS[layout]).find(([, one]) => one === act)?.[0] || "";
  return found === " " ? "Space" : found.length === 1 ? found.toUpperCase() : { ArrowLeft: "←", ArrowRight: "→", Backspace: "⌫" }[found] || found;
}

export function sideKey(layout, steps, index) {
  return layout === "off" ? "" : layout === "home" ? SIDES[steps][index].toUpperCase() : String(index + 1);
}

export function placeKey(layout, place) {
  if (layout === "off") return "";
  if (layout === "home" && place < PLACES.length) return PLACES[place].toUpperCase();
  return place < 9 ? String(place + 1) : place === 9 ? "0" : `⇧${place - 9}`;
}
