// One desk in the hands of a person: what they choose, rank, answer, mark and write before they submit.
import { buildForm, showSaid, withAnswer } from "./label_form.js";
import { numberOf } from "./label_keys.js";
import { EMPTY, finalRanks, fromDraft, moved, ranksOf, tiersOf, verdictOf, verdictsOf, withPlace, withVerdict, withoutLast } from "./label_said.js";
import { selectedIn, sentences, spanOf } from "./label_text.js";
import { nextLayout, say, showAsked, showSight } from "./label_view.js";

const SIGHT = { view: "side", diff: false, plain: false, sync: false, beside: false };

export class Hand {
  // `told`: changed(said) is a draft to keep, say(text) to announce, sight(values) to remember; isBusy() while nothing may change.
  constructor(root, view, strings, told) {
    Object.assign(this, { root, view, strings, told, said: EMPTY, desk: null, row: -1, sight: SIGHT });
  }

  // Takes up a desk, as a draft left it.
  open(desk, draft, layout, sight) {
    Object.assign(this, { desk, layout, said: fromDraft(draft), mark: null, sight: { ...SIGHT, ...sight }, row: -1, focused: 0, joins: false });
    this.view.rationale.value = this.said.rationale;
    this.draw(layout);
  }

  draw(layout) {
    this.layout = layout;
    this.scrolls = [];
    this.form = buildForm(this.view, this.strings, layout, this.desk, {
      choose: (id) => this.choose(id), place: (place) => this.place(place, false), flag: (flag) => this.flag(flag),
      drop: (place) => this.rank(this.tiers().map((tier) => tier.filter((one) => one !== place)).filter((tier) => tier.length)),
      move: (place, to, joins) => this.rank(moved(this.tiers(), place, to, joins)),
      answer: (row, value) => this.change(withAnswer(this.said, row, value, this.desk.answers.length)),
      scrolled: (place) => this.scrolled(place), edit: (place) => this.edit(place), mended: (place, text) => this.change({ edited_place: this.desk.kind === "demonstration" ? null : place, edited_text: text }),
      unmend: () => { this.change({ edited_place: null, edited_text: null }); this.root.focus({ preventScroll: true }); },
    });
    this.look();
    showAsked(this.view, this.strings, this.desk, this.isPlain());
    showSaid(this.form, this.said, this);
  }

  change(values) {
    if (!this.desk || this.told.isBusy()) return;
    this.said = { ...this.said, ...values };
    showSaid(this.form, this.said, this);
    this.told.changed(this.said);
  }

  choose(id) {
    const verdict = verdictsOf(this.desk.form).find((one) => one.id === id);
    if (verdict) this.change(withVerdict(this.said, verdict));
  }

  tiers() {
    return tiersOf(this.said.ranks, this.desk.answers.length);
  }

  rank(tiers) {
    this.change({ ranks: ranksOf(tiers, this.desk.answers.length), strength: null });
  }

  // Who may be gone on from: the one judged best, or the one looked at among equals; null while nothing is judged.
  goesOnFrom() {
    const [best] = tiersOf(finalRanks(this.said, this.desk), this.desk.answers.length);
    return best ? (best.includes(this.focused) ? this.focused : best[0]) : null;
  }

  // A draft of another tab, for the same desk.
  take(draft) {
    this.said = fromDraft(draft);
    this.view.rationale.value = this.said.rationale;
    showSaid(this.form, this.said, this);
  }

  place(place, joins) {
    if (place >= this.desk.answers.length) return;
    if (this.desk.kind === "rank") this.rank(withPlace(this.tiers(), place, joins));
    else this.turnTo(place);
  }

  flag(flag) {
    const flags = this.said.flags.includes(flag) ? this.said.flags.filter((one) => one !== flag) : [...this.said.flags, flag];
    this.change({ flags });
  }

