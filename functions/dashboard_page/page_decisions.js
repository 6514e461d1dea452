import { announce, h, label, replace } from "./dom.js";
import { counted, dayText, time } from "./format.js";
import { badge, emptyState, errorState, loadingState, plainPanel } from "./parts.js";
import { table } from "./tables.js";

const EVERY_MS = 3000;
const SHOWN = 100;

// What the stable codes mean to somebody who does not know them.
export const REASONS = {
  within_budget: "within its budgets",
  budget_warned: "within its budgets, past the first threshold",
  budget_degraded: "the budget is degraded: a cheaper model serves",
  budget_exhausted: "the budget is spent",
  budget_reserved: "what is left is held by calls in flight",
  observe_only: "the tenant only observes",
  enforcement_off: "enforcement is off",
  state_unavailable: "counters could not be read, and the tenant fails closed",
  state_unavailable_open: "counters could not be read, and the tenant fails open",
  state_unavailable_cached: "counters could not be read; decided on the last ones",
  model_not_allowed: "the model is not allowed",
};

export const decisions = {
  live: true,
  title: () => "Recent decisions",
  lead: () => "What the gate answered, newest first. Allowed calls are a sample; refusals and downgrades are all there.",
  draw(context) {
    const place = h("div", {}, loadingState("decisions"));
    const status = h("p", { class: "muted small" });
    const only = h("input", { type: "checkbox", on: { change: () => drawn() } });
    let paused = false;
    let found = null;
    const button = h("button", { type: "button", class: "button", "aria-pressed": "false", on: { click: toggle } }, "Pause");

    function toggle() {
      paused = !paused;
      button.setAttribute("aria-pressed", String(paused));
      if (!paused) tick();
    }

    function drawn() {
      const rows = found.filter((row) => !only.checked || row.decision !== "allow");
      const nothing = only.checked ? "Nothing was refused or downgraded among the recent decisions." : "They appear here within seconds of a call.";
      replace(place, rows.length ? decisionList(context, rows) : emptyState("No decisions", nothing));
    }

    let finished;
    const section = plainPanel("Newest first", h("div", { class: "actions" }, button, h("label", { class: "field-inline" }, only, "Only refused and downgraded"), status), place);
    section.finished = new Promise((resolve, reject) => {
      finished = { resolve, reject };
    });

    async function tick() {
      if (context.signal.aborted || paused) return;
      try {
        if (!document.hidden || found === null) await load();
      } catch (error) {
        if (error.name === "AbortError") return;
        if (error.status === 401) return finished.reject(error);
        found = null;
        replace(place, errorState(error, tick));
        finished.resolve();
        return;
      }
      finished.resolve();
      setTimeout(tick, EVERY_MS);
    }

    async function load() {
      const { decisions: newest } = await context.get("/decisions", { limit: SHOWN });
      if (context.signal.aborted) return;
      const before = new Set((found ?? []).map(keyOf));
      const fresh = newest.filter((row) => !before.has(keyOf(row)));
      const first = found === null;
      replace(status, "Updated ", time(new Date().toISOString(), true));
      if (!first && fresh.length === 0) return;
      found = newest;
      const focused = place.contains(document.activeElement);
      if (!focused || first) drawn();
      if (!first) announce(counted(fresh.length, "new decision"));
    }

    tick();
    return section;
  },
};

function keyOf(row) {
  return JSON.stringify([row.at, row.decision, row.scopes, row.requested_model, row.estimate]);
}

function decisionList(context, rows) {
  const columns = [
    { title: "Time, UTC", of: (row) => row.at, show: (row) => clock(row.at) },
    { title: "Decision", of: (row) => row.decision, show: (row) => badge(row.decision, DECISION_STATES[row.decision] ?? "") },
    { title: "Why", of: (row) => row.reason, show: why },
    { title: "Budgets are", of: (row) => row.state, show: (row) => (row.state ? badge(row.state) : "\u2013") },
    { title: "For", of: (row) => JSON.stringify(row.scopes), show: (row) => h("div", { class: "room" }, scopeList(context, row.scopes)) },
    { title: "Model", of: (row) => row.model || row.requested_model, show: (row) => h("div", { class: "room small-room" }, modelText(row)) },
    { title: "Estimate, USD", of: (row) => row.estimate, kind: "money", none: "\u2013" },
  ];
  return table("Recent decisions", columns, rows, { limit: SHOWN });
}

const DECISION_STATES = { allow: "active", downgrade: "degraded", refuse: "stopped" };

function clock(at) {
  const utc = new Date(at).toISOString();
  return h("time", { datetime: at, class: "when" }, utc.slice(11, 19), h("span", { class: "sub" }, dayText(utc)));
}

function why(row) {
  const said = REASONS[row.reason] ?? row.reason.replaceAll("_", " ");
  const on = row.budget ? [", ", label(row.budget)] : null;
  const instead = row.observed ? h("span", { class: "sub" }, `enforced it would ${row.observed.decision}`) : null;
  return h("div", { class: "room" }, said, row.decision === "allow" ? null : on, instead);
}

function modelText(row) {
  if (!row.requested_model || row.model === row.requested_model) return label(row.model || row.requested_model);
  if (row.decision === "refuse" || !row.model) return label(row.requested_model);
  return [label(row.requested_model), " \u2192 ", label(row.model)];
}

function scopeList(context, scopes) {
  return Object.entries(scopes ?? {}).flatMap(([type, key], at) => {
    const linked = ["team", "user", "session"].includes(type);
    const name = linked ? h("a", { href: context.link(["by", type, key]) }, label(key)) : label(key);
    return [at ? ", " : null, h("span", { class: "muted" }, `${type} `), name];
  });
}

