import { budgetDetail, budgets } from "./page_budgets.js";
import { decisions } from "./page_decisions.js";
import { deadLetters } from "./page_letters.js";
import { overview } from "./page_overview.js";
import { anomalies, coverage, savings, unpriced } from "./page_quality.js";
import { statements } from "./page_statements.js";
import { DIMENSIONS, usageDetail, usageList } from "./page_usage.js";
import { emptyState } from "./parts.js";

// A page is {title, draw, lead?, crumb?, ranged?, live?, allowed?, menu?}; `draw` gives panels that load by themselves.

const PAGES = { overview, decisions, savings, coverage, unpriced, anomalies, statements, budgets, "dead-letters": deadLetters };

export const NAVIGATION = [
  { entries: [entry("overview")] },
  { title: "Spend", entries: Object.keys(DIMENSIONS).map((dimension) => ({ page: usageList, segments: ["by", dimension] })) },
  { title: "Gate", entries: [entry("decisions"), entry("budgets"), entry("savings")] },
  { title: "Record", entries: [entry("statements"), entry("coverage"), entry("unpriced"), entry("anomalies"), entry("dead-letters")] },
];

function entry(name) {
  return { page: PAGES[name], segments: [name] };
}

const unknownPage = {
  title: () => "Page not found",
  draw: () => emptyState("There is no such page", "The address may be from an older version. Choose a page from the menu."),
};

export function findPage([first = "overview", second, third]) {
  if (first === "by" && Object.hasOwn(DIMENSIONS, second)) return third === undefined ? { page: usageList, names: [second] } : { page: usageDetail, names: [second, third] };
  if (first === "budgets" && second !== undefined) return { page: budgetDetail, names: [second] };
  return second === undefined && Object.hasOwn(PAGES, first) ? { page: PAGES[first], names: [] } : { page: unknownPage, names: [] };
}
