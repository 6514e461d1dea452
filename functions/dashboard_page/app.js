import { ask, ApiError } from "./api.js";
import { announce, h, label, replace, uniqueId } from "./dom.js";
import { errorState, loadingState } from "./parts.js";
import { currentRoute, linkTo, RANGES } from "./router.js";
import { findPage, NAVIGATION } from "./pages.js";

// The frame around the pages: who is signed in, which tenant and stretch of time, where one can go.

const content = document.getElementById("content");
const RETURN_TO = "tollkeeper-return-to";
let me = null;
let leaving = new AbortController();

async function start() {
  replace(content, loadingState("your account"));
  try {
    me = await ask("/me");
  } catch (error) {
    return failed(error);
  }
  const before = sessionStorage.getItem(RETURN_TO);
  sessionStorage.removeItem(RETURN_TO);
  if (before && !location.hash) history.replaceState(null, "", before);
  drawPerson();
  if (me.tenants.length === 0) return noTeam();
  addEventListener("hashchange", () => show(true));
  return show(false);
}

function failed(error) {
  replace(document.getElementById("controls"));
  replace(document.getElementById("navigation"));
  if (error.status === 401) return signIn();
  if (error.status === 403) {
    return gate("No access yet", "You are signed in, but no role for cost figures is assigned to you. Ask the people who run Tollkeeper for the role Chargeback.Read.", signInLink("Sign in as somebody else"));
  }
  if (!(error instanceof ApiError)) console.error(error);
  return replace(content, h("div", { class: "gate" }, h("h1", {}, "Tollkeeper"), errorState(error, start)));
}

function signIn() {
  if (location.hash) sessionStorage.setItem(RETURN_TO, location.hash);
  return gate("Sign in", "Spend, budgets and statements are shown to people of your organisation. Sign in with your work account.", signInLink("Sign in with Microsoft Entra ID"));
}

function signInLink(text) {
  const back = encodeURIComponent(location.pathname);
  return h("a", { class: "button primary", href: `/.auth/login/aad?post_login_redirect_uri=${back}` }, text);
}

function noTeam() {
  return gate("No team yet", "You are signed in, but no team's file names you, so there are no figures you may see. Ask your platform team to add you to your team's file.");
}

function gate(title, text, action) {
  document.title = `${title} \u00b7 Tollkeeper`;
  replace(content, h("div", { class: "gate" }, h("h1", { tabindex: "-1" }, title), h("p", { class: "muted" }, text), action));
}

function drawPerson() {
  const who = me.name ?? me.id;
  const out = me.sign_out ? h("a", { href: me.sign_out }, "Sign out") : null;
  replace(document.getElementById("person"), h("span", {}, "Signed in as ", label(who)), out);
}

// Everything a page needs to know about where it is.
function contextOf(route) {
  const tenant = me.tenants.find((each) => each.id === route.query.tenant) ?? me.tenants[0];
  const range = Object.hasOwn(RANGES, route.query.range) ? route.query.range : "month";
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const kept = { tenant: tenant.id, range: range === "month" ? "" : range };
  return {
    me,
    tenant,
    range,
    route,
    signal,
    get: (path, query = {}) => ask(path, { query: { tenant: tenant.id, ...query }, signal }),
    link: (segments, more = {}) => linkTo(segments, { ...kept, ...more }),
    again: () => show(false),
  };
}

async function show(moved) {
  const route = currentRoute();
  const context = contextOf(route);
  const { page, names } = findPage(route.segments, context);
  drawControls(context, page);
  drawNavigation(context, page);
  const title = page.title(context, ...names);
  document.title = `${title} \u00b7 Tollkeeper`;
  const heading = h("h1", { tabindex: "-1" }, title);
  const body = h("div", { class: "page" });
  const lead = page.lead ? h("p", { class: "lead" }, page.lead(context, ...names)) : null;
  const refresh = h("button", { type: "button", class: "button", on: { click: () => show(false) } }, "Refresh");
  const head = h("div", { class: "page-head" }, h("div", {}, page.crumb ? h("p", { class: "crumb" }, page.crumb(context, ...names)) : null, heading, lead), page.live ? null : refresh);
  replace(content, head, body);
  if (moved) {
    heading.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  const panels = [page.draw(context, ...names)].flat(Infinity).filter(Boolean);
  replace(body, panels);
  const results = await Promise.allSettled(panels.map((each) => each.finished));
  if (context.signal.aborted) return;
  const refused = results.find((each) => each.status === "rejected");
  if (refused) return failed(refused.reason);
  body.dataset.ready = location.hash;
  announce(`${title}: loaded`);
}

function drawControls(context, page) {
  const tenants = me.tenants.length > 1 ? chooser("Tenant", me.tenants.map(({ id }) => [id, id]), context.tenant.id, (id) => go(context, { tenant: id })) : h("span", { class: "field-inline" }, "Tenant ", label(context.tenant.id));
  const ranges = Object.entries(RANGES).map(([id, range]) => [id, range.label]);
  const range = page.ranged ? chooser("Period (UTC)", ranges, context.range, (id) => go(context, { range: id })) : null;
  replace(document.getElementById("controls"), tenants, range);
}

function go(context, change) {
  const query = { ...context.route.query, ...change };
  // Another tenant has other teams and budgets: what was named in the address stays behind.
  const segments = change.tenant ? context.route.segments.slice(0, context.route.segments[0] === "by" ? 2 : 1) : context.route.segments;
  location.hash = linkTo(segments, query);
}

function chooser(title, options, chosen, choose) {
  const select = h("select", { on: { change: (event) => choose(event.target.value) } }, options.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
  select.value = chosen;
  return h("label", {}, title, select);
}

function drawNavigation(context, page) {
  const menu = uniqueId("menu");
  const groups = NAVIGATION.map(({ title, entries }) => {
    const allowed = entries.filter((entry) => !entry.page.allowed || entry.page.allowed(context));
    const links = allowed.map(({ page: target, segments }) => {
      const here = target === page && segments.every((segment, at) => (context.route.segments[at] ?? "overview") === segment);
      return h("li", {}, h("a", { href: context.link(segments), "aria-current": here ? "page" : null }, target.menu ? target.menu(segments) : target.title(context)));
    });
    return [title ? h("p", { class: "group", id: `${menu}-${title}` }, title) : null, h("ul", { "aria-labelledby": title ? `${menu}-${title}` : null }, links)];
  });
  const list = h("div", { class: "menu", id: menu, "data-closed": true }, groups);
  const button = h("button", { type: "button", class: "button menu-button", "aria-expanded": "false", "aria-controls": menu, on: { click: toggle } }, "Menu", h("span", { "aria-hidden": "true" }, "\u2630"));
  function toggle() {
    const opens = list.hasAttribute("data-closed");
    list.toggleAttribute("data-closed", !opens);
    button.setAttribute("aria-expanded", String(opens));
  }
  replace(document.getElementById("navigation"), button, list);
}

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  (content.querySelector("h1") ?? content).focus();
});

start();
