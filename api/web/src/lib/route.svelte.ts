/** Where the user is: the parts of the address after `#/`. */
class Route {
  parts = $state<string[]>([]);

  constructor() {
    const read = () => {
      this.parts = location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decoded);
    };
    addEventListener("hashchange", read);
    read();
  }

  get room(): string {
    return this.parts[0] ?? "";
  }

  go(...parts: string[]): void {
    location.hash = `#/${parts.map(encodeURIComponent).join("/")}`;
  }
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export const route = new Route();
