import { shared } from "./api.js";
import { asTable, cumulativeBand, dailyBars, legend } from "./charts.js";
import { h, label } from "./dom.js";
import { count, counted, dayText, fromNano, money, moneyText, nano, percent, sumMoney, time } from "./format.js";
import { badge, emptyState, meter, panel, tile, tiles } from "./parts.js";
import { daysOf, spanOf } from "./router.js";
import { table } from "./tables.js";

const SEVERITY = { stopped: 0, degraded: 1, warned: 2, active: 3 };

export const overview = {
  menu: () => "Overview",
  title: () => "Overview",
  lead: (context) => (context.tenant.tenant_wide ? "Spend of the whole tenant. All days are UTC." : `Spend of ${teamsText(context)}. All days are UTC.`),
  draw(context) {
    const month = spanOf("month");
    const total = () => context.get("/usage/summary", { ...month, group_by: "tenant" });
    const days = shared(() => context.get("/usage/summary", { ...month, group_by: "day" }));
    const forecast = shared(() => context.get("/forecast"));
    return [
      keyFigures(context, total, forecast),
      panel("Spend against budget", { what: "budgets", load: () => context.get("/spend"), draw: (found) => budgetTable(context, found.budgets, { most: 12 }), signal: context.signal }),
      panel("This month so far, and where it leads", { what: "the month", load: () => Promise.all([days(), forecast().catch(() => null)]), draw: ([found, ahead]) => monthChart(found.rows, forecastOf(context, ahead)), signal: context.signal }),
      panel("Spend per day", { what: "daily spend", load: days, draw: (found) => dailyChart(found.rows, month, "this month"), signal: context.signal }),
      panel("Forecast of the month by team", { what: "forecasts", load: forecast, draw: (found) => forecastTable(context, found), signal: context.signal }),
      half(panel("Largest teams", { what: "teams", load: () => context.get("/usage/summary", { ...month, group_by: "team" }), draw: (found) => shortList(context, "team", found.rows), signal: context.signal })),
      half(panel("Largest models", { what: "models", load: () => context.get("/usage/summary", { ...month, group_by: "model" }), draw: (found) => shortList(context, "model", found.rows), signal: context.signal })),
    ];
  },
};

export function half(section) {
  section.classList.add("half");
  return section;
}

function teamsText(context) {
  const { teams } = context.tenant;
  return teams.length === 1 ? `team ${teams[0]}` : `your teams ${teams.join(", ")}`;
}

function keyFigures(context, total, forecast) {
  const load = async () => {
    const letters = context.me.admin ? await context.get("/dead-letters", { limit: 1000 }).catch(() => null) : null;
    return { row: (await total()).rows[0] ?? null, ahead: await forecast().catch(() => null), letters };
  };
  const draw = ({ row, ahead, letters }) => {
    const end = forecastOf(context, ahead);
    return tiles(
      tile("Spend this month, USD", money(row?.cost ?? "0.00"), counted(row?.requests ?? 0, "call")),
      tile("Forecast for the month, USD", end ? money(cents(end.value)) : "\u2013", end ? rangeText(end) : "by team, below"),
      tile("Saved, USD", h("a", { href: context.link(["savings"]) }, money(row?.saved ?? "0.00")), "downgrades and refusals"),
      tile("Measured", h("a", { href: context.link(["coverage"]) }, row ? percent(Number(row.measured_share)) : "\u2013"), "of the cost; the rest is estimated"),
      tile("Unpriced calls", h("a", { href: context.link(["unpriced"]) }, count(row?.unpriced ?? 0)), row?.unpriced ? "their cost is not known yet" : "every call has a price"),
      context.me.admin ? tile("Dead letters", h("a", { href: context.link(["dead-letters"]) }, letters ? openLetters(letters.dead_letters) : "\u2013"), "not billed, not yet replayed") : null,
    );
  };
  const section = panel("Key figures", { load, draw, signal: context.signal });
  section.classList.add("bare");
  return section;
}

function openLetters(letters) {
  const open = letters.filter((letter) => !letter.replayed_at).length;
  return letters.length === 1000 ? `${count(open)}+` : count(open);
}

// Forecasts are estimates: below a cent they say nothing.
function cents(text) {
  const amount = nano(text);
  return fromNano(((amount + 5000000n) / 10000000n) * 10000000n);
}

// Until there are past errors to take it from, a forecast has no range.
function rangeText({ low, high }) {
  return low === null ? "no range yet" : `${plain(low)} to ${plain(high)}`;
}

function plain(text) {
  if (text === null) return "\u2013";
  return moneyText(cents(text)).replace(" USD", "");
}

export function budgetTable(context, budgets, { most = 200 } = {}) {
  if (budgets.length === 0) return emptyState("No budget has been used yet", "Budgets of every team, user or session appear here with their first call.");
  const used = (row) => (Number(row.limit) > 0 ? Number(row.spent) / Number(row.limit) : 0);
  const sorted = budgets.toSorted((a, b) => SEVERITY[a.state] - SEVERITY[b.state] || used(b) - used(a));
  const columns = [
    { title: "Budget", of: (row) => row.scope, show: (row) => [scopeLink(context, row.scope), h("span", { class: "sub" }, label(row.id), ", ", h("span", { class: "fixed" }, row.period))] },
    { title: "Used", of: used, show: meter },
    { title: "State", of: (row) => SEVERITY[row.state], show: (row) => badge(row.state) },
    { title: "Spent, USD", of: (row) => row.spent, kind: "money" },
    { title: "Limit, USD", of: (row) => row.limit, kind: "money" },
    { title: "Left, USD", of: (row) => row.remaining, kind: "money" },
    { title: "Resets", of: (row) => row.resets_at ?? "9999", show: (row) => (row.resets_at ? time(row.resets_at) : h("span", { class: "muted" }, "never")) },
  ];
  return table("Budgets: spent, limit, what is left and when it resets", columns, sorted, { limit: most });
}

