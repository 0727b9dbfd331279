// What is wrong, the jobs, the deployments, the nights.

import { now } from "/dashboard/asking.js";
import { bar } from "/dashboard/charts.js";
import { html, nothing, svg } from "/dashboard/lit-html.js";
import { badge, count, duration, ended, failedRows, idOf, nameOf, short, text, time, waits } from "/dashboard/words.js";

const RECENT_MS = 24 * 3600 * 1000;
const MOST_WRONG = 8;
/** Jobs that are looked at for what is wrong, and on a page of the list. */
export const NEWEST = 30;
/** Open jobs that are looked at besides: what stands still longest is not among the newest. */
export const OLDEST = 10;
const LOOKED_AT = `the newest ${NEWEST} jobs of all tenants, and the ${OLDEST} open ones of the oldest files`;
/** All tenants, for the service. */
export const EVERY = "*";
const STATES = ["validating", "in_progress", "paused", "finalizing", "completed", "failed", "expired",
                "cancelled", "cancelling", "expiring", "failing", "rejected"];
const DOORS = ["drop", "queue", "nightly", "http"];
const REASONS = ["quota", "throttled", "concurrency", "latency", "outage", "day", "hours", "budget"];

const link = (job, words) => html`<a href="#job=${encodeURIComponent(idOf(job))}">${words}</a>`;
const named = (job) => link(job, text(nameOf(job), 80));
/** Whose a job is, where it is somebody's own. */
const whose = ({ tenant }) => (tenant && tenant !== "default" ? html` <span class="muted">of ${text(tenant)}</span>` : nothing);

/** Seconds by which a job will miss the end of its window, as the service reckons. */
export const late = (job) => job.at_risk?.late_seconds ?? 0;

/** What of a job somebody may have to act on, and how soon: the lower the sooner. */
function ill(job) {
  const recent = now() - Date.parse(job.ended ?? job.created ?? 0) < RECENT_MS;
  const { waiting, state } = job;
  if (["failed", "expired", "rejected"].includes(state)) return recent ? { job, rank: 3, why: job.reason?.message } : null;
  if (state === "completed")
    return recent && failedRows(job) ? { job, rank: 4, why: `${count(failedRows(job))} of ${count(job.counts.total)} rows have no answer` } : null;
  if (waiting?.reason === "outage") return { job, rank: 0, why: waiting.message || "its deployment is out of order" };
  if (waiting?.reason === "budget" && state === "paused") return { job, rank: 2, why: `it is paused by its budget: ${waiting.message || "that leaves no room"}` };
  if (late(job)) return { job, rank: 1, why: `it will miss the end of its window by ${duration(late(job))}` };
  return state === "paused" ? { job, rank: 5, why: "it is paused until somebody resumes it" } : null;
}

/** Everything that somebody may have to act on, the most urgent first. */
export function wrongs({ jobs, oldest, deployments }) {
  const found = [];
  for (const each of deployments ?? []) {
    if (each.breaker && each.breaker !== "closed") found.push({ deployment: each });
    for (const task of each.failing ?? []) found.push({ task });
  }
  const newest = new Set((jobs ?? []).map(idOf));
  const looked = [...(jobs ?? []), ...(oldest ?? []).filter((job) => !newest.has(idOf(job)))];
  return [...found, ...looked.map(ill).filter(Boolean).sort((one, other) => one.rank - other.rank)];
}

export function attention(known, probe) {
  if (!known.jobs && !known.deployments) return html`<p class="muted">Nothing is known yet.</p>`;
  const found = wrongs(known);
  if (!found.length) return html`<p class="fine"><span aria-hidden="true">✓</span> Nothing needs attention among the deployments, ${LOOKED_AT}.</p>`;
  const [first, others] = [found.slice(0, MOST_WRONG), found.slice(MOST_WRONG)];
  const list = (some) => html`<ul class="wrongs">${some.map((each) => html`<li>${wrong(each, probe)}</li>`)}</ul>`;
  return html`${list(first)}
    ${others.length ? html`<details><summary>and ${others.length} more</summary>${list(others)}</details>` : nothing}
    <p class="muted">Looked at: the deployments, ${LOOKED_AT}.</p>`;
}

