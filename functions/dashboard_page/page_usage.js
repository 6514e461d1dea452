import { dailyChart, budgetTable, dimensionLink, half } from "./page_overview.js";
import { h, label, replace } from "./dom.js";
import { count, counted, money, nano, percent, sumMoney } from "./format.js";
import { emptyState, panel, tile, tiles, tokenTotal } from "./parts.js";
import { RANGES, spanOf } from "./router.js";
import { table } from "./tables.js";

// Teams, models, users and sessions: a list of each, and one of them from all sides.

export const DIMENSIONS = {
  team: { one: "Team", many: "Teams" },
  model: { one: "Model", many: "Models" },
  user: { one: "User", many: "Users" },
  session: { one: "Session", many: "Sessions" },
};

function whenText(context) {
  return RANGES[context.range].label.toLowerCase();
}

async function displayNames(context) {
  const found = await context.get("/names/users").catch(() => null);
  return new Map((found?.users ?? []).map((each) => [each.user, each.name]));
}

function withName(context, dimension, value, names) {
  const known = dimension === "user" ? names.get(value) : undefined;
  const link = dimensionLink(context, dimension, value);
  return known ? [link, h("span", { class: "muted small" }, " ", label(known))] : link;
}

export const usageList = {
  ranged: true,
  menu: ([, dimension]) => DIMENSIONS[dimension].many,
  title: (_, dimension) => DIMENSIONS[dimension].many,
  lead: (context, dimension) => `What each ${dimension} used, ${whenText(context)}. Choose one to see it from all sides.`,
  draw(context, dimension) {
    const query = { ...spanOf(context.range), group_by: dimension };
    const load = () => Promise.all([context.get("/usage/summary", query), dimension === "user" ? displayNames(context) : new Map()]);
    const draw = ([found, names]) => filteredList(context, dimension, found.rows, names);
    return panel(`${DIMENSIONS[dimension].many} by cost`, { what: DIMENSIONS[dimension].many.toLowerCase(), load, draw, signal: context.signal });
  },
};

function filteredList(context, dimension, rows, names) {
  if (rows.length === 0) return emptyState("No calls in this period", "Choose another period above, or come back after the first call.");
  const place = h("div");
  const said = h("p", { class: "muted small", role: "status" });
  const show = (text) => {
    const wanted = text.trim().toLowerCase();
    const found = rows.filter((row) => `${row[dimension]} ${names.get(row[dimension]) ?? ""}`.toLowerCase().includes(wanted));
    replace(said, wanted ? `${found.length} of ${rows.length} match` : `${rows.length} in all`);
    replace(place, found.length ? usageTable(context, dimension, found, rows, names) : emptyState("None matches", "Clear the search to see all of them."));
  };
  const search = h("input", { type: "search", autocomplete: "off", on: { input: (event) => show(event.target.value) } });
  show("");
  return [h("div", { class: "actions" }, h("label", { class: "field-inline" }, `Find a ${dimension}`, search), said), place];
}

export function usageTable(context, dimension, rows, all = rows, names = new Map()) {
  const total = Number(sumMoney(all.map((row) => row.cost ?? "0")));
  const columns = [
    { title: DIMENSIONS[dimension]?.one ?? dimension, of: (row) => row[dimension], show: (row) => withName(context, dimension, row[dimension], names) },
    { title: "Cost, USD", of: (row) => row.cost, kind: "money" },
    { title: "Share", of: (row) => Number(row.cost ?? 0), kind: "number", show: (row) => percent(total > 0 ? Number(row.cost ?? 0) / total : 0) },
    { title: "Calls", of: (row) => row.requests, kind: "number", show: (row) => count(row.requests) },
    { title: "Tokens", of: (row) => tokenTotal(row.tokens), kind: "number", show: (row) => count(tokenTotal(row.tokens)) },
    { title: "Measured", of: (row) => row.measured_share, kind: "number", show: (row) => percent(Number(row.measured_share)) },
    { title: "Unpriced", of: (row) => row.unpriced, kind: "number", show: (row) => count(row.unpriced) },
  ];
  return table(`Usage by ${dimension}`, columns, rows, { sort: 1, descending: true });
}

