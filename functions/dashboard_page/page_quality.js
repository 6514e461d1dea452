import { asTable, dailyBars, legend } from "./charts.js";
import { dimensionLink, scopeLink } from "./page_overview.js";
import { h, label } from "./dom.js";
import { count, counted, dayText, moneyText, nano, percent, sumMoney } from "./format.js";
import { emptyState, panel, tile, tiles } from "./parts.js";
import { daysOf, RANGES, spanOf } from "./router.js";
import { table } from "./tables.js";

// Pages about how far the figures can be trusted, and what the gate has saved.

const when = (context) => RANGES[context.range].label.toLowerCase();
const summary = (context, group_by, more = {}) => () => context.get("/usage/summary", { ...spanOf(context.range), group_by, ...more });

export const savings = {
  ranged: true,
  title: () => "Savings",
  lead: (context) => `Money that downgrades and refusals kept from being spent, ${when(context)}: a downgrade saves the difference between the two models for the same tokens, a refusal its estimate.`,
  draw(context) {
    const draw = ({ rows }) => {
      const of = (decision) => rows.filter((row) => (decision === "refuse") === (row.refused > 0));
      const [refused, downgraded] = [of("refuse"), of("downgrade").filter((row) => nano(row.saved) !== 0n)];
      const calls = (list, field) => counted(list.reduce((sum, row) => sum + row[field], 0), "call");
      return tiles(
        tile("Saved, USD", figure(rows)),
        tile("By downgrades, USD", figure(downgraded), calls(downgraded, "requests")),
        tile("By refusals, USD", figure(refused), calls(refused, "refused")),
      );
    };
    const figures = panel("Saved", { load: summary(context, "decision"), draw, signal: context.signal });
    figures.classList.add("bare");
    return [
      figures,
      panel("By team", { load: summary(context, "team"), draw: ({ rows }) => savedTable("team", rows, (row) => dimensionLink(context, "team", row.team)), signal: context.signal }),
      panel("By requested and served model", { load: summary(context, "requested_model,model"), draw: ({ rows }) => savedTable("requested_model", rows, pair), signal: context.signal }),
    ];
  },
};

function figure(rows) {
  return moneyText(sumMoney(rows.map((row) => row.saved ?? "0"))).replace(" USD", "");
}

function pair(row) {
  if (!row.model) return [label(row.requested_model), h("span", { class: "muted" }, " refused")];
  return row.model === row.requested_model ? label(row.model) : [label(row.requested_model), " \u2192 ", label(row.model)];
}

function savedTable(dimension, rows, show) {
  const found = rows.filter((row) => nano(row.saved) !== 0n || row.refused > 0);
  if (found.length === 0) return emptyState("Nothing was saved", "No call of this period was downgraded or refused.");
  const columns = [
    { title: dimension === "team" ? "Team" : "Model", of: (row) => row[dimension], show },
    { title: "Refused calls", of: (row) => row.refused, kind: "number", show: (row) => count(row.refused) },
    { title: "Cost, USD", of: (row) => row.cost, kind: "money" },
    { title: "Saved, USD", of: (row) => row.saved, kind: "money" },
  ];
  return table("What was saved", columns, found, { sort: 3, descending: true });
}

export const coverage = {
  ranged: true,
  title: () => "Coverage",
  lead: () => "How much of the cost rests on counted tokens. Estimated cost may still be measured when the log of a stream arrives; missing cost stays an estimate.",
  draw(context) {
    const load = (group_by) => summary(context, group_by);
    return [
      panel("Per day", { load: load("day"), draw: ({ rows }) => coverageChart(context, rows), signal: context.signal }),
      panel("By model", { load: load("model"), draw: ({ rows }) => coverageTable(context, "model", rows), signal: context.signal }),
      panel("By team", { load: load("team"), draw: ({ rows }) => coverageTable(context, "team", rows), signal: context.signal }),
    ];
  },
};

const PARTS = [
  ["measured", "bar-1"],
  ["estimated", "bar-2"],
  ["missing", "bar-3"],
];

