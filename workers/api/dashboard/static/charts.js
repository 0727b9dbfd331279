// Charts in SVG, of samples and counts. What they show stands beside them as text too.

import { html, svg } from "/dashboard/lit-html.js";
import { count, doneRows, ended, failedRows, short, time } from "/dashboard/words.js";

const WIDTH = 320;
const HEIGHT = 96;
const TABLE_ROWS = 60;

/** A bar of what became of a job's rows, with the same in words. */
export function bar(job) {
  const total = job.counts?.total ?? 0;
  const good = job.counts?.succeeded ?? 0;
  const bad = failedRows(job);
  const running = Math.min(job.running ?? 0, Math.max(0, total - good - bad));
  if (!total) return html`<span class="muted">${ended(job) ? "no rows counted" : "not counted yet"}</span>`;
  const parts = [[good, "good"], [running, "busy"], [bad, "bad"]];
  let at = 0;
  const words = `${count(doneRows(job))} of ${count(total)} rows`;
  return html`<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" role="img"
      aria-label="${words}: ${count(good)} succeeded, ${count(running)} in running shards, ${count(bad)} errors">
      ${parts.map(([rows, tone]) => {
        const from = at;
        at += (100 * rows) / total;
        return svg`<rect class=${tone} x=${from} width=${Math.max(0, at - from)} height="6"></rect>`;
      })}</svg>
    <span class="bar-words">${words}${bad ? html`, <strong class="bad-text">${count(bad)} ${bad === 1 ? "error" : "errors"}</strong>` : ""}</span>`;
}

/** From sums at some times to what happened between them. */
export function steps(samples, started) {
  const first = { at: started, succeeded: 0, errors: 0, running: 0, prompt_tokens: 0,
                  completion_tokens: 0, calls: 0, refusals: 0 };
  const found = [];
  let before = started ? first : samples[0];
  for (const sample of samples) {
    const seconds = sample.at - before.at;
    if (seconds <= 0) continue;
    const rows = (one) => one.succeeded + one.errors + one.running;
    const per = (name) => Math.max(0, sample[name] - before[name]) / seconds;
    found.push({
      at: sample.at,
      rows: Math.max(0, rows(sample) - rows(before)) / seconds,
      refusals: 60 * per("refusals"),
      cost: sample.cost == null ? null : Number(sample.cost),
      tokens: per("prompt_tokens") + per("completion_tokens"),
      p50: sample.latency?.[0], p95: sample.latency?.[1], p99: sample.latency?.[2],
      waiting: sample.waiting,
    });
    before = sample;
  }
  return found;
}

/** A chart of one or more series over time, with its data as a table. */
export function chart(title, unit, points, series, show = short) {
  const drawn = series.map(([name, label, tone]) => ({
    label, tone, values: points.filter((each) => each[name] != null).map((each) => [each.at, each[name]]),
  }));
  const all = drawn.flatMap((each) => each.values);
  if (drawn.every(({ values }) => values.length < 2)) return "";
  const [from, to] = [all[0][0], all.reduce((most, [at]) => Math.max(most, at), 0)];
  const top = Math.max(...all.map(([, value]) => value));
  const x = (at) => (WIDTH * (at - from)) / Math.max(1, to - from);
  const y = (value) => HEIGHT - (HEIGHT - 4) * (value / (top || 1));
  const last = drawn.map(({ label, values }) => {
    const latest = values.at(-1);
    return latest ? `${label} ${show(latest[1])}` : null;
  }).filter(Boolean).join(", ");
  return html`<figure class="chart">
    <figcaption><strong>${title}</strong> <span class="muted">${unit}; highest ${show(top)}</span></figcaption>
    <svg viewBox="0 0 ${WIDTH} ${HEIGHT + 2}" role="img" aria-label="${title}: last ${last}, highest ${show(top)} ${unit}">
      <line class="axis" x1="0" x2=${WIDTH} y1=${HEIGHT} y2=${HEIGHT}></line>
      ${drawn.map(({ tone, values }) => svg`<polyline class="line ${tone}"
        points=${values.map(([at, value]) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`).join(" ")}></polyline>`)}
    </svg>
    <p class="legend">${drawn.map(({ label, tone, values }) => html`<span class="key ${tone}">${label}
      ${values.length ? show(values.at(-1)[1]) : "–"}</span> `)}</p>
    <details><summary>${title} as a table</summary>${table(title, points, series, show)}</details>
  </figure>`;
}

function table(title, points, series, show) {
  const every = Math.ceil(points.length / TABLE_ROWS);
  const shown = points.filter((_, at) => at % every === every - 1 || at === points.length - 1);
  return html`<div class="scroll" role="group" tabindex="0" aria-label="${title} as a table"><table>
    <caption class="unseen">${title}</caption>
    <thead><tr><th scope="col">Time (UTC)</th>${series.map(([, label]) => html`<th scope="col">${label}</th>`)}</tr></thead>
    <tbody>${shown.map((point) => html`<tr><th scope="row">${time(new Date(1000 * point.at).toISOString())}</th>
      ${series.map(([name]) => html`<td>${point[name] == null ? "–" : show(point[name])}</td>`)}</tr>`)}</tbody>
  </table></div>`;
}

export const LATENCY = [["p50", "p50", "one"], ["p95", "p95", "two"], ["p99", "p99", "three"]];
