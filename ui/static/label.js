// The label page: fetch a desk, judge it by keyboard, submit, go on. What the server has not confirmed stays on this device.
import { Kept, newKey, post, postUntilAnswered } from "./label_send.js";
import { VERDICTS, askSkip, build, el, say, showDesk, showEmpty, showGuidelines, showProgress, showSheet, showVerdict } from "./label_view.js";

const LINE = ["a2", "a1", "tie", "b1", "b2"]; // what the arrows walk along
const LETTERS = { 1: "a2", 2: "a1", 3: "b1", 4: "b2", t: "tie", b: "bad" };
const HEARTBEAT_MS = 60000, DRAFT_MS = 1000, LOOK_AGAIN_MS = 20000, KEYS_KEPT = 20;

export async function mount(root) {
  const { default: strings } = await import(document.documentElement.dataset.text);
  await new Desk(root, strings).start();
}

class Desk {
  constructor(root, strings) {
    this.root = root;
    this.strings = strings;
    this.desk = null;
    this.verdict = null;
    this.busy = true;
    this.keys = []; // pressed while a submit is on its way; played when the next desk lies there
    this.view = build(root, strings, {
      changeProject: () => this.changeProject(), showGuidelines: () => this.guidelines(), choose: (id) => this.choose(id),
      typed: () => this.changed(), undo: () => this.undo(), skip: () => this.skip(), submit: () => this.submit(),
    });
    this.gone = new AbortController();
    const listen = (target, name, act) => target.addEventListener(name, act, { signal: this.gone.signal });
    listen(document, "keydown", (event) => this.pressed(event));
    listen(document, "visibilitychange", () => this.clock());
    listen(window, "pagehide", () => this.leave());
    listen(window, "pageshow", (event) => event.persisted && location.reload());
    for (const name of ["pointerdown", "keydown", "wheel"]) listen(document, name, () => { this.touched = Date.now(); });
    this.beat = setInterval(() => this.heartbeat(), HEARTBEAT_MS);
  }

  async start() {
    const { person, projects } = await this.asked(postUntilAnswered("projects", {}, (why) => this.waits(why)));
    this.kept = new Kept(person);
    await this.sendKept();
    this.view.project.replaceChildren(...projects.map(({ id, name }) => el("option", { value: String(id) }, name)));
    const last = this.kept.get("project");
    const chosen = projects.find(({ id }) => id === last) || projects.find(({ waiting }) => waiting) || projects[0];
    if (!chosen) {
      this.empty(null);
      return;
    }
    this.projects = projects;
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
    this.busy = false;
    clearTimeout(this.draftTimer);
    clearTimeout(this.lookTimer);
    this.root.removeAttribute("aria-busy");
    if (!desk) {
      this.keys = [];
      this.lookForMore();
      return;
    }
    if (!this.root.contains(this.view.verdict)) this.root.replaceChildren(...this.view.work);
    this.waiting = desk.progress.waiting ?? Math.max(0, (this.waiting || 0) - 1); // not counted anew for every desk
    showDesk(this.view, this.strings, desk);
    showProgress(this.view, this.strings, desk.progress, this.waiting, 1);
    const draft = this.kept.get(`draft:${desk.assignment}`) || desk.draft;
    this.view.rationale.value = draft?.rationale || "";
    this.verdict = null;
    const known = draft?.ranks?.length ? VERDICTS.find((one) => String(one.ranks) === String(draft.ranks) &&
      Boolean(one.both_bad) === Boolean(draft.both_bad) && one.strength === (draft.strength ?? null)) : null;
    this.mark(known?.id ?? null);
    this.key = newKey();
    this.shownAt = this.visibleSince = Date.now();
    this.activeMs = 0;
    this.root.dataset.ready = String(desk.assignment);
    if (document.activeElement !== this.view.rationale) this.root.focus({ preventScroll: true });
    while (this.keys.length && !this.busy) this.act(this.keys.shift());
  }

  async lookForMore() {
    const { projects } = await this.asked(postUntilAnswered("projects", {}, (why) => this.waits(why)));
    this.empty(projects.find(({ id }) => id === this.project));
    this.lookTimer = setTimeout(() => this.root.isConnected && this.next(), LOOK_AGAIN_MS);
  }

  empty(progress) {
    this.root.dataset.ready = "empty";
    this.root.removeAttribute("aria-busy");
    showEmpty(this.root, this.strings, progress, () => (progress ? this.next() : location.reload()), this.view.project);
    this.root.querySelector("#look-again").focus();
  }

  changeProject() {
    this.leave();
    this.project = Number(this.view.project.value);
    this.kept.set("project", this.project);
    this.next();
  }

  // ---- acts

  choose(id) {
    if (this.busy || !this.desk || this.view.radios[id].parentElement.hidden) return;
    this.mark(id);
    this.changed();
  }

  mark(id) {
    this.verdict = id;
    showVerdict(this.view, id);
  }

