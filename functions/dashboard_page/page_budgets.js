import { ask, encoded, shared } from "./api.js";
import { budgetTable, scopeLink } from "./page_overview.js";
import { h, label, replace, uniqueId } from "./dom.js";
import { count, money, monthText, percent, time } from "./format.js";
import { confirmed, emptyState, errorState, loadingState, panel, say } from "./parts.js";
import { table } from "./tables.js";

const THRESHOLDS = ["warn", "degrade", "stop"];
const MOVED = "Somebody changed this budget meanwhile. Refresh the page to see their change, then decide again.";
const MEANS = { warn: "a notice is sent", degrade: "cheaper models serve", stop: "calls are refused" };

export const budgets = {
  title: () => "Budgets",
  lead: (context) => (context.me.admin ? "Limits in force. Choose one to change it; every change says who, when and why." : "Limits in force for what you may see."),
  draw(context) {
    return [
      panel("Limits", { what: "limits", load: () => context.get("/budgets"), draw: (found) => limits(context, found), signal: context.signal }),
      panel("Where each counter stands", { what: "counters", load: () => context.get("/spend"), draw: (found) => budgetTable(context, found.budgets), signal: context.signal }),
    ];
  },
};

function limits(context, found) {
  if (found.budgets.length === 0) return emptyState("No budgets", "The configuration holds none that concerns you.");
  const columns = [
    { title: "Budget", of: (row) => row.id, show: (row) => h("a", { href: context.link(["budgets", row.id]) }, label(row.id)) },
    { title: "On", of: (row) => row.scope, show: (row) => scopeLink(context, row.scope) },
    { title: "Per", of: (row) => row.period },
    { title: "Limit", of: (row) => row.limit, kind: "money" },
    { title: "Currency", of: (row) => row.currency },
    ...THRESHOLDS.map((name) => ({ title: name[0].toUpperCase() + name.slice(1), of: (row) => row[name], kind: "number", show: (row) => percent(Number(row[name]), 0) })),
    { title: "From", of: (row) => row.origin, show: (row) => (row.origin === "edit" ? "changed here" : "files") },
  ];
  return table("Budgets in force", columns, found.budgets);
}

export const budgetDetail = {
  title: (_, id) => `Budget ${id}`,
  crumb: (context) => h("a", { href: context.link(["budgets"]) }, "All budgets"),
  draw(context, id) {
    const found = shared(async () => {
      const { budgets: all, dashboard_edits: edits } = await context.get("/budgets");
      return { budget: all.find((each) => each.id === id), keeps: edits === "keep" };
    });
    const history = panel("History", { what: "history", load: () => changesOf(context, id, found), draw: (changes) => (changes === null ? hiddenHistory() : historyTable(changes)), signal: context.signal });
    const state = panel("In force", { what: "the budget", load: found, draw: ({ budget }) => (budget ? facts(context, budget) : unknown()), signal: context.signal });
    if (!context.me.admin) return [state, history];
    const form = panel("Change it", { what: "the form", load: found, draw: ({ budget, keeps }) => (budget ? changeForm(context, budget, keeps) : unknown()), signal: context.signal });
    return [state, form, history];
  },
};

// Who changed a budget that many teams share, and why, is not for a reader of one of them.
async function changesOf(context, id, found) {
  if (!(await found()).budget) return [];
  try {
    return (await context.get(`/budgets/${encoded(id)}/history`)).changes;
  } catch (error) {
    if (error.code === "scope_not_allowed") return null;
    throw error;
  }
}

function hiddenHistory() {
  return emptyState("Not shown to you", "This budget covers more than your teams, so its history is for those who see all it covers.");
}

function unknown() {
  return emptyState("No such budget", "It is not in the configuration in force, or it is not yours to see.");
}

