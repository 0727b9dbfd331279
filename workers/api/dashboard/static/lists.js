// What is wrong, the jobs, the deployments, the nights.

import { now } from "/dashboard/asking.js";
import { bar } from "/dashboard/charts.js";
import { html, nothing } from "/dashboard/lit-html.js";
import { badge, count, duration, ended, failedRows, idOf, short, text, time, waits } from "/dashboard/words.js";

const RECENT_MS = 24 * 3600 * 1000;
const MOST_WRONG = 8;
const STATES = ["validating", "in_progress", "paused", "finalizing", "completed", "failed", "expired",
                "cancelled", "cancelling", "expiring", "failing", "rejected"];
const DOORS = ["drop", "queue", "nightly", "http"];
const REASONS = ["quota", "throttled", "concurrency", "latency", "outage", "day", "hours", "budget"];

const link = (job, words) => html`<a href="#job=${encodeURIComponent(idOf(job))}">${words}</a>`;
const named = (job) => link(job, text(job.filename || job.input || idOf(job), 80));

/** Seconds by which a job will miss the end of its window, as the service reckons. */
export const late = (job) => job.at_risk?.late_seconds ?? 0;

/** Everything that somebody may have to act on, the worst first. */
export function wrongs(jobs, deployments) {
  const found = [];
  for (const each of deployments ?? []) {
    if (each.breaker && each.breaker !== "closed") found.push({ deployment: each });
    for (const task of each.failing ?? []) found.push({ task });
  }
  for (const job of jobs ?? []) {
    const recent = now() - Date.parse(job.ended ?? job.created ?? 0) < RECENT_MS;
    if (["failed", "expired", "rejected"].includes(job.state) && recent) found.push({ job, why: job.reason?.message });
    else if (job.state === "completed" && failedRows(job) && recent)
      found.push({ job, why: `${count(failedRows(job))} of ${count(job.counts.total)} rows have no answer` });
    else if (job.waiting?.reason === "outage") found.push({ job, why: job.waiting.message || "its deployment is out of order" });
    else if (job.waiting?.reason === "budget" && job.state === "paused") found.push({ job, why: job.waiting.message || "its cap leaves no room" });
    else if (late(job)) found.push({ job, why: `it will miss the end of its window by ${duration(late(job))}` });
    else if (job.state === "paused") found.push({ job, why: "it is paused until somebody resumes it" });
  }
  return found;
}

export function attention(jobs, deployments, probe) {
  if (!jobs && !deployments) return html`<p class="muted">Nothing is known yet.</p>`;
  const found = wrongs(jobs, deployments);
  if (!found.length) return html`<p class="fine"><span aria-hidden="true">✓</span> Nothing needs attention among the newest jobs and the deployments.</p>`;
  return html`<ul class="wrongs">${found.slice(0, MOST_WRONG).map((each) => html`<li>${wrong(each, probe)}</li>`)}</ul>
    ${found.length > MOST_WRONG ? html`<p class="muted">and ${found.length - MOST_WRONG} more below</p>` : nothing}`;
}

function wrong({ deployment, task, job, why }, probe) {
  if (task) return html`<strong>A background task keeps failing:</strong> ${text(task)}`;
  if (job) return html`${badge(job)} ${named(job)}${why ? html`: ${text(why, 400)}` : nothing}`;
  return html`<span class="badge bad"><span aria-hidden="true">✗</span> ${text(deployment.breaker)}</span>
    Deployment <strong>${text(deployment.name)}</strong>${deployment.message ? html`: ${text(deployment.message)}` : nothing}
    ${deployment.until ? html` It is tried again at ${time(deployment.until)}.` : nothing}
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
    <label>Tenant <input name="tenant" maxlength="63" placeholder="default" .value=${chosen.tenant ?? ""}
      @change=${(event) => choose("tenant", event.target.value.trim())}></label>
  </div>`;
}

