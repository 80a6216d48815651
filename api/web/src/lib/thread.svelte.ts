/** One conversation: its active path, and the answer that is being written, followed over lost connections. */
import { ApiError, call, send, wordsOf, type Schemas } from "./api";
import { conversations, type Conversation } from "./conversations.svelte";
import { eventsOf, type ServerEvent } from "./events";
import { language } from "./language.svelte";

export type Message = Schemas["MessageView"];
const PAGE = 50;
const LONGEST_WAIT = 8000; // milliseconds between two attempts to go on
const STREAM = { accept: "text/event-stream" };

interface Started {
  message_id: string;
  user_message_id: string | null;
  omitted_turns: number;
}

export class Thread {
  conversation = $state<Conversation | null>(null);
  messages = $state<Message[]>([]);
  earlier = $state<string | null>(null);
  loading = $state(true);
  trouble = $state("");
  /** Whether an answer is being written, and whether the connection to it is lost at the moment. */
  busy = $state(false);
  reconnecting = $state(false);
  private closed = false;
  private leaving = new AbortController();

  constructor(readonly id: string) {}

  get path(): string {
    return `conversations/${this.id}`;
  }

  /** Leave: the answer goes on without a reader. */
  close(): void {
    this.closed = true;
    this.leaving.abort();
  }

  async load(): Promise<void> {
    try {
      const [conversation, page] = await Promise.all([
        call<Conversation>("GET", this.path),
        call<Schemas["MessagePage"]>("GET", `${this.path}/messages?limit=${PAGE}`),
      ]);
      this.conversation = conversation;
      this.messages = page.data;
      this.earlier = page.next_cursor;
      this.trouble = "";
    } catch (error) {
      this.trouble = wordsOf(error);
    } finally {
      this.loading = false;
    }
    const last = this.messages.at(-1);
    if (last?.status === "running" && !this.busy) await this.follow(last.id, 0);
  }

  async loadEarlier(): Promise<void> {
    const page = await call<Schemas["MessagePage"]>("GET", `${this.path}/messages?limit=${PAGE}&cursor=${this.earlier}`);
    this.messages.unshift(...page.data);
    this.earlier = page.next_cursor;
  }

  /** Say something; ApiError when it could not be said, so that the words can be kept. */
  async say(content: string): Promise<void> {
    const parent = this.messages.at(-1)?.id;
    const body = { content, ...(parent ? { parent_id: parent } : {}) };
    const shown = [...this.messages];
    this.messages.push(draft("user", content));
    await this.ask(`${this.path}/messages`, body, shown);
  }

  async edit(message: Message, content: string): Promise<void> {
    const shown = [...this.messages];
    this.messages = [...this.before(message.id), draft("user", content)];
    await this.ask(`${this.path}/messages/${message.id}/edit`, { content }, shown);
  }

  async regenerate(message: Message): Promise<void> {
    const shown = [...this.messages];
    this.messages = this.before(message.id);
    await this.ask(`${this.path}/messages/${message.id}/regenerate`, undefined, shown);
  }

  async stop(): Promise<void> {
    const last = this.messages.at(-1);
    if (last && last.id !== "") await call("POST", `${this.path}/messages/${last.id}/stop`);
  }

  /** Show another version of a message, with what follows it. */
  async activate(id: string): Promise<void> {
    await call("PUT", `${this.path}/active`, { message_id: id });
    await this.load();
  }

  async rate(message: Message, rating: "up" | "down" | null, comment: string | null = null): Promise<void> {
    const path = `${this.path}/messages/${message.id}/feedback`;
    if (rating === null) await call("DELETE", path);
    else await call("PUT", path, { rating, ...(comment ? { comment } : {}) });
    message.feedback = rating === null ? null : { rating, comment };
  }

  private before(id: string): Message[] {
    const place = this.messages.findIndex((each) => each.id === id);
    return place < 0 ? [...this.messages] : this.messages.slice(0, place);
  }

