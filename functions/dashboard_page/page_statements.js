import { address, encoded } from "./api.js";
import { h, label } from "./dom.js";
import { count, monthText, sizeText, time } from "./format.js";
import { badge, emptyState, panel, plainPanel } from "./parts.js";
import { table } from "./tables.js";

const STATES = { final: ["closed", "active"], provisional: ["over, not yet closed", "warned"], draft: ["still running", ""] };
const FORMS = { html: "Print", xlsx: "Excel", csv: "Journal", json: "JSON", focus: "FOCUS", "focus-1.2": "FOCUS 1.2", parquet: "Parquet" };

export const statements = {
  title: () => "Statements",
  lead: (context) => (context.tenant.tenant_wide ? "What the tenant and each team owe, month by month. Every file of a month adds up to the same amount." : "What your teams owe, month by month. Every file of a month adds up to the same amount."),
  draw(context) {
    const draw = ({ periods }) => {
      if (periods.length === 0) return emptyState("No statement yet", "The first draft is written in the night after the first call.");
      return periods.map((period) => month(context, period));
    };
    return [now(context), panel("Months", { what: "statements", load: () => context.get("/statements"), draw, signal: context.signal })];
  },
};

// The running month need not wait for the night: the same forms, computed when they are asked for.
function now(context) {
  const links = Object.entries(FORMS).map(([form, name]) => {
    const [format, version] = form.split("-");
    const query = { tenant: context.tenant.id, format, ...(version ? { focus_version: version } : {}) };
    const said = `${name} of the running month up to now`;
    return h("li", {}, h("a", { href: address("/chargeback/report", query), "aria-label": said, title: said }, name));
  });
  const whose = context.tenant.tenant_wide ? "The whole tenant" : "Your teams";
  return plainPanel("Up to now", h("p", { class: "muted small" }, `${whose}, the running month, computed when you ask: a draft.`), h("ul", { class: "files" }, links));
}

function month(context, period) {
  const [meaning, state] = STATES[period.status] ?? ["", ""];
  const whole = context.tenant.tenant_wide ? [{ team: null, total: period.total }] : [];
  const rows = [...whole, ...period.teams];
  const columns = [
    { title: "Statement of", of: (row) => row.team ?? "", show: (row) => (row.team === null ? "The whole tenant" : label(row.team)) },
    { title: `Due, ${period.currency}`, of: (row) => row.total, kind: "money" },
    { title: "Files", show: (row) => files(context, period, row.team) },
  ];
  return h(
    "section",
    { class: "month", "aria-label": monthText(period.period) },
    h("h3", {}, monthText(period.period), " ", badge(period.status, state)),
    h("p", { class: "muted small" }, `Number ${period.number}, ${meaning}, as of `, time(period.as_of)),
    period.notes.map((note) => h("p", { class: "small" }, label(note))),
    table(`Statements of ${monthText(period.period)}`, columns, rows),
    h("details", {}, h("summary", {}, "Digests of the files"), digests(period)),
  );
}

function files(context, period, team) {
  const order = Object.keys(FORMS);
  const own = period.files.filter((file) => (file.team ?? null) === team).sort((a, b) => order.indexOf(a.format) - order.indexOf(b.format));
  const links = own.map((file) => {
    const query = { tenant: context.tenant.id, ...(team === null ? {} : { team }) };
    const said = `${FORMS[file.format] ?? file.format} of ${team ?? "the whole tenant"}, ${monthText(period.period)}, ${sizeText(file.bytes)}`;
    return h("li", {}, h("a", { href: address(`/statements/${encoded(period.period)}/${encoded(file.name)}`, query), "aria-label": said, title: said }, FORMS[file.format] ?? file.format));
  });
  return h("ul", { class: "files" }, links);
}

function digests(period) {
  const columns = [
    { title: "File", of: (file) => file.name, show: (file) => label(file.name) },
    { title: "Of", of: (file) => file.team ?? "", show: (file) => label(file.team, "the whole tenant") },
    { title: "Rows", of: (file) => file.rows, kind: "number", show: (file) => count(file.rows) },
    { title: "Size", of: (file) => file.bytes, kind: "number", show: (file) => sizeText(file.bytes) },
    { title: "SHA-256", of: (file) => file.sha256, show: (file) => h("code", {}, file.sha256) },
  ];
  return table(`Digests of the files of ${monthText(period.period)}`, columns, period.files);
}