export function jobs(listed, more, chosen) {
  if (!listed) return nothing;
  if (!listed.length) return html`<p class="muted">No job fits${more ? " among those looked at so far" : ""}.</p>`;
  return html`<div class="scroll" role="group" tabindex="0" aria-label="Jobs"><table class="jobs">
    <caption class="unseen">Jobs, the newest first</caption>
    <thead><tr><th scope="col">File</th><th scope="col">State</th><th scope="col">Rows</th><th scope="col">Rate</th>
      <th scope="col">Left</th><th scope="col">Waits for</th><th scope="col">Created (UTC)</th></tr></thead>
    <tbody>${listed.map((job) => html`<tr class=${idOf(job) === chosen ? "chosen" : ""}>
      <th scope="row">${named(job)}</th><td>${badge(job)}</td><td class="rows">${bar(job)}</td>
      <td>${ended(job) || job.rate == null ? "–" : `${short(job.rate)} rows/s`}</td>
      <td>${ended(job) || job.seconds_left == null ? "–" : duration(job.seconds_left)}
        ${late(job) ? html`<strong class="bad-text"> too late</strong>` : nothing}</td>
      <td>${waits(job) || "–"}</td><td>${time(job.created)}</td></tr>`)}</tbody></table></div>`;
}

/** What was used of each deployment in a minute, from the sums told at some times, oldest first. */
export function usedOf(told) {
  const [first, last] = [told[0], told.at(-1)];
  const minutes = (last.at - first.at) / 60000;
  const used = new Map();
  for (const each of minutes > 0.1 ? last.deployments : []) {
    const before = first.deployments.find(({ name }) => name === each.name);
    // Sums fall where a process is not heard of any more: nothing can be told then.
    if (before && each.calls >= before.calls && each.tokens >= before.tokens)
      used.set(each.name, [(each.calls - before.calls) / minutes, (each.tokens - before.tokens) / minutes]);
  }
  return used;
}

function priced(price) {
  if (!price) return "–";
  const parts = [[price.input, "a million prompt tokens"], [price.output, "a million completion tokens"], [price.per_hour, "an hour"]];
  return parts.filter(([amount]) => amount != null).map(([amount, per], at) =>
    html`${at ? html`<br>` : nothing}${text(amount)} ${text(price.currency)} ${per}`);
}

export function deployments(listed, used) {
  if (!listed) return nothing;
  const rate = (name, which) => (used.has(name) ? short(used.get(name)[which]) : "–");
  const share = (part) => (part == null ? "–" : `${Math.round(100 * part)}%`);
  const per = (number) => (number == null ? "unlimited" : count(number));
  return html`<div class="scroll" role="group" tabindex="0" aria-label="Deployments"><table>
    <caption class="unseen">Deployments, their quotas and how they are</caption>
    <thead><tr><th scope="col">Deployment</th><th scope="col">Model</th><th scope="col">Hours</th><th scope="col">Breaker</th>
      <th scope="col">Requests/min</th><th scope="col">Tokens/min</th><th scope="col">Granted</th>
      <th scope="col">Headroom</th><th scope="col">Requests used/min</th><th scope="col">Tokens used/min</th><th scope="col">In flight</th><th scope="col">Guard</th><th scope="col">Calls</th><th scope="col">Tokens</th>
      <th scope="col">429s</th><th scope="col">Price</th><th scope="col">Processes</th></tr></thead>
    <tbody>${listed.map((each) => html`<tr><th scope="row">${text(each.name)}</th><td>${text(each.model)}</td>
      <td>${each.hours ? html`${text(each.hours)}${each.opens ? html`<br><span class="muted">opens ${time(each.opens)}</span>` : nothing}` : "any"}</td>
      <td>${each.breaker ? html`<span class="badge ${each.breaker === "closed" ? "good" : "bad"}">${each.breaker}</span>` : "idle"}</td>
      <td>${per(each.requests_per_minute)}</td><td>${per(each.tokens_per_minute)}</td>
      <td>${share(each.granted)}</td><td>${share(each.headroom)}</td><td>${rate(each.name, 0)}</td><td>${rate(each.name, 1)}</td>
      <td>${count(each.in_flight)}</td><td>${each.guard == null ? "–" : count(each.guard)}</td><td>${count(each.calls)}</td><td>${short(each.tokens)}</td>
      <td>${count(each.refusals)}</td><td>${priced(each.price)}</td><td>${count(each.processes)}</td></tr>`)}</tbody></table></div>`;
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
