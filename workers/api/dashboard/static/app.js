// The page: what is known, when it is asked for, and what is shown.

import { ask, Away, forgetKey, Poll, Refused, setKey, takeKey } from "/dashboard/asking.js";
import { budgets } from "/dashboard/budgets.js";
import { steps } from "/dashboard/charts.js";
import { details, question } from "/dashboard/details.js";
import { html, nothing, render } from "/dashboard/lit-html.js";
import * as lists from "/dashboard/lists.js";
import { ended, idOf, nameOf, text } from "/dashboard/words.js";

const LIST_SECONDS = 15;
const JOB_SECONDS = 3;
const NIGHTS_SECONDS = 60;
const BUDGETS_SECONDS = 60;

const known = { jobs: null, oldest: null, deployments: null, listed: null, refused: null, after: [], nights: null, nightsAfter: null, budgets: [] };
const page = { trouble: null, wrongKey: false, chosen: {}, shown: null, asked: null, told: "", month: "" };

/** The filters that somebody has set. */
const chosen = () => Object.fromEntries(Object.entries(page.chosen).filter(([, value]) => value));
const query = (given) => new URLSearchParams(Object.entries(given).filter(([, value]) => value)).toString();

/** Report what is wrong with the page itself; gives the words for whoever looks at it. */
function fault(error) {
  reportError(error);
  return `This page has a fault (${error.message}). It goes on trying; if that does not help, load it again.`;
}

/** Do what asks the service; what goes wrong is shown. Gives false where it did. */
async function attempt(work) {
  try {
    await work();
    page.trouble = null;
    return true;
  } catch (error) {
    if (error instanceof Refused && (error.status === 401 || error.status === 403)) page.wrongKey = true;
    else if (error instanceof Away) page.trouble = "The service cannot be reached now, or cannot answer. What is shown may be old.";
    else if (error instanceof Refused) page.trouble = error.message;
    else page.trouble = fault(error);
    return false;
  } finally {
    draw();
  }
}

const overview = new Poll(LIST_SECONDS, () => page.wrongKey || attempt(async () => {
  const filtered = Object.keys(chosen()).length || known.after.length;
  const newestOfAll = { limit: lists.NEWEST, tenant: lists.EVERY };
  const own = { ...newestOfAll, ...chosen(), after: known.after.at(-1) };
  const oldestOfAll = { open: true, limit: lists.OLDEST, tenant: lists.EVERY };
  const wanted = [page.chosen, known.after];
  const [newest, oldest, listed, deployments] = await Promise.all([
    ask(`/api/jobs?${query(newestOfAll)}`), ask(`/api/jobs?${query(oldestOfAll)}`),
    filtered ? unlessRefused(ask(`/api/jobs?${query(own)}`)) : null, ask("/api/deployments"),
  ]);
  known.jobs = newest.data;
  known.oldest = oldest.data;
  known.deployments = deployments.data;
  // Others may have been chosen meanwhile, and are asked for by the next round.
  if (wanted[0] !== page.chosen || wanted[1] !== known.after) return;
  const { refused = null, answer } = filtered ? listed : { answer: newest };
  Object.assign(known, { listed: answer ?? null, refused });
}));

/** An answer; where what somebody chose is refused, why that is. A key that is refused concerns all. */
async function unlessRefused(asked) {
  try {
    return { answer: await asked };
  } catch (error) {
    if (!(error instanceof Refused) || error.status === 401 || error.status === 403) throw error;
    return { refused: error.message };
  }
}

const nightly = new Poll(NIGHTS_SECONDS, () => page.wrongKey || attempt(() => lookAtNights()));

/** A list looks at so many jobs at a time, of whatever doors: older nights are further pages. */
async function lookAtNights(after) {
  const { data, has_more, last_id } = await ask(`/api/jobs?${query({ limit: 100, tenant: lists.EVERY, door: "nightly", after })}`);
  if (after || !known.nights) known.nightsAfter = has_more ? last_id : null;
  known.nights = new Map([...(known.nights ?? []), ...data.map((job) => [idOf(job), job])]);
}