export function scopeLink(context, scope) {
  const at = scope.indexOf(":");
  const [type, key] = [scope.slice(0, at), scope.slice(at + 1)];
  if (!["team", "model", "user", "session"].includes(type) || key === "*") return label(scope);
  return h("a", { href: context.link(["by", type, key]) }, h("span", { class: "muted" }, `${type} `), label(key));
}

export function dailyChart(rows, span, when) {
  const spent = new Map(rows.map((row) => [row.day, row.cost ?? "0"]));
  const days = daysOf(span);
  const amounts = days.map((day) => spent.get(day) ?? "0.00");
  const total = sumMoney(amounts);
  if (rows.length === 0) return emptyState("No calls yet", `Nothing was called ${when}.`);
  const most = days[amounts.reduce((best, amount, at) => (nano(amount) > nano(amounts[best]) ? at : best), 0)];
  const sentence = `Spend per day ${when}: ${moneyText(total)} over ${days.length} days, most on ${dayText(most)}.`;
  const list = days.map((day, at) => ({ day, cost: amounts[at], calls: rows.find((row) => row.day === day)?.requests ?? 0 }));
  const columns = [
    { title: "Day", of: (row) => row.day, show: (row) => dayText(row.day) },
    { title: "Calls", of: (row) => row.calls, kind: "number", show: (row) => count(row.calls) },
    { title: "Cost, USD", of: (row) => row.cost, kind: "money" },
  ];
  return dailyBars(sentence, days, [{ name: "cost", className: "bar-1", values: amounts.map(Number) }], asTable(table("Spend per day", columns, list)));
}

const METHODS = { linear: "a straight line through the last day, for want of two weeks of calls", weekday_56d_level_14d: "each weekday's share over 56 days at the level of the last 14" };

// The tenant's for those who see all of it; a team's for a reader of one team. Several teams' ranges do not add up.
function forecastOf(context, ahead) {
  if (context.tenant.tenant_wide) return ahead?.forecast ?? null;
  return ahead?.teams?.length === 1 ? ahead.teams[0] : null;
}

function monthChart(rows, ahead) {
  if (rows.length === 0) return emptyState("No calls this month", "The line begins with the first call of the month.");
  const now = new Date();
  const span = spanOf("month", now);
  const past = daysOf(span, now);
  const end = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + 1, 1));
  const days = daysOf({ from: span.from, to: end.toISOString() });
  const spent = new Map(rows.map((row) => [row.day, row.cost ?? "0"]));
  let sum = 0n;
  const sums = past.map((day) => Number(fromNano((sum += nano(spent.get(day))))));
  const path = ahead ? ahead.days.filter((each) => each.day > past.at(-1)).map(({ value, low = null, high = null }) => ({ value: Number(value), low: low === null ? null : Number(low), high: high === null ? null : Number(high) })) : [];
  const said = ahead ? ` Expected at the end: ${plain(ahead.value)} USD, ${ahead.low === null ? "no range yet" : `in four of five cases ${rangeText(ahead)}`}. Method: ${METHODS[ahead.method] ?? ahead.method}.` : "";
  const sentence = `Spent so far: ${moneyText(fromNano(sum))}.${said}`;
  return [
    h("p", { class: "muted small" }, sentence),
    cumulativeBand(sentence, days, sums, path.length ? path : null, null, null),
    legend(["bar-1", "spent"], ...(path.length ? [["band", ahead.low === null ? "forecast" : "forecast, P10 to P90"]] : [])),
  ];
}

function forecastTable(context, found) {
  if (!found.teams.length) return emptyState("No forecast yet", "It begins with the first calls of a team.");
  const columns = [
    { title: "Team", of: (row) => row.team, show: (row) => dimensionLink(context, "team", row.team) },
    { title: "Spent, USD", of: (row) => row.spent, kind: "money" },
    { title: "Expected, USD", of: (row) => row.value, kind: "number", show: (row) => plain(row.value) },
    { title: "Low (P10)", of: (row) => row.low, kind: "number", show: (row) => plain(row.low) },
    { title: "High (P90)", of: (row) => row.high, kind: "number", show: (row) => plain(row.high) },
    { title: "Days known", of: (row) => row.history_days, kind: "number", show: (row) => count(row.history_days) },
  ];
  return table("Forecast of the month by team", columns, found.teams, { sort: 2, descending: true });
}

function shortList(context, dimension, rows) {
  if (rows.length === 0) return emptyState("No calls this month", "They appear here with their first call.");
  const sorted = rows.toSorted((a, b) => Number(nano(b.cost) - nano(a.cost))).slice(0, 6);
  const columns = [
    { title: dimension === "team" ? "Team" : "Model", of: (row) => row[dimension], show: (row) => dimensionLink(context, dimension, row[dimension]), fixed: true },
    { title: "Calls", of: (row) => row.requests, kind: "number", show: (row) => count(row.requests), fixed: true },
    { title: "Cost, USD", of: (row) => row.cost, kind: "money", fixed: true },
  ];
  return [table(`Largest by ${dimension}`, columns, sorted), h("p", { class: "small" }, h("a", { href: context.link(["by", dimension]) }, `All ${dimension}s`))];
}

export function dimensionLink(context, dimension, value) {
  if (!value) return label("", `no ${dimension}`);
  return h("a", { href: context.link(["by", dimension, value]) }, label(value));
}