/** What may be followed by another sentence. */
const sentence = (words) => (/[.!?…]$/.test(words.trimEnd()) ? words : `${words}.`);

function wrong({ deployment, task, job, why }, probe) {
  if (task) return html`<strong>A background task keeps failing:</strong> ${text(task)}`;
  if (job) return html`${badge(job)} ${named(job)}${whose(job)}${why ? html`: ${text(why, 400)}` : nothing}`;
  return html`<span class="badge bad"><span aria-hidden="true">✗</span> ${text(deployment.breaker)}</span>
    Deployment <strong>${text(deployment.name)}</strong>${deployment.message ? html`: ${text(sentence(deployment.message))}` : "."}
    ${deployment.breaker === "probing" ? "A call is trying it." : deployment.until ? html`It is tried again at ${time(deployment.until)}.` : "It is tried with the next call."}
    <button type="button" @click=${() => probe(deployment.name)}>Try ${text(deployment.name)} now</button>`;
}

export function filters(chosen, choose) {
  const select = (name, label, options) => html`<label>${label}
    <select name=${name} @change=${(event) => choose(name, event.target.value)}>
      <option value="" ?selected=${!chosen[name]}>any</option>
      ${options.map((each) => html`<option value=${each} ?selected=${chosen[name] === each}>${each.replace("_", " ")}</option>`)}
    </select></label>`;
  return html`<div class="filters" role="group" aria-label="Which jobs are listed">
    ${select("state", "State", STATES)} ${select("door", "Door", DOORS)} ${select("waits_for", "Waits for", REASONS)}
    <label>Tenant <input name="tenant" maxlength="63" placeholder="all" .value=${chosen.tenant ?? ""}
      @change=${(event) => choose("tenant", event.target.value.trim())}></label>
  </div>`;
}

export function jobs({ listed: page, refused }, chosen) {
  if (refused) return html`<p class="bad-text" role="alert">Nothing is listed: ${text(refused, 500)}</p>`;
  if (!page) return html`<p class="muted">Not known yet.</p>`;
  const { data: listed, has_more: more } = page;
  if (!listed.length) return html`<p class="muted">No job fits${more ? " among those looked at so far" : ""}.</p>`;
  return html`<div class="scroll" role="group" tabindex="0" aria-label="Jobs"><table class="jobs">
    <caption class="unseen">Jobs, the newest first</caption>
    <thead><tr><th scope="col">File</th><th scope="col">State</th><th scope="col">Rows</th><th scope="col">Rate</th>
      <th scope="col">Left</th><th scope="col">Waits for</th><th scope="col">Created (UTC)</th></tr></thead>
    <tbody>${listed.map((job) => html`<tr class=${idOf(job) === chosen ? "chosen" : ""}>
      <th scope="row">${named(job)}${whose(job)}</th><td>${badge(job)}</td><td class="rows">${bar(job)}</td>
      <td class="whole">${ended(job) || job.rate == null ? "–" : `${short(job.rate)} rows/s`}</td>
      <td class="whole">${ended(job) || job.seconds_left == null ? (late(job) ? "" : "–") : duration(job.seconds_left)}
        ${late(job) ? html`<strong class="bad-text"> too late</strong>` : nothing}</td>
      <td>${waits(job) || "–"}</td><td>${time(job.created)}</td></tr>`)}</tbody></table></div>`;
}

function priced(price) {
  if (!price) return "not told";
  const parts = [[price.input, "prompt"], [price.output, "completion"], [price.per_hour, "an hour"]];
  return parts.filter(([amount]) => amount != null).map(([amount, of]) =>
    html`<span class="line-of">${text(amount)} ${text(price.currency)} ${of}</span>`);
}

/** What is used in a minute of what may be; nobody uses one that no process asks. */
function quota(used, most, processes) {
  const now = used ?? (processes ? null : 0);
  const told = now == null ? "not measured yet" : short(now);
  if (most == null) return html`${told}<span class="line-of muted">no limit</span>`;
  const part = Math.min(100, (100 * (now ?? 0)) / most);
  return html`<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">${svg`<rect class="busy" width=${part} height="6"></rect>`}</svg>
    <span class="bar-words">${told} of ${short(most)}</span>`;
}