const monthly = new Poll(BUDGETS_SECONDS, () => page.wrongKey || attempt(async () => {
  known.budgets = (await ask(`/api/budgets${page.month && `?month=${page.month}`}`)).data;
  // Where no tenant has a cap none will: settings change with a new start of the service.
  if (!known.budgets.length) monthly.stop();
}));

const one = new Poll(JOB_SECONDS, () => page.wrongKey || attempt(() => look(page.shown)));

async function look(shown) {
  if (!shown) return;
  const path = `/api/jobs/${encodeURIComponent(shown.id)}`;
  try {
    const job = await ask(path);
    if (shown.job && shown.job.state !== job.state) {
      announce(job);
      overview.soon();
    }
    shown.job = job;
    if (job.job) await more(shown, path);
  } catch (error) {
    if (!(error instanceof Refused) || error.status === 401) throw error;
    shown.refusal = error.message;
  }
  // Another may have been chosen meanwhile, and is followed by the same poll.
  if (shown === page.shown && (shown.refusal || ended(shown.job))) one.stop();
}

async function more(shown, path) {
  // Once it has ended, its exact series takes the place of what was seen of it.
  const exact = ended(shown.job);
  const told = await ask(`${path}/samples${shown.after && !exact ? `?after=${shown.after}` : ""}`);
  shown.samples = exact ? told.data : [...shown.samples, ...told.data];
  shown.after = told.after;
  shown.points = steps(shown.samples, Date.parse(shown.job.started) / 1000);
  if (Object.keys(shown.job.codes ?? {}).length) shown.errors = (await ask(`${path}/errors`)).data;
  if (ended(shown.job) && !shown.files) shown.files = await links(path);
}

/** Links to the results; none where the service gives none. */
async function links(path) {
  try {
    return (await ask(`${path}/links`, "POST")).data;
  } catch (error) {
    if (error instanceof Refused && error.status !== 401) return [];
    throw error;
  }
}

function announce(job) {
  document.getElementById("announcer").textContent = `${nameOf(job) || "The job"} is now ${job.state.replace("_", " ")}`;
}

function choose() {
  const id = new URLSearchParams(location.hash.slice(1)).get("job");
  if (id === (page.shown?.id ?? null)) return;
  one.stop();
  page.shown = id ? { id, samples: [], points: [], after: 0 } : null;
  draw();
  if (!page.shown) return;
  document.getElementById("chosen")?.focus();
  one.start();
}

const close = () => { location.hash = ""; };

function act(action, job) {
  page.asked = { action, job };
  draw();
  document.getElementById("confirm").showModal();
}

async function confirmed() {
  const { action, job } = page.asked;
  document.getElementById("confirm").close();
  await attempt(() => ask(`/api/jobs/${encodeURIComponent(job.job)}/${action}`, "POST"));
  one.start();
  overview.soon();
}

async function probe(name) {
  await attempt(() => ask(`/api/deployments/${encodeURIComponent(name)}/probe`, "POST"));
  overview.soon();
}

function filter(name, value) {
  page.chosen = { ...page.chosen, [name]: value };
  // What is shown fits the filters that are shown.
  Object.assign(known, { after: [], listed: null, refused: null });
  draw();
  overview.soon();
}

function turn(after) {
  known.after = after;
  overview.soon();
}

function turnMonth(month) {
  page.month = month;
  return monthly.soon();
}

function toMonth(job) {
  turnMonth(job.created.slice(0, 7));
  document.getElementById("budgets").focus();
}

function enter(event) {
  event.preventDefault();
  const given = event.target.elements.key;
  page.told = setKey(given.value.trim()) ? "" : "A key has no spaces and no other letters than those of ASCII.";
  given.value = "";
  if (!page.told) {
    page.wrongKey = false;
    overview.start();
    monthly.start();
    if (page.shown) one.start();
  }
  draw();
}

function leave() {
  forgetKey();
  Object.assign(known, { jobs: null, oldest: null, deployments: null, listed: null, refused: null, nights: null, budgets: [] });
  page.wrongKey = true;
  page.shown = page.shown && { id: page.shown.id, samples: [], points: [], after: 0 };
  draw();
}