function facts(context, budget) {
  const rows = [
    ["Applies to", scopeLink(context, budget.scope)],
    ["Tenant", budget.tenant ? label(budget.tenant) : "every tenant"],
    ["Period", `${budget.period}, by the calendar of ${budget.timezone}`],
    ["Limit", [money(budget.limit), ` ${budget.currency}`]],
    ["Thresholds", THRESHOLDS.map((name) => `${name} at ${percent(Number(budget[name]), 0)}: ${MEANS[name]}`).join("; ")],
    ["Downgrades", budget.downgrade.length ? budget.downgrade.map((rule) => h("p", {}, label([rule.from].flat().join(", ")), " \u2192 ", label(rule.to))) : "none"],
    ["From", budget.edit?.in_force ? ["changed here by ", label(budget.edit.who), ", ", time(budget.edit.at), ": ", label(budget.edit.why)] : "the configuration's files"],
  ];
  return h("dl", { class: "facts" }, rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

function field(name, title, value, hint) {
  const id = uniqueId(name);
  const input = h("input", { type: "text", id, name, value, autocomplete: "off", inputmode: name === "why" ? null : "decimal", "aria-describedby": `${id}-hint`, required: true });
  const problem = h("p", { class: "field-error", id: `${id}-problem` });
  const element = h("div", { class: "field" }, h("label", { for: id }, title), input, h("p", { class: "hint", id: `${id}-hint` }, hint), problem);
  return { name, input, problem, element };
}

function changeForm(context, budget, keeps) {
  const fields = [
    field("limit", `Limit, ${budget.currency}`, budget.limit, "per period"),
    ...THRESHOLDS.map((name) => field(name, `${name[0].toUpperCase()}${name.slice(1)}, %`, String(Math.round(Number(budget[name]) * 10000) / 100), MEANS[name])),
    field("why", "Why", "", "kept with your name in the history"),
  ];
  const [limit, warn, degrade, stop, why] = fields;
  const message = h("div");
  const preview = h("div", { "aria-live": "polite" });
  const save = h("button", { type: "submit", class: "button primary", disabled: true }, "Save");
  const look = h("button", { type: "button", class: "button", on: { click: simulate } }, "Preview");
  const months = h("select", {}, recentMonths().map((period, at) => h("option", { value: period }, at === 0 ? `${monthText(period)}, so far` : monthText(period))));
  let seen = null;

  function values(asked = fields) {
    let good = true;
    for (const each of asked) {
      const wrong = problemOf(each);
      good &&= !wrong;
      replace(each.problem, wrong);
      if (wrong) {
        each.input.setAttribute("aria-invalid", "true");
        each.input.setAttribute("aria-describedby", `${each.input.id}-hint ${each.problem.id}`);
      } else each.input.removeAttribute("aria-invalid");
    }
    if (!good) {
      fields.find((each) => each.problem.textContent).input.focus();
      return null;
    }
    const part = (each) => fraction(each.input.value.trim());
    return { limit: limit.input.value.trim(), warn: part(warn), degrade: part(degrade), stop: part(stop) };
  }

  // A preview shows what one is about to save, and no older one.
  function stale() {
    if (seen === null) return;
    seen = null;
    save.disabled = true;
    replace(preview);
  }

  async function simulate() {
    const wanted = values(fields.filter((each) => each !== why));
    if (wanted === null) return;
    replace(preview, loadingState("what would have happened"));
    look.disabled = true;
    const period = months.value;
    try {
      const body = { tenant: context.tenant.id, period, budget: { id: budget.id, ...wanted } };
      const answer = await ask("/budgets/simulate", { method: "POST", body, signal: context.signal });
      seen = JSON.stringify(wanted);
      save.disabled = false;
      replace(preview, simulated(answer, period));
    } catch (error) {
      if (error.name !== "AbortError") replace(preview, errorState(error, simulate));
    } finally {
      look.disabled = false;
    }
  }

  async function submit(event) {
    event.preventDefault();
    const wanted = values();
    if (wanted === null) return;
    if (JSON.stringify(wanted) !== seen) return simulate();
    save.disabled = true;
    try {
      await ask(`/budgets/${encoded(budget.id)}`, { method: "PUT", query: { tenant: context.tenant.id }, body: { ...wanted, why: why.input.value.trim(), version: budget.version } });
      say(message, "Saved. It is in force everywhere within 30 seconds.", "good");
      setTimeout(() => context.signal.aborted || context.again(), 1500);
    } catch (error) {
      save.disabled = false;
      say(message, error.status === 409 ? MOVED : error.message, "problem");
    }
  }

  async function revert() {
    if (values([why]) === null) return;
    const question = `The limit becomes ${budget.git.limit} ${budget.currency} again, as the files say.`;
    if (!(await confirmed("Take the change back?", question, "Take back"))) return;
    try {
      await ask(`/budgets/${encoded(budget.id)}`, { method: "DELETE", query: { tenant: context.tenant.id, version: budget.version, why: why.input.value.trim() } });
      say(message, "Taken back. The files' values are in force everywhere within 30 seconds.", "good");
      setTimeout(() => context.signal.aborted || context.again(), 1500);
    } catch (error) {
      say(message, error.status === 409 ? MOVED : error.message, "problem");
    }
  }

  const back = budget.origin === "edit" ? h("button", { type: "button", class: "button", on: { click: revert } }, "Back to the files") : null;
  const note = keeps ? "The change stays when the configuration is published again." : "Publishing the configuration's files again discards changes made here, and says so.";
  const form = h(
    "form",
    { on: { submit, input: (event) => event.target !== why.input && stale() }, novalidate: true },
    h("p", { class: "muted small" }, note),
    h("div", { class: "fields" }, fields.slice(0, 4).map((each) => each.element)),
    why.element,
    preview,
    message,
    h("div", { class: "actions" }, h("label", { class: "field-inline" }, "Replay", months), look, save, back, h("span", { class: "muted small" }, "Saving needs a preview of the same values.")),
  );
  return form;
}

function recentMonths(now = new Date()) {
  return [0, 1, 2].map((back) => new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() - back, 1)).toISOString().slice(0, 7));
}

