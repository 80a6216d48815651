/** Short messages about what just happened; they go by themselves. */
import { wordsOf } from "./api";

export interface Notice {
  id: number;
  words: string;
  kind: "done" | "wrong";
  undo?: () => void;
  undoWords?: string;
}

class Notices {
  all = $state<Notice[]>([]);
  private next = 1;

  say(words: string, more: Partial<Notice> = {}, seconds = 5): number {
    const id = this.next++;
    this.all.push({ id, words, kind: "done", ...more });
    setTimeout(() => this.drop(id), seconds * 1000);
    return id;
  }

  wrong(error: unknown): void {
    this.say(wordsOf(error), { kind: "wrong" }, 9);
  }

  drop(id: number): void {
    this.all = this.all.filter((notice) => notice.id !== id);
  }
}

export const notices = new Notices();

/** Do something, and say so when it goes wrong. */
export async function attempt<T>(act: () => Promise<T>): Promise<T | undefined> {
  try {
    return await act();
  } catch (error) {
    notices.wrong(error);
    return undefined;
  }
}
