import { announce, h, label, replace, uniqueId } from "./dom.js";
import { moneyText } from "./format.js";

// What every page is made of: panels that load, tiles, badges, and how empty and failed look.

const STATE_MARKS = { active: "\u25cf", warned: "\u25b2", degraded: "\u25bc", stopped: "\u25a0" };

// States differ by mark and word as well as by colour.
export function badge(text, state = text) {
  const mark = h("span", { "aria-hidden": "true", class: "mark" }, STATE_MARKS[state] ?? "\u25cb");
  return h("span", { class: `badge ${STATE_MARKS[state] ? state : "other"}` }, mark, text);
}

export function tile(title, value, note) {
  return h("div", { class: "tile" }, h("dt", {}, title), h("dd", { class: "figure" }, value), note ? h("dd", { class: "note" }, note) : null);
}

export function tiles(...items) {
  return h("dl", { class: "tiles" }, items);
}

export function emptyState(title, text, action) {
  return h("div", { class: "state empty" }, h("p", { class: "state-title" }, title), h("p", {}, text), action);
}

export function loadingState(what) {
  const lines = ["long", "medium", "short"].map((width) => h("span", { class: `bone ${width}`, "aria-hidden": "true" }));
  return h("div", { class: "state loading" }, h("p", { class: "quiet" }, `Loading ${what}\u2026`), lines);
}

export function errorState(error, retry) {
  const known = error.code !== undefined;
  const details = known ? [`Code ${error.code}`, error.requestId ? `request ${error.requestId}` : null].filter(Boolean) : [];
  return h(
    "div",
    { class: "state failed", role: "alert" },
    h("p", { class: "state-title" }, "This could not be loaded"),
    h("p", {}, known ? error.message : "The page met something it did not expect."),
    h("p", { class: "muted small" }, details.join(", ")),
    retry ? h("button", { type: "button", class: "button", on: { click: retry } }, "Try again") : null,
  );
}

// A section that asks for its own data: one slow or failing answer does not keep the others from showing.
export function panel(title, { what, load, draw, note, wide, id, signal, level = 2 }) {
  const heading = uniqueId("panel");
  const body = h("div", { class: "panel-body" });
  const section = h(
    "section",
    { class: `panel${wide ? " wide" : ""}`, "aria-labelledby": heading, id },
    h("header", { class: "panel-head" }, h(`h${level}`, { id: heading }, title), note ? h("p", { class: "muted small" }, note) : null),
    body,
  );
  async function run() {
    section.setAttribute("aria-busy", "true");
    replace(body, loadingState(what ?? title.toLowerCase()));
    try {
      const data = await load();
      if (signal?.aborted) return;
      replace(body, draw(data));
    } catch (error) {
      if (error.name === "AbortError" || signal?.aborted) return;
      if (error.status === 401) throw error;
      if (error.code === undefined) console.error(error);
      replace(body, errorState(error, run));
    } finally {
      section.removeAttribute("aria-busy");
    }
  }
  section.finished = run();
  section.again = run;
  return section;
}

export function plainPanel(title, ...children) {
  const heading = uniqueId("panel");
  const head = h("header", { class: "panel-head" }, h("h2", { id: heading }, title));
  return h("section", { class: "panel", "aria-labelledby": heading }, head, h("div", { class: "panel-body" }, children));
}

// A budget as a bar: spent, held by calls in flight, and where its thresholds lie.
export function meter(budget) {
  const limit = Number(budget.limit);
  const share = (amount) => (limit > 0 ? Math.min(100, Math.max(0, (Number(amount) / limit) * 100)) : 0);
  const spent = share(budget.spent);
  const held = Math.min(100 - spent, share(budget.reserved));
  const bar = h("span", { class: `meter-bar ${budget.state}` });
  const reserved = h("span", { class: "meter-held" });
  bar.style.setProperty("inline-size", `${spent}%`);
  reserved.style.setProperty("inline-size", `${held}%`);
  const used = limit > 0 ? Math.round((Number(budget.spent) / limit) * 100) : 0;
  const said = `${used} % of ${moneyText(budget.limit)} spent`;
  return h("span", { class: "meter-line" }, h("span", { class: "meter", role: "img", "aria-label": said }, bar, reserved), h("span", { class: "meter-text", "aria-hidden": "true" }, `${used}\u00a0%`));
}

export function tokenTotal(tokens) {
  return Object.values(tokens ?? {}).reduce((sum, each) => sum + each, 0);
}

// A question before something that cannot be taken back. Resolves to whether it was confirmed.
export function confirmed(title, text, action) {
  return new Promise((resolve) => {
    const heading = uniqueId("dialog");
    const dialog = h(
      "dialog",
      { "aria-labelledby": heading },
      h("h2", { id: heading }, title),
      h("p", {}, text),
      h(
        "div",
        { class: "actions" },
        h("button", { type: "button", class: "button primary", on: { click: () => dialog.close("yes") } }, action),
        h("button", { type: "button", class: "button", on: { click: () => dialog.close("") } }, "Cancel"),
      ),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

export function say(place, text, kind = "note") {
  replace(place, h("p", { class: `message ${kind}` }, text));
  announce(text);
}

