/** Markdown as a tree of tokens, which components show as nodes: no string ever becomes markup. */
import { Lexer, type Token, type Tokens } from "marked";

export type { Token, Tokens };

/** The blocks of a text. HTML in it is a token like any other, and is shown as the text that it is. */
export function blocksOf(text: string): Token[] {
  return new Lexer({ gfm: true, breaks: false }).lex(text);
}

/** Where a link may lead: the web and mail; null for anything else, such as `javascript:`. */
export function safeLink(href: string): URL | null {
  if (!URL.canParse(href)) return null;
  const url = new URL(href);
  return ["http:", "https:", "mailto:"].includes(url.protocol) ? url : null;
}

export type Piece = { text: string } | { mark: number };

/** A text cut at its citations `[n]`, of which only the `known` ones count. */
export function piecesOf(text: string, known: ReadonlySet<number>): Piece[] {
  const pieces: Piece[] = [];
  let from = 0;
  for (const found of text.matchAll(/\[(\d{1,3})\]/g)) {
    const mark = Number(found[1]);
    if (!known.has(mark)) continue;
    if (found.index > from) pieces.push({ text: text.slice(from, found.index) });
    pieces.push({ mark });
    from = found.index + found[0].length;
  }
  if (from < text.length) pieces.push({ text: text.slice(from) });
  return pieces;
}

const ENTITIES: Record<string, string> = { "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'" };

/** The text of a token whose characters the lexer may have escaped. */
export function plain(text: string): string {
  return text.replace(/&(?:amp|lt|gt|quot|#39);/g, (entity) => ENTITIES[entity] ?? entity);
}
