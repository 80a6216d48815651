/** Who is signed in. */
import { ApiError, call, whenSignedOut, wordsOf, type Schemas } from "./api";
import { language } from "./language.svelte";

type User = Schemas["UserView"];
const RANKS = ["viewer", "member", "admin", "owner"];

class Session {
  user = $state<User | null>(null);
  /** Why nobody knows who is signed in: the API does not answer. */
  trouble = $state("");

  async start(): Promise<void> {
    whenSignedOut(() => {
      this.user = null;
    });
    await this.load();
  }

  async load(): Promise<void> {
    try {
      this.user = await call<User>("GET", "users/me");
      this.trouble = "";
      if (this.user.language && this.user.language !== language.code) await language.choose(this.user.language);
    } catch (error) {
      this.user = null;
      this.trouble = error instanceof ApiError && error.status === 401 ? "" : wordsOf(error);
    }
  }

  async signIn(email: string, password: string): Promise<void> {
    await call("POST", "auth/cookie/login", { email, password });
    await this.load();
  }

  async register(asked: { email: string; password: string; name: string; invitation?: string }): Promise<void> {
    await call("POST", "auth/cookie/register", asked);
    await this.load();
  }

  async signOut(): Promise<void> {
    await call("POST", "auth/cookie/logout");
    for (const key of Object.keys(localStorage)) if (key.startsWith("assistant.draft.")) localStorage.removeItem(key);
    this.user = null;
    location.hash = "#/";
  }

  /** Whether the user's role may do what `role` may. */
  may(role: "member" | "admin" | "owner"): boolean {
    return RANKS.indexOf(this.user?.role ?? "") >= RANKS.indexOf(role);
  }
}

export const session = new Session();
