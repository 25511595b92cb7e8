"use strict";
// Everything that a model or a caller wrote is set as text, never as markup.
const $ = (id) => document.getElementById(id);
const VIEWS = {
  requests: { every: 2000, refresh: () => requests() },
  costs: { every: 30000, refresh: () => costs() },
  ...LEARN,
};
const OPENED = 1; // calls of a run whose contents are shown unasked
let key = sessionStorage.getItem("kaizen-key") || "";
let tab = "requests";
let open = "";
let listed = "";
let asked = 0;

// A link may bring the key in its fragment, which no server sees; it does not stay in the address.
function take() {
  const brought = new URLSearchParams(location.hash.slice(1)).get("key");
  if (!brought) return;
  key = brought;
  sessionStorage.setItem("kaizen-key", key);
  history.replaceState(null, "", location.pathname);
}

function element(name, text, ...classes) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = text;
  made.classList.add(...classes.filter(Boolean));
  return made;
}

const dollars = (usd) => {
  if (usd === null || usd === undefined) return "?";
  if (usd === 0) return "$0";
  return "$" + (usd >= 1 ? usd.toFixed(2) : usd.toFixed(12).match(/^0\.0*\d{1,3}/)[0].replace(/0+$/, ""));
};
const duration = (ms) => (ms >= 10000 ? (ms / 1000).toFixed(1) + " s" : ms >= 10 ? ms.toFixed(0) + " ms" : ms.toPrecision(2) + " ms");
const tokens = (record) => (record.tokens_estimated ? "~" : "") + record.tokens_in + "+" + record.tokens_out;
const tier = (record) => (record.cache_tier !== "model" ? record.cache_tier + " cache" : record.status === "ok" && record.model_calls ? "model" : "");

// What was not said is not shown.
const said = (_, value) => (value === null || (Array.isArray(value) && !value.length) ? undefined : value);

function say(text, bad) {
  $("state").textContent = text;
  $("state").classList.toggle("bad", Boolean(bad));
}

async function get(path, method = "GET", body) {
  const headers = { authorization: "Bearer " + key, ...(body === undefined ? {} : { "content-type": "application/json" }) };
  const sent = body === undefined ? undefined : JSON.stringify(body);
  const answer = await fetch(path, { method, headers, body: sent, cache: "no-store" }).catch(() => {
    throw new Error("the gateway does not answer");
  });
  const found = await answer.json().catch(() => ({}));
  if (answer.ok) return found;
  const said = found.error && found.error.message ? found.error.message : "answered " + answer.status;
  if (answer.status === 401 || (answer.status === 403 && method === "GET")) {
    key = listed = "";
    sessionStorage.removeItem("kaizen-key");
    show();
  }
  throw new Error(said);
}

function callRow(record) {
  const row = element("tr", null, record.run_id === open && "open");
  row.tabIndex = 0;
  row.dataset.run = record.run_id;
  const at = new Date(record.started_at * 1000);
  const cells = [
    [at.toDateString() === new Date().toDateString() ? at.toLocaleTimeString() : at.toLocaleString()],
    [record.kind === "model" ? record.task || "call" : record.ref],
    [record.model || (record.kind === "model" ? record.ref : "")],
    [record.error_code || record.status, record.status === "ok" ? "" : "error"],
    [tier(record)],
    [duration(record.latency_ms), "n"],
    [record.model_calls ? tokens(record) : "", "n"],
    [record.model_calls ? dollars(record.cost_usd) : "", "n"],
    [record.saved_usd ? dollars(record.saved_usd) : "", "n"],
    [record.principal.length > 16 ? record.principal.slice(0, 13) + "…" : record.principal],
  ];
  for (const [text, style] of cells) {
    const cell = element("td", text, style);
    if (text && text.length > 20) cell.title = text; // it may be cut
    row.append(cell);
  }
  return row;
}

async function requests() {
  const found = await get("api/v1/records?limit=50");
  say(found.records.length ? "live" : "nothing was asked yet");
  const now = open + JSON.stringify(found.records);
  if (now === listed) return; // who reads or walks the table is not disturbed
  listed = now;
  const focused = document.activeElement?.dataset?.run;
  $("calls").replaceChildren(...found.records.map(callRow));
  if (focused) document.querySelector(`#calls tr[data-run="${CSS.escape(focused)}"]`)?.focus();
}

async function fill(details, id) {
  if (details.dataset.filled) return;
  details.dataset.filled = "yes";
  try {
    const found = await get("api/v1/contents?id=" + encodeURIComponent(id));
    const kept = ["input", "output"].filter((name) => found[name] !== null);
    const parts = kept.flatMap((name) => [
      element("h3", name),
      element("pre", typeof found[name] === "string" ? found[name] : JSON.stringify(found[name], said, 2)),
    ]);
    details.append(...(parts.length ? parts : [element("p", "not kept, or erased", "dim")]));
  } catch (error) {
    delete details.dataset.filled;
    say(error.message, true);
  }
}

