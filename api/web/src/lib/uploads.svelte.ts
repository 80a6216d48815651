/** Uploads with progress, which fetch does not tell. */
import { ApiError, refreshed } from "./api";
import { language } from "./language.svelte";

export class Upload {
  sent = $state(0);
  trouble = $state("");

  constructor(
    readonly key: number,
    readonly name: string,
    readonly size: number,
  ) {}
}

let next = 1;

/** Send a file to a knowledge base; `done` never fails, `shown.trouble` says what was wrong. */
export function upload(base: string, file: File): { shown: Upload; done: Promise<void> } {
  const shown = new Upload(next++, file.name, Math.max(1, file.size));
  const done = (async () => {
    try {
      if ((await sent(base, file, shown)) === 401 && (await refreshed())) await sent(base, file, shown);
    } catch (error) {
      shown.trouble = error instanceof ApiError ? error.message : language.t("error.unexpected");
    }
  })();
  return { shown, done };
}

function sent(base: string, file: File, shown: Upload): Promise<number> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/api/v1/knowledge-bases/${encodeURIComponent(base)}/documents`);
    request.setRequestHeader("x-assistant-page", "1");
    request.setRequestHeader("accept-language", language.code);
    request.upload.onprogress = (event) => {
      shown.sent = Math.min(event.loaded, shown.size);
    };
    request.onerror = () => reject(new ApiError(0, "unreachable", language.t("error.unreachable")));
    request.onload = () => {
      if (request.status < 300 || request.status === 401) resolve(request.status);
      else reject(new ApiError(request.status, "", detailOf(request.responseText)));
    };
    const form = new FormData();
    form.append("file", file);
    request.send(form);
  });
}

function detailOf(text: string): string {
  try {
    return (JSON.parse(text) as { detail?: string }).detail ?? language.t("error.unexpected");
  } catch {
    return language.t("error.unexpected");
  }
}
