// Talking to the server: one request at a time with its own key, kept on this device until it is known to be saved.
export const UNANSWERED = [0, 429, 500, 503]; // no connection, or nobody who could answer now: the same may be sent again
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

// A UUIDv7. crypto.randomUUID is missing on plain http hosts.
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  let time = Date.now();
  for (let i = 5; i >= 0; i--) {
    bytes[i] = time % 256;
    time = Math.floor(time / 256);
  }
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((b) => b.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

export class Problem extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// POST once. Throws Problem with status 0 when there is no connection.
export async function post(route, body, { keepalive = false } = {}) {
  let reply;
  try {
    reply = await fetch(`/api/label/${route}`, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), keepalive,
    });
  } catch {
    throw new Problem(0, "");
  }
  if (reply.status === 401) {
    location.assign("/login?next=/label/"); // what is typed stays on this device
    await new Promise(() => {});
  }
  const read = await reply.json().catch(() => ({}));
  if (!reply.ok) {
    const problem = new Problem(reply.status, read.error || String(reply.status));
    problem.retryAfter = Number(reply.headers.get("Retry-After")) || 0;
    throw problem;
  }
  return read;
}

// POST until there is an answer: the same body, and so the same key, each time. `said` hears why it takes longer.
export async function postUntilAnswered(route, body, said) {
  for (let attempt = 0; ; attempt++) {
    try {
      return await post(route, body);
    } catch (problem) {
      if (!UNANSWERED.includes(problem.status)) throw problem;
      said(problem.status === 0 ? "offline" : "busy", problem.message);
      const online = new Promise((done) => addEventListener("online", done, { once: true }));
      await Promise.race([wait(problem.retryAfter ? problem.retryAfter * 1000 : Math.min(15000, 500 * 2 ** attempt)), online]);
    }
  }
}

// What must survive a reload, a lost session or a crash of the browser.
export class Kept {
  constructor(person) {
    this.prefix = `whetstone:${person}:`;
  }
  get(name) {
    try {
      return JSON.parse(localStorage.getItem(this.prefix + name));
    } catch {
      return null;
    }
  }
  // Names of what is kept that begin so.
  names(start) {
    try {
      const all = Array.from({ length: localStorage.length }, (_, i) => localStorage.key(i));
      return all.filter((one) => one.startsWith(this.prefix + start)).map((one) => one.slice(this.prefix.length)).sort();
    } catch {
      return [];
    }
  }
  set(name, value) {
    try {
      if (value === null) localStorage.removeItem(this.prefix + name);
      else localStorage.setItem(this.prefix + name, JSON.stringify(value));
    } catch { /* storage is full or forbidden: the server keeps the draft */ }
  }
}
