/** Light, dark, or as the system has it. */
const KEPT = "assistant.theme";
export type Theme = "system" | "light" | "dark";

class ThemeChoice {
  current = $state<Theme>("system");

  constructor() {
    const kept = localStorage.getItem(KEPT);
    if (kept === "light" || kept === "dark") this.choose(kept);
  }

  choose(theme: Theme): void {
    this.current = theme;
    localStorage.setItem(KEPT, theme);
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  }
}

export const theme = new ThemeChoice();
