/** The list of the user's conversations, and what is done with one of them. */
import { call, type Schemas } from "./api";
import { attempt } from "./notices.svelte";

export type Conversation = Schemas["ConversationView"];
type Page = Schemas["ConversationPage"];
const PAGE = 50;

class Conversations {
  all = $state<Conversation[]>([]);
  words = $state("");
  archived = $state(false);
  more = $state<string | null>(null);
  loading = $state(false);
  private asked = 0;

  async load(): Promise<void> {
    const asked = ++this.asked;
    this.loading = true;
    const page = await attempt(() => call<Page>("GET", `conversations?${this.query()}`));
    if (asked !== this.asked) return; // something else was asked meanwhile
    this.loading = false;
    if (!page) return;
    this.all = page.data;
    this.more = page.next_cursor;
  }

  async loadMore(): Promise<void> {
    const asked = this.asked;
    const page = await attempt(() => call<Page>("GET", `conversations?${this.query()}&cursor=${this.more ?? ""}`));
    if (!page || asked !== this.asked) return;
    const known = new Set(this.all.map((each) => each.id));
    this.all.push(...page.data.filter((each) => !known.has(each.id)));
    this.more = page.next_cursor;
  }

  async change(id: string, change: { title?: string; pinned?: boolean; archived?: boolean }): Promise<boolean> {
    const changed = await attempt(() => call<Conversation>("PATCH", `conversations/${id}`, change));
    if (changed) await this.load();
    return Boolean(changed);
  }

  /** Show it no more; it is deleted by `remove`. */
  hide(id: string): void {
    this.all = this.all.filter((each) => each.id !== id);
  }

  async remove(id: string): Promise<void> {
    await attempt(() => call("DELETE", `conversations/${id}`));
    await this.load();
  }

  private query(): string {
    const words = this.words.trim();
    return `limit=${PAGE}&archived=${this.archived}${words ? `&q=${encodeURIComponent(words)}` : ""}`;
  }
}

export const conversations = new Conversations();
