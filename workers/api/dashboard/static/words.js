// How numbers, times and states are told.

import { html } from "/dashboard/lit-html.js";

const NUMBER = new Intl.NumberFormat("en");
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const TIME = new Intl.DateTimeFormat("en-GB", {
  year: "numeric", month: "short", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit",
  timeZone: "UTC",
});
const LONGEST_TEXT = 200;

const SHOWN = {
  validating: ["◌", "calm"], in_progress: ["▶", "busy"], finalizing: ["▶", "busy"],
  paused: ["‖", "warn"], cancelling: ["▶", "warn"], expiring: ["▶", "warn"], failing: ["▶", "bad"],
  completed: ["✓", "good"], cancelled: ["■", "calm"], expired: ["■", "bad"], failed: ["✗", "bad"],
  rejected: ["✗", "bad"],
};
const ENDED = new Set(["completed", "cancelled", "expired", "failed", "rejected"]);

export const count = (number) => NUMBER.format(number ?? 0);
export const short = (number) => SHORT.format(number ?? 0);
export const ended = (job) => ENDED.has(job.state);
export const idOf = (job) => job.job ?? job.rejection ?? "";
/** What people call a job: an uploaded file as its user called it. */
export const nameOf = (job) => job.filename || job.input || idOf(job);
export const failedRows = ({ counts }) =>
  counts ? counts.failed + counts.invalid + counts.cancelled + counts.expired : 0;
export const doneRows = (job) =>
  (job.counts?.succeeded ?? 0) + failedRows(job) + (job.running ?? 0);

/** Other people's text: never markup, never in another direction than its own, and not endless. */
export function text(words, most = LONGEST_TEXT) {
  const said = String(words ?? "");
  return html`<bdi>${said.length > most ? `${said.slice(0, most)}…` : said}</bdi>`;
}

/** A length of time in seconds, in two units at most. */
export function duration(seconds) {
  if (seconds == null || !isFinite(seconds)) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** A time of the service, in UTC. */
export function time(iso) {
  return iso ? html`<time datetime=${iso}>${TIME.format(Date.parse(iso))}</time>` : "–";
}

/** How a job stands. One that left rows without an answer is not simply green. */
export function badge(job) {
  const [sign, tone] = SHOWN[job.state] ?? ["?", "calm"];
  const missed = job.state === "completed" && failedRows(job) > 0;
  return html`<span class="badge ${missed ? "warn" : tone}"
    ><span aria-hidden="true">${missed ? "!" : sign}</span> ${String(job.state ?? "unknown").replace("_", " ")}</span>`;
}

/** What a job waits for. */
export function waits(job) {
  const waiting = job.waiting;
  if (!waiting) return job.state === "paused" ? "a resume" : "";
  return html`${text(waiting.reason)}${waiting.deployment ? html` of ${text(waiting.deployment)}` : ""}`;
}
