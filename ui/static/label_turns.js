// Beyond the judgement at hand: what is wrong with a comparison, one's own judgements again, the next turn of a conversation, and what is told after the vote.
import { askNext, askReport, showPast, toldIn } from "./label_dialogs.js";
import { newKey, post, postUntilAnswered } from "./label_send.js";

const SENT_MS = 3000; // how long the list waits for a judgement that is on its way; offline it goes without

// ---- one's own judgements

export async function showHistory(desk) {
  if (!desk.project || (desk.busy && desk.desk)) return;
  const fetched = (before) => post("history", { project: desk.project, ...(before ? { before } : {}) }).catch((problem) => desk.say("", problem.message));
  desk.busy = true; // a key that comes before the list does is not meant for the desk
  await Promise.race([desk.sending, new Promise((done) => setTimeout(done, SENT_MS))]); // what was just said belongs into the list
  const found = await fetched();
  desk.busy = false;
  desk.keys = [];
  if (found) showPast(desk.root, desk.strings, found, { open: (judgement) => lookAt(desk, judgement), more: fetched });
}

// What was judged lies on the desk again, and counts on until it is saved anew.
async function lookAt(desk, judgement) {
  if (desk.busy && desk.desk) return;
  desk.busy = true;
  try {
    await desk.sending;
    desk.show(await post("look", { judgement }));
  } catch (problem) {
    desk.busy = false;
    desk.say("", problem.message);
  }
}

export async function leaveAsItWas(desk) {
  desk.kept.set(`draft:${desk.desk.assignment}`, null);
  await desk.next();
  desk.say(desk.t("left_as_it_was"));
}

// ---- reports: the comparison stays; what could not be sent yet stays on this device, and goes out later under the same key

export async function report(desk) {
  if (desk.busy || !desk.desk) return;
  const name = `report:${desk.desk.assignment}`;
  const assignment = desk.desk.assignment;
  const told = await askReport(desk.root, desk.strings, desk.layout, desk.kept.get(name), (typed) => desk.kept.set(name, typed));
  if (!told) return;
  desk.kept.set(name, { ...told, assignment, key: newKey() });
  await sendReport(desk, name);
}

export async function sendReports(desk) {
  for (const name of desk.kept.names("report:")) if (desk.kept.get(name)?.key) await sendReport(desk, name);
}

async function sendReport(desk, name) {
  const { assignment, key, category, note } = desk.kept.get(name);
  try {
    await postUntilAnswered("report", { assignment, key, category, note }, (why, message) => desk.waits(why, message));
    desk.kept.set(name, null);
    desk.sayDone(desk.t("reported"));
  } catch (problem) {
    desk.kept.set(name, { category, note }); // the server read it and said no; what was typed waits in the dialog
    desk.say("", problem.message);
  }
}

// ---- going on from the better answer

export async function goOn(desk) {
  if (desk.busy || !desk.desk?.form.continues || desk.desk.corrects || desk.lacks()) return;
  const place = desk.hand.goesOnFrom();
  if (place === null) return; // nothing was shown that could be gone on from
  desk.busy = true;
  const text = await askNext(desk.root, desk.strings, place, desk.kept.get("unsaid") || "", (typed) => desk.kept.set("unsaid", typed));
  desk.busy = false;
  if (text) await desk.submit({ place, text });
  else desk.play();
}

// The judgement is saved; what is said next goes to the models. Where that fails the text stays for the next attempt.
export async function nextTurn(desk, judgement, { place, text }, otherwise) {
  desk.say(desk.t("go_on.waits"));
  try {
    const next = await post("go-on", { judgement, place, text });
    desk.kept.set("unsaid", null);
    desk.show(next);
  } catch (problem) {
    desk.show(otherwise);
    desk.say("", problem.message || desk.t("retrying"));
  }
}

// ---- what is told after the vote

export async function tell(desk, judgement, ranks) {
  const told = await post("reveal", { judgement }).catch(() => null);
  if (told) desk.view.told.textContent = toldIn((key, values) => desk.t(key, values), told, ranks);
}
