/** The page's sentences, of one language at a time, from the API's catalogues. */
const RIGHT_TO_LEFT = new Set(["ar", "fa", "he", "ur"]);
const KEPT = "assistant.language";
const FALLBACK = "en";

interface Catalogue {
  languages: string[];
  texts: Record<string, string>;
}

class Language {
  code = $state(FALLBACK);
  all = $state<string[]>([FALLBACK]);
  private texts = $state.raw<Record<string, string>>({});

  /** The sentence of a key with its placeholders filled; the key where the catalogue could not be had. */
  t = (key: string, values: Record<string, string | number> = {}): string =>
    (this.texts[key] ?? key).replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole));

  /** Change the language, for all that is shown at once. */
  async choose(code: string): Promise<void> {
    const found = await load(code);
    if (!found) return;
    this.texts = found.texts;
    this.all = found.languages;
    this.code = code;
    localStorage.setItem(KEPT, code);
    document.documentElement.lang = code;
    document.documentElement.dir = RIGHT_TO_LEFT.has(code) ? "rtl" : "ltr";
  }

  /** A language's own name. */
  nameOf(code: string): string {
    return new Intl.DisplayNames([code], { type: "language" }).of(code) ?? code;
  }

  number(value: number, options: Intl.NumberFormatOptions = {}): string {
    return new Intl.NumberFormat(this.code, options).format(value);
  }

  size(bytes: number): string {
    const unit = bytes < 1e6 ? ["kilobyte", 1e3] : ["megabyte", 1e6];
    const options: Intl.NumberFormatOptions = { style: "unit", unit: unit[0] as string, maximumFractionDigits: 1 };
    return this.number(bytes / (unit[1] as number), options);
  }

  time(moment: string): string {
    return new Intl.DateTimeFormat(this.code, { dateStyle: "medium", timeStyle: "short" }).format(new Date(moment));
  }

  day(moment: string): string {
    return new Intl.DateTimeFormat(this.code, { dateStyle: "medium" }).format(new Date(moment));
  }
}

export const language = new Language();

/** Begin with the language chosen before, else the browser's, else English. */
export async function startLanguage(): Promise<void> {
  const wanted = localStorage.getItem(KEPT) ?? navigator.language.split("-")[0] ?? FALLBACK;
  await language.choose(wanted);
  if (!language.t("app.name").includes(" ") && language.t("app.name") === "app.name") await language.choose(FALLBACK);
}

async function load(code: string): Promise<Catalogue | null> {
  try {
    const response = await fetch(`/api/v1/locales/${encodeURIComponent(code)}`);
    return response.ok ? ((await response.json()) as Catalogue) : null;
  } catch {
    return null;
  }
}
