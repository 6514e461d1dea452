// Elements without markup: every text becomes a text node, so a name that looks like HTML stays a name.

// Ours: browsers drop tabs and line ends of an address, and read a backslash as a slash.
const SAFE_ADDRESS = /^(#|\/(?![\/\\\t\n\r]))/;

export function h(tag, properties, ...children) {
  return filled(document.createElement(tag), properties, children);
}

export function s(tag, properties, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, children);
}

function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "value" || name === "checked" || name === "indeterminate") element[name] = value;
    else if (name === "href" && !SAFE_ADDRESS.test(value)) throw new Error(`an address of another origin: ${value}`);
    else if (name.startsWith("on") || name === "style") throw new Error(`${name} is code or style in an attribute`);
    else element.setAttribute(name, value === true ? "" : value);
  }
  return put(element, ...children);
}

export function put(element, ...children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

export function replace(element, ...children) {
  element.replaceChildren();
  return put(element, ...children);
}

// A name somebody else chose: isolated, so that a right-to-left mark in it turns nothing around it.
export function label(text, none = "none") {
  return text === "" || text === null || text === undefined
    ? h("span", { class: "muted" }, none)
    : h("bdi", { class: "name" }, text);
}

let uniqueIds = 0;
export function uniqueId(prefix) {
  uniqueIds += 1;
  return `${prefix}-${uniqueIds}`;
}

// Says it to screen readers without moving the focus.
export function announce(text) {
  document.getElementById("announcements").textContent = text;
}
