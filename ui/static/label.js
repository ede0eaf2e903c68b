// The label page: fetch a desk, judge it by keyboard, submit, go on. What the server has not confirmed stays on this device.
import { Kept, UNANSWERED, newKey, post, postUntilAnswered } from "./label_send.js";
import { Hand } from "./label_hand.js";
import { LAYOUTS, meaning } from "./label_keys.js";
import { body, draftOf, missing } from "./label_said.js";
import { askSkip, showKeySheet, showOwn } from "./label_dialogs.js";
import { goOn, leaveAsItWas, nextTurn, report, sendReports, showHistory, tell } from "./label_turns.js";
import { build, el, say, showDesk, showEmpty, showKeys, showProgress } from "./label_view.js";

const HEARTBEAT_MS = 60000, DRAFT_MS = 1000, DRAFT_AGAIN_MS = 5000, LOOK_AGAIN_MS = 20000, KEYS_KEPT = 20;

export async function mount(root) {
  const { default: strings } = await import(document.documentElement.dataset.text);
  await new Desk(root, strings).start();
}

class Desk {
  constructor(root, strings) {
    this.root = root;
    this.strings = strings;
    this.desk = this.ahead = this.sending = null;
    this.busy = true;
    this.keys = []; // pressed while nothing lay there to be judged; played when something does
    this.view = build(root, strings, {
      changeProject: () => this.changeProject(), guidelines: () => this.hand.see("beside"), sight: (name) => this.hand.see(name), own: () => this.own(), past: () => showHistory(this), undo: () => this.undo(), skip: () => this.skip(), report: () => report(this), goOn: () => goOn(this),
      submit: () => this.submit(), typed: () => this.hand.change({ rationale: this.view.rationale.value }),
    });
    this.hand = new Hand(root, this.view, strings, {
      changed: (said) => this.changed(said), say: (text) => this.say(text), sight: (values) => this.kept.set("sight", values), isBusy: () => this.busy,
    });
    this.gone = new AbortController();
    const listen = (target, name, act) => target.addEventListener(name, act, { signal: this.gone.signal });
    listen(document, "keydown", (event) => this.pressed(event));
    listen(window, "storage", (event) => this.heard(event));
    listen(document, "visibilitychange", () => this.clock());
    listen(window, "online", () => this.unsent?.());
    listen(window, "pagehide", () => this.leave());
    listen(window, "pageshow", (event) => event.persisted && location.reload());
    for (const name of ["pointerdown", "keydown", "wheel"]) listen(document, name, () => { this.touched = Date.now(); });
    this.beat = setInterval(() => this.heartbeat(), HEARTBEAT_MS);
  }

  async start() {
    const { person, projects } = await this.asked(postUntilAnswered("projects", {}, (why) => this.waits(why)));
    this.kept = new Kept(person);
    this.layout = Object.hasOwn(LAYOUTS, this.kept.get("layout")) ? this.kept.get("layout") : "digits";
    await this.sendKept();
    sendReports(this); // nothing waits for it
    this.view.project.replaceChildren(...projects.map(({ id, name }) => el("option", { value: String(id) }, name)));
    const asked = Number(new URLSearchParams(location.search).get("project")); // a link to one project's queue
    const last = this.kept.get("project");
    const chosen = projects.find(({ id }) => id === asked) || projects.find(({ id }) => id === last) || projects.find(({ waiting }) => waiting) || projects[0];
    if (!chosen) {
      this.empty(null);
      return;
    }
    this.view.project.value = String(chosen.id);
    this.project = chosen.id;
    await this.next();
  }

  // ---- from desk to desk

  async next() {
    this.busy = true;
    this.show(await this.asked(postUntilAnswered("next", { project: this.project }, (why) => this.waits(why))));
  }

