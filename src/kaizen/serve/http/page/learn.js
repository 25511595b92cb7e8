"use strict";
// The views of what learns. page.js shows them; its functions are there once one of these is called.
const seen = {};
const picked = { versions: "", evaluations: "", searches: "", program: "" };

// Whether there is something new to draw: who reads, selects or types is not disturbed otherwise.
function fresh(name, data) {
  const now = JSON.stringify(data);
  if (seen[name] === now) return false;
  seen[name] = now;
  return true;
}

function table(id, head, rows) {
  const made = element("table");
  const top = element("tr");
  for (const [text, style] of head) top.append(element("th", text, style));
  const [above, below] = [element("thead"), element("tbody")];
  above.append(top);
  for (const cells of rows) {
    const row = element("tr", null);
    for (const cell of cells) {
      if (cell instanceof Node) {
        const held = element("td");
        held.append(cell);
        row.append(held);
      } else row.append(Array.isArray(cell) ? element("td", cell[0], cell[1]) : element("td", cell));
    }
    below.append(row);
  }
  made.append(above, below);
  const scroll = element("div", null, "scroll");
  scroll.append(made);
  if (id) made.id = id;
  return scroll;
}

function button(text, work, style) {
  const made = element("button", text, style);
  made.type = "button";
  made.addEventListener("click", async () => {
    made.disabled = true;
    try {
      await work();
    } catch (error) {
      say(error.message, true);
    } finally {
      made.disabled = false;
    }
  });
  return made;
}

function field(label, control) {
  const made = element("label", label + " ");
  made.append(control);
  return made;
}

function choice(values, value) {
  const made = element("select");
  for (const one of values) {
    const option = element("option", one);
    option.selected = one === value;
    made.append(option);
  }
  return made;
}

const moment = (at) => (at ? new Date(at * 1000).toLocaleString() : "");
const score = (value) => (value === null || value === undefined ? "?" : value.toFixed(3));
const shown = (value) => (typeof value === "string" ? value : value === null || value === undefined ? "not stated" : JSON.stringify(value, null, 1));
const within = (one) => (one.low === null || one.low === undefined ? score(one.score) : score(one.score) + " (" + score(one.low) + " to " + score(one.high) + ")");
const armsText = (arms) => arms.map((arm) => (arms.length > 1 ? Math.round(arm.weight * 100) + " % " : "") + (arm.number === 0 ? "base" : arm.number ?? arm.version.slice(0, 12))).join(" + ");
const path = (...parts) => parts.map(encodeURIComponent).join("/");

// -- versions ---

async function versions() {
  const { names } = await get("api/v1/registry");
  const own = names.filter((one) => !["evaluation", "candidate", "experiment", "loop", "agreement"].includes(one.kind)).sort((one, other) => (other.kind === "params") - (one.kind === "params"));
  say(own.length ? "" : "nothing has versions yet: every program runs the params in its code");
  if (fresh("versions", own)) {
    const rows = own.map((one) => [
      button(one.name, () => openVersions(one.kind, one.name), "link"),
      one.kind,
      [String(one.versions), "n"],
      Object.entries(one.labels).map(([label, arms]) => label + ": " + armsText(arms)).join(", "),
      one.latest ? one.latest.author : "",
      one.latest ? moment(one.latest.at) : "",
    ]);
    $("names").replaceChildren(table("named", [["name"], ["kind"], ["versions", "n"], ["labels"], ["latest by"], ["at"]], rows));
    if (picked.versions) await openVersions(...picked.versions);
  }
}

