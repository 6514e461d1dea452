// Reads {tables: {name: {column: type}}, queries: {name: text}} and writes, as JSON, what Microsoft's parser says of each query:
// problems, the tables and the fields of Properties that it reads, and the columns of its result.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(import.meta.url);
require("@kusto/language-service-next/bridge.min.js");
require("@kusto/language-service-next/Kusto.Language.Bridge.min.js");
const { KustoCode, GlobalState, Symbols, Syntax } = globalThis.Kusto.Language;

const each = (list) => Array.from({ length: list.Count }, (_, index) => list.getItem(index));
const { tables, queries } = JSON.parse(readFileSync(0, "utf8"));
const symbols = Object.entries(tables).map(([table, columns]) =>
  Symbols.TableSymbol.From(`(${Object.entries(columns).map(([name, type]) => `${name}: ${type}`).join(", ")})`).WithName(table),
);
const globals = GlobalState.Default.WithDatabase(new Symbols.DatabaseSymbol.ctor("workspace", symbols));

function* nodes(node) {
  yield node;
  for (let index = 0; index < node.ChildCount; index++) {
    const child = node.GetChild(index);
    if (child) yield* nodes(child);
  }
}

const kind = (node) => Syntax.SyntaxKind[node.Kind] ?? node.Kind;
const text = (node) => node.toString().trim();
const literal = (node) => text(node).replace(/^["']|["']$/g, "");

function described(query) {
  const code = KustoCode.ParseAndAnalyze(query, globals);
  const all = [...nodes(code.Syntax)];
  const is = (wanted) => (node) => node.Kind === Syntax.SyntaxKind[wanted];
  const paths = all.filter(is("PathExpression")).filter((node) => text(node.Expression) === "Properties").map((node) => text(node.Selector));
  const elements = all.filter(is("ElementExpression")).filter((node) => text(node.Expression) === "Properties").map((node) => literal(node.Selector.Expression ?? node.Selector.GetChild(1)));
  const result = code.ResultType;
  return {
    problems: each(code.GetDiagnostics()).map((found) => `${found.Severity} at ${found.Start}: ${found.Message}`),
    tables: all.filter((node) => node.ReferencedSymbol && Object.hasOwn(tables, node.ReferencedSymbol.Name ?? "")).map((node) => node.ReferencedSymbol.Name),
    fields: [...paths, ...elements],
    columns: Object.fromEntries(result?.Columns ? each(result.Columns).map((column) => [column.Name, column.Type.Name]) : []),
  };
}

process.stdout.write(JSON.stringify(Object.fromEntries(Object.entries(queries).map(([name, query]) => [name, described(query)]))));