  show(desk) {
    this.desk = desk;
    this.ahead = null;
    delete this.root.dataset.ahead;
    this.busy = false;
    this.noDraft();
    clearTimeout(this.lookTimer);
    this.root.removeAttribute("aria-busy");
    if (!desk) {
      this.keys = [];
      this.lookForMore();
      return;
    }
    if (!this.root.contains(this.view.answers)) this.root.replaceChildren(...this.view.work);
    if (!desk.corrects) this.waiting = desk.progress.waiting ?? Math.max(0, (this.waiting || 0) - 1); // not counted for every desk
    showDesk(this.view, this.strings, desk);
    showProgress(this.view, this.strings, desk.progress, this.waiting, 1);
    this.hand.open(desk, this.kept.get(`draft:${desk.assignment}`) || desk.draft, this.layout, this.kept.get("sight"));
    showKeys(this.view, this.strings, this.layout, desk, () => this.sheet());
    this.key = newKey();
    this.shownAt = this.visibleSince = Date.now();
    this.activeMs = 0;
    this.root.dataset.ready = String(desk.assignment);
    if (document.activeElement !== this.view.rationale) this.root.focus({ preventScroll: true });
    if (!this.sending && !desk.corrects) this.fetchAhead();
    this.play();
  }

  // What was pressed while nothing could be judged.
  play() {
    while (this.keys.length && !this.busy) this.act(this.keys.shift());
  }

  // The desk after this one comes while this one is read, so that it lies there at once.
  async fetchAhead() {
    const current = this.desk;
    const ahead = await post("ahead", { project: this.project }).catch(() => null);
    if (this.desk !== current || !ahead || ahead.assignment === current.assignment) return;
    this.ahead = ahead;
    this.root.dataset.ahead = String(ahead.assignment);
  }

  async lookForMore() {
    const { projects } = await this.asked(postUntilAnswered("projects", {}, (why) => this.waits(why)));
    if (this.desk) return;
    this.empty(projects.find(({ id }) => id === this.project));
    this.lookTimer = setTimeout(() => this.root.isConnected && this.next(), LOOK_AGAIN_MS);
  }

  empty(progress) {
    this.root.dataset.ready = "empty";
    this.root.removeAttribute("aria-busy");
    showEmpty(this.root, this.strings, progress, () => (progress ? this.next() : location.reload()), this.view);
    this.root.querySelector("#look-again").focus();
  }

  changeProject() {
    this.leave();
    this.project = Number(this.view.project.value);
    this.kept.set("project", this.project);
    this.next();
  }

  // ---- acts

  // Whether something is missing still, and says so.
  lacks() {
    const lacks = missing(this.hand.said, this.desk);
    if (!lacks) return false;
    this.say("", this.t(lacks));
    if (lacks === "why_first") this.view.rationale.focus();
    return true;
  }

  // `then` is what is said after the better answer, where the conversation goes on.
  async submit(then) {
    if (this.busy || !this.desk || this.lacks()) return;
    this.clock();
    const times = { seconds: (Date.now() - this.shownAt) / 1000, active_seconds: this.activeMs / 1000 };
    const corrects = this.desk.corrects ? { corrects: this.desk.corrects } : {};
    const sent = { assignment: this.desk.assignment, key: this.key, ...body(this.hand.said, this.desk), ...times, ...corrects };
    this.busy = true;
    this.noDraft();
    await this.sending; // one at a time
    this.kept.set(`submit:${sent.assignment}`, sent); // before it is sent: a crash of the browser must not lose it
    if (document.activeElement?.matches("#desk textarea")) document.activeElement.blur();
    this.view.told.textContent = "";
    const ahead = then || sent.corrects ? null : this.ahead;
    this.sending = this.send(sent, ahead, then, this.desk.form.reveal !== "off");
    if (ahead) this.show(ahead);
    await this.sending;
  }

  async send(sent, ahead, then, reveals) {
    try {
      const done = await this.delivered(sent);
      this.sending = null;
      this.forget(sent.assignment);
      if (sent.corrects) await this.next();
      else if (then) await nextTurn(this, done.judgement, then, done.desk);
      else if (ahead && this.desk?.assignment === done.desk?.assignment) this.confirmed(done.desk);
      else this.show(done.desk);
      this.sayDone(this.t(sent.corrects ? "corrected" : done.counted ? "saved" : "saved_surplus", { id: done.judgement }));
      if (reveals && !sent.corrects) tell(this, done.judgement, sent.ranks);
    } catch (problem) {
      this.sending = null;
      await this.refused(problem, sent.assignment);
    }
  }