async function openVersions(kind, name) {
  picked.versions = [kind, name];
  const found = await get("api/v1/registry/" + encodeURIComponent(kind) + "/" + name.split("/").map(encodeURIComponent).join("/"));
  const query = "kind=" + encodeURIComponent(kind) + "&name=" + encodeURIComponent(name);
  const { moves } = await get("api/v1/registry/history?" + query);
  const numbers = found.versions.map((one) => String(one.number));
  const known = [...(kind === "params" ? ["base"] : []), ...Object.keys(found.labels), ...numbers];
  const last = numbers[numbers.length - 1];
  const [old, now] = [choice(known, found.labels.prod ? "prod" : known[0]), choice(known, last)];
  old.id = "old";
  now.id = "new";
  const apart = element("div");
  apart.id = "apart";
  const compare = async () => apart.replaceChildren(...differences(await get("api/v1/registry/diff?" + query + "&old=" + encodeURIComponent(old.value) + "&new=" + encodeURIComponent(now.value))));
  for (const one of [old, now]) one.addEventListener("change", () => compare().catch((error) => say(error.message, true)));
  const why = element("input");
  why.id = "why";
  why.placeholder = "why";
  why.maxLength = 2000;
  const moved = async (what, body) => {
    const made = await get("api/v1/registry/" + what, "POST", { kind, name, label: "prod", reason: why.value, ...body });
    await versions();
    say("prod shows " + armsText(made.arms));
  };
  const bar = element("div", null, "choice");
  bar.append(field("from", old), field("to", now), field("reason", why));
  bar.append(button("Release “to” as prod", () => moved("label", { arms: [{ version: now.value }] })), button("Roll prod back", () => moved("rollback", {})));
  const rows = found.versions.map((one) => [String(one.number), one.version.slice(0, 12), one.labels.join(", "), one.author, moment(one.at), one.reason]);
  const history = moves.map((one) => [moment(one.at), one.label, armsText(one.arms), one.actor, (one.undoes ? "(rollback) " : "") + one.reason]);
  $("version").replaceChildren(
    element("h2", name),
    table("kept", [["version"], ["address"], ["labels"], ["by"], ["at"], ["reason"]], rows.reverse()),
    bar,
    apart,
    element("h3", "how its labels moved"),
    table("moves", [["at"], ["label"], ["shows"], ["by"], ["reason"]], history.reverse()),
  );
  $("version").hidden = false;
  await compare();
}

function differences(diff) {
  const parts = Object.entries(diff.changes).flatMap(([name, change]) => {
    const body = element("div", null, "change");
    if (change.words) {
      for (const [op, text] of change.words) body.append(element(op === "-" ? "del" : op === "+" ? "ins" : "span", text));
    } else if (change.added) {
      for (const one of change.removed) body.append(element("del", JSON.stringify(one)), element("br"));
      for (const one of change.added) body.append(element("ins", JSON.stringify(one)), element("br"));
      if (change.moved) body.append(element("p", "those that both have stand in another order", "dim"));
    } else body.append(element("del", shown(change.old)), " ", element("ins", shown(change.new)));
    return [element("h3", name), body];
  });
  const scores = diff.scores.map((one) => [one.metric, [one.old ? within(one.old) : "?", "n"], [one.new ? within(one.new) : "?", "n"]]);
  if (!parts.length) parts.push(element("p", "no difference", "dim"));
  if (scores.length) parts.push(element("h3", "scores"), table("", [["metric"], [diff.old, "n"], [diff.new, "n"]], scores));
  return parts;
}

// -- evaluations ---

async function evaluations() {
  const found = (await get("api/v1/evaluations?limit=100")).evaluations;
  say(found.length ? "" : "nothing was evaluated yet");
  if (!fresh("evaluations", found)) return;
  const rows = found.map((one) => [
    button(one.program + " #" + one.number, () => openEvaluation(one), "link"),
    one.of.map((ref) => ref.split("@").pop().slice(0, 12)).join(", ") || "base",
    one.metric,
    interval(one),
    [within(one), "n"],
    [String(one.n), "n"],
    [String(one.calls), "n"],
    [dollars(one.cost_usd), "n"],
    moment(one.at),
  ]);
  $("reports").replaceChildren(table("evaluated", [["report"], ["version"], ["metric"], ["0 … 1"], ["score (95 %)", "n"], ["rows", "n"], ["calls", "n"], ["cost", "n"], ["at"]], rows));
}

function interval(one) {
  const made = element("div", null, "interval");
  const [range, dot] = [element("i"), element("b")];
  const place = (value) => Math.min(1, Math.max(0, value || 0)) * 100 + "%";
  range.style.left = place(one.low);
  range.style.width = Math.max(0, Math.min(1, one.high || 0) - Math.max(0, one.low || 0)) * 100 + "%";
  dot.style.left = place(one.score);
  made.append(range, dot);
  made.title = within(one);
  return made;
}

async function openEvaluation(one) {
  const found = await get("api/v1/evaluations/" + path(one.program, String(one.number)));
  const facts = Object.entries(found.figures).map(([name, value]) => name + " " + Number(Number(value).toPrecision(4)));
  const worst = found.rows.filter((row) => row.score === null || row.score < 1).slice(0, 50);
  const parts = [element("h2", found.program + " #" + one.number + ": " + found.metric + " " + within(found)), element("p", facts.join(", "), "dim")];
  for (const said of found.broken || []) parts.push(element("p", "does not hold: " + said, "error"));
  parts.push(element("h3", worst.length ? "rows that are not all right" : "every row is right"));
  for (const row of worst) {
    const details = element("details");
    details.append(element("summary", "score " + score(row.score) + (row.error ? ", " + row.error : "") + ", row " + row.row.slice(0, 12)));
    if (row.record) details.addEventListener("toggle", () => details.open && fill(details, row.record));
    parts.push(details);
  }
  $("report").replaceChildren(...parts);
  $("report").hidden = false;
}