function callNode(call, begin, whole) {
  const made = element("div", null, "node");
  const [title, rest] = [element("div"), element("div")];
  // the bar between them has one scale for all
  for (const part of [title, rest]) part.style.marginLeft = Math.min(call.depth, 20) * 1.2 + "rem";
  const facts = [duration(call.latency_ms), call.model_calls ? tokens(call) + " tokens" : "", call.model_calls ? dollars(call.cost_usd) : "", call.saved_usd ? "saved " + dollars(call.saved_usd) : "", tier(call)];
  title.append(element("strong", call.ref), " ", element("span", call.error_code || call.status, call.status !== "ok" && "error"), " ", element("span", facts.filter(Boolean).join(", "), "dim"));
  const span = element("div", null, "span");
  const bar = element("i");
  const left = Math.min(100, Math.max(0, ((call.started_at * 1000 - begin) / whole) * 100));
  bar.style.left = left + "%";
  bar.style.width = Math.min(100 - left, (call.latency_ms / whole) * 100) + "%";
  span.append(bar);
  made.append(title, span, rest);
  if (call.error) rest.append(element("div", call.error, "error"));
  for (const stage of call.stages) {
    const saved = stage.saved_usd ? ", saved " + dollars(stage.saved_usd) : "";
    rest.append(element("div", stage.layer + ": " + duration(stage.ms) + saved + " " + JSON.stringify(stage.note), "dim"));
  }
  if (call.input_digest || call.output_digest) {
    const details = element("details");
    details.append(element("summary", "contents"));
    details.addEventListener("toggle", () => details.open && fill(details, call.id));
    rest.append(details);
  }
  return made;
}

async function trace(run) {
  try {
    open = run;
    for (const row of $("calls").children) row.classList.toggle("open", row.dataset.run === run);
    const found = await get("api/v1/runs?id=" + encodeURIComponent(run));
    const begin = found.calls.reduce((least, call) => Math.min(least, call.started_at * 1000), Infinity);
    const end = found.calls.reduce((most, call) => Math.max(most, call.started_at * 1000 + call.latency_ms), begin);
    const head = element("h2", "Run ");
    head.append(element("code", run));
    $("trace").replaceChildren(head, ...found.calls.map((call) => callNode(call, begin, Math.max(1, end - begin))));
    if (found.more) $("trace").append(element("p", "There are more calls; `kaizen runs show` has all.", "dim"));
    for (const details of [...document.querySelectorAll("#trace details")].slice(0, OPENED)) details.open = true;
    $("trace").hidden = false;
    $("trace").scrollIntoView({ block: "nearest" });
  } catch (error) {
    say(error.message, true);
  }
}

async function costs() {
  const found = await get("api/v1/costs?by=" + $("by").value + "&seconds=" + $("since").value);
  const most = found.costs.reduce((most, cost) => Math.max(most, cost.cost_usd, cost.saved_usd), 1e-12);
  $("sums").replaceChildren(
    ...found.costs.map((cost) => {
      const row = element("tr");
      const counts = [cost.calls, cost.kept, cost.tokens_in, cost.tokens_out].map((count) => count.toLocaleString("en"));
      const money = [dollars(cost.unpriced === cost.calls ? null : cost.cost_usd) + (cost.unpriced && cost.unpriced < cost.calls ? " + ?" : ""), dollars(cost.saved_usd)];
      row.append(element("td", cost.group), ...[...counts, ...money].map((text) => element("td", text, "n")));
      const bars = element("td", null, "bars");
      for (const [name, usd] of [["cost", cost.cost_usd], ["saved", cost.saved_usd]]) {
        const bar = element("div", null, "bar", name);
        bar.title = name + " " + dollars(usd);
        bar.style.width = (Math.max(0, usd) / most) * 100 + "%";
        bars.append(bar);
      }
      row.append(bars);
      return row;
    }),
  );
  say(found.costs.length ? "" : "nothing was asked in that time");
}

async function refresh() {
  if (!key || document.hidden) return;
  asked = Date.now();
  try {
    await VIEWS[tab].refresh();
  } catch (error) {
    say(error.message, true);
  }
}

function show() {
  $("door").hidden = Boolean(key);
  $("tabs").hidden = !key;
  for (const name of Object.keys(VIEWS)) $(name).hidden = !key || name !== tab;
  for (const button of $("tabs").children) {
    if (button.dataset.tab === tab) button.setAttribute("aria-current", "page");
    else button.removeAttribute("aria-current");
  }
  if (!key) {
    for (const id of ["calls", "sums", "trace"]) $(id).replaceChildren();
    forget();
    $("key").focus();
  }
}

function enter() {
  open = listed = "";
  forget();
  $("trace").hidden = true;
  say("");
  show();
  refresh();
  offered();
}

$("tabs").addEventListener("click", (event) => {
  if (!event.target.dataset.tab) return;
  tab = event.target.dataset.tab;
  say("");
  show();
  refresh();
});
$("calls").addEventListener("click", (event) => trace(event.target.closest("tr").dataset.run));
$("calls").addEventListener("keydown", (event) => event.key === "Enter" && trace(event.target.closest("tr").dataset.run));
$("door").addEventListener("submit", (event) => {
  event.preventDefault();
  key = $("key").value.trim();
  $("key").value = "";
  sessionStorage.setItem("kaizen-key", key);
  enter();
});
for (const id of ["by", "since"]) $(id).addEventListener("change", refresh);
window.addEventListener("hashchange", () => {
  take();
  enter();
});
document.addEventListener("visibilitychange", refresh);
take();
enter();
setInterval(() => Date.now() - asked >= VIEWS[tab].every && refresh(), 500);