function coverageChart(context, rows) {
  if (rows.length === 0) return emptyState("No calls in this period", "Choose another period above.");
  const days = daysOf(spanOf(context.range));
  const byDay = new Map(rows.map((row) => [row.day, row]));
  const parts = PARTS.map(([name, className]) => ({ name, className, values: days.map((day) => Number(byDay.get(day)?.[`${name}_cost`] ?? 0)) }));
  const total = (name) => moneyText(sumMoney(rows.map((row) => row[`${name}_cost`] ?? "0")));
  const sentence = `Cost per day: ${total("measured")} measured, ${total("estimated")} estimated, ${total("missing")} missing.`;
  const columns = [{ title: "Day", of: (row) => row.day, show: (row) => dayText(row.day) }, ...costColumns()];
  return [h("p", { class: "muted small" }, sentence), dailyBars(sentence, days, parts, asTable(table("Coverage per day", columns, rows))), legend(...PARTS.map(([name, className]) => [className, name]))];
}

function costColumns() {
  return PARTS.map(([name]) => ({ title: `${name[0].toUpperCase()}${name.slice(1)}, USD`, of: (row) => row[`${name}_cost`], kind: "money" }));
}

function coverageTable(context, dimension, rows) {
  if (rows.length === 0) return emptyState("No calls in this period", "Choose another period above.");
  const columns = [
    { title: dimension === "model" ? "Model" : "Team", of: (row) => row[dimension], show: (row) => dimensionLink(context, dimension, row[dimension]) },
    { title: "Measured", of: (row) => row.measured_share, kind: "number", show: (row) => percent(Number(row.measured_share)) },
    ...costColumns(),
  ];
  return table(`Coverage by ${dimension}`, columns, rows, { sort: 1 });
}

export const unpriced = {
  ranged: true,
  title: () => "Unpriced",
  lead: () => "Calls of models without a known price. Their cost is unknown, not zero; budgets count a guard price meanwhile. Add a dated price, and they are rated within the hour.",
  draw(context) {
    const draw = ({ rows }) => {
      const found = rows.filter((row) => row.unpriced > 0);
      if (found.length === 0) return emptyState("Every call has a price", "Nothing of this period waits for a price.");
      const columns = [
        { title: "Model", of: (row) => row.model, show: (row) => dimensionLink(context, "model", row.model) },
        { title: "Provider", of: (row) => row.provider, show: (row) => label(row.provider) },
        { title: "Deployment", of: (row) => row.deployment, show: (row) => label(row.deployment) },
        { title: "Unpriced calls", of: (row) => row.unpriced, kind: "number", show: (row) => count(row.unpriced) },
        { title: "All calls", of: (row) => row.requests, kind: "number", show: (row) => count(row.requests) },
      ];
      return table("Models without a price", columns, found, { sort: 3, descending: true });
    };
    return panel("Models without a price", { what: "models", load: summary(context, "model,provider,deployment"), draw, signal: context.signal });
  },
};

export const anomalies = {
  title: () => "Anomalies",
  lead: () => "Days of the last two weeks that cost far more than the same weekday usually does.",
  draw(context) {
    const draw = ({ anomalies: found }) => {
      if (found.length === 0) return emptyState("Nothing unusual", "No day stands out against its weekday.");
      const columns = [
        { title: "Day", of: (row) => row.day, show: (row) => dayText(row.day) },
        { title: "Of", of: (row) => row.scope, show: (row) => whose(context, row.scope) },
        { title: "Spent, USD", of: (row) => row.spent, kind: "money" },
        { title: "Usual, USD", of: (row) => row.expected, kind: "money" },
        { title: "Above, USD", of: (row) => row.above, kind: "money" },
        { title: "Score", of: (row) => row.score, kind: "number" },
      ];
      return table("Unusual days", columns, found, { sort: 0, descending: true });
    };
    return panel("Unusual days", { what: "anomalies", load: () => context.get("/anomalies"), draw, signal: context.signal });
  },
};


// `team:search`, `tenant:contoso`, or a team's model: `team:search model:gpt-4o`.
function whose(context, scope) {
  const [, team, model] = /^(team:.+) (model:.+)$/s.exec(scope) ?? [];
  return team ? [scopeLink(context, team), ", ", scopeLink(context, model)] : scopeLink(context, scope);
}