function standing(each) {
  const words = each.breaker ? html`<span class="badge ${each.breaker === "closed" ? "good" : "bad"}">${each.breaker}</span>` : "idle";
  return html`${words}${each.hours ? html`<span class="line-of">${text(each.hours)}</span>` : nothing}${
    each.opens ? html`<span class="line-of muted">opens ${time(each.opens)}</span>` : nothing}`;
}

function answered({ processes, calls, tokens, refusals }) {
  if (!processes) return "–";
  return html`${count(calls)} calls${refusals ? `, ${count(refusals)} 429s` : nothing}<span class="line-of">${short(tokens)} tokens</span>
    <span class="line-of muted">by ${processes === 1 ? "one process" : `${count(processes)} processes`}</span>`;
}

export function deployments(listed) {
  if (!listed) return nothing;
  const limited = (each) => each.requests_per_minute != null || each.tokens_per_minute != null;
  const share = (part) => `${Math.round(100 * part)}%`;
  return html`<div class="scroll" role="group" tabindex="0" aria-label="Deployments"><table>
    <caption class="unseen">Deployments, their quotas and how they are</caption>
    <thead><tr><th scope="col">Deployment</th><th scope="col">Breaker, hours</th>
      <th scope="col">Requests used a minute</th><th scope="col">Tokens used a minute</th><th scope="col">Granted</th>
      <th scope="col">Headroom</th><th scope="col">In flight</th><th scope="col">Answered</th>
      <th scope="col">Price, of a million tokens</th></tr></thead>
    <tbody>${listed.map((each) => html`<tr><th scope="row">${text(each.name)}<span class="line-of muted">${text(each.model)}</span></th>
      <td>${standing(each)}</td>
      <td class="quota">${quota(each.requests_used, each.requests_per_minute, each.processes)}</td>
      <td class="quota">${quota(each.tokens_used, each.tokens_per_minute, each.processes)}</td>
      <td>${limited(each) ? share(each.granted ?? 0) : "no limit"}</td><td>${each.headroom == null ? "–" : share(each.headroom)}</td>
      <td>${count(each.in_flight)}${each.guard == null ? nothing : html`<span class="line-of muted">of ${count(each.guard)}</span>`}</td>
      <td>${answered(each)}</td><td class="whole">${priced(each.price)}</td></tr>`)}</tbody></table></div>
    <p class="muted">As told within the last 30 s: used a minute is reckoned from the last ten seconds; granted and headroom are parts of the quota; answered is since the processes started. A – stands where no process asks it.</p>`;
}

/** Nights by files: one look tells which file went wrong when. */
export function nights(known) {
  if (!known) return html`<p class="muted">Loading…</p>`;
  if (!known.size) return html`<p class="muted">No file was left for the night among the newest jobs.</p>`;
  const listed = [...known.values()].sort((one, other) => one.created.localeCompare(other.created));
  const days = [...new Set(listed.map((job) => job.created.slice(0, 10)))].sort().reverse().slice(0, 14);
  const files = [...new Set(listed.map((job) => job.input))].sort();
  // The newest of a file and night is put in last, and stays.
  const at = new Map(listed.map((job) => [`${job.input}\n${job.created.slice(0, 10)}`, job]));
  return html`<div class="scroll" role="group" tabindex="0" aria-label="Nightly runs"><table class="nights">
    <caption class="unseen">Nightly runs by file and night (UTC)</caption>
    <thead><tr><th scope="col">File</th>${days.map((day) => html`<th scope="col">${day}</th>`)}</tr></thead>
    <tbody>${files.map((file) => html`<tr><th scope="row">${text(file, 60)}</th>${days.map((day) => {
      const job = at.get(`${file}\n${day}`);
      return html`<td>${job ? link(job, badge(job)) : html`<span class="muted">–</span>`}</td>`;
    })}</tr>`)}</tbody></table></div>`;
}