  async submit() {
    if (this.busy || !this.desk) return;
    if (!this.verdict) {
      this.say("", this.t("choose_first"));
      return;
    }
    this.clock();
    const { ranks, strength, both_bad = false } = VERDICTS.find((one) => one.id === this.verdict);
    const body = {
      assignment: this.desk.assignment, key: this.key, ranks, both_bad, strength,
      rationale: this.view.rationale.value.trim() || null,
      seconds: (Date.now() - this.shownAt) / 1000, active_seconds: this.activeMs / 1000,
    };
    this.busy = true;
    clearTimeout(this.draftTimer);
    this.kept.set("submit", body); // before it is sent: a crash of the browser must not lose it
    try {
      const done = await postUntilAnswered("submit", body, (why, message) => this.waits(why, message));
      this.forget(body.assignment);
      this.say(this.t(done.counted ? "saved" : "saved_surplus", { id: done.judgement }));
      if (document.activeElement === this.view.rationale) this.view.rationale.blur();
      this.show(done.desk);
    } catch (problem) {
      await this.refused(problem, body.assignment);
    }
  }

  async skip() {
    if (this.busy || !this.desk) return;
    this.busy = true;
    const assignment = this.desk.assignment;
    const reason = await askSkip(this.root, this.strings);
    if (reason === null) {
      this.busy = false;
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
    if (this.busy || !this.project) return;
    this.busy = true;
    try {
      const body = { project: this.project, key: newKey() };
      const { desk } = await postUntilAnswered("undo", body, (why, message) => this.waits(why, message));
      this.kept.set(`draft:${desk.assignment}`, null);
      this.show(desk);
      this.say(this.t("undone"));
    } catch (problem) {
      this.busy = false;
      this.say("", problem.message);
    }
  }

  guidelines() {
    if (this.desk?.guideline) showGuidelines(this.root, this.strings, this.desk);
  }

  // ---- what is typed

  changed() {
    if (!this.desk) return;
    const { ranks = null, strength = null, both_bad = false } = VERDICTS.find((one) => one.id === this.verdict) || {};
    const draft = { ranks, strength, both_bad, rationale: this.view.rationale.value };
    this.kept.set(`draft:${this.desk.assignment}`, draft);
    clearTimeout(this.draftTimer);
    const assignment = this.desk.assignment;
    this.draftTimer = setTimeout(() => {
      post("draft", { assignment, ...draft }).then(() => this.view.rationale.value && this.say(this.t("draft_kept")), () => {});
    }, DRAFT_MS);
  }

  forget(assignment) {
    this.kept.set("submit", null);
    this.kept.set(`draft:${assignment}`, null);
  }

  // A submit that was on its way when the page closed goes first. Its key makes a second arrival harmless.
  async sendKept() {
    const body = this.kept.get("submit");
    if (!body) return;
    try {
      const { judgement } = await postUntilAnswered("submit", body, (why, message) => this.waits(why, message));
      this.say(this.t("saved", { id: judgement }));
      this.forget(body.assignment);
    } catch (problem) {
      this.kept.set("submit", null); // the server read it and said no; the draft stays
      this.say("", problem.message);
    }
  }

  async refused(problem, assignment) {
    this.busy = false;
    this.keys = [];
    this.kept.set("submit", null);
    if ([404, 409].includes(problem.status)) {
      this.kept.set(`draft:${assignment}`, null);
      await this.next();
    }
    this.say("", problem.message);
  }

  leave() {
    if (!this.desk || this.busy) return;
    const { assignment, lease } = this.desk;
    const draft = this.kept.get(`draft:${assignment}`);
    if (draft) post("draft", { assignment, ...draft }, { keepalive: true }).catch(() => {});
    else post("release", { assignment, lease }, { keepalive: true }).catch(() => {});
  }

  async heartbeat() {
    if (!this.root.isConnected) {
      this.gone.abort();
      clearInterval(this.beat);
      return;
    }
    if (!this.desk || this.busy || document.hidden || Date.now() - (this.touched || 0) > HEARTBEAT_MS) return;
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
      if (typing !== this.view.rationale) return;
      if (event.key === "Escape") this.root.focus({ preventScroll: true });
      else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.submit();
      else return;
      event.preventDefault();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" && event.target.closest?.("button, a, summary")) return; // a click, as everywhere
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (!LETTERS[key] && !["Enter", "ArrowLeft", "ArrowRight", "s", "z", "r", "g", "?"].includes(key)) return;
    event.preventDefault();
    if (!this.busy) this.act(key);
    else if (this.keys.length < KEYS_KEPT && !event.repeat) this.keys.push(key);
  }

  act(key) {
    if (key === "z") this.undo();
    else if (key === "?") showSheet(this.root, this.strings);
    else if (!this.desk) return;
    else if (LETTERS[key]) this.choose(LETTERS[key]);
    else if (key === "Enter") this.submit();
    else if (key === "s") this.skip();
    else if (key === "g") this.guidelines();
    else if (key === "r") this.view.rationale.focus();
    else this.walk(key === "ArrowLeft" ? -1 : 1);
  }

  walk(step) {
    const line = LINE.filter((id) => !this.view.radios[id].parentElement.hidden);
    const place = line.indexOf(this.verdict);
    const start = step < 0 ? line.indexOf("a1") : line.indexOf("b1");
    this.choose(line[place < 0 ? start : Math.min(line.length - 1, Math.max(0, place + step))]);
  }

  // ---- what is said

  t(key, values) {
    return say(this.strings, key, values);
  }

  say(done, wrong = "") {
    this.view.said.textContent = done;
    this.view.alert.textContent = wrong;
  }

  waits(why, message) {
    this.say("", why === "offline" ? this.t("offline") : message || this.t("retrying"));
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
