import { announce, h, label, replace } from "./dom.js";
import { count, counted, sizeText, time } from "./format.js";
import { ask } from "./api.js";
import { badge, confirmed, emptyState, panel, say } from "./parts.js";
import { table } from "./tables.js";

export const deadLetters = {
  allowed: (context) => context.me.admin,
  title: () => "Dead letters",
  lead: () => "Events that could not be billed, kept byte for byte with the reason. After the cause is fixed, replay them: each is billed once at most.",
  draw(context) {
    if (!context.me.admin) return emptyState("For admins only", "Dead letters may name any tenant, so they are shown to people with the role Chargeback.Admin.");
    const section = panel("Letters", { what: "dead letters", load: () => context.get("/dead-letters", { limit: 500 }), draw: (found) => letters(context, found.dead_letters, () => section.again()), signal: context.signal });
    return section;
  },
};

function letters(context, rows, again) {
  if (rows.length === 0) return emptyState("No dead letters", "Every event of this tenant could be billed.");
  const chosen = new Set();
  const message = h("div");
  const button = h("button", { type: "button", class: "button primary", disabled: true, on: { click: replay } }, "Replay chosen");
  const all = h("input", { type: "checkbox", on: { change: (event) => chooseAll(event.target.checked) } });

  function nameButton() {
    button.disabled = chosen.size === 0;
    replace(button, chosen.size ? `Replay ${count(chosen.size)} chosen` : "Replay chosen");
  }

  function chooseAll(checked) {
    for (const box of section.querySelectorAll("input[data-id]")) {
      box.checked = checked;
      if (checked) chosen.add(box.dataset.id);
      else chosen.delete(box.dataset.id);
    }
    nameButton();
  }

  async function replay() {
    const ids = [...chosen];
    const question = `${counted(ids.length, "event goes", "events go")} back to the hub, to be billed if that can be done now.`;
    if (!(await confirmed("Replay these letters?", question, "Replay"))) return;
    button.disabled = true;
    try {
      const answer = await ask("/dead-letters/replay", { method: "POST", body: { ids } });
      say(message, `${count(answer.replayed)} replayed${answer.unknown.length ? `, ${count(answer.unknown.length)} no longer known` : ""}. What fails again comes back with a new reason.`, "good");
      announce("Replayed");
      setTimeout(() => context.signal.aborted || again(), 2500);
    } catch (error) {
      say(message, error.message, "problem");
      nameButton();
    }
  }

  function box(row) {
    const name = row.event_id ? `event ${row.event_id}` : `letter ${row.id}`;
    return h("input", { type: "checkbox", "data-id": row.id, "aria-label": `Choose ${name}`, on: { change: (event) => pick(row.id, event.target.checked) } });
  }

  function pick(id, checked) {
    if (checked) chosen.add(id);
    else chosen.delete(id);
    nameButton();
  }

  const columns = [
    { title: "Event", of: (row) => row.event_id ?? "", show: (row) => h("span", { class: "pick" }, box(row), " ", label(row.event_id, "unreadable")) },
    { title: "Reason", of: (row) => row.code, show: (row) => [badge(row.code), h("p", { class: "small muted name" }, row.message)] },
    { title: "Source", of: (row) => row.event_source ?? "", show: (row) => label(row.event_source) },
    { title: "Received", of: (row) => row.received_at, show: (row) => time(row.received_at) },
    { title: "Size", of: (row) => row.size_bytes, kind: "number", show: (row) => sizeText(row.size_bytes) },
    { title: "Replayed", of: (row) => row.replayed_at ?? "", show: (row) => (row.replayed_at ? [time(row.replayed_at), h("span", { class: "small muted" }, " by ", label(row.replayed_by))] : h("span", { class: "muted" }, "no")) },
  ];
  const section = h("div", {}, h("div", { class: "actions" }, h("label", { class: "field-inline" }, all, "Choose all shown"), button), message, table("Dead letters", columns, rows, { limit: 500 }));
  return section;
}
