// Where we are: `#/by/team/search?tenant=contoso&range=month`. Everything a page shows follows from it, so that a link
// shows the next person the same.

export function currentRoute() {
  const [path, search] = location.hash.replace(/^#\/?/, "").split("?");
  const query = Object.fromEntries(new URLSearchParams(search ?? ""));
  return { segments: path.split("/").filter(Boolean).map(decoded), query };
}

function decoded(segment) {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

export function linkTo(segments, query = {}) {
  const present = Object.entries(query).filter(([, value]) => value);
  const search = new URLSearchParams(present).toString();
  return `#/${segments.map(encodeURIComponent).join("/")}${search ? `?${search}` : ""}`;
}

const DAY_MS = 86400000;

function startOfMonth(date, back = 0) {
  return new Date(Date.UTC(date.getUTCFullYear(), date.getUTCMonth() - back, 1));
}

export const RANGES = {
  month: { label: "This month", span: (now) => [startOfMonth(now), null] },
  "last-month": { label: "Last month", span: (now) => [startOfMonth(now, 1), startOfMonth(now)] },
  "7d": { label: "Last 7 days", span: (now) => [midnight(now, 6), null] },
  "30d": { label: "Last 30 days", span: (now) => [midnight(now, 29), null] },
  "90d": { label: "Last 90 days", span: (now) => [midnight(now, 89), null] },
};

function midnight(now, daysBack) {
  return new Date(Math.floor(now.getTime() / DAY_MS) * DAY_MS - daysBack * DAY_MS);
}

// The range as the API takes it; `to` is absent for a range that ends now.
export function spanOf(range, now = new Date()) {
  const [from, to] = (RANGES[range] ?? RANGES.month).span(now);
  return { from: from.toISOString(), to: to?.toISOString() };
}

// Every UTC day of a span, so that a day without calls shows as such.
export function daysOf({ from, to }, now = new Date()) {
  const days = [];
  const end = to ? new Date(to).getTime() : now.getTime();
  for (let at = new Date(from).getTime(); at < end; at += DAY_MS) days.push(new Date(at).toISOString().slice(0, 10));
  return days;
}
