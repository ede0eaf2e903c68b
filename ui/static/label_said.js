// What somebody says of the answers, as the server takes it, and the rules that the page needs to know. No elements here.
export const EMPTY = {
  ranks: null, both_bad: false, both_good: false, strength: null, aspects: {}, points: null, flags: [], spans: [], rationale: "",
  edited_place: null, edited_text: null, confidence: null,
};

// The choices of a pair, left to right: sides by strength, the tie between them, then what is said of both.
export function verdictsOf(form) {
  const most = form.steps / 2;
  const sides = (side) => Array.from({ length: most }, (_, i) => i + 1).map((strength) => ({
    id: `${side ? "b" : "a"}${strength}`, side, strength, ranks: side ? [2, 1] : [1, 2], color: `var(--${side ? "b" : "a"})`,
  }));
  const both = (id, more) => ({ id, side: -1, strength: null, ranks: [1, 1], color: "var(--tie)", act: id, ...more });
  return [
    ...sides(0).reverse(), ...(form.tie ? [both("tie", {})] : []), ...sides(1),
    ...(form.both_bad ? [both("bad", { both_bad: true })] : []), ...(form.both_good ? [both("good", { both_good: true })] : []),
  ];
}

export function verdictOf(said, form) {
  if (!said.ranks?.length) return null;
  return verdictsOf(form).find((one) => String(one.ranks) === String(said.ranks) && Boolean(one.both_bad) === said.both_bad &&
    Boolean(one.both_good) === said.both_good && (one.strength ?? null) === (said.strength ?? null)) || null;
}

export function withVerdict(said, { ranks, strength, both_bad = false, both_good = false }) {
  return { ...said, ranks, strength, both_bad, both_good };
}

// ---- ranks of three and more: tiers, best first; who is in none has not been ranked

export function tiersOf(ranks, size) {
  if (!ranks?.length) return [];
  const tiers = [];
  for (const rank of [...new Set(ranks)].sort((a, b) => a - b)) {
    const places = ranks.flatMap((one, place) => (one === rank && rank > 0 ? [place] : []));
    if (places.length) tiers.push(places);
  }
  return tiers.filter((tier) => tier.every((place) => place < size));
}

// Ranks by place; 0 for who is not ranked yet.
export function ranksOf(tiers, size) {
  const ranks = Array(size).fill(0);
  tiers.forEach((tier, i) => tier.forEach((place) => { ranks[place] = i + 1; }));
  return ranks;
}

export function withPlace(tiers, place, joins) {
  const rest = tiers.map((tier) => tier.filter((one) => one !== place)).filter((tier) => tier.length);
  if (joins && rest.length) return [...rest.slice(0, -1), [...rest.at(-1), place]];
  return [...rest, [place]];
}

export function withoutLast(tiers) {
  if (!tiers.length) return tiers;
  const last = tiers.at(-1).slice(0, -1);
  return last.length ? [...tiers.slice(0, -1), last] : tiers.slice(0, -1);
}

// Puts an answer into tier `to`, or as a tier of its own before it.
export function moved(tiers, place, to, joins) {
  const copy = tiers.map((tier) => tier.filter((one) => one !== place));
  if (joins && copy[to]) copy[to] = [...copy[to], place];
  else copy.splice(to, 0, [place]);
  return copy.filter((tier) => tier.length);
}

// Best and worst alone: the first choice is best, the second worst, the rest stands between them.
export function bestWorst(tiers, size) {
  const [best, worst] = tiers.flat();
  if (best === undefined || worst === undefined) return ranksOf(tiers, size);
  return Array.from({ length: size }, (_, place) => (place === best ? 1 : place === worst ? 3 : 2)).map((rank) => (size === 2 && rank === 3 ? 2 : rank));
}

// Ranks as they are submitted: whoever is left alone comes last. null while more than one is unranked.
export function finalRanks(said, desk) {
  const size = desk.answers.length;
  if (desk.kind === "pair") return said.ranks;
  let tiers = tiersOf(said.ranks, size);
  if (desk.form.best_worst && size > 2) return tiers.flat().length >= 2 ? bestWorst(tiers, size) : null;
  const missing = desk.answers.map((_, place) => place).filter((place) => !tiers.flat().includes(place));
  if (missing.length > 1) return null;
  if (missing.length) tiers = [...tiers, missing];
  return ranksOf(tiers, size);
}

// ---- what is still missing: a key of a sentence, or null

export function missing(said, desk) {
  const { form, kind } = desk;
  if (kind === "demonstration" && !said.edited_text?.trim()) return "write_first";
  if (kind === "demonstration") return form.rationale === "required" && !said.rationale.trim() ? "why_first" : null;
  if (kind === "rate" ? !said.points?.every(Boolean) || said.points.length !== desk.answers.length : !finalRanks(said, desk)) {
    return kind === "pair" ? "choose_first" : kind === "rate" ? "rate_first" : form.best_worst ? "best_worst_first" : "rank_first";
  }
  if (form.rationale === "required" && !said.rationale.trim()) return "why_first";
  return null;
}

// The body of a submit: half-answered questions are left out.
export function body(said, desk) {
  const whole = (values) => Array.isArray(values) && values.length === desk.answers.length && values.every(Boolean);
  const aspects = Object.fromEntries(Object.entries(said.aspects || {}).filter(([name, values]) => desk.form.aspects.includes(name) && whole(values)));
  const ranks = ["rate", "demonstration"].includes(desk.kind) ? null : finalRanks(said, desk);
  const edited = said.edited_text?.trim() ? { edited_place: said.edited_place, edited_text: said.edited_text } : {};
  return {
    ranks, both_bad: said.both_bad, both_good: said.both_good, strength: desk.kind === "pair" ? said.strength : null,
    aspects: Object.keys(aspects).length ? aspects : null, points: whole(said.points) ? said.points : null,
    flags: said.flags.length ? said.flags : null, spans: said.spans.length ? said.spans : null,
    rationale: said.rationale.trim() || null, ...edited, confidence: said.confidence,
  };
}

// A draft: as it is, half of it missing.
export function draftOf(said) {
  const full = (list) => (list?.length ? list : null);
  const aspects = Object.keys(said.aspects).length ? said.aspects : null;
  const edited_place = said.edited_text === null ? null : said.edited_place;
  return { ...said, ranks: full(said.ranks), aspects, flags: full(said.flags), spans: full(said.spans), edited_place };
}

// What a draft of the server or of this device says; unknown parts are left out.
export function fromDraft(draft) {
  const known = Object.keys(EMPTY).filter((name) => draft?.[name] !== undefined && draft[name] !== null);
  return { ...EMPTY, ...Object.fromEntries(known.map((name) => [name, draft[name]])) };
}