function view() {
  if (page.wrongKey) return keyForm();
  const { shown } = page;
  return html`${header()}
    <main id="main" tabindex="-1">
      ${trouble()}
      <section aria-labelledby="wrong"><h2 id="wrong">Needs attention</h2>
        ${lists.attention(known, probe)}</section>
      ${shown ? html`<section class="shown" aria-labelledby="chosen">${details(shown, act, close, capped(shown.job) ? toMonth : null)}</section>` : nothing}
      <section aria-labelledby="jobs"><h2 id="jobs">Jobs</h2>
        ${lists.filters(page.chosen, filter)} ${lists.jobs(known, shown?.id)} ${pages()}</section>
      ${known.budgets.length ? html`<section aria-labelledby="budgets"><h2 id="budgets" tabindex="-1">Budgets</h2>${budgets(known.budgets, turnMonth)}</section>` : nothing}
      <section aria-labelledby="deployments"><h2 id="deployments">Deployments</h2>${lists.deployments(known.deployments)}</section>
      <section aria-labelledby="nights"><h2 id="nights">Nightly runs</h2>
        <details @toggle=${(event) => (event.target.open ? nightly.start() : nightly.stop())}>
          <summary>Night by file</summary>${lists.nights(known.nights)}
          ${known.nightsAfter ? html`<p class="pages"><button type="button" @click=${() => attempt(() => lookAtNights(known.nightsAfter))}>Look further back</button></p>` : nothing}</details></section>
    </main>${dialog()}`;
}

const capped = (job) => known.budgets.some(({ tenant }) => tenant === job?.tenant);

function trouble() {
  return page.trouble ? html`<p class="trouble" role="alert">${text(page.trouble, 500)}</p>` : nothing;
}

function header() {
  return html`<header><h1>Batch jobs</h1>
    <span class="muted" data-live>${page.trouble ? "not up to date" : known.jobs ? "up to date" : "connecting…"}</span>
    <button type="button" @click=${leave}>Use another key</button></header>`;
}

function keyForm() {
  return html`<main id="main" class="enter"><h1>Batch jobs</h1>
    <form @submit=${enter}><label for="key">Function key</label>
      <input id="key" name="key" type="password" autocomplete="off" required aria-describedby="hint">
      <p id="hint" class="muted">A named key of the host, not the master key. It stays in this tab.</p>
      ${page.told ? html`<p class="bad-text" role="alert">${page.told}</p>` : nothing}
      <p role="alert">The service asks for a key that it knows.</p>
      <button type="submit">Show the jobs</button></form></main>`;
}

function pages() {
  const { listed, after } = known;
  if (!listed || !(after.length || listed.has_more)) return nothing;
  return html`<p class="pages">
    ${after.length ? html`<button type="button" @click=${() => turn(after.slice(0, -1))}>Newer</button>` : nothing}
    ${listed.has_more ? html`<button type="button" @click=${() => turn([...after, listed.last_id])}>Older</button>` : nothing}</p>`;
}

function dialog() {
  const { action, job } = page.asked ?? {};
  const [label, words] = action ? question(action) : ["", ""];
  return html`<dialog id="confirm" aria-labelledby="sure">
    <h2 id="sure">${label} ${job ? text(nameOf(job), 80) : nothing}?</h2><p>${words}</p>
    <p class="actions"><button type="button" class="main" @click=${confirmed}>${label}</button>
      <button type="button" @click=${() => document.getElementById("confirm").close()}>Leave it</button></p></dialog>`;
}

const root = document.getElementById("app");
root.replaceChildren();

function draw() {
  try {
    render(view(), root);
  } catch (error) {
    page.trouble = fault(error);
    render(html`${header()}<main id="main" tabindex="-1">${trouble()}</main>`, root);
  }
}

takeKey();
addEventListener("hashchange", () => { takeKey(); choose(); });
draw();
overview.start();
monthly.start();
choose();
