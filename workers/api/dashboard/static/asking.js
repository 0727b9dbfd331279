// Asks the service, with the key that this tab was given; and asks again at the right time.

const KEY = "phi3batch-key";
const MOST_KNOWN = 64;
const TIMEOUT_MS = 20000;
const LONGEST_BACKOFF_MS = 120000;

/** What was answered last, by path: with its ETag the same answer need not travel again. */
const known = new Map();
let ahead = 0;

/** The service cannot be reached, or says that it cannot answer now. */
export class Away extends Error {}

/** The service refused; `code` is for programs. */
export class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** Take the key out of the address, where histories would keep it; gives what else stands there. */
export function takeKey() {
  const given = new URLSearchParams(location.hash.slice(1));
  const key = given.get("key");
  if (key !== null) {
    given.delete("key");
    const rest = given.toString();
    history.replaceState(null, "", location.pathname + (rest ? `#${rest}` : ""));
    setKey(key);
  }
}

/** Use another key; gives whether it can be one. */
export function setKey(key) {
  const fits = /^[\x21-\x7e]{1,512}$/.test(key);
  if (fits) {
    sessionStorage.setItem(KEY, key);
    known.clear();
  }
  return fits;
}

export function forgetKey() {
  sessionStorage.removeItem(KEY);
  known.clear();
}

/** Now, in milliseconds, by the service's clock. */
export function now() {
  return Date.now() + ahead;
}

/** The JSON answer to a call. Throws Away or Refused. */
export async function ask(path, method = "GET") {
  const before = method === "GET" ? known.get(path) : undefined;
  const response = await sent(path, method, before);
  ahead = Date.parse(response.headers.get("date")) - Date.now() || 0;
  if (response.status === 304) return before.body;
  if (response.status >= 500 || response.status === 429) throw new Away(response.statusText);
  let body = null;
  try {
    body = await response.json();
  } catch {
    if (response.ok) throw new Away("the answer is not what the service writes");
  }
  if (!response.ok) {
    const told = body?.error ?? {};
    throw new Refused(response.status, told.code ?? "", told.message ?? `status ${response.status}`);
  }
  const etag = response.headers.get("etag");
  if (method === "GET" && etag) remember(path, { etag, body });
  return body;
}

async function sent(path, method, before) {
  const headers = { accept: "application/json" };
  const key = sessionStorage.getItem(KEY);
  if (key) headers["x-functions-key"] = key;
  if (before) headers["if-none-match"] = before.etag;
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  try {
    return await fetch(path, { method, headers, signal, cache: "no-store", redirect: "error" });
  } catch (error) {
    throw new Away(error.message);
  }
}

function remember(path, answer) {
  known.delete(path);
  known.set(path, answer);
  if (known.size > MOST_KNOWN) known.delete(known.keys().next().value);
}

/** Does some work again and again: never in a hidden tab, and ever later while it fails. */
export class Poll {
  constructor(seconds, work) {
    this.seconds = seconds;
    this.work = work;
    this.failures = 0;
    this.timer = null;
    this.running = null;
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState !== "visible") clearTimeout(this.timer);
      else if (this.on) this.soon();
    });
  }

  start() {
    this.on = true;
    return this.soon();
  }

  stop() {
    this.on = false;
    clearTimeout(this.timer);
  }

  /** Do it now; where it is being done, once more right after that. */
  async soon() {
    clearTimeout(this.timer);
    this.again = this.running !== null;
    this.running ??= this.round();
    await this.running;
  }

  async round() {
    let done = false;
    try {
      done = (await this.work()) !== false;
    } finally {
      this.failures = done ? 0 : this.failures + 1;
      this.running = null;
      this.next();
    }
  }

  next() {
    if (!this.on || document.visibilityState !== "visible") return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.soon(), this.again ? 0 : this.wait());
    this.again = false;
  }

  wait() {
    const usual = this.seconds * 1000 * 2 ** this.failures;
    return Math.min(LONGEST_BACKOFF_MS, usual) * (0.9 + 0.2 * Math.random());
  }
}