  // The answer that acts without a target are about: the better one, else the one looked at.
  best() {
    const [best, ...others] = this.tiers();
    return best?.length === 1 && (others.length || this.desk.kind !== "pair") ? best[0] : this.focused;
  }

  edit(place) {
    if (this.desk.kind === "demonstration") {
      this.form.cards[0].editor.focus();
      return;
    }
    if (!this.desk.form.edit || this.told.isBusy()) return;
    if (this.said.edited_place !== place || this.said.edited_text === null) this.change({ edited_place: place, edited_text: this.desk.answers[place] });
    this.turnTo(place);
    this.form.cards[place].editor.focus();
    this.form.cards[place].edit.scrollIntoView({ block: "nearest" }); // what was changed stands under the editor
  }

  turnTo(place) {
    this.focused = place;
    this.look();
    this.form.cards[place].body.focus();
  }

  // ---- how the desk is looked at

  look() {
    showSight(this.view, this.strings, this.desk, this.sight, this.focused);
  }

  isPlain() {
    return this.sight.plain || !this.desk.form.markdown;
  }

  // Turns one way of looking on or off; it stays so for this person.
  see(name) {
    if (!this.desk) return;
    this.sight = { ...this.sight, [name]: name === "view" ? nextLayout(this.sight.view) : !this.sight[name] };
    this.told.sight(this.sight);
    this.look();
    if (name === "plain") showAsked(this.view, this.strings, this.desk, this.isPlain());
    if (name === "sync" && this.sight.sync) this.scrolled(this.focused);
    showSaid(this.form, this.said, this);
  }

  // The other answers go as far down as this one; what they tell of it is not an order to this one.
  scrolled(place) {
    const bodies = this.form.cards.map(({ body }) => body);
    if (!this.sight.sync || Math.abs((this.scrolls[place] ?? -2) - bodies[place].scrollTop) < 2) return;
    const room = bodies[place].scrollHeight - bodies[place].clientHeight;
    bodies.forEach((body, i) => {
      if (i === place || !room) return;
      body.scrollTop = (bodies[place].scrollTop / room) * (body.scrollHeight - body.clientHeight);
      this.scrolls[i] = body.scrollTop;
    });
    this.scrolls[place] = bodies[place].scrollTop;
  }

  // ---- highlights: a selection, or sentence by sentence

  marks() {
    const tags = this.desk.form.span_tags;
    if (!tags.length) return;
    const place = this.form.cards.findIndex(({ shown }) => selectedIn(shown));
    if (place >= 0) {
      const [start, end] = selectedIn(this.form.cards[place].shown);
      this.addSpan(place, start, end, tags[0]);
      getSelection().removeAllRanges();
      return;
    }
    if (this.mark) this.stopMarking();
    else this.markAt(this.best(), 0);
  }

  markAt(place, index) {
    const list = sentences(this.desk.answers[place]);
    if (!list.length) return;
    const at = Math.min(list.length - 1, Math.max(0, index));
    this.mark = { place, index: at, range: list[at] };
    showSaid(this.form, this.said, this);
    this.form.cards[place].shown.querySelector("mark.here")?.scrollIntoView({ block: "nearest" });
    this.told.say(say(this.strings, "marking", { tags: this.desk.form.span_tags.map((tag, i) => `${i + 1} ${tag}`).join(", ") }));
  }

  stopMarking() {
    this.mark = null;
    this.told.say("");
    showSaid(this.form, this.said, this);
  }

  addSpan(place, start, end, tag) {
    const span = spanOf(place, this.desk.answers[place], start, end, tag);
    const same = (one) => one.place === place && one.start === span.start && one.end === span.end && one.tag === tag;
    this.change({ spans: this.said.spans.some(same) ? this.said.spans.filter((one) => !same(one)) : [...this.said.spans, span] });
  }

