import { h, s } from "./dom.js";
import { axisMoney, dayText } from "./format.js";

// Charts in SVG, drawn at the width there is. Each carries a sentence for those who do not see it, and a table below.

const HEIGHT = 220;
const MARGIN = { top: 12, right: 12, bottom: 26, left: 52 };

// `draw(width)` gives the children of an <svg>; it is called again when the width changes.
function chart(sentence, draw, details) {
  const svg = s("svg", { class: "chart", role: "img", "aria-label": sentence, height: HEIGHT, width: "100%" });
  const figure = h("figure", { class: "figure-box" }, svg, details);
  let last = 0;
  new ResizeObserver(() => {
    const width = Math.floor(figure.clientWidth);
    if (width === last || width === 0) return;
    last = width;
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    svg.replaceChildren(...draw(width).filter(Boolean));
  }).observe(figure);
  return figure;
}

// A round number at or above the largest value, with four steps below it.
export function niceTop(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10].map((factor) => factor * power).find((top) => top >= value);
}

function frame(width, top, days) {
  const inner = { left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top, bottom: HEIGHT - MARGIN.bottom };
  const y = (value) => inner.bottom - (value / top) * (inner.bottom - inner.top);
  const lines = [0, 0.25, 0.5, 0.75, 1].flatMap((part) => {
    const at = y(part * top);
    return [
      s("line", { x1: inner.left, x2: inner.right, y1: at, y2: at, class: part === 0 ? "axis" : "grid" }),
      s("text", { x: inner.left - 8, y: at + 4, class: "tick", "text-anchor": "end" }, axisMoney(part * top)),
    ];
  });
  const step = (inner.right - inner.left) / Math.max(1, days.length);
  const every = Math.max(1, Math.ceil(64 / step));
  const labels = days.map((day, at) =>
    at % every === 0
      ? s("text", { x: inner.left + step * (at + 0.5), y: HEIGHT - 8, class: "tick", "text-anchor": "middle" }, dayText(day).slice(0, -5))
      : null,
  );
  return { inner, y, step, drawn: [...lines, ...labels] };
}

// One bar per day; `parts` stack from the bottom, each {name, className, values}.
export function dailyBars(sentence, days, parts, details) {
  const totals = days.map((_, at) => parts.reduce((sum, part) => sum + part.values[at], 0));
  const top = niceTop(Math.max(0, ...totals));
  return chart(
    sentence,
    (width) => {
      const { y, step, inner, drawn } = frame(width, top, days);
      const bars = days.flatMap((day, at) => {
        let below = 0;
        return parts.map((part) => {
          const value = part.values[at];
          const x = inner.left + step * at + step * 0.14;
          const rect = s(
            "rect",
            { x, y: y(below + value), width: Math.max(1, step * 0.72), height: Math.max(0, y(below) - y(below + value)), class: part.className },
            s("title", {}, `${dayText(day)}: ${part.name} ${axisMoney(value)} USD`),
          );
          below += value;
          return rect;
        });
      });
      return [...drawn, ...bars];
    },
    details,
  );
}

// Spend added up over the days of a period; from today on the forecast with its band; a line at the limit.
export function cumulativeBand(sentence, days, sums, forecast, limit, details) {
  const last = sums.length - 1;
  const top = niceTop(Math.max(0, ...sums, forecast ? Math.max(forecast.at(-1).value, forecast.at(-1).high ?? 0) : 0, limit ?? 0));
  return chart(
    sentence,
    (width) => {
      const { y, step, inner, drawn } = frame(width, top, days);
      const x = (at) => inner.left + step * (at + 0.5);
      const points = (values, from = 0) => values.map((value, at) => `${x(from + at)},${y(value)}`).join(" ");
      const marks = [...drawn];
      if (forecast) {
        if (forecast.at(-1).low !== null) {
          const edge = (name) => [sums[last], ...forecast.map((each) => each[name])].map((value, at) => `${x(last + at)},${y(value)}`);
          marks.push(s("polygon", { points: [...edge("high"), ...edge("low").reverse()].join(" "), class: "band" }));
        }
        marks.push(s("polyline", { points: points([sums[last], ...forecast.map((each) => each.value)], last), class: "line expected" }));
      }
      if (sums.length) {
        marks.push(s("polyline", { points: points(sums), class: "line actual" }));
        marks.push(s("circle", { cx: x(last), cy: y(sums[last]), r: 3.5, class: "now" }));
      }
      if (limit) {
        marks.push(s("line", { x1: inner.left, x2: inner.right, y1: y(limit), y2: y(limit), class: "limit" }));
        marks.push(s("text", { x: inner.right, y: y(limit) - 5, class: "tick limit-text", "text-anchor": "end" }, "limit"));
      }
      return marks;
    },
    details,
  );
}

export function legend(...entries) {
  return h("p", { class: "legend" }, entries.map(([className, text]) => h("span", {}, h("span", { class: `key ${className}`, "aria-hidden": "true" }), text)));
}

export function asTable(element) {
  return h("details", { class: "as-table" }, h("summary", {}, "The same as a table"), element);
}
