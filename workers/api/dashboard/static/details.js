// One job: how far, how fast, why it waits, what went wrong, what can be done.

import { bar, chart, LATENCY } from "/dashboard/charts.js";
import { html, nothing } from "/dashboard/lit-html.js";
import { late } from "/dashboard/lists.js";
import { badge, count, doneRows, duration, ended, idOf, nameOf, short, text, time } from "/dashboard/words.js";

const ACTIONS = {
  cancel: ["Cancel", "Rows that were not asked yet get no answer. Those that were are kept.",
           (job) => !ended(job) && !["cancelling", "expiring", "failing", "finalizing"].includes(job.state)],
  pause: ["Pause", "No more rows are asked until the job is resumed. Its completion window goes on.",
          (job) => job.state === "in_progress"],
  resume: ["Resume", "It goes on with the rows that are left; answers so far are kept.",
           // One that waits for its cap would only be paused again, or begins by itself.
           (job) => job.state === "paused" && job.waiting?.reason !== "budget"],
};
const MONEY = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
const money = (number) => MONEY.format(number);
export const question = (action) => ACTIONS[action];

/** `toMonth` shows the month of the job's tenant; null where that has no cap. */
export function details(shown, act, close, toMonth) {
  const { job, refusal } = shown;
  // One template whatever is known: the heading has the focus while the rest arrives.
  return html`<div class="head"><h2 id="chosen" tabindex="-1">${job ? text(nameOf(job), 120) : "Job"}</h2>
      <button type="button" @click=${close}>Close</button></div>
    ${refusal ? html`<p class="bad-text">${text(refusal)}</p>` : job ? body(shown, act, toMonth) : html`<p class="muted">Loading…</p>`}`;
}

function body({ job, points, errors, files }, act, toMonth) {
  return html`<p>${badge(job)} <code>${text(idOf(job))}</code></p>
    ${job.reason ? html`<p class="why"><strong>${text(job.reason.code)}</strong>: ${text(job.reason.message, 2000)}</p>` : nothing}
    ${bar(job)} ${speed(job)} ${outlook(job)} ${cap(job)} ${waiting(job, toMonth)}
    <p class="actions">${Object.entries(ACTIONS).filter(([, each]) => job.job && each[2](job)).map(([name, [label]]) =>
      html`<button type="button" @click=${() => act(name, job)}>${label}</button> `)}</p>
    ${downloads(job, files)} ${facts(job)} ${series(points, job)} ${wrong(errors)} ${used(job)}`;
}

function speed(job) {
  if (ended(job) || job.rate == null) return nothing;
  const basis = job.basis === "measured" ? "measured over the last minute" : "the most that the quotas allow";
  const left = job.seconds_left == null ? nothing : html`<strong>${duration(job.seconds_left)} left</strong> at `;
  return html`<p>${left}${short(job.rate)} rows/s (${basis})${job.expires ? html`; its window ends at ${time(job.expires)}` : nothing}.</p>`;
}

/** The rows that its cost is of. */
const counted = (job) => `${count(job.counts ? doneRows(job) : 0)} rows that are done`;

/** What will become of it: too late, and how dear. */
function outlook(job) {
  const { at_risk: risk, projected_cost: projected, projected_tokens: tokens } = job;
  const { reason, deployment, until } = job.waiting ?? {}, closed = reason === "hours" && until;
  const enough = risk?.needed_rate != null
    ? html`${short(risk.needed_rate)} rows/s ${closed ? html`from ${time(until)} on ` : nothing}would do${needs(risk.needed_quota)}`
    : closed && deployment ? html`${text(deployment)} opens ${time(until)}, ${
      // Before its end the job's own hours have no part behind the opening: no rate helps either.
      Date.parse(until) >= Date.parse(job.expires) ? "after that" : "and none of the job's hours is left from then on"}`
    : "none of its hours is left before that";
  return html`${late(job) ? html`<p><strong class="bad-text">It will miss the end of its window by ${duration(late(job))}</strong>: ${enough}.</p>` : nothing}
    ${!ended(job) && job.cost?.unpriced_calls ? html`<p>It has cost ${money(job.cost.counted)} ${text(job.cost.currency)} and more for the ${counted(job)}: calls were to deployments without a price, so it is not known what it will cost.</p>` : nothing}
    ${projected ? html`<p>It has cost ${money(job.cost.counted)} ${text(job.cost.currency)} for the ${counted(job)}. ${expected(job, projected)}</p>` : nothing}
    ${tokens > job.budget?.max_total_tokens ? html`<p>${beyond(job, "have", html`${count(tokens)} tokens`, html`${count(job.budget.max_total_tokens)} tokens`)}</p>` : nothing}`;
}