export const usageDetail = {
  ranged: true,
  title: (_, dimension, key) => `${DIMENSIONS[dimension].one} ${key}`,
  crumb: (context, dimension) => h("a", { href: context.link(["by", dimension]) }, `All ${DIMENSIONS[dimension].many.toLowerCase()}`),
  lead: (context) => `Everything below is of ${whenText(context)}, in UTC days.`,
  draw(context, dimension, key) {
    const span = spanOf(context.range);
    const filter = { ...span, [dimension]: exact(key) };
    const ask = (group_by) => context.get("/usage/summary", { ...filter, group_by });
    const others = Object.keys(DIMENSIONS).filter((each) => each !== dimension);
    return [
      detailFigures(context, () => ask(dimension)),
      panel("Budgets on it", { what: "budgets", load: () => budgetsOn(context, dimension, key), draw: (found) => (found.length ? budgetTable(context, found) : emptyState("No budget of its own", "Calls here count on other budgets only.")), signal: context.signal }),
      panel("Spend per day", { what: "daily spend", load: () => ask("day"), draw: (found) => dailyChart(found.rows, span, whenText(context)), signal: context.signal }),
      others.map((other) => panel(`By ${other}`, { load: () => ask(other), draw: (found) => (found.rows.length ? usageTable(context, other, found.rows) : emptyState("No calls", "Nothing was called in this period.")), signal: context.signal })),
      half(panel("By kind of token", { what: "tokens", load: () => ask(dimension), draw: (found) => tokenTable(found.rows[0]), signal: context.signal })),
      half(panel("By decision", { what: "decisions", load: () => ask("decision"), draw: (found) => decisionTable(found.rows), signal: context.signal })),
    ];
  },
};

// The API takes several values between commas.
function exact(key) {
  return key.replaceAll("\\", "\\\\").replaceAll(",", "\\,");
}

function detailFigures(context, load) {
  const draw = ({ rows }) => {
    const row = rows[0];
    return tiles(
      tile("Cost, USD", money(row?.cost ?? "0.00"), row?.unpriced ? `without ${counted(row.unpriced, "unpriced call")}` : null),
      tile("Calls", count(row?.requests ?? 0)),
      tile("Tokens", count(tokenTotal(row?.tokens))),
      tile("Saved, USD", money(row?.saved ?? "0.00"), "downgrades and refusals"),
      tile("Measured", row ? percent(Number(row.measured_share)) : "\u2013", "of the cost"),
    );
  };
  const section = panel("Key figures", { load, draw, signal: context.signal });
  section.classList.add("bare");
  return section;
}

// Asked only where a budget can be: to a browser a 404 is an error, whatever becomes of it.
async function budgetsOn(context, dimension, key) {
  const { budgets } = await context.get("/budgets");
  if (!budgets.some((budget) => [`${dimension}:${key}`, `${dimension}:*`].includes(budget.scope))) return [];
  const path = key.split("/").map(encodeURIComponent).join("/");
  try {
    return (await context.get(`/spend/${dimension}/${path}`)).budgets;
  } catch (error) {
    if (error.status === 404 || error.code === "scope_not_allowed") return [];
    throw error;
  }
}

const KINDS = { input: "Input", cached_input: "Input from the cache", cache_write: "Written to the cache", output: "Output", input_audio: "Audio in", output_audio: "Audio out" };

function tokenTable(row) {
  const rows = Object.entries(row?.tokens ?? {}).map(([kind, tokens]) => ({ kind, tokens }));
  if (rows.length === 0) return emptyState("No tokens", "No call of this period has told its tokens.");
  const columns = [
    { title: "Kind", of: (each) => KINDS[each.kind] ?? each.kind },
    { title: "Tokens", of: (each) => each.tokens, kind: "number", show: (each) => count(each.tokens) },
  ];
  return table("Tokens by kind", columns, rows, { sort: 1, descending: true });
}

function decisionTable(rows) {
  if (rows.length === 0) return emptyState("No calls", "Nothing was called in this period.");
  const columns = [
    { title: "Decision", of: (row) => row.decision || "none recorded" },
    { title: "Calls", of: (row) => row.requests + (row.refused ?? 0), kind: "number", show: (row) => count(row.requests + (row.refused ?? 0)) },
    { title: "Cost, USD", of: (row) => row.cost, kind: "money" },
  ];
  return table("Calls by decision", columns, rows.toSorted((a, b) => Number(nano(b.cost) - nano(a.cost))));
}