  delivered(sent) {
    return postUntilAnswered(sent.corrects ? "correct" : "submit", sent, (why, message) => this.waits(why, message));
  }

  // The desk that was shown ahead is the one the server meant.
  confirmed(desk) {
    Object.assign(this.desk, { lease: desk.lease, progress: desk.progress });
    showProgress(this.view, this.strings, desk.progress, this.waiting, 1);
    this.fetchAhead();
  }

  async skip() {
    if (this.busy || !this.desk) return;
    if (this.desk.corrects) {
      await leaveAsItWas(this);
      return;
    }
    this.busy = true;
    await this.sending;
    const assignment = this.desk.assignment;
    const reason = await askSkip(this.root, this.strings, this.layout);
    if (reason === null) {
      this.busy = false;
      this.play();
      return;
    }
    try {
      const { desk } = await postUntilAnswered("skip", { assignment, reason }, (why, message) => this.waits(why, message));
      this.forget(assignment);
      this.say(this.t("skipped"));
      this.show(desk);
    } catch (problem) {
      await this.refused(problem, assignment);
    }
  }

  async undo() {
    if (this.busy || !this.project || this.desk?.corrects) return;
    this.busy = true;
    await this.sending;
    try {
      const sent = { project: this.project, key: newKey() };
      const { desk } = await postUntilAnswered("undo", sent, (why, message) => this.waits(why, message));
      this.kept.set(`draft:${desk.assignment}`, null);
      this.waiting = (this.waiting || 0) + 1;
      this.show(desk);
      this.say(this.t("undone"));
    } catch (problem) {
      this.busy = false;
      this.say("", problem.message);
      this.play();
    }
  }

  async own() {
    const found = await post("own", { project: this.project }).catch((problem) => this.say("", problem.message));
    if (found) showOwn(this.root, this.strings, found);
  }

  sheet() {
    showKeySheet(this.root, this.strings, this.layout, this.desk, (layout) => {
      this.layout = layout;
      this.kept.set("layout", layout);
      if (!this.desk) return;
      this.hand.draw(layout);
      showKeys(this.view, this.strings, layout, this.desk, () => this.sheet());
    });
  }

  // ---- what is typed

  changed(said) {
    const draft = draftOf(said);
    const assignment = this.desk.assignment;
    this.kept.set(`draft:${assignment}`, draft);
    this.noDraft();
    if (this.desk.corrects) return; // a judgement has no draft on the server
    this.draftTimer = setTimeout(() => this.sendDraft(assignment, draft), DRAFT_MS);
  }

  // Until the server has heard of it, it is on this device; what did not arrive is sent again, at once when the connection is back.
  sendDraft(assignment, draft) {
    const again = () => this.unsent === again && this.sendDraft(assignment, draft);
    this.unsent = again;
    const isOver = () => { if (this.unsent === again) this.unsent = null; };
    post("draft", { assignment, ...draft }).then(() => {
      isOver();
      if (draft.rationale || draft.edited_text) this.say(this.t("draft_kept"));
    }, (problem) => (UNANSWERED.includes(problem.status) ? setTimeout(again, DRAFT_AGAIN_MS) : isOver()));
  }

  // A draft that is to be sent is no longer: a newer one is, or the judgement itself.
  noDraft() {
    clearTimeout(this.draftTimer);
    this.unsent = null;
  }

  // Another tab of this person works on the same desk: what is typed there stands here, what is saved there is gone here.
  heard({ key, newValue }) {
    if (!this.desk || this.busy || key !== `${this.kept?.prefix}draft:${this.desk.assignment}`) return;
    if (newValue) this.hand.take(JSON.parse(newValue));
    else this.next();
  }

  forget(assignment) {
    this.kept.set(`submit:${assignment}`, null);
    this.kept.set(`draft:${assignment}`, null);
  }

  // What was on its way when a page closed goes first. Its key makes a second arrival harmless.
  async sendKept() {
    for (const name of this.kept.names("submit")) {
      const sent = this.kept.get(name);
      try {
        const { judgement } = await this.delivered(sent);
        this.say(this.t("saved", { id: judgement }));
        this.forget(sent.assignment);
      } catch (problem) {
        this.say("", problem.message); // the server read it and said no; the draft stays
      }
      this.kept.set(name, null);
    }
  }

