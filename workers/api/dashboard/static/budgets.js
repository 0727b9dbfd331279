// What of each tenant's cap by month is spent, reserved and left.

import { html, nothing, svg } from "/dashboard/lit-html.js";
import { count, text } from "/dashboard/words.js";

const MOST_NAMED = 3;
// To the last digit: what is left is what somebody may fit a job into.
const MONEY = new Intl.NumberFormat("en", { maximumFractionDigits: 6 });
const money = (amount) => MONEY.format(amount);

/** The month before or after one, as 2026-11. */
export function monthFrom(month, steps) {
  const [year, number] = month.split("-").map(Number);
  return new Date(Date.UTC(year, number - 1 + steps, 1)).toISOString().slice(0, 7);
}

/** The months of the tenants that have a cap, as a table with a bar for each. */
export function budgets(listed, turn) {
  const { month } = listed[0];
  return html`<p class="pages">Jobs that were made in <strong>${month}</strong> (UTC)
      <button type="button" @click=${() => turn(monthFrom(month, -1))}>Month before</button>
      <button type="button" @click=${() => turn(monthFrom(month, 1))}>Month after</button></p>
    <div class="scroll" role="group" tabindex="0" aria-label="Budgets"><table>
    <caption class="unseen">Budgets of ${month} by tenant</caption>
    <thead><tr><th scope="col">Tenant</th><th scope="col">Of its cap</th><th scope="col">Spent</th>
      <th scope="col">Reserved</th><th scope="col">Left</th><th scope="col">Waits for room</th></tr></thead>
    <tbody>${listed.map((each) => html`<tr><th scope="row">${text(each.tenant)}</th>
      ${each.cost_left == null ? html`<td colspan="4" class="words bad-text">${text(each.message)}</td>` : amounts(each)}
      <td>${waiting(each)}</td></tr>`)}</tbody></table></div>
    <p class="muted">Spent is what the jobs that have ended cost. Reserved is the most that the others may cost: what they have cost by now is part of it.</p>`;
}

function amounts(each) {
  return html`<td class="rows">${bar(each)}</td><td>${money(each.cost_spent)}</td>
    <td>${money(each.cost_reserved)}${jobs(each.reserving, each.reserving_jobs, html`<br>`)}</td><td>${money(each.cost_left)}</td>`;
}

function waiting({ waiting: named, open_jobs_not_read: others }) {
  if (!others) return jobs(named, named.length);
  return html`${jobs(named, named.length, "")}${named.length ? html`<br>` : nothing}${count(others)} more open ${others === 1 ? "job was" : "jobs were"} not looked at`;
}

function bar({ max_cost: cap, currency, cost_spent: spent, cost_reserved: reserved, cost_left: left }) {
  // Where a cap was lowered, more is spent and reserved than it lets be.
  const whole = Math.max(Number(cap), Number(spent) + Number(reserved));
  const width = (part) => (100 * Number(part)) / whole;
  return html`<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" role="img"
      aria-label="Of ${money(cap)} ${currency}: ${money(spent)} spent, ${money(reserved)} reserved, ${money(left)} left">
      ${svg`<rect class="busy" x="0" width=${width(spent)} height="6"></rect>
        <rect class="warn" x=${width(spent)} width=${width(reserved)} height="6"></rect>`}</svg>
    <span class="bar-words">${money(cap)} ${text(currency)}</span>`;
}

function jobs(named, whole, before = nothing) {
  if (!whole) return before === nothing ? "–" : nothing;
  const shown = named.slice(0, MOST_NAMED);
  return html`${before}${shown.map(({ job, input, filename }, at) => html`${at ? ", " : ""}<a href="#job=${encodeURIComponent(job)}">${text(filename || input || job, 60)}</a>`)}${
    whole > shown.length ? html` and ${count(whole - shown.length)} more` : nothing}`;
}