// -- searches ---

async function searches() {
  const { jobs } = await get("api/v1/jobs?kind=optimization");
  say(jobs.length ? "" : "no search was begun here yet: POST /api/v1/optimizations begins one");
  if (!picked.searches && jobs.length) picked.searches = jobs[0].id;
  if (fresh("jobs", jobs.map((one) => [one.id, one.state]))) {
    const rows = jobs.map((one) => [button(one.program, () => ((picked.searches = one.id), delete seen.job, searches()), "link"), one.state, moment(one.begun), one.by]);
    $("jobs").replaceChildren(table("searched", [["program"], ["state"], ["begun"], ["by"]], rows));
  }
  if (!picked.searches) return;
  const job = await get("api/v1/jobs/" + path(picked.searches));
  if (!fresh("job", [job.id, job.state, job.events.length && job.events[job.events.length - 1].n])) return;
  const steps = job.events.filter((event) => event.used !== undefined);
  const last = steps[steps.length - 1];
  const head = element("h2", job.program + ": " + job.state);
  const line = element("p", last ? last.used + " of " + (last.limit ?? "?") + " calls, " + last.candidates + " candidates, base " + score(last.base) + ", best " + score(last.best) + (last.how ? " (" + last.how + ")" : "") + "; " + last.what : "begun", "dim");
  const parts = [head, chart(steps), line];
  if (job.state === "running") parts.push(button("Stop", async () => (await get("api/v1/jobs/" + path(job.id), "DELETE"), searches())));
  if (job.error) parts.push(element("p", job.error.message, "error"));
  if (job.result) parts.push(element("p", job.result.improved ? "improved: " + job.result.reason + "; " + score(job.result.before) + " to " + score(job.result.after) + " on " + job.result.n + " rows" : "no improvement: " + job.result.reason));
  if (job.state !== "running") {
    const { candidates } = await get("api/v1/candidates?program=" + encodeURIComponent(job.program) + "&run=" + encodeURIComponent(job.id));
    const rows = candidates.map((one) => [one.front ? "★" : "", [score(one.score), "n"], [String(one.rows), "n"], [one.usd === null ? Math.round(one.tokens) + " tokens" : dollars(one.usd), "n"], one.how]);
    parts.push(element("h3", "what was tried (★ nothing is both better and cheaper)"), table("tried", [["★"], ["score", "n"], ["rows", "n"], ["a row", "n"], ["how"]], rows));
  }
  $("search").replaceChildren(...parts);
  $("search").hidden = false;
}

function chart(steps) {
  const svg = (name, facts) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(facts)) made.setAttribute(key, value);
    return made;
  };
  const [width, height, edge] = [640, 180, 30];
  const known = steps.filter((one) => one.best !== null);
  const most = Math.max(1, ...steps.map((one) => one.limit || one.used));
  const x = (used) => edge + (used / most) * (width - 2 * edge);
  const y = (value) => height - edge - Math.min(1, Math.max(0, value)) * (height - 2 * edge);
  const best = known.length ? known[known.length - 1].best : null;
  const drawn = svg("svg", { viewBox: "0 0 " + width + " " + height, role: "img", id: "best" });
  drawn.setAttribute("aria-label", "best score so far over calls used: " + score(best));
  for (const value of [0, 0.5, 1]) {
    const label = svg("text", { x: edge - 4, y: y(value) + 4, "text-anchor": "end" });
    label.textContent = value;
    drawn.append(svg("line", { x1: edge, x2: width - edge, y1: y(value), y2: y(value), class: "grid" }), label);
  }
  const end = svg("text", { x: width - edge, y: height - 8, "text-anchor": "end" });
  end.textContent = most + " calls";
  drawn.append(end);
  if (known.length && known[0].base !== null) drawn.append(svg("line", { x1: edge, x2: width - edge, y1: y(known[0].base), y2: y(known[0].base), class: "base" }));
  const points = known.flatMap((one, at) => [...(at ? [[x(one.used), y(known[at - 1].best)]] : []), [x(one.used), y(one.best)]]);
  drawn.append(svg("polyline", { points: points.map((point) => point.join(",")).join(" "), class: "best" }));
  return drawn;
}