  // Gone: go on. Judged already, in another tab: go on, and what was typed here waits where that judgement is looked at again.
  // Anything else can be mended: it comes back as it was left.
  async refused(problem, assignment) {
    this.busy = false;
    this.keys = [];
    this.kept.set(`submit:${assignment}`, null);
    if (problem.status === 404) this.kept.set(`draft:${assignment}`, null);
    if ([404, 409].includes(problem.status) || this.desk?.assignment !== assignment) await this.next();
    this.say("", problem.message);
  }

  leave() {
    if (!this.desk || this.busy || this.desk.corrects) return;
    const { assignment, lease } = this.desk;
    const draft = this.kept.get(`draft:${assignment}`);
    if (draft) post("draft", { assignment, ...draft }, { keepalive: true }).catch(() => {});
    else post("release", { assignment, lease }, { keepalive: true }).catch(() => {});
    if (this.ahead) post("release", { assignment: this.ahead.assignment, lease: this.ahead.lease }, { keepalive: true }).catch(() => {});
  }

  async heartbeat() {
    if (!this.root.isConnected) {
      this.gone.abort();
      clearInterval(this.beat);
      return;
    }
    if (!this.desk || this.busy || this.desk.corrects || document.hidden || Date.now() - (this.touched || 0) > HEARTBEAT_MS) return;
    await post("heartbeat", { assignment: this.desk.assignment }).catch((problem) => problem.status && this.say("", problem.message));
  }

  clock() {
    const now = Date.now();
    if (this.visibleSince) this.activeMs += now - this.visibleSince;
    this.visibleSince = document.hidden ? 0 : now;
  }

  // ---- keys

  pressed(event) {
    if (!this.root.isConnected || event.isComposing || event.keyCode === 229 || document.querySelector("dialog[open]")) return;
    const typing = event.target.closest?.("textarea, select, [contenteditable], input:not([type=radio])");
    if (typing) {
      if (!typing.matches("#desk textarea")) return;
      if (event.key === "Escape") this.root.focus({ preventScroll: true });
      else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.submit();
      else return;
      event.preventDefault();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (["Enter", " "].includes(event.key) && event.target.closest?.("button, a, summary")) return; // a click, as everywhere
    if (event.key === " " && this.layout !== "home") return;
    if (!this.busy && this.desk && this.hand.takes(event)) {
      event.preventDefault();
      return;
    }
    if (event.key.startsWith("Arrow") && event.target.matches?.("#asks input")) return; // among the answers of a question
    const form = this.desk || this.ahead || { kind: "pair", form: { steps: 4 } };
    const meant = meaning(this.layout, event, { kind: form.kind, steps: form.form.steps });
    if (!meant) return;
    event.preventDefault();
    if (!this.busy) this.act(meant);
    else if (this.keys.length < KEYS_KEPT && !event.repeat) this.keys.push(meant);
  }

  act(meant) {
    const { act } = meant;
    if (act === "undo") this.undo();
    else if (act === "help") this.sheet();
    else if (act === "history") showHistory(this);
    else if (!this.desk || this.hand.act(meant)) return;
    else if (act === "submit") this.submit();
    else if (act === "skip") this.skip();
    else if (act === "report") report(this);
    else if (act === "go_on") goOn(this);
  }

  // ---- what is said

  t(key, values) {
    return say(this.strings, key, values);
  }

  say(done, wrong = "") {
    this.isWaiting = false;
    this.view.said.textContent = done;
    this.view.alert.textContent = wrong;
  }

  // What was done a moment ago, beside what is said of the desk that lies there now.
  sayDone(done) {
    this.say(done, this.isWaiting ? "" : this.view.alert.textContent);
  }

  waits(why, message) {
    this.say("", why === "offline" ? this.t("offline") : message || this.t("retrying"));
    this.isWaiting = true;
  }

  async asked(promise) {
    try {
      return await promise;
    } catch (problem) {
      this.busy = false;
      this.say("", problem.message);
      throw problem;
    }
  }
}
