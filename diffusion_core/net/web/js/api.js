// The server's answers. The token goes into a header, is kept in this tab only, and never into an address.

const KEY = "unmask.token";
// Said where the server's own words are not JSON: it had not yet looked at what was asked.
const MESSAGES = {
  401: "The token is missing, wrong, expired or revoked.",
  403: "The server does not allow that.",
  429: "Your limit is reached: too many requests in a minute, or at once.",
  503: "The server is busy, or about to stop.",
};

/** What went wrong, by the code of the server's error classes; "offline" when there was no answer at all. */
export class ApiError extends Error {
  constructor(code, message, { status = 0, retryAfter = 0, body = null } = {}) {
    super(message);
    Object.assign(this, { code, status, retryAfter, body });
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

async function send(method, path, body, signal) {
  const headers = { authorization: `Bearer ${token.get()}` };
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal, cache: "no-store", credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("offline", "The server does not answer.");
  }
  if (!response.ok) throw await describe(response);
  return response;
}

async function describe(response) {
  const facts = { status: response.status, retryAfter: Number(response.headers.get("retry-after")) || 0 };
  const codes = { 401: "unauthorized", 403: "forbidden", 404: "not_found", 429: "rate_limited", 503: "overloaded" };
  let code = codes[response.status] ?? "internal";
  let message = MESSAGES[response.status] ?? `The server answered ${response.status}.`;
  if ((response.headers.get("content-type") ?? "").includes("json")) {
    const given = await response.json().catch(() => ({}));
    facts.body = given;
    code = given.code ?? given.error?.code ?? code;
    message = given.message ?? given.error?.message ?? message;
  }
  return new ApiError(code, message, facts);
}

export async function request(method, path, body, signal) {
  const response = await send(method, path, body, signal);
  return response.status === 204 ? null : response.json();
}

export const get = (path, signal) => request("GET", path, undefined, signal);

/** Objects of a stream of JSON lines, as they come. Aborting `signal` closes the connection, which ends the work. */
export async function* lines(path, body, signal) {
  const response = await send("POST", path, body, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new ApiError("offline", "The connection broke before the answer was complete.");
    }
    if (part.done) break;
    const cut = (rest + part.value).split("\n");
    rest = cut.pop();
    for (const line of cut) {
      const item = JSON.parse(line);
      if (item.t === "error") throw new ApiError(item.code, item.message);
      yield item;
      if (item.t === "result") return;
    }
  }
  throw new ApiError("offline", "The connection broke before the answer was complete.");
}
