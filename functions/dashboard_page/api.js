// Questions to the API of the same origin. The session's cookie goes along by itself; nothing is kept in the browser.

export const BASE = location.pathname.replace(/\/dashboard\/?$/, "");

export class ApiError extends Error {
  constructor(status, code, message, requestId) {
    super(message);
    this.status = status;
    this.code = code;
    this.requestId = requestId;
  }
}

export async function ask(path, { query = {}, method = "GET", body, signal, headers = {} } = {}) {
  const present = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const search = new URLSearchParams(present).toString();
  let response;
  try {
    response = await fetch(`${BASE}${path}${search ? `?${search}` : ""}`, {
      method,
      signal,
      cache: "no-store",
      credentials: "same-origin",
      headers: body === undefined ? headers : { "content-type": "application/json", ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "The server could not be reached. Check your connection and try again.", null);
  }
  const answer = await response.json().catch(() => null);
  if (response.ok) return answer;
  const said = answer?.error ?? {};
  throw new ApiError(
    response.status,
    said.code ?? `http_${response.status}`,
    said.message ?? "The server answered without saying why.",
    response.headers.get("x-request-id"),
  );
}

// Several panels may show parts of one answer: it is asked for once, and once more after it failed.
export function shared(load) {
  let asked = null;
  return () => {
    asked ??= load().catch((error) => {
      asked = null;
      throw error;
    });
    return asked;
  };
}

export function address(path, query) {
  const search = new URLSearchParams(query).toString();
  return `${BASE}${path}${search ? `?${search}` : ""}`;
}

export const encoded = encodeURIComponent;