// -- experiments and loops ---

async function experiments() {
  const [{ experiments: found }, { loops }] = [await get("api/v1/experiments"), await get("api/v1/loops")];
  say(found.length || loops.length ? "" : "there are no experiments and no loops yet");
  if (!fresh("experiments", [found, loops])) return;
  const parts = found.flatMap((one) => {
    const rows = one.arms.map((arm) => [arm.version.slice(0, 12), [Math.round(arm.weight * 100) + " %", "n"], [String(arm.subjects), "n"], [score(arm.score), "n"], [arm.difference === null ? "" : score(arm.difference), "n"], [arm.low === null ? "" : score(arm.low) + " to " + score(arm.high), "n"], [String(arm.calls), "n"], [String(arm.errors), "n"]]);
    const made = [element("h2", one.program + ", experiment " + one.number + ": " + one.state), element("p", one.reason || "decided by " + one.metric + ", label " + one.label, "dim")];
    made.push(table("", [["version"], ["share", "n"], ["subjects", "n"], ["score", "n"], ["difference", "n"], ["95 %, always valid", "n"], ["calls", "n"], ["errors", "n"]], rows));
    if (one.state === "running") made.push(button("Stop it; the control gets the label back", async () => (await get("api/v1/experiments/" + path(one.program, "stop"), "POST", {}), experiments())));
    return made;
  });
  for (const loop of loops) {
    parts.push(element("h2", "loop over " + loop.program + ": " + loop.state));
    parts.push(element("p", (loop.mean === null ? "no scores yet" : score(loop.mean) + " over the last " + loop.scores + " scores") + "; " + loop.proposals + " proposals and " + dollars(loop.usd) + " in 24 hours" + (loop.last ? "; last: " + loop.last.action + ", " + loop.last.said : ""), "dim"));
    if (!loop.waiting) continue;
    const word = (said) => async () => (await get("api/v1/loops/" + path(loop.program, said), "POST", {}), experiments());
    parts.push(element("p", "waits for a person: " + loop.waiting.said), button("Approve", word("approve")), " ", button("Decline", word("decline")));
  }
  $("trials").replaceChildren(...parts);
}

// -- scoring ---

let passed = ""; // up to here all have their scores

async function queue() {
  let found = await get("api/v1/queue?limit=20&after=" + passed);
  while (!found.records.length && found.more) found = await get("api/v1/queue?limit=20&after=" + (passed = found.after));
  say(found.records.length ? found.records.length + (found.more ? " and more wait" : " wait") : "every answer of a week has its score");
  if (!fresh("queue", found.records.length ? found.records[0].id : "")) return; // what is being typed stays
  const [record] = found.records;
  if (!record) return $("answer").replaceChildren();
  const parts = [element("h2", record.ref), element("p", moment(record.started_at) + (record.subject ? ", for " + record.subject : ""), "dim")];
  for (const name of ["input", "output"]) parts.push(element("h3", name), element("pre", record[name] === null ? "not kept, or erased" : typeof record[name] === "string" ? record[name] : JSON.stringify(record[name], said, 2)));
  const [comment, correct] = [element("input"), element("textarea")];
  comment.id = "comment";
  comment.maxLength = 10000;
  correct.id = "correct";
  correct.rows = 3;
  correct.placeholder = JSON.stringify(record.output ?? {});
  const give = (word) => async () => {
    let right;
    if (correct.value.trim()) {
      try {
        right = JSON.parse(correct.value);
      } catch {
        throw new Error("the right outputs should be a JSON object");
      }
    }
    await get("api/v1/records/" + path(record.id) + "/score", "POST", { ...word, comment: comment.value, ...(right ? { correct: right } : {}) });
    delete seen.queue;
    await queue();
    $("answer").querySelector("button")?.focus();
  };
  const marks = element("div", null, "choice");
  marks.append(button("Right", give({ thumbs: "up" })), button("Wrong", give({ thumbs: "down" })));
  for (const stars of [1, 2, 3, 4, 5]) marks.append(button("★".repeat(stars), give({ stars })));
  parts.push(marks, field("in your words", comment));
  if (record.kind === "program") parts.push(field("what should have come out, as JSON", correct));
  $("answer").replaceChildren(...parts);
}

// -- the playground ---