  private async ask(path: string, body: object | undefined, shown: Message[]): Promise<void> {
    this.busy = true;
    this.messages.push(draft("assistant", ""));
    // The same key finds the same answer: what was sent and not heard of is safe to send again.
    const headers: Record<string, string> = { ...STREAM, "idempotency-key": randomKey() };
    if (body) headers["content-type"] = "application/json";
    const init: RequestInit = { headers, signal: this.leaving.signal };
    if (body) init.body = JSON.stringify(body);
    let response: Response;
    try {
      response = await this.patiently(() => send("POST", path, init), 3);
    } catch (error) {
      this.busy = false;
      if (this.closed) return;
      this.messages = shown;
      throw error;
    }
    await this.listen(response);
    if (!this.closed) await this.load(); // the ids of new versions
    void conversations.load();
  }

  private async follow(id: string, place: number): Promise<void> {
    this.busy = true;
    const answer = this.messages.at(-1);
    if (answer && place === 0) answer.content = "";
    const response = await this.attach(id, place);
    if (response) await this.listen(response);
    else this.busy = false;
    if (response && !this.closed) await this.load();
  }

  private async attach(id: string, place: number): Promise<Response | null> {
    const headers: Record<string, string> = place > 0 ? { ...STREAM, "last-event-id": String(place) } : STREAM;
    const init = { headers, signal: this.leaving.signal };
    try {
      const response = await this.patiently(() => send("GET", `${this.path}/messages/${id}/events`, init), Infinity);
      return response.status === 204 ? null : response;
    } catch {
      return null;
    }
  }

  /** Follow an answer to its end, going on from the last place whenever the connection is lost. */
  private async listen(first: Response): Promise<void> {
    let response: Response | null = first;
    let id = this.messages.at(-1)?.id ?? "";
    let place = 0;
    while (response?.body && !this.closed) {
      try {
        for await (const event of eventsOf(response.body)) {
          if (this.closed) return;
          this.reconnecting = false;
          place = Number.parseInt(event.id, 10) || place;
          if (this.take(event)) {
            this.busy = false;
            return;
          }
          id = this.messages.at(-1)?.id ?? id;
        }
      } catch {
        // The connection broke; what was written meanwhile comes with the next one.
      }
      if (this.closed || !id) break;
      this.reconnecting = true;
      response = await this.attach(id, place);
    }
    this.reconnecting = false;
    this.busy = false;
  }

  /** Show what an event says; true at the last one. */
  private take(event: ServerEvent): boolean {
    const last = this.messages.at(-1);
    if (!last) return true;
    const data: unknown = JSON.parse(event.data);
    if (event.name === "message.delta") {
      last.content += (data as { text: string }).text;
    } else if (event.name === "message.started") {
      const started = data as Started;
      last.id = started.message_id;
      last.omitted_turns = started.omitted_turns;
      const asked = this.messages.at(-2);
      if (asked?.id === "" && started.user_message_id) asked.id = started.user_message_id;
    } else {
      this.messages[this.messages.length - 1] = data as Message;
      return true;
    }
    return false;
  }

  /** Do it again while the API cannot be reached, up to `times`; the waits grow. */
  private async patiently(act: () => Promise<Response>, times: number): Promise<Response> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await act();
      } catch (error) {
        const away = error instanceof ApiError && (error.status === 0 || error.status === 502 || error.code === "shutting_down");
        if (!away || attempt >= times || this.closed) throw error;
        this.reconnecting = true;
        await new Promise((resolve) => setTimeout(resolve, Math.min(LONGEST_WAIT, 300 * 2 ** attempt)));
      } finally {
        if (times < Infinity) this.reconnecting = false;
      }
    }
  }
}

/** 128 random bits; `crypto.randomUUID` is there over TLS only. */
function randomKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function draft(role: "user" | "assistant", content: string): Message {
  return {
    id: "",
    parent_id: null,
    role,
    content,
    status: role === "user" ? "complete" : "running",
    error: null,
    model: null,
    annotations: [],
    usage: null,
    omitted_turns: 0,
    siblings: [],
    feedback: null,
    created_at: new Date().toISOString(),
    finished_at: null,
  };
}

/** The file that an export is, saved under its name. */
export async function saveExport(id: string, format: "markdown" | "json"): Promise<void> {
  const response = await send("GET", `conversations/${id}/export?format=${format}`);
  save(await response.blob(), `conversation-${id.slice(0, 8)}.${format === "json" ? "json" : "md"}`);
}

/** Hand a file to the user. */
export function save(content: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** A conversation's title, or what stands for one. */
export function titleOf(conversation: Conversation): string {
  return conversation.title?.trim() || language.t("chat.untitled");
}
