/** Calls of the tenant's API. Tokens are in cookies that no script can read; the header says that the page calls. */
import type { components } from "../schema";
import { language } from "./language.svelte";

export type Schemas = components["schemas"];
type Method = "GET" | "POST" | "PUT" | "PATCH" | "DELETE";

const API = "/api/v1/";
const PAGE_HEADER = { "x-assistant-page": "1" };

/** What the API, or the way to it, refused; `message` is a sentence in the user's language. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly retryAfter: number | null = null,
  ) {
    super(message);
  }
}

let onSignedOut: () => void = () => undefined;
let refreshing: Promise<boolean> | null = null;

/** What to do once the session cannot go on. */
export function whenSignedOut(act: () => void): void {
  onSignedOut = act;
}

/** Send a request, once more with a fresh access token when the old one has expired; ApiError unless it succeeds. */
export async function send(method: Method, path: string, init: RequestInit = {}): Promise<Response> {
  const request = () => fetched(method, path.startsWith("/") ? path : API + path, init);
  let response = await request();
  if (response.status === 401 && !path.startsWith("auth/cookie/login") && !path.startsWith("auth/cookie/register")) {
    const wrong = await problem(response.clone());
    if (wrong.code === "invalid_credentials") throw wrong; // of a password that is asked for once more
    if (await refreshed()) response = await request();
    if (response.status === 401) onSignedOut();
  }
  if (!response.ok) throw await problem(response);
  return response;
}

/** Send JSON, and return the JSON of the answer. */
export async function call<T>(method: Method, path: string, body?: unknown): Promise<T> {
  const init: RequestInit =
    body === undefined ? {} : { body: JSON.stringify(body), headers: { "content-type": "application/json" } };
  const response = await send(method, path, init);
  const text = await response.text();
  return (text ? JSON.parse(text) : undefined) as T;
}

/** Whether the session goes on: asked once, whoever asks meanwhile. */
export function refreshed(): Promise<boolean> {
  refreshing ??= fetched("POST", `${API}auth/cookie/refresh`, {})
    .then((response) => {
      if (response.status >= 500 || response.status === 429) throw new ApiError(response.status, "", "");
      return response.ok;
    })
    .finally(() => {
      refreshing = null;
    });
  return refreshing;
}

/** The sentence for any error. */
export function wordsOf(error: unknown): string {
  return error instanceof Error && error.message ? error.message : language.t("error.unexpected");
}

async function fetched(method: Method, url: string, init: RequestInit): Promise<Response> {
  const headers = new Headers(init.headers);
  headers.set("accept-language", language.code);
  headers.set("x-assistant-page", PAGE_HEADER["x-assistant-page"]);
  try {
    return await fetch(url, { ...init, method, headers, cache: "no-store" });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", language.t("error.unreachable"));
  }
}

async function problem(response: Response): Promise<ApiError> {
  const wait = Number(response.headers.get("retry-after")) || null;
  try {
    const told = (await response.json()) as Partial<Schemas["Problem"]> & { error?: { message: string; code: string } };
    const detail = told.detail ?? told.error?.message ?? "";
    return new ApiError(response.status, told.code ?? told.error?.code ?? "", detail, wait);
  } catch {
    return new ApiError(response.status, "", language.t("error.unexpected"), wait);
  }
}