/** Whether it is paused because no further call fits its cap. */
const stands = (job) => job.state === "paused" && job.waiting?.reason === "budget";

/** What it will cost; what it would, where its cap has no room for that or for any further call. */
function expected(job, projected) {
  const cap = job.budget?.max_cost, words = (amount) => html`${money(amount)} ${text(job.cost.currency)}`;
  if (cap != null && Number(projected) > Number(cap)) return beyond(job, "cost", words(projected), words(cap));
  return stands(job) ? html`All its rows would cost about <strong>${words(projected)}</strong>, but no further call fits its cap.`
    : html`It will cost about <strong>${words(projected)}</strong>, if its rows go on as they did.`;
}

/** What all its rows would take of what its cap has less of, and what then becomes of it. */
function beyond(job, take, whole, cap) {
  const { on_budget: then, of_month: month } = job.budget;
  const ends = stands(job) ? ", and no further call fits"
    : then === "pause" ? ". It pauses when no further call fits"
    : then === "stop" ? html`. Rows for which that leaves no room get no answer, and end as <code>budget_exceeded</code>` : "";
  return html`All its ${count(job.counts.total)} rows would ${take} about <strong>${whole}</strong>, if they went on as they did; ${
    month && take === "cost" ? html`it holds ${cap} of its month` : html`its cap is ${cap}`}${ends}.`;
}

/** What it may spend, and what of that is spent, or set aside for shards that are being asked. */
function cap({ budget: told }) {
  if (!told) return nothing;
  const caps = [[told.cost_spent, told.max_cost, told.cost_reserved, (each) => html`${money(each)} ${text(told.currency)}`],
                [told.tokens_spent, told.max_total_tokens, told.tokens_reserved, (each) => html`${count(each)} tokens`]];
  return caps.filter(([, most]) => most != null).map(([spent, most, reserved, words]) =>
    html`<p>${told.of_month && most === told.max_cost ? html`Of the <strong>${words(most)}</strong> that it holds of its month` : html`Of its cap of <strong>${words(most)}</strong>`}, ${words(spent)} are spent${Number(reserved) ? html`, and ${words(reserved)} spent, or set aside, for shards that are being asked` : nothing}.</p>`);
}

function needs(quota) {
  if (quota == null) return "";
  return quota > 1 ? "; its quotas do not suffice for that: raise them, or give it more time"
    : `, which take ${Math.round(100 * quota)}% of its quotas`;
}

function waiting(job, toMonth) {
  const wait = job.waiting;
  if (job.state === "paused") return paused(job, toMonth);
  if (!wait) return nothing;
  return html`<p class="why">It waits for <strong>${text(wait.reason)}</strong>${wait.deployment ? html` of ${text(wait.deployment)}` : nothing},
    since ${time(wait.since)}${wait.until ? html`, until ${time(wait.until)}` : nothing}.${wait.message ? html` ${text(wait.message, 2000)}` : nothing}</p>`;
}

/** By what it is paused, and what that does not stop. */
function paused(job, toMonth) {
  const { waiting: wait, expires } = job;
  const by = wait ? html`<strong>paused by its ${text(wait.reason)}</strong>, since ${time(wait.since)}${wait.message ? html`: ${text(wait.message, 2000)}` : nothing}.`
    : html`<strong>paused by hand</strong>, until somebody resumes it.`;
  return html`<p class="why">It is ${by}${expires ? html` Its window ends at ${time(expires)} all the same.` : nothing}
    ${wait?.reason === "budget" && toMonth ? html`<button type="button" @click=${() => toMonth(job)}>See the budget of its month</button>` : nothing}</p>`;
}

function downloads(job, files) {
  if (!ended(job) || !job.results) return nothing;
  const links = (files ?? []).filter(({ url }) => /^https?:$/.test(new URL(url, location).protocol));
  if (!links.length) return html`<p>Its results are in <code>${text(job.results)}</code>.</p>`;
  return html`<h3>Downloads</h3><ul class="files">${links.map(({ name, url, bytes }) => html`<li>
    <a href=${url} rel="noreferrer">${text(name)}</a> <span class="muted">${short(bytes)}B</span></li>`)}</ul>
    <p class="muted">Links hold for some minutes; open the job again for new ones.</p>`;
}