  marking(event) {
    const { place, index, range } = this.mark;
    const tag = this.desk.form.span_tags[numberOf(this.layout, event) - 1];
    if (tag) this.addSpan(place, ...range, tag);
    else if (event.key === "ArrowRight") this.markAt(place, index + 1);
    else if (event.key === "ArrowLeft") this.markAt(place, index - 1);
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const size = this.desk.answers.length;
      this.markAt((place + (event.key === "ArrowDown" ? 1 : size - 1)) % size, 0);
    } else if (["Escape", "Enter", "m", "M"].includes(event.key)) this.stopMarking();
    else return false;
    return true;
  }

  // ---- questions, one after the other

  asks() {
    const rows = this.form.rows.filter(({ radios }) => radios);
    if (!rows.length) return;
    this.row = rows.findIndex(({ radios }) => !radios.some((radio) => radio.checked));
    this.askAt(this.row < 0 ? 0 : this.row);
  }

  askAt(index) {
    const rows = this.form.rows.filter(({ radios }) => radios);
    rows.forEach((row, i) => row.element.classList.toggle("active", i === index));
    this.row = index < rows.length ? index : -1;
    const row = rows[index];
    if (row) (row.radios.find((radio) => radio.checked) || row.radios[0]).focus();
    else this.root.focus({ preventScroll: true });
  }

  asking(event) {
    const row = this.form.rows.filter(({ radios }) => radios)[this.row];
    const value = numberOf(this.layout, event);
    if (value && row.radios[value - 1]) {
      this.change(withAnswer(this.said, row, Number(row.radios[value - 1].value), this.desk.answers.length));
      this.askAt(this.row + 1);
    } else if (event.key === "Escape") this.askAt(Infinity);
    else return false;
    return true;
  }

  // ---- keys

  // A mode that a key belongs to before anything else: marking, or a question. True when it took the key.
  takes(event) {
    if (this.mark && this.marking(event)) return true;
    return this.row >= 0 && this.asking(event);
  }

  // True when the meaning of a key is something done with this desk.
  act({ act, verdict, place }) {
    const joins = this.joins;
    this.joins = act === "equal"; // the next place ties with the one before
    if (verdict !== undefined) this.choose(verdictsOf(this.desk.form).filter(({ side }) => side >= 0)[verdict]?.id);
    else if (place !== undefined) this.place(place, joins);
    else if (["tie", "bad", "good"].includes(act)) this.both(act);
    else if (act === "left" || act === "right") this.walk(act === "left" ? -1 : 1);
    else if (act === "why") this.view.rationale.hidden || this.view.rationale.focus();
    else if (act === "edit") this.edit(this.best());
    else if (act === "flags") (this.form.cards[this.best()].card.querySelector(".flag") || this.view.asks.querySelector(".flag"))?.focus();
    else if (["diff", "view", "plain", "sync"].includes(act)) this.see(act);
    else if (act === "guidelines") this.see("beside");
    else if (act === "back") this.desk.kind === "rank" && this.rank(withoutLast(this.tiers()));
    else if (act === "asks") this.asks();
    else if (act === "marks") this.marks();
    else return act === "equal";
    return true;
  }

  both(act) {
    if (this.desk.kind === "pair") this.choose(act);
    else if (act !== "tie" && this.desk.form[`both_${act}`]) this.change({ both_bad: act === "bad" && !this.said.both_bad, both_good: act === "good" && !this.said.both_good });
  }

  // Along the verdicts of a pair; from answer to answer otherwise.
  walk(step) {
    if (this.desk.kind !== "pair" || this.view.answers.dataset.view === "focus") {
      const size = this.desk.answers.length;
      this.turnTo((this.focused + step + size) % size);
      if (this.desk.kind !== "pair") return;
    }
    const line = verdictsOf(this.desk.form).filter(({ id }) => !["bad", "good"].includes(id)).map(({ id }) => id);
    const place = line.indexOf(verdictOf(this.said, this.desk.form)?.id);
    this.choose(place < 0 ? (step < 0 ? "a1" : "b1") : line[Math.min(line.length - 1, Math.max(0, place + step))]);
  }
}
