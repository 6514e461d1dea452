import { h } from "./dom.js";

// Amounts stay the decimal strings that the API sends; a floating-point number is only ever a length on the screen.

const GROUPS = /\B(?=(\d{3})+$)/g;

export function splitMoney(text) {
  const [, sign, whole, fraction] = /^(-?)(\d+)(?:\.(\d+))?$/.exec(text) ?? [];
  if (whole === undefined) return { head: String(text), tail: "" };
  const digits = (fraction ?? "").padEnd(2, "0");
  return { head: `${sign ? "\u2212" : ""}${whole.replace(GROUPS, ",")}.${digits.slice(0, 2)}`, tail: digits.slice(2) };
}

// The whole amount: what is below a cent stands back but is there, padded so that the points of a column align.
export function money(text, tailDigits = 0, none = "unknown") {
  if (text === null || text === undefined) return h("span", { class: "muted" }, none);
  const { head, tail } = splitMoney(text);
  const missing = Math.max(0, tailDigits - tail.length);
  return h(
    "span",
    { class: "money" },
    head,
    tail ? h("span", { class: "below-cent" }, tail) : null,
    missing ? h("span", { class: "pad", "aria-hidden": "true" }, "0".repeat(missing)) : null,
  );
}

export function moneyText(text) {
  if (text === null || text === undefined) return "unknown";
  const { head, tail } = splitMoney(text);
  return `${head}${tail} USD`;
}

// Exact sum of decimal strings, in nano-dollars as a BigInt.
export function nano(text) {
  const [, sign, whole, fraction] = /^(-?)(\d+)(?:\.(\d+))?$/.exec(text ?? "0") ?? [null, "", "0", ""];
  const amount = BigInt(whole) * 1000000000n + BigInt((fraction ?? "").padEnd(9, "0").slice(0, 9));
  return sign ? -amount : amount;
}

export function fromNano(amount) {
  const positive = amount < 0n ? -amount : amount;
  const fraction = (positive % 1000000000n).toString().padStart(9, "0").replace(/0+$/, "").padEnd(2, "0");
  return `${amount < 0n ? "-" : ""}${positive / 1000000000n}.${fraction}`;
}

export function sumMoney(texts) {
  return fromNano(texts.reduce((sum, text) => sum + nano(text), 0n));
}

export function count(number) {
  return new Intl.NumberFormat("en-US").format(number);
}

export function counted(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

export function percent(share, digits = 1) {
  return share === null || Number.isNaN(share) ? "\u2013" : `${(share * 100).toFixed(digits)}\u00a0%`;
}

// An amount on an axis, where there is room for a few characters.
export function axisMoney(value) {
  const format = { notation: value >= 10000 ? "compact" : "standard", maximumSignificantDigits: 3 };
  return new Intl.NumberFormat("en-US", format).format(value);
}

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

export function dayText(iso) {
  const [year, month, day] = iso.slice(0, 10).split("-");
  return `${Number(day)} ${MONTHS[Number(month) - 1]} ${year}`;
}

export function monthText(period) {
  const [year, month] = period.split("-");
  return `${MONTHS[Number(month) - 1] ?? month} ${year}`;
}

export function timeText(iso, seconds = false) {
  if (!iso) return "\u2013";
  const utc = new Date(iso).toISOString();
  return `${dayText(utc)}, ${utc.slice(11, seconds ? 19 : 16)} UTC`;
}

export function time(iso, seconds = false) {
  return iso ? h("time", { datetime: iso, class: "when" }, timeText(iso, seconds)) : h("span", { class: "muted" }, "\u2013");
}

export function sizeText(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
