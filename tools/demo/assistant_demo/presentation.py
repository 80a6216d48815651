"""How the demo shows an answer with its sources, and what to try next."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterable
from string import Template

from assistant_demo.tenant_api import Source
from assistant_demo.terminal import BOLD, CYAN, DIM, Terminal, duration

WIDTH = 100
INDENT = 12
GO_ON = Template("""\
  page     $url   (sign in with what `grep ADMIN $file` shows)
  URL      $url/v1
  shell    set -a; . $file; set +a
  curl     curl "$$ASSISTANT_URL/v1/chat/completions" -H "Authorization: Bearer $$ASSISTANT_API_KEY" \\
             -H 'Content-Type: application/json' \\
             -d '{"model": "$assistant", "messages": [{"role": "user", "content": "What does error E23 mean?"}]}'
  python   import os, openai
           client = openai.OpenAI(
               base_url=os.environ["ASSISTANT_URL"] + "/v1", api_key=os.environ["ASSISTANT_API_KEY"])
           question = [{"role": "user", "content": "Wie hoch ist das Tagegeld?"}]
           print(client.chat.completions.create(model="$assistant", messages=question).choices[0].message.content)
  sign in  curl "$$ASSISTANT_URL/api/v1/auth/login" -H 'Content-Type: application/json' \\
             -d "{\\"email\\": \\"$$ASSISTANT_ADMIN_EMAIL\\", \\"password\\": \\"$$ASSISTANT_ADMIN_PASSWORD\\"}"
  kubectl  kubectl edit asst $assistant -n demo    (KUBECONFIG is in $file too)""")


def show_answer(terminal: Terminal, question: str, answer: Iterable[str | Source]) -> list[Source]:
    """Print an answer as it comes, wrapped, then its sources; returns them."""
    terminal.line()
    terminal.line(f"  {terminal.styled('Question', DIM)}  {question}")
    terminal.write(f"  {terminal.styled('Answer', DIM)}    ")
    started = time.monotonic()
    first: float | None = None
    sources: list[Source] = []
    column = INDENT
    for piece in answer:
        if isinstance(piece, Source):
            if piece not in sources:  # it comes once for each place where the answer cites it
                sources.append(piece)
            continue
        first = first or time.monotonic() - started
        text = piece
        if column + len(piece) > WIDTH and piece[:1].isspace():
            terminal.write("\n" + " " * INDENT)
            column, text = INDENT, piece.lstrip()
        terminal.write(text)
        column += len(text)
    terminal.line()
    for source in sources:
        _show_source(terminal, source)
    if first is not None:
        terminal.line(terminal.styled(f"{' ' * INDENT}first word after {duration(first)}", DIM))
    return sources


def _show_source(terminal: Terminal, source: Source) -> None:
    page = f", page {source.page}" if source.page else ""
    number = terminal.styled(f"[{source.index}]", CYAN)
    terminal.line(f"  {terminal.styled('Source', DIM)}    {number} {source.filename}{page}")
    quote = textwrap.shorten(source.quote, WIDTH - INDENT - 4, placeholder=" …")
    terminal.line(f"{' ' * (INDENT + 4)}{terminal.styled(quote, DIM)}")


def show_how_to_go_on(terminal: Terminal, url: str, file: str, assistant: str) -> None:
    """Print what to try next; `file` holds the addresses."""
    took = terminal.styled(f"(took {duration(terminal.elapsed)}; `make down` takes everything away)", DIM)
    terminal.line()
    terminal.line(f"{terminal.styled('Go on', BOLD)}  {took}")
    terminal.line(GO_ON.substitute(url=url, file=file, assistant=assistant))
