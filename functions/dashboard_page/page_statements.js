import { address, encoded } from "./api.js";
import { h, label } from "./dom.js";
import { count, monthText, sizeText, time } from "./format.js";
import { badge, emptyState, panel } from "./parts.js";
import { table } from "./tables.js";

const STATES = { final: "the month is closed", provisional: "the month is over, not yet closed", draft: "the month is still running" };

export const statements = {
  title: () => "Statements",
  lead: (context) => (context.tenant.tenant_wide ? "What the tenant and each team owe, month by month. Every file of a month adds up to the same amount." : "What your teams owe, month by month. Every file of a month adds up to the same amount."),
  draw(context) {
    const draw = ({ periods }) => {
      if (periods.length === 0) return emptyState("No statement yet", "The first draft is written in the night after the first call.");
      return periods.map((period) => month(context, period));
    };
    return panel("Months", { what: "statements", load: () => context.get("/statements"), draw, signal: context.signal });
  },
};

function month(context, period) {
  const head = h("h3", {}, monthText(period.period), " ", badge(period.status), h("span", { class: "muted small" }, ` ${STATES[period.status] ?? ""}, as of `, time(period.as_of)));
  const columns = [
    { title: "File", of: (file) => file.name, show: (file) => download(context, period.period, file) },
    { title: "Of", of: (file) => file.team ?? "", show: (file) => (file.team ? label(file.team) : h("span", { class: "muted" }, "the whole tenant")) },
    { title: "Rows", of: (file) => file.rows ?? 0, kind: "number", show: (file) => (file.rows === null || file.rows === undefined ? "\u2013" : count(file.rows)) },
    { title: "Size", of: (file) => file.bytes, kind: "number", show: (file) => sizeText(file.bytes) },
    { title: "SHA-256", of: (file) => file.sha256, show: (file) => h("code", { title: file.sha256 }, file.sha256.slice(0, 12)) },
  ];
  return h("div", { class: "month" }, head, table(`Files of ${monthText(period.period)}`, columns, period.files));
}

function download(context, period, file) {
  const path = file.path ?? file.name;
  return h("a", { href: address(`/statements/${encoded(period)}/${path.split("/").map(encoded).join("/")}`, { tenant: context.tenant.id }), download: true }, file.name);
}