function problemOf({ name, input }) {
  const text = input.value.trim();
  if (name === "why") return text ? null : "Say why, for whoever reads the history.";
  if (!/^\d{1,12}(\.\d{1,9})?$/.test(text)) return "A number such as 250 or 80.5, with a point.";
  if (name === "limit") return null;
  return Number(text) > 0 && Number(text) <= 1000 ? null : "A percentage of the limit, above 0.";
}

// 82.5 % as the fraction 0.825, without a floating-point number in between.
export function fraction(percentText) {
  const [whole, digits = ""] = percentText.split(".");
  const padded = whole.padStart(3, "0");
  const text = `${padded.slice(0, -2)}.${padded.slice(-2)}${digits}`.replace(/0+$/, "").replace(/\.$/, "");
  return text.replace(/^0+(?=\d)/, "");
}

// The same calls under both budgets, side by side.
function simulated(answer, period) {
  const results = [["In force", answer.in_force], ["With the change", answer.changed]].filter(([, result]) => result);
  const rows = results.map(([name, result]) => ({ name, ...result }));
  const columns = [
    { title: "Budget", of: (row) => row.name, fixed: true },
    { title: "Calls", of: (row) => row.calls, kind: "number", show: (row) => count(row.calls), fixed: true },
    { title: "Served for, USD", of: (row) => row.served_cost, kind: "money", fixed: true },
    { title: "Downgraded", of: (row) => row.downgraded.calls, kind: "number", show: (row) => count(row.downgraded.calls), fixed: true },
    { title: "Saved, USD", of: (row) => row.downgraded.saved, kind: "money", fixed: true },
    { title: "Refused", of: (row) => row.refused.calls, kind: "number", show: (row) => count(row.refused.calls), fixed: true },
    { title: "Refused, USD", of: (row) => row.refused.cost, kind: "money", fixed: true },
    { title: "Thresholds crossed", of: (row) => row.crossed.length, kind: "number", show: (row) => count(row.crossed.length), fixed: true },
  ];
  const hit = answer.changed.scopes?.filter((scope) => scope.refused_calls || scope.downgraded_calls) ?? [];
  return h(
    "div",
    { class: "preview" },
    h("h3", {}, `The calls of ${monthText(period)}, replayed`),
    table(`The calls of ${monthText(period)} under the budget in force and the changed one`, columns, rows),
    hit.length ? affected(hit) : h("p", { class: "muted small" }, "Nobody would have been downgraded or refused."),
    h("p", { class: "muted small" }, [answer.resolution, ...answer.notes].map(sentence).join(" ")),
  );
}

function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}${text.endsWith(".") ? "" : "."}`;
}

function affected(scopes) {
  const columns = [
    { title: "Whose calls", of: (row) => row.scope, show: (row) => label(row.scope) },
    { title: "Downgraded", of: (row) => row.downgraded_calls, kind: "number", show: (row) => count(row.downgraded_calls) },
    { title: "Refused", of: (row) => row.refused_calls, kind: "number", show: (row) => count(row.refused_calls) },
    { title: "Refused, USD", of: (row) => row.refused_cost, kind: "money" },
  ];
  return table("Whose calls the change would have met", columns, scopes, { sort: 2, descending: true, hideCaption: false });
}

function historyTable(changes) {
  if (changes.length === 0) return emptyState("Never changed here", "Only the configuration's files have set this budget.");
  const shown = (values) => (values ? `${values.limit}; ${THRESHOLDS.map((name) => percent(Number(values[name]), 0)).join(" / ")}` : "as in the files");
  const columns = [
    { title: "When", of: (row) => row.at, show: (row) => time(row.at, true) },
    { title: "Who", of: (row) => row.who, show: (row) => label(row.who) },
    { title: "Why", of: (row) => row.why ?? "", show: (row) => label(row.why) },
    { title: "What", of: (row) => row.kind, show: (row) => ({ edit: "changed", revert: "back to the files", publish: "files published" })[row.kind] ?? row.kind },
    { title: "Before", of: (row) => JSON.stringify(row.before), show: (row) => shown(row.before) },
    { title: "After", of: (row) => JSON.stringify(row.after), show: (row) => shown(row.after) },
  ];
  return table("Changes of this budget, newest first", columns, changes);
}