async function playground() {
  const { programs } = await get("api/v1/programs");
  say(programs.length ? "" : "no program is served: kaizen serve --program FILE.py:Name");
  if (!fresh("programs", programs)) return;
  const names = programs.map((one) => one.name);
  const select = choice(names, picked.program);
  select.id = "program";
  const form = element("form");
  form.id = "inputs";
  const show = () => {
    picked.program = select.value;
    inputsOf(form, programs.find((one) => one.name === select.value));
  };
  select.addEventListener("change", show);
  $("ground").replaceChildren(...(names.length ? [field("program", select), form] : []));
  if (names.length) show();
}

function inputsOf(form, program) {
  const read = {};
  const parts = [element("p", program.doc, "dim")];
  for (const [name, schema] of Object.entries(program.inputs.properties ?? {})) {
    const [control, value] = controlOf(schema, (program.inputs.required ?? []).includes(name));
    control.id = "input-" + name;
    control.name = name;
    read[name] = value;
    parts.push(field(name + (schema.description ? ": " + schema.description : ""), control));
  }
  const version = element("input");
  version.id = "version-asked";
  version.placeholder = "what is released";
  version.maxLength = 64;
  const out = element("pre");
  out.id = "outcome";
  out.hidden = true;
  out.setAttribute("role", "status");
  const run = element("button", "Run");
  parts.push(field("version", version), run, out);
  form.replaceChildren(...parts);
  form.onsubmit = async (event) => {
    event.preventDefault();
    run.disabled = true;
    say("asking");
    try {
      const inputs = Object.fromEntries(Object.entries(read).map(([name, value]) => [name, value()]).filter(([, value]) => value !== undefined));
      const query = version.value.trim() ? "?version=" + encodeURIComponent(version.value.trim()) : "";
      const answer = await get("api/v1/programs/" + path(program.name) + query, "POST", inputs);
      out.textContent = JSON.stringify(answer.outputs, null, 2) + "\n\nversion " + (answer.version ?? "base") + ", " + (answer.model ?? "no model") + ", " + duration(answer.latency_ms) + ", " + dollars(answer.cost_usd) + "\nrecord " + answer.record;
      out.hidden = false;
      say("");
    } catch (error) {
      say(error.message, true);
    } finally {
      run.disabled = false;
    }
  };
}

// A control for a field's JSON schema, and what reads its value; undefined leaves the field out.
function controlOf(schema, required) {
  const plain = schema.anyOf ? schema.anyOf.find((one) => one.type && one.type !== "null") ?? schema : schema;
  if (plain.enum) {
    const control = choice(required ? plain.enum.map(String) : ["", ...plain.enum.map(String)], "");
    return [control, () => plain.enum.find((one) => String(one) === control.value)];
  }
  const control = element(plain.type === "string" || !["integer", "number", "boolean"].includes(plain.type) ? "textarea" : "input");
  control.required = required && plain.type !== "boolean";
  if (plain.type === "boolean") {
    control.type = "checkbox";
    return [control, () => control.checked];
  }
  if (plain.type === "integer" || plain.type === "number") {
    control.type = "number";
    control.step = plain.type === "integer" ? 1 : "any";
    return [control, () => (control.value === "" ? undefined : Number(control.value))];
  }
  control.rows = plain.type === "string" ? 3 : 5;
  if (plain.type === "string") return [control, () => (control.value === "" && !required ? undefined : control.value)];
  control.placeholder = "JSON";
  return [control, () => (control.value.trim() === "" ? undefined : JSON.parse(control.value))];
}

const LEARN = {
  versions: { every: 5000, refresh: () => versions(), empty: ["names", "version"] },
  evaluations: { every: 4000, refresh: () => evaluations(), empty: ["reports", "report"] },
  searches: { every: 1000, refresh: () => searches(), empty: ["jobs", "search"] },
  experiments: { every: 5000, refresh: () => experiments(), empty: ["trials"] },
  scoring: { every: 10000, refresh: () => queue(), empty: ["answer"] },
  playground: { every: 60000, refresh: () => playground(), empty: ["ground"] },
};

// Another key may be another tenant's: nothing of the last one stays.
function forget() {
  for (const name of Object.keys(seen)) delete seen[name];
  for (const name of Object.keys(picked)) picked[name] = "";
  for (const view of Object.values(LEARN)) for (const id of view.empty) $(id).replaceChildren();
}

// The playground is for servers that serve programs.
async function offered() {
  if (!key) return;
  const { programs } = await get("api/v1/programs").catch(() => ({ programs: [] }));
  for (const tab of $("tabs").children) if (tab.dataset.tab === "playground") tab.hidden = !programs.length;
}
