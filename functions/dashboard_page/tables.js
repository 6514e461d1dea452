import { h, replace } from "./dom.js";
import { money, splitMoney } from "./format.js";

// Tables with caption and header cells that sort. A column is {title, of(row), show?(row), kind: text|number|money}.

export function table(caption, columns, rows, { sort, descending = false, hideCaption = true, limit = 200 } = {}) {
  let by = sort ?? null;
  let down = descending;
  let shown = limit;
  const head = h("tr");
  const body = h("tbody");
  const more = h("p", { class: "more" });
  const element = h("table", {}, h("caption", { class: hideCaption ? "quiet" : null }, caption), h("thead", {}, head), body);

  function draw() {
    const sorted = by === null ? rows : [...rows].sort((a, b) => compared(columns[by].of(a), columns[by].of(b)) * (down ? -1 : 1));
    replace(head, columns.map(header));
    const tails = columns.map((column) => (column.kind === "money" ? longestTail(rows, column) : 0));
    replace(body, sorted.slice(0, shown).map((row) => line(row, columns, tails)));
    const left = rows.length - shown;
    replace(more, left > 0 ? h("button", { type: "button", class: "button", on: { click: showMore } }, `Show ${Math.min(left, limit)} more of ${rows.length}`) : null);
  }

  function showMore() {
    shown += limit;
    draw();
  }

  function header(column, at) {
    const numeric = column.kind === "number" || column.kind === "money" ? "numeric" : null;
    if (!column.of || column.fixed) return h("th", { scope: "col", class: numeric }, column.title);
    const order = by === at ? (down ? "descending" : "ascending") : null;
    const mark = h("span", { class: "sort-mark", "aria-hidden": "true" }, order === null ? "" : down ? "\u2193" : "\u2191");
    const button = h("button", { type: "button", class: "sort", on: { click: () => sortBy(at) } }, numeric ? [mark, column.title] : [column.title, mark]);
    return h("th", { scope: "col", class: numeric, "aria-sort": order }, button);
  }

  function sortBy(at) {
    down = by === at ? !down : columns[at].kind === "number" || columns[at].kind === "money";
    by = at;
    draw();
    head.children[at].querySelector("button").focus();
  }

  draw();
  return h("div", {}, h("div", { class: "table-scroll", role: "region", "aria-label": caption, tabindex: "0" }, element), more);
}

function line(row, columns, tails) {
  return h(
    "tr",
    {},
    columns.map((column, at) => {
      const content = column.show ? column.show(row) : column.kind === "money" ? money(column.of(row), tails[at], column.none) : column.of(row);
      const numeric = column.kind === "number" || column.kind === "money" ? "numeric" : null;
      return at === 0 ? h("th", { scope: "row", class: numeric }, content) : h("td", { class: numeric }, content);
    }),
  );
}

function longestTail(rows, column) {
  return rows.reduce((most, row) => {
    const value = column.of(row);
    return typeof value === "string" ? Math.max(most, splitMoney(value).tail.length) : most;
  }, 0);
}

function compared(a, b) {
  const [x, y] = [sortKey(a), sortKey(b)];
  if (typeof x === "number" && typeof y === "number") return x - y;
  return String(x).localeCompare(String(y), "en");
}

function sortKey(value) {
  if (value === null || value === undefined) return -Infinity;
  return typeof value === "string" && /^-?\d+(\.\d+)?$/.test(value) ? Number(value) : value;
}