function cost(job) {
  const told = job.cost;
  if (!told) return `not known: no deployment ${job.tokens?.prompt ? "that answered " : ""}has a price for tokens`;
  const more = [[told.unmetered_calls, "calls may have been billed and told no tokens"],
                [told.unpriced_calls, "calls were to deployments without a price"],
                [told.crashes, "attempts at shards ended with their worker, and what they asked last is not known"]]
    .filter(([calls]) => calls).map(([calls, words]) => `${ended(job) ? count(calls) : "some"} ${words}`);
  const why = more.join("; "), so = `${told.counted} ${told.currency}${ended(job) ? "" : ` for the ${counted(job)}`}`;
  const bound = ended(job) && !told.unpriced_calls && !told.crashes ? "; max_tokens in each row bounds them as a rule, max_cost always" : "";
  if (told.at_most == null) return why ? `${so}, and more: ${why}${bound}` : so;
  return told.at_most === told.counted ? so : `${so}, at most ${told.at_most}${why && `: ${why}`}`;
}

function facts(job) {
  const told = [
    ["Input", text(job.input)], ["Tenant", text(job.tenant)], ["Door", text(job.door)], ["Priority", text(job.priority)],
    ["Created", time(job.created)], ["Started", time(job.started)], ["Ended", time(job.ended)],
    ["Tokens", job.tokens ? `${count(job.tokens.prompt)} prompt, ${count(job.tokens.completion)} completion` : "–"],
    ["Cost", cost(job)],
    ["Rows", job.counts ? `${count(doneRows(job))} of ${count(job.counts.total)} done, ${count(job.counts.succeeded)} succeeded` : "–"],
    ...Object.entries(job.metadata ?? {}).map(([name, value]) => [text(name, 64), text(value)]),
  ];
  return html`<details><summary>Facts</summary><dl>${told.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl></details>`;
}

function series(points, job) {
  const { cost } = job;
  if (!points || points.length < 2)
    return ended(job) || !job.started ? nothing : html`<p class="muted">How it goes over time is shown from the second sample on: there is one every ten seconds while rows are answered.</p>`;
  return html`<h3>Over time</h3><div class="charts">
    ${chart("Rows", "rows/s", points, [["rows", "rows/s", "one"]])}
    ${chart("Tokens", "tokens/s", points, [["tokens", "tokens/s", "one"]])}
    ${chart("429s", "a minute", points, [["refusals", "429s", "three"]])}
    ${chart("Latency", "of answers", points, LATENCY, duration)}
    ${cost ? chart("Cost", `${cost.currency}, of rows that are done`, points, [["cost", cost.currency, "two"]], money) : nothing}</div>`;
}

function wrong(errors) {
  if (!errors?.length) return nothing;
  return html`<h3>Errors</h3><div class="scroll" role="group" tabindex="0" aria-label="Errors"><table>
    <caption class="unseen">Rows in error by code</caption>
    <thead><tr><th scope="col">Code</th><th scope="col">Rows</th><th scope="col">First lines</th><th scope="col">What to do</th></tr></thead>
    <tbody>${errors.map((each) => html`<tr><th scope="row"><code>${text(each.code)}</code></th><td>${count(each.rows)}</td>
      <td>${each.line == null ? "–" : [each.line, ...(each.more ?? [])].map(count).join(", ")}${each.rows > 1 + (each.more?.length ?? 0) && each.line != null ? "…" : ""}</td><td class="words">${text(each.advice, 400)}</td></tr>`)}</tbody></table></div>`;
}

function used(job) {
  const use = Object.entries(job.use ?? {});
  if (!use.length) return nothing;
  return html`<h3>Deployments it used</h3><div class="scroll" role="group" tabindex="0" aria-label="Deployments it used"><table>
    <caption class="unseen">Calls by deployment</caption>
    <thead><tr><th scope="col">Deployment</th><th scope="col">Calls</th><th scope="col">429s</th><th scope="col">Prompt tokens</th>
      <th scope="col">Completion tokens</th><th scope="col">Calls without tokens told</th></tr></thead>
    <tbody>${use.map(([name, each]) => html`<tr><th scope="row">${text(name)}</th><td>${count(each.calls)}</td>
      <td>${count(each.outcomes?.throttled)}</td><td>${count(each.prompt_tokens)}</td><td>${count(each.completion_tokens)}</td>
      <td>${count(each.unmetered_calls)}</td></tr>`)}</tbody></table></div>
    ${job.running ? html`<p class="muted">Of the ${count(doneRows(job) - job.running)} rows whose shards are done: the ${count(job.running)} others are counted with their shards.</p>` : nothing}`;
}
